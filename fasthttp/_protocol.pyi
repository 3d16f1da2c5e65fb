"""The seam between sockets and protocols."""

from typing import Any

from typing_extensions import disjoint_base

@disjoint_base
class BaseTransport:
    """What a protocol may ask of its connection.

    Sizes are bytes, times are seconds. All but `write`, `close` and `abort`
    belong to the loop's thread. A test drives a protocol with a subclass
    that overrides what it wants to see.
    """

    def getpeername(self) -> Any:
        """The peer's address: (host, port, ...) or "" for a Unix socket."""

    def getsockname(self) -> Any:
        """Our side's address. Raises OSError once it is closed."""

    def write(self, data: bytes) -> int:
        """Queue `data`; never blocks, and sends in order."""

    def write_file(
        self, owner: object, fd: int, offset: int, count: int
    ) -> int:
        """Queue `count` bytes of a file; `owner` keeps `fd` open."""

    def flush(self) -> int:
        """Offer what is queued to the kernel now."""

    def flush_soon(self) -> int:
        """Let what is queued leave within 10 ms, whatever the caller does.

        More that is written meanwhile may leave with it.
        """

    def enter(self) -> bool:
        """Begin a turn in which writes are gathered; False if in one."""

    def leave(self) -> int:
        """End the turn that `enter` began: send what was written in it."""

    def queued(self) -> int:
        """How many bytes are not sent yet."""

    def full(self) -> bool:
        """Whether so much is queued that it is better to send no more.

        If so, `on_resume_writing` is called once most of it is sent.
        """

    def now(self) -> float:
        """The time of the loop's clock, which never jumps."""

    def has_input(self) -> bool:
        """Whether the peer has sent bytes that are not received yet."""

    def set_deadline(self, seconds: float) -> float:
        """Call the protocol's `on_deadline` in `seconds`; 0 takes it back.

        Returns the time of `now()`.
        """

    def pause_reading(self) -> int:
        """Hand over no more data until `resume_reading`."""

    def resume_reading(self) -> int:
        """Hand over data again."""

    def close(self) -> int:
        """Close once everything queued is sent."""

    def close_lingering(self) -> int:
        """As `close`, then discard input for a while (RFC 9112, 9.6).

        A client that is still sending reads the answer, not a reset.
        """

    def abort(self) -> int:
        """Close at once, by a reset; what is queued is lost."""

@disjoint_base
class BaseProtocol:
    """One connection as a user of the server sees it.

    Calls come as `on_new_connection`, `on_data_received` any number of
    times, `on_connection_closed` exactly once, all from the loop's thread.
    An exception in a hook is logged and ends this connection only.
    """

    @property
    def server(self) -> Any:
        """The AsyncSocketServer."""

    @property
    def trans(self) -> Any:
        """The connection: `fileno`, `getpeername`, `getsockname` and more."""

    @property
    def _mqueue(self) -> Any: ...
    def __init__(self, server: Any, sk_client: Any, mqueue: Any) -> None: ...
    def on_new_connection(self, address: Any) -> None:
        """A client has connected from `address`."""

    def on_data_received(self, data: bytes) -> None:
        """`data`, never empty, has arrived; not aligned to messages."""

    def on_connection_closed(self) -> None:
        """The connection is gone, whoever ended it."""

    def on_pause_writing(self) -> None:
        """More is queued than the client reads; better send no more."""

    def on_resume_writing(self) -> None:
        """The client has read most of it; send on."""

    def on_deadline(self) -> None:
        """The time set by `trans.set_deadline` is over; aborts."""

    def on_shutdown(self) -> None:
        """The server stops; closes once everything queued is sent."""

    def send(self, data: str | bytes) -> None:
        """Send `data`, text as UTF-8; never blocks; from any thread."""

    def close_socket_connection(self) -> None:
        """Close once everything queued is sent; from any thread."""
