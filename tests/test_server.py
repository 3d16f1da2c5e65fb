"""The loop, and what was wrong with the server it grew from."""

import _thread
import asyncio
import errno
import gc
import logging
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from contextlib import closing
from pathlib import Path

import pytest
from fakes import (
    PATIENCE,
    POLLERS,
    Probe,
    Probes,
    connect,
    count_polls,
    growth,
    halted,
    in_loop,
    listen,
    overriding,
    read_all,
    read_exactly,
    reset,
    serving,
    time_passes,
    use_poller,
)

from fasthttp import AsyncSocketServer, BaseProtocol
from fasthttp import server as server_module
from fasthttp._poller import Gate
from fasthttp.errors import AppLoadError
from fasthttp.listeners import HANDSHAKE_SECONDS

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True, params=POLLERS)
def poller(request, monkeypatch):
    use_poller(request.param, monkeypatch)


@pytest.fixture
def start(stack):
    """Starts a server for a protocol, on a free port, in a thread."""

    def start(prot, cls=AsyncSocketServer, **options):
        return stack.enter_context(
            serving(cls("127.0.0.1", 0, prot, **options))
        )

    return start


@pytest.fixture
def client(stack):
    """Connects a client to a server."""
    return lambda server: stack.enter_context(connect(server.port))


# Protocols in the style of the server this one replaces.


class Echo(BaseProtocol):
    def on_new_connection(self, address: tuple[str, int]) -> None:
        self.address = address

    def on_data_received(self, data: bytes) -> None:
        self.send(data)

    def on_connection_closed(self) -> None:
        pass


class Staying(Echo):
    def on_shutdown(self) -> None:
        pass


class Lines(BaseProtocol):
    """Answers each line in upper case; `quit` says what it knows and ends."""

    def __init__(self, server, sk_client, mqueue):
        super().__init__(server, sk_client, mqueue)
        self.buffer = b""
        self.count = 0

    def on_new_connection(self, address: tuple[str, int]) -> None:
        self.address = address
        self.send(f"hello {address[0]} {address[1]}\n")

    def on_data_received(self, data: bytes) -> None:
        self.buffer += data
        while b"\n" in self.buffer:
            line, self.buffer = self.buffer.split(b"\n", 1)
            self.count += 1
            if line == b"quit":
                return self.quit()
            self._mqueue.put_nowait(line.upper() + b"\n")
        return None

    def quit(self):
        assert not self._mqueue.empty() or self.count == 1
        assert self.trans.fileno() >= 0
        for name in (self.trans.getpeername(), self.trans.getsockname()):
            self.send(f"{name[0]} {name[1]}\n")
        self.send(f"{self.count} lines\n")
        self.close_socket_connection()

    def on_connection_closed(self) -> None:
        pass


def test_an_echo(start, client):
    server = start(Echo)
    peers = [client(server) for _ in range(3)]
    for at, peer in enumerate(peers):
        peer.sendall(b"message %d" % at)
    for at, peer in enumerate(peers):
        assert read_exactly(peer, 9) == b"message %d" % at


def test_a_line_protocol(start, client):
    server = start(Lines, backlog=5)
    peer = client(server)
    host, port = peer.getsockname()
    peer.sendall(b"one\ntw")
    answer = f"hello {host} {port}\nONE\n".encode()
    assert read_exactly(peer, len(answer)) == answer
    peer.sendall(b"o\nquit\nthis is too late\n")
    assert read_all(peer).decode() == (
        f"TWO\n{host} {port}\n127.0.0.1 {server.port}\n3 lines\n"
    )


def test_the_attributes_a_program_may_read():
    with closing(AsyncSocketServer("127.0.0.1", 0, Echo, backlog=3)) as server:
        assert server.host == "127.0.0.1"
        assert server.port == server.socket.getsockname()[1] > 0
        assert server.prot is Echo
        assert server.backlog == 3
        assert server.RX_CHUNKSIZE > 0


def test_a_port_that_is_taken():
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(OSError, match="in use"),
    ):
        AsyncSocketServer("127.0.0.1", taken.getsockname()[1], Echo)


@pytest.mark.parametrize(
    ("port", "size", "error"),
    [
        ("80", 65536, TypeError),
        (65536, 65536, OverflowError),
        (0, 0, ValueError),
        (0, None, TypeError),
    ],
)
def test_what_cannot_be_made_leaves_no_socket(port, size, error, monkeypatch):
    made = []

    class Socket(socket.socket):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            made.append(self)

    monkeypatch.setattr(socket, "socket", Socket)
    monkeypatch.setattr(AsyncSocketServer, "RX_CHUNKSIZE", size)
    with pytest.raises(error):
        AsyncSocketServer("127.0.0.1", port, Echo)
    assert [each.fileno() for each in made] == [-1]


def test_no_server_without_a_socket():
    with pytest.raises(ValueError, match="no socket"):
        AsyncSocketServer.from_sockets([], Echo)


def test_threads_that_are_none_are_refused(monkeypatch):
    class Wrapping:
        """A debugger's, which are threads still."""

        start = staticmethod(_thread.start_new_thread)

        def __call__(self, function, arguments):
            return self.start(function, arguments)

    def run_here(function, arguments):
        function(*arguments)

    monkeypatch.setattr(_thread, "start_new_thread", Wrapping())
    with closing(AsyncSocketServer("127.0.0.1", 0, Echo)):
        pass
    monkeypatch.setattr(_thread, "start_new_thread", run_here)
    with pytest.raises(AppLoadError, match="greenlets"):
        AsyncSocketServer("127.0.0.1", 0, Echo)


def test_a_protocol_must_have_the_three_hooks(start, client, error_log):
    class Partial(BaseProtocol):
        def on_new_connection(self, address):
            pass

        def on_data_received(self, data):
            pass

    with pytest.raises(TypeError, match="on_connection_closed"):
        Partial(None, None, None)
    assert read_all(client(start(Partial))) == b""
    assert "on_connection_closed" in str(error_log.records[0].exc_info[1])


def test_ipv6(stack):
    probes = Probes(Lines)
    server = stack.enter_context(serving(AsyncSocketServer("::1", 0, probes)))
    with socket.create_connection(("::1", server.port), PATIENCE) as peer:
        probe = probes.next()
        assert probe.trans.getpeername()[:2] == peer.getsockname()[:2]
        assert probe.trans.getsockname()[:2] == ("::1", server.port)


