"""The loop: wait for sockets, dispatch, run what is due.

It knows descriptors and callbacks; what the bytes mean is the protocol's.
"""

from __future__ import annotations

import _thread
import contextlib
import heapq
import itertools
import logging
import math
import os
import signal
import socket
import threading
from collections import deque
from types import BuiltinFunctionType
from typing import TYPE_CHECKING, Any

from ._poller import Events, make_poller, monotonic, sleep_again, wake
from ._transport import Connections, tell
from .errors import AppLoadError
from .listeners import close_listeners, refuse_new_clients

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ._poller import Gate
    from ._protocol import BaseProtocol
    from ._transport import Transport

    Factory = Callable[
        ["AsyncSocketServer", Transport, Transport], BaseProtocol
    ]

log = logging.getLogger("fasthttp.error")

READABLE = 0x1
MAX_EVENTS = 1024
MAX_ACCEPTS = 256
MAX_BACKLOG = 65535
SWEEP_INTERVAL = 0.25
ACCEPT_PAUSE = 1.0
ACCEPT_LAST_PAUSE = 0.05
WARN_INTERVAL = 60.0
UNSENT_BYTES = 1048576
MANY_TIMERS = 128


class TimerHandle:
    """A call that is due later; `cancel()` takes it back."""

    __slots__ = ("args", "callback")

    def __init__(
        self, callback: Callable[..., object], args: tuple[Any, ...]
    ) -> None:
        self.callback: Callable[..., object] | None = callback
        self.args = args

    def cancel(self) -> None:
        self.callback = None
        self.args = ()


