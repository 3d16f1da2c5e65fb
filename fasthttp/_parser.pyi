"""An incremental, strict parser of HTTP/1.1 requests (RFC 9112); no I/O."""

from typing import final

from typing_extensions import Buffer, disjoint_base

from ._fields import FieldMemo
from .config import Config

VECTORS: tuple[str, ...]

def scans_agree(data: bytes) -> bool:
    """True if all forms of a scan find the same in `data`."""

def percent_decoded(text: bytes) -> bytes:
    """RFC 3986, 2.1; what is no escape stays as it is."""

@disjoint_base
class RequestHead:
    """What stands before a body: request line and header fields."""

    @property
    def method(self) -> str:
        """The method as sent; methods are case-sensitive."""

    @property
    def target(self) -> str:
        """The request target as sent (RFC 9112, 3.2)."""

    @property
    def path(self) -> str:
        """The target's path, percent-decoded as UTF-8 (surrogateescape)."""

    @property
    def query(self) -> str:
        """What follows the target's "?", not decoded."""

    @property
    def authority(self) -> str:
        """host[:port] of the target if it has one, else the Host field."""

    @property
    def version(self) -> str:
        """ "1.1" or "1.0"."""

    @property
    def keep_alive(self) -> bool:
        """Whether the client wants the connection to persist."""

    @property
    def headers(self) -> list[tuple[str, str]]:
        """(name in lower case, value as latin-1), in the order sent."""

    def header(self, name: str, default: str | None = None) -> str | None:
        """The field's value, repeats joined by ", "; else `default`.

        Those of Cookie are joined by "; ", as HTTP/2 has it.
        """

@final
class EndOfMessage:
    """The request is complete; `trailers` are as `RequestHead.headers`."""

    @property
    def trailers(self) -> list[tuple[str, str]]: ...
    def __init__(self, trailers: list[tuple[str, str]]) -> None: ...
    def __eq__(self, other: object, /) -> bool: ...

@final
class RequestParser:
    """Turns bytes, cut anywhere, into the requests they hold.

    A request over a limit of `config` raises PeerError with 414 (line), 431
    (fields, field size, head) or 413 (body, the extensions of all its
    chunks); the message names the limit.
    """

    def __new__(
        cls, config: Config | None = None, memo: FieldMemo | None = None
    ) -> RequestParser: ...
    def receive_data(
        self, data: Buffer
    ) -> list[RequestHead | bytes | EndOfMessage]:
        """Take bytes in, return the events they complete, in order.

        An event is a RequestHead, bytes of its body, or EndOfMessage.
        Raises PeerError when the bytes are no HTTP/1.x request, at the next
        call if there were events before it; the parser then takes no more.
        """

    @property
    def between_messages(self) -> bool:
        """True when no request has begun and none is unfinished."""
