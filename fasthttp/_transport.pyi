"""Non-blocking connections: receive, queue, flush, close."""

from collections.abc import Callable
from socket import socket
from typing import Any, ClassVar, final

from ._protocol import BaseTransport

@final
class Events:
    """What one poll found: descriptors, each with a mask of poll(2)."""

    def __new__(cls, room: int) -> Events: ...
    def clear(self) -> None:
        """Forget what the last poll found."""

    def add(self, fd: int, mask: int) -> None:
        """One more, if there is room; else the next poll finds it."""

@final
class Gate:
    """What one thread waits at; it shuts behind it."""

    def wait(self) -> int:
        """Pass, once it is open; other threads may run meanwhile."""

    def open(self) -> None:
        """Let the thread pass, now or when it comes."""

@final
class EpollPoller:
    """epoll(7), which fills `Events` without a Python object for each.

    Every method raises OSError as the system call does. Where it is used,
    several clients are sent to by one call of io_uring(7) if that is allowed.
    """

    joins_sends: ClassVar[bool]

    def register(self, fd: int, mask: int) -> None:
        """Watch a descriptor for a mask of poll(2)."""

    def modify(self, fd: int, mask: int) -> None:
        """Watch it for another mask."""

    def unregister(self, fd: int) -> None:
        """Watch it no more."""

    def open_soon(self, gate: Gate) -> None:
        """Open it in the next poll, when the interpreter is free."""

    def poll(self, until: float, events: Events) -> None:
        """Wait until an event, a signal, or that time.monotonic() (or inf)."""

    def close(self) -> None:
        """Give the descriptor back."""

@final
class Connections:
    """All connections of one loop, and the buffers they share.

    Their sizes and limits are what the server's attributes say.
    """

    max_queued_total: int
    linger_total: float
    notify_closed: bool
    def __new__(cls, server: Any, poller: Any) -> Connections: ...
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

def monotonic() -> float:
    """The time of deadlines, in seconds; time.monotonic may be another's."""

def tell(log: Callable[..., None], *args: Any, **about: Any) -> int:
    """Call a method of a logger, whose filters and handlers may fail."""

def wake(sock: socket) -> bool:
    """Make the other end of a socket pair readable; False if that failed."""

def sleep_again(fd: int) -> None:
    """Take what `wake` has sent."""

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
