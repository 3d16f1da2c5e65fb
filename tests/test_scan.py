"""The scans of _scan.h: vector and scalar forms, known names, page ends."""

import errno
import mmap
import os
import platform

import pytest
from feeding import Island, configured, feed, read_cases

from fasthttp._fields import KNOWN_NAMES
from fasthttp._parser import (
    VECTORS,
    RequestParser,
    scans_agree,
)

START = b"GET / HTTP/1.1\r\n"
HOST = b"Host: a\r\n"
VECTOR_SIZE = 32
NAME_ROOM = 32

# A value that shows that the parser has acted on the name.
TELL_TALES = {
    "host": (b"a b", 400),
    "content-length": (b"x", 400),
    "transfer-encoding": (b"x", 501),
    "expect": (b"x", 417),
}
OTHER_NAMES = [name for name in KNOWN_NAMES if name not in TELL_TALES]


def test_vector_forms():
    of_machines = {"x86_64": "sse2", "aarch64": "neon"}
    here = of_machines.get(platform.machine(), "scalar")
    assert here in VECTORS
    assert VECTORS[-1] == "scalar"
    assert len(VECTORS) == len(set(VECTORS)) <= 3


@pytest.mark.parametrize("filler", [b"a", b"\xff", b"\t", b" ", b":"])
def test_every_byte_at_every_place_of_three_vectors(filler):
    for size in range(3 * VECTOR_SIZE + 2):
        assert scans_agree(filler * size)
    for byte in range(256):
        for before in range(2 * VECTOR_SIZE + 1):
            behind = 2 * VECTOR_SIZE - before
            data = filler * before + bytes([byte]) + filler * behind
            assert scans_agree(data), data


@pytest.mark.parametrize("size", [0, 7, 30, 31, 32, 33, 70])
def test_all_forms_read_the_same_lines(size):
    lines = (
        b"Host:%b\r\nX: \xe9\t%b \r\nUpgrade-Insecure-Requests:\r\n\r\nGET"
        % (b"a" * size, b"b" * size)
    )
    assert scans_agree(lines)
    for at in range(len(lines)):
        for byte in b"\0\t\r\n :A\x7f\xff":
            assert scans_agree(lines[:at] + bytes([byte]) + lines[at + 1 :])


def test_two_stops_in_one_vector():
    for first in range(VECTOR_SIZE):
        for second in range(VECTOR_SIZE):
            data = bytearray(b"a" * 2 * VECTOR_SIZE)
            data[first], data[second] = 0x00, 0x7F
            assert scans_agree(bytes(data))


def cases_of(name):
    yield name
    yield name.upper()
    yield name.title()
    yield name.swapcase().title().swapcase()
    yield "".join(
        letter.upper() if at % 2 else letter for at, letter in enumerate(name)
    )


def test_known_names():
    assert len(set(KNOWN_NAMES)) == len(KNOWN_NAMES) < 128
    for name in KNOWN_NAMES:
        assert len(name) <= NAME_ROOM
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyz-")
    assert KNOWN_NAMES[-3:] == (
        "authorization",
        "cookie",
        "proxy-authorization",
    )
    assert KNOWN_NAMES[:8] == (
        "host",
        "content-length",
        "transfer-encoding",
        "connection",
        "expect",
        "content-type",
        "user-agent",
        "referer",
    )


def last_name(*pieces):
    parser = RequestParser(configured())
    events = [event for piece in pieces for event in parser.receive_data(piece)]
    return events[0].headers[-1][0]


@pytest.mark.parametrize("name", OTHER_NAMES)
def test_a_known_name_in_any_case_wherever_the_bytes_end(name):
    for spelling in cases_of(name):
        line = spelling.encode() + b":"
        for room in range(NAME_ROOM + 2):
            found = last_name(START + HOST + line + b"v" * room, b"\r\n\r\n")
            assert found is name


@pytest.mark.parametrize("name", TELL_TALES)
def test_a_name_that_is_acted_on_in_any_case_wherever_the_bytes_end(name):
    value, status = TELL_TALES[name]
    start = START if name == "host" else START + HOST
    for spelling in cases_of(name):
        line = start + spelling.encode() + b":"
        for room in range(NAME_ROOM + 2):
            padding = b" " * room
            outcome = feed([line + padding, value + b"\r\n\r\n"])
            assert outcome.error[0] == status
            assert outcome == feed([line, padding + value + b"\r\n\r\n"])


@pytest.mark.parametrize("name", KNOWN_NAMES)
def test_a_name_that_is_nearly_known_is_another(name):
    near = {name[:-1], name + "x", "x" + name, name + "-", name[1:]}
    for at, letter in enumerate(name):
        flipped = chr(ord(letter) ^ 0x40)
        near |= {
            name[:at] + other + name[at + 1 :]
            for other in ("_", "x", "0", "^", flipped)
            if other.isascii() and other.isprintable() and other != " "
        }
    tchar = set("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz")
    for other in near - set(KNOWN_NAMES) - {""}:
        if not set(other.lower()) <= tchar:
            continue
        for tail in (b"\r\n\r\n", b"v" * NAME_ROOM + b"\r\n\r\n"):
            data = START + HOST + other.encode() + b":" + tail
            assert last_name(data) == other.lower()


@pytest.fixture(scope="module")
def island():
    return Island()


def test_the_pages_are_unreadable(island):
    area = memoryview(island.area)
    reader, writer = os.pipe()
    try:
        for page in (area[: mmap.PAGESIZE], area[-mmap.PAGESIZE :]):
            with pytest.raises(OSError, match=os.strerror(errno.EFAULT)):
                os.write(writer, page)
        assert os.write(writer, area[mmap.PAGESIZE : mmap.PAGESIZE + 1]) == 1
    finally:
        os.close(reader)
        os.close(writer)


@pytest.mark.parametrize("kind", ["valid", "invalid"])
def test_nothing_outside_the_input_is_read(kind, island):
    for case in read_cases(kind):
        whole = feed([case.data], **case.limits)
        for place in (island.at_start, island.at_end):
            assert feed([place(case.data)], **case.limits) == whole
            for size in range(1, len(case.data)):
                feed([place(case.data[:size])], **case.limits)
