"""The real command under attack, out of resources, with broken programs."""

import contextlib
import ctypes
import errno
import io
import json
import os
import re
import resource
import select
import signal
import socket
import struct
import subprocess
import sys
import sysconfig
import time
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest

from tests.apps.serving import serving
from tests.apps.wire import PATIENCE, Connection

libc = ctypes.CDLL(None)

IO_URING_SETUP = 425
ROOT = Path(__file__).parent.parent
SLOW_CLIENTS = 2000
HALF_HEAD = b"GET / HTTP/1.1\r\nHost: a\r\nX: "
HALF_BODY = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nx"
HALF_CHUNK = (
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\nx"
)
GET = b"GET %s HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture(autouse=True, scope="module")
def many_descriptors():
    """As many as the system allows; the commands inherit it."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


class Site:
    """The command with the application `faulty`, and clients of it."""

    def __init__(self, stack, *arguments, **options):
        self.stack = stack
        self.command = stack.enter_context(
            serving("faulty", *arguments, **options)
        )
        self.address = "127.0.0.1", self.command.port

    def connect(self, **options):
        return self.stack.enter_context(Connection(self.address, **options))

    def ask(self, target="/"):
        """One request on a connection of its own."""
        with self.connect() as client:
            return client.get(target)

    def state(self):
        return json.loads(self.ask("/state").body)

    def comes_back_to(self, state):
        """Wait until the server has noticed that clients have left."""
        end = time.monotonic() + PATIENCE
        while any(self.state()[name] > state[name] for name in state):
            assert time.monotonic() < end, (state, self.state())


@pytest.fixture(params=["0", "2"], ids=["loop", "pool"], scope="module")
def threads(request):
    return request.param


@pytest.fixture(scope="module")
def lasting_site(many_descriptors, threads):
    with contextlib.ExitStack() as stack:
        yield Site(stack, "--threads", threads)


@pytest.fixture
def site(lasting_site):
    """One for many tests: none of their faults may end it."""
    lasting_site.command.lines.clear()
    with contextlib.ExitStack() as stack:
        lasting_site.stack = stack
        yield lasting_site


# Slow clients


def half_head(client):
    client.send(HALF_HEAD)


def half_body(client):
    client.send(HALF_BODY)


def no_reader(client):
    client.send(GET % b"/large")


def trickle(clients):
    """One more byte from each that the server has not cut off yet."""
    left = []
    for client in clients:
        try:
            client.socket.send(b"x")
        except (BrokenPipeError, ConnectionResetError):
            continue
        left.append(client)
    return left


def are_cut(clients, *, but=0):
    """Wait until the server has closed or reset them all, or all `but`."""
    poll = select.poll()
    for client in clients:
        poll.register(client.socket, select.POLLRDHUP)
    waiting = {client.socket.fileno() for client in clients}
    while len(waiting) > but:
        ready = poll.poll(PATIENCE * 1000)
        assert ready, f"{len(waiting)} connections are still open"
        for fd, _ in ready:
            poll.unregister(fd)
            waiting.discard(fd)


@pytest.mark.parametrize("stage", [half_head, half_body, no_reader])
def test_slow_clients_do_not_delay_others(stack, stage):
    site = Site(
        stack,
        *("--header-timeout", "2", "--body-timeout", "2"),
        *("--write-timeout", "2"),
    )
    normal = site.connect()
    slow = []
    for _ in range(SLOW_CLIENTS):
        slow.append(site.connect(receive_buffer=4096))
        stage(slow[-1])
    trickling = [] if stage is no_reader else slow
    # Behind what they all asked for.
    assert normal.get("/").body == b"0"
    seconds = []
    for _ in range(100):
        began = time.perf_counter()
        assert normal.get("/").body == b"0"
        seconds.append(time.perf_counter() - began)
        if len(seconds) % 25 == 0:
            trickling = trickle(trickling)
    assert sorted(seconds)[50] < 0.05, sorted(seconds)
    # Who waits for a slow one waits until it is cut, after 2 s.
    assert max(seconds) < 2, sorted(seconds)
    are_cut(slow)
    assert normal.get("/").body == b"0"


def test_who_does_not_read_makes_room(stack, threads):
    """Long before write_timeout, once clients that do not read are many."""
    site = Site(stack, "--threads", threads, "--limit-queued-total", "9999999")
    slow = [site.connect(receive_buffer=4096) for _ in range(20)]
    for client in slow:
        no_reader(client)
    site.command.wait_for_line(r"limit_queued_total \(9999999\)")
    are_cut(slow, but=2)
    assert len(site.ask("/large").body) == 64 << 16


def test_more_than_may_be_queued(stack, threads):
    """By write(), which cannot be made to wait."""
    site = Site(stack, "--threads", threads, "--limit-queued", "99999")
    client = site.connect(receive_buffer=4096)
    client.request("/written")
    site.command.wait_for_line(r"limit_queued \(99999\)")
    are_cut([client])
    assert len(site.ask("/large").body) == 64 << 16


def test_an_idle_connection_costs_little(stack):
    site = Site(stack)
    site.ask()
    before = memory(site)
    clients = [site.connect() for _ in range(1000)]
    for client in clients:
        assert client.get("/").status == 200
    assert (memory(site) - before) / 1000 < 1024


def memory(site):
    status = Path(f"/proc/{site.command.process.pid}/status").read_text()
    return 1024 * int(re.search(r"VmRSS:\s+(\d+)", status)[1])


# Resources


def limited(kind, value):
    return lambda: resource.setrlimit(kind, (value, value))


def test_no_descriptors_are_left(stack, threads):
    site = Site(
        stack, "--threads", threads,
        preexec_fn=limited(resource.RLIMIT_NOFILE, 40),
    )  # fmt: skip
    clients = [site.connect().request() for _ in range(60)]
    site.command.wait_for_line("cannot accept: Too many open files")
    for client in clients:
        assert client.response().body == b"0"
        client.close()
    assert site.ask().status == 200


def forbid_io_uring():
    """As containers do: io_uring_setup(2) fails with EPERM (seccomp(2))."""
    load, equal, leave = 0x20, 0x15, 0x06
    steps = [
        (load, 0, 0, 0),
        (equal, 0, 1, IO_URING_SETUP),
        (leave, 0, 0, 0x50000 | errno.EPERM),
        (leave, 0, 0, 0x7FFF0000),
    ]
    text = b"".join(struct.pack("HBBI", *step) for step in steps)
    code = ctypes.create_string_buffer(text)
    program = struct.pack("HL", len(steps), ctypes.addressof(code))
    no_new_privileges, seccomp, filtered = 38, 22, 2
    assert libc.prctl(no_new_privileges, 1, 0, 0, 0) == 0
    assert libc.prctl(seccomp, filtered, program) == 0


def has_io_uring():
    parameters = ctypes.create_string_buffer(120)
    descriptor = libc.syscall(IO_URING_SETUP, 1, parameters)
    if descriptor >= 0:
        os.close(descriptor)
    return descriptor >= 0


@pytest.mark.parametrize("forbid", [None, forbid_io_uring])
def test_with_and_without_io_uring(stack, threads, forbid):
    """It is used where it is to be had; the answers are the same."""
    site = Site(stack, "--threads", threads, preexec_fn=forbid)
    folder = Path(f"/proc/{site.command.process.pid}/fd")
    opened = [os.readlink(entry) for entry in folder.iterdir()]
    expected = has_io_uring() and forbid is None
    assert any("io_uring" in name for name in opened) == expected
    clients = [site.connect() for _ in range(100)]
    for _ in range(3):
        for client in clients:
            client.request()
        for client in clients:
            assert client.response().body == b"0"


def test_the_disk_is_full(stack, threads):
    site = Site(
        stack, "--threads", threads, "--body-memory", "1000",
        preexec_fn=limited(resource.RLIMIT_FSIZE, 200_000),
    )  # fmt: skip
    state = site.state()
    for fields in ["Content-Length: 300000"], ["Transfer-Encoding: chunked"]:
        chunk = b"493e0\r\n" if "chunked" in fields[0] else b""
        with site.connect().request("/", *fields, method="POST") as client:
            client.send(chunk + bytes(300_000))
            assert client.response().status == 507
            assert client.at_end()
    with site.connect() as client:
        response = client.get("/", method="POST", body=bytes(9999))
        assert response.body == b"9999"
    site.command.wait_for_line("cannot store a request body")
    client = site.connect(receive_buffer=4096).request("/written")
    site.command.wait_for_line("File too large")
    assert client.head()[0] == 200
    assert client.is_cut()
    client.close()
    site.comes_back_to(state)


def spooled(site):
    """Bytes in the command's temporary files, which come and go."""
    size = 0
    for fd in Path(f"/proc/{site.command.process.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            if str(fd.readlink()).endswith(" (deleted)"):
                size += fd.stat().st_size
    return size


def test_temporary_files_are_bounded_in_all(stack, threads):
    site = Site(
        stack, "--threads", threads, "--body-memory", "1000",
        "--limit-spooled", "8500000", "--limit-queued", "999999",
    )  # fmt: skip
    body = bytes(3_000_000)
    for _ in range(3):
        client = site.connect(receive_buffer=4096).request("/written")
        assert len(client.response().body) == 64 << 16
        assert client.get("/", method="POST", body=body).body == b"3000000"
    half = site.connect().request("/", "Content-Length: 6000001", method="POST")
    half.send(bytes(6_000_000))
    end = time.monotonic() + PATIENCE
    while spooled(site) < 6_000_000 - io.DEFAULT_BUFFER_SIZE:
        assert time.monotonic() < end
    refused = site.connect().request(
        "/", "Content-Length: 4000000", method="POST"
    )
    refused.send(body)
    with contextlib.suppress(ConnectionError):
        refused.send(bytes(1_000_000))
    assert refused.response().status == 503
    site.command.wait_for_line(r"refused with 503: .*limit_spooled \(8500000")
    stopped = site.connect(receive_buffer=4096).request("/written")
    site.command.wait_for_line(r"what write.. gave .*limit_spooled \(8500000")
    assert stopped.head()[0] == 200
    assert stopped.is_cut()
    assert half.send(b"x").response().body == b"6000001"
    assert half.get("/", method="POST", body=body).body == b"3000000"


# Clients that leave


def at_once(client):
    pass


def in_the_head(client):
    client.send(HALF_HEAD)


def in_the_body(client):
    client.send(HALF_BODY)


def in_a_chunk(client):
    client.send(HALF_CHUNK)


def before_the_answer(client):
    client.request()


def before_the_answers(client):
    client.send(GET % b"/" * 50 + HALF_HEAD)


def in_a_large_answer(client):
    client.request("/large").head()


def in_a_stream(client):
    client.request("/stream").head()
    client.chunk()


def in_a_file(client):
    client.request("/file").head()


def after_the_answer(client):
    client.get()


def after_a_refusal(client):
    client.send(b"nonsense\r\n\r\n").response()


STAGES = [
    at_once,
    in_the_head,
    in_the_body,
    in_a_chunk,
    before_the_answer,
    before_the_answers,
    in_a_large_answer,
    in_a_stream,
    in_a_file,
    after_the_answer,
    after_a_refusal,
]


@pytest.mark.parametrize("leave", [Connection.reset, Connection.close])
def test_clients_leave_at_each_stage(site, leave):
    site.ask("/stream/warm-up")
    state = site.state()
    for _ in range(20):
        clients = [site.connect(receive_buffer=4096) for _ in STAGES]
        for stage, client in zip(STAGES, clients, strict=True):
            stage(client)
        for client in clients:
            leave(client)
    site.comes_back_to(state)
    assert "Traceback" not in site.command.stderr


def test_half_closed_connections_are_answered(site):
    """RFC 9112 section 9.6 lets a client close its sending side."""
    for request in GET % b"/large", GET % b"/" * 9 + GET % b"/large":
        client = site.connect().send(request)
        client.socket.shutdown(socket.SHUT_WR)
        for _ in range(request.count(b"GET") - 1):
            assert client.response().body == b"0"
        assert len(client.response().body) == 64 << 16
        assert client.at_end()


@pytest.mark.parametrize(
    "part", [b"", HALF_HEAD, HALF_BODY, HALF_CHUNK, GET % b"/" + HALF_HEAD]
)
def test_half_closed_connections_without_a_request_are_closed(site, part):
    client = site.connect().send(part)
    client.socket.shutdown(socket.SHUT_WR)
    if part.startswith(GET % b"/"):
        assert client.response().body == b"0"
    assert client.at_end()


def test_a_broken_pipe_is_no_signal(stack, threads):
    """Whatever an application made of SIGPIPE."""
    site = Site(stack, "--threads", threads, env={"SIGPIPE": "default"})
    for target in ["/large", "/stream", "/file"] * 5:
        client = site.connect(receive_buffer=4096).request(target)
        client.head()
        client.reset()
    for _ in range(5):
        client = site.connect().request("/file/too-late")
        # A reset after this is EPIPE, without it ECONNRESET.
        client.socket.shutdown(socket.SHUT_WR)
        client.reset()
    assert site.ask().status == 200


def test_a_signal_of_a_broken_pipe_is_ignored(site):
    site.command.process.send_signal(signal.SIGPIPE)
    assert site.ask().status == 200


# Applications


@pytest.mark.parametrize(
    "target",
    [
        *("/raise/before", "/raise/before-parts", "/never", "/exit"),
        *("/garbage/none", "/garbage/number", "/garbage/text"),
        *("/garbage/texts", "/garbage/mixed", "/garbage/array"),
        *("/start/status", "/start/code", "/start/split", "/start/fields"),
        *("/start/field", "/start/name", "/start/value"),
    ],
)
def test_a_fault_before_the_answer_is_a_500(site, target):
    client = site.connect()
    assert client.get(target).status == 500
    assert client.get("/").status == 200
    site.command.wait_for_line("exception in the application")
    site.command.wait_for_line("Traceback")


@pytest.mark.parametrize("target", ["/raise/between", "/exit/late"])
def test_a_fault_within_the_answer_cuts_it(site, target):
    client = site.connect().request(target)
    assert client.head()[0] == 200
    assert client.is_cut()
    site.command.wait_for_line("exception in the application")
    assert site.ask().status == 200


def test_a_fault_after_the_answer_is_logged(site):
    client = site.connect()
    assert client.get("/raise/after").body == b"all sent"
    site.command.wait_for_line("ValueError: in close")
    assert client.get("/").status == 200


def test_a_blocked_application_blocks_one_thread(stack):
    site = Site(stack, "--threads", "2", "--graceful-timeout", "0.1")
    normal = site.connect()
    site.connect().request("/block")
    for _ in range(100):
        assert normal.get("/").status == 200
    # With no thread left the loop still accepts and refuses.
    site.connect().request("/block")
    assert site.connect().send(b"nonsense\r\n\r\n").response().status == 400


@pytest.mark.parametrize("target", ["/descriptor/gone", "/descriptor/taken"])
def test_a_closed_descriptor_ends_one_connection(stack, threads, target):
    site = Site(stack, "--threads", threads)
    other = site.connect()
    assert other.get("/").body == b"0"
    for _ in range(20):
        with site.connect().request(target) as client:
            assert client.at_end()
    assert other.get("/").body == b"0"
    assert site.ask().status == 200


# The clock

CLOCK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static long shift(void)
{
    static int file = -1;
    char text[32] = "";
    if (file < 0)
        file = open(getenv("CLOCK_SHIFT"), O_RDONLY);
    return pread(file, text, sizeof text - 1, 0) > 0 ? atol(text) : 0;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int (*real)(clockid_t, struct timespec *) =
        (int (*)(clockid_t, struct timespec *))dlsym(
            RTLD_NEXT, "clock_gettime");
    int failed = real(clock, now);
    if (clock == CLOCK_REALTIME)
        now->tv_sec += shift();
    return failed;
}

time_t time(time_t *result)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (result)
        *result = now.tv_sec;
    return now.tv_sec;
}
"""
YEAR = 366 * 86400


@pytest.fixture(scope="module")
def shifted(tmp_path_factory, many_descriptors):
    """A site, and the file of the seconds that its clock is ahead."""
    place = tmp_path_factory.mktemp("clock")
    source, library = place / "clock.c", place / "clock.so"
    source.write_text(CLOCK)
    compiler = sysconfig.get_config_var("CC").split()[0]
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"],
        check=True,
    )
    shift = place / "shift"
    shift.write_text("0")
    with contextlib.ExitStack() as stack:
        site = Site(
            stack, "--header-timeout", "0.5", "--access-log",
            env={"LD_PRELOAD": str(library), "CLOCK_SHIFT": str(shift)},
        )  # fmt: skip
        yield site, shift


@pytest.mark.parametrize("jump", [-YEAR, YEAR, -60, 60])
def test_a_clock_that_jumps(shifted, stack, jump):
    """Only `Date` follows it; time limits are of the monotonic clock."""
    site, shift = shifted
    site.stack = stack
    shift.write_text("0")
    client = site.connect()
    assert abs(date(client.get()) - time.time()) < 5
    began = time.monotonic()
    slow = site.connect().send(HALF_HEAD)
    assert client.get().status == 200
    shift.write_text(str(jump))
    assert abs(date(client.get()) - time.time() - jump) < 5
    assert slow.response().status == 408
    assert time.monotonic() - began >= 0.5
    assert client.get().status == 200


def date(response):
    return parsedate_to_datetime(response.headers["Date"]).timestamp()


# Leaks


def test_nothing_leaks(threads):
    """Prints what 10,000 idle connections cost, if the system allows them."""
    idle = min(10_000, resource.getrlimit(resource.RLIMIT_NOFILE)[1] - 100)
    soak = subprocess.run(
        [
            sys.executable, "bench/soak.py", "--threads", threads,
            "--requests", "10000", "--connections", "600", "--idle", str(idle),
        ],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    sys.stdout.write(soak.stdout)
    assert soak.returncode == 0, soak.stdout + soak.stderr
