"""Non-blocking connections: receive, queue, flush, close."""

from collections.abc import Callable
from typing import Any, final

from ._poller import EpollPoller, Events, SelectorPoller
from ._protocol import BaseTransport

@final
class Connections:
    """All connections of one loop, and the buffers they share.

    Their sizes and limits are what the server's attributes say.
    """

    max_queued_total: int
    linger_total: float
    notify_closed: bool
    def __new__(
        cls, server: Any, poller: EpollPoller | SelectorPoller
    ) -> Connections: ...
    @property
    def server(self) -> Any: ...
    @property
    def count(self) -> int: ...
    @property
    def now(self) -> float: ...
    @property
    def held(self) -> int: ...
    def start(self) -> None:
        """This thread is the loop's from now on; start the flusher's."""

    def set_handler(self, fd: int, handler: Any) -> None:
        """What is called when the descriptor is readable; None: nothing."""

    def dispatch(self, events: Events) -> float:
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
        """Close every connection at once; raise what an exit raises then."""

    def close_copies(self) -> None:
        """In a child: leave to the parent what was inherited from it."""

    def transports(self) -> list[Transport]:
        """The open connections."""

def tell(log: Callable[..., None], *args: Any, **about: Any) -> int:
    """Call a method of a logger, whose filters and handlers may fail."""

@final
class Transport(BaseTransport):
    """One connection: its descriptor and every byte not yet sent."""

    def __new__(cls, owner: Connections) -> Transport: ...
    def fileno(self) -> int:
        """The descriptor; -1 once it is closed."""

    def put_nowait(self, data: bytes) -> None:
        """As `write`."""

    def get_nowait(self) -> bytes:
        """Take the oldest unsent message back, or raise queue.Empty."""

    def empty(self) -> bool:
        """True if everything is sent."""
