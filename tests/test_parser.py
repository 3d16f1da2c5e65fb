"""RequestParser: every byte at every place, its limits, its interface."""

import array
import gc
import sys
import time
import tracemalloc
import types

import pytest
from fakes import memory_kept
from feeding import NEXT, bytewise, feed, feed_every_way, read_cases

from fasthttp._fields import FieldMemo
from fasthttp._parser import (
    EndOfMessage,
    RequestHead,
    RequestParser,
)
from fasthttp.config import Config
from fasthttp.errors import PeerError

DIGITS = b"0123456789"
HEX = DIGITS + b"abcdefABCDEF"
LETTERS = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
TCHAR = b"!#$%&'*+-.^_`|~" + DIGITS + LETTERS
VCHAR = bytes(range(0x21, 0x7F))
OBS_TEXT = bytes(range(0x80, 0x100))
TEXT = b"\t " + VCHAR + OBS_TEXT
REG_NAME = LETTERS + DIGITS + b"-._~" + b"!$&'()*+,;="

LINE = b"GET / HTTP/1.1\r\n"
HOST = b"Host: a\r\n"
END = b"\r\n\r\n"
GOOD = LINE + HOST + b"\r\n"
SIZED = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: "
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
LONG = b"x" * 37

# What stands in front of a byte, what behind it, and which it may be.
PLACES = {
    "method": (b"G", b"T / HTTP/1.1\r\n" + HOST, TCHAR),
    "method's start": (b"", b"T / HTTP/1.1\r\n" + HOST, TCHAR),
    "behind the method": (b"GET", b"/ HTTP/1.1\r\n" + HOST, b" "),
    "target": (b"GET /a", b"b HTTP/1.1\r\n" + HOST, VCHAR),
    "long target": (b"GET /" + LONG, LONG + b" HTTP/1.1\r\n", VCHAR),
    "target's start": (b"GET ", b" HTTP/1.1\r\n" + HOST, b"/"),
    "behind the target": (b"GET /", b"HTTP/1.1\r\n" + HOST, b" "),
    "protocol": (b"GET / H", b"TP/1.1\r\n" + HOST, b"T"),
    "behind the protocol": (b"GET / HTTP", b"1.1\r\n" + HOST, b"/"),
    "major": (b"GET / HTTP/", b".1\r\n" + HOST, b"1"),
    "dot": (b"GET / HTTP/1", b"1\r\n" + HOST, b"."),
    "minor": (b"GET / HTTP/1.", b"\r\n" + HOST, DIGITS),
    "behind the version": (b"GET / HTTP/1.1", b"\r\n" + HOST, b""),
    "CR of the request line": (b"GET / HTTP/1.1", b"\n" + HOST, b"\r"),
    "LF of the request line": (b"GET / HTTP/1.1\r", HOST, b"\n"),
    "name": (LINE + b"X", b"Y: z\r\n", TCHAR + b":"),
    "long name": (LINE + LONG, LONG + b": z\r\n", TCHAR + b":"),
    "name's start": (LINE, b"Y: z\r\n", TCHAR),
    "behind the name": (LINE + b"X", b"\r\n", b":"),
    "value": (LINE + b"X: y", b"z\r\n", TEXT),
    "long value": (LINE + b"X:" + LONG, LONG + b"\r\n", TEXT),
    "value's start": (LINE + b"X:", b"z\r\n", TEXT),
    "value's end": (LINE + b"X: y", b"\r\n", TEXT),
    "CR of a field": (LINE + b"X: y", b"\n", b"\r"),
    "LF of a field": (LINE + b"X: y\r", b"", b"\n"),
    "LF of the head": (GOOD[:-1], b"", b"\n"),
    "Host": (LINE + b"Host: a", b"b" + END, REG_NAME),
    "Host's start": (LINE + b"Host:", b"b" + END, REG_NAME + b"\t "),
    "behind a port": (LINE + b"Host: a:1", END, DIGITS + b"\t "),
    "IPv6": (LINE + b"Host: [::", b"1]" + END, HEX),
    "behind IPv6": (LINE + b"Host: [::1]", END, b":\t "),
    "percent": (LINE + b"Host: %", b"0" + END, HEX),
    "authority": (b"GET http://a", b"b/ HTTP/1.1\r\n", REG_NAME + b"/?"),
    "tunnel": (b"CONNECT a", b"b:1 HTTP/1.1\r\n", REG_NAME),
    "tunnel's port": (b"CONNECT a:1", b"1 HTTP/1.1\r\n", DIGITS),
    "Content-Length": (SIZED + b"1", b"1" + END, DIGITS),
    "Content-Length's end": (SIZED + b"1", END, DIGITS + b"\t "),
    "coding": (CHUNKED[:-7], b"ed" + END, b"kK"),
    "coding's end": (CHUNKED[:-4], END, b"\t "),
    "chunk size": (CHUNKED + b"1", b"1\r\n", HEX + b";"),
    "chunk size's start": (CHUNKED, b"\r\n", HEX),
    "CR behind a size": (CHUNKED + b"1", b"\n", b"\r"),
    "LF behind a size": (CHUNKED + b"1\r", b"x", b"\n"),
    "extension": (CHUNKED + b"1;a", b"b\r\n", TCHAR + b"=;"),
    "extension's start": (CHUNKED + b"1;", b"a\r\n", TCHAR),
    "extension's value": (CHUNKED + b"1;a=", b"\r\n", TCHAR),
    "extension's token": (CHUNKED + b"1;a=b", b"c\r\n", TCHAR + b";"),
    "quoted text": (
        CHUNKED + b'1;a="b',
        b'c"\r\n',
        TEXT.replace(b'"', b""),
    ),
    "quoted pair": (CHUNKED + b'1;a="\\', b'"\r\n', TEXT),
    "behind quotes": (CHUNKED + b'1;a="b"', b"c\r\n", b";"),
    "chunk": (CHUNKED + b"1\r\n", b"\r\n", bytes(range(256))),
    "CR of a chunk": (CHUNKED + b"1\r\nx", b"\n", b"\r"),
    "LF of a chunk": (CHUNKED + b"1\r\nx\r", b"0", b"\n"),
    "trailer's name": (CHUNKED + b"0\r\nX", b"Y: z\r\n", TCHAR + b":"),
    "trailer's value": (CHUNKED + b"0\r\nX: y", b"z\r\n", TEXT),
    "body": (SIZED + b"1" + END, b"", bytes(range(256))),
}
# Where a byte is good for its place, but not for what it is a part of.
NOT_THERE = {
    "target": b"#",
    "long target": b"#",
    "Host": b"%",
    "authority": b"%#",
    "tunnel": b"%#",
}


