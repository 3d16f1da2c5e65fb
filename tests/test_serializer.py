"""ResponseSerializer: what it writes, what it refuses."""

import collections
import email.utils
import itertools
import random
import sys
import time
from http import HTTPStatus

import pytest
from fakes import memory_kept

from fasthttp._serializer import ResponseSerializer
from fasthttp.errors import AppError

NO_BODY, LENGTH, CHUNKED, UNTIL_CLOSE = range(4)
FINAL = [status for status in HTTPStatus if status >= 200]
BODILESS = (204, 205, 304)
TCHAR = (
    "!#$%&'*+-.^_`|~0123456789"
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)
VALUE_CHARACTERS = "\t" + "".join(
    chr(code) for code in range(0x20, 0x100) if code != 0x7F
)


@pytest.fixture
def serializer():
    return ResponseSerializer("")


def lines_of(head):
    assert head.endswith(b"\r\n\r\n")
    status, *fields = head[:-4].decode("latin-1").split("\r\n")
    return status, fields


def head_of(serializer, status=200, headers=(), **about):
    """Status line and fields, without the Date that stands in each head."""
    line, fields = lines_of(serializer.head(status, headers, **about))
    dates = [field for field in fields if field.startswith("Date: ")]
    assert len(dates) == 1
    fields.remove(dates[0])
    return line, fields


def fields_of(serializer, status=200, headers=(), **about):
    return head_of(serializer, status, headers, **about)[1]


# The status (RFC 9112 section 4).


@pytest.mark.parametrize("status", FINAL)
def test_a_number_gets_its_phrase(serializer, status):
    expected = f"HTTP/1.1 {status.value} {status.phrase}"
    for form in (status, status.value, f"{status.value} {status.phrase}"):
        assert head_of(serializer, form)[0] == expected
        assert serializer.status == status


@pytest.mark.parametrize(
    ("status", "line"),
    [
        (299, "HTTP/1.1 299 "),
        (599, "HTTP/1.1 599 "),
        ("200 ", "HTTP/1.1 200 "),
        ("200 Fine\tthen", "HTTP/1.1 200 Fine\tthen"),
        ("404 Nicht gefunden \xe9", "HTTP/1.1 404 Nicht gefunden \xe9"),
        ("200  two spaces", "HTTP/1.1 200  two spaces"),
    ],
)
def test_other_statuses(serializer, status, line):
    assert head_of(serializer, status)[0] == line
    assert serializer.status == int(line[9:12])


@pytest.mark.parametrize(
    "status",
    [
        "",
        "200",
        "200OK",
        "200\tOK",
        "20 OK",
        "2000 OK",
        " 200 OK",
        "+20 OK",
        "-20 OK",
        "2x0 OK",
        "OK 200",
        "\u0662\u0660\u0660 OK",
        "200 OK\r\nSet-Cookie: a=b",
        "200 OK\r",
        "200 OK\n",
        "200 \0",
        "200 \x1b[31m",
        "200 \x7f",
        "200 \u20ac",
        # in memory, these begin as "200 " and "AA" do
        "\u3032\u2030\u4b4f\u4b4f",
        "099 Low",
        "000 Lower",
        "600 High",
        "999 Higher",
        99,
        600,
        1000,
        -200,
        0,
        True,
        None,
        200.0,
        b"200 OK",
        ("200 OK",),
    ],
)
def test_no_status(serializer, status):
    with pytest.raises(AppError):
        serializer.head(status, [])


@pytest.mark.parametrize(
    "status", [100, 101, 102, 103, "100 Continue", "199 Early"]
)
def test_an_interim_status_is_no_answer(serializer, status):
    with pytest.raises(AppError, match="final"):
        serializer.head(status, [])


# Names and values (RFC 9110 sections 5.1 and 5.5).


@pytest.mark.parametrize("code", range(256))
def test_every_character_of_a_name(serializer, code):
    for name in (f"X{chr(code)}Y", f"{chr(code)}X", f"X{chr(code)}"):
        if chr(code) in TCHAR:
            fields = fields_of(serializer, headers=[(name, "v")], length=0)
            assert fields[0] == f"{name}: v"
        else:
            with pytest.raises(AppError, match="name"):
                serializer.head(200, [(name, "v")])


