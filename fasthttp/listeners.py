"""Listening sockets from the bind addresses of a configuration."""

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Iterable

from .config import Config, parse_address
from .errors import BindError


class UnixListener(socket.socket):
    """A listening unix socket that removes its path when it is closed.

    The path stays when another server has replaced it meanwhile, or when
    a forked child closes its copy.
    """

    def __init__(self, path: str) -> None:
        super().__init__(socket.AF_UNIX)
        self.path = path
        self.owner = 0
        self.identity = (0, 0)

    def bind(self, address: object) -> None:
        super().bind(self.path)
        self.owner = os.getpid()
        self.identity = _identity(self.path)

    def close(self) -> None:
        if self.owner == os.getpid():
            self.owner = 0
            with contextlib.suppress(FileNotFoundError):
                if _identity(self.path) == self.identity:
                    os.unlink(self.path)
        super().close()


def bind_listeners(config: Config) -> list[socket.socket]:
    """Open one listening socket for each of `config.bind`.

    Raises BindError, whose text is one line, and then leaves none open.
    """
    with contextlib.ExitStack() as opened:
        listeners = []
        for address in config.bind:
            listener = _open(address)
            opened.callback(listener.close)
            _listen(listener, address, config.backlog)
            listeners.append(listener)
        opened.pop_all()
    return listeners


def close_listeners(listeners: Iterable[socket.socket]) -> None:
    """Close sockets of `bind_listeners`; closed ones are left alone."""
    for listener in listeners:
        listener.close()


def describe(listener: socket.socket) -> str:
    """The URL to reach `listener` by, with the port it really has."""
    name = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        return f"unix:{name}"
    host, port = name[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _identity(path: str) -> tuple[int, int]:
    status = os.lstat(path)
    return status.st_dev, status.st_ino


def _open(address: str) -> socket.socket:
    family, target = parse_address(address)
    if family is None:
        return _inherit(address, target)
    if family == socket.AF_UNIX:
        return UnixListener(target)
    return socket.socket(socket.AddressFamily(family))


def _inherit(address: str, fd: int) -> socket.socket:
    try:
        listener = socket.socket(fileno=fd)
    except OSError as error:
        raise _failure(address, error) from None
    listener.set_inheritable(False)
    if listener.type != socket.SOCK_STREAM:
        listener.close()
        raise BindError(f"cannot listen on {address}: it is no stream socket")
    return listener


def _listen(listener: socket.socket, address: str, backlog: int) -> None:
    family, target = parse_address(address)
    try:
        if isinstance(listener, UnixListener):
            _remove_stale(listener.path)
            listener.bind(target)
        elif family is not None:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if target[0] == "::":
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            listener.bind(target)
        listener.listen(backlog)
    except OSError as error:
        raise _failure(address, error) from None


def _remove_stale(path: str) -> None:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise OSError(errno.EEXIST, "the path exists and is no socket")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        if probe.connect_ex(path) == errno.ECONNREFUSED:
            os.unlink(path)


def _failure(address: str, error: OSError) -> BindError:
    reason = error.strerror or str(error)
    return BindError(
        f"cannot listen on {address}: {reason[0].lower()}{reason[1:]}",
        error.errno,
    )