def test_addresses(stack):
    """Each client has its own, and each of ours is told apart."""
    probes = Probes(Lines)
    server = stack.enter_context(serving(AsyncSocketServer("", 0, probes)))
    for host, own in (
        ("127.0.0.1", "127.0.0.1"),
        ("127.9.10.99", "127.0.0.1"),
        ("127.100.109.200", "127.255.255.254"),
        ("127.255.255.254", "127.0.0.1"),
    ):
        peer = stack.enter_context(
            socket.create_connection((own, server.port), PATIENCE, (host, 0))
        )
        trans = probes.next().trans
        assert trans.getpeername() == peer.getsockname()
        assert trans.getsockname() == peer.getpeername() == (own, server.port)


def test_a_unix_socket(stack, tmp_path):
    listener = stack.enter_context(socket.socket(socket.AF_UNIX))
    listener.bind(str(tmp_path / "socket"))
    listener.listen()
    stack.enter_context(
        serving(AsyncSocketServer.from_sockets([listener], Echo))
    )
    peer = stack.enter_context(socket.socket(socket.AF_UNIX))
    peer.settimeout(PATIENCE)
    peer.connect(str(tmp_path / "socket"))
    peer.sendall(b"hello")
    assert read_exactly(peer, 5) == b"hello"


# What was wrong with the server this one replaces.


def test_a_message_larger_than_the_kernel_takes_arrives_whole(start, client):
    message = os.urandom(1 << 20) * 16

    class Large(Echo):
        def on_data_received(self, data):
            self.send(message)

    peer = client(start(Large))
    peer.sendall(b"x")
    assert read_exactly(peer, len(message)) == message


def test_idle_clients_cost_nothing(start, client):
    probes = Probes(Echo)
    server = start(probes)
    for _ in range(10):
        client(server)
        probes.next()
    # One for each look at the deadlines, not one for each writable socket.
    assert count_polls(server, 0.4) <= 6


def test_one_reset_ends_one_connection(start, client):
    probes = Probes()
    server = start(probes)
    bystander = client(server)
    assert probes.next()
    for data in (b"", b"unread"):
        peer = connect(server.port)
        probe = probes.next()
        probe.wait_for("new")
        peer.sendall(data)
        reset(peer)
        probe.wait_for("closed")
        assert probe.calls.count("closed") == 1
    bystander.sendall(b"x")
    other = client(server)
    other.sendall(b"x")
    probes.next().wait_for("data")


def test_a_reset_while_much_is_unsent(start, client):
    class Large(Probe):
        def on_data_received(self, data):
            self.send(bytes(16 << 20))

    probes = Probes(Large)
    server = start(probes)
    peer = connect(server.port)
    peer.sendall(b"x")
    probe = probes.next()
    probe.wait_for("pause")
    reset(peer)
    probe.wait_for("closed")
    other = client(server)
    other.sendall(b"x")
    assert read_exactly(other, 16 << 20) == bytes(16 << 20)


def test_a_close_sends_every_queued_message(start, client):
    class Farewell(Echo):
        def on_data_received(self, data):
            for at in range(1000):
                self.send(b"%4d," % at)
            self.close_socket_connection()
            self.send(b"too late")

    peer = client(start(Farewell))
    peer.sendall(b"x")
    assert read_all(peer) == b"".join(b"%4d," % at for at in range(1000))


def test_descriptors_above_1024(start, client):
    probes = Probes(Echo)
    server = start(probes)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (max(limits[0], 2048), limits[1])
    )
    filler = []
    try:
        while not filler or filler[-1] < 1100:
            filler.append(os.dup(server.socket.fileno()))
        peer = client(server)
        assert probes.next().trans.fileno() > 1024
        peer.sendall(b"hello")
        assert read_exactly(peer, 5) == b"hello"
    finally:
        for fd in filler:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_a_fast_sender_does_not_starve_another(stack, client):
    order = []

    class Noting(Probe):
        def on_data_received(self, data):
            order.append(self)
            super().on_data_received(data)

    class Server(AsyncSocketServer):
        RX_CHUNKSIZE = 1024

    probes = Probes(Noting)
    server = stack.enter_context(serving(Server("127.0.0.1", 0, probes)))
    fast, slow = client(server), client(server)
    first, second = probes.next(), probes.next()
    with halted(server):
        fast.sendall(bytes(200_000))
        slow.sendall(b"x")
    second.wait_for("data")
    assert order.index(second) <= 2
    while order.count(first) * 1024 < 200_000:
        in_loop(server, lambda: None)


def test_no_hook_gets_more_than_the_chunk_size(stack, client):
    sizes = []

    class Sizes(Probe):
        def on_data_received(self, data):
            sizes.append(len(data))
            super().on_data_received(data)

    class Server(AsyncSocketServer):
        RX_CHUNKSIZE = 1000

    probes = Probes(Sizes)
    server = stack.enter_context(serving(Server("127.0.0.1", 0, probes)))
    peer = client(server)
    probe = probes.next()
    message = os.urandom(100_000)
    with halted(server):
        peer.sendall(message)
    peer.shutdown(socket.SHUT_WR)
    probe.wait_for("closed")
    assert probe.received == message
    assert max(sizes) == 1000


def test_many_clients_are_accepted_in_one_turn(start, client):
    turns = []

    class Turn(Probe):
        def on_new_connection(self, address):
            turns.append(self.server._connections.now)
            super().on_new_connection(address)

    probes = Probes(Turn)
    server = start(probes, backlog=100)
    with halted(server):
        peers = [client(server) for _ in range(50)]
    for _ in peers:
        probes.next()
    assert len(set(turns)) == 1


def test_hooks_may_close_others_while_all_are_closed(start, client):
    made = []

    def close_all(probe):
        for each in made:
            each.close_socket_connection()

    probes = Probes(overriding("on_connection_closed", close_all))
    server = start(probes)
    peers = [client(server) for _ in range(10)]
    made += [probes.next() for _ in peers]
    server.shutdown(0)
    for peer, probe in zip(peers, made, strict=True):
        assert read_all(peer) == b""
        probe.wait_for("closed")
        assert probe.calls == ["new", "closed"]


