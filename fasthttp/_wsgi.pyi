"""WSGI (PEP 3333) on HttpProtocol: in the loop, or in a pool of threads."""

from io import BufferedIOBase, TextIOBase
from threading import Thread
from typing import Any
from wsgiref.types import WSGIApplication

from typing_extensions import Buffer, disjoint_base

from ._http1 import HttpProtocol, _AccessLog
from .config import Config

class FileWrapper:
    """PEP 3333's wsgi.file_wrapper: an open file as an iterable."""

    filelike: Any
    blksize: int
    def __init__(self, filelike: Any, blksize: int = 65536) -> None: ...
    def seekable(self) -> bool: ...
    def seek(self, *where: int) -> int: ...
    def tell(self) -> int: ...
    def __iter__(self) -> FileWrapper: ...
    def __next__(self) -> bytes: ...

class NoInput(BufferedIOBase):
    """wsgi.input of a request without a body: an empty binary file."""

    def read(self, size: int | None = -1) -> bytes: ...
    def read1(self, size: int = -1) -> bytes: ...
    def readinto(self, buffer: Buffer) -> int: ...
    def readinto1(self, buffer: Buffer) -> int: ...
    def seek(self, offset: int, whence: int = 0) -> int: ...
    def tell(self) -> int: ...

class NoErrors(TextIOBase):
    """wsgi.errors of a process that was started without stderr."""

    def write(self, text: str) -> int: ...

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
    def __call__(
        self, server: Any, trans: Any, mqueue: Any
    ) -> HttpProtocol: ...
    def start(self) -> None:
        """Start the threads, if the configuration asks for any."""

    def has_thread(self, thread: Thread) -> bool:
        """Does `thread` run the application?"""

    def close(self, timeout: float | None = None) -> None:
        """End the threads; wait at most `timeout` seconds."""