@pytest.mark.parametrize("place", PLACES)
def test_every_byte(place):
    before, behind, allowed = PLACES[place]
    taken = bytearray()
    for byte in range(256):
        data = before + bytes([byte]) + behind
        outcome = feed([data])
        assert outcome == feed(bytewise(data))
        if outcome.error is None:
            taken.append(byte)
    assert taken == bytes(sorted(set(allowed) - set(NOT_THERE.get(place, b""))))


def test_values_keep_every_byte_as_latin_1():
    value = VCHAR + b" \t" + OBS_TEXT
    (head, _) = RequestParser().receive_data(LINE + HOST + b"X: " + value + END)
    assert head.header("x") == value.decode("latin-1")


def test_a_path_is_decoded_as_utf_8_and_never_fails():
    (head, _) = RequestParser().receive_data(
        b"GET /%C3%A9%E9%00 HTTP/1.1\r\n" + HOST + b"\r\n"
    )
    assert head.path == "/é\udce9\0"
    assert head.target == "/%C3%A9%E9%00"


# Limits: a request with `size` of what is limited, and the limit's default.


def with_line(size):
    return b"GET /" + b"a" * (size - 14) + b" HTTP/1.1\r\n" + HOST + b"\r\n"


def with_fields(count):
    return LINE + HOST + b"X: y\r\n" * (count - 1) + b"\r\n"


def with_field(size):
    return LINE + HOST + b"X:" + b"y" * (size - 2) + END


def with_head(size):
    lines, rest = divmod(size - len(GOOD), 9000)
    return (
        GOOD[:-2]
        + (b"X:" + b"y" * 8996 + b"\r\n") * (lines - 1)
        + (b"X:" + b"y" * 8000 + b"\r\n")
        + (b"X:" + b"y" * (rest + 9000 - 8004 - 4) + b"\r\n")
        + b"\r\n"
    )


