"""The exception tree: whose fault it is stands in the type."""


class FastHttpError(Exception):
    """Base of fasthttp's own exceptions; a wrong call may raise Python's.

    `exit_code` is what the command ends with when nobody catches it.
    """

    exit_code = 1


class PeerError(FastHttpError):
    """The peer broke HTTP or a limit; it is answered with `status`.

    `detail` is a short plain-text reason fit for the peer, `offset` the
    byte position in the message where the fault was seen, `data` the first
    bytes of the part it is in, as far as they are known.
    """

    def __init__(
        self, status: int, detail: str, *, offset: int = 0, data: bytes = b""
    ) -> None:
        super().__init__(status, detail)
        self.data = data
        self.status = status
        self.detail = detail
        self.offset = offset

    def __str__(self) -> str:
        return self.detail


class AppError(FastHttpError):
    """The application broke a contract (PEP 3333, RFC 9110).

    The peer gets a plain 500, or a cut answer if that had begun; the
    message is for the log only.
    """


class ConfigError(FastHttpError, ValueError):
    """An option has an impossible value; the message names the option."""

    exit_code = 2


class BindError(FastHttpError, OSError):
    """A listening address cannot be taken; `errno` says why, if known."""

    def __init__(self, message: str, errno: int | None = None) -> None:
        super().__init__(message)
        self.errno = errno


class AppLoadError(FastHttpError):
    """`module:app` names nothing that can be served here."""

    exit_code = 4