@pytest.mark.parametrize("code", range(256))
def test_every_character_of_a_value(serializer, code):
    long = "v" * 20
    for value in (chr(code), f"v{chr(code)}v", long + chr(code) + long):
        if chr(code) in VALUE_CHARACTERS:
            fields = fields_of(serializer, headers=[("X", value)], length=0)
            assert fields[0] == f"X: {value}"
        else:
            with pytest.raises(AppError, match="X"):
                serializer.head(200, [("X", value)])


@pytest.mark.parametrize(
    "field",
    [
        ("", "v"),
        ("X", "a\r\nSet-Cookie: b"),
        ("X", "a\r\n\r\n<html>"),
        ("X", "a\n b"),
        ("X: a\r\nY", "b"),
        ("X:", "a"),
        ("X ", "a"),
        (" X", "a"),
        ("\u00dc", "a"),
        ("X\u0141", "a"),
        ("\u010a", "a"),
        ("\u4141", "a"),
        ("X", "\u20ac"),
        ("X", "\u010a"),
        ("X", "\u4141"),
        ("X", "\U0001f600"),
        ("X", "\ud800"),
        (b"X", "a"),
        ("X", b"a"),
        ("X", 1),
        ("X", None),
        (None, "a"),
        (1, 2),
        ("X",),
        ("X", "a", "b"),
        (),
        ["X", "a"],
        "Xa",
        "X: a",
        None,
        5,
    ],
)
def test_no_field(serializer, field):
    for headers in ([field], [("A", "b"), field], iter([field])):
        with pytest.raises(AppError):
            serializer.head(200, headers)


@pytest.mark.parametrize("headers", [None, 5])
def test_no_fields(serializer, headers):
    with pytest.raises(TypeError):
        serializer.head(200, headers)


def test_fields_are_written_as_given_and_in_order(serializer):
    headers = [
        ("content-TYPE", "text/plain"),
        ("Set-Cookie", "a=1"),
        ("X", ""),
        ("Set-Cookie", "b=2"),
        ("Y", "  spaces \t"),
        ("Z", "caf\xe9"),
    ]
    expected = [f"{name}: {value}" for name, value in headers]
    for given in (headers, tuple(headers), iter(headers), dict(headers)):
        given = given.items() if isinstance(given, dict) else given
        fields = fields_of(serializer, headers=given, length=0)
        assert set(fields) <= {*expected, "Content-Length: 0"}
    assert fields_of(serializer, headers=headers, length=0) == [
        *expected,
        "Content-Length: 0",
    ]


def test_an_exception_of_the_fields_iterator_passes(serializer):
    def headers():
        yield "X", "y"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        serializer.head(200, headers())


def test_nothing_of_a_refused_head_remains(serializer):
    clean = head_of(serializer, 200, [("A", "b")], length=0)
    for status, headers in (
        ("bad", []),
        (200, [("X", "y" * 5000), ("Bad name", "z")]),
        (200, [("Content-Length", "5"), ("Connection", "close"), None]),
        (200, [("Date", "x"), ("Server", "y"), ("X", "\n")]),
    ):
        with pytest.raises(AppError):
            serializer.head(status, headers)
        assert head_of(serializer, 200, [("A", "b")], length=0) == clean
        assert serializer.keep_alive


def test_a_name_is_checked_by_what_it_says_not_by_who_it_is(serializer):
    for number in range(2000):
        name = f"X-{number}"
        assert fields_of(serializer, headers=[(name, "v")], length=0) == [
            f"{name}: v",
            "Content-Length: 0",
        ]
        with pytest.raises(AppError):
            serializer.head(200, [(f"X {number}", "v")])
    for name in ("DATE", "SERVER", "CONTENT-LENGTH", "CONNECTION") * 2:
        for _ in range(3):
            spelling = "".join(name.title())
            value = "7" if name == "CONTENT-LENGTH" else "close"
            fields = lines_of(serializer.head(200, [(spelling, value)]))[1]
            assert sum(field.startswith(spelling) for field in fields) == 1


def test_a_subclass_of_str_is_a_str(serializer):
    class Text(str):
        __slots__ = ()

    headers = [(Text("X"), Text("y")), (Text("Content-Length"), Text("3"))]
    assert fields_of(serializer, Text("200 OK"), headers) == [
        "X: y",
        "Content-Length: 3",
    ]


