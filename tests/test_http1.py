"""One connection of HTTP/1.1: bytes in, bytes out.

What needs no clock and no end of the stream is tested on a fake transport,
the rest on a real one.
"""

import contextlib
import io
import logging
import os
import re
import socket
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path

import h11
import pytest
from fakes import (
    PATIENCE,
    FakeServer,
    FakeTransport,
    Probes,
    connect,
    halted,
    in_loop,
    listen,
    once_steadily,
    read_all,
    read_exactly,
    reset,
    serving,
    steadily,
    time_passes,
)

from fasthttp import AppError, AsyncSocketServer, Config, HttpProtocol
from fasthttp._poller import Events
from fasthttp._wsgi import WsgiGateway

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
GET_LAST = b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
GET_1_0 = b"GET / HTTP/1.0\r\n\r\n"
HEAD = b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"
CHUNKED_HEAD = (
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
)
CHUNKED = (
    CHUNKED_HEAD + b"4;name=value\r\nWiki\r\n5\r\npedia\r\n0\r\nA: b\r\n\r\n"
)
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def post(body, *fields, length=None, version="1.1"):
    """A POST request's bytes."""
    lines = [
        f"POST / HTTP/{version}",
        "Host: a",
        f"Content-Length: {len(body) if length is None else length}",
        *fields,
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


@dataclass
class Response:
    status: int
    headers: dict
    body: bytes = b""
    interim: list = field(default_factory=list)
    complete: bool = True


def read_response(data, method="GET", *, ended=True):
    """Let h11 read one response; it and the bytes behind it."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
    client.send(h11.EndOfMessage())
    client.receive_data(bytes(data))
    interim = []
    response = None
    while True:
        try:
            event = client.next_event()
            if event is h11.NEED_DATA and ended:
                client.receive_data(b"")
                event = client.next_event()
        except h11.RemoteProtocolError:
            if response is None:
                raise
            response.complete = False
            return response, b""
        if event is h11.NEED_DATA:
            response.complete = False
            return response, b""
        if type(event) is h11.InformationalResponse:
            interim.append(event.status_code)
        elif type(event) is h11.Response:
            headers = {
                name.decode(): value.decode("latin-1")
                for name, value in event.headers
            }
            response = Response(event.status_code, headers, b"", interim)
        elif type(event) is h11.Data:
            response.body += event.data
        elif type(event) is h11.EndOfMessage:
            return response, client.trailing_data[0]


def read_responses(data, *methods):
    """All responses in `data`, to GET if no methods are given."""
    responses = []
    for method in methods:
        response, data = read_response(data, method)
        responses.append(response)
    while data and not methods:
        response, data = read_response(data)
        responses.append(response)
    assert data == b""
    return responses


class Noting(HttpProtocol):
    """Keeps its requests and answers each at once with what it was."""

    def __init__(self, server, trans, mqueue):
        super().__init__(server, trans, mqueue)
        self.requests = []

    def on_request(self, request):
        self.requests.append(request)
        self.answer(request)

    def answer(self, request):
        text = f"{request.method} {request.target} ".encode()
        self.respond(200, [("X-Number", str(len(self.requests)))], text)


class Echo(Noting):
    def answer(self, request):
        self.respond(200, [], request.body)


class Later(Noting):
    """Answers only when it is told to."""

    def answer(self, request):
        pass


def answering(answer, base=Noting, **attributes):
    """A protocol that answers with `answer(protocol, request)`."""
    return type("Answering", (base,), {"answer": answer, **attributes})


class Connection:
    """A protocol on a fake transport, and the bytes for it."""

    def __init__(self, protocol=Noting, *, beside=None, **config):
        if config:
            protocol = type(
                "Configured", (protocol,), {"config": Config(**config)}
            )
        self.trans = FakeTransport()
        self.server = FakeServer()
        if beside is not None:
            protocol, self.server = type(beside.http), beside.server
        self.http = protocol(self.server, self.trans, self.trans)
        self._waiting = []

    def feed(self, data, size=1 << 16):
        """Hand `data` over, up to `size` bytes at a time."""
        self._waiting += [
            data[at : at + size] for at in range(0, len(data), size)
        ]
        self.go_on()
        return self

    def go_on(self):
        self.server.run_calls()
        while self._waiting and self.trans.reading:
            self.http.on_data_received(self._waiting.pop(0))

    @property
    def requests(self):
        return self.http.requests

    @property
    def stored(self):
        """Bytes of all bodies in memory and in files."""
        return self.server._http_contexts[type(self.http)].store.used

    def responses(self, *methods):
        return read_responses(self.trans.sent, *methods)

    @property
    def response(self):
        (response,) = self.responses()
        return response


@pytest.fixture(params=[1 << 16, 1], ids=["whole", "bytewise"])
def size(request):
    return request.param


# Requests.


def test_a_request(size):
    connection = Connection().feed(
        b"PUT /a%20b/%C3%A4?x=1&y=%20 HTTP/1.1\r\nHost: Example:80\r\n"
        b"X-A: one\r\nx-a:  two \r\nX-High: \xe4\r\nContent-Length: 4\r\n"
        b"\r\nbody",
        size,
    )
    (request,) = connection.requests
    assert request.method == "PUT"
    assert request.target == "/a%20b/%C3%A4?x=1&y=%20"
    assert request.path == "/a b/ä"
    assert request.query == "x=1&y=%20"
    assert request.authority == "Example:80"
    assert request.version == "1.1"
    assert request.keep_alive
    assert request.headers == [
        ("host", "Example:80"),
        ("x-a", "one"),
        ("x-a", "two"),
        ("x-high", "ä"),
        ("content-length", "4"),
    ]
    assert request.header("X-A") == "one, two"
    assert request.header("missing") is None
    assert request.header("missing", "-") == "-"
    assert request.remote == ("192.0.2.1", 4711)
    assert request.body == b"body"
    assert request.stream.read() == b"body"


EXCHANGES = {
    "GET": (GET, "GET", b"GET / "),
    "two GETs": (GET + GET, "GET GET", b"GET / GET / "),
    "empty lines": (b"\r\n\r\n" + GET, "GET", b"GET / "),
    "HEAD": (HEAD, "HEAD", b""),
    "HEAD and GET": (HEAD + GET, "HEAD GET", b"GET / "),
    "POST": (post(b"body"), "POST", b"POST / "),
    "empty body": (post(b""), "POST", b"POST / "),
    "body like a request": (post(GET), "POST", b"POST / "),
    "chunked": (CHUNKED, "POST", b"POST / "),
    "chunked and GET": (CHUNKED + GET, "POST GET", b"POST / GET / "),
    "OPTIONS *": (
        b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
        "OPTIONS",
        b"OPTIONS * ",
    ),
    "absolute": (
        b"GET http://b/c?d HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET",
        b"GET http://b/c?d ",
    ),
    "1.0, kept alive": (
        b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n",
        "GET",
        b"GET / ",
    ),
    "an upgrade": (
        GET[:-2] + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        "GET",
        b"GET / ",
    ),
    "own method": (b"BREW / HTTP/1.1\r\nHost: a\r\n\r\n", "BREW", b"BREW / "),
}


@pytest.mark.parametrize("glued", [b"", GET, post(b"body"), HEAD[:20]])
@pytest.mark.parametrize("name", EXCHANGES)
def test_answers_in_order_on_one_connection(name, size, glued):
    data, methods, bodies = EXCHANGES[name]
    methods = methods.split()
    if glued in (GET, post(b"body")):
        method = glued.split()[0].decode()
        methods.append(method)
        bodies += f"{method} / ".encode()
    connection = Connection().feed(data + glued, size)
    responses = connection.responses(*methods)
    assert b"".join(response.body for response in responses) == bodies
    assert [response.status for response in responses] == [200] * len(methods)
    assert [response.headers["x-number"] for response in responses] == [
        str(at + 1) for at in range(len(methods))
    ]
    for response in responses:
        assert response.headers["content-length"]
        assert response.headers["date"]
        assert response.headers["server"] == "fasthttp"
        if not name.startswith("1.0"):
            assert "connection" not in response.headers
    assert connection.trans.ended is None
    assert connection.trans.reading


LAST_REQUESTS = {
    "close": GET_LAST,
    "close in a list": GET_LAST.replace(b"close", b"x, CLOSE ,y"),
    "1.0": GET_1_0,
    "1.0 with both": (
        b"GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n"
    ),
    "1.0, POST": post(b"body", version="1.0"),
}


@pytest.mark.parametrize("glued", [b"", GET])
@pytest.mark.parametrize("name", LAST_REQUESTS)
def test_the_last_request(name, size, glued):
    connection = Connection().feed(LAST_REQUESTS[name] + glued, size)
    assert connection.response.headers["connection"] == "close"
    assert connection.trans.ended in ("close", "linger")
    assert len(connection.requests) == 1


@pytest.mark.parametrize("later", [True, False])
def test_headers_that_answer_another_client_meanwhile(later):
    """One serializer writes the heads of all of them."""
    first = Connection(Later).feed(GET)
    second = Connection(beside=first).feed(GET)

    def headers():
        yield "X-For", "first"
        second.http.respond(200, [("X-For", "second")], b"to second")
        if later:
            yield "X-Also", "first"

    first.http.respond(200, headers(), b"to first")
    for connection, name in ((first, "first"), (second, "second")):
        assert connection.response.headers["x-for"] == name
        assert connection.response.body == f"to {name}".encode()
    assert ("x-also" in first.response.headers) == later
    assert "x-also" not in second.response.headers


def test_a_log_handler_that_answers_another_client(error_log):
    first = Connection(Later).feed(GET)
    second = Connection(beside=first).feed(GET)

    class Telling(logging.Handler):
        def emit(self, record):
            second.http.respond(200, [("X-For", "second")], b"to second")

    handler = Telling()
    logging.getLogger("fasthttp.error").addHandler(handler)
    try:
        headers = [("X-For", "first"), ("Content-Length", "8")]
        first.http.respond(200, headers, b"to first and more")
    finally:
        logging.getLogger("fasthttp.error").removeHandler(handler)
    for connection, name in ((first, "first"), (second, "second")):
        assert connection.response.headers["x-for"] == name
        assert connection.response.body == f"to {name}".encode()


class Text(str):
    """A body that runs something where its bytes are asked for."""

    def encode(self):
        self.run()
        return b"outer"


@pytest.mark.parametrize("where", ["headers", "body", "start"])
@pytest.mark.parametrize("what", ["respond", "close"])
def test_an_answer_that_answers_or_closes_itself(error_log, where, what):
    """Each request gets one answer, the next one its own."""

    def answer(self, request):
        def inner():
            if what == "close":
                self.close_socket_connection()
            else:
                self.respond(200, [], b"inner")

        def headers():
            inner()
            yield "X", "outer"

        if request.target == "/last":
            self.respond(200, [], b"last")
        elif where == "body":
            body = Text()
            body.run = inner
            self.respond(200, [], body)
        elif where == "headers":
            self.respond(200, headers(), b"outer")
        else:
            self.start(200, headers())
            self.end()

    connection = Connection(answering(answer)).feed(GET + GET_LAST)
    bodies = [response.body for response in connection.responses()]
    assert bodies == ([b"inner", b"last"] if what == "respond" else [])
    assert len(error_log.records) == (what == "respond")


def test_the_application_may_close():
    def answer(self, request):
        self.respond(200, [("Connection", "close")], b"")

    connection = Connection(answering(answer)).feed(GET + GET)
    assert connection.response.headers["connection"] == "close"
    assert connection.trans.ended == "linger"
    assert len(connection.requests) == 1


def test_no_server_field():
    connection = Connection(server_header=False).feed(GET)
    assert "server" not in connection.response.headers


@pytest.mark.parametrize("status", [200, 204, 205, 304, 404])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("streamed", [False, True])
def test_answers_without_a_body(status, method, streamed):
    """RFC 9110 sections 9.3.2, 15.3.5, 15.3.6, 15.4.5."""

    def answer(self, request):
        if streamed:
            self.start(status)
            self.write(b"bo")
            self.write(b"dy")
            self.end()
        else:
            self.respond(status, [], b"body")

    connection = Connection(answering(answer))
    connection.feed(GET.replace(b"GET", method.encode()) + GET)
    first, second = connection.responses(method, "GET")
    assert first.status == second.status == status
    bodiless = status in (204, 205, 304)
    for response, empty in ((first, method == "HEAD"), (second, False)):
        empty = empty or bodiless
        assert response.body == (b"" if empty else b"body")
        if bodiless:
            assert "transfer-encoding" not in response.headers
            length = response.headers.get("content-length")
            assert length == ("0" if status == 205 else None)
        elif not streamed:
            assert response.headers["content-length"] == "4"
    assert connection.trans.ended is None


# Pipelining.


def test_the_next_request_waits_for_its_turn(size):
    connection = Connection(Later).feed(GET + GET + post(b"body") + GET, size)
    for count in range(1, 5):
        assert len(connection.requests) == count
        assert len(connection.responses()) == count - 1
        connection.http.respond(200, [], b"answer %d" % count)
        connection.go_on()
    assert [each.body for each in connection.responses()] == [
        b"answer %d" % count for count in range(1, 5)
    ]
    assert connection.requests[2].body == b"body"
    assert connection.trans.reading


@pytest.mark.parametrize("parts", [False, True])
def test_the_next_request_does_not_come_within_an_answer(parts):
    connection = Connection(Later).feed(GET + post(b"body") + GET)
    http = connection.http
    for count in (1, 2):
        if parts:
            http.start(200)
            http.end()
        else:
            http.respond(200)
        assert len(connection.requests) == count
        with pytest.raises(AppError):
            http.respond(200)
        connection.go_on()
    http.respond(200)
    assert len(connection.responses()) == 3
    assert connection.trans.reading
    assert connection.trans.deadline == Config().keep_alive


def test_little_is_read_ahead_of_its_turn():
    connection = Connection(Later).feed(GET * 1000, 100)
    assert not connection.trans.reading
    assert len(connection.requests) == 1


def test_a_few_are_answered_in_a_row():
    connection = Connection(limit_pipelined=10).feed(GET * 25 + GET[:9])
    for count in (10, 20):
        assert len(connection.responses()) == count
        assert not connection.trans.reading
        assert connection.trans.deadline == 0
        connection.server.run_calls()
    assert len(connection.responses()) == 25
    assert connection.trans.reading
    assert connection.server.calls == []
    connection.feed(GET[9:] + GET * 4)
    assert len(connection.responses()) == 30


def test_the_others_of_a_row_are_not_answered_after_a_close():
    connection = Connection(limit_pipelined=10).feed(GET * 25)
    connection.http.close_socket_connection()
    connection.server.run_calls()
    assert len(connection.responses()) == 10


def test_nothing_is_answered_while_the_client_does_not_read():
    connection = Connection()
    connection.trans.unsent = 100_000
    connection.feed(GET + GET)
    assert connection.requests == []
    connection.trans.unsent = 0
    connection.feed(GET)
    assert len(connection.responses()) == 3


# Expect: 100-continue, RFC 9110 section 10.1.1.

EXPECT = "Expect: 100-continue"


def test_continue_is_sent_before_the_body(size):
    connection = Connection(Echo)
    request = post(b"body", EXPECT)
    connection.feed(request[:-4], size)
    assert connection.trans.sent == CONTINUE
    connection.feed(request[-4:], size)
    (response,) = connection.responses("POST")
    assert response.interim == [100]
    assert response.body == b"body"
    connection.feed(request[:-4], size)
    assert connection.trans.sent.endswith(CONTINUE)


def test_continue_is_sent_for_a_chunked_body(size):
    head = CHUNKED_HEAD.replace(b"Host", EXPECT.encode() + b"\r\nHost")
    connection = Connection(Echo).feed(head, size)
    assert connection.trans.sent == CONTINUE
    connection.feed(CHUNKED[len(CHUNKED_HEAD) :], size)
    (response,) = connection.responses("POST")
    assert response.body == b"Wikipedia"


def test_the_expectation_has_no_case():
    request = post(b"body", "EXPECT: 100-Continue")
    assert Connection().feed(request[:-4]).trans.sent == CONTINUE


@pytest.mark.parametrize(
    "request_bytes",
    [
        post(b"body", EXPECT),
        post(b"body", EXPECT)[:-3],
        post(b"", EXPECT),
        post(b"body", EXPECT, version="1.0")[:-4],
        post(b"body", "Expect: else", version="1.0")[:-4],
        GET[:-2] + EXPECT.encode() + b"\r\n\r\n",
    ],
    ids=[
        "the body is there",
        "a part of the body is there",
        "no body",
        "1.0",
        "1.0 and another",
        "GET",
    ],
)
def test_continue_is_not_sent(request_bytes):
    connection = Connection(Echo).feed(request_bytes)
    assert b" 100 " not in connection.trans.sent
    connection.feed(b"body"[: 4 - len(request_bytes.partition(b"\r\n\r\n")[2])])
    for response in connection.responses():
        assert response.status == 200
        assert response.interim == []


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (post(b"body", EXPECT, length=1000), 413),
        (post(b"body", "Expect: 100-continue, else"), 417),
        (post(b"body", "Expect: 200-ok"), 417),
        (post(b"body", "Expect:"), 417),
        (post(b"body", EXPECT, "Expect: else"), 417),
        (post(b"body", EXPECT, "Transfer-Encoding: chunked"), 400),
    ],
)
def test_a_final_status_instead_of_continue(request_bytes, status, size):
    connection = Connection(limit_request_body=100)
    connection.feed(request_bytes, size)
    assert connection.response.status == status
    assert connection.response.interim == []
    assert connection.requests == []


def test_continue_waits_for_the_answer_before_it():
    connection = Connection(Later).feed(GET + post(b"body", EXPECT)[:-4])
    assert connection.trans.sent == b""
    connection.http.respond(200, [], b"first")
    connection.go_on()
    assert connection.trans.sent.endswith(b"first" + CONTINUE)


# Bodies.


@pytest.mark.parametrize("length", [1, 999, 1000, 1001, 100_000])
@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("step", [1 << 16, 777, 1])
def test_bodies(length, chunked, step):
    """In memory up to `body_memory`, in an unnamed file beyond it."""
    if step == 1 and length > 1001:
        length = 5000
    body = os.urandom(length)
    data = post(body)
    if chunked:
        data = CHUNKED_HEAD
        for at in range(0, length, 333):
            part = body[at : at + 333]
            data += b"%x\r\n%s\r\n" % (len(part), part)
        data += b"0\r\n\r\n"
    read = []

    def answer(self, request):
        stream = request.stream
        in_file = not isinstance(stream, io.BytesIO)
        if in_file:
            assert os.fstat(stream.fileno()).st_nlink == 0
        parts = stream.read(10), stream.read(), request.body
        read.append((in_file, *parts))
        self.respond(200)

    Connection(answering(answer), body_memory=1000).feed(data + GET, step)
    assert read == [
        (length > 1000, body[:10], body[10:], body),
        (False, b"", b"", b""),
    ]


@pytest.mark.parametrize("how", ["respond", "end", "fail"])
def test_the_file_of_a_body_is_closed(how, error_log):
    def answer(self, request):
        self.stream = request.stream
        if how == "respond":
            self.respond(200)
        elif how == "end":
            self.start(200)
            assert not self.stream.closed
            self.end()
        else:
            raise LookupError("a fault")

    connection = Connection(answering(answer), body_memory=10)
    connection.feed(post(b"body" * 100))
    assert len(connection.responses()) == 1
    assert connection.http.stream.closed


@pytest.mark.parametrize("chunked", [False, True])
def test_bodies_in_memory_are_bounded_in_all(size, chunked):
    body = os.urandom(60)
    data = post(body)
    if chunked:
        data = CHUNKED_HEAD + b"3c\r\n%b\r\n0\r\n\r\n" % body
    first = Connection(Later, body_memory=80, body_memory_total=100)
    first.feed(data, size)
    assert first.stored == (60, 0)
    second = Connection(beside=first).feed(data, size)
    assert second.stored == (60, 60)
    in_file = second.requests[0].stream
    assert not isinstance(in_file, io.BytesIO)
    assert in_file.read() == second.requests[0].body == body
    first.http.respond(200)
    assert first.stored == (0, 60)
    third = Connection(beside=first).feed(data, size)
    assert third.stored == (60, 60)
    assert isinstance(third.requests[0].stream, io.BytesIO)
    second.http.respond(200)
    third.http.respond(200)
    assert third.stored == (0, 0)


@pytest.mark.parametrize("length", [60, None], ids=["length", "chunked"])
def test_bodies_in_files_are_bounded_in_all(size, length, error_log):
    body = os.urandom(60)
    data = post(body, length=length)
    if length is None:
        data = CHUNKED_HEAD + b"3c\r\n%b\r\n0\r\n\r\n" % body
    first = Connection(Later, body_memory=10, limit_spooled=100)
    first.feed(data, size)
    assert first.stored == (0, 60)
    second = Connection(beside=first).feed(data + GET, size)
    assert second.response.status == 503
    assert second.response.headers["retry-after"]
    assert b"limit_spooled (100)" in second.response.body
    assert "limit_spooled (100)" in error_log.messages[0]
    assert second.trans.ended == "linger"
    assert second.stored == (0, 60)
    first.http.respond(200)
    assert first.response.status == 200
    assert first.stored == (0, 0)
    third = Connection(beside=first).feed(data, size)
    assert third.requests[0].body == body
    third.http.respond(200)


def test_a_body_that_cannot_be_stored(monkeypatch, tmp_path, size, error_log):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    connection = Connection(body_memory=10).feed(post(b"body" * 10) + GET, size)
    assert connection.response.status == 507
    assert connection.trans.ended == "linger"
    assert connection.requests == []
    assert "No such file" in error_log.records[0].getMessage()


@pytest.mark.parametrize("buffering", [0, -1])
@pytest.mark.parametrize("length", [100, 100_000])
def test_a_disk_that_is_full(monkeypatch, error_log, buffering, length):
    """Seen at the first write, or only when the whole body is there."""

    def full():
        return open("/dev/full", "r+b", buffering)

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    connection = Connection(Echo, body_memory=10)
    connection.feed(post(bytes(length)), 1000)
    assert connection.response.status == 507
    assert "No space left" in error_log.records[0].getMessage()
    assert connection.trans.ended == "linger"
    assert connection.requests == []


# What is refused.

LIMITS = {
    "limit_request_line": 100,
    "limit_request_fields": 5,
    "limit_request_field_size": 200,
    "limit_request_head": 500,
    "limit_request_body": 50,
}
FIELD = b"X-Field: " + b"x" * 150 + b"\r\n"
REFUSED = {
    "a long body": (413, "limit_request_body", post(b"x" * 51)),
    "a long chunked body": (
        413,
        "limit_request_body",
        CHUNKED_HEAD + b"20\r\n" + b"x" * 32 + b"\r\n20\r\n" + b"x" * 32,
    ),
    "a length without end": (
        413,
        "limit_request_body",
        post(b"", length=10**30),
    ),
    "a long line": (
        414,
        "limit_request_line",
        b"GET /" + b"x" * 100 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    "many fields": (
        431,
        "limit_request_fields",
        GET[:-2] + b"A: b\r\n" * 5 + b"\r\n",
    ),
    "a long field": (
        431,
        "limit_request_field_size",
        GET[:-2] + b"A: " + b"b" * 200 + b"\r\n\r\n",
    ),
    "a long head": (431, "limit_request_head", GET[:-2] + FIELD * 4 + b"\r\n"),
    "an expectation": (417, "100-continue", post(b"x", "Expect: more")),
    "a coding": (
        501,
        "chunked",
        post(b"x", "Transfer-Encoding: gzip, chunked"),
    ),
    "a tunnel": (
        501,
        "CONNECT",
        b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n",
    ),
    "a version": (505, "HTTP/1", GET.replace(b"1.1", b"2.0")),
    "no host": (400, "Host", b"GET / HTTP/1.1\r\n\r\n"),
    "two lengths": (400, "Content-Length", post(b"x", "Content-Length: 1")),
    "a bare LF": (400, "LF", b"GET / HTTP/1.1\nHost: a\n\n"),
    "no HTTP": (400, "", b"\x16\x03\x01\x02\x00\x01\x00"),
    "no chunk": (400, "chunk", CHUNKED_HEAD + b"xyz\r\n"),
}


@pytest.mark.parametrize("glued", [b"", GET])
@pytest.mark.parametrize("before", [b"", GET])
@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name, size, before, glued):
    status, detail, data = REFUSED[name]
    connection = Connection(**LIMITS).feed(before + data + glued, size)
    *answered, refused = connection.responses()
    assert len(answered) == len(connection.requests) == bool(before)
    assert refused.status == status
    assert detail in refused.body.decode()
    assert refused.headers["connection"] == "close"
    assert refused.headers["content-type"].startswith("text/plain")
    assert connection.trans.ended == "linger"
    before = bytes(connection.trans.sent)
    connection.feed(GET)
    assert connection.trans.sent == before


def test_what_a_limit_allows(size):
    line = b"GET /" + b"x" * 86 + b" HTTP/1.1\r\n"
    field = b"A: " + b"b" * 197 + b"\r\n"
    data = line + b"Host: a\r\n" + field + b"B: c\r\n" * 3 + b"\r\n"
    connection = Connection(**LIMITS).feed(data + post(b"x" * 50), size)
    assert [each.status for each in connection.responses()] == [200, 200]


def test_a_refused_head_gets_no_body(size):
    """RFC 9110 section 9.3.2."""
    request = HEAD[:-2] + b"Expect: more\r\n\r\n"
    connection = Connection().feed(request, size)
    assert connection.trans.sent.endswith(b"\r\n\r\n")
    assert connection.trans.sent.startswith(b"HTTP/1.1 417 ")
    after_head = Connection().feed(HEAD + b"@ / \r\n", size)
    _, refused = after_head.responses("HEAD", "GET")
    assert refused.body != b""


# Answers.


def test_an_answer_in_parts(size):
    connection = Connection(Later).feed(GET + GET, size)
    http = connection.http
    http.start("200 Fine", [("X-A", "b")])
    http.write(b"")
    http.write(b"one,")
    http.write(bytearray(b"two,"))
    http.write(memoryview(b"three"))
    assert len(connection.requests) == 1
    http.end()
    connection.go_on()
    assert len(connection.requests) == 2
    (response,) = connection.responses()
    assert response.headers["transfer-encoding"] == "chunked"
    assert response.headers["x-a"] == "b"
    assert response.body == b"one,two,three"
    assert connection.trans.ended is None


@pytest.mark.parametrize("size", [1, 9, 10, 15, 16, 255, 256, 4095, 65536])
def test_chunks(size):
    data = b"x" * size
    connection = Connection(Later).feed(GET)
    connection.http.start(200)
    connection.http.write(data)
    connection.http.write(b"")
    connection.http.end()
    body = b"%x\r\n%b\r\n0\r\n\r\n" % (size, data)
    assert connection.trans.sent.partition(b"\r\n\r\n")[2] == body


@pytest.mark.parametrize("length", [1, 16384, 16385, 65536, 200_000])
def test_answers_of_any_size(length):
    body = os.urandom(length)

    def answer(self, request):
        if request.path == "/parts":
            self.start(200)
            self.write(body)
            self.write(body)
            self.end()
        else:
            self.respond(200, [], body)

    parts = GET.replace(b"/ ", b"/parts ")
    connection = Connection(answering(answer)).feed(GET + parts + GET)
    first, second, third = connection.responses()
    assert first.body == third.body == body
    assert second.body == body + body


def test_an_answer_in_parts_of_known_length():
    connection = Connection(Later).feed(GET + GET)
    http = connection.http
    http.start(200, [("Content-Length", "7")])
    http.write(b"one")
    http.write(b"four")
    http.end()
    (response,) = connection.responses()
    assert "transfer-encoding" not in response.headers
    assert response.body == b"onefour"
    assert connection.trans.ended is None


@pytest.mark.parametrize("data", [GET_1_0, GET_1_0[:-2] + EXPECT.encode()])
def test_an_answer_in_parts_to_1_0_ends_with_the_connection(data):
    connection = Connection(Later).feed(data.removesuffix(b"\r\n\r\n"))
    connection.feed(b"\r\nConnection: keep-alive\r\n\r\n")
    connection.http.start(200)
    connection.http.write(b"some")
    connection.http.write(b"thing")
    assert connection.trans.ended is None
    connection.http.end()
    # It asked to be kept: more may be under way.
    assert connection.trans.ended == "linger"
    assert connection.response.headers["connection"] == "close"
    assert "transfer-encoding" not in connection.response.headers
    assert connection.response.body == b"something"


def test_what_a_body_may_be():
    for body in (b"text", "text", bytearray(b"text"), memoryview(b"text")):

        def answer(self, request, body=body):
            if request.path == "/parts":
                self.start(200)
                self.write(body)
                self.end()
            else:
                self.respond(200, [], body)

        parts = GET.replace(b"/ ", b"/parts ")
        connection = Connection(answering(answer)).feed(GET + parts)
        assert [each.body for each in connection.responses()] == [b"text"] * 2


def test_calls_at_the_wrong_time():
    http = Connection(Later).http
    for call in (http.respond, http.start):
        with pytest.raises(AppError, match="no request"):
            call(200)
    connection = Connection(Later).feed(GET)
    http = connection.http
    with pytest.raises(AppError, match="before start"):
        http.write(b"x")
    with pytest.raises(AppError, match="before start"):
        http.end()
    http.start(200)
    for call in (http.respond, http.start):
        with pytest.raises(AppError, match="no request"):
            call(200)
    http.end()
    for call in (http.end, http.respond, http.start):
        with pytest.raises(AppError):
            call(*([] if call == http.end else [200]))
    assert connection.response.body == b""


@pytest.mark.parametrize("transport", [None, socket])
def test_what_is_no_transport_is_refused(transport):
    gateway = WsgiGateway(print, Config())
    for make in (HttpProtocol, gateway):
        with pytest.raises(TypeError, match="BaseTransport"):
            make(FakeServer(), transport, transport)


def test_calls_after_the_end_do_nothing():
    connection = Connection(Later).feed(GET)
    http = connection.http
    http.close_socket_connection()
    assert connection.trans.ended == "close"
    http.respond(200)
    http.start(200)
    http.write(b"x")
    http.end()
    assert connection.trans.sent == b""


def test_nothing_is_begun_after_a_close():
    def answer(self, request):
        self.respond(200)
        self.close_socket_connection()

    connection = Connection(answering(answer)).feed(GET + GET)
    assert len(connection.requests) == len(connection.responses()) == 1


def test_without_on_request():
    assert Connection(HttpProtocol).feed(GET).response.status == 404


def test_the_example_of_the_readme_answers_any_path():
    readme = Path(__file__).parents[1] / "README.md"
    examples = re.findall(r"```python\n(.*?)```", readme.read_text(), re.S)
    (example,) = (each for each in examples if "HttpProtocol" in each)
    names = {}
    exec(example.partition("\n\n\nAsyncSocketServer(")[0], names)
    request = b"GET /%ff HTTP/1.1\r\nHost: a\r\n\r\n"
    response = Connection(names["Hello"]).feed(request).response
    assert response.body == b"you asked for /%ff\n"


# Faults of the application.


def fail_at_once(self, request):
    raise LookupError("a fault")


def fail_with_a_bad_header(self, request):
    self.respond(200, [("X-Bad", "a\r\nb")], b"body")


def fail_with_a_bad_status(self, request):
    self.respond("200\r\n", [], b"body")


def fail_with_a_bad_body(self, request):
    self.respond(200, [], 5)


def fail_with_a_bad_name(self, request):
    self.start(200, [("X Bad", "a")])


@pytest.mark.parametrize(
    ("answer", "trace"),
    [
        (fail_at_once, "a fault"),
        (fail_with_a_bad_header, "X-Bad"),
        (fail_with_a_bad_status, "status"),
        (fail_with_a_bad_body, "int"),
        (fail_with_a_bad_name, "X Bad"),
    ],
)
def test_a_fault_before_the_answer(answer, trace, size, error_log):
    connection = Connection(answering(answer)).feed(post(b"body") + GET, size)
    (response,) = connection.responses("POST")
    assert response.status == 500
    assert b"fault" not in response.body
    assert response.headers["connection"] == "close"
    (record,) = error_log.records
    assert trace in str(record.exc_info[1])
    # It may have planned an answer: it must not be another request's.
    connection.http.respond(200, [], b"late")
    assert len(connection.responses("POST")) == 1
    assert connection.trans.ended == "linger"


@pytest.mark.parametrize("fields", [[], [("Content-Length", "100")]])
def test_a_fault_within_the_answer(fields, error_log):
    def answer(self, request):
        self.start(200, fields)
        self.write(b"begun")
        raise LookupError("a fault")

    connection = Connection(answering(answer)).feed(GET + GET)
    response, _ = read_response(connection.trans.sent)
    assert response.body == b"begun"
    assert not response.complete
    assert connection.trans.ended == "linger"
    assert len(connection.requests) == len(error_log.records) == 1


def test_a_fault_within_an_answer_that_only_a_reset_can_tell(error_log):
    def answer(self, request):
        self.start(200)
        self.write(b"begun")
        raise LookupError("a fault")

    connection = Connection(answering(answer)).feed(GET_1_0)
    assert connection.trans.ended == "abort"


class Cancelled(BaseException):
    pass


def test_a_fault_that_is_no_exception(error_log):
    def answer(self, request):
        raise Cancelled

    connection = Connection(answering(answer)).feed(GET)
    assert [each.status for each in connection.responses()] == [500]
    assert connection.trans.ended == "linger"
    assert error_log.messages == ["exception in on_request: GET /"]


def test_a_fault_after_the_answer(error_log):
    def answer(self, request):
        self.respond(200, [], b"whole")
        raise LookupError("a fault")

    connection = Connection(answering(answer)).feed(GET + GET)
    assert [each.body for each in connection.responses()] == [b"whole"] * 2
    assert connection.trans.ended is None
    assert len(error_log.records) == 2


def test_more_than_the_content_length_is_cut(error_log):
    def answer(self, request):
        self.start(200, [("Content-Length", "5")])
        self.write(b"123")
        self.write(b"456")
        self.write(b"789")
        self.end()

    connection = Connection(answering(answer)).feed(GET + GET)
    assert [each.body for each in connection.responses()] == [b"12345"] * 2
    assert connection.trans.ended is None
    assert "more than its Content-Length" in error_log.messages[0]


@pytest.mark.parametrize("size", [5, 20_000])
def test_more_than_the_content_length_at_once_is_cut(error_log, size):
    """Whether it is copied behind the head or sent from where it is."""
    body = os.urandom(2 * size)

    def answer(self, request):
        self.respond(200, [("Content-Length", str(size))], body)

    connection = Connection(answering(answer)).feed(GET + GET)
    assert [each.body for each in connection.responses()] == [body[:size]] * 2
    assert "more than its Content-Length" in error_log.messages[0]


@pytest.mark.parametrize("parts", [False, True])
def test_less_than_the_content_length_closes(error_log, parts):
    def answer(self, request):
        fields = [("Content-Length", "5")]
        if parts:
            self.start(200, fields)
            self.write(b"1234")
            self.end()
        else:
            self.respond(200, fields, b"1234")

    connection = Connection(answering(answer)).feed(GET + GET)
    response, _ = read_response(connection.trans.sent)
    assert response.body == b"1234"
    assert not response.complete
    assert connection.trans.ended in ("close", "linger")
    assert len(connection.requests) == 1
    assert "less than its Content-Length" in error_log.messages[0]


def test_bytes_that_come_from_within_a_request():
    """A program may have received some elsewhere; they come behind."""

    def answer(self, request):
        self.respond(200, [], request.target.encode())
        if request.target == "/":
            more = GET.replace(b"/ ", b"/more ")
            self.on_data_received(more[:5])
            self.on_data_received(more[5:])

    second = GET.replace(b"/ ", b"/second ")
    connection = Connection(answering(answer)).feed(GET + second)
    bodies = [each.body for each in connection.responses()]
    assert bodies == [b"/", b"/second", b"/more"]


def test_a_head_may_tell_the_length_of_what_is_not_sent(error_log):
    def answer(self, request):
        self.respond(200, [("Content-Length", "5")], b"")

    connection = Connection(answering(answer)).feed(HEAD + HEAD)
    for response in connection.responses("HEAD", "HEAD"):
        assert response.headers["content-length"] == "5"
    assert connection.trans.ended is None
    assert error_log.records == []


# The access log.


def logged(data, answer=Noting.answer, **config):
    calls = []
    protocol = answering(
        answer, access_log=staticmethod(lambda *call: calls.append(call))
    )
    connection = Connection(protocol, **config).feed(data)
    return calls, connection


def test_the_access_log():
    calls, _ = logged(
        b"GET /a?b HTTP/1.1\r\nHost: a\r\nReferer: http://r/\xe4\r\n"
        b"User-Agent: agent\r\n\r\n" + HEAD + GET_1_0
    )
    assert calls == [
        ("192.0.2.1", "GET /a?b HTTP/1.1", 200, 9, "http://r/ä", "agent"),
        ("192.0.2.1", "HEAD / HTTP/1.1", 200, 0, "", ""),
        ("192.0.2.1", "GET / HTTP/1.0", 200, 6, "", ""),
    ]


def test_the_access_log_of_an_answer_in_parts():
    calls = []
    protocol = answering(
        Later.answer, access_log=staticmethod(lambda *call: calls.append(call))
    )
    connection = Connection(protocol).feed(GET)
    connection.http.start(404)
    connection.http.write(b"12345")
    assert calls == []
    connection.http.end()
    assert calls == [("192.0.2.1", "GET / HTTP/1.1", 404, 5, "", "")]


def test_the_access_log_of_a_head_that_is_refused():
    calls, _ = logged(HEAD[:-2] + b"Expect: more\r\n\r\n")
    assert [call[1:4] for call in calls] == [("-", 417, 0)]
    calls, _ = logged(b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n")
    assert [call[1:3] for call in calls] == [("CONNECT a:1 HTTP/1.1", 501)]


def test_the_access_log_of_what_is_cut():
    def cut(self, request):
        self.start(200)
        self.write(b"begun")
        self.close_socket_connection()

    calls, _ = logged(GET, cut)
    assert [call[1:4] for call in calls] == [("GET / HTTP/1.1", 200, 5)]


def test_an_access_log_that_fails(error_log):
    def fail(*args):
        raise ValueError("I/O operation on closed file")

    protocol = answering(Noting.answer, access_log=staticmethod(fail))
    connection = Connection(protocol).feed(GET + GET)
    assert [each.status for each in connection.responses()] == [200, 200]
    assert error_log.messages == ["exception in the access log"] * 2


def test_the_access_log_of_faults(error_log):
    calls, _ = logged(GET, fail_at_once)
    assert [(call[1], call[2]) for call in calls] == [("GET / HTTP/1.1", 500)]
    calls, _ = logged(b"nonsense\r\n")
    assert [(call[1], call[2]) for call in calls] == [("-", 400)]

    def fail(self, request):
        self.start(200)
        self.write(b"begun")
        raise LookupError("a fault")

    calls, _ = logged(GET, fail)
    assert [call[1:4] for call in calls] == [("GET / HTTP/1.1", 200, 5)]


REFUSED_LINES = {
    b"@ / HTTP/1.1\r\n": "400: the method is not a token; at byte 0 of "
    r"b'@ / HTTP/1.1\r\n'",
    b"GET /\xff\n": "400: a byte that no request target may hold; at byte 5 of "
    r"b'GET /\xff\n'",
    b"\x16\x03\x01\x02\x00\x01": "400: the method is not a token; at byte 0 of "
    r"b'\x16\x03\x01\x02\x00\x01' - the client speaks TLS",
    post(b"", length=99): "413: limit",
    b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n": "501: this is no proxy: "
    r"CONNECT is not served; at byte 37 of b'CONNECT a:80 HTTP/1.1\r\n",
}


@pytest.mark.parametrize("sent", REFUSED_LINES)
def test_what_is_refused_is_logged_in_one_line(sent, error_log):
    Connection(limit_request_body=9).feed(sent)
    (line,) = error_log.messages
    expected = REFUSED_LINES[sent].replace("limit", "")
    assert line.startswith(f"('192.0.2.1', 4711): refused with {expected}")
    assert "\n" not in line
    assert len(line) < 400


def test_refusals_are_logged_once_a_second(monkeypatch, error_log):
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    first = Connection().feed(b"nonsense\r\n")
    for _ in range(5):
        Connection(beside=first).feed(b"nonsense\r\n" * 1000)
    assert len(error_log.messages) == 1
    now[0] += 1.1
    Connection(beside=first).feed(b"nonsense\r\n")
    assert len(error_log.messages) == 2
    assert error_log.messages[1].endswith("(5 more since)")


def test_the_access_log_may_be_a_function():
    calls = []

    def log(address, line, *rest):
        calls.append(line)

    Connection(answering(Noting.answer, access_log=log)).feed(GET)
    assert calls == ["GET / HTTP/1.1"]


# On a real transport: ends, deadlines, drain.


@pytest.fixture
def live():
    """Serves a protocol; (server, the client's socket, its protocol)."""
    with contextlib.ExitStack() as stack:

        def live(protocol=Noting, *, stop=0, **config):
            class Configured(protocol):
                pass

            Configured.config = Config(**config)
            probes = Probes(Configured)
            server = stack.enter_context(
                serving(
                    AsyncSocketServer.from_sockets([listen()], probes), stop
                )
            )
            peer = stack.enter_context(connect(server.port, small=True))
            return server, peer, probes.next()

        yield live


class Pausing(Noting):
    """Notes when it is to pause and to go on."""

    def __init__(self, server, trans, mqueue):
        super().__init__(server, trans, mqueue)
        self.calls = []
        self.paused = False
        self.told = threading.Event()

    def on_pause_writing(self):
        self.paused = True
        self.calls.append("pause")
        self.told.set()

    def on_resume_writing(self):
        self.paused = False
        self.calls.append("resume")


def test_an_answer_that_is_full_when_its_request_ends_is_paused(live):
    """It goes on later, and would else never be told to wait."""

    class Stream(Pausing):
        def answer(self, request):
            self.start(200)
            for _ in range(10):
                self.write(bytes(8000))
            self.server.call_soon(self.pump)

        def pump(self):
            for _ in range(1000):
                if self.paused:
                    return
                self.write(bytes(10_000))

    server, peer, http = live(Stream)
    peer.sendall(GET)
    assert http.told.wait(PATIENCE)
    assert in_loop(server, http.trans.queued) < 1_000_000


def test_nobody_is_told_to_go_on_who_was_not_to_pause(live, error_log):
    class Stream(Pausing):
        def answer(self, request):
            self.start(200)
            for _ in range(10):
                self.write(bytes(8000))
            self.end()

    _, peer, http = live(Stream)
    for _ in range(3):
        peer.sendall(GET)
        received = b""
        while not received.endswith(b"\r\n0\r\n\r\n"):
            data = peer.recv(1 << 16)
            assert data
            received = received[-20:] + data
    assert http.calls == []


def test_a_writer_is_told_though_the_client_has_left(live):
    class Stream(Pausing):
        def answer(self, request):
            reset(peer)
            self.start(200)
            for _ in range(10_000):
                if self.paused:
                    break
                self.write(bytes(1000))

    _, peer, http = live(Stream)
    peer.sendall(GET)
    assert http.told.wait(PATIENCE)
    assert http.calls[:1] == ["pause"]


def test_the_access_log_of_an_answer_whose_client_leaves(live):
    calls = []
    closed = threading.Event()

    class Begun(Noting):
        access_log = staticmethod(lambda *call: calls.append(call[1:4]))

        def answer(self, request):
            self.start(200)
            self.write(b"begun")

        def on_connection_closed(self):
            closed.set()

    _, peer, _ = live(Begun)
    peer.sendall(GET)
    read_exactly(peer, 5)
    reset(peer)
    assert closed.wait(PATIENCE)
    assert calls == [("GET / HTTP/1.1", 200, 5)]


def test_a_close_in_the_pause_of_a_second_answer_cuts_nothing(live):
    class Large(Pausing):
        def answer(self, request):
            self.respond(200, [], bytes(120_000))

        def on_pause_writing(self):
            self.close_socket_connection()

    _, peer, http = live(Large)
    peer.sendall(GET + GET)
    responses = read_responses(read_all(peer), *["GET"] * len(http.requests))
    assert [len(each.body) for each in responses] == [120_000] * len(responses)


def test_no_pause_is_told_within_the_end_of_an_answer(live, error_log):
    """The last chunk may be what fills the queue."""
    full = 65536

    class Filling(Pausing):
        ending = False

        def answer(self, request):
            if request.target == "/last":
                self.respond(200, [], b"last")
            else:
                self.start(200)
                self.write(bytes(150_000))

        def on_pause_writing(self):
            super().on_pause_writing()
            if self.ending:
                self.write(b"enough")

        def on_resume_writing(self):
            super().on_resume_writing()
            self.server.call_soon(self.fill)

        def fill(self):
            while full - self.trans.queued() > 8000:
                self.write(bytes(2000))
            # With its size in hexadecimal and two ends of lines.
            self.write(bytes(full - self.trans.queued() - 2 - 4 - 4))
            assert self.trans.queued() == full - 2
            self.ending = True
            self.end()

    _, peer, http = live(Filling)
    peer.sendall(GET + GET_LAST)
    first, last = read_responses(read_all(peer), "GET", "GET")
    assert first.complete
    assert set(first.body) == {0}
    assert last.body == b"last"
    assert http.calls == ["pause", "resume"]
    assert error_log.records == []


def test_a_fault_in_the_pause_of_a_late_answer(live, error_log):
    class Late(Pausing):
        def answer(self, request):
            self.server.call_soon(self.respond, 200, [], bytes(5_000_000))

        def on_pause_writing(self):
            raise LookupError("a fault")

    _, peer, _ = live(Late)
    peer.sendall(GET)
    with contextlib.suppress(ConnectionResetError):
        assert len(read_all(peer)) < 5_000_000
    error_log.wait_for("HttpProtocol.respond")


class Closing(Later):
    """Says when it has a request and when it is closed."""

    def __init__(self, server, trans, mqueue):
        super().__init__(server, trans, mqueue)
        self.asked = threading.Semaphore(0)
        self.closed = threading.Semaphore(0)

    def answer(self, request):
        self.asked.release()

    def on_connection_closed(self):
        self.closed.release()


def await_(semaphore):
    assert semaphore.acquire(timeout=PATIENCE)


def add_what_came(peer, received):
    peer.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        received += peer.recv(10_000)
    peer.settimeout(PATIENCE)


def test_pipelined_requests_with_large_answers(live):
    """More than the high-water mark, yet taken by the kernel at once."""

    def answer(self, request):
        self.respond(200, [], bytes(20_000))

    _, peer, _ = live(answering(answer))
    peer.sendall(GET * 19 + GET_LAST)
    responses = read_responses(read_all(peer))
    assert [len(each.body) for each in responses] == [20_000] * 20


def test_pipelined_requests_of_a_slow_reader(live):
    """It may even close its side: what it asked for is answered."""

    def answer(self, request):
        self.respond(200, [], bytes(300_000))

    server, peer, _ = live(answering(answer))
    peer.sendall(GET * 20)
    peer.shutdown(socket.SHUT_WR)
    received = bytearray()
    while len(received) < 1_000_000:
        received += peer.recv(10_000)
        in_loop(server, lambda: None)
    received += read_all(peer)
    responses = read_responses(received)
    assert [len(each.body) for each in responses] == [300_000] * 20


def test_many_pipelined_requests_do_not_delay_others(live):
    asked = []

    def answer(self, request):
        asked.append(request.path)
        self.respond(200)

    server, peer, _ = live(answering(answer), limit_pipelined=10)
    with connect(server.port) as other:
        in_loop(server, lambda: None)
        with halted(server):
            peer.sendall(GET * 1000 + GET_LAST)
            peer.shutdown(socket.SHUT_WR)
            other.sendall(GET_LAST.replace(b"last", b"other"))
        assert len(read_responses(read_all(other))) == 1
        assert len(read_responses(read_all(peer))) == 1001
    assert asked.index("/other") <= 10
    assert len(asked) == 1002


def test_drain_answers_the_others_of_a_row(live):
    def answer(self, request):
        if len(self.requests) == 1:
            self.server.shutdown()
        self.respond(200)

    _, peer, _ = live(answering(answer), limit_pipelined=10)
    peer.sendall(GET * 100)
    responses = read_responses(read_all(peer))
    assert len(responses) == 100
    assert responses[-1].headers["connection"] == "close"


def test_pipelined_requests_answered_later(live):
    class Delayed(Noting):
        def answer(self, request):
            self.server.call_later(0, self.respond, 200, [], bytes(40_000))

    _, peer, _ = live(Delayed)
    peer.sendall(GET * 19 + GET_LAST)
    responses = read_responses(read_all(peer))
    assert [len(each.body) for each in responses] == [40_000] * 20


def test_an_endless_answer_pauses_for_a_slow_reader(live):
    class Stream(Pausing):
        sent = 0

        def answer(self, request):
            self.start(200)
            self.pump()

        def pump(self):
            while not self.paused and self.sent < 5_000_000:
                self.sent += 10_000
                self.write(bytes(10_000))
            if not self.paused:
                self.end()

        def on_resume_writing(self):
            super().on_resume_writing()
            self.pump()

    server, peer, http = live(Stream)
    peer.sendall(GET_LAST)
    received = read_exactly(peer, 10)
    for _ in range(3):
        in_loop(server, lambda: None)
    assert http.sent < 5_000_000
    (response,) = read_responses(received + read_all(peer))
    assert response.body == bytes(5_000_000)


def test_an_answer_may_end_in_the_pause(live):
    class Impatient(Noting):
        over = False

        def answer(self, request):
            self.start(200)
            for _ in range(10_000):
                if self.over:
                    break
                self.write(bytes(20_000))

        def on_pause_writing(self):
            self.over = True
            self.write(b"enough")
            self.end()

    _, peer, _ = live(Impatient)
    peer.sendall(GET_LAST)
    (response,) = read_responses(read_all(peer))
    assert response.complete
    assert response.body.endswith(b"enough")
    assert response.body.strip(b"\0") == b"enough"


def test_a_close_in_the_pause_ends_the_pipeline(live):
    class Impatient(Noting):
        def answer(self, request):
            self.respond(200, [], bytes(5_000_000))

        def on_pause_writing(self):
            self.close_socket_connection()

    _, peer, http = live(Impatient)
    peer.sendall(GET + GET)
    response, _ = read_response(read_all(peer))
    assert response.status == 200
    assert len(http.requests) == 1


@pytest.mark.parametrize("length", [16384, 100_000, 1 << 20, (1 << 20) + 1])
@pytest.mark.parametrize("with_head", [0, 1, 20_000])
@pytest.mark.parametrize("memory", [1 << 28, 300_000])
def test_large_uploads(live, length, with_head, memory):
    """Received in place, if it is known to fit and there is room."""
    body = os.urandom(length)
    _, peer, http = live(Echo, body_memory_total=memory)
    data = post(body, "Connection: close")
    head = len(data) - length
    sender = threading.Thread(
        target=lambda: (
            peer.sendall(data[: head + with_head]),
            peer.sendall(data[head + with_head :]),
        )
    )
    sender.start()
    (response,) = read_responses(read_all(peer))
    sender.join()
    assert response.body == body
    assert len(http.requests) == 1


@pytest.mark.parametrize("sent", [20, 90])
def test_a_body_that_is_given_up_takes_no_room(live, sent):
    server, peer, http = live(Closing, body_memory=50)
    peer.sendall(post(bytes(sent), length=100))
    for _ in range(3):
        in_loop(server, lambda: None)
    (context,) = server._http_contexts.values()
    assert sum(context.store.used) == sent
    reset(peer)
    await_(http.closed)
    assert context.store.used == (0, 0)


@pytest.mark.parametrize(
    "sent",
    [
        b"\r\n" * 5,
        b"GET / HT",
        CHUNKED_HEAD[:-2] + b"A: b\r\n" * 40,
        post(b"body")[:-1],
        CHUNKED_HEAD + b"5\r\nab",
        CHUNKED[:-2],
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        post(b"") + GET[:9],
    ],
)
def test_what_a_lost_client_began_does_not_reach_the_next(live, sent):
    server, peer, http = live(answering(Noting.answer, Closing))
    peer.sendall(sent)
    for _ in range(3):
        in_loop(server, lambda: None)
    reset(peer)
    await_(http.closed)
    with connect(server.port) as other:
        other.sendall(b"\r\n" * 5 + GET[:9])
        in_loop(server, lambda: None)
        other.sendall(GET[9:] + post(b"body") + GET_LAST)
        responses = read_responses(read_all(other))
    assert [response.body for response in responses] == [
        b"GET / ", b"POST / ", b"GET /last "
    ]  # fmt: skip


def test_connections_do_not_mix_though_they_share_parsers():
    first = Connection()
    second = Connection(beside=first)
    for data in b"\r\n" * 5, GET[:20], GET[20:] + CHUNKED[:-9], CHUNKED[-9:]:
        first.feed(data)
        second.feed(b"\r\n" * 5 + CHUNKED + GET[:9]).feed(GET[9:])
    assert [r.body for r in first.responses()] == [b"GET / ", b"POST / "]
    assert [r.body for r in second.responses()] == [b"POST / ", b"GET / "] * 4


def test_the_connection_is_over_once(live):
    for end in ("close", "reset"):
        server, peer, http = live(Closing)
        peer.sendall(GET)
        await_(http.asked)
        if end == "close":
            in_loop(server, http.respond, 200)
            peer.close()
        else:
            reset(peer)
        await_(http.closed)
        in_loop(server, http.respond, 200)
        in_loop(server, http.close_socket_connection)
        in_loop(server, lambda: None)
        assert not http.closed.acquire(blocking=False)


@pytest.mark.parametrize(
    "sent", [b"", b"\r\n", b"GET / HT", post(b"body")[:-1], CHUNKED[:-2]]
)
def test_the_clients_side_ends_before_a_request(live, sent):
    _, peer, http = live(Closing)
    peer.sendall(sent)
    peer.shutdown(socket.SHUT_WR)
    assert read_all(peer) == b""
    await_(http.closed)
    assert http.requests == []


def test_the_clients_side_ends_behind_a_request(live):
    """Half-close is no reason not to answer (RFC 9112 section 9.6)."""
    server, peer, http = live(Closing)
    peer.sendall(GET)
    await_(http.asked)
    peer.shutdown(socket.SHUT_WR)
    for _ in range(3):
        in_loop(server, lambda: None)
    in_loop(server, http.start, 200)
    in_loop(server, http.write, b"late")
    in_loop(server, http.end)
    (response,) = read_responses(read_all(peer))
    assert response.headers["connection"] == "close"
    assert response.body == b"late"
    await_(http.closed)


def test_the_clients_side_ends_within_the_answer(live):
    server, peer, http = live(Closing)
    peer.sendall(GET)
    await_(http.asked)
    in_loop(server, http.start, 200)
    peer.shutdown(socket.SHUT_WR)
    for _ in range(3):
        in_loop(server, lambda: None)
    in_loop(server, http.write, b"late")
    in_loop(server, http.end)
    (response,) = read_responses(read_all(peer))
    assert response.body == b"late"


@pytest.mark.usefixtures("often_swept")
def test_the_clients_side_ends_behind_pipelined_requests(live):
    server, peer, http = live(Closing)
    peer.sendall(GET * 3)
    peer.shutdown(socket.SHUT_WR)
    for at in range(3):
        await_(http.asked)
        in_loop(server, http.respond, 200, [], b"%d" % at)
    responses = read_responses(read_all(peer))
    assert [each.body for each in responses] == [b"0", b"1", b"2"]


def test_an_idle_connection_is_closed(live):
    _, peer, http = live(Closing, keep_alive=0.05)
    assert read_all(peer) == b""
    await_(http.closed)


@pytest.mark.usefixtures("often_swept")
@pytest.mark.parametrize("after", [b"", b"\r", b"\r\n"])
def test_an_idle_connection_is_closed_after_an_answer(live, after):
    server, peer, _ = live(keep_alive=0.05, header_timeout=0.05)
    peer.sendall(GET + after)
    received = read_exactly(peer, 20)
    if after == b"\r":
        in_loop(server, lambda: None)
        peer.sendall(b"\n")
    (response,) = read_responses(received + read_all(peer))
    assert response.status == 200


def test_an_idle_close_does_not_race_a_request(live):
    server, _, _ = live(keep_alive=0.1)

    def arrive():
        """Behind the wait for events, before the look at the deadlines."""
        peer.sendall(GET_LAST)
        assert not threading.Event().wait(0.2)
        server._connections.dispatch(Events(1))
        server._connections.sweep()

    with halted(server):
        peer = connect(server.port)
        # In the turn that accepts it.
        server.call_soon_threadsafe(arrive)
    with peer:
        (response,) = read_responses(read_all(peer))
    assert response.status == 200


in_two_parts = pytest.mark.parametrize(
    ("begun", "rest"),
    [
        (GET_LAST[:10], GET_LAST[10:]),
        (post(b"", "Connection: close", length=9999), bytes(9999)),
    ],
    ids=["head", "body"],
)


@in_two_parts
def test_time_is_up_only_where_it_was_looked_at(live, begun, rest):
    """What came in a long turn of others came in time."""
    server, peer, _ = live(header_timeout=0.1, body_timeout=0.1)

    def be_long():
        peer.sendall(rest)
        assert not threading.Event().wait(0.2)
        server._connections.sweep()

    with halted(server):
        peer.sendall(begun)
        # In the turn that receives it.
        server.call_soon_threadsafe(be_long)
    (response,) = read_responses(read_all(peer))
    assert response.status == 200


@pytest.mark.usefixtures("often_swept")
@in_two_parts
def test_no_time_is_up_while_the_client_has_to_read(live, begun, rest):
    asked = threading.Event()

    class Large(Noting):
        def answer(self, request):
            asked.set()
            self.respond(200, [], bytes(120_000))

    _, peer, _ = live(Large, header_timeout=0.1, body_timeout=0.1)
    peer.sendall(GET + begun)
    assert asked.wait(PATIENCE)
    peer.sendall(rest)
    assert not threading.Event().wait(0.5)
    first, second = read_responses(read_all(peer), "GET", "GET")
    assert (first.status, second.status) == (200, 200)


def test_time_goes_on_once_the_client_has_read(live, error_log):
    """A body that was announced with much unsent has a deadline, too."""

    class Large(Noting):
        def answer(self, request):
            self.respond(200, [], bytes(120_000))

    size = 65536  # of the receive buffer
    head = (
        b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n"
        b"Content-Length: 1000000\r\n"
    )
    field = b"X-Long: " + b"y" * 9990 + b"\r\n"
    left = size - len(GET + head + b"\r\n")
    fields = field * (left // len(field))
    left -= len(fields) + len(b"X: \r\n")
    fields += b"X: " + b"z" * left + b"\r\n"
    sent = GET + head + fields + b"\r\n"
    assert len(sent) == size
    server, peer, _ = live(Large, body_timeout=0.1, keep_alive=60)
    with halted(server):
        sending = threading.Thread(target=peer.sendall, args=(sent + bytes(9),))
        sending.start()
        # All of it is there when it fits; the rest of it does not matter.
        sending.join(PATIENCE)
    received = read_all(peer)
    assert b"HTTP/1.1 408 " in received


def test_an_application_has_time(live):
    server, peer, http = live(
        Closing, keep_alive=0.05, header_timeout=0.05, body_timeout=0.05
    )
    peer.sendall(post(b"body", "Connection: close"))
    await_(http.asked)
    time_passes(server, 0.6)
    in_loop(server, http.respond, 200)
    (response,) = read_responses(read_all(peer))
    assert response.status == 200


def test_a_slow_application_does_not_use_up_the_time_of_others(live):
    never = threading.Event()

    def answer(self, request):
        if request.path == "/slow":
            assert not never.wait(0.9)
            # In the turn after the next.
            go_on = self.server.call_soon, other.sendall, GET_LAST[10:]
            self.server.call_soon(*go_on)
        self.respond(200)

    server, peer, _ = live(answering(answer), header_timeout=0.6)
    with connect(server.port) as other:
        in_loop(server, lambda: None)
        with halted(server):
            peer.sendall(GET_LAST.replace(b"last", b"slow"))
            other.sendall(GET_LAST[:10])
        read_all(peer)
        (response,) = read_responses(read_all(other))
    assert response.status == 200


def test_the_first_byte_starts_the_time_for_the_head(live):
    server, peer, http = live(Closing, keep_alive=0, header_timeout=0.3)
    time_passes(server, 0.6)
    received = bytearray()
    while not received:
        peer.sendall(b"A")
        time_passes(server, 0.05)
        add_what_came(peer, received)
    (response,) = read_responses(received + read_all(peer))
    assert response.status == 408
    assert b"header_timeout" in response.body
    assert response.headers["connection"] == "close"
    peer.close()
    await_(http.closed)


@pytest.mark.usefixtures("often_swept")
@pytest.mark.parametrize("sent", [post(b"body")[:-1], CHUNKED[:-1]])
def test_a_body_that_does_not_come(live, sent):
    _, peer, http = live(Closing, body_timeout=0.05)
    peer.sendall(sent)
    (response,) = read_responses(read_all(peer))
    assert response.status == 408
    assert b"body_min_rate" in response.body
    assert http.requests == []


@pytest.mark.usefixtures("often_swept")
@pytest.mark.parametrize(
    ("sent", "shown"),
    [(b"GET / H", "byte 6 of b'GET / H'"), (post(b"ab")[:-1], "of b''")],
)
def test_what_does_not_come_is_logged(live, error_log, sent, shown):
    _, peer, _ = live(Closing, header_timeout=0.05, body_timeout=0.05)
    peer.sendall(sent)
    assert b" 408 " in read_all(peer)
    assert error_log.take("refused with 408").endswith(shown)


def test_a_body_that_stops_after_a_good_beginning(live):
    """What came in the time before does not count for the next."""
    _, peer, http = live(Closing, body_timeout=0.1, body_min_rate=100)
    peer.sendall(post(bytes(60_000), length=100_000))
    (response,) = read_responses(read_all(peer))
    assert response.status == 408
    assert http.requests == []


def test_a_body_that_comes_byte_by_byte_does_not_come(live):
    server, peer, _ = live(Closing, body_timeout=0.3)
    peer.sendall(post(b"", length=1000))
    received = bytearray()
    for _ in range(100):
        peer.sendall(b"x")
        time_passes(server, 0.05)
        add_what_came(peer, received)
        if received:
            break
    assert received, "only when no more bytes came"
    (response,) = read_responses(received + read_all(peer))
    assert response.status == 408


def test_a_body_that_comes_slowly_has_time(live):
    @once_steadily
    def attempt():
        server, peer, http = live(Closing, body_timeout=0.5, body_min_rate=10)

        def begin():
            peer.sendall(post(b"", length=1000))

        def go_on():
            peer.sendall(b"x" * 125)

        steadily(server, 0.1, [begin, *[go_on] * 8])
        await_(http.asked)
        assert http.requests[0].body == b"x" * 1000


def test_a_body_that_comes_no_more_has_no_time(live):
    """However much of it has come before."""
    server, peer, _ = live(body_timeout=0.5, body_min_rate=10)
    peer.sendall(post(b"", length=9000))
    time_passes(server, 0.1)
    peer.sendall(b"x" * 5000)
    assert b" 408 " in read_all(peer)


def test_no_deadlines(live):
    server, peer, http = live(
        Closing, keep_alive=0, header_timeout=0, body_timeout=0
    )
    for part in (
        b"GET / HTTP/1.1\r\n",
        b"Host: a\r\nContent-Length: 2\r\n\r\n",
    ):
        time_passes(server, 0.3)
        peer.sendall(part)
    peer.sendall(b"ab")
    await_(http.asked)


# Drain.


def test_drain_closes_what_is_idle(live):
    server, peer, http = live(Closing)
    peer.sendall(GET)
    await_(http.asked)
    in_loop(server, http.respond, 200, [("Connection", "keep-alive")])
    server.shutdown()
    responses = read_responses(read_all(peer))
    assert [each.status for each in responses] == [200]
    await_(http.closed)


@pytest.mark.parametrize("cut", [0, 1, len(GET) - 1])
def test_drain_waits_for_a_request_on_its_way(live, cut):
    server, _, _ = live()

    def drain():
        server._drain(None)
        server.call_soon(peer.sendall, GET[cut:])

    with halted(server):
        peer = connect(server.port)
        peer.sendall(GET[:cut])
        # In the turn that accepts it.
        server.call_soon_threadsafe(drain)
    with peer:
        (response,) = read_responses(read_all(peer))
    assert response.status == 200
    assert response.headers["connection"] == "close"


def test_drain_waits_for_a_body(live):
    server, peer, _ = live(Echo)
    peer.sendall(post(b"body")[:-2])
    in_loop(server, lambda: None)
    server.shutdown()
    in_loop(server, lambda: None)
    peer.sendall(b"dy")
    (response,) = read_responses(read_all(peer))
    assert response.headers["connection"] == "close"
    assert response.body == b"body"


def test_drain_waits_for_the_application(live):
    server, peer, http = live(Closing)
    peer.sendall(GET + GET)
    await_(http.asked)
    server.shutdown()
    in_loop(server, http.respond, 200, [], b"one")
    await_(http.asked)
    in_loop(server, http.respond, 200, [], b"two")
    one, two = read_responses(read_all(peer))
    assert (one.body, two.body) == (b"one", b"two")
    assert "connection" not in one.headers
    assert two.headers["connection"] == "close"


def test_drain_waits_for_the_rest_of_an_answer(live):
    server, peer, http = live(Closing)
    peer.sendall(GET)
    await_(http.asked)
    in_loop(server, http.start, 200)
    server.shutdown()
    in_loop(server, http.write, b"the ")
    in_loop(server, http.write, b"rest")
    in_loop(server, http.end)
    (response,) = read_responses(read_all(peer))
    assert response.body == b"the rest"


def test_only_the_loops_thread_answers(live):
    server, peer, http = live(Closing)
    peer.sendall(GET)
    await_(http.asked)
    for call in (http.respond, http.start):
        with pytest.raises(AppError, match="call_soon_threadsafe"):
            call(200)
    in_loop(server, http.start, 200)
    with pytest.raises(AppError, match="call_soon_threadsafe"):
        http.write(b"elsewhere")
    with pytest.raises(AppError, match="call_soon_threadsafe"):
        http.end()
    in_loop(server, http.write, b"here")
    in_loop(server, http.end)
    server.shutdown()
    (response,) = read_responses(read_all(peer))
    assert response.body == b"here"


def test_drain_tells_who_streams(live):
    class Stream(Closing):
        def on_shutdown(self):
            self.write(b"bye")
            self.end()

    server, peer, http = live(Stream)
    peer.sendall(GET)
    await_(http.asked)
    in_loop(server, http.start, 200)
    server.shutdown()
    (response,) = read_responses(read_all(peer))
    assert response.complete
    assert response.body == b"bye"


def test_drain_answers_what_is_pipelined(live):
    def answer(self, request):
        self.respond(200, [], bytes(300_000))

    server, peer, _ = live(answering(answer))
    peer.sendall(GET * 10)
    received = read_exactly(peer, 10)
    server.shutdown()
    time_passes(server, 0.6)
    responses = read_responses(received + read_all(peer))
    assert len(responses) == 10
    assert responses[-1].headers["connection"] == "close"


def test_drain_answers_what_waits_for_its_turn(live):
    def answer(self, request):
        self.respond(200, [], b"x")
        self.server.shutdown()

    server, peer, _ = live(answering(answer), limit_pipelined=1)
    time_passes(server, 0.3)
    peer.sendall(GET * 3)
    assert len(read_responses(read_all(peer))) == 3


def test_drain_answers_what_has_come_in_the_same_turn(live):
    def come():
        peer.sendall(GET)
        server._drain(None)

    server, peer, _ = live()
    time_passes(server, 0.3)
    in_loop(server, come)
    assert len(read_responses(read_all(peer))) == 1


def test_drain_answers_what_waits_in_the_kernel(live):
    server, peer, _ = live()
    with contextlib.ExitStack() as stack:
        with halted(server):
            peers = [stack.enter_context(connect(server.port)) for _ in "12345"]
            for each in (peer, *peers):
                each.sendall(GET)
            server.shutdown()
        for each in (peer, *peers):
            (response,) = read_responses(read_all(each))
            assert response.status == 200
