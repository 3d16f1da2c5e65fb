"""Every option: its default, its bounds and its names, declared once."""

import dataclasses
import os
import re
import socket
from collections.abc import Container, Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias

from .errors import ConfigError

Option: TypeAlias = "dataclasses.Field[Any]"

VERSION = "0.1.0"
DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8000
MOST_PORT = 65535
# the parser's offsets are 32 bits wide
MOST_BYTES = (1 << 30) - 1
MOST_BODY_BYTES = 1 << 60
LOG_LEVELS = ("critical", "error", "warning", "info", "debug")
PLACE = ("host", "port", "uds", "fd")
SD_LISTEN_FDS_START = 3

_HOST_PORT = re.compile(r"(?:\[(?P<v6>[^]]*)\]|(?P<host>[^:]*)):(?P<port>\d+)")
_PLACE_VARIABLES = tuple(f"FASTHTTP_{name.upper()}" for name in PLACE)
_BUILD_VARIABLES = "FASTHTTP_SANITIZE", "FASTHTTP_TRACE", "FASTHTTP_PROFILE"
# for a service named "fasthttp" Kubernetes sets FASTHTTP_SERVICE_HOST,
# FASTHTTP_PORT=tcp://10.0.0.1:80, FASTHTTP_PORT_80_TCP and more
_SERVICE_PORTS = "tcp://", "udp://", "sctp://"
_SERVICE_VARIABLES = "FASTHTTP_SERVICE_", "FASTHTTP_PORT_"
_TRUTH = {
    **dict.fromkeys(("1", "true", "yes", "on"), True),
    **dict.fromkeys(("0", "false", "no", "off"), False),
}


class Address(NamedTuple):
    """One listening address; `family` is None for an inherited descriptor.

    `target` is (host, port), a path, or the descriptor's number.
    """

    family: int | None
    target: Any


def parse_address(text: str) -> Address:
    """Read HOST:PORT, [IPV6]:PORT, unix:PATH or fd://N.

    Raises ConfigError when `text` is none of them.
    """
    if not isinstance(text, str):
        raise ConfigError(f"bind: {text!r} is no text")
    if text.startswith("unix:") and len(text) > len("unix:"):
        return Address(socket.AF_UNIX, text.removeprefix("unix:"))
    if text.startswith("fd://") and text[5:].isdecimal():
        return Address(None, int(text[5:]))
    match = _HOST_PORT.fullmatch(text)
    if match is None:
        raise ConfigError(
            f"bind: {text!r} is none of HOST:PORT, [IPV6]:PORT,"
            " unix:PATH, fd://N"
        )
    port = int(match["port"])
    if port > MOST_PORT:
        raise ConfigError(f"bind: the port of {text!r} is above {MOST_PORT}")
    if match["v6"] is not None:
        return Address(socket.AF_INET6, (match["v6"] or "::", port))
    return Address(socket.AF_INET, (match["host"] or "0.0.0.0", port))


def bind_address(
    host: str | None = None,
    port: int | None = None,
    *,
    uds: str | None = None,
    fd: int | None = None,
) -> str:
    """Spell a bind address from its parts: a path, a descriptor, host, port.

    Raises ConfigError when they contradict each other.
    """
    inet = host is not None or port is not None
    if inet + (uds is not None) + (fd is not None) > 1:
        raise ConfigError("bind: give host and port, or uds, or fd")
    if uds is not None:
        return f"unix:{uds}"
    if fd is not None:
        return f"fd://{fd}"
    host = DEFAULT_HOST if host is None else host
    port = DEFAULT_PORT if port is None else port
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _option(
    default: Any,
    text: str,
    *names: str,
    metavar: str | None = None,
    least: float = 0,
    most: float = MOST_BYTES,
) -> Any:
    metadata = {
        "help": text,
        "names": names,
        "metavar": metavar,
        "least": least,
        "most": most,
    }
    return dataclasses.field(default=default, metadata=metadata)


def _seconds(default: float, text: str, *names: str) -> Any:
    return _option(default, f"{text}; 0 = no limit", *names, metavar="SECONDS")