def test_a_close_of_what_the_peer_has_closed(start, client, error_log):
    probes = Probes()
    server = start(probes)
    peer = connect(server.port)
    probe = probes.next()
    with halted(server):
        reset(peer)
        probe.close_socket_connection()
    probe.wait_for("closed")
    in_loop(server, probe.close_socket_connection)
    in_loop(server, probe.send, b"nobody reads this")
    assert probe.calls == ["new", "closed"]
    assert probe.trans.fileno() == -1
    with pytest.raises(OSError, match="Bad file"):
        probe.trans.getsockname()
    assert error_log.records == []
    client(server)
    probes.next()


HOOKS = (
    "__init__",
    "on_new_connection",
    "on_data_received",
    "on_connection_closed",
    "on_pause_writing",
    "on_resume_writing",
    "on_deadline",
)


@pytest.mark.parametrize("hook", HOOKS)
def test_a_fault_in_a_hook_ends_one_connection(start, client, error_log, hook):
    def fail(self):
        raise LookupError(f"a fault in {hook}")

    class Fault(overriding(hook, fail)):
        def on_data_received(self, data):
            self.trans.set_deadline(hook == "on_deadline" and 0.01)
            if hook in ("on_pause_writing", "on_resume_writing"):
                self.send(bytes(1 << 24))
            elif hook != "on_deadline":
                super().on_data_received(data)
                self.close_socket_connection()

    protocols = iter((Echo, Fault, Echo))
    server = start(lambda *arguments: next(protocols)(*arguments))
    before = client(server)
    before.sendall(b"x")
    assert read_exactly(before, 1) == b"x"
    peer = client(server)
    try:
        peer.sendall(b"x")
        read_all(peer)
    except ConnectionError:
        pass
    record = error_log.wait_for("exception in")
    after = client(server)
    for bystander in (before, after):
        bystander.sendall(b"still here")
        assert read_exactly(bystander, 10) == b"still here"
    assert record.levelname == "ERROR"
    assert f"a fault in {hook}" in str(record.exc_info[1])
    frames = []
    trace = record.exc_info[2]
    while trace:
        frames.append(trace.tb_frame.f_code.co_name)
        trace = trace.tb_next
    assert "fail" in frames


def test_a_fault_in_the_programs_own_log(start, client, monkeypatch):
    """Of a filter: what handlers raise, logging itself takes."""
    shown = []
    monkeypatch.setattr(sys, "excepthook", lambda *error: shown.append(error))

    def fail(record):
        raise ZeroDivisionError

    def fail_too():
        raise RuntimeError

    server = start(overriding("on_data_received", lambda self: 1 // 0))
    other = client(server)
    logger = logging.getLogger("fasthttp.error")
    logger.addFilter(fail)
    try:
        peer = client(server)
        peer.sendall(b"x")
        assert read_all(peer) == b""
        in_loop(server, server.call_soon, fail_too)
        in_loop(server, int)
    finally:
        logger.removeFilter(fail)
    assert [kind for kind, *_ in shown] == [ZeroDivisionError] * 2
    in_loop(server, int)
    assert other.fileno() >= 0


def test_a_fault_in_the_programs_own_log_hinders_no_stop(
    start, client, error_log, monkeypatch
):
    shown = []
    monkeypatch.setattr(sys, "excepthook", lambda *error: shown.append(error))

    def fail(record):
        raise ZeroDivisionError

    def interrupt(server):
        raise KeyboardInterrupt

    def stop(server):
        server.shutdown(0.01)

    logger = logging.getLogger("fasthttp.error")
    monkeypatch.setattr(logger, "filters", [fail])
    for action in (stop, interrupt):
        server = start(Staying)
        peer = client(server)
        server.call_soon_threadsafe(action, server)
        assert read_all(peer) == b""
    assert [kind for kind, *_ in shown] == [ZeroDivisionError] * 2


def test_a_fault_in_on_shutdown(start, client, error_log):
    class Fault(Probe):
        def on_shutdown(self):
            raise LookupError("a fault")

    probes = Probes(Fault)
    server = start(probes)
    client(server)
    client(server)
    made = [probes.next(), probes.next()]
    server.shutdown()
    for probe in made:
        probe.wait_for("closed")
    assert [record.exc_info[0] for record in error_log.records] == [
        LookupError,
        LookupError,
    ]


def test_what_is_no_protocol_is_refused(start, client, error_log):
    assert read_all(client(start(lambda *arguments: "a str"))) == b""
    (record,) = error_log.records
    assert "not a BaseProtocol" in str(record.exc_info[1])
    assert record.getMessage().endswith("exception in prot()")


def test_an_exit_while_all_are_closed(stack):
    def leave(probe):
        raise SystemExit(3)

    probes = Probes(overriding("on_connection_closed", leave))
    server = AsyncSocketServer("127.0.0.1", 0, probes)
    peers = []

    def clients():
        for _ in range(3):
            peers.append(stack.enter_context(connect(server.port)))
            probes.next().wait_for("new")
        server.close()

    with pytest.raises(SystemExit):
        on_main_thread(server, clients)
    assert server.socket.fileno() == -1
    for peer in peers:
        assert read_all(peer) == b""


@pytest.mark.parametrize("error", [asyncio.CancelledError, GeneratorExit])
def test_an_exception_that_is_no_exception(start, client, error_log, error):
    class Cancelled(Echo):
        def on_data_received(self, data):
            raise error

    server = start(Cancelled)
    peers = [client(server), client(server)]
    for peer in peers:
        peer.sendall(b"x")
        assert read_all(peer) == b""
    assert [record.exc_info[0] for record in error_log.records] == [error] * 2


def test_an_application_that_closes_the_descriptor(start, client):
    class Rude(Probe):
        def on_data_received(self, data):
            if data == b"rude":
                os.close(self.trans.fileno())
            self.send(data)

    probes = Probes(Rude)
    server = start(probes)
    bystander, peer = client(server), client(server)
    probes.next()
    rude = probes.next()
    peer.sendall(b"rude")
    rude.wait_for("closed")
    bystander.sendall(b"still here")
    assert read_exactly(bystander, 10) == b"still here"


def test_a_client_whose_descriptor_the_application_closed_before(start, client):
    probes = Probes(Echo)
    server = start(probes)
    client(server)
    number = probes.next().trans.fileno()
    in_loop(server, lambda: None)
    with halted(server):
        peer = client(server)
        os.close(number)
    assert probes.next().trans.fileno() == number
    peer.sendall(b"hello")
    assert read_exactly(peer, 5) == b"hello"


def take_over(start, client, taker, end):
    """What `taker` opens has the number of a connection that then ends."""
    taken = []

    def replace(probe):
        number = probe.trans.fileno()
        os.close(number)
        taken.append(taker())
        assert taken[0].fileno() == number
        end(probe)

    probes = Probes(overriding("on_data_received", replace))
    server = start(probes)
    peer = client(server)
    probe = probes.next()
    in_loop(server, lambda: None)
    peer.sendall(b"x")
    probe.wait_for("closed")
    in_loop(server, lambda: None)
    return taken[0]


@pytest.mark.parametrize("poller", ["epoll"], indirect=True)
def test_a_descriptor_that_was_taken_over_is_left_alone(
    start, client, tmp_path
):
    path = tmp_path / "file"
    path.write_text("content")
    end = Probe.close_socket_connection
    with take_over(start, client, path.open, end) as file:
        assert file.read() == "content"


@pytest.mark.parametrize("poller", ["epoll"], indirect=True)
def test_a_socket_that_was_taken_over_is_not_reset(start, client):
    def abort(probe):
        probe.trans.abort()

    with take_over(start, client, socket.socket, abort) as taken:
        linger = taken.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8)
        assert linger == bytes(8)


def test_a_fault_in_the_pause_of_another_ends_the_other(
    start, client, error_log
):
    def fail(probe):
        raise LookupError("its own fault")

    class Flood(overriding("on_pause_writing", fail)):
        members = ()

        def on_data_received(self, data):
            super().on_data_received(data)
            for each in self.members:
                each.send(bytes(1 << 24))
            self.send(data)

    probes = Probes(Flood)
    server = start(probes)
    sender, _victim = client(server), client(server)
    first, second = probes.next(), probes.next()
    first.members = (second,)
    sender.sendall(b"x")
    second.wait_for("closed")
    assert read_exactly(sender, 1) == b"x"
    assert first.calls == ["new", "data"]
    assert error_log.records[0].exc_info[0] is LookupError


# Ctrl-C and other ends.

PROGRAM = """
import logging
from async_socket_server import AsyncSocketServer, BaseProtocol


class Shout(BaseProtocol):
    def __init__(self, server, sk_client, mqueue):
        super().__init__(server, sk_client, mqueue)
        self.address = None

    def on_new_connection(self, address: tuple[str, int]) -> None:
        self.address = address
        self.send("welcome\\n")

    def on_data_received(self, data: bytes) -> None:
        self.send(data.upper())
        if data.endswith(b"bye\\n"):
            self.close_socket_connection()

    def on_connection_closed(self) -> None:
        print("closed", self.address[0], flush=True)


if __name__ == "__main__":
    server = AsyncSocketServer("127.0.0.1", 0, Shout, backlog=10)
    print(server.socket.getsockname()[1], flush=True)
    server.accept_clients()
    print("returned", flush=True)
"""


def test_a_program_runs_with_only_its_import_changed(poller):
    program = PROGRAM.replace("async_socket_server", "fasthttp")
    with subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            port = int(process.stdout.readline())
            with connect(port) as first, connect(port) as second:
                for peer in (first, second):
                    assert read_exactly(peer, 8) == b"welcome\n"
                    peer.sendall(b"hello\n")
                    assert read_exactly(peer, 6) == b"HELLO\n"
                first.sendall(b"bye\n")
                assert read_all(first) == b"BYE\n"
                assert process.stdout.readline() == "closed 127.0.0.1\n"
                process.send_signal(signal.SIGINT)
                assert read_all(second) == b""
            assert process.stdout.read() == "closed 127.0.0.1\nreturned\n"
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()


def on_main_thread(server, client):
    """Run the loop here and `client`, which ends it, in a thread."""
    failures = []

    def run():
        try:
            client()
        except BaseException as error:
            failures.append(error)
            server.shutdown(0)

    thread = threading.Thread(target=run)
    thread.start()
    server.accept_clients()
    thread.join(PATIENCE)
    assert failures == []
    assert not thread.is_alive()


def interrupt():
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)


