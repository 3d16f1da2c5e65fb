"""Serving from Python: `run`, `serve` and the embeddable `Server`."""

import ast
import atexit
import contextlib
import dataclasses
import importlib
import logging
import re
import socket
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from inspect import iscoroutinefunction
from typing import Any, TypeAlias

from .config import (
    DEFAULT_HOST,
    DEFAULT_PORT,
    Config,
    bind_address,
    parse_number,
    parse_option,
)
from .errors import AppLoadError, BindError, ConfigError
from .listeners import bind_listeners, close_listeners, describe
from .log import (
    ACCESS_LOGGER,
    ERROR_LOGGER,
    AccessLog,
    configure,
    configure_access,
)
from .worker import Worker

App: TypeAlias = Callable[..., Any]

_SPEC = re.compile(
    # a module's name may be none of Python's, as that of repro-app.py
    r"(?P<module>[^\s:/.()]+(\.[^\s:/.()]+)*)"
    r"(:(?P<name>\w+(\.\w+)*)(?P<call>\(.*\))?)?",
    re.DOTALL,
)
_CONVENTIONAL_NAMES = ("app", "application")
_log = logging.getLogger(ERROR_LOGGER)


def load_app(spec: str) -> App:
    """Import the WSGI application that `spec` names.

    `spec` is module:app, module:factory(), which may have literals as
    arguments, or a module that has an `app` or `application`. Raises
    AppLoadError; its `__cause__` is the exception the application's own code
    raised, if it did.
    """
    match = _SPEC.fullmatch(spec)
    if match is None:
        raise AppLoadError(
            f"{spec!r} is none of module, module:app, module:factory()"
        )
    if match["module"].endswith(".py"):
        module_name = match["module"].removesuffix(".py")
        raise AppLoadError(
            f"{spec!r} is a file; name its module: {module_name}:app"
        )
    try:
        module = importlib.import_module(match["module"])
        app = _find(module, spec, match["name"])
        if match["call"]:
            positional, named = _arguments(spec, match["call"])
            app = app(*positional, **named)
    except (Exception, SystemExit) as error:
        if isinstance(error, AppLoadError):
            raise
        reason = f"{type(error).__name__}: {error}"
        if isinstance(error, SystemExit):
            reason = f"it called sys.exit({error.code!r})"
        # a traceback without a line of the application's tells nothing
        trace = error.__traceback__
        cause = error if trace and trace.tb_next else None
        raise AppLoadError(f"cannot load {spec!r}: {reason}") from cause
    return _check_app(app, repr(spec))


def _loaded(app: App | str) -> App:
    if isinstance(app, str):
        return load_app(app)
    return _check_app(app, "the application")


def _check_app(app: object, name: str) -> App:
    if not callable(app):
        raise AppLoadError(f"{name} is not callable: {app!r}")
    if iscoroutinefunction(app) or iscoroutinefunction(type(app).__call__):
        raise AppLoadError(
            f"{name} is an ASGI application; WSGI is what is served here"
        )
    return app


def _find(module: Any, spec: str, name: str | None) -> Any:
    names = _CONVENTIONAL_NAMES if name is None else (name,)
    for each in names:
        found = module
        for part in each.split("."):
            found = getattr(found, part, None)
        # a package may have a module of a conventional name
        if found is not None and (name or callable(found)):
            return found
    raise AppLoadError(f"{spec!r}: the module has no {' or '.join(names)}")


def _arguments(spec: str, call: str) -> tuple[list[Any], dict[Any, Any]]:
    # literal_eval has five kinds of errors
    with contextlib.suppress(Exception):
        match ast.parse(f"_{call}", mode="eval").body:
            case ast.Call(ast.Name(), args, keywords):
                return (
                    [ast.literal_eval(each) for each in args],
                    {x.arg: ast.literal_eval(x.value) for x in keywords},
                )
    raise AppLoadError(f"{spec!r} is no call with literals as arguments")


