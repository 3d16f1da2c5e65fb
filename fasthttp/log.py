"""Logging set-up of the command, and the line of the access log."""

import logging
import re
import sys
import time
from collections.abc import Callable
from typing import TextIO

ERROR_LOGGER = "fasthttp.error"
ACCESS_LOGGER = "fasthttp.access"
ACCESS_LINE = '%s - - [%s] "%s" %d %s "%s" "%s"'
LINE = "[%(asctime)s] [%(process)d] [%(levelname)s] %(message)s"
LINE_TIME = "%Y-%m-%d %H:%M:%S %z"

# strftime's %b follows the locale, Apache's format does not
_MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()
_log = logging.getLogger(ERROR_LOGGER)
_UNSAFE = re.compile(r"[^ !#-\[\]-~]")


def configure(level: str) -> None:
    """Send the server's own log to stderr, from `level` up."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(LINE, LINE_TIME))
    _send(ERROR_LOGGER, handler, level.upper())


def configure_access() -> None:
    """Send what `fasthttp.access` logs to stdout, if there is one."""
    if sys.stdout is not None:
        _send(ACCESS_LOGGER, logging.StreamHandler(sys.stdout), "INFO")


def _send(name: str, handler: logging.Handler, level: str) -> None:
    logger = logging.getLogger(name)
    logger.handlers[:] = [handler]
    logger.propagate = False
    logger.setLevel(level)


def escape(text: str) -> str:
    r"""Write quotes, backslashes and all but printable ASCII as \xHH."""
    if (
        text.isascii()
        and text.isprintable()
        and '"' not in text
        and "\\" not in text
    ):
        return text
    return _UNSAFE.sub(lambda match: f"\\x{ord(match[0]):02x}", text)


class AccessLog:
    """Writes one line in Apache's combined form for each response.

    `write` takes the line without its end. An instance is the `access_log`
    of a gateway and belongs to one loop.
    """

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write
        self._second = -1
        self._time = ""

    @classmethod
    def to_stream(cls, stream: TextIO) -> "AccessLog":
        """Write to `stream`, each line at once.

        Where that fails, say, because the reader of a pipe has left, the
        lines are dropped and the server's own log says so once.
        """
        broken = False

        def write(line: str) -> None:
            nonlocal broken
            try:
                stream.write(line + "\n")
                stream.flush()
            except (OSError, ValueError) as error:  # ValueError: closed
                if not broken:
                    _log.error("cannot write the access log: %s", error)
                broken = True
            else:
                broken = False

        return cls(write)

    @classmethod
    def to_logger(cls) -> "AccessLog":
        """Write to the logger `fasthttp.access`, at level INFO."""
        return cls(logging.getLogger(ACCESS_LOGGER).info)

    def __call__(
        self,
        remote_addr: str,
        request_line: str,
        status: int,
        size: int,
        referer: str,
        user_agent: str,
    ) -> None:
        """Log one response; `size` is its body's, in bytes."""
        self._write(
            ACCESS_LINE
            % (
                remote_addr or "-",
                self._now(),
                escape(request_line) or "-",
                status,
                size or "-",
                escape(referer) or "-",
                escape(user_agent) or "-",
            )
        )

    def _now(self) -> str:
        second = int(time.time())
        if second != self._second:
            self._second = second
            self._time = clf_time(second)
        return self._time


def clf_time(second: float) -> str:
    """The local time in Apache's form, such as 22/Nov/2026:13:04:44 +0000."""
    moment = time.localtime(second)
    return time.strftime(
        f"%d/{_MONTHS[moment.tm_mon - 1]}/%Y:%H:%M:%S %z", moment
    )
