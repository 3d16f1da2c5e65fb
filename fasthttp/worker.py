"""The one place that joins sockets, loop, HTTP and application."""

import contextlib
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any

from ._wsgi import WsgiGateway
from .config import VERSION, Config
from .listeners import defer_accept, describe
from .log import ERROR_LOGGER
from .server import AsyncSocketServer

_log = logging.getLogger(ERROR_LOGGER)
# So long, at least, threads have to call close() of what was cut off.
CLOSE_SECONDS = 0.25


class Worker:
    """Serves one WSGI application on sockets that listen already.

    `access_log` is called as `log.AccessLog` is; None logs no requests.
    """

    def __init__(
        self,
        app: Callable[..., Any],
        config: Config,
        sockets: Sequence[socket.socket],
        *,
        access_log: Callable[..., None] | None = None,
    ) -> None:
        self.config = config
        self.gateway = WsgiGateway(app, config, access_log=access_log)
        defer_accept(sockets)
        self.server = AsyncSocketServer.from_sockets(
            sockets,
            self.gateway,
            max_connections=config.worker_connections,
            write_timeout=config.write_timeout,
            max_queued=config.limit_queued,
            max_queued_total=config.limit_queued_total,
        )
        self.ended_by: int | None = None  # the first signal that came
        self._interrupts = 0
        self._deadline = 0.0
        self._thread: threading.Thread | None = None

    def announce(self) -> None:
        """Log the version, the process and the URL of each socket."""
        python = ".".join(map(str, sys.version_info[:3]))
        _log.info(
            "fasthttp %s on Python %s, pid %d", VERSION, python, os.getpid()
        )
        for listener in self.server.sockets:
            _log.info("listening at %s", describe(listener))

    def run(
        self,
        *,
        signals: bool = False,
        on_ready: Callable[[], object] | None = None,
    ) -> None:
        """Serve until `stop()`; then the sockets are closed.

        `on_ready` is called when a signal or a client may come. With
        `signals`, SIGTERM and the first SIGINT stop gracefully, a second
        SIGINT and SIGQUIT at once; only for the main thread.
        """
        self._thread = threading.current_thread()
        with self._handlers() if signals else contextlib.nullcontext():
            try:
                self.gateway.start()
                if on_ready is not None:
                    on_ready()
                self.server.accept_clients()
            finally:
                self.server.close()
                # an application may go on though its client has left
                left = self._deadline - time.monotonic()
                self.gateway.close(max(CLOSE_SECONDS, left))

    def serves_here(self) -> bool:
        """Is this the loop's thread or one that runs the application?"""
        thread = threading.current_thread()
        return thread is self._thread or self.gateway.has_thread(thread)

    def stop(self, timeout: float | None = None) -> None:
        """Finish open requests, then end `run()`; from any thread.

        What is still open after `timeout` seconds is cut off; None stands
        for the configured graceful timeout.
        """
        if timeout is None:
            timeout = self.config.graceful_timeout
        self._deadline = time.monotonic() + timeout
        self.server.shutdown(timeout)

    @contextlib.contextmanager
    def _handlers(self) -> Iterator[None]:
        numbers = signal.SIGTERM, signal.SIGINT, signal.SIGQUIT
        previous = [signal.signal(each, self._on_signal) for each in numbers]
        try:
            yield
        finally:
            for number, handler in zip(numbers, previous, strict=True):
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.server.is_forked():
            # a child of the application's: as if nobody had caught it
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.ended_by = self.ended_by or number
        name = signal.Signals(number).name
        self._interrupts += number == signal.SIGINT
        if number == signal.SIGQUIT or self._interrupts > 1:
            self._say("%s: closing all connections", name)
            self.stop(0)
            # an application in the loop may not let the loop go on
            raise KeyboardInterrupt
        self._say("%s: finishing open requests", name)
        self.stop()

    def _say(self, text: str, *args: object) -> None:
        # a signal may have interrupted a logger that holds its lock
        self.server.call_soon_threadsafe(_log.info, text, *args)
