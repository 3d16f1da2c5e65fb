"""One connection: every byte arrives, or the connection ends; once."""

import itertools
import os
import queue
import random
import select
import signal
import socket
import struct
import threading
import time
import weakref
from contextlib import ExitStack, suppress

import pytest
from fakes import (
    PATIENCE,
    POLLERS,
    Probe,
    Probes,
    connect,
    count_polls,
    halted,
    in_loop,
    listen,
    once_steadily,
    overriding,
    read_all,
    read_exactly,
    reset,
    serving,
    steadily,
    time_passes,
    use_poller,
)

from fasthttp import AsyncSocketServer, BaseProtocol, Config, HttpProtocol
from fasthttp._poller import make_poller
from fasthttp._transport import Connections, Transport

HIGH_WATER = 65536
LOW_WATER = 16384
MUCH = 1 << 22
# Of struct tcp_info in linux/tcp.h.
TCPI_SEGS_IN = 140


@pytest.fixture(autouse=True, params=POLLERS)
def poller(request, monkeypatch):
    use_poller(request.param, monkeypatch)


@pytest.fixture
def start(stack):
    """Starts a server whose connections have small buffers."""

    def start(prot, *, cls=AsyncSocketServer, **options):
        server = cls.from_sockets([listen()], prot, **options)
        return stack.enter_context(serving(server))

    return start


@pytest.fixture
def link(stack, start):
    """One connection: its server, the client's socket, its protocol."""

    def link(protocol=Probe, **options):
        probes = Probes(protocol)
        server = start(probes, **options)
        peer = stack.enter_context(connect(server.port, small=True))
        probe = probes.next()
        probe.wait_for("new")
        return server, peer, probe

    return link


class Echo(Probe):
    def on_data_received(self, data):
        super().on_data_received(data)
        self.send(data)


def turn(server, times=3):
    """Let the loop handle what is there already."""
    for _ in range(times):
        in_loop(server, lambda: None)


# Sending.


@pytest.mark.parametrize(
    "sizes",
    [
        [0, 1, 0, 2],
        [1] * 5000,
        [HIGH_WATER - 1, 1, 1],
        [HIGH_WATER, HIGH_WATER + 1, 0, 7],
        [MUCH],
        [random.Random(5).randrange(3000) for _ in range(700)],
    ],
    ids=["empty ones", "tiny", "at the mark", "above", "large", "random"],
)
def test_every_byte_arrives_in_order(link, sizes):
    server, peer, probe = link()
    stream = os.urandom(sum(sizes))
    ends = list(itertools.accumulate(sizes))
    messages = [
        stream[end - size : end] for end, size in zip(ends, sizes, strict=True)
    ]
    random_sizes = random.Random(6)

    def send_all():
        for message in messages:
            probe.send(message)

    in_loop(server, send_all)
    received = bytearray()
    while len(received) < len(stream):
        received += peer.recv(random_sizes.randrange(1, 100_000))
    assert received == stream
    turn(server)
    assert in_loop(server, probe.trans.queued) == 0


def test_what_may_be_sent(link):
    server, peer, probe = link()
    data = bytearray(b"mutable")
    for message in ("täxt", b"bytes", data, memoryview(b"view")[1:]):
        in_loop(server, probe.send, message)
    data[:] = b"changed"
    expected = "täxt".encode() + b"bytes" + b"mutable" + b"iew"
    assert read_exactly(peer, len(expected)) == expected
    for message in (5, None, ["list"]):
        with pytest.raises(TypeError):
            in_loop(server, probe.send, message)


def test_flush_sends_while_the_hook_goes_on(link):
    read = threading.Event()

    def answer(probe):
        probe.send(b"now")
        probe.trans.flush()
        assert read.wait(5)
        probe.send(b"later")

    _server, peer, _probe = link(overriding("on_data_received", answer))
    peer.sendall(b"x")
    assert read_exactly(peer, 3) == b"now"
    read.set()
    assert read_exactly(peer, 5) == b"later"


def test_send_from_other_threads(link):
    server, peer, probe = link()
    threads = [
        threading.Thread(
            target=lambda name: [
                probe.send(b"%c%05d" % (name, at)) for at in range(500)
            ],
            args=(name,),
        )
        for name in b"abcd"
    ]
    for thread in threads:
        thread.start()
    received = read_exactly(peer, 4 * 500 * 6)
    for thread in threads:
        thread.join()
    messages = [received[at : at + 6] for at in range(0, len(received), 6)]
    for name in b"abcd":
        mine = [int(each[1:]) for each in messages if each[0] == name]
        assert mine == list(range(500))
    probe.send(b"the last")
    probe.close_socket_connection()
    probe.send(b"too late")
    assert read_all(peer) == b"the last"
    probe.wait_for("closed")
    probe.send(b"to nobody")
    probe.close_socket_connection()
    turn(server)
    assert probe.calls == ["new", "closed"]


def test_abort_from_another_thread(link):
    _server, peer, probe = link()
    probe.trans.abort()
    with pytest.raises(ConnectionResetError):
        peer.recv(1)
    probe.wait_for("closed")


def test_send_to_others(stack, start):
    probes = Probes()
    server = start(probes)
    peers = [stack.enter_context(connect(server.port)) for _ in range(3)]
    made = [probes.next() for _ in peers]

    def broadcast():
        for at, probe in enumerate(made):
            probe.send(b"to %d" % at)

    in_loop(server, broadcast)
    for at, peer in enumerate(peers):
        assert read_exactly(peer, 4) == b"to %d" % at


# The answers of one turn.


class Turn:
    """Clients whose messages come in one turn, in their order.

    The hook of each calls its own action with the turn and its protocol.
    """

    def __init__(self, stack, start, *actions):
        self.probes = []
        self.peers = []
        self.actions = iter(actions)
        self.read = threading.Event()
        self.waited = []
        made = Probes(overriding("on_data_received", self.act))
        self.server = start(made)
        for _ in actions:
            peer = connect(self.server.port, small=True)
            self.peers.append(stack.enter_context(peer))
            self.probes.append(made.next())
            self.probes[-1].wait_for("new")
        with halted(self.server):
            for peer in self.peers:
                peer.sendall(b"x")

    def act(self, probe):
        next(self.actions)(self, probe)

    def be_slow(self, probe):
        """The action that goes on when a client has `read`."""
        self.waited.append(self.read.wait(PATIENCE))

    def is_read(self):
        """The slow action's hook was on when the clients read."""
        self.read.set()
        turn(self.server)
        assert self.waited == [True]

    def rest(self):
        """What else the clients receive, each until its end."""
        for probe in self.probes:
            in_loop(self.server, probe.close_socket_connection)
        return [read_all(peer) for peer in self.peers]