def test_ctrl_c_closes_all_clients_and_returns(stack, error_log):
    probes = Probes()
    server = AsyncSocketServer("127.0.0.1", 0, probes)
    peers = []

    def clients():
        for _ in range(5):
            peer = stack.enter_context(connect(server.port))
            peers.append((peer, probes.next()))
        interrupt()

    on_main_thread(server, clients)
    assert len(peers) == 5
    for peer, probe in peers:
        assert read_all(peer) == b""
        assert probe.calls == ["new", "closed"]
    assert server.socket.fileno() == -1
    error_log.wait_for("keyboard interrupt")


@pytest.mark.parametrize(
    "hook", ["on_new_connection", "on_data_received", "on_connection_closed"]
)
def test_ctrl_c_inside_a_hook(stack, hook):
    def interrupt(probe):
        signal.raise_signal(signal.SIGINT)

    server = AsyncSocketServer("127.0.0.1", 0, overriding(hook, interrupt))
    peers = []

    def clients():
        peers.append(stack.enter_context(connect(server.port)))
        if hook == "on_data_received":
            peers[0].sendall(b"x")
        elif hook == "on_connection_closed":
            peers[0].shutdown(socket.SHUT_WR)

    on_main_thread(server, clients)
    assert server.socket.fileno() == -1
    assert read_all(peers[0]) == b""


def test_shutdown_from_a_signal(stack):
    probes = Probes()
    server = AsyncSocketServer("127.0.0.1", 0, probes)
    before = signal.signal(
        signal.SIGUSR1, lambda number, frame: server.shutdown(0)
    )
    stack.callback(signal.signal, signal.SIGUSR1, before)

    def client():
        peer = stack.enter_context(connect(server.port))
        probes.next().wait_for("new")
        signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)
        assert read_all(peer) == b""

    on_main_thread(server, client)


