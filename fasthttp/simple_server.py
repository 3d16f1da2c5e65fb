"""`wsgiref.simple_server` by its names, on this package's loop."""

import contextlib
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from types import FrameType, MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

from .config import Config
from .errors import AppError, ConfigError
from .log import clf_time, escape
from .worker import Worker

if TYPE_CHECKING:
    from email.message import Message

Environ: TypeAlias = dict[str, Any]
App: TypeAlias = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]


class WSGIRequestHandler:
    """What `wsgiref` users override: the log, the address, the environ.

    An instance stands for one request; it does no I/O. The response is
    logged by another one, whose `client_address` has port 0 and whose
    `headers` are the two fields that logs use, Referer and User-Agent.
    TypeError for a subclass with hooks that do I/O: `setup`, `handle`,
    `finish`, `parse_request`.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        _refuse_hooks(cls, ("setup", "handle", "finish", "parse_request"))

    def __init__(
        self, environ: Environ, client_address: Any, server: "WSGIServer"
    ) -> None:
        self.environ = environ
        self.client_address = client_address
        self.server = server
        self.command = environ.get("REQUEST_METHOD", "")
        self.path = environ.get("RAW_URI", "")
        self.request_version = environ.get("SERVER_PROTOCOL", "")

    @property
    def requestline(self) -> str:
        """The request line, as the client sent it."""
        return f"{self.command} {self.path} {self.request_version}".strip()

    @cached_property
    def headers(self) -> "Message":
        """The header fields, as `http.server` gives them."""
        from email.message import Message

        message = Message()
        for key, value in self.environ.items():
            if key.startswith("HTTP_"):
                name = key.removeprefix("HTTP_")
            elif key in ("CONTENT_TYPE", "CONTENT_LENGTH") and value:
                name = key
            else:
                continue
            message[name.replace("_", "-").title()] = value
        return message

    def get_environ(self) -> Environ:
        """The environ without the server's own keys, such as `wsgi.input`."""
        environ = self.environ | self.server.base_environ
        environ.setdefault("CONTENT_LENGTH", "")
        host = self.address_string()
        if host != self.client_address[0]:
            environ["REMOTE_HOST"] = host
        return environ

    def get_stderr(self) -> Any:
        """The stream the application gets as `wsgi.errors`."""
        return sys.stderr

    def address_string(self) -> str:
        """The client's address, for the log."""
        return str(self.client_address[0])

    def log_date_time_string(self) -> str:
        """The time of a log line."""
        return clf_time(time.time())

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Log a response that was sent."""
        self.log_message('"%s" %s %s', self.requestline, str(code), str(size))

    def log_error(self, format: str, *args: Any) -> None:
        """For subclasses; `fasthttp.error` logs what is refused, not this."""
        self.log_message(format, *args)

    def log_message(self, format: str, *args: Any) -> None:
        """Write one line to stderr; other than in `wsgiref`, escaped."""
        safe = (escape(x) if isinstance(x, str) else x for x in args)
        sys.stderr.write(
            f"{self.address_string()} - - [{self.log_date_time_string()}]"
            f" {format % tuple(safe)}\n"
        )


def _refuse_hooks(cls: type, hooks: tuple[str, ...]) -> None:
    """TypeError for what `cls` overrides and would wait for in vain."""
    for name in hooks:
        owner = next((c for c in cls.__mro__ if name in c.__dict__), None)
        # socketserver.ThreadingMixIn has some of its own
        if owner is not None and owner.__module__ != "socketserver":
            raise TypeError(f"{cls.__name__}.{name} would never be called here")


class WSGIServer:
    """A single-threaded server with the methods of `wsgiref`'s.

    The application runs in the thread that calls `serve_forever` or
    `handle_request`; with `socketserver.ThreadingMixIn` in a pool of
    `threads`. `settings` are further fields of `Config`. TypeError for a
    subclass with hooks of `socketserver` that are not called here and have
    work to do: `get_request`, `verify_request`, `process_request`,
    `finish_request` and `service_actions`. `handle_error` is not called:
    the logger `fasthttp.error` tells of exceptions.
    """

    address_family: int = socket.AF_INET
    socket_type: int = socket.SOCK_STREAM
    request_queue_size = 2048
    allow_reuse_address = True
    allow_reuse_port = False
    timeout: float | None = None
    threads = 40
    settings: Mapping[str, Any] = MappingProxyType({})
    application: App | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        _refuse_hooks(
            cls,
            (
                "get_request",
                "verify_request",
                "process_request",
                "finish_request",
                "service_actions",
            ),
        )

    def __init__(
        self,
        server_address: Any,
        RequestHandlerClass: type[WSGIRequestHandler],  # noqa: N803
        bind_and_activate: bool = True,
    ) -> None:
        self.server_address = server_address
        self.server_port = 0
        self.base_environ: Environ = {}
        self.RequestHandlerClass = RequestHandlerClass
        self.socket = socket.socket(self.address_family, self.socket_type)
        self._worker: Worker | None = None
        self._lock = threading.Lock()
        self._shutdown_requested = False
        self._idle = threading.Event()
        self._idle.set()
        if bind_and_activate:
            try:
                self.server_bind()
                self.server_activate()
            except BaseException:
                self.server_close()
                raise

    def server_bind(self) -> None:
        """Bind the socket and learn the port it got; may raise OSError."""
        if self.allow_reuse_address:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if self.allow_reuse_port:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_port = self.server_address[1]
        self.setup_environ()

    def server_activate(self) -> None:
        """Listen."""
        self.socket.listen(self.request_queue_size)

    def setup_environ(self) -> None:
        """Fill `base_environ`, which goes into each request's environ."""
        self.base_environ = {
            "GATEWAY_INTERFACE": "CGI/1.1",
            "SERVER_PORT": str(self.server_port),
            "SCRIPT_NAME": "",
            "REMOTE_HOST": "",
        }

    @cached_property
    def server_name(self) -> str:
        """The host's full name; asks the resolver at first use."""
        return socket.getfqdn(self.server_address[0])

    def get_app(self) -> App | None:
        """The application that is served."""
        return self.application

    def set_app(self, application: App | None) -> None:
        """Serve `application`, from the next request on."""
        self.application = application

    def serve_forever(self, poll_interval: float = 0.5) -> None:
        """Serve until `shutdown()`; `poll_interval` has no effect.

        The socket stays open, so that it can be called again.
        """
        self._run(once=False)

    def handle_request(self) -> None:
        """Serve one client: its first request, if it has one.

        When none comes within `timeout` seconds, call `handle_timeout`.
        """
        limits = self.socket.gettimeout(), self.timeout
        timeout = min((x for x in limits if x is not None), default=None)
        poller = select.poll()
        poller.register(self.socket, select.POLLIN)
        if poller.poll(None if timeout is None else timeout * 1000):
            self._run(once=True)
        else:
            self.handle_timeout()

    def handle_timeout(self) -> None:
        """Called when `handle_request` waited in vain."""

    def shutdown(self) -> None:
        """Let `serve_forever` finish open requests and return; then return.

        Without one that runs, the next call of it returns at once.
        """
        with self._lock:
            self._shutdown_requested = True
            worker = self._worker
            if worker is not None:
                worker.stop()
        if worker is None or not worker.serves_here():
            self._idle.wait()

    def server_close(self) -> None:
        """Close the listening socket, after a `shutdown()` if it serves."""
        if self._worker is not None:
            self.shutdown()
        self.socket.close()

    def fileno(self) -> int:
        """The descriptor of the listening socket."""
        return self.socket.fileno()

    def __enter__(self) -> "WSGIServer":
        return self

    def __exit__(self, *error: object) -> None:
        self.server_close()

    def _run(self, *, once: bool) -> None:
        with self._lock:
            if self._shutdown_requested and not once:
                self._shutdown_requested = False
                return
            worker = self._worker = self._make_worker(once)
            self._idle.clear()
        try:
            with _interrupts_raised():
                worker.run()
        finally:
            self._worker = None
            self._shutdown_requested = False
            self._idle.set()

    def _make_worker(self, once: bool) -> Worker:
        if hasattr(self.socket, "context"):
            raise ConfigError("TLS is not spoken here: serve behind a proxy")
        # socketserver.ThreadingMixIn, without importing it
        is_threading = hasattr(self, "process_request_thread")
        threads = self.threads if is_threading else 0
        config = Config(**{"threads": threads, **self.settings})
        # a copy, because the worker closes what it is given
        sockets = [self.socket.dup()]
        app = self._answer_last if once else self._answer
        worker = Worker(app, config, sockets, access_log=self._log)
        worker.server.ONE_CLIENT = once
        return worker

    def _answer(
        self, environ: Environ, start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        own = {key: environ.pop(key) for key in list(environ) if "." in key}
        if self.application is None:
            raise AppError("set_app() was not called")
        client = environ["REMOTE_ADDR"], int(environ["REMOTE_PORT"] or 0)
        handler = self.RequestHandlerClass(environ, client, self)
        own["wsgi.errors"] = handler.get_stderr()
        return self.application(handler.get_environ() | own, start_response)

    def _answer_last(
        self, environ: Environ, start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        def start(status: str, headers: Any, *exc_info: Any) -> Any:
            if type(headers) is list:
                headers = [*headers, ("Connection", "close")]
            return start_response(status, headers, *exc_info)

        return self._answer(environ, start)

    def _log(
        self,
        address: str,
        line: str,
        status: int,
        size: int,
        referer: str,
        user_agent: str,
    ) -> None:
        names = "REQUEST_METHOD", "RAW_URI", "SERVER_PROTOCOL"
        environ = dict(zip(names, line.split(" ", 2), strict=False))
        sent = {"HTTP_REFERER": referer, "HTTP_USER_AGENT": user_agent}
        environ |= {key: value for key, value in sent.items() if value}
        handler = self.RequestHandlerClass(environ, (address, 0), self)
        handler.log_request(str(status), size)


def make_server(
    host: str,
    port: int,
    app: App,
    server_class: type[WSGIServer] = WSGIServer,
    handler_class: type[WSGIRequestHandler] = WSGIRequestHandler,
) -> WSGIServer:
    """Listen on `host` ("" is every interface) and `port` for `app`.

    Raises OSError when the address cannot be taken.
    """
    server = server_class((host, port), handler_class)
    server.set_app(app)
    return server


def demo_app(
    environ: Environ, start_response: Callable[..., Any]
) -> Iterable[bytes]:
    """Answer with a greeting and the environ, as plain text."""
    lines = ["Hello world!", ""]
    lines += [f"{key} = {environ[key]!r}" for key in sorted(environ)]
    start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
    return ["\n".join(lines).encode("utf-8", "backslashreplace")]


@contextlib.contextmanager
def _interrupts_raised() -> Iterator[None]:
    """Raise KeyboardInterrupt in the end, which the loop itself swallows."""
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):
        yield
        return
    interrupted = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        interrupted = True
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if interrupted:
        raise KeyboardInterrupt