# Framing (RFC 9112 section 6).


@pytest.mark.parametrize(
    ("status", "method", "version", "length", "field"),
    list(
        itertools.product(
            (200, 206, 404, 500, *BODILESS),
            ("GET", "HEAD", "head"),
            ("1.0", "1.1"),
            (None, 0, 12345678901),
            (None, "0", "5"),
        )
    ),
)
def test_framing(serializer, status, method, version, length, field):
    fields = fields_of(
        serializer,
        status,
        [("Content-Length", field)] if field else [],
        method=method,
        version=version,
        length=length,
    )
    known = length if field is None else int(field)
    if status in BODILESS or method == "HEAD":
        framing = NO_BODY
    elif known is not None:
        framing = LENGTH
    else:
        framing = CHUNKED if version == "1.1" else UNTIL_CLOSE
    assert serializer.framing == framing

    # RFC 9110 sections 8.6 and 15.3.6
    if status == 205:
        told = 0
    elif status == 204:
        told = None
    elif status == 304:
        told = None if field is None else int(field)
    else:
        told = known
    lengths = [f for f in fields if f.startswith("Content-Length: ")]
    assert lengths == ([] if told is None else [f"Content-Length: {told}"])
    if framing == LENGTH:
        assert serializer.length == known
    elif framing != NO_BODY:
        assert serializer.length == -1

    codings = [f for f in fields if f.startswith("Transfer-Encoding")]
    chunked = ["Transfer-Encoding: chunked"]
    assert codings == (chunked if framing == CHUNKED else [])
    assert serializer.keep_alive is (framing != UNTIL_CLOSE)


@pytest.mark.parametrize(
    "value",
    [
        "",
        " 5",
        "5 ",
        "+5",
        "-5",
        "0x5",
        "5_0",
        "5.0",
        "5,5",
        "five",
        "\xb2",
        "9" * 19,
        "9" * 100,
    ],
)
def test_no_content_length(serializer, value):
    with pytest.raises(AppError, match="Content-Length"):
        serializer.head(200, [("Content-Length", value)])


def test_a_content_length_that_lies_about_its_digits(serializer):
    class Liar(str):
        __slots__ = ()

        def isascii(self):
            return True

        isdigit = isascii

        def __int__(self):
            return -5

    with pytest.raises(AppError):
        serializer.head(200, [("Content-Length", Liar("x"))])


@pytest.mark.parametrize("value", ["0", "7", "007", "9" * 18])
def test_content_length(serializer, value):
    headers = [("content-length", value), ("X", "y"), ("Content-Length", value)]
    assert fields_of(serializer, headers=headers) == [
        "X: y",
        f"Content-Length: {int(value)}",
    ]
    assert serializer.length == int(value)
    assert serializer.framing == LENGTH


def test_two_content_lengths(serializer):
    headers = [("Content-Length", "5"), ("Content-Length", "6")]
    with pytest.raises(AppError, match="Content-Length"):
        serializer.head(200, headers)


def test_the_application_knows_the_length_better(serializer):
    headers = [("Content-Length", "5")]
    assert fields_of(serializer, headers=headers, length=7) == [
        "Content-Length: 5"
    ]
    assert serializer.length == 5


@pytest.mark.parametrize("length", [2**63 - 1, 2**62, 10**18])
def test_large_lengths(serializer, length):
    assert fields_of(serializer, length=length) == [f"Content-Length: {length}"]


def test_a_length_beyond_63_bits(serializer):
    with pytest.raises(OverflowError):
        serializer.head(200, [], length=2**63)


# Persistence and hop-by-hop fields (RFC 9112 section 9, RFC 9110 7.6.1).