def answer(data):
    return lambda clients, probe: probe.send(data)


def test_the_answers_of_a_turn_reach_their_clients(stack, start):
    """Many, small ones and some that do not fit with the others."""
    sizes = random.Random(7)
    answers = [
        os.urandom(sizes.choice((1, 900, 9000, 90_000))) for _ in range(99)
    ]
    clients = Turn(stack, start, *map(answer, answers))
    for peer, expected in zip(clients.peers, answers, strict=True):
        assert read_exactly(peer, len(expected)) == expected


def test_a_slow_hook_does_not_hold_back_the_answers_before_it(stack, start):
    clients = Turn(stack, start, answer(b"1"), answer(b"2"), Turn.be_slow)
    assert read_exactly(clients.peers[0], 1) == b"1"
    assert read_exactly(clients.peers[1], 1) == b"2"
    clients.is_read()
    assert clients.rest() == [b"", b"", b""]


def test_a_slow_hook_does_not_hold_back_a_large_answer(stack, start):
    large = os.urandom(120_000)
    clients = Turn(stack, start, answer(b"1"), answer(large), Turn.be_slow)
    assert read_exactly(clients.peers[1], len(large)) == large
    clients.is_read()
    assert clients.rest() == [b"1", b"", b""]


def test_heads_and_bodies_of_a_turn(stack, start):
    """Bodies stay where they are; small windows cut them anywhere."""
    sizes = [1, 16_384, 16_385, 65_536, 131_072, 131_073, 300_000] * 5
    bodies = [os.urandom(size) for size in sizes]

    class Site(HttpProtocol):
        def on_request(self, request):
            self.respond(200, [], bodies[int(request.path[1:])])

    server = start(Site)
    peers = [
        stack.enter_context(connect(server.port, small=True)) for _ in bodies
    ]
    get = b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n"
    for _ in range(2):
        with halted(server):
            for number, peer in enumerate(peers):
                peer.sendall(get % number * 2)
        for body, peer in zip(bodies, peers, strict=True):
            for _ in range(2):
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    head += read_exactly(peer, 1)
                assert b"Content-Length: %d\r\n" % len(body) in head
                assert read_exactly(peer, len(body)) == body


@pytest.mark.parametrize("more", [b"more", bytes(MUCH)], ids=["", "much"])
def test_what_others_send_comes_after_what_is_held(stack, start, more):
    def send_more(clients, probe):
        clients.probes[0].send(more)
        clients.probes[0].close_socket_connection()

    # The kernel takes but a part of it.
    held = os.urandom(16384)
    clients = Turn(stack, start, answer(held), send_more)
    assert read_all(clients.peers[0]) == held + more
    clients.probes[0].wait_for("closed")


def test_what_is_held_leaves_by_flush(stack, start):
    def flush(clients, probe):
        probe.send(b"of the flushing one")
        clients.probes[0].trans.flush()
        probe.send(b", in order")

    clients = Turn(stack, start, answer(b"held"), flush)
    assert read_exactly(clients.peers[0], 4) == b"held"
    expected = b"of the flushing one, in order"
    assert read_exactly(clients.peers[1], len(expected)) == expected


def test_slow_clients_of_many_turns_receive_all_in_order(stack, start, file):
    chance = random.Random(8)
    sent = {}

    def answer(probe):
        if probe.trans.empty():
            for message in (b"taken back", b"not ", b"taken back"):
                probe.send(message)
            assert probe._mqueue.get_nowait() == b"taken back"
            sent[probe].append(b"not taken back")
        message = chance.randbytes(chance.choice((0, 10, 900, 7000)))
        probe.send(message)
        size = chance.choice((*[0] * 9, 50, 5000))
        probe.trans.write_file(file, file.fileno(), 0, size)
        sent[probe].extend((message, os.pread(file.fileno(), size, 0)))

    probes = Probes(overriding("on_data_received", answer))
    server = start(probes)
    clients = []
    for _ in range(6):
        peer = stack.enter_context(connect(server.port, small=True))
        probe = probes.next()
        sent[probe] = []
        clients.append((peer, probe, bytearray()))
    for _ in range(200):
        with halted(server):
            for peer, _, received in clients:
                if chance.random() < 0.4:
                    peer.sendall(b"x")
                if select.select([peer], [], [], 0)[0]:
                    received += peer.recv(20_000)
    turn(server)
    for peer, probe, received in clients:
        expected = b"".join(sent[probe])
        received += read_exactly(peer, len(expected) - len(received))
        assert received == expected


def test_answers_arrive_though_the_ring_is_closed(stack, start):
    """By an application that closes what it has not opened.

    What has its number then is left alone.
    """
    assert rings() == []

    def close_rings(clients, probe):
        probe.send(b"0")
        for descriptor in rings():
            os.close(descriptor)
        files.append(stack.enter_context(open(os.devnull)))  # noqa: SIM115

    files = []
    clients = Turn(stack, start, close_rings, answer(b"1"), answer(b"2"))
    for at, peer in enumerate(clients.peers):
        assert read_exactly(peer, 1) == b"%d" % at
    turn(clients.server)
    assert os.path.samestat(os.fstat(files[0].fileno()), os.stat(os.devnull))
    assert rings() == []