def with_small_head(size):
    return GOOD[:-2] + b"X:" + b"y" * (size - len(GOOD) - 4) + END


def with_body(size):
    return SIZED + b"%d" % size + END


def with_chunk(size):
    return CHUNKED + b"%x\r\n" % size


def with_chunk_extensions(size):
    half = size // 2
    extension = b";" + b"a" * (half - 1)
    rest = b';a="' + b"b" * (size - half - 5) + b'"'
    return CHUNKED + b"1" + extension + b"\r\nx\r\n0" + rest + b"\r\n\r\n"


LIMITS = (
    ("limit_request_line", 414, with_line),
    ("limit_request_fields", 431, with_fields),
    ("limit_request_field_size", 431, with_field),
    ("limit_request_head", 431, with_head),
    ("limit_request_body", 413, with_body),
    ("limit_request_body", 413, with_chunk),
    ("limit_chunk_extensions", 413, with_chunk_extensions),
)


def around(data, at):
    """Whole, and cut in two within some bytes of `at` and of the end."""
    yield [data]
    for place in (at, len(data)):
        for cut in range(place - 20, place + 21):
            yield [data[: max(cut, 0)], data[max(cut, 0) :]]


@pytest.mark.parametrize(("name", "status", "build"), LIMITS)
def test_default_limit_at_its_bound(name, status, build):
    limit = getattr(Config(), name)
    for pieces in around(build(limit), limit):
        assert feed(pieces).error is None


@pytest.mark.parametrize(("name", "status", "build"), LIMITS)
def test_default_limit_beyond_its_bound(name, status, build):
    limit = getattr(Config(), name)
    beyond = feed([build(limit + 1)]).error
    assert beyond[0] == status
    assert f"{name} ({limit})" in beyond[1]
    for pieces in around(build(limit + 1), limit):
        assert feed(pieces).error == beyond


@pytest.mark.parametrize(("name", "status", "build"), LIMITS)
@pytest.mark.parametrize("limit", [40, 41, 55, 64])
def test_other_limits(name, status, build, limit):
    if build is with_head:
        build = with_small_head
    assert feed_every_way(build(limit), **{name: limit}).error is None
    error = feed_every_way(build(limit + 1), **{name: limit}).error
    assert error[0] == status
    assert f"{name} ({limit})" in error[1]


def test_limits_are_those_of_a_config():
    unproved = types.SimpleNamespace(**vars(Config()))
    unproved.limit_request_head = 1 << 40
    with pytest.raises(TypeError, match="not a Config"):
        RequestParser(unproved)


def test_an_input_without_end_is_refused_at_the_limit():
    endless = (
        (b"A" * 1000, 414),
        (b"GET /" + b"a" * 1000, 414),
        (LINE + b"X" * 1000, 431),
        (LINE + b"X:" + b" " * 1000, 431),
        (LINE + b"X:" + b"y" * 1000, 431),
        (LINE + b"X: y\r\n" * 1000, 431),
        (CHUNKED + b"0\r\n" + b"X: y\r\n" * 1000, 431),
        (CHUNKED + b"1;" + b"a" * 1000, 413),
        (CHUNKED + b'1;a="' + b'\\"' * 1000, 413),
        (CHUNKED + b"0" * 1000, 400),
        (b"\r\n" * 1000, 400),
    )
    limits = {
        "limit_request_line": 100,
        "limit_request_field_size": 100,
        "limit_request_head": 300,
        "limit_chunk_extensions": 100,
    }
    for data, status in endless:
        error = feed([data], **limits).error
        assert error == feed(bytewise(data), **limits).error
        assert error[0] == status
        assert error[2] < 400


@pytest.mark.parametrize(
    ("data", "offset"),
    [
        (b"G(T / HTTP/1.1\r\n", 1),
        (b"\r\n\r\nG(T / HTTP/1.1\r\n", 1),
        (b"GET /\x00 HTTP/1.1\r\n", 5),
        (GOOD + b"G(T", 1),
        (LINE + b"X(: y\r\n", len(LINE) + 1),
        (LINE + b"X: y\x00", len(LINE) + 4),
        (LINE + b"X: y\rz", len(LINE) + 4),
        (CHUNKED + b"1z", len(CHUNKED) + 1),
        (CHUNKED + b"2\r\nhiXY", len(CHUNKED) + 5),
        (CHUNKED + b"2\r\nhi\r\n1;\x00", len(CHUNKED) + 9),
        (CHUNKED + b"0\r\nX(: y\r\n", len(CHUNKED) + 4),
    ],
)
def test_the_offset_is_the_byte_at_fault_within_its_message(data, offset):
    assert feed_every_way(data).error[2] == offset


