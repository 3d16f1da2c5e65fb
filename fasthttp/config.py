"""Every option: its default, its bounds and its names, declared once."""

import dataclasses
import os
import re
import socket
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

from .errors import ConfigError

Option: TypeAlias = "dataclasses.Field[Any]"

VERSION = "0.1.0"
DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8000
MOST_BYTES = (1 << 30) - 1
MOST_BODY_BYTES = 1 << 60
LOG_LEVELS = ("critical", "error", "warning", "info", "debug")
SD_LISTEN_FDS_START = 3

_HOST_PORT = re.compile(r"(?:\[(?P<v6>[^]]*)\]|(?P<host>[^:]*)):(?P<port>\d+)")
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
    if port > 65535:
        raise ConfigError(f"bind: the port of {text!r} is above 65535")
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
    command needs: help, further names, the metavar and the least value.
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
    body_timeout: float = _seconds(30.0, "between two parts of a request body")
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
        64 << 20, "unsent bytes beyond which a connection is closed"
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
        if isinstance(self.bind, str):
            object.__setattr__(self, "bind", (self.bind,))
        else:
            object.__setattr__(self, "bind", tuple(self.bind))
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
    if kind not in (int, float):
        return text
    try:
        return kind(text)
    except ValueError:
        raise ConfigError(f"{option.name}: {text!r} is no number") from None


def _environ_settings(
    environ: Mapping[str, str],
) -> Iterator[tuple[str, Any]]:
    if environ.get("PORT"):
        yield "bind", (f"0.0.0.0:{environ['PORT']}",)
    # sd_listen_fds(3): the descriptors are ours only if the pid is
    if environ.get("LISTEN_PID") == str(os.getpid()):
        count = int(environ.get("LISTEN_FDS", "0"))
        fds = range(SD_LISTEN_FDS_START, SD_LISTEN_FDS_START + count)
        if fds:
            yield "bind", tuple(f"fd://{fd}" for fd in fds)
    for option in dataclasses.fields(Config):
        text = environ.get(f"FASTHTTP_{option.name.upper()}")
        if text is None:
            continue
        if option.name == "bind":
            yield "bind", tuple(text.replace(",", " ").split())
        else:
            yield option.name, parse_option(option, text)


def settings_from_environ(environ: Mapping[str, str]) -> dict[str, Any]:
    """Read settings from FASTHTTP_<OPTION>, LISTEN_FDS and PORT.

    FASTHTTP_BIND may name several addresses, split by commas or spaces; it
    goes before descriptors passed by systemd, and those before PORT.
    """
    return dict(_environ_settings(environ))