def rings():
    """The descriptors of io_uring that this process has."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            if "io_uring" in os.readlink(f"/proc/self/fd/{name}"):
                found.append(int(name))
    return found


def test_a_client_is_aborted_while_its_answer_is_held(stack, start):
    def abort(clients, probe):
        clients.probes[0].trans.abort()
        probe.send(b"mine")

    clients = Turn(stack, start, answer(b"held"), abort)
    clients.probes[0].wait_for("closed")
    assert read_exactly(clients.peers[1], 4) == b"mine"


def test_an_answer_held_when_the_loop_ends_does_not_look_complete(stack, start):
    def end(clients, probe):
        raise KeyboardInterrupt

    clients = Turn(stack, start, answer(b"held"), end)
    with suppress(ConnectionResetError):
        # If that took so long that it was sent meanwhile.
        assert read_all(clients.peers[0]) == b"held"


def test_a_client_leaves_while_its_answer_is_held(stack, start):
    def see_it_leave(clients, probe):
        reset(clients.peers[0])
        probe.send(b"mine")

    clients = Turn(stack, start, answer(b"held"), see_it_leave)
    clients.probes[0].wait_for("closed")
    assert read_exactly(clients.peers[1], 4) == b"mine"


@pytest.mark.parametrize("kind", ["data", "end"])
def test_a_greeted_client_leaves_in_the_turn_that_hears_it(stack, start, kind):
    """Its greeting is sent, in vain, just before its hook would run."""
    probes = Probes(overriding("on_new_connection", lambda p: p.send(b"hi")))
    server = start(probes)
    other = stack.enter_context(connect(server.port))
    probes.next()
    for _ in range(3):
        with halted(server):
            other.sendall(b"a second event")
            for _ in range(4):
                peer = connect(server.port)
                if kind == "data":
                    peer.sendall(b"x")
                else:
                    peer.shutdown(socket.SHUT_WR)
                reset(peer)
        for _ in range(4):
            probes.next().wait_for("closed")
    assert read_exactly(other, 2) == b"hi"


def test_what_is_sent_to_a_client_that_has_left_is_not_counted(stack, start):
    def answer_in_vain(clients, probe):
        probe.send(b"held")
        break_pipe(probe)

    def send_more(clients, probe):
        clients.probes[0].send(b"more")

    clients = Turn(stack, start, answer_in_vain, send_more)
    clients.probes[0].wait_for("closed")
    assert (
        in_loop(clients.server, lambda: clients.server._connections.held) == 0
    )


# What is received for several clients of one turn, before their hooks run.


def test_a_client_paused_by_another_gets_its_data_when_it_goes_on(stack, start):
    def pause(clients, probe):
        clients.probes[1].trans.pause_reading()

    clients = Turn(stack, start, pause, answer(b"at last"))
    paused = clients.probes[1]
    turn(clients.server)
    assert not select.select([clients.peers[1]], [], [], 0)[0]
    assert in_loop(clients.server, paused.trans.has_input)
    in_loop(clients.server, paused.trans.resume_reading)
    assert read_exactly(clients.peers[1], 7) == b"at last"


def test_what_was_received_before_a_pause_comes_first(stack, start):
    class Pausing(Echo):
        def on_data_received(self, data):
            if data == b"pause":
                self.other.trans.pause_reading()
            else:
                super().on_data_received(data)

    probes = Probes(Pausing)
    server = start(probes)
    one, two = (stack.enter_context(connect(server.port)) for _ in "12")
    pausing, paused = probes.next(), probes.next()
    pausing.other = paused
    with halted(server):
        one.sendall(b"pause")
        two.sendall(b"first, ")
    turn(server)
    two.sendall(b"second")
    in_loop(server, paused.trans.resume_reading)
    assert read_exactly(two, 13) == b"first, second"


def test_a_client_that_another_closes_is_not_heard(stack, start):
    def close(clients, probe):
        clients.probes[1].send(b"bye")
        clients.probes[1].close_socket_connection()
        clients.probes[2].trans.abort()

    never = answer(b"never sent")
    clients = Turn(stack, start, close, never, never)
    assert read_all(clients.peers[1]) == b"bye"
    with pytest.raises(ConnectionResetError):
        clients.peers[2].recv(1)
    for probe in clients.probes[1:]:
        probe.wait_for("closed")


def test_each_client_gets_what_it_sent(stack, start):
    """Small and large, more clients than are received for at once."""
    sizes = random.Random(9)
    probes = Probes(Echo)
    server = start(probes)
    peers = [
        stack.enter_context(connect(server.port, small=True)) for _ in range(99)
    ]
    messages = [
        os.urandom(sizes.choice((1, 63, 64, 900, 9000, 40_000))) for _ in peers
    ]
    with halted(server):
        for peer, message in zip(peers, messages, strict=True):
            peer.sendall(message)
    for peer, message in zip(peers, messages, strict=True):
        assert read_exactly(peer, len(message)) == message


# Water marks.


def test_pause_and_resume(link):
    server, peer, probe = link()
    paused_at = []

    def fill():
        while "pause" not in probe.calls:
            probe.send(bytes(10_000))
        paused_at.append(probe.trans.queued())
        for _ in range(10):
            probe.send(bytes(10_000))
        return probe.trans.queued()

    queued = in_loop(server, fill)
    assert HIGH_WATER < paused_at[0] <= HIGH_WATER + 10_000
    assert queued == paused_at[0] + 100_000
    turn(server)
    assert probe.calls == ["new", "pause"]
    levels = []
    resumed = threading.Event()
    probe.on_resume_writing = lambda: (
        levels.append(probe.trans.queued()),
        resumed.set(),
    )
    while not resumed.is_set():
        assert peer.recv(1000)
        turn(server, 1)
    assert levels[0] <= LOW_WATER
    assert probe.calls == ["new", "pause"]


def test_pauses_and_resumes_alternate(link):
    class Source(Probe):
        left = 200

        def on_data_received(self, data):
            self.go_on()

        def on_resume_writing(self):
            super().on_resume_writing()
            self.go_on()

        def go_on(self):
            while self.left and self.calls.count("pause") == self.calls.count(
                "resume"
            ):
                self.left -= 1
                self.send(bytes(20_000))
            if not self.left:
                self.close_socket_connection()

    _server, peer, probe = link(Source)
    peer.sendall(b"x")
    assert len(read_all(peer)) == 200 * 20_000
    probe.wait_for("closed")
    calls = [call for call in probe.calls if call in ("pause", "resume")]
    assert len(calls) > 2
    assert calls == ["pause", "resume"] * (len(calls) // 2) + ["pause"] * (
        len(calls) % 2
    )


def test_nothing_is_read_for_a_client_that_does_not_read(link):
    server, peer, probe = link(Echo)
    probe.send(bytes(MUCH))
    probe.wait_for("pause")
    peer.sendall(b"more")
    turn(server)
    assert probe.received == b""
    assert count_polls(server, 0.15) <= 6
    expected = bytes(MUCH) + b"more"
    assert read_exactly(peer, len(expected)) == expected
    assert probe.received == b"more"


def test_memory_is_bounded_for_a_sender_that_does_not_read(link):
    server, peer, probe = link(Echo)
    peer.setblocking(False)
    refused = 0
    while refused < 3:
        try:
            peer.send(bytes(100_000))
            refused = 0
        except BlockingIOError:
            refused += "pause" in probe.calls
            turn(server)
    queued = in_loop(server, probe.trans.queued)
    assert HIGH_WATER < queued <= HIGH_WATER + server.RX_CHUNKSIZE


def unsent_bound(probe):
    with socket.socket(fileno=os.dup(probe.trans.fileno())) as own:
        return own.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT)


def test_the_kernel_holds_less_for_each_of_many_slow_readers(stack, start):
    probes = Probes()
    server = start(probes)
    peers = ExitStack()
    message = bytes(MUCH)

    def slow_reader():
        peers.enter_context(connect(server.port, small=True))
        probe = probes.next()
        probe.wait_for("new")
        in_loop(server, probe.send, message)
        turn(server)
        return probe

    with peers:
        readers = [slow_reader() for _ in range(128)]
        assert unsent_bound(readers[-1]) == 1 << 20
        assert unsent_bound(slow_reader()) == 1 << 17
    for reader in readers:
        reader.wait_for("closed")
    turn(server)
    with peers:
        assert unsent_bound(slow_reader()) == 1 << 20


def test_more_than_may_be_queued(link, error_log):
    class Server(AsyncSocketServer):
        MAX_QUEUED = 1_000_000

    server, peer, probe = link(cls=Server)

    def send():
        probe.send(bytes(2_000_000))
        probe.send(bytes(900_000))
        probe.send(b"end")

    for _ in range(2):
        in_loop(server, send)
        assert read_exactly(peer, 2_900_003) == bytes(2_900_000) + b"end"

    def flood():
        for _ in range(200):
            probe.send(bytes(10_000))
        return probe.trans.queued()

    assert in_loop(server, flood) <= 1_020_000
    probe.wait_for("closed")
    assert "limit_queued (1000000)" in error_log.records[0].getMessage()
    with pytest.raises(ConnectionResetError):
        read_all(peer)
    assert server._connections.held == 0


def test_more_than_may_be_queued_in_all(stack, link, error_log):
    """Who has read nothing for the longest time makes room."""
    server, stalled, first = link(Echo)
    in_loop(server, first.send, bytes(1_000_000))
    time_passes(server, 0.3)
    later = stack.enter_context(connect(server.port, small=True))
    second = server.prot.next()
    in_loop(server, second.send, bytes(1_000_000))
    time_passes(server, 1.1)
    assert server._connections.held == 2_000_000
    server._connections.max_queued_total = 1_500_000
    first.wait_for("closed")
    error_log.wait_for("limit_queued_total (1500000)")
    with pytest.raises(ConnectionResetError):
        read_all(stalled)
    assert read_exactly(later, 1_000_000) == bytes(1_000_000)
    later.sendall(b"x")
    assert read_exactly(later, 1) == b"x"
    assert server._connections.held == 0


def test_a_file_is_not_what_may_be_queued(link, file):
    server, peer, probe = link(max_queued=1000)
    size = os.path.getsize(file.name)
    in_loop(server, probe.trans.write_file, file, file.fileno(), 0, size)
    in_loop(server, probe.send, b"end")
    assert read_exactly(peer, size + 3) == file.read() + b"end"


def test_a_file_that_waits_takes_no_room_from_others(stack, link, file):
    """However long nothing was read of it."""
    server, slow, first = link()
    size = os.path.getsize(file.name)
    in_loop(server, first.trans.write_file, file, file.fileno(), 0, size)
    other = stack.enter_context(connect(server.port, small=True))
    second = server.prot.next()
    in_loop(server, second.send, bytes(MUCH))
    server._connections.max_queued_total = 1
    second.wait_for("closed")
    assert read_exactly(slow, size) == file.read()
    other.close()


def test_who_reads_may_have_more_queued(link, error_log):
    @once_steadily
    def attempt():
        error_log.records.clear()
        server, peer, probe = link(max_queued_total=100_000)

        def send():
            in_loop(server, probe.send, bytes(3_000_000))

        def read():
            read_exactly(peer, 200_000)
            assert server._connections.held > 100_000

        def read_the_rest():
            read_exactly(peer, 1_000_000)

        steadily(server, 0.15, [send, *[read] * 10, read_the_rest])
        assert error_log.records == []


def test_much_is_sent_before_the_protocol_is_made(link):
    class Early(Probe):
        def __init__(self, server, trans, mqueue):
            super().__init__(server, trans, mqueue)
            self.send(bytes(MUCH))

    server, peer, probe = link(Early)
    assert in_loop(server, probe.trans.queued) > HIGH_WATER
    assert read_exactly(peer, MUCH) == bytes(MUCH)
    probe.wait_for("resume")
    assert probe.calls == ["new", "pause", "resume"]


def test_what_is_written_stays_when_others_are_sent_for(start, stack):
    made = []

    class Meddling(HttpProtocol):
        def on_new_connection(self, address):
            made.append(self)

        def on_request(self, request):
            self.start(200)
            self.write(b"hello")
            for each in made:
                if each is not self:
                    each.trans.flush()
            self.end()

    server = start(Meddling)
    peers = [stack.enter_context(connect(server.port)) for _ in range(2)]
    end = b"\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    for field in (b"", b"Connection: close\r\n"):
        with halted(server):
            for peer in peers:
                peer.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n%b\r\n" % field)
        for peer in peers:
            received = b""
            while not received.endswith(end):
                received += read_exactly(peer, 1)
            assert received.startswith(b"HTTP/1.1 200 OK\r\n")


# A peer that does not read.


@pytest.mark.usefixtures("often_swept")
def test_who_sends_but_does_not_read_is_cut_off(link):
    server, peer, probe = link(write_timeout=0.3)
    probe.send(bytes(50_000))

    def go_on():
        for _ in range(200):
            peer.sendall(b"x")
            time_passes(server, 0.02)

    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        go_on()


@pytest.mark.usefixtures("often_swept")
def test_a_stalled_reader_is_cut_off(link, error_log):
    _server, peer, probe = link(write_timeout=0.1)
    probe.send(bytes(MUCH))
    probe.wait_for("closed")
    error_log.wait_for("write_timeout (0.1 s)")
    with pytest.raises(ConnectionResetError):
        read_all(peer)


def test_a_stalled_reader_is_cut_off_after_close_too(link):
    _server, peer, probe = link(write_timeout=0.1)
    probe.send(bytes(MUCH))
    probe.close_socket_connection()
    probe.wait_for("closed")
    with pytest.raises(ConnectionResetError):
        read_all(peer)


def test_a_slow_reader_is_not_cut_off(link):
    @once_steadily
    def attempt():
        server, peer, probe = link(write_timeout=0.5)

        def send():
            probe.send(bytes(1_000_000))

        def read(size=30_000):
            read_exactly(peer, size)

        def read_the_rest():
            read(1_000_000 - 10 * 30_000)

        steadily(server, 0.08, [send, *[read] * 10, read_the_rest])
        assert probe.calls == ["new", "pause", "resume"]


def test_no_write_timeout(link):
    server, peer, probe = link(write_timeout=0)
    probe.send(bytes(MUCH))
    probe.wait_for("pause")
    assert count_polls(server, 0.3) <= 6
    assert read_exactly(peer, MUCH) == bytes(MUCH)


# Receiving.


def test_the_sender_may_close_its_side(link):
    class Late(Echo):
        def on_data_received(self, data):
            super().on_data_received(data)
            if len(self.received) == 100_000:
                self.send(bytes(MUCH))

    _server, peer, probe = link(Late)
    message = os.urandom(100_000)
    peer.sendall(message[:50_000])
    peer.sendall(message[50_000:])
    peer.shutdown(socket.SHUT_WR)
    assert read_all(peer) == message + bytes(MUCH)
    probe.wait_for("closed")
    assert probe.received == message


def test_a_closed_side_costs_nothing_while_much_is_unsent(link):
    server, peer, probe = link()
    probe.send(bytes(MUCH))
    probe.wait_for("pause")
    peer.shutdown(socket.SHUT_WR)
    turn(server)
    assert count_polls(server, 0.15) <= 6
    assert read_all(peer) == bytes(MUCH)


def test_pause_reading(link):
    def pause(probe):
        probe.trans.pause_reading()

    server, peer, probe = link(overriding("on_data_received", pause))
    peer.sendall(b"first")
    probe.wait_for("data")
    peer.sendall(b"second")
    peer.shutdown(socket.SHUT_WR)
    turn(server)
    assert probe.received == b"first"
    assert count_polls(server, 0.15) <= 6
    assert in_loop(server, probe.trans.has_input)
    in_loop(server, probe.trans.resume_reading)
    turn(server)
    assert probe.received == b"firstsecond"
    in_loop(server, probe.trans.resume_reading)
    assert read_all(peer) == b""
    assert probe.calls == ["new", "data", "data", "closed"]


def test_a_new_connection_may_pause_at_once(link):
    def pause(probe):
        probe.trans.pause_reading()

    server, peer, probe = link(overriding("on_new_connection", pause))
    peer.sendall(b"x")
    turn(server)
    assert probe.calls == ["new"]
    in_loop(server, probe.trans.resume_reading)
    probe.wait_for("data")


# Deadlines.


def test_a_deadline_comes_once(link):
    server, peer, probe = link()
    in_loop(server, probe.trans.set_deadline, 0.05)
    probe.wait_for("deadline")
    assert count_polls(server, 0.3) <= 6
    assert probe.calls == ["new", "deadline"]
    deadlines = map(probe.trans.set_deadline, (0.05, 0))
    assert max(in_loop(server, list, deadlines)) <= time.monotonic()
    assert count_polls(server, 0.3) <= 6
    assert probe.calls == ["new", "deadline"]
    peer.sendall(b"x")
    probe.wait_for("data")


class Plain(Probe):
    """Has no hook for its deadline."""

    on_deadline = BaseProtocol.on_deadline


@pytest.mark.usefixtures("often_swept")
def test_a_deadline_without_a_hook_ends_the_connection(link):
    server, peer, probe = link(Plain)
    in_loop(server, probe.trans.set_deadline, 0.05)
    probe.wait_for("closed")
    with pytest.raises(ConnectionResetError):
        peer.recv(1)


def test_a_deadline_does_not_cut_a_close(link):
    server, peer, probe = link(Plain)

    def end():
        probe.trans.set_deadline(0.05)
        probe.send(bytes(MUCH))
        probe.close_socket_connection()

    in_loop(server, end)
    count_polls(server, 0.5)
    assert read_all(peer) == bytes(MUCH)


# Ends.


def test_close_sends_everything_first(link):
    server, peer, probe = link()
    message = os.urandom(MUCH)

    def end():
        for at in range(0, MUCH, 1 << 16):
            probe.send(message[at : at + (1 << 16)])
        probe.close_socket_connection()
        probe.close_socket_connection()
        probe.send(b"too late")

    in_loop(server, end)
    peer.sendall(b"not heard any more")
    assert read_all(peer) == message
    peer.close()
    probe.wait_for("closed")
    assert "data" not in probe.calls
    assert probe.calls.count("closed") == 1
    assert probe.trans.fileno() == -1


class Answering(Echo):
    def on_data_received(self, data):
        super().on_data_received(data)
        if data == b"bye!":
            self.close_socket_connection()


@pytest.mark.parametrize(
    ("protocol", "stay", "leave"),
    [
        (Answering, b"stay", b"bye!"),
        (
            HttpProtocol,
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        ),
    ],
    ids=["queued", "shared buffer"],
)
def test_the_last_bytes_and_the_end_are_one_packet(
    start, stack, protocol, stay, leave
):
    """The end needs no packet more than an answer has."""
    server = start(protocol)

    def packets(request):
        peer = stack.enter_context(connect(server.port))
        peer.sendall(request)
        assert peer.recv(4096)
        if request is leave:
            assert peer.recv(1) == b""
        state = peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 144)
        (received,) = struct.unpack_from("I", state, TCPI_SEGS_IN)
        return received

    # Late acknowledgements are packets, too.
    least = [
        min(packets(request) for _ in range(5)) for request in (leave, stay)
    ]
    assert least[0] == least[1]


@pytest.mark.usefixtures("often_swept")
@pytest.mark.parametrize("close", ["close", "close_lingering"])
def test_the_last_answer_is_read_though_the_client_still_sends(link, close):
    """RFC 9112 section 9.6: a close(2) at once would be a reset."""
    server, peer, probe = link()
    in_loop(server, probe.trans.pause_reading)
    peer.sendall(b"unread")
    in_loop(server, probe.send, b"answer")
    in_loop(server, getattr(probe.trans, close))
    for _ in range(10):
        peer.sendall(bytes(1_000_000))
        turn(server, 1)
    assert read_all(peer) == b"answer"
    peer.sendall(b"still more")
    turn(server)
    assert probe.calls == ["new"]
    peer.close()
    probe.wait_for("closed")
    assert probe.calls == ["new", "closed"]


def test_who_leaves_after_half_a_body_is_let_go(start, stack):
    left = threading.Event()

    class Impatient(HttpProtocol):
        config = Config(body_timeout=0.1)

        def on_connection_closed(self):
            left.set()

    server = start(Impatient)
    peer = stack.enter_context(connect(server.port))
    peer.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999\r\n\r\n")
    assert b" 408 " in read_all(peer)
    peer.close()
    assert left.wait(PATIENCE)


@pytest.mark.parametrize("poller", ["epoll"], indirect=True)
def test_lingering_ends_without_the_peer(link, subtests):
    """Whatever came late, and whatever the program does."""
    links = {case: link() for case in ("silent", "late", "called")}
    for server, peer, probe in links.values():
        in_loop(server, probe.trans.close_lingering)
        assert read_all(peer) == b""
    links["late"][1].sendall(b"what nobody wants")
    server, _, probe = links["called"]
    in_loop(server, probe.trans.close)
    in_loop(server, probe.trans.set_deadline, 0)
    in_loop(server, probe.trans.set_deadline, 3600)
    count_polls(server, 0.4)
    for case, (_, _, probe) in links.items():
        assert probe.calls == ["new"], case
    for case, (_, _, probe) in links.items():
        with subtests.test(case):
            probe.wait_for("closed")


def test_lingering_ends_though_the_peer_goes_on(link):
    class Closing(Probe):
        def on_data_received(self, data):
            self.trans.close_lingering()

    server, peer, probe = link(Closing)
    server._connections.linger_total = 0.5
    began = time.monotonic()
    peer.sendall(b"x")
    assert read_all(peer) == b""

    def go_on():
        while time.monotonic() < began + PATIENCE:
            peer.sendall(b"more")
            time_passes(server, 0.05)

    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        go_on()
    assert time.monotonic() > began + 0.3
    probe.wait_for("closed")


def test_abort_drops_what_is_unsent(link):
    server, peer, probe = link()
    in_loop(server, probe.send, bytes(MUCH))
    in_loop(server, probe.trans.abort)
    probe.wait_for("closed")
    with pytest.raises(ConnectionResetError):
        read_all(peer)


def reset_while_waiting(server, peer, probe):
    with halted(server):
        peer.sendall(b"x")
        reset(peer)


def reset_while_sending(server, peer, probe):
    probe.send(bytes(MUCH))
    probe.wait_for("pause")
    reset(peer)


def reset_while_paused(server, peer, probe):
    in_loop(server, probe.trans.pause_reading)
    peer.sendall(b"x")
    reset(peer)
    turn(server)
    in_loop(server, probe.trans.resume_reading)


def reset_before_sending(server, peer, probe):
    with halted(server):
        reset(peer)
        probe.send(b"x")
        probe.send(bytes(MUCH))


def reset_before_a_file(server, peer, probe):
    with halted(server), open(__file__, "rb") as file:
        reset(peer)
        server.call_soon_threadsafe(
            probe.trans.write_file, file, os.dup(file.fileno()), 0, 100
        )


def reset_while_closing(server, peer, probe):
    probe.send(bytes(MUCH))
    probe.close_socket_connection()
    probe.wait_for("pause")
    reset(peer)


def reset_while_lingering(server, peer, probe):
    in_loop(server, probe.trans.close_lingering)
    turn(server)
    reset(peer)


def reset_after_half_close(server, peer, probe):
    probe.send(bytes(MUCH))
    probe.wait_for("pause")
    peer.shutdown(socket.SHUT_WR)
    turn(server)
    reset(peer)


@pytest.mark.parametrize(
    "stage",
    [
        reset_while_waiting,
        reset_while_sending,
        reset_while_paused,
        reset_before_sending,
        reset_before_a_file,
        reset_while_closing,
        reset_while_lingering,
        reset_after_half_close,
    ],
)
def test_a_reset_at_any_moment(link, stage):
    server, peer, probe = link()
    stage(server, peer, probe)
    probe.wait_for("closed")
    turn(server)
    assert probe.calls.count("closed") == 1
    assert probe.trans.fileno() == -1
    assert in_loop(server, lambda: server._connections.count) == 0
    with connect(server.port) as other:
        other.sendall(b"x")


def test_a_reset_before_it_is_accepted(start):
    probes = Probes()
    server = start(probes)
    with halted(server):
        for data in (b"", b"x"):
            peer = connect(server.port)
            peer.sendall(data)
            reset(peer)
    for _ in range(2):
        probe = probes.next()
        probe.wait_for("closed")
        assert probe.calls[0] == "new"
        assert probe.calls.count("closed") == 1


# Files.


@pytest.fixture
def file(tmp_path):
    """A file of 10 MB, more than is sent in one turn."""
    path = tmp_path / "file"
    path.write_bytes(os.urandom(1 << 20) * 10)
    with path.open("r+b") as file:
        yield file


class Owner:
    """What must live as long as its file is being sent."""


def test_a_file_between_messages(link, file):
    server, peer, probe = link()
    content = file.read()
    owner = Owner()
    released = threading.Event()
    weakref.finalize(owner, released.set)
    owners = [owner]
    del owner

    def send():
        write_file = probe.trans.write_file
        probe.send(b"before ")
        write_file(owners.pop(), file.fileno(), 0, len(content))
        assert probe.trans.queued() == 7 + len(content)
        probe.send(b" between ")
        write_file(file, file.fileno(), 5, 10)
        write_file(file, file.fileno(), 5, 0)
        write_file(file, file.fileno(), 5, -1)
        probe.send(b" after")
        probe.close_socket_connection()
        write_file(file, file.fileno(), 0, 100)

    expected = b"before " + content + b" between " + content[5:15] + b" after"
    in_loop(server, send)
    assert not released.is_set()
    received = read_exactly(peer, 1000)
    turn(server)
    assert not released.is_set()
    received += read_all(peer)
    assert received == expected
    assert released.wait(5)
    assert probe.calls[-1] == "closed"


def test_what_is_not_read_meanwhile_costs_nothing(link, file):
    """The file counts as unsent, though it takes no memory."""
    server, peer, probe = link()
    size = os.path.getsize(file.name)
    in_loop(server, probe.trans.write_file, file, file.fileno(), 0, size)
    turn(server)
    assert in_loop(server, probe.trans.full)
    peer.sendall(b"x")
    assert count_polls(server, 0.15) <= 6
    assert read_exactly(peer, size) == file.read()
    probe.wait_for("data")


@pytest.mark.parametrize(
    ("size", "stop"), [(9, "exception"), (MUCH, "exception"), (MUCH, "timeout")]
)
def test_what_is_cut_off_does_not_look_complete(link, size, stop):
    def send(self):
        self.send(bytes(size))
        if stop == "exception":
            raise ZeroDivisionError
        self.server.shutdown(0.01)

    _server, peer, probe = link(overriding("on_data_received", send))
    peer.sendall(b"x")
    probe.wait_for("closed")
    with pytest.raises(ConnectionResetError):
        read_all(peer)


def test_a_client_that_closes_while_it_is_not_read(stack, tmp_path):
    """A unix socket hangs up though what it sent is still to be read."""
    path = str(tmp_path / "socket")
    listener = stack.enter_context(socket.socket(socket.AF_UNIX))
    listener.bind(path)
    listener.listen()
    probes = Probes(overriding("on_data_received", pause))
    server = AsyncSocketServer.from_sockets([listener], probes)
    stack.enter_context(serving(server))
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(path)
        probe = probes.next()
        peer.sendall(b"first ")
        probe.wait_for("data")
        peer.sendall(b"second")
    polls = count_polls(server, 0.2)
    assert polls < 20
    in_loop(server, probe.trans.resume_reading)
    probe.wait_for("closed")
    assert probe.received == b"first second"


def pause(self):
    if self.received == b"first ":
        self.trans.pause_reading()


def test_leaving_what_was_not_entered(start, stack):
    """enter() says no, as it is the turn of another."""
    probes = Probes(overriding("on_data_received", lambda self: call(self)))
    server = start(probes)
    peers, protocols = [], []
    for _ in range(2):
        peers.append(stack.enter_context(connect(server.port)))
        protocols.append(probes.next())

    def call(self):
        self.trans.write(b"own, ")
        other = protocols[1].trans
        assert not other.enter()
        other.write(b"other's")
        other.leave()
        self.trans.write(b"own")

    peers[0].sendall(b"x")
    assert read_exactly(peers[1], 7) == b"other's"
    assert read_exactly(peers[0], 8) == b"own, own"
    # From another thread it is nobody's turn.
    assert not protocols[1].trans.enter()


def test_a_hook_does_not_leave_its_own_turn(link):
    class Leaving(Probe):
        def __init__(self, server, trans, mqueue):
            super().__init__(server, trans, mqueue)
            trans.leave()

        def on_data_received(self, data):
            self.entered = self.trans.enter()
            self.send(data)
            self.close_socket_connection()
            self.trans.leave()
            self.note("left")

    _, peer, probe = link(Leaving)
    peer.sendall(b"x")
    assert read_all(peer) == b"x"
    probe.wait_for("closed")
    assert not probe.entered
    assert probe.calls == ["new", "left", "closed"]


def test_what_was_written_in_a_turn_that_is_not_left(link):
    server, peer, probe = link()

    def write():
        assert probe.trans.enter()
        probe.send(b"x")

    in_loop(server, write)
    assert read_exactly(peer, 1) == b"x"
    in_loop(server, write)
    peer.sendall(b"y")
    assert read_exactly(peer, 1) == b"x"


def test_what_was_lent_in_a_turn_that_is_not_left(stack, start):
    """The next turn takes back what is another's: memory of anybody."""
    asked = queue.SimpleQueue()
    body = bytes(3000)

    class Asked(HttpProtocol):
        def on_request(self, request):
            if request.target == "/later":
                asked.put(self)
            else:
                self.respond(200, [], b"now")

    server = start(Asked)
    clients = [stack.enter_context(connect(server.port)) for _ in range(2)]
    clients[0].sendall(b"GET /later HTTP/1.1\r\nHost: a\r\n\r\n")
    protocol = asked.get(timeout=PATIENCE)

    def answer():
        assert protocol.trans.enter()
        protocol.respond(200, [], body)
        protocol.trans.flush_soon()
        received = b""
        while not received.endswith(body):
            received += read_exactly(clients[0], 1)

    in_loop(server, answer)
    for client in reversed(clients):
        client.sendall(
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        )
        head, _, rest = read_all(client).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        assert rest == b"now"