# The interface.


def test_events():
    parser = RequestParser()
    assert parser.between_messages
    head, end = parser.receive_data(GOOD)
    assert isinstance(head, RequestHead)
    assert end == EndOfMessage([])
    assert parser.between_messages


def test_bytes_are_given_as_they_arrive():
    parser = RequestParser()
    head = SIZED + b"3" + END
    assert parser.receive_data(head[:-1]) == []
    assert not parser.between_messages
    assert len(parser.receive_data(head[-1:])) == 1
    assert parser.receive_data(b"a") == [b"a"]
    assert not parser.between_messages
    assert parser.receive_data(b"") == []
    assert parser.receive_data(b"bc") == [b"bc", EndOfMessage([])]
    assert parser.between_messages


def test_chunks_are_given_as_they_arrive():
    parser = RequestParser()
    assert len(parser.receive_data(CHUNKED)) == 1
    assert parser.receive_data(b"5") == []
    assert parser.receive_data(b"\r\nab") == [b"ab"]
    assert parser.receive_data(b"c") == [b"c"]
    assert parser.receive_data(b"de\r\n1\r\nf") == [b"de", b"f"]
    assert parser.receive_data(b"\r\n0\r\nX: y\r\n\r") == []
    assert parser.receive_data(b"\n") == [EndOfMessage([("x", "y")])]


@pytest.mark.parametrize("case", read_cases("valid"), ids=str)
def test_the_end_is_told_at_the_last_byte(case):
    parser = RequestParser(Config(**case.limits))
    before = parser.receive_data(case.data[:-1])
    ends = sum(isinstance(event, EndOfMessage) for event in before)
    assert ends == len(case.expected) - 1
    assert not parser.between_messages
    assert isinstance(parser.receive_data(case.data[-1:])[-1], EndOfMessage)
    assert parser.between_messages


def test_events_before_an_error_are_given_first():
    parser = RequestParser()
    head, end = parser.receive_data(GOOD + b"BAD\r\n")
    assert head.method == "GET"
    assert end == EndOfMessage([])
    for data in (b"", GOOD, b"\x00"):
        with pytest.raises(PeerError) as caught:
            parser.receive_data(data)
        assert caught.value.status == 400
        assert str(caught.value) == "the method is not a token"
    assert not parser.between_messages


def test_empty_lines_leave_a_parser_between_messages():
    parser = RequestParser()
    assert parser.receive_data(b"\r\n") == []
    assert parser.between_messages
    assert parser.receive_data(b"\r") == []
    assert not parser.between_messages


@pytest.mark.parametrize(
    "kind", [bytes, bytearray, memoryview, lambda data: array.array("b", data)]
)
def test_any_buffer_will_do(kind):
    data = SIZED + b"2" + END + b"hi" + CHUNKED + b"1\r\nx\r\n0\r\nA: b\r\n\r\n"
    assert feed([kind(data)]) == feed([data])
    assert feed([kind(piece) for piece in bytewise(data)]) == feed([data])


def test_part_of_a_buffer_is_that_part():
    data = memoryview(b"junk" + GOOD + b"junk")[4:-4]
    assert feed([data]) == feed([GOOD])


@pytest.mark.parametrize("data", [None, "GET", 3, [GOOD], object()])
def test_no_buffer(data):
    with pytest.raises(TypeError):
        RequestParser().receive_data(data)


def test_a_buffer_with_gaps():
    with pytest.raises(BufferError):
        RequestParser().receive_data(memoryview(GOOD)[::2])


@pytest.mark.parametrize("data", [GOOD, GOOD[:-1], GOOD + b"\x00"])
def test_a_buffer_is_neither_held_nor_needed_afterwards(data):
    buffer = bytearray(data)
    parser = RequestParser()
    events = parser.receive_data(buffer)
    buffer[:] = b"\xff" * len(buffer)
    buffer.clear()
    if not events:
        events = parser.receive_data(b"\n")
    assert events[0].headers == [("host", "a")]
    assert events[0].method == "GET"