@pytest.mark.parametrize(
    ("version", "wanted", "option", "told", "keep_alive"),
    [
        ("1.1", True, None, [], True),
        ("1.1", False, None, ["Connection: close"], False),
        ("1.1", True, "close", ["Connection: close"], False),
        ("1.1", False, "close", ["Connection: close"], False),
        ("1.1", True, "Close", ["Connection: close"], False),
        ("1.1", True, "x, cLoSe ,y", ["Connection: close"], False),
        ("1.1", True, "keep-alive", [], True),
        ("1.1", False, "keep-alive", ["Connection: close"], False),
        ("1.1", True, "closed", [], True),
        ("1.1", True, "", [], True),
        ("1.0", True, None, ["Connection: keep-alive"], True),
        ("1.0", False, None, ["Connection: close"], False),
        ("1.0", True, "close", ["Connection: close"], False),
    ],
)
def test_connection(serializer, version, wanted, option, told, keep_alive):
    fields = fields_of(
        serializer,
        headers=[] if option is None else [("Connection", option)],
        version=version,
        keep_alive=wanted,
        length=0,
    )
    assert fields == ["Content-Length: 0", *told]
    assert serializer.keep_alive is keep_alive


def test_an_answer_that_ends_with_the_connection_says_so(serializer):
    fields = fields_of(serializer, version="1.0", keep_alive=True)
    assert fields == ["Connection: close"]
    assert serializer.framing == UNTIL_CLOSE
    assert not serializer.keep_alive


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize(
    "field",
    [
        ("Transfer-Encoding", "chunked"),
        ("transfer-encoding", "gzip"),
        ("TRANSFER-ENCODING", "identity"),
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Connection", "keep-alive"),
    ],
)
def test_hop_by_hop_fields_are_not_the_applications(serializer, version, field):
    fields = fields_of(serializer, headers=[field], version=version, length=3)
    own = ["Connection: keep-alive"] if version == "1.0" else []
    assert fields == ["Content-Length: 3", *own]
    assert serializer.framing == LENGTH


def test_an_offer_to_upgrade_keeps_its_option(serializer):
    headers = [("Upgrade", "h2c"), ("Connection", "Upgrade")]
    assert fields_of(serializer, 426, headers, length=0) == [
        "Upgrade: h2c",
        "Connection: upgrade",
        "Content-Length: 0",
    ]


# Date and Server (RFC 9110 sections 6.6.1 and 10.2.4).


def test_date(serializer):
    before = time.time()
    _, fields = lines_of(serializer.head(200, []))
    # time(2) may be a tick behind the clock that time.time() reads.
    moments = (before - 1, before, time.time())
    expected = [
        "Date: " + email.utils.formatdate(moment, usegmt=True)
        for moment in moments
    ]
    assert next(f for f in fields if f.startswith("Date")) in expected


def test_date_follows_the_clock(serializer):
    def date():
        (field,) = (
            field
            for field in lines_of(serializer.head(200, []))[1]
            if field.startswith("Date: ")
        )
        return email.utils.parsedate_to_datetime(field[6:]).timestamp()

    first = now = date()
    give_up = time.monotonic() + 10
    while now == first and time.monotonic() < give_up:
        now = date()
    assert now > first


def test_the_applications_date_stands_alone(serializer):
    date = "Thu, 01 Jan 1970 00:00:00 GMT"
    assert lines_of(serializer.head(200, [("date", date)], length=0))[1] == [
        f"date: {date}",
        "Content-Length: 0",
    ]


def test_server():
    assert "Server: fasthttp" in fields_of(ResponseSerializer())
    assert "Server: other/1 (x)" in fields_of(ResponseSerializer("other/1 (x)"))
    assert not any(
        field.startswith("Server")
        for field in fields_of(ResponseSerializer(""))
    )


def test_the_applications_server_stands_alone():
    fields = fields_of(ResponseSerializer(), headers=[("SERVER", "mine")])
    assert [f for f in fields if f.lower().startswith("server")] == [
        "SERVER: mine"
    ]


@pytest.mark.parametrize("server", ["a\r\nX: y", "a\n", "\0", "\xe9", "\u20ac"])
def test_no_server(server):
    with pytest.raises(ValueError, match="Server"):
        ResponseSerializer(server)


# Memory.


def test_heads_of_all_sizes(serializer):
    for size in (1, 1000, 1015, 1024, 2048, 4096, 100_000, 10):
        value = "v" * size
        assert fields_of(serializer, headers=[("X", value)], length=0) == [
            f"X: {value}",
            "Content-Length: 0",
        ]