def test_signals_and_their_wake_up_descriptor_are_left_alone(stack):
    read, write = socket.socketpair()
    stack.enter_context(read)
    stack.enter_context(write)
    write.setblocking(False)
    handlers = [signal.getsignal(number) for number in signal.valid_signals()]
    seen = []

    def look():
        seen.append(
            [signal.getsignal(number) for number in signal.valid_signals()]
        )

    for descriptor in (write.fileno(), -1):
        signal.set_wakeup_fd(descriptor)
        try:
            server = AsyncSocketServer("127.0.0.1", 0, Echo)
            server.call_soon_threadsafe(look)
            server.call_soon_threadsafe(server.shutdown, 0)
            server.accept_clients()
        finally:
            assert signal.set_wakeup_fd(-1) == descriptor
    assert seen == [handlers, handlers]


def test_no_signal_handlers_off_the_main_thread(start):
    before = signal.getsignal(signal.SIGINT)
    server = start(Echo)
    in_loop(server, lambda: None)
    assert signal.getsignal(signal.SIGINT) is before
    assert signal.set_wakeup_fd(-1) == -1


def test_shutdown_waits_for_what_is_unsent(start, client):
    class Late(Probe):
        def on_shutdown(self):
            self.note("shutdown")

        def finish(self):
            self.send(bytes(1 << 24))
            self.close_socket_connection()

    probes = Probes(Late)
    server = start(probes)
    peer = client(server)
    probe = probes.next()
    server.shutdown()
    server.shutdown()
    probe.wait_for("shutdown")
    # Due after the last accept, which was planned before.
    time_passes(server, HANDSHAKE_SECONDS)
    with pytest.raises(ConnectionRefusedError):
        connect(server.port)
    in_loop(server, probe.finish)
    assert read_all(peer) == bytes(1 << 24)
    probe.wait_for("closed")


def test_a_flusher_that_cannot_be_started(monkeypatch):
    def fail(thread):
        raise RuntimeError("can't start new thread")

    server = AsyncSocketServer("127.0.0.1", 0, Echo)
    monkeypatch.setattr(threading.Thread, "start", fail)
    with pytest.raises(RuntimeError, match="new thread"):
        server.accept_clients()
    assert server.socket.fileno() == -1


def test_shutdown_of_an_idle_server_returns(start):
    server = start(Echo)
    server.shutdown()


@pytest.mark.parametrize("where", ["open", "backlog"])
def test_shutdown_lets_what_has_arrived_be_answered(stack, where):
    """Though the stop comes in the same turn, as by a signal in a hook."""
    begun, asked = threading.Event(), threading.Event()

    class Stopping(Echo):
        def on_data_received(self, data):
            super().on_data_received(data)
            if data == b"stop":
                begun.set()
                assert asked.wait(PATIENCE)
                self.server.shutdown(PATIENCE)

    server = AsyncSocketServer("127.0.0.1", 0, Stopping, backlog=9)
    stack.enter_context(serving(server))
    clients = []

    def come():
        clients.extend(
            stack.enter_context(connect(server.port)) for _ in range(3)
        )

    if where == "open":
        come()
        for client in clients:
            client.sendall(b"hello")
            assert read_exactly(client, 5) == b"hello"
    stopping = stack.enter_context(connect(server.port))
    stopping.sendall(b"stop")
    assert begun.wait(PATIENCE)
    if where == "backlog":
        come()
    for client in clients:
        client.sendall(b"last")
    asked.set()
    for client in clients:
        assert read_all(client) == b"last"
    assert read_all(stopping) == b"stop"


@pytest.mark.parametrize("timeout", [float("nan"), "soon", object()])
def test_shutdown_after_no_number_of_seconds(start, client, timeout):
    server = start(Echo)
    with pytest.raises((TypeError, ValueError)):
        server.shutdown(timeout)
    with pytest.raises((TypeError, ValueError)):
        in_loop(server, server.call_later, timeout, int)
    peer = client(server)
    peer.sendall(b"on")
    assert read_exactly(peer, 2) == b"on"


def test_processes_that_were_forked_after_the_server_was_made(stack, poller):
    """Each has a poller and a ring of its own; the parent may serve, too."""
    server = AsyncSocketServer("127.0.0.1", 0, Echo, backlog=99)
    children = []
    for _ in range(2):
        child = os.fork()
        if child == 0:
            try:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                server.accept_clients()
            finally:
                os._exit(1)
        children.append(child)
    try:
        stack.enter_context(serving(server))
        clients = [stack.enter_context(connect(server.port)) for _ in range(48)]
        for turn in range(30):
            for client in clients:
                client.sendall(b"%03d" % turn)
            for client in clients:
                assert read_exactly(client, 3) == b"%03d" % turn
    finally:
        for child in children:
            os.kill(child, signal.SIGTERM)
            os.waitpid(child, 0)


def test_a_child_that_exits_leaves_the_server_to_its_parent(start, client):
    """Forked in a hook, which is the loop's thread there."""

    class Forking(Echo):
        def on_data_received(self, data):
            if data == b"fork":
                child = os.fork()
                if child == 0:
                    # What tests have here would go on in the child.
                    threading._shutdown = os._exit
                    try:
                        raise SystemExit(7)
                    finally:
                        self.server.close()
                        os._exit(7)
                data = b"%d" % (os.waitpid(child, 0)[1] >> 8)
            super().on_data_received(data)

    server = start(Forking)
    first, second = client(server), client(server)
    for _ in range(3):
        second.sendall(b"fork")
        assert read_exactly(second, 1) == b"7"
        for peer in (first, second):
            peer.sendall(b"here")
            assert read_exactly(peer, 4) == b"here"


def test_shutdown_before_the_loop_runs():
    server = AsyncSocketServer("127.0.0.1", 0, Echo)
    server.shutdown()
    server.accept_clients()
    server.shutdown()
    server.accept_clients()
    server.close()


@pytest.mark.parametrize("timeout", [0, None])
def test_a_listener_that_others_hold_stays_usable(stack, timeout):
    """As systemd does, which hands the same socket to the next server."""
    ours = listen()
    others = stack.enter_context(ours.dup())
    with serving(AsyncSocketServer.from_sockets([ours], Echo), timeout):
        pass
    assert ours.fileno() == -1
    server = AsyncSocketServer.from_sockets([others], Echo)
    with serving(server), connect(server.port) as peer:
        peer.sendall(b"x")
        assert read_exactly(peer, 1) == b"x"


def test_a_server_for_one_client(stack):
    """It ends with it; who comes later is left to others."""

    class OneClient(AsyncSocketServer):
        ONE_CLIENT = True

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        clients = []
        for number in range(3):
            clients.append(stack.enter_context(connect(port)))
            clients[-1].sendall(b"%d" % number)
        for number in range(3):
            server = OneClient.from_sockets([listener.dup()], Echo)
            with serving(server, PATIENCE):
                assert read_exactly(clients[number], 1) == b"%d" % number
                clients[number].close()


