"""Responses as bytes; the one place that refuses what breaks framing."""

from collections.abc import Iterable
from typing import final

@final
class ResponseSerializer:
    """Writes response heads; `server` "" sends no Server field.

    `framing`, `keep_alive`, `length` and `status` describe the last head:
    framing is 0 without a body, 1 by Content-Length, 2 chunked, 3 until the
    connection closes; `length` is -1 if unknown.
    """

    def __init__(self, server: str = "fasthttp") -> None: ...
    @property
    def status(self) -> int: ...
    @property
    def framing(self) -> int: ...
    @property
    def keep_alive(self) -> bool: ...
    @property
    def length(self) -> int: ...
    def head(
        self,
        status: int | str,
        headers: Iterable[tuple[str, str]],
        *,
        version: str = "1.1",
        method: str = "GET",
        keep_alive: bool = True,
        length: int | None = None,
    ) -> bytes:
        """Status line and fields, with Date and what frames the body.

        `version`, `method` and `keep_alive` are the request's; `length` is
        the body's size in bytes where it is known. Raises AppError for a
        status, name or value that may not reach the wire (RFC 9110, 5.5).
        """
