"""A transport and a server that are none; and a loop in a thread."""

import concurrent.futures
import contextlib
import gc
import logging
import queue
import selectors
import socket
import struct
import threading
import time
import tracemalloc
import urllib.request

from fasthttp import BaseProtocol
from fasthttp import server as server_module
from fasthttp._poller import SelectorPoller
from fasthttp._protocol import BaseTransport

POLLERS = ("epoll", "poll")
PATIENCE = 10
SMALL_BUFFER = 4096


class FakeServer:
    """What `HttpProtocol` needs of a server; keeps what is to run soon."""

    def __init__(self):
        self.calls = []

    def call_soon_threadsafe(self, callback, *args):
        self.calls.append((callback, args))

    def run_calls(self):
        calls, self.calls = self.calls, []
        for callback, args in calls:
            callback(*args)


class FakeTransport(BaseTransport):
    """Keeps what a protocol sends and asks for."""

    def __init__(self):
        self.sent = bytearray()
        self.ended = None
        self.reading = True
        self.deadline = 0.0
        self.unsent = 0

    def getpeername(self):
        return ("192.0.2.1", 4711)

    def write(self, data):
        if self.ended is None:
            self.sent += data
        return 0

    def full(self):
        return self.unsent > 65536

    def set_deadline(self, seconds):
        self.deadline = seconds
        return self.now()

    def pause_reading(self):
        self.reading = False
        return 0

    def resume_reading(self):
        self.reading = True
        return 0

    def close(self):
        return self._end("close")

    def close_lingering(self):
        return self._end("linger")

    def abort(self):
        return self._end("abort")

    def _end(self, how):
        self.ended = self.ended or how
        return 0


class ErrorLog(logging.Handler):
    """The records of `fasthttp.error` while it is entered."""

    def __init__(self):
        super().__init__(logging.DEBUG)
        self.records = []
        self._added = threading.Condition()
        self._logger = logging.getLogger("fasthttp.error")

    def __enter__(self):
        self._level = self._logger.level
        self._logger.setLevel(logging.DEBUG)
        self._logger.addHandler(self)
        return self

    def __exit__(self, *error):
        self._logger.removeHandler(self)
        self._logger.setLevel(self._level)

    def emit(self, record):
        with self._added:
            self.records.append(record)
            self._added.notify_all()

    def wait_for(self, text):
        """The first record with `text` in its message or traceback."""

        def found():
            return [
                record for record in self.records if text in self.format(record)
            ]

        with self._added:
            assert self._added.wait_for(found, PATIENCE), self.messages
        return found()[0]

    def take(self, text):
        """Wait for a record as above and remove it; all that it says."""
        record = self.wait_for(text)
        self.records.remove(record)
        return self.format(record)

    @property
    def messages(self):
        return [record.getMessage() for record in self.records]


class Probe(BaseProtocol):
    """Notes which hooks are called and with what."""

    def __init__(self, server, trans, mqueue):
        super().__init__(server, trans, mqueue)
        self.calls = []
        self.received = bytearray()
        self._noted = threading.Condition()

    def on_new_connection(self, address):
        self.note("new")

    def on_data_received(self, data):
        self.received += data
        self.note("data")

    def on_connection_closed(self):
        self.note("closed")

    def on_pause_writing(self):
        self.note("pause")

    def on_resume_writing(self):
        self.note("resume")

    def on_deadline(self):
        self.note("deadline")

    def note(self, call):
        with self._noted:
            self.calls.append(call)
            self._noted.notify_all()

    def wait_for(self, call):
        """Wait until a hook was called."""
        with self._noted:
            assert self._noted.wait_for(lambda: call in self.calls, PATIENCE)


def overriding(hook, action):
    """A Probe that calls `action(self)` at the end of one hook."""

    def override(self, *arguments):
        getattr(super(protocol, self), hook)(*arguments)
        action(self)

    protocol = type("Overriding", (Probe,), {hook: override})
    return protocol


class Probes:
    """Makes the protocols of a server and hands them to the test."""

    def __init__(self, protocol=Probe):
        self.protocol = protocol
        self._made = queue.SimpleQueue()

    def __call__(self, server, trans, mqueue):
        made = self.protocol(server, trans, mqueue)
        self._made.put(made)
        return made

    def next(self):
        return self._made.get(timeout=PATIENCE)


def fetch(url):
    """The body that a GET of it is answered with."""
    with urllib.request.urlopen(url, timeout=PATIENCE) as response:
        return response.read()


