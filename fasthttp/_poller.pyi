"""Wait for descriptors, for a time, and for a call from another thread."""

from socket import socket
from typing import ClassVar, final

@final
class Events:
    """What one poll found: descriptors, each with a mask of poll(2)."""

    def __new__(cls, room: int) -> Events: ...

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

class SelectorPoller:
    """The same by `selectors`, on any POSIX system."""

    joins_sends: ClassVar[bool]

    def register(self, fd: int, mask: int) -> None:
        """Watch a descriptor, or watch it for another mask."""

    def modify(self, fd: int, mask: int) -> None:
        """As `register`."""

    def unregister(self, fd: int) -> None:
        """Watch it no more, if it is watched."""

    def open_soon(self, gate: Gate) -> None:
        """Open it at once."""

    def poll(self, until: float, events: Events) -> None:
        """As `EpollPoller.poll`; all descriptors get their turn."""

    def close(self) -> None:
        """Let go of all of them."""

def make_poller() -> EpollPoller | SelectorPoller:
    """The system's best."""

def monotonic() -> float:
    """The time of deadlines, in seconds; time.monotonic may be another's."""

def wake(sock: socket) -> bool:
    """Make the other end of a socket pair readable; False if that failed."""

def sleep_again(fd: int) -> None:
    """Take what `wake` has sent."""
