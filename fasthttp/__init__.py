"""A small, strict and fast HTTP server for WSGI applications."""

from ._http1 import HttpProtocol, Request
from ._protocol import BaseProtocol
from .api import Server, run, serve
from .config import VERSION, Config
from .errors import (
    AppError,
    AppLoadError,
    BindError,
    ConfigError,
    FastHttpError,
    PeerError,
)
from .server import AsyncSocketServer
from .simple_server import make_server

__version__ = VERSION

__all__ = [
    "AppError",
    "AppLoadError",
    "AsyncSocketServer",
    "BaseProtocol",
    "BindError",
    "Config",
    "ConfigError",
    "FastHttpError",
    "HttpProtocol",
    "PeerError",
    "Request",
    "Server",
    "__version__",
    "make_server",
    "run",
    "serve",
]
