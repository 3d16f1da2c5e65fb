"""Serves a million requests in every odd way and looks for what is left.

Starts the real command with an application that counts its own objects,
descriptors and memory; plays requests, connections that end at every
stage, and idle connections; ends with 1 if anything has grown. Linux only.
"""

import argparse
import gc
import itertools
import json
import os
import resource
import socket
import struct
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

HERE = Path(__file__).parent
PATIENCE = 30
PIPELINED = 32
DOWNLOAD = bytes(65536)
SPOOLED = bytes(100_000)
IP_BIND_ADDRESS_NO_PORT = 24
RESET = struct.pack("ii", 1, 0)
# Of the growth from the first tenth to the end.
MOST_OBJECTS = 100
MOST_BLOCKS = 0.01
MOST_MEMORY = 4 << 20
MOST_IDLE_MEMORY = 1024

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
LARGE = b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n"
ENDLESS = b"GET /endless HTTP/1.1\r\nHost: a\r\n\r\n"
FILE = b"GET /file HTTP/1.1\r\nHost: a\r\n\r\n"
RAISING = b"GET /raise HTTP/1.1\r\nHost: a\r\n\r\n"


# The application


def app(environ, start_response):
    """Count a body, or do what the path says."""
    path = environ["PATH_INFO"]
    if path == "/raise":
        raise RuntimeError("on purpose")
    start_response("200 OK", [("Content-Type", "text/plain")])
    if path == "/large":
        return [DOWNLOAD] * 32
    if path == "/endless":
        return itertools.repeat(DOWNLOAD)
    if path == "/file":
        opened = open(sys.executable, "rb")  # noqa: SIM115
        return environ["wsgi.file_wrapper"](opened)
    if path == "/state":
        return [json.dumps(state()).encode()]
    return [b"%06d" % len(environ["wsgi.input"].read())]


def state():
    """What this process holds now."""
    gc.collect()
    objects = gc.get_objects()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "memory": pages * resource.getpagesize(),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "blocks": sys.getallocatedblocks(),
        "objects": len(objects),
        "types": Counter(type(each).__name__ for each in objects),
    }


# The client


class Server:
    """The command on a socket of ours; clients of many addresses."""

    def __init__(self, threads):
        with socket.create_server(("127.0.0.1", 0), backlog=4096) as listener:
            self.address = listener.getsockname()
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "fasthttp", "--threads", threads),
                    *("--bind", f"fd://{listener.fileno()}"),
                    *("--body-memory", "50000", "--log-level", "critical"),
                    *("--worker-connections", "30000", "soak:app"),
                ],
                pass_fds=[listener.fileno()],
                cwd=HERE,
                env=os.environ | {"PYTHONPATH": str(HERE.parent)},
            )
        self.sources = itertools.cycle(f"127.0.0.{n}" for n in range(1, 250))

    def connect(self):
        """A connection whose port is soon free again."""
        client = socket.socket()
        client.settimeout(PATIENCE)
        client.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        client.bind((next(self.sources), 0))
        client.connect(self.address)
        return client

    def state(self):
        """What the server's process holds between two connections."""
        with self.connect() as client:
            client.sendall(b"GET /state HTTP/1.0\r\n\r\n")
            return json.loads(rest(client).partition(b"\r\n\r\n")[2])

    def settled(self, descriptors):
        """Its state once all clients' leaving is noticed."""
        end = time.monotonic() + PATIENCE
        while (found := self.state())["descriptors"] != descriptors:
            if time.monotonic() > end:
                break
        return found

    def stop(self):
        """End the command; True if it ended well."""
        self.process.terminate()
        return self.process.wait(PATIENCE) == 0


def exactly(client, size):
    """The next `size` bytes."""
    parts = []
    while size:
        parts.append(client.recv(min(size, 1 << 20)))
        if not parts[-1]:
            raise EOFError("the server has closed the connection")
        size -= len(parts[-1])
    return b"".join(parts)


def rest(client):
    """Everything up to the end of the connection."""
    return b"".join(iter(lambda: client.recv(1 << 20), b""))