def test_a_refused_buffer_is_not_held():
    buffer = bytearray(b"BAD\r\n")
    with pytest.raises(PeerError):
        RequestParser().receive_data(buffer)
    buffer.clear()


def test_a_refused_parser_holds_nothing_of_who_was_told():
    parser = RequestParser()
    depths = []
    for _ in range(3):
        with pytest.raises(PeerError) as refusal:
            parser.receive_data(b"BAD\r\n")
        depths.append(len(refusal.traceback))
    assert depths[1] == depths[2]


def test_a_parser_called_from_within_itself():
    """A collection of garbage may start anywhere, and then a finalizer."""
    parser = RequestParser()
    refused = []

    def call(phase, info):
        try:
            parser.receive_data(b"GET /inner HTTP/1.1\r\nHost: b\r\n\r\n")
        except RuntimeError as error:
            refused.append(error)

    # 3.11 collects where objects are made, later ones between two lines.
    collections = gc.get_threshold()
    gc.callbacks.append(call)
    gc.set_threshold(1)
    try:
        events = parser.receive_data(GOOD * 50)
    finally:
        gc.set_threshold(*collections)
        gc.callbacks.remove(call)
    heads = [each for each in events if isinstance(each, RequestHead)]
    assert [head.target for head in heads] == ["/"] * 50
    assert refused or sys.version_info >= (3, 12)


def test_what_an_application_adds_to_a_list_of_headers_is_collected():
    """The list is untracked while it has empty places, not longer."""
    (head, _) = RequestParser().receive_data(LINE + HOST + END[2:])
    assert gc.is_tracked(head.headers)


def test_a_head_outlives_its_parser_and_the_next_head():
    parser = RequestParser()
    first, _ = parser.receive_data(
        b"GET /a?b HTTP/1.1\r\nHost: first\r\nX: 1\r\n\r\n"
    )
    second, _ = parser.receive_data(
        b"PUT /c?d HTTP/1.0\r\nHost: second\r\nY: 2\r\nZ: 3\r\n\r\n"
    )
    del parser
    gc.collect()
    assert (first.method, first.path, first.query) == ("GET", "/a", "b")
    assert first.headers == [("host", "first"), ("x", "1")]
    assert first.version == "1.1"
    assert (second.method, second.path, second.query) == ("PUT", "/c", "d")
    assert second.headers == [("host", "second"), ("y", "2"), ("z", "3")]
    assert second.version == "1.0"


def test_header():
    (head, _) = RequestParser().receive_data(
        LINE + HOST + b"X: 1\r\nAccept: a\r\nx: 2\r\naCCept: b\r\n"
        b"Cookie: a=1\r\nCookie: b=2, 3" + END
    )
    assert head.header("Cookie") == "a=1; b=2, 3"
    assert head.header("Host") == "a"
    assert head.header("X") == head.header("x") == "1, 2"
    assert head.header("ACCEPT") == "a, b"
    assert head.header("y") is None
    assert head.header("y", "z") == "z"
    assert head.headers is head.headers


def test_representations():
    head, end = RequestParser().receive_data(CHUNKED + b"0\r\nX: y\r\n\r\n")
    assert repr(head) == "<RequestHead POST />"
    assert repr(end) == "EndOfMessage([('x', 'y')])"
    assert end == EndOfMessage([("x", "y")])
    assert end != EndOfMessage([])
    assert end != [("x", "y")]


def test_a_head_made_by_hand_is_empty():
    head = RequestHead()
    assert head.method == head.target == head.path == head.query == ""
    assert head.authority == ""
    assert head.headers == []


def test_a_thousand_fields():
    count = 1000
    fields = b"".join(b"N%d: v%d\r\n" % (n, n) for n in range(count))
    data = LINE + fields + HOST + b"\r\n" + GOOD
    outcome = feed([data], limit_request_fields=count + 1)
    assert outcome == feed(bytewise(data), limit_request_fields=count + 1)
    assert outcome.messages[0].headers == [
        *((f"n{n}", f"v{n}") for n in range(count)),
        ("host", "a"),
    ]
    assert outcome.messages[1].headers == [("host", "a")]


