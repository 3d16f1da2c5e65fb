"""The real command stops: what it has begun or accepted is finished."""

import contextlib
import errno
import os
import select
import signal
import socket
import subprocess
import threading
import time

import pytest

from tests.apps.bodies import BLOCK
from tests.apps.serving import serving
from tests.apps.wire import PATIENCE, Connection

STOPS = [signal.SIGTERM, signal.SIGINT]
AT_ONCE = 5
# Of fasthttp/_http1.pyx.
DRAIN_GRACE = 0.2


class Gated:
    """A server whose application waits, and its clients."""

    def __init__(self, stack, threads):
        self.stack = stack
        self.threads = threads
        self.told, self._entered = os.pipe()
        self._gate, self.steer = os.pipe()
        for fd in (self.told, self._entered, self._gate, self.steer):
            stack.callback(os.close, fd)

    def start(self, *arguments):
        pipes = {"ENTERED": str(self._entered), "GATE": str(self._gate)}
        self.command = self.stack.enter_context(
            serving(
                "gated",
                "--threads",
                self.threads,
                *arguments,
                env=pipes,
                pass_fds=(self._entered, self._gate),
            )
        )
        return self

    def connect(self, **options):
        address = "127.0.0.1", self.command.port
        return self.stack.enter_context(Connection(address, **options))

    def entered(self, count=1):
        for _ in range(count):
            assert os.read(self.told, 1) == b"x"

    def open(self, count=1):
        os.write(self.steer, b"x" * count)

    def signal(self, number):
        self.command.process.send_signal(number)

    def is_stopping(self):
        self.command.wait_for_line("finishing open requests")

    def is_closed(self):
        """Wait until nobody can connect any more."""
        code = None
        while code != errno.ECONNREFUSED:
            with socket.socket() as client:
                # A SYN that was dropped comes again only after a second.
                client.settimeout(0.02)
                code = client.connect_ex(("127.0.0.1", self.command.port))

    def ended(self, within=PATIENCE):
        return self.command.ended(within)


@pytest.fixture(params=["0", "2"], ids=["loop", "pool"])
def gated(request):
    with contextlib.ExitStack() as stack:
        yield Gated(stack, request.param)


@pytest.fixture
def pool():
    """With threads the loop answers while the application waits."""
    with contextlib.ExitStack() as stack:
        yield Gated(stack, "2")


# Requests


@pytest.mark.parametrize("number", STOPS)
def test_the_backlog_is_answered(gated, number):
    """What the kernel has accepted is known to its client as connected."""
    gated.start()
    gated.signal(signal.SIGSTOP)
    clients = [gated.connect().request(f"/{n}") for n in range(100)]
    half = gated.connect().send(b"GET /half HTTP/1.1\r\nHo")
    gated.signal(number)
    gated.signal(signal.SIGCONT)
    for n, client in enumerate(clients):
        got = client.response()
        assert (got.status, got.body) == (200, b"/%d" % n)
        assert client.at_end()
    gated.is_stopping()
    assert half.send(b"st: x\r\n\r\n").response().body == b"/half"
    assert gated.ended() == 0


def test_requests_behind_busy_threads_are_answered(gated):
    gated.start()
    clients = [gated.connect().request("/gate") for _ in range(20)]
    gated.entered(int(gated.threads) or 1)
    gated.signal(signal.SIGTERM)
    gated.open(20)
    for client in clients:
        assert client.response().body == b"/gate"
    assert gated.ended() == 0


def test_the_backlog_is_answered_at_the_limit_of_connections(pool):
    pool.start("--worker-connections", "2")
    clients = [pool.connect().request("/gate") for _ in range(6)]
    pool.entered(2)
    pool.command.wait_for_line("the limit of 2 connections")
    pool.signal(signal.SIGTERM)
    pool.open(6)
    for client in clients:
        assert client.response().body == b"/gate"
    assert pool.ended() == 0


def test_pipelined_requests_are_answered(gated):
    gated.start()
    filler = "X: " + "x" * 1000
    paths = ["/gate", *[f"/{n}" for n in range(200)]]
    client = gated.connect()
    client.send(
        b"".join(
            f"GET {path} HTTP/1.1\r\nHost: x\r\n{filler}\r\n\r\n".encode()
            for path in paths
        )
    )
    gated.entered()
    gated.signal(signal.SIGTERM)
    gated.open()
    for path in paths:
        assert client.response().body == path.encode()
    assert client.at_end()
    assert gated.ended() == 0


def test_pipelined_requests_not_yet_read_are_answered(pool):
    """While a response is waited for, the kernel holds what comes next."""
    pool.start()
    client, other = pool.connect(), pool.connect()
    client.request("/gate")
    pool.entered()
    for n in range(5):
        client.request(f"/{n}")
        assert other.get("/").status == 200
    pool.signal(signal.SIGTERM)
    pool.is_stopping()
    pool.open()
    for path in (b"/gate", b"/0", b"/1", b"/2", b"/3", b"/4"):
        assert client.response().body == path
    assert client.at_end()
    assert pool.ended() == 0


def test_an_upload_is_received_to_its_end(gated):
    gated.start()
    client = gated.connect()
    client.request("/upload", "Content-Length: 1000000", method="POST")
    client.send(b"a" * 500_000)
    gated.signal(signal.SIGTERM)
    gated.is_stopping()
    got = client.send(b"b" * 500_000).response()
    assert got.body == b"/upload" + b"a" * 500_000 + b"b" * 500_000
    assert got.headers["Connection"] == "close"
    assert gated.ended() == 0