@pytest.mark.parametrize("size", [1, 84, 85, 90, 200])
def test_a_field_that_comes_again(serializer, size):
    """What is kept of it is right for these very objects only."""
    name = "".join(["X-Kept", ""])
    one, other = ("a" * size, "b" * (size // 2))
    for value in (one, one, other, one, other, other, f"{other}c", one):
        expected = [f"{name}: {value}", "Content-Length: 0"]
        assert fields_of(serializer, headers=[(name, value)], length=0) == (
            expected
        )
        for bad in (f"{value}\n", f"{value}\u0100", None):
            with pytest.raises(AppError):
                serializer.head(200, [(name, bad)])


def test_a_kept_field_still_acts(serializer):
    headers = [("Date", "now"), ("Server", "us"), ("Content-Length", "7")]
    for _ in range(3):
        head = serializer.head(200, headers, length=5)
        assert serializer.length == 7
        assert lines_of(head)[1] == [
            "Date: now",
            "Server: us",
            "Content-Length: 7",
        ]
        assert fields_of(serializer, headers=[], length=5) == [
            "Content-Length: 5"
        ]


def test_a_field_is_not_kept_for_another_of_its_address(serializer):
    for number in range(1000):
        value = f"value {number}"
        fields = fields_of(serializer, headers=[("X", value)], length=0)
        assert fields[0] == f"X: {value}"


def test_names_that_come_in_any_order(serializer):
    """More than are kept, and with values that change."""
    chance = random.Random(5)
    names = [f"X-{number}" for number in range(150)]
    values = [f"value {number}" for number in range(3)]
    for _ in range(3000):
        headers = [
            (name, chance.choice(values)) for name in chance.sample(names, 8)
        ]
        assert fields_of(serializer, headers=headers, length=0) == [
            *map(": ".join, headers),
            "Content-Length: 0",
        ]


def test_two_names_of_one_place_are_both_kept(serializer):
    places = collections.defaultdict(list)
    for number in range(1000):
        name = f"X-{number}"
        places[id(name) // 16 % 64].append(name)
    pair = max(places.values(), key=len)[:2]
    before = [sys.getrefcount(name) for name in pair]
    serializer.head(200, [(name, "1") for name in pair])
    after = [sys.getrefcount(name) for name in pair]
    assert after == [count + 1 for count in before]


class Text(str):
    """What some use to keep a name's case from others that lower it."""

    def lower(self):
        return self


class Code(int):
    def __hash__(self):
        raise AssertionError("code that runs within a head")

    __eq__ = __index__ = __str__ = __hash__


def test_no_code_of_a_subclass_decides(serializer):
    kept = [(Text("X-Own"), Text("1")), (Text("Content-Length"), Text("7"))]
    hop = [(Text("Transfer-Encoding"), "chunked"), ("Connection", Text("TE"))]
    fields = fields_of(serializer, Code(200), kept + hop, length=5)
    assert fields == ["X-Own: 1", "Content-Length: 7"]
    with pytest.raises(AppError):
        serializer.head(200, [(Text("Content-Length"), "junk")])
    status = Text("299 Own")
    assert head_of(serializer, status)[0] == "HTTP/1.1 299 Own"
    with pytest.raises(AppError):
        serializer.head(Code(1 << 70), [])


def test_a_head_holds_no_status_of_a_class_of_ones_own(serializer):
    status = Text("299 Own")
    serializer.head(status, [])
    before = sys.getrefcount(status)
    serializer.head("200 OK", [])
    assert sys.getrefcount(status) == before


def test_fields_that_write_another_head_meanwhile(serializer):
    def fields():
        yield "X-First", "1"
        serializer.head(404, [("X-Other", "1")], length=7)
        yield "X-Last", "1"

    line, written = head_of(serializer, 200, fields(), length=5)
    assert line == "HTTP/1.1 200 OK"
    assert written == ["X-First: 1", "X-Last: 1", "Content-Length: 5"]
    assert (serializer.status, serializer.length) == (200, 5)


def test_no_memory_is_left_behind():
    def round_trip():
        serializer = ResponseSerializer()
        for number in range(300):
            serializer.head(200, [(f"X-{number}", f"{number}")], length=number)
            with pytest.raises(AppError):
                serializer.head(200, [("X", "y"), (f"X {number}", "\n")])

    assert memory_kept(round_trip) < 2000