class Waiting:
    """An application that says when it is entered and waits to be let go."""

    def __init__(self, body):
        self.body = body
        self._entered = threading.Semaphore(0)
        self._gate = threading.Event()

    def __call__(self, environ, start_response):
        self._entered.release()
        assert self._gate.wait(PATIENCE)
        start_response("200 OK", [])
        return self.body

    def wait(self):
        """Return when it is entered."""
        assert self._entered.acquire(timeout=PATIENCE)

    def open(self):
        self._gate.set()


def use_poller(name, monkeypatch):
    """Let new servers use the system's poller or the portable one.

    Either counts its calls.
    """
    made = server_module.make_poller
    if name == "poll":
        monkeypatch.setattr(
            selectors, "DefaultSelector", selectors.PollSelector
        )
        made = SelectorPoller
    monkeypatch.setattr(
        server_module, "make_poller", lambda: CountingPoller(made())
    )


class CountingPoller:
    def __init__(self, poller):
        self.polls = 0
        self.poller = poller

    def __getattr__(self, name):
        return getattr(self.poller, name)

    def poll(self, until, events):
        self.polls += 1
        return self.poller.poll(until, events)


def time_passes(server, seconds):
    """Wait until the loop has seen this time pass."""
    over = threading.Event()
    in_loop(server, server.call_later, seconds, over.set)
    assert over.wait(seconds + PATIENCE)


def memory_kept(action):
    """Bytes that a second time of it leaves behind."""
    tracemalloc.start()
    try:
        action()
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        action()
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return after - before


class StalledError(Exception):
    """The machine had no time for a test: it has shown nothing."""


def steadily(server, seconds, steps):
    """Take each of the steps, with this time behind it, or StalledError."""
    before = time.monotonic()
    for step in steps:
        try:
            step()
            time_passes(server, seconds)
        finally:
            now = time.monotonic()
            if now - before > 4 * seconds:
                raise StalledError
            before = now


def once_steadily(attempt):
    """Call what ends in StalledError again, twenty times at most."""
    for _ in range(20):
        with contextlib.suppress(StalledError):
            return attempt()
    raise StalledError


def growth(server, count, seconds):
    """By how much `count()` grows while the loop sees this time pass."""
    over = concurrent.futures.Future()

    def begin():
        before = count()
        server.call_later(seconds, lambda: over.set_result(count() - before))

    in_loop(server, begin)
    return over.result(seconds + PATIENCE)


def count_polls(server, seconds):
    """How often the loop turns in this time."""
    return growth(server, lambda: server._poller.polls, seconds)


@contextlib.contextmanager
def serving(server, timeout=0):
    """Run the server's loop in a thread; at the end shut it down."""
    with concurrent.futures.ThreadPoolExecutor(1, "loop") as executor:
        running = executor.submit(server.accept_clients)
        try:
            yield server
        finally:
            server.shutdown(timeout)
            running.result(PATIENCE)


def in_loop(server, function, *args):
    """Call `function(*args)` on the loop's thread; its result."""
    done = concurrent.futures.Future()

    def call():
        try:
            done.set_result(function(*args))
        except Exception as error:
            done.set_exception(error)

    server.call_soon_threadsafe(call)
    return done.result(PATIENCE)


@contextlib.contextmanager
def halted(server):
    """Hold the loop, so that what happens meanwhile waits in the kernel."""
    entered = threading.Event()
    released = threading.Event()

    def hold():
        entered.set()
        assert released.wait(PATIENCE)

    server.call_soon_threadsafe(hold)
    assert entered.wait(PATIENCE)
    try:
        yield
    finally:
        released.set()


def listen(**options):
    """A listening socket; its connections have small send buffers."""
    listener = socket.create_server(("127.0.0.1", 0), **options)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BUFFER)
    return listener


def connect(port, *, small=False):
    """A client's socket; a `small` one takes little that it does not read."""
    client = socket.socket()
    try:
        client.settimeout(PATIENCE)
        if small:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
        client.connect(("127.0.0.1", port))
    except BaseException:
        client.close()
        raise
    return client


def read_all(client):
    """What the client receives until the end."""
    received = bytearray()
    while data := client.recv(1 << 20):
        received += data
    return bytes(received)


def read_exactly(client, size):
    received = bytearray()
    while len(received) < size:
        data = client.recv(size - len(received))
        assert data, f"the end after {len(received)} of {size} bytes"
        received += data
    return bytes(received)


def reset(client):
    """Close with RST."""
    linger = struct.pack("ii", 1, 0)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    client.close()