def test_a_thousand_requests_at_once():
    data = (GOOD + CHUNKED + b"1\r\nx\r\n0\r\n\r\n") * 500
    outcome = feed([data])
    assert outcome.error is None
    assert len(outcome.messages) == 1000
    assert [message.body for message in outcome.messages] == [b"", b"x"] * 500
    assert outcome == feed(bytewise(data))


def test_a_body_of_a_megabyte():
    body = bytes(range(256)) * 4096
    pieces = [body[at : at + 1000] for at in range(0, len(body), 1000)]
    sized = feed([SIZED + b"%d" % len(body) + END, *pieces, NEXT])
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in pieces)
    chunked = feed([CHUNKED + chunks + b"0\r\n\r\n", NEXT])
    for outcome in (sized, chunked):
        assert outcome.error is None
        assert outcome.messages[0].body == body
        assert outcome.messages[1].target == "/n"


def seconds_for(data):
    config = Config(
        limit_request_head=1 << 24, limit_request_field_size=1 << 24
    )
    times = []
    for _ in range(3):
        parser = RequestParser(config)
        began = time.process_time()
        for piece in bytewise(data):
            parser.receive_data(piece)
        times.append(time.process_time() - began)
    return min(times)


@pytest.mark.parametrize(
    "start", [GOOD[:-2] + b"X: ", GOOD[:-2], CHUNKED + b"0\r\nX: "]
)
def test_the_cost_of_a_trickle_is_linear(start):
    small, large = (seconds_for(start + b"y" * n) for n in (20000, 160000))
    assert large < 8 * 3 * small


def test_no_memory_is_left_behind():
    cases = read_cases("valid") + read_cases("invalid")

    def round_trip():
        for case in cases:
            feed([case.data], **case.limits)
            feed([case.data[:-1]], **case.limits)
            feed(bytewise(case.data), **case.limits)

    assert memory_kept(round_trip) < 2000


def test_a_large_head_is_given_up():
    tracemalloc.start()
    try:
        parser = RequestParser()
        before, _ = tracemalloc.get_traced_memory()
        for piece in bytewise(with_head(65536) + GOOD):
            parser.receive_data(piece)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert parser.between_messages
    assert after - before < 4096


def fields(memo, **wanted):
    lines = "".join(
        f"{name.replace('_', '-')}: {value}\r\n"
        for name, value in wanted.items()
    )
    data = b"GET / HTTP/1.1\r\nHost: a\r\n" + lines.encode("latin-1")
    head = RequestParser(memo=memo).receive_data(data + b"\r\n")[0]
    return head.headers[1:]


@pytest.mark.parametrize("size", [0, 1, 3, 4, 7, 8, 15, 16, 17, 32, 33, 256])
def test_a_field_that_repeats_is_one_object(size):
    memo = FieldMemo()
    value = "".join(chr(33 + at % 90) for at in range(size))
    first, second, third = (fields(memo, Accept=value)[0] for _ in range(3))
    assert first == second == third == ("accept", value)
    assert second is third
    assert fields(memo, User_Agent=value) == [("user-agent", value)]


def test_values_that_differ_in_one_byte_are_not_mixed_up():
    memo = FieldMemo()
    for size in (1, 2, 5, 9, 20, 40, 70):
        for at in range(size):
            value = "a" * at + "b" + "a" * (size - at - 1)
            for _ in range(3):
                assert fields(memo, Accept=value) == [("accept", value)]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Cookie", "session=1"),
        ("Authorization", "Basic eA=="),
        ("Proxy_Authorization", "Basic eA=="),
        ("Accept", "x" * 257),
        ("Accept", "\xe9"),
        ("X_Own", "1"),
    ],
)
def test_what_is_not_kept(name, value):
    memo = FieldMemo()
    found = [fields(memo, **{name: value})[0] for _ in range(4)]
    assert len(set(found)) == 1
    assert len(set(map(id, found))) == 4


def test_more_values_than_the_memo_has_places_for():
    memo = FieldMemo()
    for turn in range(3):
        for at in range(2000):
            value = f"{at:04}" * (1 + at % 9)
            found = fields(memo, Accept=value, Referer=value)
            assert found == [("accept", value), ("referer", value)], turn
