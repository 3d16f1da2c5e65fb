"""What must hold for any bytes: of parser, scans and serializer.

FASTHTTP_HYPOTHESIS=long tries fifty times as many examples.
"""

import http.client
import io
import itertools
import os
from urllib.parse import unquote

import h11
import pytest
from feeding import (
    Island,
    as_h11_tells,
    bytewise,
    feed,
    read_cases,
    read_with_h11,
)
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fasthttp._parser import scans_agree
from fasthttp._serializer import ResponseSerializer
from fasthttp.errors import AppError

settings.register_profile(
    "quick",
    max_examples=100,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
settings.register_profile(
    "long", settings.get_profile("quick"), max_examples=5_000
)
settings.load_profile(os.environ.get("FASTHTTP_HYPOTHESIS", "quick"))

TCHAR = (
    "!#$%&'*+-.^_`|~0123456789"
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)
VCHAR = "".join(map(chr, range(0x21, 0x7F)))
OBS_TEXT = "".join(map(chr, range(0x80, 0x100)))
FRAMING = ("host", "content-length", "transfer-encoding")
SERVERS_OWN = (
    "connection",
    "content-length",
    "date",
    "keep-alive",
    "proxy-connection",
    "server",
    "transfer-encoding",
)

tokens = st.text(TCHAR, min_size=1, max_size=40)
values = st.text(VCHAR + OBS_TEXT + " \t", max_size=60)
names = tokens.filter(
    lambda name: name.lower() not in (*FRAMING, "connection", "expect")
)
paths = st.text(VCHAR.replace("#", ""), max_size=50).map("/".__add__)


def trimmed(pairs):
    return [(name.lower(), value.strip(" \t")) for name, value in pairs]


def lines(pairs):
    text = "".join(f"{name}:{value}\r\n" for name, value in pairs)
    return text.encode("latin-1") + b"\r\n"


def quoted(text):
    return '"%s"' % text.replace("\\", "\\\\").replace('"', '\\"')


pairs = st.lists(st.tuples(names, values), max_size=5)
bodies = st.binary(max_size=80)
extensions = st.builds(
    ";{}{}".format,
    tokens,
    st.just("")
    | tokens.map("={}".format)
    | st.text(VCHAR + OBS_TEXT + " \t", max_size=10)
    .map(quoted)
    .map("={}".format),
).map(lambda extension: extension.encode("latin-1"))
chunks = st.lists(
    st.tuples(
        st.binary(min_size=1, max_size=40), st.lists(extensions, max_size=2)
    ),
    max_size=4,
)
methods = tokens.filter(lambda method: method != "CONNECT")
kinds = st.sampled_from(["none", "sized", "chunked"])
minors = st.integers(0, 1)


@st.composite
def requests(draw):
    """Bytes of a request, and (method, target, fields, body, trailers)."""
    method, target = draw(methods), draw(paths)
    fields = [("Host", "a"), *draw(pairs)]
    data, body, trailers = b"", b"", []
    kind = draw(kinds)
    if kind == "sized":
        data = body = draw(bodies)
        fields.append(("Content-Length", f"{len(body)}"))
    elif kind == "chunked":
        fields.append(("Transfer-Encoding", "chunked"))
        for chunk, extras in draw(chunks):
            data += b"%x%b\r\n%b\r\n" % (len(chunk), b"".join(extras), chunk)
            body += chunk
        trailers = draw(pairs)
        data += b"0\r\n" + lines(trailers)
    minor = 1 if kind == "chunked" else draw(minors)
    line = f"{method} {target} HTTP/1.{minor}\r\n".encode()
    meant = (method, target, trimmed(fields), body, trimmed(trailers))
    return line + lines(fields) + data, meant


escapes = st.sampled_from(["%", "%4", "%41", "%c3%a9", "%E9", "%zz", "%%41"])


@given(st.lists(escapes | st.text(VCHAR.translate({35: "", 63: ""}))))
def test_a_path_is_decoded_as_urllib_does(parts):
    path = "/" + "".join(parts)
    (message,) = feed([f"GET {path} HTTP/1.0\r\n\r\n".encode()]).messages
    assert message.target == path
    assert message.path == unquote(path, errors="surrogateescape")


def cut(data, places):
    """`data` in pieces, cut at these places, of which some may coincide."""
    edges = [0, *sorted(place % (len(data) + 1) for place in places), None]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


places = st.lists(st.integers(min_value=0), max_size=12)


@given(st.lists(requests(), min_size=1, max_size=3), places)
def test_requests_are_read_as_meant_however_they_are_cut(made, places):
    data = b"".join(data for data, _ in made)
    outcome = feed(cut(data, places))
    assert outcome.error is None
    assert [
        (
            message.method,
            message.target,
            message.headers,
            message.body,
            message.trailers,
        )
        for message in outcome.messages
    ] == [meant for _, meant in made]
    assert outcome == feed([data])


@given(requests())
def test_h11_reads_them_the_same(made):
    data, _ = made
    outcome = feed([data])
    assert list(read_with_h11(data)) == [
        as_h11_tells(message) for message in outcome.messages
    ]


PARTS = [
    b"\r\n",
    b"\r",
    b"\n",
    b"\r\n\r\n",
    b" ",
    b"\t",
    b"\x00",
    b"\x0b",
    b"\x85",
    b"\xa0",
    b":",
    b",",
    b";",
    b"=",
    b'"',
    b"\\",
    b"0",
    b"1",
    b"+",
    b"-",
    b"_",
    b"0x",
    b"chunked",
    b"Content-Length: 5\r\n",
    b"Content-Length: 0\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: identity\r\n",
    b"Host: b\r\n",
    b"0\r\n\r\n",
    b"5\r\nhello\r\n",
    b"GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n",
    b" HTTP/1.1",
    b" HTTP/1.0",
]
SEEDS = [
    case.data
    for kind in ("valid", "invalid")
    for case in read_cases(kind)
    if not case.limits
]


accidents = st.tuples(
    st.integers(0, 600),
    st.sampled_from([0, 0, 1, 1, 2, 5, 20]),
    st.none() | st.sampled_from(PARTS) | st.binary(max_size=3),
)


def broken(seeds, accidents):
    """`seeds` in a row, with parts of them replaced or (None) repeated."""
    data = b"".join(seeds)
    for place, size, part in accidents:
        at = place % (len(data) + 1)
        cut = data[at : at + size]
        data = (
            data[:at] + (cut * 2 if part is None else part) + data[at:][size:]
        )
    return data


broken_requests = st.builds(
    broken,
    st.lists(st.sampled_from(SEEDS), min_size=1, max_size=2),
    st.lists(accidents, min_size=1, max_size=3),
)


small = st.integers(1, 100)
limits = st.fixed_dictionaries(
    {},
    optional={
        "limit_request_line": small,
        "limit_request_fields": st.integers(1, 5),
        "limit_request_field_size": small,
        "limit_request_head": small,
        "limit_request_body": st.integers(0, 20),
        "limit_chunk_extensions": st.integers(0, 20),
    },
)
island = Island()


@given(broken_requests, places, limits)
@settings(max_examples=3 * settings().max_examples)
def test_any_cut_gives_the_same_events(data, places, limits):
    outcome = feed([data], **limits)
    assert outcome == feed(bytewise(data), **limits)
    pieces = cut(data, places)
    assert outcome == feed(map(island.at_end, pieces), **limits)
    assert outcome == feed(map(island.at_start, pieces), **limits)


def excused(message):
    """Does h11 refuse, for a reason in test_corpus, what we accept?"""
    numbers = [
        value for name, value in message.headers if name == "content-length"
    ]
    return any(name in FRAMING for name, _ in message.trailers) or any(
        len(number) > 20 for number in numbers
    )


def in_lower_case(message):
    """`message` of h11 with its coding's name as h11 spells it."""
    method, target, fields, body, trailers = message
    fields = [
        (name, value.lower() if name == b"transfer-encoding" else value)
        for name, value in fields
    ]
    return method, target, fields, body, trailers


@given(broken_requests)
@settings(max_examples=5 * settings().max_examples)
@example(SEEDS[0])
def test_we_never_see_a_request_that_h11_does_not_see(data):
    outcome = feed([data])
    reader = read_with_h11(data, skip_empty_lines=True)
    for message in outcome.messages:
        if message.trailers is None:
            break
        if excused(message):
            return
        assert next(reader) == in_lower_case(as_h11_tells(message))
    if outcome.error is None:
        with pytest.raises((StopIteration, h11.RemoteProtocolError)):
            next(reader)


@given(
    st.binary(max_size=100)
    | st.text(TCHAR + ": \r\n\x7f\xe9").map(str.encode)
    | broken_requests
)
def test_scans_agree(data):
    assert scans_agree(data)


# The serializer, read by two clients.


class Sent:
    """A socket that has received `data` and then the end."""

    def __init__(self, data):
        self.data = data

    def makefile(self, mode):
        return io.BytesIO(self.data)


def read_with_http_client(data, method):
    response = http.client.HTTPResponse(Sent(data), method=method)
    response.begin()
    return (
        response.status,
        response.reason,
        response.getheaders(),
        response.read(),
    )


def read_response_with_h11(data, method):
    connection = h11.Connection(h11.CLIENT)
    connection.send(
        h11.Request(method=method, target="/", headers=[("Host", "a")])
    )
    connection.send(h11.EndOfMessage())
    connection.receive_data(data)
    connection.receive_data(b"")
    response = connection.next_event()
    body = b""
    while not isinstance(event := connection.next_event(), h11.EndOfMessage):
        body += event.data
    assert connection.trailing_data[0] == b""
    return response, body


NO_BODY, LENGTH, CHUNKED, UNTIL_CLOSE = range(4)

statuses = st.builds(
    "{} {}".format,
    st.integers(200, 599),
    st.text(VCHAR + OBS_TEXT + " ", max_size=20).map(str.strip),
)
response_fields = st.lists(
    st.tuples(
        tokens.filter(lambda name: name.lower() not in SERVERS_OWN), values
    ),
    max_size=6,
)


@given(
    statuses,
    response_fields,
    st.sampled_from(["GET", "HEAD", "POST"]),
    st.sampled_from(["1.0", "1.1"]),
    st.booleans(),
    st.lists(bodies, max_size=4),
    st.sampled_from(["field", "argument", "unknown"]),
)
def test_answers_are_read_as_meant(
    status, fields, method, version, keep_alive, parts, length
):
    size = sum(map(len, parts))
    out = ResponseSerializer()
    head = out.head(
        status,
        fields + [("Content-Length", f"{size}")] * (length == "field"),
        method=method,
        version=version,
        keep_alive=keep_alive,
        length=size if length == "argument" else None,
    )
    body = b""
    if out.framing == CHUNKED:
        chunks = [b"%x\r\n%b\r\n" % (len(part), part) for part in parts if part]
        sent = b"".join([*chunks, b"0\r\n\r\n"])
    elif out.framing in (LENGTH, UNTIL_CLOSE):
        sent = b"".join(parts)
    else:
        sent = b""
    if out.framing != NO_BODY:
        body = b"".join(parts)

    response, read = read_response_with_h11(head + sent, method)
    code, _, reason = status.partition(" ")
    assert read == body
    assert response.status_code == int(code)
    assert response.reason.decode("latin-1") == reason
    told = [
        (name.decode(), value.decode("latin-1"))
        for name, value in response.headers
    ]
    assert [pair for pair in told if pair[0] not in SERVERS_OWN] == trimmed(
        fields
    )
    assert (("connection", "close") in told) is not out.keep_alive
    assert out.keep_alive is (keep_alive and out.framing != UNTIL_CLOSE)

    seen = read_with_http_client(head + sent, method)
    assert seen[0] == int(code)
    assert seen[1].strip() == reason.strip()
    assert [
        (name.lower(), value.strip(" \t"))
        for name, value in seen[2]
        if name.lower() not in SERVERS_OWN
    ] == trimmed(fields)
    assert seen[3] == body


anything = st.text(
    st.characters(codec="utf-8")
    | st.sampled_from("\r\n\t\0\x0b\x7f\x85\u2028:, ")
)


@given(anything, st.lists(st.tuples(anything, anything), max_size=3))
@settings(max_examples=2 * settings().max_examples)
@example("200 OK", [("X", "a\r\nSet-Cookie: b")])
@example("200 OK", [("X: a\r\nY", "b")])
@example("200 OK\r\nX: a", [])
@example("200 OK\r\n\r\n<html>", [])
@example("200 OK", [("X", "\u010a")])
def test_whatever_is_given_either_is_refused_or_is_one_answer(status, fields):
    serializer = ResponseSerializer()
    fields = [
        (name, value)
        for name, value in fields
        if name.lower() not in SERVERS_OWN
    ]
    try:
        head = serializer.head(status, fields, length=0)
    except AppError:
        return
    response, body = read_response_with_h11(head, "GET")
    assert f"{response.status_code}" == status[:3]
    assert len(response.headers) == len(fields) + 2 + (
        serializer.framing == LENGTH or serializer.status == 205
    )
    assert body == b""