def test_shutdown_after_the_program_closed_the_listener(start, client):
    class Late(Probe):
        def on_shutdown(self):
            self.note("shutdown")

    probes = Probes(Late)
    server = start(probes)
    peer = client(server)
    probe = probes.next()
    in_loop(server, server.socket.close)
    server.shutdown()
    probe.wait_for("shutdown")
    in_loop(server, probe.close_socket_connection)
    assert read_all(peer) == b""


def test_shutdown_cuts_those_that_do_not_finish(start, client, error_log):
    class Stubborn(Probe):
        def on_shutdown(self):
            pass

    probes = Probes(Stubborn)
    server = start(probes)
    peer = client(server)
    probes.next().wait_for("new")
    server.shutdown(0.05)
    assert read_all(peer) == b""
    error_log.wait_for("closing 1 connections")


def test_a_second_shutdown_may_leave_less_time(start, client):
    probes = Probes(Staying)
    server = start(probes)
    peer = client(server)
    probes.next()
    server.shutdown()
    server.shutdown(0.05)
    assert read_all(peer) == b""


def test_shutdown_cuts_nobody_where_nobody_is(error_log):
    """It waits for clients that may be on their way, for longer than that."""
    with serving(AsyncSocketServer("127.0.0.1", 0, Echo), timeout=0.01):
        pass
    assert "closing" not in "".join(error_log.messages)


def test_shutdown_takes_what_waits_in_the_backlog(start, client):
    class Late(Probe):
        def on_shutdown(self):
            pass

        def on_data_received(self, data):
            self.send(data)
            self.close_socket_connection()

    server = start(Late, backlog=20)
    with halted(server):
        peers = [client(server) for _ in range(10)]
        for peer in peers:
            peer.sendall(b"a request")
        server.shutdown()
    for peer in peers:
        assert read_all(peer) == b"a request"


def test_a_stop_at_the_limit_takes_what_waits_in_the_backlog(stack):
    probes = Probes()
    server = stack.enter_context(
        serving(
            AsyncSocketServer.from_sockets(
                [listen()], probes, max_connections=1
            )
        )
    )
    peers = [stack.enter_context(connect(server.port)) for _ in range(2)]
    probes.next()
    server.shutdown()
    assert read_all(peers[0]) == b""
    probes.next()


@pytest.mark.parametrize(
    "hook",
    ["on_new_connection", "on_data_received", "on_connection_closed", "call"],
)
def test_close_inside_the_loop(start, client, hook):
    def close(probe):
        probe.server.close()

    probes = Probes(Probe if hook == "call" else overriding(hook, close))
    server = start(probes)
    with halted(server):
        peers = [client(server) for _ in range(3)]
    first = probes.next()
    if hook == "call":
        server.call_soon_threadsafe(server.close)
    elif hook == "on_data_received":
        peers[0].sendall(b"x")
    elif hook == "on_connection_closed":
        peers[0].shutdown(socket.SHUT_WR)
    for peer in peers:
        assert read_all(peer) == b""
    first.wait_for("closed")
    assert first.calls.count("closed") == 1


def test_there_is_one_loop(start, client, error_log):
    probes = Probes(
        overriding("on_data_received", lambda it: it.server.accept_clients())
    )
    server = start(probes)
    peer, other = client(server), client(server)
    peer.sendall(b"x")
    assert read_all(peer) == b""
    assert error_log.records[0].exc_info[0] is RuntimeError
    with pytest.raises(RuntimeError, match="running"):
        server.accept_clients()
    probes.next()
    in_loop(server, probes.next().send, b"here")
    assert read_exactly(other, 4) == b"here"


def test_close_in_the_deadline_of_one_of_many(start, client):
    class Closing(Probe):
        def on_new_connection(self, address):
            self.trans.set_deadline(0.01)
            super().on_new_connection(address)

        def on_deadline(self):
            self.server.close()

    probes = Probes(Closing)
    server = start(probes)
    with halted(server):
        peers = [client(server) for _ in range(3)]
    for peer in peers:
        assert read_all(peer) == b""
        probes.next().wait_for("closed")


def test_close_from_another_thread(start, client):
    probes = Probes()
    server = start(probes)
    peer = client(server)
    probe = probes.next()
    server.close()
    assert read_all(peer) == b""
    probe.wait_for("closed")


def test_several_servers_in_one_process(start, client):
    servers = [start(Echo) for _ in range(3)]
    peers = [client(server) for server in servers]
    for at, peer in enumerate(peers):
        peer.sendall(b"server %d" % at)
    for at, peer in enumerate(peers):
        assert read_exactly(peer, 8) == b"server %d" % at
    servers[0].shutdown(0)
    assert read_all(peers[0]) == b""
    peers[1].sendall(b"x")
    assert read_exactly(peers[1], 1) == b"x"


# Calls from elsewhere and later.