def play_requests(server, count):
    """Pipelined requests, with and without bodies of every size."""
    batch = b"".join(
        [
            GET * 24,
            (POST % 10 + bytes(10)) * 4,
            (CHUNKED + b"5\r\nhello\r\n0\r\n\r\n") * 2,
            POST % 20000 + bytes(20000),
            POST % len(SPOOLED) + SPOOLED,
        ]
    )
    with server.connect() as client:
        client.sendall(GET)
        size = len(client.recv(1000))
        for _ in range(count // PIPELINED):
            client.sendall(batch)
            answers = exactly(client, size * PIPELINED)
            if answers.count(b"HTTP/1.1 200 OK\r\n") != PIPELINED:
                raise ValueError(f"not {PIPELINED} answers: {answers}")


# Each of these ends a connection at another stage, by a reset.


def at_once(client):
    """Connected, nothing sent."""


def in_the_head(client):
    """A part of the head."""
    client.sendall(GET[:20])


def in_the_body(client):
    """A part of a body that is received in place."""
    client.sendall(POST % 20000 + bytes(100))


def in_a_chunk(client):
    """A part of a chunk."""
    client.sendall(CHUNKED + b"ffff\r\nhello")


def in_a_spooled_body(client):
    """A part of a body that is in a temporary file already."""
    client.sendall(CHUNKED + b"186a0\r\n" + SPOOLED[:70000])


def before_the_answer(client):
    """Requests whose answers nobody reads."""
    client.sendall(GET * 5 + LARGE)


def in_a_download(client):
    """A response that has begun."""
    client.sendall(LARGE)
    exactly(client, 100_000)


def in_an_endless_download(client):
    """A response whose end the application never comes to."""
    client.sendall(ENDLESS)
    exactly(client, 100_000)


def in_a_file(client):
    """A response that the kernel sends."""
    client.sendall(FILE)
    exactly(client, 5000)


def after_the_answer(client):
    """An idle connection."""
    client.sendall(GET)
    client.recv(1000)


def after_an_upload(client):
    """A body that went through a temporary file."""
    client.sendall(POST % len(SPOOLED) + SPOOLED)
    client.recv(1000)


def after_a_failure(client):
    """An application that raised."""
    client.sendall(RAISING)
    client.recv(1000)


def after_a_refusal(client):
    """A request that is none."""
    client.sendall(b"GET / HTTP/1.1\r\nHost : a\r\n\r\n")
    rest(client)


def after_the_end(client):
    """A connection that the server closed."""
    client.sendall(b"GET / HTTP/1.0\r\n\r\n")
    rest(client)


def after_half_closing(client):
    """A client that sends no more but reads on."""
    client.sendall(GET + LARGE)
    client.shutdown(socket.SHUT_WR)
    rest(client)


ENDINGS = [
    at_once,
    in_the_head,
    in_the_body,
    in_a_chunk,
    in_a_spooled_body,
    before_the_answer,
    in_a_download,
    in_an_endless_download,
    in_a_file,
    after_the_answer,
    after_an_upload,
    after_a_failure,
    after_a_refusal,
    after_the_end,
    after_half_closing,
]


def play_connections(server, count):
    """Connections that end at every stage."""
    for ending in itertools.islice(itertools.cycle(ENDINGS), count):
        with server.connect() as client:
            ending(client)


def play_idle(server, count):
    """Print what idle connections cost; True if that is little."""
    cheap = True
    before = server.state()["memory"]
    clients = []
    for what in "accepted", "after a request":
        if clients:
            # One by one: requests that wait at the same time need more.
            for client in clients:
                client.sendall(GET)
                client.recv(1000)
        else:
            clients = [server.connect() for _ in range(count)]
        cost = (server.state()["memory"] - before) / count
        print(f"{count} idle connections, {what}: {cost:.0f} bytes each")
        cheap = cheap and cost < MOST_IDLE_MEMORY
    for client in clients:
        client.close()
    return cheap


def report(what, first, now):
    """Print one line of progress."""
    print(
        f"{what:>12}: memory {now['memory'] / 1e6:.1f} MB"
        f" ({now['memory'] - first['memory']:+}),"
        f" descriptors {now['descriptors']}, objects {now['objects']}"
        f" ({now['objects'] - first['objects']:+}),"
        f" blocks {now['blocks'] - first['blocks']:+}",
        flush=True,
    )


def faults(first, last):
    """What has grown from the state `first` to `last`."""
    if last["descriptors"] != first["descriptors"]:
        yield f"descriptors: {first['descriptors']}, {last['descriptors']}"
    if last["objects"] > first["objects"] + MOST_OBJECTS:
        more = Counter(last["types"]) - Counter(first["types"])
        yield f"objects: {more.most_common(10)}"
    if last["blocks"] > first["blocks"] * (1 + MOST_BLOCKS):
        yield f"blocks of memory: {first['blocks']}, {last['blocks']}"
    if last["memory"] > first["memory"] + MOST_MEMORY:
        yield f"memory: {first['memory']}, {last['memory']}"


def soak(server, options):
    """Play everything; yield what is wrong."""
    descriptors = server.state()["descriptors"]
    first = None
    for tenth in range(1, 11):
        play_requests(server, options.requests // 10)
        play_connections(server, options.connections // 10)
        now = server.settled(descriptors)
        first = first or now
        report(f"{tenth * 10} %", first, now)
    yield from faults(first, now)
    if options.idle:
        if not play_idle(server, options.idle):
            yield "the memory of idle connections"
        now = server.settled(descriptors)
        report("at the end", first, now)
        # The allocator may keep what idle connections took.
        yield from faults(first, now | {"memory": 0})


def main():
    """Parse the command line, soak, give the verdict."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--connections", type=int, default=100_000)
    parser.add_argument("--idle", type=int, default=10_000)
    parser.add_argument(
        "--threads", nargs="+", default=["0", "2"], help="one run for each"
    )
    options = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if options.idle > most - 100:
        sys.exit(f"{options.idle} connections need as many descriptors")
    failed = []
    for threads in options.threads:
        began = time.monotonic()
        print(
            f"== --threads {threads}: {options.requests} requests,"
            f" {options.connections} connections",
            flush=True,
        )
        server = Server(threads)
        try:
            failed += soak(server, options)
            if not server.stop():
                failed.append(f"exit code {server.process.returncode}")
        finally:
            server.process.kill()
            server.process.wait()
        print(f"{time.monotonic() - began:.0f} s")
    print("\n".join(failed) if failed else "nothing is left behind")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
