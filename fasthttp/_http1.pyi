"""One HTTP/1.1 connection: requests in order, one answer for each."""

from collections.abc import Callable, Iterable
from typing import Any, ClassVar

from typing_extensions import disjoint_base

from ._parser import RequestHead
from ._protocol import BaseProtocol
from ._store import Store
from .config import Config

_AccessLog = Callable[[str, str, int, int, str, str], object]

@disjoint_base
class HttpContext:
    """What all connections of one loop and configuration share."""

    def __init__(
        self, config: Config | None, access_log: _AccessLog | None
    ) -> None: ...
    @property
    def store(self) -> Store: ...

@disjoint_base
class Request(RequestHead):
    """A whole request, its body collected."""

    @property
    def remote(self) -> Any:
        """The client's address: (host, port, ...), or "" if it has none."""

    @property
    def body(self) -> bytes:
        """The whole body; reads it into memory if it is in a file."""

    @property
    def stream(self) -> Any:
        """The body as a binary file, from its start."""

@disjoint_base
class HttpProtocol(BaseProtocol):
    """Serves HTTP/1.1 on one connection; override `on_request`.

    `config` and `access_log` are read from the class, once for each server;
    the latter is called as `log.AccessLog`, without `self`. Of `config`
    counts what concerns requests; what is unsent is bounded by the server's
    attributes: `WRITE_TIMEOUT`, `MAX_QUEUED`, `MAX_QUEUED_TOTAL`.

    Requests come one at a time; the next one when the answer has ended, and
    not before `respond` or `end` have returned. The answer is `respond`, or
    `start`, `write` any number of times, `end`, from the loop's thread, now
    or later. Once the client is gone or has its last answer they do nothing;
    `on_connection_closed` tells of it. Bytes and deadlines are its own:
    `on_data_received` and `on_deadline` of a subclass are not called.
    """

    config: ClassVar[Config | None]
    # An _AccessLog or None; checkers take a Callable here for a method.
    access_log: ClassVar[Any]
    def on_request(self, request: Request) -> None:
        """A request has arrived whole; answers 404 unless overridden.

        An exception is logged. If nothing was answered, it is by 500, and
        the connection ends.
        """

    def on_shutdown(self) -> None:
        """The server stops; ends what would go on, such as a stream.

        Nothing has to be done: requests under way are answered, then the
        connection is closed.
        """

    def respond(
        self,
        status: int | str,
        headers: Iterable[tuple[str, str]] = (),
        body: str | bytes = b"",
    ) -> None:
        """Answer with a whole body; text is sent as UTF-8.

        Raises AppError if no request waits for an answer, in a thread that
        is not the loop's, or for a status or header that may not reach the
        wire.
        """

    def start(
        self, status: int | str, headers: Iterable[tuple[str, str]] = ()
    ) -> None:
        """Begin an answer whose body comes by `write`; AppError as above.

        Without a Content-Length the body is sent in chunks, or to a client
        of HTTP/1.0 until the connection closes.
        """

    def write(self, data: str | bytes) -> None:
        """Send a part of the body; AppError before `start`, as above."""

    def end(self) -> None:
        """The answer is complete; AppError before `start`."""
