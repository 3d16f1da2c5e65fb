"""WSGI (PEP 3333) on HttpProtocol: in the loop, or in a pool of threads."""

from collections.abc import Iterator
from threading import Thread
from typing import Any, final
from wsgiref.types import WSGIApplication

from typing_extensions import disjoint_base

from ._http1 import HttpProtocol, _AccessLog
from .config import Config

class FileWrapper:
    """PEP 3333's wsgi.file_wrapper: an open file as an iterable."""

    filelike: Any
    blksize: int
    def __init__(self, filelike: Any, blksize: int = 65536) -> None: ...
    def __iter__(self) -> FileWrapper: ...
    def __next__(self) -> bytes: ...

@final
class NoInput:
    """wsgi.input of a request without a body."""

    def read(self, size: int = -1) -> bytes: ...
    def readline(self, size: int = -1) -> bytes: ...
    def readlines(self, hint: int = -1) -> list[bytes]: ...
    def __iter__(self) -> Iterator[bytes]: ...
    def close(self) -> None: ...

@disjoint_base
class WsgiGateway:
    """Makes one protocol for each connection, all calling `app`.

    Pass it as `prot` to an AsyncSocketServer, one gateway for each.
    """

    def __init__(
        self,
        app: WSGIApplication,
        config: Config,
        *,
        access_log: _AccessLog | None = None,
    ) -> None: ...
    @property
    def app(self) -> WSGIApplication: ...
    @property
    def config(self) -> Config: ...
    def __call__(
        self, server: Any, trans: Any, mqueue: Any
    ) -> HttpProtocol: ...
    def start(self) -> None:
        """Start the threads, if the configuration asks for any."""

    def has_thread(self, thread: Thread) -> bool:
        """Does `thread` run the application?"""

    def close(self, timeout: float | None = None) -> None:
        """End the threads; wait at most `timeout` seconds."""
