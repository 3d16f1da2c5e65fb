"""Non-blocking connections: receive, queue, flush, close."""

from collections.abc import Callable
from typing import Any, final

from ._protocol import BaseTransport

@final
class Connections:
    """All connections of one loop, and the buffers they share.

    `handlers` maps a descriptor to its Transport or to a callable that is
    called when it becomes readable.
    """

    write_timeout: float
    max_queued: int
    max_held: int
    notify_closed: bool
    def __new__(
        cls,
        server: Any,
        poller: Any,
        rx_size: int,
        write_timeout: float,
        max_queued: int,
        max_held: int,
    ) -> Connections: ...
    @property
    def server(self) -> Any: ...
    @property
    def handlers(self) -> dict[int, Any]: ...
    @property
    def count(self) -> int: ...
    @property
    def now(self) -> float: ...
    @property
    def held(self) -> int: ...
    def enter(self) -> None:
        """This thread is the loop's from now on."""

    def dispatch(self, events: list[tuple[int, int]]) -> float:
        """Handle the poller's events; the loop's time in seconds."""

    def flush(self) -> bool:
        """Send what was queued outside of an event; True if more waits."""

    def accept(
        self, listener: int, factory: Callable[..., Any], limit: int
    ) -> int:
        """Accept until none waits or `limit` is reached; 0 or an errno."""

    def sweep(self) -> None:
        """Tell every connection whose deadline has passed."""

    def drain(self) -> None:
        """Ask every protocol to come to its end."""

    def abort(self) -> None:
        """Close every connection at once."""

    def transports(self) -> list[Transport]:
        """The open connections."""

@final
class Transport(BaseTransport):
    """One connection: its descriptor and every byte not yet sent."""

    def fileno(self) -> int:
        """The descriptor; -1 once it is closed."""

    def getsockname(self) -> Any:
        """Our side's address. Raises OSError once it is closed."""

    def put_nowait(self, data: bytes) -> None:
        """As `write`."""

    def get_nowait(self) -> bytes:
        """Take the oldest unsent message back, or raise queue.Empty."""

    def empty(self) -> bool:
        """True if everything is sent."""
