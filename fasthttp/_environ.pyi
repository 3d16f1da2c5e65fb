"""The environ of a WSGI request (PEP 3333, RFC 3875) from its parsed head."""

from typing import Any, Self, final

from ._parser import RequestParser

def environ_base() -> dict[str, Any]:
    """What every environ holds, with values for the gateway to replace."""

@final
class Shape:
    """Requests with one row of fields, and environs for them."""

@final
class Loan:
    """An environ that serves again if it comes back as it was."""

    def __new__(cls, environ: dict[str, Any]) -> Self: ...

@final
class EnvironTemplate:
    """What the requests to one of the server's addresses have in common.

    `address` is as the socket names it: a tuple, or the path of a Unix
    socket.
    """

    def __init__(
        self, base: dict[str, Any], address: tuple[Any, ...] | str
    ) -> None: ...
    def environ_of(self, parser: RequestParser, head: bytes) -> dict[str, Any]:
        """The environ of one request that has no body.

        The client's address is left empty. ValueError if `head` is not
        whole; PeerError as by RequestParser.
        """