class Server:
    """One WSGI application on one loop, to be started from any program.

    `app` is an application or a `module:app` text. `port` 0 takes a free
    port. `sockets` are bound sockets to serve instead, closed at the stop.
    `settings` are the fields of `Config`; `bind` replaces `host` and `port`.
    Raises ConfigError, AppLoadError. Nothing here touches signals or logging,
    except that `run()` handles signals on the main thread.
    """

    def __init__(
        self,
        app: App | str,
        host: str = DEFAULT_HOST,
        port: int = DEFAULT_PORT,
        *,
        sockets: Iterable[socket.socket] | None = None,
        **settings: Any,
    ) -> None:
        settings.setdefault("bind", bind_address(host, port))
        self.config = Config(**settings)
        self.app = _loaded(app)
        self.sockets: list[socket.socket] = []
        self._given = None if sockets is None else list(sockets)
        if self._given == []:
            raise ConfigError("sockets: no socket is given")
        self._names: list[Any] = []
        self._url = ""
        self._worker: Worker | None = None
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._stopped.set()

    @property
    def running(self) -> bool:
        """True from `start()` or `run()` until the loop has ended."""
        return not self._stopped.is_set()

    @property
    def addresses(self) -> Sequence[Any]:
        """What `getsockname()` gave for each listening socket."""
        return tuple(self._names)

    @property
    def url(self) -> str:
        """The URL of the first listening socket, without a final slash.

        A socket on all interfaces is named by its loopback address. Raises
        RuntimeError before the first start.
        """
        if not self._url:
            raise RuntimeError("the server was not started")
        url = self._url.replace("//0.0.0.0:", "//127.0.0.1:")
        return url.replace("//[::]:", "//[::1]:")

    def start(self) -> None:
        """Listen, and serve in a background thread.

        Clients can connect when it returns. Raises BindError if an address
        cannot be taken, RuntimeError if the server runs already.
        """
        worker = self._open()
        thread = threading.Thread(
            target=self._serve, args=(worker,), name="fasthttp", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:  # no further thread can be had
            worker.server.close()
            worker.gateway.close()
            self._stopped.set()
            raise
        # daemon threads are frozen, not ended, when the interpreter exits
        atexit.register(self.stop)

    def stop(self, timeout: float | None = 5) -> None:
        """Finish open requests and wait for the loop to end.

        Requests still open after `timeout` seconds are cut off (None: after
        the configured graceful timeout). May be called again and from any
        thread; in the application it does not wait.
        """
        atexit.unregister(self.stop)
        if self._worker is None or not self.running:
            return
        if self._worker.server.is_forked():  # the loop is the parent's
            return
        self._worker.stop(timeout)
        if not self._worker.serves_here():
            self.wait()

    def wait(self, timeout: float | None = None) -> bool:
        """Block until the server has stopped; False after `timeout` s."""
        return self._stopped.wait(timeout)

    def run(self) -> None:
        """Serve in this thread until `stop()`, SIGTERM or SIGINT.

        Signals are handled on the main thread only. Raises as `start()`.
        """
        worker = self._open()
        here = threading.current_thread()
        self._serve(
            worker,
            signals=here is threading.main_thread(),
            on_ready=worker.announce,
        )

    def __enter__(self) -> "Server":
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def _serve(self, worker: Worker, **how: Any) -> None:
        try:
            worker.run(**how)
        finally:
            self._stopped.set()

    def _open(self) -> Worker:
        with self._lock, contextlib.ExitStack() as opened:
            if self.running:
                raise RuntimeError("the server is running")
            self.sockets = self._listen()
            opened.callback(close_listeners, self.sockets)
            self._names = [each.getsockname() for each in self.sockets]
            self._url = describe(self.sockets[0])
            log = AccessLog.to_logger() if self.config.access_log else None
            self._worker = Worker(
                self.app, self.config, self.sockets, access_log=log
            )
            opened.callback(self._worker.server.close)
            self._worker.gateway.start()
            opened.pop_all()
            self._stopped.clear()
            return self._worker

    def _listen(self) -> list[socket.socket]:
        if self._given is None:
            return bind_listeners(self.config)
        for each in self._given:
            try:
                each.listen(self.config.backlog)
            except OSError as error:
                raise BindError(
                    f"cannot listen on {each!r}: {error.strerror}", error.errno
                ) from None
        return self._given


def run(
    app: App | str,
    host: str = DEFAULT_HOST,
    port: int = DEFAULT_PORT,
    *,
    uds: str | None = None,
    fd: int | None = None,
    **settings: Any,
) -> None:
    """Serve `app` in this thread until SIGTERM or SIGINT, and log to stderr.

    `uds` is the path of a unix socket, `fd` an inherited listening socket;
    either replaces `host` and `port`. `settings` are the fields of `Config`.
    Logging is set up only where the program has not done so; the access log
    then goes to stdout. Raises ConfigError, AppLoadError, BindError.
    """
    if uds is not None or fd is not None:
        if "bind" in settings:
            raise ConfigError("bind: give bind, or uds, or fd")
        settings["bind"] = bind_address(uds=uds, fd=fd)
    server = Server(app, host, port, **settings)
    # dictConfig disables loggers it does not name
    _log.disabled = False
    if not _log.hasHandlers():
        configure(server.config.log_level)
    if not logging.getLogger(ACCESS_LOGGER).hasHandlers():
        configure_access()
    server.run()


def _with_scheme(app: App | str, scheme: str) -> App:
    inner = _loaded(app)

    def outer(environ: dict[str, Any], start_response: Any) -> Any:
        environ["wsgi.url_scheme"] = scheme
        return inner(environ, start_response)

    return outer


def serve(
    app: App | str,
    *,
    listen: str | None = None,
    host: str = DEFAULT_HOST,
    port: int = 8080,
    unix_socket: str | None = None,
    threads: int = 4,
    url_scheme: str = "http",
    connection_limit: int | None = None,
    max_request_body_size: int | None = None,
    **settings: Any,
) -> None:
    """`run` by the names of `waitress.serve`.

    `listen` holds HOST:PORT or HOST texts split by spaces; it replaces
    `host`. As a host, * is every IPv4 interface, which waitress takes by
    default. `url_scheme` is the one that clients use, of a proxy.
    """
    if url_scheme != "http":
        app = _with_scheme(app, url_scheme)
    renamed = {
        "worker_connections": connection_limit,
        "limit_request_body": max_request_body_size,
    }
    settings.update({k: v for k, v in renamed.items() if v is not None})
    if listen is not None:
        settings["bind"] = tuple(
            # the colons of [::1] are none of a port
            each if ":" in each.rpartition("]")[2] else f"{each}:{port}"
            for each in listen.replace("*", "0.0.0.0").split()
        )
    host = host.replace("*", "0.0.0.0")
    run(app, host, port, uds=unix_socket, threads=threads, **settings)


def serve_paste(
    app: App, global_conf: Mapping[str, str], **settings: str
) -> int:
    """`serve` as a paste.server_runner: `use = egg:fasthttp#main`.

    `settings` are the texts of that section of the file; of `global_conf`,
    its defaults, nothing is used. Returns 0. Raises ConfigError, BindError.
    """
    options = {option.name: option for option in dataclasses.fields(Config)}
    options["connection_limit"] = options["worker_connections"]
    options["max_request_body_size"] = options["limit_request_body"]
    values: dict[str, Any] = {}
    for name, text in settings.items():
        if name == "port":
            values[name] = parse_number(name, text)
        elif name == "bind":
            values[name] = tuple(text.split())
        elif name in options:
            values[name] = parse_option(options[name], text)
        else:
            values[name] = text
    serve(app, **values)
    return 0