def _bytes(default: int, text: str, *names: str, **bounds: int) -> Any:
    return _option(
        default, text, *names, metavar="BYTES", **{"least": 1, **bounds}
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """All settings of one server; raises ConfigError on impossible ones.

    Times are seconds, sizes are bytes. The field's metadata holds what the
    command needs: help, further names, the metavar and the bounds.
    """

    bind: tuple[str, ...] = _option(
        (bind_address(),),
        "listen here: HOST:PORT, [IPV6]:PORT, unix:PATH or fd://N;"
        " port 0 takes a free one; may be repeated",
        "-b",
        metavar="ADDRESS",
    )
    threads: int = _option(
        1,
        "threads that run the application; 0 = run it in the loop",
        metavar="N",
    )
    backlog: int = _option(
        2048, "connections the kernel may queue", metavar="N", least=1
    )
    worker_connections: int = _option(
        10000,
        "connections open at a time; more wait in the backlog",
        "--limit-concurrency",
        metavar="N",
        least=1,
    )
    keep_alive: float = _seconds(
        75.0, "how long an idle connection is kept", "--timeout-keep-alive"
    )
    header_timeout: float = _seconds(10.0, "for a whole request head to arrive")
    body_timeout: float = _seconds(
        30.0, "the time over which body_min_rate is measured"
    )
    body_min_rate: int = _option(
        256,
        "bytes a second below which a body's sender counts as stalled",
        metavar="N",
    )
    write_timeout: float = _seconds(
        30.0, "for a client to take any of its response"
    )
    graceful_timeout: float = _option(
        30.0,
        "for open requests to finish at a stop; 0 = do not wait",
        "--timeout-graceful-shutdown",
        metavar="SECONDS",
    )
    limit_request_line: int = _bytes(8192, "longest request line")
    limit_request_fields: int = _option(
        100, "most header fields", metavar="N", least=1
    )
    limit_request_field_size: int = _bytes(
        16384, "longest header field", "--limit-request-field_size"
    )
    limit_request_head: int = _bytes(65536, "longest request head")
    limit_request_body: int = _bytes(
        1 << 30, "longest request body", least=0, most=MOST_BODY_BYTES
    )
    limit_chunk_extensions: int = _bytes(
        16384, "most bytes of chunk extensions in one body", least=0
    )
    body_memory: int = _bytes(
        1 << 20,
        "longest body held in memory; beyond it a temporary file is used",
        least=0,
    )
    body_memory_total: int = _bytes(
        256 << 20,
        "most bytes of all bodies held in memory; beyond them files are used",
        least=0,
        most=MOST_BODY_BYTES,
    )
    limit_pipelined: int = _option(
        64,
        "requests of a connection answered in a row while others wait",
        metavar="N",
        least=1,
    )
    limit_queued: int = _bytes(
        64 << 20,
        "unsent bytes, but for one block, beyond which a connection is closed",
    )
    limit_queued_total: int = _bytes(
        1 << 30,
        "unsent bytes in all beyond which stalled readers are closed",
        most=MOST_BODY_BYTES,
    )
    limit_spooled: int = _bytes(
        8 << 30,
        "most bytes in temporary files in all",
        least=0,
        most=MOST_BODY_BYTES,
    )
    access_log: bool = _option(
        False,
        "log each request to stdout in Apache's combined form;"
        " on at a terminal",
    )
    log_level: str = _option(
        "info", f"one of {', '.join(LOG_LEVELS)}", metavar="LEVEL"
    )
    server_header: bool = _option(True, "send a Server header")

    def __post_init__(self) -> None:
        bind = self.bind
        if isinstance(self.log_level, str):
            object.__setattr__(self, "log_level", self.log_level.lower())
        several = isinstance(bind, Iterable) and not isinstance(bind, str)
        object.__setattr__(self, "bind", tuple(bind) if several else (bind,))
        if not self.bind:
            raise ConfigError("bind: no address is given")
        for address in self.bind:
            parse_address(address)
        for option in dataclasses.fields(self):
            _check(option, getattr(self, option.name))
        if self.log_level not in LOG_LEVELS:
            raise ConfigError(
                f"log_level: {self.log_level!r} is none of"
                f" {', '.join(LOG_LEVELS)}"
            )


def _check(option: Option, value: Any) -> None:
    kind: type = type(option.default)
    allowed = (int, float) if kind is float else kind
    fits: bool = isinstance(value, allowed)
    if not fits or (type(value) is bool and kind is not bool):
        raise ConfigError(
            f"{option.name}: {value!r} is not of type {kind.__name__}"
        )
    if kind not in (int, float):
        return
    least, most = option.metadata["least"], option.metadata["most"]
    if not least <= value <= most:
        raise ConfigError(
            f"{option.name}: {value} is not between {least} and {most}"
        )


def parse_option(option: Option, text: str) -> Any:
    """Turn the text of an argument or environment variable into a value.

    Raises ConfigError naming the option.
    """
    kind: type = type(option.default)
    if kind is bool:
        if text.lower() not in _TRUTH:
            raise ConfigError(f"{option.name}: {text!r} is neither on nor off")
        return _TRUTH[text.lower()]
    try:
        return kind(text)
    except ValueError:
        what = "whole number" if kind is int else "number"
        raise ConfigError(f"{option.name}: {text!r} is no {what}") from None


def place_from_environ(
    environ: Mapping[str, str], given: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Arguments of `bind_address`: FASTHTTP_HOST, _PORT, _UDS and _FD.

    Where a host or port is `given`, only the other one is looked for. PORT
    is the port of a host that has no other. Raises ConfigError.
    """
    place = dict(given or {})
    for name in ("host", "port") if given else PLACE:
        variable = f"FASTHTTP_{name.upper()}"
        text = environ.get(variable, "")
        if name == "port" and text.startswith(_SERVICE_PORTS):
            text = ""
        if name == "port" and "host" in place and not text:
            variable, text = "PORT", environ.get("PORT", "")
        if text and name not in place:
            is_number = name in ("port", "fd")
            place[name] = parse_number(variable, text) if is_number else text
    return place


def settings_from_environ(
    environ: Mapping[str, str], taken: Container[str] = ()
) -> dict[str, Any]:
    """Read the options but those `taken` from the environment.

    FASTHTTP_<OPTION> stands for any name of an option. FASTHTTP_BIND may
    hold several addresses, split by commas or spaces; it or FASTHTTP_HOST,
    _PORT, _UDS, _FD go before descriptors passed by systemd (LISTEN_FDS),
    and those before PORT. Raises ConfigError, naming the variable.
    """
    settings: dict[str, Any] = {}
    for option in dataclasses.fields(Config):
        if option.name in taken:
            continue
        is_bind = option.name == "bind"
        found = _find_bind(environ) if is_bind else _find(option, environ)
        if found is None:
            continue
        variable, value = found
        try:
            if isinstance(value, str):
                value = parse_option(option, value)
            Config(**{option.name: value})
        except ConfigError as error:
            raise ConfigError(f"{variable}: {error}") from None
        settings[option.name] = value
    return settings


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """The names that begin with FASTHTTP_ and mean nothing."""
    known = {*_PLACE_VARIABLES, *_BUILD_VARIABLES}
    for option in dataclasses.fields(Config):
        known.update(_variables(option))
    return sorted(
        name
        for name in environ
        if name.startswith("FASTHTTP_")
        and not name.startswith(_SERVICE_VARIABLES)
        and name not in known
    )


def _variables(option: Option) -> list[str]:
    long = [x[2:] for x in option.metadata["names"] if x.startswith("--")]
    return [
        "FASTHTTP_" + name.replace("-", "_").upper()
        for name in (option.name, *long)
    ]


def _find(option: Option, environ: Mapping[str, str]) -> tuple[str, Any] | None:
    for variable in _variables(option):
        # compose files set what is missing to ""
        if environ.get(variable):
            return variable, environ[variable]
    return None


def _find_bind(environ: Mapping[str, str]) -> tuple[str, Any] | None:
    place = place_from_environ(environ)
    if place:
        variables = ", ".join(_PLACE_VARIABLES)
        if environ.get("FASTHTTP_BIND"):
            raise ConfigError(f"bind: give FASTHTTP_BIND, or {variables}")
        try:
            return variables, (bind_address(**place),)
        except ConfigError as error:
            raise ConfigError(f"{variables}: {error}") from None
    if environ.get("FASTHTTP_BIND"):
        addresses = environ["FASTHTTP_BIND"].replace(",", " ").split()
        return "FASTHTTP_BIND", tuple(addresses)
    # sd_listen_fds(3): the descriptors are ours only if the pid is
    if environ.get("LISTEN_PID") == str(os.getpid()):
        count = parse_number("LISTEN_FDS", environ.get("LISTEN_FDS") or "0")
        fds = range(SD_LISTEN_FDS_START, SD_LISTEN_FDS_START + count)
        if fds:
            return "LISTEN_FDS", tuple(f"fd://{fd}" for fd in fds)
    if environ.get("PORT"):
        port = parse_number("PORT", environ["PORT"])
        return "PORT", (f"0.0.0.0:{port}",)
    return None


def parse_number(variable: str, text: str) -> int:
    """A port, a descriptor, or how many there are."""
    if not re.fullmatch(r"\d{1,5}", text) or int(text) > MOST_PORT:
        raise ConfigError(
            f"{variable}: {text!r} is no number from 0 to {MOST_PORT}"
        )
    return int(text)