def test_calls_from_threads_all_run_and_in_order(start):
    server = start(Echo)
    calls = []
    threads = [
        threading.Thread(
            target=lambda number: [
                server.call_soon_threadsafe(calls.append, (number, at))
                for at in range(2000)
            ],
            args=(number,),
        )
        for number in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    in_loop(server, lambda: None)
    assert len(calls) == 8000
    for number in range(4):
        mine = [at for caller, at in calls if caller == number]
        assert mine == list(range(2000))


def test_gates_are_opened(start):
    """However many at once, and before or after a thread comes."""
    server = start(Echo)
    gates = [Gate() for _ in range(200)]
    passed = []

    def pass_all():
        for gate in gates:
            gate.wait()
            passed.append(gate)

    for _ in range(2):
        passed.clear()
        thread = threading.Thread(target=pass_all, daemon=True)
        thread.start()
        in_loop(server, lambda: [server.open_soon(gate) for gate in gates])
        thread.join(PATIENCE)
        assert passed == gates


def test_no_wake_up_is_lost(start):
    server = start(Echo)
    called = threading.Semaphore(0)
    for _ in range(3000):
        server.call_soon_threadsafe(called.release)
        assert called.acquire(timeout=PATIENCE)


def test_no_wake_up_is_lost_while_one_is_read(start, monkeypatch):
    server = start(Echo)
    sleep_again = server_module.sleep_again

    def call_just_before(fd):
        monkeypatch.setattr(server_module, "sleep_again", sleep_again)
        server.call_soon_threadsafe(lambda: None)
        sleep_again(fd)

    monkeypatch.setattr(server_module, "sleep_again", call_just_before)
    for _ in range(3):
        in_loop(server, lambda: None)
    assert server_module.sleep_again is sleep_again


def test_a_wake_up_that_failed_is_tried_again(start, monkeypatch):
    """A socket pair may find no memory, too."""
    server = start(Echo)
    called = threading.Event()
    with monkeypatch.context() as patch:
        patch.setattr(server_module, "wake", lambda sock: False)
        server.call_soon_threadsafe(called.set)
    in_loop(server, int)
    assert called.is_set()


def test_calls_run_on_the_loops_thread_and_may_fail(start, error_log):
    server = start(Echo)
    loop = in_loop(server, threading.get_ident)
    assert loop != threading.get_ident()

    def fail():
        raise LookupError("a fault")

    server.call_soon_threadsafe(fail)
    assert in_loop(server, threading.get_ident) == loop
    assert error_log.records[0].exc_info[0] is LookupError


def test_calls_later_come_in_the_order_of_their_time(
    start, error_log, monkeypatch
):
    server = start(Echo)
    order = []
    over = threading.Event()

    def plan():
        server.call_later(0.06, order.append, "third")
        server.call_later(0.02, order.append, "first")
        server.call_later(0.04, order.append, "second")
        server.call_later(0.03, order.append, "never").cancel()
        server.call_later(0.02, lambda: 1 / 0)
        server.call_later(0.06, over.set)

    began = time.monotonic()
    with monkeypatch.context() as patch:
        # They are all asked for at the same time.
        patch.setattr(server_module, "monotonic", lambda: began)
        in_loop(server, plan)
    assert over.wait(PATIENCE)
    assert time.monotonic() - began >= 0.06
    assert order == ["first", "second", "third"]
    assert [record.exc_info[0] for record in error_log.records] == [
        ZeroDivisionError
    ]


def test_a_call_later_counts_from_when_it_is_asked_for():
    server = AsyncSocketServer("127.0.0.1", 0, Echo)
    times = []

    def fire():
        times.append(time.monotonic())
        server.shutdown(0)

    def plan():
        until = time.monotonic() + 0.1
        while time.monotonic() < until:
            pass
        times.append(time.monotonic())
        server.call_later(0.1, fire)

    server.call_soon_threadsafe(plan)
    server.accept_clients()
    assert times[1] - times[0] >= 0.1


def test_a_call_that_is_due_at_once_again_and_again_starves_nobody(
    start, client
):
    rounds, heard = [], []

    class Hearing(Echo):
        def on_data_received(self, data):
            heard.append(len(rounds))
            super().on_data_received(data)

    def again():
        rounds.append(None)
        if not heard and len(rounds) < 1_000_000:
            server.call_later(0, again)

    server = start(Hearing)
    peer = client(server)
    with halted(server):
        server.call_soon_threadsafe(again)
        peer.sendall(b"x")
    assert read_exactly(peer, 1) == b"x"
    assert heard[0] < 10


def test_a_call_soon_that_calls_soon_starves_nobody(start, client):
    server = start(Echo)
    running = threading.Event()
    running.set()

    def again():
        if running.is_set():
            server.call_soon_threadsafe(again)

    peer = client(server)
    server.call_soon_threadsafe(again)
    peer.sendall(b"x")
    assert read_exactly(peer, 1) == b"x"
    running.clear()


def test_cancelled_calls_are_not_kept_until_they_are_due(start):
    server = start(Probe)

    def begin_and_cancel():
        kept = server.call_later(1000, int)
        for _ in range(10000):
            server.call_later(1000, int).cancel()
        return kept, len(server._timers)

    kept, count = in_loop(server, begin_and_cancel)
    assert kept.callback is int
    assert any(each[2] is kept for each in server._timers)
    assert count < 1000


def test_a_cancelled_call_holds_nothing(start):
    class Thing:
        pass

    server = start(Echo)
    things = [Thing()]
    alive = weakref.ref(things[0])
    handle = in_loop(server, lambda: server.call_later(60, id, things[0]))
    things.clear()
    handle.cancel()
    gc.collect()
    assert alive() is None


# Limits.


@pytest.fixture
def no_more_descriptors():
    """Call it, and nothing can be opened until the call it returns."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)

    def forbid():
        lowest = os.dup(0)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, limits[1]))
        return allow

    def allow():
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)

    yield forbid
    allow()


@pytest.mark.parametrize("relief", ["time", "a close"])
def test_running_out_of_descriptors(
    monkeypatch, start, client, error_log, no_more_descriptors, relief
):
    if relief == "time":
        monkeypatch.setattr(server_module, "ACCEPT_PAUSE", 0.05)
    else:
        monkeypatch.setattr(server_module, "ACCEPT_PAUSE", 3600)
    probes = Probes(Echo)
    server = start(probes, backlog=10)
    first = client(server)
    probes.next()
    with halted(server):
        waiting = [client(server) for _ in range(3)]
        allow = no_more_descriptors()
    error_log.wait_for("cannot accept: Too many open files")
    first.sendall(b"x")
    assert read_exactly(first, 1) == b"x"
    allow()
    if relief == "a close":
        first.shutdown(socket.SHUT_WR)
        assert read_all(first) == b""
    for peer in waiting:
        peer.sendall(b"hello")
        assert read_exactly(peer, 5) == b"hello"


def test_running_out_of_descriptors_does_not_spin(
    monkeypatch, start, client, error_log, no_more_descriptors
):
    monkeypatch.setattr(server_module, "ACCEPT_PAUSE", 0.05)
    monkeypatch.setattr(server_module, "WARN_INTERVAL", 0)
    server = start(Echo, backlog=10)
    with halted(server):
        client(server)
        no_more_descriptors()
    for _ in range(2):
        error_log.take("cannot accept")
    assert growth(server, lambda: len(error_log.records), 0.3) <= 7


def test_max_connections(stack, client, error_log):
    probes = Probes()
    server = stack.enter_context(
        serving(
            AsyncSocketServer.from_sockets(
                [listen(), listen()], probes, max_connections=2
            )
        )
    )
    peers = [client(server), client(server)]
    made = [probes.next(), probes.next()]
    others = [
        stack.enter_context(
            socket.create_connection(listener.getsockname(), PATIENCE)
        )
        for listener in server.sockets
    ]
    for peer in others:
        peer.sendall(b"from the backlog")
    for each in made:
        in_loop(server, each.send, b"x")
    assert server._connections.count == 2
    for peer in peers:
        assert read_exactly(peer, 1) == b"x"
        peer.close()
        third = probes.next()
        third.wait_for("data")
        assert third.received == b"from the backlog"
    limits = [text for text in error_log.messages if "limit of 2" in text]
    assert len(limits) == 1


def test_max_connections_under_overload_is_logged_seldom(stack, error_log):
    probes = Probes(Echo)
    server = stack.enter_context(
        serving(
            AsyncSocketServer.from_sockets(
                [listen()], probes, max_connections=1
            )
        )
    )
    for _ in range(20):
        with connect(server.port) as peer:
            peer.sendall(b"x")
            assert read_exactly(peer, 1) == b"x"
    limits = [text for text in error_log.messages if "limit of 1" in text]
    assert len(limits) == 1


def test_at_the_limit_every_listener_gets_its_turn(stack):
    probes = Probes()
    listeners = [listen(), listen()]
    ports = [each.getsockname()[1] for each in listeners]
    server = stack.enter_context(
        serving(
            AsyncSocketServer.from_sockets(listeners, probes, max_connections=1)
        )
    )
    peer = stack.enter_context(connect(ports[0]))
    probes.next()
    waiting = [stack.enter_context(connect(port)) for port in ports * 2]
    for name in b"abcd":
        waiting[name - ord("a")].sendall(bytes([name]))
    order = b""
    for _ in waiting:
        peer.close()
        probe = probes.next()
        probe.wait_for("data")
        order += probe.received
        peer = waiting[probe.received[0] - ord("a")]
    assert order == b"badc"
    assert in_loop(server, lambda: server._connections.count) == 1


def test_listening_again_that_fails_is_tried_again(
    monkeypatch, stack, error_log
):
    monkeypatch.setattr(server_module, "ACCEPT_PAUSE", 0.05)
    probes = Probes()
    server = stack.enter_context(
        serving(
            AsyncSocketServer.from_sockets(
                [listen()], probes, max_connections=1
            )
        )
    )
    peer = stack.enter_context(connect(server.port))
    probes.next()
    # It is not listened to any more.
    in_loop(server, lambda: None)
    register = server._poller.register

    def fail(fd, mask):
        monkeypatch.setattr(server._poller, "register", register)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(server._poller, "register", fail, raising=False)
    peer.close()
    error_log.wait_for("cannot listen again: No space left")
    with connect(server.port):
        probes.next()


def test_a_stop_waits_for_descriptors_to_take_the_backlog(
    start, client, no_more_descriptors
):
    failed = threading.Event()

    class Noting(AsyncSocketServer):
        def _accept(self, listener, most):
            failure = super()._accept(listener, most)
            if failure and self.draining:
                failed.set()
            return failure

    probes = Probes(Staying)
    server = start(probes, cls=Noting)
    first = client(server)
    probes.next()
    with halted(server):
        waiting = [client(server) for _ in range(3)]
        for peer in waiting:
            peer.sendall(b"hello")
        server.shutdown(PATIENCE)
        allow = no_more_descriptors()
    assert failed.wait(PATIENCE)
    allow()
    for peer in waiting:
        assert read_exactly(peer, 5) == b"hello"
        peer.close()
    first.close()


def test_new_clients_do_not_put_off_the_look_for_deadlines(
    start, client, monkeypatch
):
    monkeypatch.setattr(server_module, "SWEEP_INTERVAL", 3600)
    probes = Probes()
    server = start(probes)
    due = []
    for _ in range(2):
        client(server)
        probes.next()
        due.append(in_loop(server, lambda: server._next_sweep))
    assert due[0] == due[1]


def test_a_call_that_is_made_again_leaves_clients_their_turn(start, client):
    server = start(Echo)
    begun, stop = threading.Event(), threading.Event()

    def call():
        begun.set()
        if not stop.is_set():
            server.call_soon(call)

    server.call_soon_threadsafe(call)
    assert begun.wait(PATIENCE)
    try:
        peer = client(server)
        peer.sendall(b"hello")
        assert read_exactly(peer, 5) == b"hello"
    finally:
        stop.set()


# Nothing is held on to.


def test_a_closed_connection_leaves_nothing_behind(start):
    gone = []

    class Weak(Probe):
        def on_new_connection(self, address):
            weakref.finalize(self, gone.append, "protocol")
            super().on_new_connection(address)

    server = start(Weak)
    descriptors = len(os.listdir("/proc/self/fd"))
    gc.collect()
    gc.disable()
    try:
        for end in (socket.socket.close, reset):
            with connect(server.port) as peer:
                peer.sendall(b"x")
                end(peer)
        with closing(connect(server.port)) as peer:
            peer.sendall(b"x")
            peer.shutdown(socket.SHUT_WR)
            assert read_all(peer) == b""
        while server._connections.count:
            in_loop(server, lambda: None)
        in_loop(server, lambda: None)
        assert gone == ["protocol"] * 3
    finally:
        gc.enable()
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_a_server_that_ended_leaves_nothing_behind(start, client):
    descriptors = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        server = AsyncSocketServer("127.0.0.1", 0, Echo)
        with serving(server), connect(server.port) as peer:
            peer.sendall(b"x")
            assert read_exactly(peer, 1) == b"x"
    alive = weakref.ref(server)
    del server
    gc.collect()
    assert alive() is None
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_no_byte_reaches_a_descriptor_of_somebody_else(stack):
    """A call to a server that ended must not wake a reused descriptor."""
    server = AsyncSocketServer("127.0.0.1", 0, Echo)
    server.shutdown(0)
    server.accept_clients()
    pipes = [os.pipe() for _ in range(4)]
    try:
        server._woken = False
        server.call_soon_threadsafe(print)
        for read, _ in pipes:
            os.set_blocking(read, False)
            with pytest.raises(BlockingIOError):
                os.read(read, 1)
    finally:
        for read, write in pipes:
            os.close(read)
            os.close(write)
