"""The corpus, the ways in which bytes may reach a parser, and h11's view.

`corpus/README.md` tells the form of a case.
"""

import ctypes
import functools
import itertools
import mmap
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

import h11

from fasthttp._parser import EndOfMessage, RequestHead, RequestParser
from fasthttp.config import Config
from fasthttp.errors import PeerError

CORPUS = Path(__file__).parent / "corpus"
NEXT = b"GET /n HTTP/1.0\r\n\r\n"

ESCAPE = re.compile(r"\\(?:([rnt0\\])|x([0-9a-f]{2})|\{(.*?)\*(\d+)\})")
LETTERS = {"r": "\r", "n": "\n", "t": "\t", "0": "\0", "\\": "\\"}


@dataclass
class Message:
    """A request as far as it was seen; `trailers` is None until its end."""

    method: str
    target: str
    version: str
    keep_alive: bool
    path: str
    query: str
    authority: str
    headers: list
    body: bytes = b""
    trailers: list | None = None


@dataclass
class Outcome:
    """Messages, and the (status, detail, offset) of the error, if any."""

    messages: list = field(default_factory=list)
    error: tuple | None = None

    def add(self, event):
        if isinstance(event, RequestHead):
            message = Message(
                event.method,
                event.target,
                event.version,
                event.keep_alive,
                event.path,
                event.query,
                event.authority,
                event.headers,
            )
            self.messages.append(message)
            return
        message = self.messages[-1]
        assert message.trailers is None, "an event behind the message's end"
        if isinstance(event, EndOfMessage):
            message.trailers = event.trailers
        else:
            assert event, "an event of no bytes"
            message.body += event


@dataclass
class Case:
    name: str
    section: str
    limits: dict
    data: bytes
    expected: list[list[str]]

    def __str__(self):
        return self.name


@functools.lru_cache
def configured(**limits):
    """One Config for many parsers, as a server has it."""
    return Config(**limits)


def feed(pieces, **limits):
    """What a parser makes of bytes that arrive in these pieces.

    A piece is taken from the iterable when the one before it is parsed.
    """
    parser = RequestParser(configured(**limits))
    outcome = Outcome()
    try:
        for piece in itertools.chain(pieces, [b""]):
            for event in parser.receive_data(piece):
                outcome.add(event)
    except PeerError as error:
        outcome.error = (error.status, error.detail, error.offset)
        assert refuses_more(parser)
    return outcome


def refuses_more(parser):
    try:
        parser.receive_data(NEXT)
    except PeerError:
        return not parser.between_messages
    return False


def bytewise(data):
    return [data[at : at + 1] for at in range(len(data))]


def ways(data):
    """Whole, byte by byte, and in two pieces at every split point."""
    yield [data]
    yield bytewise(data)
    for at in range(1, len(data)):
        yield [data[:at], data[at:]]


def feed_every_way(data, **limits):
    """The outcome, after a check that it is the same for all ways."""
    whole = feed([data], **limits)
    for pieces in ways(data):
        assert feed(pieces, **limits) == whole, pieces
    return whole


class Island:
    """Memory between two pages that nobody may read."""

    ROOM = 16 * mmap.PAGESIZE
    PROT_NONE = 0

    def __init__(self):
        self.area = mmap.mmap(-1, self.ROOM + 2 * mmap.PAGESIZE)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self.area))
        protect = ctypes.CDLL(None).mprotect
        for start in (address, address + mmap.PAGESIZE + self.ROOM):
            page = ctypes.c_void_p(start), ctypes.c_size_t(mmap.PAGESIZE)
            assert protect(*page, self.PROT_NONE) == 0

    def at_start(self, data):
        """`data` right behind the first page, until the next call."""
        return self._put(mmap.PAGESIZE, data)

    def at_end(self, data):
        """`data` right in front of the last page, until the next call."""
        return self._put(mmap.PAGESIZE + self.ROOM - len(data), data)

    def _put(self, start, data):
        self.area[start : start + len(data)] = data
        return memoryview(self.area)[start : start + len(data)]


def as_h11_tells(message):
    """What `read_with_h11` has for the same request."""
    fields, trailers = (
        [(name.encode(), value.encode("latin-1")) for name, value in pairs]
        for pairs in (message.headers, message.trailers)
    )
    method, target = message.method.encode(), message.target.encode()
    return method, target, fields, message.body, trailers


def read_with_h11(data, *, skip_empty_lines=False):
    """Yield the complete requests in `data` as h11 reads them.

    Each one is read by a new connection, so that none is the last.
    Raises h11.RemoteProtocolError. RFC 9112 section 2.2 has servers skip
    empty lines in front of a request; h11 does not.
    """
    while data:
        if skip_empty_lines and data.startswith(b"\r\n"):
            data = data[2:]
            continue
        connection = h11.Connection(h11.SERVER, sys.maxsize)
        connection.receive_data(data)
        request = connection.next_event()
        body = b""
        while True:
            event = connection.next_event()
            if isinstance(event, h11.EndOfMessage):
                break
            if not isinstance(event, h11.Data):
                return
            body += event.data
        fields = list(request.headers), list(event.headers)
        yield request.method, request.target, fields[0], body, fields[1]
        data, _ = connection.trailing_data


def unescape(text):
    def replace(match):
        letter, code, repeated, times = match.groups()
        if letter:
            return LETTERS[letter]
        if code:
            return chr(int(code, 16))
        return unescape(repeated) * int(times)

    return ESCAPE.sub(replace, text)


def read_case(topic, text):
    title, _, rest = text.partition("\n")
    name, section = re.fullmatch(r"(.+) \(([\dC. ]+)\)", title).groups()
    source, expected = rest.rstrip("\n").split("\n---\n")
    lines = source.split("\n")
    limits = {}
    while lines[0].startswith("set "):
        option, _, value = lines.pop(0).removeprefix("set ").partition("=")
        limits[option] = int(value)
    return Case(
        f"{topic}: {name}",
        section,
        limits,
        unescape("".join(lines)).encode("latin-1"),
        [
            [unescape(line) for line in block.split("\n")]
            for block in expected.split("\n\n")
        ],
    )


def read_cases(kind):
    """The cases of all files of `kind`, "valid" or "invalid"."""
    return [
        read_case(path.stem, text)
        for path in sorted((CORPUS / kind).glob("*.http"))
        for text in path.read_text().split("\n=== ")[1:]
    ]