@pytest.mark.parametrize("action", ["flush", "send"])
def test_a_file_whose_owner_writes_when_it_has_been_sent(link, file, action):
    server, peer, probe = link()
    content = file.read(300)
    more = bytes(HIGH_WATER + 1)

    def act():
        if action == "flush":
            probe.trans.flush()
        else:
            probe.send(more)

    def send():
        write_file = probe.trans.write_file
        owner = Owner()
        weakref.finalize(owner, act)
        write_file(owner, file.fileno(), 0, 100)
        write_file(file, file.fileno(), 100, 200)

    in_loop(server, send)
    in_loop(server, probe.close_socket_connection)
    received = read_all(peer)
    assert received == content + (more if action == "send" else b"")


def test_a_file_that_shrinks(link, file, error_log):
    server, peer, probe = link()
    content = file.read()
    in_loop(
        server,
        probe.trans.write_file,
        file,
        file.fileno(),
        0,
        len(content),
    )
    received = read_exactly(peer, 1000)
    file.truncate(len(content) // 2)
    # Else it would look complete.
    with pytest.raises(ConnectionResetError):
        read_all(peer)
    assert content.startswith(received)
    error_log.wait_for("became shorter")
    probe.wait_for("closed")


def test_a_file_that_is_closed(link, file, error_log):
    server, peer, probe = link()

    def send():
        descriptor = os.dup(file.fileno())
        os.close(descriptor)
        probe.trans.write_file(file, descriptor, 0, 100)

    in_loop(server, send)
    probe.wait_for("closed")
    with pytest.raises(ConnectionResetError):
        read_all(peer)


def test_a_file_to_a_client_that_leaves(link, file):
    server, peer, probe = link()
    owner = Owner()
    released = threading.Event()
    weakref.finalize(owner, released.set)
    owners = [owner]
    del owner
    in_loop(
        server,
        lambda: probe.trans.write_file(
            owners.pop(), file.fileno(), 0, 10 << 20
        ),
    )
    read_exactly(peer, 1000)
    reset(peer)
    probe.wait_for("closed")
    assert released.wait(5)


def break_pipe(probe):
    with socket.socket(fileno=os.dup(probe.trans.fileno())) as same:
        same.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("flusher", [False, True])
def test_a_held_answer_to_a_broken_pipe_raises_no_signal(stack, start, flusher):
    """Neither the loop's thread is sent SIGPIPE nor the flusher's."""
    signals = []
    before = signal.signal(signal.SIGPIPE, lambda *args: signals.append(args))
    stack.callback(signal.signal, signal.SIGPIPE, before)

    def answer_in_vain(clients, probe):
        probe.send(b"held")
        break_pipe(probe)

    actions = [answer_in_vain, answer(b"next")]
    if flusher:
        actions.append(Turn.be_slow)
    clients = Turn(stack, start, *actions)
    assert read_exactly(clients.peers[1], 4) == b"next"
    if flusher:
        clients.is_read()
    clients.probes[0].wait_for("closed")
    assert not signals


@pytest.mark.parametrize("kind", ["bytes", "file"])
def test_a_broken_pipe_raises_no_signal(stack, link, file, kind):
    signals = []
    before = signal.signal(signal.SIGPIPE, lambda *args: signals.append(args))
    stack.callback(signal.signal, signal.SIGPIPE, before)
    server, _, probe = link()

    def send():
        break_pipe(probe)
        if kind == "bytes":
            probe.trans.write(b"x")
        else:
            probe.trans.write_file(file, file.fileno(), 0, 100)

    in_loop(server, send)
    probe.wait_for("closed")
    assert not signals


# The message queue.


def test_messages_can_be_taken_back(link):
    def take_back(probe):
        mqueue = probe._mqueue
        assert mqueue.empty()
        with pytest.raises(queue.Empty):
            mqueue.get_nowait()
        for message in (b"one", b"two", b"three"):
            mqueue.put_nowait(message)
        assert not mqueue.empty()
        assert mqueue.get_nowait() == b"one"
        probe.send(b"four")
        assert mqueue.get_nowait() == b"two"

    _server, peer, _probe = link(overriding("on_data_received", take_back))
    peer.sendall(b"x")
    assert read_exactly(peer, 9) == b"threefour"


def take_all_back(probe):
    taken = 0
    while True:
        try:
            probe._mqueue.get_nowait()
        except queue.Empty:
            return taken
        taken += 1


def fill_with_tiny_messages(probe):
    """What is unsent then are whole messages."""
    for _ in range(200_000):
        probe.send(b"x")


def wait_until_stuck(server, probe):
    """Until the kernel takes no more."""
    before = None
    queued = in_loop(server, probe.trans.queued)
    while queued != before:
        count_polls(server, 0.05)
        before, queued = queued, in_loop(server, probe.trans.queued)


def test_all_can_be_taken_back_from_a_client_that_does_not_read(link):
    server, peer, probe = link(Echo, write_timeout=0.4)

    def fill_and_take_back():
        fill_with_tiny_messages(probe)
        probe.trans.flush()
        return take_all_back(probe)

    taken = in_loop(server, fill_and_take_back)
    assert in_loop(server, probe._mqueue.empty)
    probe.wait_for("resume")
    assert count_polls(server, 0.8) <= 8
    left = 200_000 - taken
    assert read_exactly(peer, left) == b"x" * left
    peer.sendall(b"alive")
    assert read_exactly(peer, 5) == b"alive"


def test_a_close_whose_messages_are_taken_back(link):
    server, _peer, probe = link()
    in_loop(server, fill_with_tiny_messages, probe)
    in_loop(server, probe.close_socket_connection)
    wait_until_stuck(server, probe)
    assert "closed" not in probe.calls
    in_loop(server, take_all_back, probe)
    probe.wait_for("closed")


def test_what_is_sent_in_part_cannot_be_taken_back(link):
    server, peer, probe = link()
    message = os.urandom(MUCH)
    in_loop(server, probe.send, message)
    turn(server)
    with pytest.raises(queue.Empty):
        in_loop(server, probe._mqueue.get_nowait)
    assert read_exactly(peer, MUCH) == message


@pytest.mark.parametrize("poller", ["epoll"], indirect=True)
def test_many_messages_cost_in_proportion(link):
    """The square would be half a minute of work."""
    server, peer, probe = link(write_timeout=0)
    count = 2_000_000

    def send():
        for _ in range(count):
            probe.send(b"x")

    began = time.process_time()
    in_loop(server, send)
    assert read_exactly(peer, count) == b"x" * count
    assert time.process_time() - began < 10


@pytest.mark.parametrize("arguments", [(), (None,)])
def test_no_connection_without_a_loop(arguments):
    for make in (Transport, lambda *a: Transport.__new__(Transport, *a)):
        with pytest.raises(TypeError):
            make(*arguments)


def test_no_room_to_receive():
    class NoRoom(AsyncSocketServer):
        RX_CHUNKSIZE = 0

    standard_input = os.fstat(0)
    with pytest.raises(ValueError, match="at least one byte"):
        Connections(NoRoom, make_poller())
    assert os.path.samestat(os.fstat(0), standard_input)


def test_no_descriptor():
    connections = Connections(AsyncSocketServer, make_poller())
    with pytest.raises(ValueError, match="-1 is no descriptor"):
        connections.set_handler(-1, print)
