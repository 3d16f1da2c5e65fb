"""Listening sockets from the bind addresses of a configuration."""

import array
import contextlib
import errno
import os
import socket
import stat
import struct
import sys
from collections.abc import Iterable

from .config import Config, parse_address
from .errors import BindError

DEFER_SECONDS = 1
HANDSHAKE_SECONDS = 0.05
# Measured, 50 ms; a server that closes connections may leave 100,000.
MOST_LINES = 16384
SO_ATTACH_FILTER = 26
SO_DETACH_FILTER = 27


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
        # the application may go to another directory
        self.path = os.path.realpath(self.path)
        self.owner = os.getpid()
        self.identity = _identity(self.path)

    def close(self) -> None:
        self.remove_path()
        super().close()

    def remove_path(self) -> None:
        """Nobody can connect any more; who has can be accepted."""
        if self.owner == os.getpid():
            self.owner = 0
            # It may be gone, or in a directory that is not ours any more.
            with contextlib.suppress(OSError):
                if _identity(self.path) == self.identity:
                    os.unlink(self.path)


def bind_listeners(config: Config) -> list[socket.socket]:
    """Open one listening socket for each of `config.bind`.

    Raises BindError, whose text is one line, and then leaves none open.
    """
    with contextlib.ExitStack() as opened:
        listeners = []
        for address in config.bind:
            listener = _open(address)
            opened.callback(listener.close)
            _listen(listener, address, config)
            listeners.append(listener)
        opened.pop_all()
    return listeners


def defer_accept(listeners: Iterable[socket.socket]) -> None:
    """Let the kernel hold back clients until they have sent something.

    For protocols in which the client speaks first. A silent one comes after
    DEFER_SECONDS. A server that was killed during its stop refuses new
    clients no more. Linux, TCP; elsewhere nothing changes.
    """
    if sys.platform != "linux":
        return
    for listener in filter(_is_open_tcp, listeners):
        _take_new_clients(listener)
        # Measured, a connection for each request: 26 us instead of 42. Not
        # every stream socket of the internet families has it (MPTCP).
        with contextlib.suppress(OSError):
            listener.setsockopt(
                socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, DEFER_SECONDS
            )


def refuse_new_clients(listeners: Iterable[socket.socket]) -> float:
    """Let the kernel drop new SYNs, where it can: Linux, TCP.

    What it takes between the last accept(2) and close(2) would be reset. A
    unix socket loses its path, if it is ours. Returns the seconds until
    those under way have come to accept(2); they do so without a filter, too,
    which some kernels let nobody but root set.
    """
    for listener in listeners:
        if isinstance(listener, UnixListener):
            listener.remove_path()
    if sys.platform != "linux":
        return 0
    # Of the TCP header's byte 13: SYN without ACK is dropped.
    code = [
        (0x30, 0, 0, 13),  # load the flags
        (0x54, 0, 0, 0x12),  # keep SYN and ACK
        (0x15, 0, 1, 0x02),  # only SYN?
        (0x06, 0, 0, 0),  # drop
        (0x06, 0, 0, 0xFFFFFFFF),  # pass
    ]
    packed = b"".join(struct.pack("HBBI", *each) for each in code)
    filters = array.array("B", packed)
    program = struct.pack("HP", len(code), filters.buffer_info()[0])
    ports = set()
    for listener in filter(_is_open_tcp, listeners):
        ports.add(listener.getsockname()[1])
        with contextlib.suppress(OSError):
            listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)
    if not ports:
        return 0
    return HANDSHAKE_SECONDS + (DEFER_SECONDS if _has_deferred(ports) else 0)


def close_listeners(listeners: Iterable[socket.socket]) -> None:
    """Close listening sockets; closed ones are left alone."""
    for listener in listeners:
        # The filter is the socket's: whoever else holds it wants clients.
        if sys.platform == "linux" and _is_open_tcp(listener):
            _take_new_clients(listener)
        with contextlib.suppress(OSError):  # the program has closed it
            listener.close()


def describe(listener: socket.socket) -> str:
    """The URL to reach `listener` by, with the port it really has."""
    name = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        return f"unix:{name}"
    host, port = name[:2]
    if name[3:] and name[3]:
        host = f"{host}%{socket.if_indextoname(name[3])}"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _take_new_clients(listener: socket.socket) -> None:
    with contextlib.suppress(OSError):  # there is no filter
        listener.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)


def _is_open_tcp(listener: socket.socket) -> bool:
    families = socket.AF_INET, socket.AF_INET6
    return listener.fileno() >= 0 and listener.family in families


def _has_deferred(ports: set[int]) -> bool:
    """Does a client of `ports` wait in SYN_RECV (proc_pid_net(5))?

    True for a long table, too: nobody is served while it is read.
    """
    for name in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError), open(name, "rb") as table:
            for count, line in enumerate(table):
                _, local, _, state = line.split(None, 4)[:4]
                if state == b"03" and int(local[-4:], 16) in ports:
                    return True
                if count == MOST_LINES:
                    return True
    return False


def _identity(path: str) -> tuple[int, int]:
    status = os.lstat(path)
    return status.st_dev, status.st_ino


def _open(address: str) -> socket.socket:
    family, target = parse_address(address)
    try:
        if family == socket.AF_UNIX:
            return UnixListener(target)
        if family is not None:
            return socket.socket(socket.AddressFamily(family))
        listener = socket.socket(fileno=target)
    except (OSError, ValueError) as error:  # no IPv6, no such descriptor
        raise _failure(address, error) from None
    listener.set_inheritable(False)
    if listener.type != socket.SOCK_STREAM:
        listener.close()
        raise BindError(f"cannot listen on {address}: it is no stream socket")
    return listener


def _listen(listener: socket.socket, address: str, config: Config) -> None:
    family, target = parse_address(address)
    try:
        if isinstance(listener, UnixListener):
            _remove_stale(listener.path)
            listener.bind(target)
        elif family is not None:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if target[0] == "::":
                listener.setsockopt(
                    socket.IPPROTO_IPV6,
                    socket.IPV6_V6ONLY,
                    _is_ipv4_port(target[1], config),
                )
            if "%" in target[0]:
                # only the resolver knows the zone's number
                found = socket.getaddrinfo(target[0], target[1], family)
                target = found[0][4]
            listener.bind(target)
        listener.listen(config.backlog)
    except (OSError, TypeError, ValueError) as error:  # host names, paths
        raise _failure(address, error) from None


def _is_ipv4_port(port: int, config: Config) -> bool:
    addresses = map(parse_address, config.bind)
    return port > 0 and any(
        family == socket.AF_INET and target[1] == port
        for family, target in addresses
    )


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


def _failure(address: str, error: Exception) -> BindError:
    reason = getattr(error, "strerror", None) or str(error)
    if reason[1:2].islower():  # not in "AF_UNIX path too long"
        reason = reason[0].lower() + reason[1:]
    return BindError(
        f"cannot listen on {address}: {reason}", getattr(error, "errno", None)
    )