class AsyncSocketServer:
    """Accepts connections and drives one protocol object for each.

    `prot` is called as `prot(server, sk_client, mqueue)` for every accepted
    connection and returns a `BaseProtocol`. `port` 0 lets the system choose;
    `port` then holds the choice. Raises OSError when it cannot bind.

    `RX_CHUNKSIZE` is the most bytes a hook is handed at once, `MAX_QUEUED`
    the unsent bytes, besides the largest block, above which a client that
    does not read is cut off, and `WRITE_TIMEOUT` the seconds it may take none
    of them (0: for ever). When the unsent bytes of all exceed
    `MAX_QUEUED_TOTAL`, those are cut off that took none for a second, the
    longest first. With `ONE_CLIENT` the first that comes is served, and the
    loop ends with it; the others wait for whoever accepts from the sockets
    next.
    """

    RX_CHUNKSIZE = 65536
    MAX_QUEUED = 64 << 20
    MAX_QUEUED_TOTAL = 1 << 30
    WRITE_TIMEOUT = 30.0
    ONE_CLIENT = False

    def __init__(
        self, host: str, port: int, prot: Factory, *, backlog: int = 15
    ) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, True)
            listener.bind((host, port))
            listener.listen(backlog)
            self._set_up([listener], prot, backlog)
        except BaseException:
            listener.close()
            raise

    @classmethod
    def from_sockets(
        cls,
        sockets: Iterable[socket.socket],
        prot: Factory,
        *,
        max_connections: int = 0,
        write_timeout: float | None = None,
        max_queued: int | None = None,
        max_queued_total: int | None = None,
    ) -> AsyncSocketServer:
        """A server on sockets that listen already, of any family.

        `max_connections` (0: no limit) leaves further clients in the
        kernel's backlog; `write_timeout` is in seconds (0: none). It and
        what follows default to the class's attributes. ValueError if there
        is no socket.
        """
        sockets = list(sockets)
        if not sockets:
            raise ValueError("sockets: no socket is given")
        server = cls.__new__(cls)
        if write_timeout is not None:
            server.WRITE_TIMEOUT = write_timeout
        if max_queued is not None:
            server.MAX_QUEUED = max_queued
        if max_queued_total is not None:
            server.MAX_QUEUED_TOTAL = max_queued_total
        server._set_up(sockets, prot, 0, max_connections)
        return server

    def _set_up(
        self,
        sockets: Sequence[socket.socket],
        prot: Factory,
        backlog: int,
        max_connections: int = 0,
    ) -> None:
        _refuse_greenlets()
        self.sockets = sockets
        self.socket = sockets[0]
        # Whose client took the last place comes last when there are others.
        self._turns = list(sockets)
        name = self.socket.getsockname()
        self.host, self.port = name[:2] if isinstance(name, tuple) else ("", 0)
        self.prot = prot
        self.backlog = backlog
        self.draining = False
        self._max_connections = max_connections
        self._running = True
        self._looping = False
        self._warned: dict[str, float] = {}
        self._calls: deque[tuple[Callable[..., object], tuple[Any, ...]]] = (
            deque()
        )
        self._timers: list[tuple[float, int, TimerHandle]] = []
        self._many_timers = MANY_TIMERS
        self._timer_ids = itertools.count()
        self._due = math.inf
        self._next_sweep = math.inf
        for listener in sockets:
            listener.setblocking(False)
            if listener.family != socket.AF_UNIX:
                # Accepted sockets inherit it.
                listener.setsockopt(
                    socket.IPPROTO_TCP, socket.TCP_NODELAY, True
                )
                if hasattr(socket, "TCP_NOTSENT_LOWAT"):
                    # Else the kernel holds more for each slow reader.
                    listener.setsockopt(
                        socket.IPPROTO_TCP,
                        socket.TCP_NOTSENT_LOWAT,
                        UNSENT_BYTES,
                    )
        self._open()

    def _open(self) -> None:
        """What a process has for itself."""
        self._pid = os.getpid()
        self._poller = make_poller()
        self._connections = Connections(self, self._poller)
        self._wake_read, self._wake_write = socket.socketpair()
        self._wake_read.setblocking(False)
        self._wake_write.setblocking(False)
        self._woken = False
        self._watch(self._wake_read.fileno(), self._on_wake_up)
        self._listening: dict[socket.socket, int] = {}
        for listener in self.sockets:
            self._listen(listener)

    def is_forked(self) -> bool:
        """Is this the copy of a server, in a child of its process?"""
        return self._pid != os.getpid()

    def _close_copies(self) -> None:
        """Leave what is shared with the parent as it is."""
        self._connections.close_copies()
        self._wake_read.close()
        self._wake_write.close()
        self._poller.close()

    def accept_clients(self) -> None:
        """Serve until `shutdown()` or Ctrl-C, which closes all clients.

        Several processes may, forked after the server was made. RuntimeError
        if this one does already.
        """
        if self._looping and not self.is_forked():
            raise RuntimeError("the server is running")
        if self._running and self.is_forked():
            self._close_copies()
            self._open()
        self._looping = True
        catches_signals = self._catch_signals()
        connections = self._connections
        poll, dispatch = self._poller.poll, connections.dispatch
        flush, calls = connections.flush, self._calls
        events = Events(MAX_EVENTS)
        until = 0.0
        try:
            connections.start()
            # CPython 3.11 specialises no loop that ends in its condition:
            # measured, 700 instructions a turn.
            while True:
                if not self._running:
                    break
                poll(until, events)
                now = dispatch(events)
                if calls:
                    self._run_calls()
                if now >= self._due:
                    self._run_due(now)
                until = 0.0 if flush() or calls else self._due
        except KeyboardInterrupt:
            tell(log.info, "caught keyboard interrupt, closing all clients")
        finally:
            if catches_signals:
                signal.set_wakeup_fd(-1)
            self._looping = False
            self.close()

    def call_soon_threadsafe(
        self, callback: Callable[..., object], *args: Any
    ) -> None:
        """Run `callback(*args)` in the loop's next turn; from any thread."""
        self._calls.append((callback, args))
        if not self._woken:
            self._woken = True
            if not wake(self._wake_write):
                self._woken = False

    def open_soon(self, gate: Gate) -> None:
        """Open `gate` when the loop lets go of the interpreter.

        A thread that passed before would only wait for it.
        """
        self._poller.open_soon(gate)

    def call_soon(self, callback: Callable[..., object], *args: Any) -> None:
        """Run `callback(*args)` in the loop's next turn; from its thread."""
        self._calls.append((callback, args))

    def call_later(
        self, seconds: float, callback: Callable[..., object], *args: Any
    ) -> TimerHandle:
        """Run `callback(*args)` in `seconds`; from the loop's thread."""
        handle = TimerHandle(callback, args)
        due = monotonic() + _checked(seconds)
        if len(self._timers) >= self._many_timers:
            # In place: it may be in use.
            self._timers[:] = [
                each for each in self._timers if each[2].callback is not None
            ]
            heapq.heapify(self._timers)
            self._many_timers = max(2 * len(self._timers), MANY_TIMERS)
        heapq.heappush(self._timers, (due, next(self._timer_ids), handle))
        self._due = min(self._due, due)
        return handle

    def shutdown(self, timeout: float | None = None) -> None:
        """Stop without losing a request; from any thread or a signal handler.

        Accepts what waits in the backlog, then no more; lets every protocol
        finish. After `timeout` seconds (None: wait for all) it closes the
        connections that are left; 0 closes them at once. ValueError if it
        is not a number.
        """
        if timeout is not None:
            timeout = _checked(timeout)
        self.call_soon_threadsafe(self._drain, timeout)

    def close(self) -> None:
        """Close the listening sockets and every connection at once."""
        self._stop()
        if self._looping:
            # accept_clients() comes back here when its turn is over.
            self.call_soon_threadsafe(self._stop)
            return
        if self.is_forked():
            self._close_copies()
            for listener in self.sockets:
                listener.close()
            return
        try:
            self._connections.abort()
        finally:
            close_listeners(self.sockets)
            if self._wake_read.fileno() >= 0:
                self._wake_read.close()
                self._wake_write.close()
                self._poller.close()

    def _stop(self) -> None:
        self._running = False

    def _watch(self, fd: int, handler: Callable[[], None]) -> None:
        self._connections.set_handler(fd, handler)
        self._poller.register(fd, READABLE)

    def _listen(self, listener: socket.socket) -> None:
        if listener.fileno() >= 0 and listener not in self._listening:
            self._watch(
                listener.fileno(), lambda: self._on_acceptable(listener)
            )
            self._listening[listener] = listener.fileno()

    def _unlisten(self, listener: socket.socket) -> None:
        if listener in self._listening:
            fd = self._listening.pop(listener)
            self._connections.set_handler(fd, None)
            with contextlib.suppress(OSError):  # the program has closed it
                self._poller.unregister(fd)

    def _listen_all(self) -> None:
        if not self.draining:
            self._connections.notify_closed = False
            try:
                for listener in self._turns:
                    self._listen(listener)
            except OSError as error:
                self._warn_seldom(
                    "cannot listen again: %s; trying in %g s",
                    error.strerror,
                    ACCEPT_PAUSE,
                )
                self.call_later(ACCEPT_PAUSE, self._listen_all)

    def _room(self) -> int:
        if self.ONE_CLIENT:
            return 1
        if not self._max_connections or self.draining:
            return MAX_ACCEPTS
        return min(MAX_ACCEPTS, self._max_connections - self._connections.count)

    def _on_acceptable(self, listener: socket.socket) -> None:
        if failure := self._accept(listener, self._room()):
            self._warn_seldom(
                "cannot accept: %s; trying again in %g s or when a "
                "connection closes (%d are open)",
                os.strerror(failure),
                ACCEPT_PAUSE,
                self._connections.count,
            )
            self.call_later(ACCEPT_PAUSE, self._listen_all)
        elif self.ONE_CLIENT:
            self.draining = True
            self._close_listeners()
            return
        elif self._room() > 0:
            return
        else:
            self._warn_seldom(
                "the limit of %d connections (worker_connections) is reached;"
                " further clients wait",
                self._max_connections,
            )
        for each in self.sockets:
            self._unlisten(each)
        self._turns.remove(listener)
        self._turns.append(listener)
        self._connections.notify_closed = not self.draining

    def _accept(self, listener: socket.socket, most: int) -> int:
        failure = self._connections.accept(listener.fileno(), self.prot, most)
        if self._next_sweep == math.inf:
            self._plan_sweep(self._connections.now)
        return failure

    def _warn_seldom(self, message: str, *args: Any) -> None:
        """What lasts is told at most once in WARN_INTERVAL seconds."""
        now = monotonic()
        if now >= self._warned.get(message, -math.inf) + WARN_INTERVAL:
            self._warned[message] = now
            tell(log.warning, message, *args)

    def _on_connection_closed(self) -> None:
        if not self.draining:
            self.call_soon_threadsafe(self._listen_all)
            self._connections.notify_closed = False
        elif not self._connections.count:
            self._stop()

    def _on_wake_up(self) -> None:
        # Only then, or a byte written in between would be the last.
        sleep_again(self._wake_read.fileno())
        self._woken = False

    def _run_calls(self) -> None:
        for _ in range(len(self._calls)):
            callback, args = self._calls.popleft()
            self._call(callback, args)

    def _run_due(self, now: float) -> None:
        if now >= self._next_sweep:
            self._connections.sweep()
            self._plan_sweep(now)
        due = []
        while self._timers and self._timers[0][0] <= now:
            due.append(heapq.heappop(self._timers)[2])
        for handle in due:
            if handle.callback is not None:
                self._call(handle.callback, handle.args)
        self._due = min(
            self._next_sweep,
            self._timers[0][0] if self._timers else math.inf,
        )

    def _plan_sweep(self, now: float) -> None:
        self._next_sweep = math.inf
        if self._connections.count:
            self._next_sweep = now + SWEEP_INTERVAL
        self._due = min(self._due, self._next_sweep)

    def _call(
        self, callback: Callable[..., object], args: tuple[Any, ...]
    ) -> None:
        try:
            callback(*args)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:
            tell(log.exception, "exception in %r", callback)

    def _drain(self, timeout: float | None) -> None:
        if timeout == 0:
            self._stop()
        elif timeout is not None:
            self.call_later(timeout, self._cut)
        if self.draining and self.ONE_CLIENT:
            self._connections.drain()
        elif not self.draining:
            self.draining = True
            self._connections.notify_closed = False
            self._connections.drain()
            self.call_later(refuse_new_clients(self.sockets), self._accept_last)

    def _accept_last(self) -> None:
        failures = [
            self._accept(listener, MAX_BACKLOG)
            for listener in self.sockets
            if listener.fileno() >= 0
        ]
        if any(failures) and self._connections.count:
            # Those that are open may leave what it takes.
            self.call_later(ACCEPT_LAST_PAUSE, self._accept_last)
        else:
            self._close_listeners()

    def _close_listeners(self) -> None:
        for listener in self.sockets:
            self._unlisten(listener)
        close_listeners(self.sockets)
        self._connections.notify_closed = True
        if not self._connections.count:
            self._stop()

    def _cut(self) -> None:
        if self._connections.count:
            tell(
                log.warning,
                "closing %d connections that did not finish in time",
                self._connections.count,
            )
        self._stop()

    def _catch_signals(self) -> bool:
        """Let a signal end a wait that starts just after it arrived."""
        if threading.current_thread() is not threading.main_thread():
            return False
        previous = signal.set_wakeup_fd(
            self._wake_write.fileno(), warn_on_full_buffer=False
        )
        if previous != -1:
            signal.set_wakeup_fd(previous, warn_on_full_buffer=False)
        return previous == -1


def _refuse_greenlets() -> None:
    """Where threads are none, the first that waits would be the last."""
    if isinstance(_thread.start_new_thread, BuiltinFunctionType):
        return
    here = []
    done = _thread.allocate_lock()

    def run() -> None:
        here.append(threading.get_native_id())
        done.release()

    done.acquire()
    _thread.start_new_thread(run, ())
    done.acquire()
    if here == [threading.get_native_id()]:
        raise AppLoadError(
            "the program's threads are greenlets, as monkey patching (gevent,"
            " eventlet) makes them; fasthttp needs real ones"
        )


def _checked(seconds: float) -> float:
    seconds = float(seconds)
    if math.isnan(seconds):
        raise ValueError("nan is no number of seconds")
    return seconds
