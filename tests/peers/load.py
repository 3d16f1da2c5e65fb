"""Many checked requests over connections that are kept."""

import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from tests.apps.bodies import BLOCK
from tests.apps.wire import Connection

CLIENTS = 8


class Kind(NamedTuple):
    """A request, and what has to come back; no body: the client's port."""

    head: str
    sent: bytes = b""
    status: int = 200
    body: bytes | None = b""

    @property
    def method(self):
        return self.head.partition(" ")[0]

    @property
    def wire(self):
        first, *fields = self.head.splitlines()
        lines = [f"{first} HTTP/1.1", "Host: test", *fields, "", ""]
        return "\r\n".join(lines).encode() + self.sent


PORT = Kind("GET /port", body=None)
CHUNKED = b"1000\r\n%b\r\n3\r\nend\r\n0\r\n\r\n" % BLOCK[:4096]
KINDS = [
    PORT,
    Kind("GET /", body=b"Hello, World!\n"),
    Kind("POST /echo\nContent-Length: 4", b"body", body=b"body"),
    Kind("HEAD /sized?3"),
    Kind("GET /blocks?1", body=BLOCK),
    Kind("GET /status?304", status=304),
    Kind(
        "PUT /echo\nTransfer-Encoding: chunked",
        CHUNKED,
        body=BLOCK[:4096] + b"end",
    ),
    Kind("GET /status?404", status=404, body=b"404"),
    Kind("GET /sized?1", body=BLOCK),
    Kind("DELETE /status?204", status=204),
    Kind("POST /status?403\nContent-Length: 3", b"abc", 403, b"403"),
]


class Played(NamedTuple):
    """The answers that were wrong, and the ports the server saw."""

    wrong: list[str]
    ports: set[bytes]


def _client(address, kinds, pause):
    wrong, ports, connection = [], set(), None
    try:
        for kind in kinds:
            pause()
            connection = connection or Connection(address)
            connection.send(kind.wire)
            response = connection.response(kind.method)
            if kind is PORT and response.status == 200:
                ports.add(response.body)
            elif (response.status, response.body) != (kind.status, kind.body):
                body = response.body[:80]
                wrong.append(f"{kind.head!r}: {response.status} {body!r}")
            if response.headers["Connection"] == "close":
                connection.close()
                connection = None
    finally:
        if connection:
            connection.close()
    return Played(wrong, ports)


def _together(address, shares, pause):
    with ThreadPoolExecutor(len(shares)) as pool:
        runs = [pool.submit(_client, address, each, pause) for each in shares]
    played = [run.result() for run in runs]
    return Played(
        list(itertools.chain(*(each.wrong for each in played))),
        set().union(*(each.ports for each in played)),
    )


def play(address, count, kinds=KINDS):
    """Send `count` requests of all `kinds` by CLIENTS clients at a time."""
    shares = [
        itertools.islice(itertools.cycle(kinds), first, count, CLIENTS)
        for first in range(CLIENTS)
    ]
    return _together(address, shares, lambda: None)


def play_with_gaps(address, gaps, kinds):
    """Send by all clients at once, then be silent, for each of `gaps`.

    `gaps` are seconds. Silence is what ends idle connections, so here
    nothing but time can be waited for.
    """
    remaining = iter(gaps)
    barrier = threading.Barrier(
        CLIENTS, action=lambda: time.sleep(next(remaining))
    )
    requests = list(itertools.islice(itertools.cycle(kinds), len(gaps)))
    return _together(address, [requests] * CLIENTS, barrier.wait)