class Load(threading.Thread):
    """Asks until the server says close, or is not there any more."""

    def __init__(self, port, keep_alive):
        super().__init__()
        self.address = "127.0.0.1", port
        self.keep_alive = keep_alive
        self.under_way = threading.Event()
        self.lost = []
        self.count = 0

    def run(self):
        while self.connect():
            pass

    def connect(self):
        self.idle_since, self.asked_at = time.monotonic(), float("inf")
        try:
            client = Connection(self.address)
        except (ConnectionRefusedError, ConnectionResetError):
            return False
        with client:
            try:
                return self.ask(client)
            except (OSError, EOFError) as error:
                asked_at = min(self.asked_at, time.monotonic())
                # Whoever was idle for longer may be closed at any time.
                if asked_at - self.idle_since < DRAIN_GRACE:
                    self.lost.append(repr(error))
                return False

    def ask(self, client):
        # an idle connection that is readable has been closed
        while not select.select([client.socket], [], [], 0)[0]:
            body = b"%d" % self.count
            client.request("/load", method="POST", body=body)
            self.asked_at = time.monotonic()
            got = client.response()
            self.idle_since, self.asked_at = time.monotonic(), float("inf")
            assert got.body == b"/load" + body
            self.count += 1
            if self.count == 20:
                self.under_way.set()
            if got.headers["Connection"] == "close":
                return False
            if not self.keep_alive:
                return True
        return False


@pytest.mark.parametrize("number", STOPS)
@pytest.mark.parametrize("keep_alive", [True, False])
def test_no_request_is_lost_under_load(gated, number, keep_alive):
    gated.start()
    loads = [Load(gated.command.port, keep_alive) for _ in range(16)]
    for load in loads:
        load.start()
    for load in loads:
        assert load.under_way.wait(PATIENCE)
    gated.signal(number)
    for load in loads:
        load.join()
    assert [load.lost for load in loads if load.lost] == []
    assert gated.ended() == 0


# Responses


def test_a_stream_is_finished(pool):
    pool.start()
    client = pool.connect().request("/stream")
    client.head()
    assert client.chunk() == b"0"
    pool.entered()
    pool.signal(signal.SIGTERM)
    pool.is_stopping()
    for part in (b"1", b"2"):
        pool.open()
        assert client.chunk() == part
        pool.entered()
    pool.open()
    assert [client.chunk(), client.chunk()] == [b"end", b""]
    assert client.at_end()
    assert pool.ended() == 0


def test_a_response_is_sent_to_its_end(gated):
    """Also to a client that has not begun to read it."""
    gated.start()
    client = gated.connect(receive_buffer=32768).request("/large")
    client.head()
    gated.signal(signal.SIGTERM)
    gated.is_stopping()
    assert client.file.read() == BLOCK * 200
    assert gated.ended() == 0


def test_the_graceful_timeout_ends_a_stream(gated):
    gated.start("--graceful-timeout", "0.2")
    client = gated.connect(receive_buffer=32768).request("/endless")
    client.head()
    assert client.chunk() == BLOCK
    gated.signal(signal.SIGTERM)
    assert client.is_cut()
    assert gated.ended(AT_ONCE) == 0
    assert "did not finish in time" in gated.command.stderr


# Connections


def test_idle_connections_are_closed_at_once(gated):
    """Those never used, and those between two requests."""
    gated.start()
    clients = [gated.connect() for _ in range(50)]
    for client in clients[:25]:
        assert client.get("/").status == 200
    began = time.monotonic()
    gated.signal(signal.SIGTERM)
    for client in clients:
        assert client.at_end()
    assert gated.ended() == 0
    assert time.monotonic() - began < AT_ONCE


def test_idle_connections_are_closed_while_others_finish(pool):
    pool.start()
    idle = pool.connect()
    assert idle.get("/").status == 200
    busy = pool.connect().request("/gate")
    pool.entered()
    pool.signal(signal.SIGTERM)
    assert idle.at_end()
    pool.is_closed()
    pool.open()
    assert busy.response().body == b"/gate"
    assert pool.ended() == 0


def test_a_further_term_does_not_force(pool):
    pool.start()
    client = pool.connect().request("/gate")
    pool.entered()
    for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
        pool.signal(number)
    pool.command.wait_for_line("SIGINT")
    pool.open()
    assert client.response().body == b"/gate"
    assert pool.ended() == 0


@pytest.mark.parametrize("path", ["/gate", "/stream", "/endless"])
def test_a_second_interrupt_forces(pool, path):
    pool.start()
    client = pool.connect(receive_buffer=32768).request(path)
    if path != "/endless":
        pool.entered()
    pool.signal(signal.SIGINT)
    # Before, it might come between a line that opens a file and the next.
    pool.is_closed()
    pool.signal(signal.SIGINT)
    assert pool.ended(AT_ONCE) == 0
    assert client.is_cut()


def test_an_application_is_waited_for_though_its_client_left(pool):
    """And signals that come meanwhile do not end the process."""
    pool.start()
    client = pool.connect().request("/gate")
    pool.entered()
    client.reset()
    pool.signal(signal.SIGTERM)
    for _ in range(50):
        pool.is_closed()
        pool.signal(signal.SIGTERM)
    # As long as nothing else is left that a stop would wait for.
    with pytest.raises(subprocess.TimeoutExpired):
        pool.ended(within=1)
    pool.open()
    assert pool.ended() == 0
