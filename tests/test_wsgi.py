"""PEP 3333, with the application in the loop and in a pool of threads."""

import bz2
import contextlib
import contextvars
import ctypes
import errno
import functools
import gc
import gzip
import io
import itertools
import logging
import lzma
import operator
import os
import pathlib
import queue
import random
import select
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
import weakref
from wsgiref.util import request_uri
from wsgiref.validate import validator

import pytest
from fakes import Waiting

import fasthttp
from fasthttp import listeners
from fasthttp._environ import EnvironTemplate, environ_base
from fasthttp._fields import KNOWN_NAMES
from fasthttp._parser import RequestParser
from fasthttp._wsgi import FileWrapper
from fasthttp.errors import AppError
from tests.apps.bodies import BLOCK
from tests.apps.wire import PATIENCE, Connection

TEXT = [("Content-Type", "text/plain")]


@pytest.fixture(autouse=True)
def errors(error_log):
    """Fails a test that leaves an error in the log which it did not take."""
    yield error_log
    assert not [
        record.getMessage()
        for record in error_log.records
        if record.levelno >= logging.WARNING
    ]


@pytest.fixture(params=[0, 2], ids=["loop", "pool"])
def threads(request):
    return request.param


@pytest.fixture
def serve(threads, errors, monkeypatch):
    """Serves an application in this process; returns its address."""
    with contextlib.ExitStack() as servers:

        def serve(app, **settings):
            settings = {"threads": threads, "port": 0} | settings
            server = servers.enter_context(fasthttp.Server(app, **settings))
            return server.addresses[0]

        yield serve
        # Nobody is about to connect when a test is over.
        monkeypatch.setattr(listeners, "HANDSHAKE_SECONDS", 0)


@pytest.fixture
def connect(serve):
    """Serves an application and connects to it."""
    with contextlib.ExitStack() as clients:

        def connect(app, *, receive_buffer=0, **settings):
            address = serve(app, **settings)
            return clients.enter_context(
                Connection(address, receive_buffer=receive_buffer)
            )

        yield connect


@pytest.fixture
def slow(connect, serve):
    """As `connect`, with the least the kernel will buffer between both."""

    def slow(app, **settings):
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32768)
            listener.bind(("127.0.0.1", 0))
            return connect(
                app, sockets=[listener.dup()], receive_buffer=32768, **settings
            )

    return slow


class Body:
    """An iterable that counts what is asked of it and notes its close()."""

    def __init__(self, *chunks):
        self.iterator = iter(chunks)
        self.asked = 0
        self.closed = threading.Event()
        self.closings = 0

    def __iter__(self):
        return self

    def __next__(self):
        self.asked += 1
        return next(self.iterator)

    def close(self):
        self.closings += 1
        self.closed.set()

    def is_closed_once(self):
        return self.closed.wait(PATIENCE) and self.closings == 1


class Endless(Body):
    def __init__(self, chunk=BLOCK):
        super().__init__()
        self.iterator = itertools.repeat(chunk)


def answer(body, *, status="200 OK", headers=TEXT):
    """An application that always answers the same."""

    def app(environ, start_response):
        start_response(status, list(headers))
        return body() if callable(body) else body

    return app


def by_path(**apps):
    """Calls the application named by the path; / answers `here`."""
    apps.setdefault("", answer([b"here"]))

    def app(environ, start_response):
        return apps[environ["PATH_INFO"][1:]](environ, start_response)

    return app


def seen(environ):
    """Everything of an environ that has a readable representation."""
    return {name: value for name, value in environ.items() if "." not in name}


@pytest.fixture
def ask(connect):
    """Sends one request and returns the environ made of it."""
    found = {}

    def app(environ, start_response):
        found.update(environ)
        start_response("200 OK", TEXT)
        return [b""]

    def ask(*arguments, client=None, **options):
        client = client or connect(app)
        found.clear()
        assert client.get(*arguments, **options).status == 200
        return found

    ask.app = app
    return ask


# environ


def test_environ_of_a_plain_request(connect, ask, threads):
    client = connect(ask.app)
    host, port = client.socket.getpeername()
    own_host, own_port = client.socket.getsockname()
    environ = ask("/a/b?c=d", client=client)
    assert seen(environ) == {
        "GATEWAY_INTERFACE": "CGI/1.1",
        "HTTP_HOST": "test",
        "PATH_INFO": "/a/b",
        "QUERY_STRING": "c=d",
        "RAW_URI": "/a/b?c=d",
        "REMOTE_ADDR": own_host,
        "REMOTE_PORT": str(own_port),
        "REQUEST_METHOD": "GET",
        "REQUEST_URI": "/a/b?c=d",
        "SCRIPT_NAME": "",
        "SERVER_NAME": host,
        "SERVER_PORT": str(port),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_SOFTWARE": environ["SERVER_SOFTWARE"],
    }
    assert environ["SERVER_SOFTWARE"].startswith("fasthttp")
    assert environ["wsgi.version"] == (1, 0)
    assert environ["wsgi.url_scheme"] == "http"
    assert environ["wsgi.errors"] is sys.stderr
    assert environ["wsgi.multithread"] is (threads > 1)
    assert environ["wsgi.multiprocess"] is False
    assert environ["wsgi.run_once"] is False
    assert environ["wsgi.input_terminated"] is True
    assert callable(environ["wsgi.file_wrapper"])
    assert environ["wsgi.input"].read() == b""
    assert type(environ) is dict


def test_one_thread_is_not_multithread(connect, ask):
    client = connect(ask.app, threads=1)
    assert ask("/", client=client)["wsgi.multithread"] is False


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("/", "/", ""),
        ("/?", "/", ""),
        ("/a%20b%2Fc", "/a b/c", ""),
        ("/%C3%A9%ff", "/\xc3\xa9\xff", ""),
        ("/a+b;c=d//e", "/a+b;c=d//e", ""),
        ("/%3Fa?%3F%20+", "/?a", "%3F%20+"),
        ("/a?b?c&d", "/a", "b?c&d"),
        ("http://other:81/a%41?b", "/aA", "b"),
        ("http://other", "/", ""),
        ("http://other?b", "/", "b"),
    ],
)
def test_path_and_query(ask, target, path, query):
    environ = ask(target)
    assert environ["PATH_INFO"] == path
    assert environ["QUERY_STRING"] == query
    assert environ["RAW_URI"] == environ["REQUEST_URI"] == target
    assert environ["SCRIPT_NAME"] == ""


def test_the_authority_of_the_target_replaces_host(ask):
    """RFC 9112 section 3.2.2."""
    assert ask("http://other:81/")["HTTP_HOST"] == "other:81"


def test_asterisk_form(ask):
    environ = ask("*", method="OPTIONS")
    assert environ["REQUEST_METHOD"] == "OPTIONS"
    assert environ["RAW_URI"] == "*"


@pytest.mark.parametrize(
    "method", ["GET", "POST", "PUT", "DELETE", "PATCH", "BREW", "get"]
)
def test_methods_come_as_they_are(ask, method):
    assert ask("/", method=method)["REQUEST_METHOD"] == method


def test_header_fields(ask):
    environ = ask(
        "/",
        "Accept: a",
        "X-Test: 1",
        "cookie: a=1",
        "accept:b",
        "X-TEST:2",
        "x-test:",
        "Cookie: b=2; c=3",
        "Content-Type: text/plain",
        "X-Latin: \xe9\xff",
        "X-Spaces: \t a  b \t",
        "Empty:",
        "X-Odd!~: odd",
    )
    assert environ["HTTP_ACCEPT"] == "a, b"
    assert environ["HTTP_X_TEST"] == "1, 2, "
    assert environ["HTTP_COOKIE"] == "a=1; b=2; c=3"
    assert environ["CONTENT_TYPE"] == "text/plain"
    assert environ["HTTP_X_LATIN"] == "\xe9\xff"
    assert environ["HTTP_X_SPACES"] == "a  b"
    assert environ["HTTP_EMPTY"] == ""
    assert environ["HTTP_X_ODD!~"] == "odd"
    assert "HTTP_CONTENT_TYPE" not in environ
    assert "CONTENT_LENGTH" not in environ


def test_names_with_an_underscore_are_dropped(ask):
    """They would pass for the same name with a hyphen."""
    environ = ask(
        "/",
        "X_Forwarded_For: evil",
        "X-Forwarded-For: good",
        "X-Forwarded_For: evil",
        "_: evil",
        "Content_Type: evil",
        "Content_Length: 5",
    )
    assert environ["HTTP_X_FORWARDED_FOR"] == "good"
    assert "evil" not in environ.values()
    assert "CONTENT_LENGTH" not in environ


def test_values_are_native_strings(ask):
    environ = ask("/%ff?%ff", "X: \xff", method="POST", body=b"a")
    for name, value in environ.items():
        assert type(name) is str
        if "." not in name:
            assert type(value) is str
            value.encode("latin-1")


def test_protocol_of_http_10(connect):
    def app(environ, start_response):
        start_response("200 OK", TEXT)
        return [environ["SERVER_PROTOCOL"].encode()]

    client = connect(app).send(b"GET / HTTP/1.0\r\n\r\n")
    assert client.response().body == b"HTTP/1.0"
    assert client.at_end()


def test_remote_address_of_other_families(serve, ask, tmp_path):
    listener = socket.socket(socket.AF_INET6)
    listener.bind(("::1", 0))
    address = serve(ask.app, sockets=[listener])
    with Connection(address) as client:
        port = str(client.socket.getsockname()[1])
        environ = ask("/", client=client)
        assert environ["REMOTE_ADDR"] == "::1"
        assert environ["REMOTE_PORT"] == port
        del environ["HTTP_HOST"]
        assert request_uri(environ) == f"http://[::1]:{address[1]}/"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "socket"))
    address = serve(validator(ask.app), sockets=[listener])
    with Connection(address) as client:
        environ = ask("/", client=client)
        assert environ["REMOTE_ADDR"] == ""
        assert environ["SERVER_NAME"]
        assert environ["SERVER_PORT"]


HEADS = [
    (line + fields + "Connection: keep-alive\r\n\r\n").encode("latin-1")
    for line, fields in itertools.product(
        (
            "GET / HTTP/1.1\r\n",
            "GET / HTTP/1.0\r\n",
            "HEAD / HTTP/1.1\r\n",
            "GET /%61/b?c=d HTTP/1.1\r\n",
            "GET http://absolute/ HTTP/1.1\r\n",
            "GET http://absolute HTTP/1.1\r\n",
            "OPTIONS * HTTP/1.1\r\n",
        ),
        (
            "Host: a\r\n",
            "Host: a\r\n",
            "Host: b\r\n",
            "Host: a\r\nAccept: 1\r\n",
            "Host: a\r\nAccept: 2\r\n",
            "Host: a\r\nAccept: 1\r\nAccept: 2\r\n",
            "Host: a\r\nReferer: 1\r\n",
            "Host: a\r\nReferer: \xe9\r\n",
            "Host: a\r\nCookie: 1\r\nAccept: 2\r\nCookie: 3\r\n",
            "Host: a\r\nX-Own: 1\r\n",
            "Host: a\r\nCookie: 1\r\n",
            "Host: a\r\nAuthorization: 1\r\n",
            "Host: a\r\nContent-Length: 0\r\n",
            "Host: a\r\n" + "Accept: 1\r\n" * 40,
        ),
    )
] + [
    head.replace(b"\r\n\r\n", b"\r\nConnection: keep-alive\r\n\r\n")
    for head in (
        b"GET http://absolute/ HTTP/1.0\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody",
    )
] * 9


CHANGES = [
    dict.clear,
    dict.popitem,
    lambda environ: environ.setdefault("own.key", "left"),
    lambda environ: environ.update(REQUEST_METHOD="PUT"),
    lambda environ: environ.pop("HTTP_HOST", None),
    lambda environ: environ.__ior__({"HTTP_HOST": "other"}),
    lambda environ: environ.__delitem__("REQUEST_METHOD"),
    lambda environ: environ.update({"own.key": environ}),
]


def test_an_environ_that_serves_again_is_as_good_as_new(connect):
    """Whatever came before, and whatever an application did with it."""
    chance = random.Random(11)
    changes = []
    made = {}
    kept = []

    def app(environ, start_response):
        body = environ["wsgi.input"].read()
        made[environ["REMOTE_PORT"]] = dict(environ, body=body)
        change = changes.pop() if changes else bool
        change(environ)
        start_response("200 OK", TEXT)
        if change is bool:
            return [b""]
        return (b"" for _ in "held" if environ is not None)

    def keep(environ):
        kept.append((environ, dict(environ)))

    def ask(clients, heads):
        asked = chance.sample(clients, chance.choice([1, 1, 2, len(clients)]))
        sent = [chance.choice(heads) for _ in asked]
        for client, head in zip(asked, sent, strict=True):
            client.send(head)
        for client, head in zip(asked, sent, strict=True):
            client.response(head.split()[0].decode())
            fresh = EnvironTemplate(environ_base(), address)
            expected = fresh.environ_of(RequestParser(), head)
            port = str(client.socket.getsockname()[1])
            expected |= {"REMOTE_ADDR": "127.0.0.1", "REMOTE_PORT": port}
            expected["body"] = head.partition(b"\r\n\r\n")[2]
            assert seen(made[port]) == seen(expected)

    clients = [connect(app)]
    address = clients[0].socket.getpeername()
    with contextlib.ExitStack() as others:
        for _ in range(4):
            clients.append(others.enter_context(Connection(address)))
        for change in [*CHANGES, repr, keep] * 3:
            heads = chance.sample(HEADS, 2)
            # Until both are lent, and a while after the change.
            for count in (70, 10):
                for _ in range(count):
                    ask(clients, heads)
                changes.append(change)
    assert len(kept) == 5
    assert all(environ == before for environ, before in kept)


@pytest.mark.parametrize("body", [b"", b"body"])
def test_an_environ_left_as_it_was_is_not_copied(connect, body):
    sender = os.urandom(8).hex()
    kept = set()
    lent = []

    def app(environ, start_response):
        lent.append(id(environ) in kept)
        if environ["PATH_INFO"] == "/change":
            environ["HTTP_FROM"] = "other"
        start_response("200 OK", TEXT)
        return [b""]

    client = connect(app)
    for path in (*["/"] * 4, "/change", *["/"] * 66):
        client.get(path, f"From: {sender}", body=body)
        kept = {
            id(each)
            for each in gc.get_objects()
            if type(each) is dict and each.get("HTTP_FROM") == sender
        }
    # A row of fields is known when it has come twice. Who has changed one
    # gets copies for a while.
    assert lent == [False, False, *[True] * 3, *[False] * 64, True, True]


def test_a_body_nobody_has_read_is_not_the_next_ones(connect):
    def app(environ, start_response):
        start_response("200 OK", TEXT)
        if environ["PATH_INFO"] == "/read":
            return [environ["wsgi.input"].read()]
        return [b""]

    client = connect(app)
    for _ in range(4):
        client.get("/", method="POST", body=b"secret")
        answer = client.get("/read", "Content-Length: 0", method="POST")
        assert answer.body == b""


@pytest.mark.parametrize("name", ["Cookie", "Authorization"])
def test_credentials_are_not_kept_beyond_their_request(connect, name):
    def app(environ, start_response):
        start_response("200 OK", TEXT)
        return [environ[f"HTTP_{name.upper()}"].encode()]

    client = connect(app)
    secret = os.urandom(16).hex()
    assert client.get("/", f"{name}: {secret}").body == secret.encode()
    assert client.get("/", f"{name}: other").body == b"other"
    assert client.get("/", f"{name}: {secret}").body == secret.encode()
    gc.unfreeze()
    gc.collect()
    holders = [
        found
        for found in gc.get_objects()
        if type(found) is dict and f"HTTP_{name.upper()}" in found
    ]
    gc.freeze()
    assert secret not in [each[f"HTTP_{name.upper()}"] for each in holders]


def let_threads_drop(client):
    """Without the GIL, one ends what others have dropped when it runs."""
    for _ in range(4):
        assert client.get("/").body == b"here"


@pytest.mark.parametrize("place", ["environ", "context"])
@pytest.mark.parametrize("fails", [False, True])
def test_what_is_left_of_a_request_ends_in_its_thread(
    connect, errors, place, fails
):
    """It may be slow, as the end of a transaction is."""
    places = queue.SimpleQueue()

    class Left:
        def __del__(self):
            places.put(threading.get_ident())

    def app(environ, start_response):
        if environ["PATH_INFO"] == "/":
            return answer([b"here"])(environ, start_response)
        places.put(threading.get_ident())
        if place == "environ":
            environ["own.key"] = Left()
        else:
            variable.set(Left())
        # The log of the test keeps frames.
        del environ
        if fails:
            raise ZeroDivisionError
        start_response("200 OK", TEXT)
        return []

    client = connect(app)
    # The third is lent its environ.
    for _ in range(3):
        assert client.get("/left").status == (500 if fails else 200)
        if fails:
            errors.take("ZeroDivisionError")
        let_threads_drop(client)
        assert places.get(timeout=PATIENCE) == places.get(timeout=PATIENCE)


def test_an_environ_that_is_kept_stays_as_it_is(connect):
    kept = []

    def app(environ, start_response):
        kept.append((environ, dict(environ)))
        start_response("200 OK", TEXT)
        return [b""]

    client = connect(app)
    for number in range(6):
        client.get(f"/{number}", f"Cookie: {number}")
    assert len(kept) == 6
    assert all(environ == before for environ, before in kept)


def test_what_serves_again_is_bounded():
    """Of a row of fields that many send at a time; each serves many times."""
    most, used, go_on = 64, set(), threading.Event()
    go_on.set()

    def app(environ, start_response):
        assert go_on.wait(PATIENCE)
        used.update([id(environ), id(start_response.__self__)])
        start_response("200 OK", TEXT)
        return []

    def left():
        gc.collect()
        found = [each for each in gc.get_objects() if id(each) in used]
        # What is of another kind is where one has been.
        environs = [x for x in found if type(x) is dict and "wsgi.input" in x]
        calls = [x for x in found if type(x).__name__ == "WsgiCall"]
        return [len(environs), len(calls)]

    with (
        fasthttp.Server(app, port=0, threads=1) as server,
        contextlib.ExitStack() as clients,
    ):
        connections = [
            clients.enter_context(Connection(server.addresses[0]))
            for _ in range(most + 10)
        ]
        for _ in range(most + 10):
            assert connections[0].get().status == 200
        go_on.clear()
        for client in connections:
            client.request()
        # A refusal that comes after them: the loop has seen all.
        with Connection(server.addresses[0]) as refused:
            assert refused.send(b"?\r\n\r\n").response().status == 400
        go_on.set()
        for client in connections:
            assert client.response().status == 200
        with Connection(server.addresses[0]) as refused:
            assert refused.send(b"?\r\n\r\n").response().status == 400
        assert left() == [most, most]


def test_rows_of_fields_that_are_forgotten_leave_nothing(connect):
    client = connect(answer([b""]))
    counts = []
    for first in "Accept", "From", "Via":
        for second in KNOWN_NAMES[8:]:
            for _ in range(3):
                client.get("/", f"{first}: 1", f"{second}: 1")
        gc.collect()
        found = [type(each).__name__ for each in gc.get_objects()]
        counts.append(found.count("Shape"))
    assert counts == counts[:1] * 3


def test_an_environ_belongs_to_its_request(connect):
    foreign = {"HTTP_LEFT", "left.behind", "HTTP_X_FIRST", "CONTENT_LENGTH"}
    kept = []

    def app(environ, start_response):
        kept.append(dict(environ))
        environ["HTTP_LEFT"] = environ["left.behind"] = "x"
        environ["SCRIPT_NAME"] = environ["PATH_INFO"]
        del environ["REQUEST_METHOD"], environ["wsgi.version"]
        start_response("200 OK", TEXT)
        return [b""]

    client = connect(app)
    client.get("/", "X-First: 1", method="POST", body=b"first")
    client.get("/")
    fresh = Connection(client.socket.getpeername())
    with fresh:
        fresh.get("/")
    for environ in kept[1:]:
        assert environ["REQUEST_METHOD"] == "GET"
        assert environ["SCRIPT_NAME"] == ""
        assert environ["wsgi.version"] == (1, 0)
        assert environ["wsgi.input"].read() == b""
        assert foreign.isdisjoint(environ)


def test_wsgi_errors(connect, capsys):
    def app(environ, start_response):
        environ["wsgi.errors"].write("told\n")
        environ["wsgi.errors"].writelines(["one\n", "two\n"])
        environ["wsgi.errors"].flush()
        start_response("200 OK", TEXT)
        return []

    connect(app).get()
    assert capsys.readouterr().err == "told\none\ntwo\n"


def test_wsgi_errors_without_stderr(connect, monkeypatch):
    def app(environ, start_response):
        print("told", file=environ["wsgi.errors"])
        environ["wsgi.errors"].write("one\n")
        environ["wsgi.errors"].writelines(["two\n"])
        environ["wsgi.errors"].flush()
        start_response("200 OK", TEXT)
        return []

    monkeypatch.setattr(sys, "stderr", None)
    assert connect(app).get().status == 200


# wsgi.input


LINES = [b"first\n", b"second\r\n", b"\n", b"x" * 3000 + b"\n", b"last"]
WAYS_TO_READ = {
    "read": lambda stream: stream.read(),
    "read all": lambda stream: stream.read(-1),
    "read parts": lambda stream: b"".join(iter(lambda: stream.read(7), b"")),
    "read past the end": lambda stream: stream.read(1 << 20),
    "readline": lambda stream: b"".join(iter(stream.readline, b"")),
    "readline parts": lambda stream: b"".join(
        iter(lambda: stream.readline(100), b"")
    ),
    "readlines": lambda stream: b"".join(stream.readlines()),
    "iterate": lambda stream: b"".join(stream),
    "next": lambda stream: b"".join(iter(lambda: next(stream, b""), b"")),
    "text": lambda stream: read_by(
        io.TextIOWrapper(stream, "latin-1", newline="")
    ).encode("latin-1"),
    "buffered": lambda stream: read_by(io.BufferedReader(stream)),
}


def read_by(reader):
    """As `csv` and others read, who want a text or buffer on it."""
    try:
        return reader.read()
    finally:
        reader.detach()


@pytest.mark.parametrize("body_memory", [0, 10, 1 << 20])
def test_every_way_to_read_the_body(connect, body_memory):
    def app(environ, start_response):
        stream = environ["wsgi.input"]
        body = WAYS_TO_READ[environ["HTTP_WAY"]](stream)
        assert stream.read() == stream.read(1) == stream.readline() == b""
        assert stream.readlines() == list(stream) == []
        start_response("200 OK", TEXT)
        return [body]

    body = b"".join(LINES)
    client = connect(app, body_memory=body_memory)
    for way in WAYS_TO_READ:
        field = f"Way: {way}"
        got = client.get("/", field, method="POST", body=body)
        assert (way, got.status, got.body) == (way, 200, body)
        assert client.get("/", field).body == b""


def test_lines_of_the_body(connect):
    def app(environ, start_response):
        assert list(environ["wsgi.input"]) == LINES
        start_response("200 OK", TEXT)
        return [environ["CONTENT_LENGTH"].encode()]

    body = b"".join(LINES)
    got = connect(app).get("/", method="POST", body=body)
    assert (got.status, got.body) == (200, str(len(body)).encode())


@pytest.mark.parametrize("size", [0, 1, 5000, 300_000])
def test_a_chunked_body_arrives_whole(connect, size):
    def app(environ, start_response):
        assert environ["CONTENT_LENGTH"] == str(size)
        assert "HTTP_TRANSFER_ENCODING" not in environ
        assert "HTTP_X_TRAILER" not in environ
        start_response("200 OK", TEXT)
        return [environ["wsgi.input"].read()]

    body = (BLOCK * 5)[:size]
    client = connect(app, body_memory=100_000)
    client.request("/", "Transfer-Encoding: chunked", method="POST")
    for start in range(0, size, 999):
        part = body[start : start + 999]
        client.send(b"%x\r\n%b\r\n" % (len(part), part))
    client.send(b"0\r\nX-Trailer: x\r\n\r\n")
    got = client.response()
    assert (got.status, got.body) == (200, body)


BODY_SIZES = [1 << 20, 1 << 20, 700_000, 1 << 19, 40_000, 32_768, 1 << 20]


def test_bodies_do_not_share_their_memory(connect):
    """Large ones are received where others were before."""
    kept = []

    def app(environ, start_response):
        body = environ["wsgi.input"].read()
        start_response("200 OK", TEXT)
        if environ["PATH_INFO"] == "/keep":
            kept.append(body)
        return [b"%d" % hash(body)]

    client = connect(app)
    bodies = [
        os.urandom(16) + bytes([number]) * size
        for number, size in enumerate(BODY_SIZES * 2)
    ]
    for target in ("/", "/keep", "/"):
        for body in bodies:
            got = client.get(target, method="POST", body=body)
            assert int(got.body) == hash(body)
    assert kept == bodies


def test_a_large_body_is_received_where_the_last_one_was(connect):
    """The memory is neither given back to the system nor asked for anew."""

    def app(environ, start_response):
        start_response("200 OK", TEXT)
        return [b"%d" % len(environ["wsgi.input"].read())]

    client = connect(app)
    size = 1 << 18
    body = b"x" * size
    tracemalloc.start()
    try:
        for _ in range(3):
            assert client.get(method="POST", body=body).body == b"%d" % size
        # By now the loop has done what follows an answer.
        client.get()
        assert size < tracemalloc.get_traced_memory()[0] < 2 * size
    finally:
        tracemalloc.stop()


def test_an_unread_body_is_no_part_of_the_next_request(connect):
    client = connect(answer([b"answer"]))
    body = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n" * 1000
    for _ in range(3):
        client.request("/", method="POST", body=body)
    assert [client.response().body for _ in range(3)] == [b"answer"] * 3
    client.request("/", "Connection: close").response()
    assert client.at_end()


@pytest.mark.parametrize("body_memory", [0, 1 << 20])
def test_the_body_can_be_read_until_close(connect, body_memory):
    body = BLOCK * 10
    rest = queue.SimpleQueue()

    def app(environ, start_response):
        stream = environ["wsgi.input"]

        class Echo(Body):
            def __next__(self):
                super().__next__()
                return stream.read(len(BLOCK))

            def close(self):
                rest.put(stream.read())

        start_response("200 OK", TEXT)
        return Echo(*range(6))

    client = connect(app, body_memory=body_memory)
    assert client.get(method="POST", body=body).body == BLOCK * 6
    assert rest.get(timeout=PATIENCE) == BLOCK * 4
    client.get("/")
    assert rest.get(timeout=PATIENCE) == b""


def test_expect_continue(connect):
    def app(environ, start_response):
        start_response("200 OK", TEXT)
        return [environ["wsgi.input"].read()]

    client = connect(app)
    client.request(
        "/", "Expect: 100-continue", "Content-Length: 4", method="POST"
    )
    assert client.head()[0] == 100
    assert client.send(b"body").response().body == b"body"


# start_response and write


def test_start_response_may_come_with_the_first_block(connect):
    def app(environ, start_response):
        yield b""
        start_response("201 Created", [("X-Late", "yes")])
        yield b"late"

    got = connect(app).get()
    assert (got.status, got.body) == (201, b"late")
    assert got.headers["X-Late"] == "yes"


def test_status_and_headers_arrive_as_they_were_given(connect):
    fields = [
        ("Content-Type", "text/html; charset=latin-1"),
        ("Set-Cookie", "a=1; Path=/"),
        ("Set-Cookie", "b=2"),
        ("x-lower", "\xe9"),
        ("X-Empty", ""),
    ]
    client = connect(answer([b""], status="299 Quite \xe9", headers=fields))
    client.request()
    assert client.file.readline() == b"HTTP/1.1 299 Quite \xe9\r\n"
    lines = list(iter(client.file.readline, b"\r\n"))
    for name, value in fields:
        assert f"{name}: {value}\r\n".encode("latin-1") in lines


class Text(str):
    """As the members of a StrEnum are."""


class Block(bytes):
    pass


@pytest.mark.parametrize("kind", ["block", "list", "iterator", "write"])
def test_subclasses_of_str_and_bytes(connect, kind):
    def app(environ, start_response):
        fields = [(Text("X-Text"), Text("a"))]
        write = start_response(Text("201 Made"), fields)
        if kind == "block":
            return [Block(b"body")]
        blocks = [Block(b"bo"), Block(b"dy")]
        if kind == "write":
            write(blocks.pop(0))
        return blocks if kind == "list" else iter(blocks)

    got = connect(app).get()
    assert (got.status, got.body) == (201, b"body")
    assert got.headers["X-Text"] == "a"


def test_the_list_of_headers_stays_the_applications(connect):
    fields = [("X-Test", "1")]

    def app(environ, start_response):
        start_response("200 OK", fields)
        assert fields == [("X-Test", "1")]
        return [b"body"]

    client = connect(app)
    assert client.get().status == client.get().status == 200
    assert fields == [("X-Test", "1")]


def many_at_once(address):
    """Eight clients ask, then they read: each query and its response."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Connection(address)) for _ in range(8)]
        for turn in range(50):
            for at, client in enumerate(clients):
                client.request(f"/?{turn}-{at}")
            for at, client in enumerate(clients):
                yield f"{turn}-{at}", client.response()


@pytest.mark.parametrize(
    "answer",
    [
        lambda write, body: [body],
        lambda write, body: [body[:1], body[1:]],
        lambda write, body: iter([body]),
        lambda write, body: write(body) or [],
    ],
    ids=["one", "two", "iterator", "write"],
)
@pytest.mark.parametrize("threads", [0, 1])
def test_a_list_of_headers_that_is_used_again(serve, threads, answer):
    fields = [("Content-Type", "text/plain"), ("X-Query", "")]

    def app(environ, start_response):
        query = environ["QUERY_STRING"]
        fields[1] = ("X-Query", query)
        write = start_response("200 OK", fields)
        return answer(write, query.encode())

    for query, got in many_at_once(serve(app, threads=threads)):
        assert (got.headers["X-Query"], got.body) == (query, query.encode())


def test_headers_are_as_they_were_at_the_first_block(connect):
    def app(environ, start_response):
        fields = [("X-First", "1")]
        start_response("200 OK", fields)
        yield b"body"
        fields[:] = ["no field"]

    client = connect(app)
    for _ in range(2):
        got = client.get()
        assert (got.headers["X-First"], got.body) == ("1", b"body")


def test_no_start_response(connect, errors):
    results = [], [b"body"], [b"a", b"b"], iter([b"body"]), (b"body",), iter([])
    for result in results:
        client = connect(lambda environ, start_response, r=result: r)
        assert client.get().status == 500
        errors.take("start_response was not called")


def test_start_response_twice(connect, errors):
    caught = []

    def app(environ, start_response):
        start_response("200 OK", [("X-First", "1")])
        with pytest.raises(AppError) as error:
            start_response("404 Not Found", [])
        caught.append(error)
        if environ["PATH_INFO"] == "/raise":
            start_response("404 Not Found", [])
        return [b"body"]

    client = connect(app)
    got = client.get()
    assert (got.status, got.headers["X-First"]) == (200, "1")
    assert client.get("/raise").status == 500
    errors.take("start_response is called a second time")
    assert len(caught) == 2


def test_exc_info_replaces_what_is_not_sent(connect):
    def app(environ, start_response):
        start_response("200 OK", [("X-First", "1"), ("Content-Length", "1")])
        try:
            raise ValueError("found late")
        except ValueError:
            start_response("500 Oops", TEXT, sys.exc_info())
        return [b"explained"]

    def first(environ, start_response):
        try:
            raise ValueError("found at once")
        except ValueError:
            start_response("500 Oops", TEXT, sys.exc_info())
        yield b""
        yield b"explained"

    def between(environ, start_response):
        start_response("200 OK", [("X-First", "1")])
        yield b""
        try:
            raise ValueError("found after an empty block")
        except ValueError:
            start_response("500 Oops", TEXT, sys.exc_info())
        yield b"explained"

    client = connect(by_path(app=app, first=first, between=between))
    for path in ("/app", "/first", "/between"):
        got = client.get(path)
        assert (got.status, got.body) == (500, b"explained")
        assert "X-First" not in got.headers


@pytest.mark.parametrize("by_write", [False, True])
def test_exc_info_is_raised_once_headers_are_sent(connect, errors, by_write):
    caught = []

    def app(environ, start_response):
        write = start_response("200 OK", TEXT)
        if by_write:
            write(b"before")
        else:
            yield b"before"
        error = ValueError("too late")
        try:
            raise error
        except ValueError:
            try:
                start_response("500 Oops", TEXT, sys.exc_info())
            except ValueError as same:
                caught.append(same is error)
                raise

    client = connect(app).request()
    assert client.head()[0] == 200
    assert client.chunk() == b"before"
    assert client.at_end()
    text = errors.take("ValueError: too late")
    assert "raise error" in text
    assert caught == [True]


NO_STATUS = [None, 200, b"200 OK", "200 \u0394"]
NO_STATUS += "|200|OK|20 OK|2000 OK|abc OK| 200 OK|200\tOK".split("|")
NO_STATUS += "200 OK\r\nA: 1|200 OK\n|200 \0|100 Continue|099 Low".split("|")
NO_FIELDS = [None, "AB", ["A", "1"], ("A",), ("A", "1", "2")]
NO_FIELDS += [("A", 1), (b"A", "1"), ("A", b"1"), ("A", None)]
NO_FIELDS += [(n, "1") for n in ("", "A B", "A:", "A\r\n", "\xe9")]
NO_FIELDS += [("A", v) for v in ("1\r\nX-Evil: 1", "1\n", "\0", "\u0394")]
NO_FIELDS += [("Content-Length", v) for v in ("-1", "1, 1", "", "x", "+1")]
NO_HEADERS = [None, (), {}, "text", (("A", "1"),)]
NO_HEADERS += [[field] for field in NO_FIELDS]
NO_HEADERS += [[("Content-Length", "1"), ("Content-Length", "2")]]


def test_garbage_for_start_response(connect, errors):
    """The client gets a 500, the log a reason, the connection goes on."""
    calls = [(status, TEXT) for status in NO_STATUS]
    calls += [("200 OK", headers) for headers in NO_HEADERS]

    def app(environ, start_response):
        kind, number = environ["PATH_INFO"][1:].split("/")
        start_response(*calls[int(number)])
        return [b"body"] if kind == "list" else iter([b"bo", b"dy"])

    client = connect(app)
    for number, call in enumerate(calls):
        for kind in ("list", "blocks"):
            got = client.get(f"/{kind}/{number}")
            assert (call, got.status) == (call, 500)
            assert got.body == b"Internal Server Error\n"
            assert "X-Evil" not in got.headers
            errors.take("AppError")


def test_the_log_names_the_bad_header(connect, errors):
    client = connect(answer([b""], headers=[("X-Broken", "a\r\nb")]))
    assert client.get("/a?b").status == 500
    assert "X-Broken" in errors.take("application: GET /a?b\n")


def test_the_log_names_the_request_of_an_answer_that_has_begun(connect, errors):
    def blocks():
        # More than are asked for in one go.
        yield from [b"a"] * 600
        raise ValueError("on purpose")

    def app(environ, start_response):
        write = start_response("200 OK", TEXT)
        if environ["PATH_INFO"] == "/blocks":
            return blocks()
        write(b"a")
        return [5]

    for path in "/blocks", "/written":
        client = connect(app).request(path, method="PUT", body=b"x")
        assert client.head()[0] == 200
        assert client.is_cut()
        errors.take(f"application: PUT {path}\n")


def test_garbage_for_the_body(connect, errors):
    garbage = {
        "none": lambda: None,
        "int": lambda: 5,
        "text": lambda: "text",
        "bytes": lambda: b"bytes",
        "list of text": lambda: ["text"],
        "text later in a list": lambda: ["text", b"bytes"],
        "none in a list": lambda: [None],
        "list of lists": lambda: [[b"a"], [b"b"]],
        "tuple of text": lambda: ("a", "b"),
        "bytearray": lambda: iter([bytearray(b"a")]),
        "generator of text": lambda: iter(["a"]),
        "generator of none": lambda: iter([b"", None]),
    }

    def app(environ, start_response):
        start_response("200 OK", TEXT)
        return garbage[environ["HTTP_KIND"]]()

    client = connect(app)
    for kind in garbage:
        got = client.get("/garbage", f"Kind: {kind}")
        assert (kind, got.status) == (kind, 500)
        errors.take("exception in the application: GET /garbage\n")


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_write(connect, version):
    def app(environ, start_response):
        write = start_response("200 OK", TEXT)
        write(b"a")
        write(b"")
        write(b"b" * 100_000)
        return iter([b"c", b"", b"d"])

    client = connect(app)
    client.send(b"GET / HTTP/%b\r\nHost: x\r\n\r\n" % version.encode())
    got = client.response()
    assert got.body == b"a" + b"b" * 100_000 + b"cd"
    assert got.framing == ("chunked" if version == "1.1" else "close")
    if version == "1.1":
        assert client.get().body == got.body
    else:
        assert client.at_end()


def test_write_and_a_returned_list(connect):
    def app(environ, start_response):
        start_response("200 OK", [("Content-Length", "4")])(b"ab")
        return [b"cd"]

    client = connect(app)
    for _ in range(2):
        got = client.get()
        assert (got.framing, got.body) == ("length", b"abcd")


def test_what_is_written_arrives_while_the_application_goes_on(connect):
    go_on = threading.Event()

    def app(environ, start_response):
        start_response("200 OK", TEXT)(b"first")
        assert go_on.wait(PATIENCE)
        return [b"second"]

    client = connect(app).request()
    client.head()
    assert client.chunk() == b"first"
    go_on.set()
    assert client.chunk() == b"second"
    assert client.chunk() == b""


def test_write_wants_bytes(connect, errors):
    def app(environ, start_response):
        write = start_response("200 OK", TEXT)
        with pytest.raises(AppError):
            write("text")
        write(bytearray(b"bytes"))

    assert connect(app).get().status == 500
    errors.take("write() wants bytes")


def test_write_in_another_thread(connect, threads):
    """In the loop nothing of it is sent: a large block would come late."""
    block = BLOCK * 10
    raised = []

    def app(environ, start_response):
        write = start_response("200 OK", TEXT)

        def write_there():
            try:
                write(block)
            except AppError as error:
                raised.append(str(error))

        thread = threading.Thread(target=write_there)
        thread.start()
        thread.join()
        return [b"end"]

    client = connect(app)
    for _ in range(2):
        assert client.get().body == block * (threads > 0) + b"end"
    assert len(raised) == 2 * (threads == 0)
    assert all("--threads 1 or more" in text for text in raised)


# Before, no code of an application's runs within write().
if sys.version_info >= (3, 12):

    def test_what_is_written_too_late_is_in_no_other_answer():
        """Though its request was over between write()'s look and its doing."""
        inside, go_on = threading.Event(), threading.Event()
        writers = []

        class Held(bytes):
            def __buffer__(self, flags):
                inside.set()
                assert go_on.wait(PATIENCE)
                return super().__buffer__(flags)

        def app(environ, start_response):
            write = start_response("200 OK", TEXT)
            writers.append(threading.Thread(target=write, args=[Held(b"late")]))
            writers[0].start()
            assert inside.wait(PATIENCE)
            return [b"answer"]

        def on_answer(record):
            # In the loop, which has not yet heard that the call is over.
            if "/late" in record.getMessage():
                go_on.set()
                writers[0].join(PATIENCE)
                other.request("/")
            return True

        log = logging.getLogger("fasthttp.access")
        log.addFilter(on_answer)
        log.setLevel(logging.INFO)
        try:
            with (
                fasthttp.Server(
                    by_path(late=app), port=0, threads=1, access_log=True
                ) as server,
                Connection(server.addresses[0]) as client,
                Connection(server.addresses[0]) as other,
            ):
                assert client.get("/late").body == b"answer"
                assert other.response().body == b"here"
        finally:
            log.removeFilter(on_answer)
            log.setLevel(logging.NOTSET)


def test_a_lot_is_written_before_the_client_reads(slow):
    """write() cannot wait: the rest is kept out of the memory."""
    count = 100

    def app(environ, start_response):
        write = start_response("200 OK", TEXT)
        for _ in range(count):
            write(BLOCK)
        written.set()
        return [b"end"]

    written = threading.Event()
    client = slow(app)
    for _ in range(2):
        client.request()
        assert written.wait(PATIENCE)
        assert client.response().body == BLOCK * count + b"end"
        written.clear()


def test_what_waits_on_the_disk_is_cut_and_logged_too(slow, errors):
    headers = [("Content-Length", str(len(BLOCK) * 15))]

    def app(environ, start_response):
        write = start_response("200 OK", headers)
        for _ in range(2):
            write(BLOCK * 10)
        return []

    client = slow(app)
    for _ in range(2):
        assert client.get().body == BLOCK * 15
        errors.take("more than its Content-Length")


@pytest.mark.parametrize("kind", ["one", "two", "write"])
def test_a_block_may_be_larger_than_what_may_wait(slow, kind):
    """What frames it is no more of it."""
    block = BLOCK * 40

    def app(environ, start_response):
        write = start_response("200 OK", TEXT)
        if kind == "write":
            write(block)
            return [b"end"]
        return iter([block] if kind == "one" else [block, b"end"])

    client = slow(app, limit_queued=1_000_000)
    for _ in range(2):
        assert client.get().body == block + b"end" * (kind != "one")


def test_what_write_could_not_keep_takes_no_room(slow, errors):
    """Nor does what was sent, though its write() is still held on to."""
    limit = 1_000_000
    kept = []

    def app(environ, start_response):
        kept.append(start_response("200 OK", TEXT))
        kept[-1](BLOCK * 10)
        kept[-1](bytes(int(environ["QUERY_STRING"])))
        return []

    client = slow(app, limit_spooled=limit)
    refused = client.request(f"/?{limit + 1}")
    errors.take("limit_spooled (1000000) is reached")
    refused.file.read()
    with Connection(client.socket.getpeername(), receive_buffer=32768) as other:
        for _ in range(2):
            body = other.get(f"/?{limit}").body
            assert body == BLOCK * 10 + bytes(limit)


def test_write_when_the_client_leaves(slow):
    """Before anything is written, and with much of it still unsent."""
    left = threading.Event()
    body = Body(b"end")

    def app(environ, start_response):
        write = start_response("200 OK", TEXT)
        for _ in range(int(environ["QUERY_STRING"])):
            write(BLOCK)
        entered.set()
        assert left.wait(PATIENCE)
        with contextlib.suppress(BrokenPipeError):
            for _ in range(50):
                write(BLOCK)
        return body

    client = slow(app)
    for count in (0, 50):
        entered = threading.Event()
        client.request(f"/?{count}")
        assert entered.wait(PATIENCE)
        address = client.socket.getpeername()
        client.reset()
        left.set()
        assert body.is_closed_once()
        body, left = Body(b"end"), threading.Event()
        client = Connection(address)
    client.close()


# The body


class Indexed:
    """Iterable by the old protocol, which is one for iter(), too."""

    def __init__(self, *chunks):
        self.chunks = chunks

    def __getitem__(self, index):
        return self.chunks[index]


FORMS = {
    "empty list": (list, b"", "length"),
    "list of an empty block": (lambda: [b""], b"", "length"),
    "list of one": (lambda: [b"body"], b"body", "length"),
    "list of two": (lambda: [b"bo", b"dy"], b"body", "length"),
    "list with gaps": (lambda: [b"", b"bo", b"", b"dy"], b"body", "length"),
    "tuple": (lambda: (b"bo", b"dy"), b"body", "length"),
    "large block": (lambda: [BLOCK * 40], BLOCK * 40, "length"),
    "large blocks": (lambda: [BLOCK * 9] * 9, BLOCK * 81, "length"),
    "empty iterator": (lambda: iter([]), b"", "length"),
    "iterator": (lambda: iter([b"bo", b"", b"dy"]), b"body", "chunked"),
    "blocks": (lambda: Body(b"bo", b"dy"), b"body", "chunked"),
    "many": (lambda: iter([b"x"] * 5000), b"x" * 5000, "chunked"),
    "indexed": (lambda: Indexed(b"bo", b"dy"), b"body", "chunked"),
    "large iterator": (lambda: iter([BLOCK] * 90), BLOCK * 90, "chunked"),
}


def form(environ, start_response):
    start_response("200 OK", TEXT)
    return FORMS[environ["HTTP_FORM"]][0]()


def test_forms_of_a_body(connect):
    client = connect(form)
    for name, (_, body, framing) in FORMS.items():
        for _ in range(2):
            got = client.get("/", f"Form: {name}")
            assert (name, got.framing) == (name, framing)
            assert got.body == body


def test_forms_of_a_body_for_head(connect):
    """RFC 9110 section 9.3.2: the fields of GET, no body."""
    client = connect(form)
    for name, (_, body, framing) in FORMS.items():
        got = client.get("/", f"Form: {name}", method="HEAD")
        assert (name, got.status) == (name, 200)
        if framing == "length":
            # RFC 9110 section 8.6: nothing is no length for HEAD.
            length = str(len(body)) if body else None
            assert got.headers.get("Content-Length") == length
    assert client.get("/", "Form: list of one").body == b"body"


def test_forms_of_a_body_for_http_10(serve):
    address = serve(form)
    for name, (_, body, framing) in FORMS.items():
        with Connection(address) as client:
            client.send(
                b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n"
                b"Form: %b\r\n\r\n" % name.encode()
            )
            got = client.response()
            expected = "close" if framing == "chunked" else "length"
            assert (name, got.framing) == (name, expected)
            assert got.body == body
            if framing == "length":
                assert client.get("/", f"Form: {name}").body == body
            else:
                assert client.at_end()


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_status_without_a_body(connect, errors, status):
    client = connect(answer(lambda: iter([b"bo", b"dy"]), status=status))
    for _ in range(2):
        assert client.get().status == int(status[:3])


def test_pipelined_requests_are_answered_in_order(connect):
    names = [name for name in FORMS if "large" not in name] * 2
    client = connect(form)
    for name in names:
        client.request("/", f"Form: {name}")
    for name in names:
        assert client.response().body == FORMS[name][1]


@pytest.mark.parametrize(
    "headers", [TEXT, [("Content-Length", "16")]], ids=["chunked", "length"]
)
def test_no_block_waits_for_the_next_one(connect, headers):
    """PEP 3333: not even the last one for the end of the iterable."""
    go_on = [threading.Event() for _ in range(4)]

    def app(environ, start_response):
        start_response("200 OK", headers)
        for number, event in enumerate(go_on):
            yield b"%4d" % number
            assert event.wait(PATIENCE)

    client = connect(app).request()
    client.head()
    for number, event in enumerate(go_on):
        read = client.chunk if headers is TEXT else lambda: client.exactly(4)
        assert read() == b"%4d" % number
        event.set()
    if headers is TEXT:
        assert client.chunk() == b""
    assert client.get("/").status == 200


def test_many_blocks_do_not_wait_for_the_next_one(slow):
    """Though the client takes only a part of them at once."""
    go_on = threading.Event()
    count = 25

    def app(environ, start_response):
        start_response("200 OK", TEXT)
        for number in range(count):
            yield bytes([number]) * 4000
        assert go_on.wait(PATIENCE)
        yield b"end"

    client = slow(app).request()
    client.head()
    for number in range(count):
        assert client.chunk() == bytes([number]) * 4000
    go_on.set()
    assert client.chunk() == b"end"
    assert client.chunk() == b""


READER = """
import os, socket, sys
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as client:
    client.sendall(b"GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
    got = b""
    while b"first" not in got:
        got += client.recv(4096)
    os.write(int(sys.argv[2]), b"x")
    while not got.endswith(b"\\r\\n0\\r\\n\\r\\n"):
        got += client.recv(4096)
"""


def test_a_block_leaves_though_the_interpreter_is_busy(serve, threads):
    """In the loop; what a thread yields, the loop's thread must send."""
    if threads:
        serve = functools.partial(serve, threads=0)
    readable, writable = os.pipe()
    poll = ctypes.PyDLL(None).poll  # keeps the GIL, as some extensions do

    def app(environ, start_response):
        start_response("200 OK", TEXT)
        yield b"first"
        wanted = struct.pack("ihh", readable, select.POLLIN, 0)
        yield b"%d" % poll(wanted, 1, PATIENCE * 1000)

    _, port = serve(app)
    try:
        subprocess.run(
            [sys.executable, "-c", READER, str(port), str(writable)],
            pass_fds=[writable],
            timeout=2 * PATIENCE,
            check=True,
        )
        assert select.select([readable], [], [], 0)[0]
    finally:
        os.close(readable)
        os.close(writable)


@pytest.mark.parametrize("is_file", [False, True])
def test_the_end_does_not_wait_for_close(connect, tmp_path, is_file):
    closing, go_on = threading.Event(), threading.Event()
    place = tmp_path / "file"
    place.write_bytes(b"body")

    def close():
        closing.set()
        assert go_on.wait(PATIENCE)

    with place.open("rb") as file:
        body = FileWrapper(file) if is_file else Body(b"body")
        body.close = close
        client = connect(answer(body)).request()
        assert client.response().body == b"body"
        assert closing.wait(PATIENCE)
        go_on.set()


def test_no_end_of_a_connection_waits_for_close_in_the_pool():
    """It is the end of the body, too, for who knows only HTTP/1.0."""
    go_on = threading.Event()

    class Slow(Body):
        def close(self):
            assert go_on.wait(PATIENCE)

    with (
        fasthttp.Server(answer(Slow(b"body")), port=0, threads=1) as server,
        Connection(server.addresses[0]) as client,
    ):
        client.send(b"GET / HTTP/1.0\r\n\r\n")
        assert client.response().body == b"body"
        go_on.set()


def test_a_body_longer_than_its_length_is_cut(connect, errors):
    headers = [("Content-Length", "4")]
    bodies = {
        "list": lambda: [b"bodyexcess"],
        "blocks": lambda: iter([b"bo", b"dyex", b"cess"]),
        "large": lambda: [b"body" + BLOCK],
    }
    apps = {
        name: answer(body, headers=headers) for name, body in bodies.items()
    }
    client = connect(by_path(**apps))
    for name in apps:
        got = client.get(f"/{name}")
        assert (name, got.status, got.body) == (name, 200, b"body")
        assert client.get("/").body == b"here"
        errors.take("more than its Content-Length")


def test_what_stands_behind_the_last_block_runs(connect):
    ran = threading.Event()

    def app(environ, start_response):
        start_response("200 OK", [("Content-Length", "4")])
        yield b"body"
        ran.set()

    assert connect(app).get().body == b"body"
    assert ran.wait(PATIENCE)


def test_write_longer_than_the_length_is_cut(connect, errors):
    def app(environ, start_response):
        start_response("200 OK", [("Content-Length", "4")])(b"bodyexcess")
        return []

    client = connect(app)
    assert client.get().body == b"body"
    errors.take("more than its Content-Length")
    assert client.get().body == b"body"
    errors.take("more than its Content-Length")


@pytest.mark.parametrize("blocks", [[], [b"body"], [b"bo", b"dy"]])
def test_a_body_shorter_than_its_length(connect, errors, blocks):
    """The connection's end tells the client that something is missing."""
    headers = [("Content-Length", "5")]
    client = connect(answer(blocks, headers=headers)).request()
    assert client.head()[1]["Content-Length"] == "5"
    assert client.file.read() == b"".join(blocks)
    errors.take("less than its Content-Length")


def test_an_endless_body_ends_with_its_length(connect, errors):
    """PEP 3333: stop iterating when enough data has been sent."""
    body = Endless()
    size = len(BLOCK) + 1
    client = connect(
        by_path(e=answer(body, headers=[("Content-Length", str(size))]))
    )
    assert client.get("/e").body == BLOCK + BLOCK[:1]
    assert body.is_closed_once()
    assert body.asked <= 3
    assert client.get("/").body == b"here"
    errors.take("more than its Content-Length")


def test_an_endless_body_is_not_made_for_head(connect):
    body = Endless()
    client = connect(by_path(e=answer(body)))
    assert client.get("/e", method="HEAD").status == 200
    assert body.is_closed_once()
    assert client.get("/").body == b"here"


# close()


class Broken(Body):
    def __next__(self):
        self.asked += 1
        if self.asked == 2:
            raise ValueError("broken body")
        return b"block"


class Unstartable(Body):
    def __iter__(self):
        raise ValueError("broken body")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("kind", "blocks", "headers", "error"),
    [
        (Body, [b"a", b"b"], TEXT, None),
        (Body, [], TEXT, None),
        (Broken, [], TEXT, "broken body"),
        (Unstartable, [], TEXT, "broken body"),
        (Body, ["text"], TEXT, "not made of bytes"),
        (Body, [b"a", "text"], TEXT, "not made of bytes"),
        (Body, [b"a"], None, "was not called"),
        (Body, [b"a"], [("A", "\n")], "the header A"),
        (Body, [b"abc"], [("Content-Length", "2")], "more than its"),
        (Body, [b"a"], [("Content-Length", "2")], "less than its"),
    ],
)
def test_close_is_called(connect, errors, method, kind, blocks, headers, error):
    body = kind(*blocks)

    def app(environ, start_response):
        if headers:
            start_response("200 OK", headers)
        return body

    connect(app).request(method=method).head()
    assert body.is_closed_once()
    if method == "GET" and error:
        errors.take(error)
    errors.records.clear()


def test_a_generator_is_closed(connect, errors):
    closed = threading.Event()

    def app(environ, start_response):
        start_response("200 OK", [("Content-Length", "1")])
        try:
            while True:
                yield b"a"
        finally:
            closed.set()

    assert connect(app).get().body == b"a"
    assert closed.wait(PATIENCE)
    errors.take("more than its Content-Length")


def test_an_error_in_close(connect, errors):
    class Uncloseable(Body):
        def close(self):
            raise ValueError("will not close")

    client = connect(answer(lambda: Uncloseable(b"bo", b"dy")))
    for _ in range(3):
        assert client.get().body == b"body"
        errors.take("will not close")


def test_close_comes_before_the_next_request_in_the_loop(connect):
    """Also if the first response had to wait for its client to read."""
    order = []

    class Ordered(Body):
        def close(self):
            order.append("close")

    def app(environ, start_response):
        order.append("call")
        start_response("200 OK", TEXT)
        return Ordered(*[BLOCK] * 40)

    client = connect(app, threads=0)
    for _ in range(3):
        client.request()
    for _ in range(3):
        assert client.response().body == BLOCK * 40
    client.get("/")
    assert order[:6] == ["call", "close"] * 3


@pytest.mark.parametrize("blocks", [[b"a"], [BLOCK] * 40])
def test_close_comes_before_the_next_request_in_the_pool(serve, blocks):
    """Though another thread has time for it."""
    order = []
    go_on = threading.Event()

    class Slow(Body):
        def close(self):
            assert go_on.wait(PATIENCE)
            order.append("close")

    def app(environ, start_response):
        order.append(environ["PATH_INFO"])
        start_response("200 OK", TEXT)
        return Slow(*blocks) if environ["PATH_INFO"] == "/first" else []

    address = serve(app, threads=2)
    with Connection(address) as client, Connection(address) as other:
        client.request("/first").request("/second")
        assert client.response().body == b"".join(blocks)
        assert other.get("/other").status == 200
        go_on.set()
        assert client.response().status == 200
    assert order == ["/first", "/other", "close", "/second"]


def test_close_when_the_client_leaves_during_the_call(serve):
    body = Body(b"body")
    app = Waiting(body)
    address = serve(by_path(a=app))
    client = Connection(address).request("/a")
    app.wait()
    client.reset()
    app.open()
    assert body.is_closed_once()
    with Connection(address) as client:
        assert client.get("/").body == b"here"


@pytest.mark.parametrize("leave", [Connection.close, Connection.reset])
@pytest.mark.parametrize("chunk", [b"tiny", BLOCK, BLOCK * 10])
def test_close_when_the_client_leaves_a_stream(slow, leave, chunk):
    body = Endless(chunk)
    client = slow(answer(body)).request()
    client.head()
    client.chunk()
    leave(client)
    assert body.is_closed_once()


def test_close_when_the_client_left_while_a_block_was_made(errors):
    """The loop has noticed, and the block is enough to wait for a reader."""
    noticed = threading.Event()
    waiting = threading.Event()

    class Late(Body):
        def __next__(self):
            if self.asked == 1:
                waiting.set()
                assert noticed.wait(PATIENCE)
            return super().__next__()

    body = Late(b"first", BLOCK, b"last")
    app = by_path(late=answer(body))
    with fasthttp.Server(app, port=0, threads=2) as server:
        client = Connection(server.addresses[0]).request("/late")
        client.head()
        assert waiting.wait(PATIENCE)
        client.reset()
        with Connection(server.addresses[0]) as other:
            assert other.get("/").body == b"here"
        noticed.set()
        assert body.is_closed_once()


def test_close_when_the_server_stops(threads):
    """Two slow readers of one thread are cut off when it has to end."""
    before = set(threading.enumerate())
    bodies = [Endless(), Endless()]
    apps = {"0": answer(bodies[0]), "1": answer(bodies[1])}
    server = fasthttp.Server(by_path(**apps), port=0, threads=min(threads, 1))
    with contextlib.ExitStack() as clients:
        with server:
            for path in apps:
                client = clients.enter_context(
                    Connection(server.addresses[0], receive_buffer=32768)
                )
                client.request(f"/{path}").head()
                client.chunk()
            server.stop(timeout=0)
        for body in bodies:
            assert body.is_closed_once()
    for thread in set(threading.enumerate()) - before:
        thread.join(PATIENCE)
        assert not thread.is_alive()


def test_an_application_outlives_its_server():
    """What it makes then goes nowhere, and comes to its close()."""
    entered, go_on = threading.Event(), threading.Event()
    body = Body(b"one", b"two")

    def app(environ, start_response):
        entered.set()
        assert go_on.wait(PATIENCE)
        write = start_response("200 OK", TEXT)
        with pytest.raises(BrokenPipeError):
            write(b"written")
        return body

    server = fasthttp.Server(app, port=0, threads=1)
    with server:
        client = Connection(server.addresses[0]).request()
        assert entered.wait(PATIENCE)
        server.stop(timeout=0)
    go_on.set()
    assert body.is_closed_once()
    client.close()


@pytest.mark.parametrize("threads", [0, 1])
def test_an_application_that_writes_for_ever(threads, errors):
    """It ends with its client, and that is no error of its."""
    over = threading.Event()
    block = b"more" * 1024

    def app(environ, start_response):
        write = start_response("200 OK", TEXT)
        while not over.is_set():
            write(block)
            time.sleep(0.001)
        return []

    app = by_path(more=app)
    with contextlib.ExitStack() as stack:
        server = fasthttp.Server(app, port=0, threads=threads)
        stack.enter_context(server)
        stack.callback(over.set)
        with Connection(server.addresses[0]) as client:
            client.request("/more").head()
            assert client.chunk() == block
            client.reset()
        with Connection(server.addresses[0]) as client:
            assert client.get("/").body == b"here"


# Streaming


def wait_until_stalled(body, address):
    """Until the loop has nothing more to do for `body`; what was asked."""
    with Connection(address) as client:
        unchanged, asked = 0, body.asked
        while unchanged < 20:
            assert client.get("/").body == b"here"
            unchanged = 0 if asked != body.asked else unchanged + 1
            asked = body.asked
    return asked


def test_a_stream_is_made_only_while_the_client_reads(slow):
    """The memory stays flat: a few blocks are ahead of the reader."""
    body = Endless()
    client = slow(by_path(stream=answer(body))).request("/stream")
    client.head()
    ahead = []
    for _ in range(8):
        asked = wait_until_stalled(body, client.socket.getpeername())
        ahead.append(asked)
        for _ in range(20):
            assert client.chunk() == BLOCK
    assert ahead[0] <= 12
    assert all(new - old <= 24 for old, new in itertools.pairwise(ahead))
    client.close()
    assert body.is_closed_once()


def test_blocks_above_the_water_mark(slow):
    """One block alone is more than what may wait for the client."""
    body = Endless(BLOCK * 20)
    client = slow(by_path(stream=answer(body))).request("/stream")
    client.head()
    for number in range(4):
        asked = wait_until_stalled(body, client.socket.getpeername())
        assert asked <= number + 2
        assert client.chunk() == BLOCK * 20


def test_a_fast_reader_leaves_others_their_turn(serve):
    """Neither the loop nor a thread serves one endless stream alone."""
    address = serve(by_path(stream=answer(Endless())))
    stop = threading.Event()

    def read():
        with Connection(address) as client:
            client.request("/stream").head()
            while not stop.is_set():
                client.chunk()

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    with Connection(address) as client:
        for _ in range(20):
            assert client.get("/").body == b"here"
    stop.set()
    for reader in readers:
        reader.join()


def test_a_slow_client_holds_no_thread(slow):
    """Neither by its head, its body, nor by reading nothing."""
    body = Endless()
    apps = by_path(stream=answer(body), large=answer([BLOCK * 200]))
    client = slow(apps, threads=1)
    address = client.socket.getpeername()
    client.request("/stream").head()
    with contextlib.ExitStack() as clients:
        for sent in (
            b"GET /slow HTTP/1.1\r\nHost:",
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nbody",
            b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
            b"\r\n5\r\nbo",
            b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n",
        ):
            other = clients.enter_context(
                Connection(address, receive_buffer=32768)
            )
            other.send(sent)
        wait_until_stalled(body, address)


# Exceptions


class Unusual(BaseException):
    pass


@pytest.mark.parametrize(
    "error", [ValueError, SystemExit, GeneratorExit, StopIteration, Unusual]
)
def test_exceptions(connect, errors, error):
    def before(environ, start_response):
        raise error("on purpose")

    def after(environ, start_response):
        start_response("200 OK", TEXT)
        raise error("on purpose")

    def first(environ, start_response):
        start_response("200 OK", TEXT)
        return map(before, [{}], [None])

    def later(environ, start_response):
        start_response("200 OK", TEXT)
        return itertools.chain([b"block"], map(before, [{}], [None]))

    def written(environ, start_response):
        start_response("200 OK", [("Content-Length", "9")])(b"block")
        raise error("on purpose")

    apps = {"before": before, "after": after, "first": first}
    app = by_path(**apps, later=later, written=written)
    client = connect(app)
    address = client.socket.getpeername()
    ends_iteration = error is StopIteration
    for path in apps:
        got = client.get(f"/{path}")
        if path == "first" and ends_iteration:
            assert (got.status, got.body) == (200, b"")
            continue
        assert (path, got.status) == (path, 500)
        assert got.body == b"Internal Server Error\n"
        assert "on purpose" in errors.take("Traceback")
        assert client.get("/").body == b"here"
    with Connection(address) as client:
        client.request("/later").head()
        assert client.chunk() == b"block"
        if ends_iteration:
            assert client.chunk() == b""
        else:
            assert client.at_end()
            errors.take("on purpose")
    with Connection(address) as client:
        client.request("/written").head()
        assert client.file.read() == b"block"
        errors.take("on purpose")
    with Connection(address) as client:
        assert client.get("/").body == b"here"


def test_a_body_that_ends_with_the_connection_is_reset(connect, errors):
    """Otherwise nothing would tell that something is missing."""

    def app(environ, start_response):
        start_response("200 OK", TEXT)
        yield b"block"
        raise ValueError("on purpose")

    client = connect(app).send(b"GET / HTTP/1.0\r\n\r\n")
    with pytest.raises(ConnectionResetError):
        client.response()
    errors.take("on purpose")


@pytest.mark.parametrize("threads", [0, 1])
def test_a_body_that_ends_with_the_connection_is_reset_at_a_stop(threads):
    over = threading.Event()

    def app(environ, start_response):
        start_response("200 OK", TEXT)
        yield b"first"
        yield b"second"
        while not over.is_set():
            time.sleep(0.001)
            yield b""

    with fasthttp.Server(app, port=0, threads=threads) as server:
        client = Connection(server.addresses[0])
        client.send(b"GET / HTTP/1.0\r\n\r\n").head()
        assert client.file.read(11) == b"firstsecond"
        server.stop(0)
        with pytest.raises(ConnectionResetError):
            client.file.read()
        client.close()
    over.set()


def test_a_reset_loses_no_answer_before_it(connect, errors):
    def app(environ, start_response):
        start_response("200 OK", TEXT)
        yield b"block"
        raise ValueError("on purpose")

    client = connect(by_path(fault=app)).send(
        b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
        b"GET /fault HTTP/1.0\r\n\r\n"
    )
    assert client.response().body == b"here"
    with pytest.raises(ConnectionResetError):
        client.response()
    errors.take("on purpose")


def test_interrupt_in_a_thread_is_an_error_like_any_other(errors):
    """Signals reach the main thread: nobody has pressed Ctrl-C here."""

    def app(environ, start_response):
        raise KeyboardInterrupt("on purpose")

    with (
        fasthttp.Server(by_path(i=app), port=0, threads=1) as server,
        Connection(server.addresses[0]) as client,
    ):
        for _ in range(3):
            assert client.get("/i").status == 500
            errors.take("on purpose")
            assert client.get("/").body == b"here"


class Unclosable:
    """A proxy that is bound to nothing when it is to be closed."""

    def __init__(self, blocks):
        self.blocks = blocks

    def __iter__(self):
        return iter(self.blocks)

    @property
    def close(self):
        raise RuntimeError("bound to nothing")


@pytest.mark.parametrize(
    "blocks", [[b"body"], [BLOCK, BLOCK, b"end"]], ids=["small", "parked"]
)
def test_close_that_cannot_be_looked_up(connect, errors, blocks):
    secret = contextvars.ContextVar("secret", default=None)
    seen = []

    def app(environ, start_response):
        seen.append(secret.get())
        secret.set(environ["PATH_INFO"])
        start_response("200 OK", TEXT)
        return Unclosable(blocks)

    client = connect(by_path(bad=app))
    for _ in range(3):
        assert client.get("/bad").body == b"".join(blocks)
        errors.take("bound to nothing")
        assert client.get("/").body == b"here"
    assert seen == [None, None, None]


def test_write_after_the_end(connect):
    def app(environ, start_response):
        write = start_response("200 OK", TEXT)
        body = Body(b"body")
        body.close = lambda: write(b"late")
        return body

    client = connect(app)
    for _ in range(3):
        assert client.get().body == b"body"


class Detached:
    def __repr__(self):
        raise RuntimeError("bound to no session")


@pytest.mark.parametrize("body", [list, iter, lambda blocks: Body(*blocks)])
def test_headers_that_cannot_even_be_shown(serve, errors, body):
    slow = Waiting([b"slow"])

    def bad(environ, start_response):
        start_response("200 OK", [("X-User", Detached())])
        return body([b"never ", b"sent"])

    address = serve(by_path(bad=bad, slow=slow), threads=2)
    with Connection(address) as client, Connection(address) as other:
        for _ in range(3):
            assert client.get("/bad").status == 500
            errors.take("bound to no session")
        other.request("/slow")
        slow.wait()
        client.reset()
        slow.open()
        assert other.response().body == b"slow"


def test_nothing_is_left_of_a_call_that_failed(connect, errors):
    freed = threading.Event()

    class Kept:
        pass

    def app(environ, start_response):
        if environ["PATH_INFO"] == "/":
            return answer([b"here"])(environ, start_response)
        environ["kept"] = Kept()
        weakref.finalize(environ["kept"], freed.set)
        # The log keeps the frame.
        del environ
        raise ValueError("on purpose")

    client = connect(app)
    assert client.get("/a?b").status == 500
    errors.take("application: GET /a?b")
    let_threads_drop(client)
    assert freed.wait(PATIENCE)


def test_many_addresses_of_the_server(serve):
    def app(environ, start_response):
        start_response("200 OK", TEXT)
        return [environ["SERVER_NAME"].encode()]

    _, port = serve(app, bind="0.0.0.0:0", port=None)
    for _ in range(2):
        for number in range(1, 100):
            address = f"127.0.0.{number}"
            with Connection((address, port)) as client:
                assert client.get().body == address.encode()


# wsgi.file_wrapper


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(BLOCK * 30 + b"end")
    return path


class Watched:
    """Hands out the read() of an open file; knows if that was called."""

    def __init__(self, path, offset=0):
        self.file = path.open("rb")
        self.offset = self.file.seek(offset)
        self.read = self.file.read
        self.is_closed = threading.Event()

    def close(self):
        self.end = os.lseek(self.file.fileno(), 0, os.SEEK_CUR)
        self.file.close()
        self.is_closed.set()

    def is_closed_unread(self):
        return self.is_closed.wait(PATIENCE) and self.end == self.offset


def send(open_file, headers=TEXT, size=8192):
    def app(environ, start_response):
        start_response("200 OK", list(headers))
        return environ["wsgi.file_wrapper"](open_file(), size)

    return app


def test_a_file_is_sent_by_the_kernel(connect, path):
    opened = []

    def open_file():
        opened.append(Watched(path))
        return opened[-1]

    client = connect(by_path(file=send(open_file)))
    content = path.read_bytes()
    for _ in range(3):
        got = client.get("/file")
        assert (got.status, got.framing) == (200, "length")
        assert got.body == content
        assert client.get("/").body == b"here"
    assert all(file.is_closed_unread() for file in opened)


def test_a_small_file_with_what_was_just_written_to_it(connect, path):
    path.write_bytes(b"old content")

    def open_file():
        file = path.open("r+b")
        # What was read stays in the buffer, and so does what is written.
        first = file.read(1)
        file.seek(0)
        file.write(b"new" + first)
        file.seek(0)
        return file

    assert connect(send(open_file)).get().body == b"newocontent"


def test_after_a_file_the_length_is_looked_at_again(connect, path, errors):
    headers = [("Content-Length", "3")]
    client = connect(
        by_path(
            file=send(lambda: path.open("rb")),
            long=answer([b"too long"], headers=headers),
        )
    )
    client.get("/file")
    assert client.get("/long").body == b"too"
    errors.take("more than its Content-Length")


def test_a_file_from_an_offset(connect, path):
    size = path.stat().st_size
    opened = []
    client = connect(send(lambda: opened[-1]))
    for offset in (1, 70_000, size - 16385, size - 16384, size - 1, size):
        opened.append(Watched(path, offset))
        got = client.get()
        assert (offset, got.framing) == (offset, "length")
        assert got.body == path.read_bytes()[offset:]
    assert all(file.is_closed_unread() for file in opened)


def test_a_file_that_was_read_from(connect, path):
    """What a buffer has read ahead belongs to the body, too."""

    def open_file():
        file = path.open("rb")
        assert file.read(10) == BLOCK[:10]
        return file

    assert connect(send(open_file)).get().body == path.read_bytes()[10:]


def test_a_file_and_its_length(connect, path, errors):
    size = path.stat().st_size
    length = 0

    def app(environ, start_response):
        headers = [("Content-Length", str(length))]
        return send(lambda: path.open("rb"), headers)(environ, start_response)

    client = connect(app)
    for length in (0, 5, size):
        for _ in range(2):
            assert client.get().body == path.read_bytes()[:length]
    length = size + 1
    assert client.request().head()[1]["Content-Length"] == str(size + 1)
    assert client.file.read() == path.read_bytes()
    errors.take("less than its Content-Length")


@pytest.mark.parametrize("size", [30, 16385, 200_000])
@pytest.mark.parametrize("in_memory", [False, True])
def test_a_part_of_a_file(connect, tmp_path, size, in_memory):
    """PEP 3333: up to Content-Length; that there is more is no fault."""
    content = random.Random(size).randbytes(size)
    path = tmp_path / "file"
    path.write_bytes(content)

    def open_file():
        file = io.BytesIO(content) if in_memory else path.open("rb")
        file.seek(10)
        return file

    headers = [("Content-Length", str(size - 20))]
    client = connect(send(open_file, headers))
    for _ in range(2):
        assert client.get().body == content[10:-10]


def test_a_file_for_head(connect, path):
    file = Watched(path)
    client = connect(by_path(file=send(lambda: file)))
    got = client.get("/file", method="HEAD")
    assert got.headers["Content-Length"] == str(path.stat().st_size)
    assert client.get("/").body == b"here"
    assert file.is_closed_unread()


def test_a_file_for_http_10(connect, path):
    client = connect(send(lambda: Watched(path)))
    client.send(b"GET / HTTP/1.0\r\n\r\n")
    assert client.response().body == path.read_bytes()
    assert client.at_end()


class Pipe(io.RawIOBase):
    """A descriptor that is no regular file."""

    def __init__(self, content):
        self.reading, writing = os.pipe()
        os.write(writing, content)
        os.close(writing)

    def fileno(self):
        return self.reading

    def read(self, size=-1):
        return os.read(self.reading, size)

    def close(self):
        if not self.closed:
            os.close(self.reading)
        super().close()


class ReadOnly:
    """The least PEP 3333 asks of a file-like object."""

    def __init__(self, content):
        self.read = io.BytesIO(content).read


@pytest.mark.parametrize("kind", [io.BytesIO, Pipe, ReadOnly])
@pytest.mark.parametrize("content", [b"", b"content" * 4000])
def test_what_is_no_file_is_read(connect, kind, content):
    client = connect(send(lambda: kind(content), size=100))
    for _ in range(2):
        got = client.get()
        assert (got.status, got.body) == (200, content)


@pytest.mark.parametrize("module", [bz2, gzip, lzma])
def test_a_compressed_file_is_read(connect, tmp_path, module):
    """Its fileno() is that of the file on the disk."""
    path = tmp_path / "compressed"
    with module.open(path, "wb") as file:
        file.write(BLOCK)
    client = connect(send(lambda: module.open(path, "rb")))
    for _ in range(2):
        assert client.get().body == BLOCK


def temporary(kind):
    file = kind()
    file.write(BLOCK)
    file.seek(10)
    return file


@pytest.mark.parametrize(
    "kind",
    [
        tempfile.NamedTemporaryFile,
        tempfile.SpooledTemporaryFile,
        tempfile.TemporaryFile,
        functools.partial(tempfile.TemporaryFile, buffering=0),
    ],
)
def test_a_temporary_file(connect, kind):
    client = connect(send(lambda: temporary(kind)))
    for _ in range(2):
        assert client.get().body == BLOCK[10:]


class Shouting(io.FileIO):
    def read(self, size=-1):
        return super().read(size).upper()


class Backwards(io.BufferedReader):
    def read(self, size=-1):
        return super().read(size)[::-1]


@pytest.mark.parametrize(
    ("open_file", "expected"),
    [
        (Shouting, b"CONTENT"),
        (lambda path: Backwards(io.FileIO(path)), b"tnetnoc"),
    ],
)
def test_a_file_of_a_class_of_its_own_is_read(
    connect, tmp_path, open_file, expected
):
    path = tmp_path / "file"
    path.write_bytes(b"content")
    assert connect(send(lambda: open_file(path))).get().body == expected


@pytest.mark.parametrize(
    "name", ["/proc/version", "/sys/devices/system/cpu/online"]
)
def test_a_file_that_the_kernel_makes_is_read(connect, name):
    """Its size is told as 0 or 4,096."""
    path = pathlib.Path(name)
    assert connect(send(lambda: path.open("rb"))).get().body == (
        path.read_bytes()
    )


@pytest.mark.parametrize("size", [10, 50_000])
def test_what_a_file_has_not_written_yet(connect, tmp_path, size):
    path = tmp_path / "file"
    path.write_bytes(bytes(size))

    def open_file():
        file = path.open("r+b")
        file.readline()
        file.seek(1)
        file.write(b"new")
        file.seek(0)
        return file

    expected = b"\0new" + bytes(size - 4)
    assert connect(send(open_file)).get().body == expected


def test_a_file_that_cannot_be_read(connect, path, errors):
    got = connect(send(lambda: io.FileIO(path, "a"))).get()
    assert (got.status, path.stat().st_size) == (500, len(BLOCK) * 30 + 3)
    errors.take("not open for reading")


@pytest.mark.parametrize("threads", [0, 1])
def test_a_small_file_that_the_next_call_writes_anew(serve, tmp_path, threads):
    path = tmp_path / "report"

    def app(environ, start_response):
        path.write_text(environ["QUERY_STRING"])
        return send(lambda: path.open("rb"))(environ, start_response)

    for query, got in many_at_once(serve(app, threads=threads)):
        assert got.body == query.encode()


def test_a_file_without_a_descriptor_left(connect, path, errors, monkeypatch):
    def no_more(fd):
        raise OSError(errno.EMFILE, "too many open files")

    client = connect(send(lambda: path.open("rb")))
    monkeypatch.setattr(os, "dup", no_more)
    assert client.get().status == 500
    errors.take("too many open files")


def test_the_wrapper_can_be_sought_where_its_file_can(path):
    """Else whoever answers a Range reads all that stands before it."""
    with path.open("rb") as file:
        wrapped = FileWrapper(file)
        assert wrapped.seekable()
        wrapped.seek(7)
        assert wrapped.tell() == file.tell() == 7
        assert next(wrapped) == path.read_bytes()[7 : 7 + 65536]
    assert not FileWrapper(ReadOnly(b"")).seekable()
    with Pipe(b"") as pipe:
        assert not FileWrapper(pipe).seekable()


def test_the_wrapper_is_an_iterable(connect, path):
    """Middleware may take what it wraps apart."""

    def app(environ, start_response):
        start_response("200 OK", TEXT)
        wrapper = environ["wsgi.file_wrapper"](path.open("rb"), 1000)
        blocks = list(wrapper)
        wrapper.close()
        assert {len(block) for block in blocks[:-1]} == {1000}
        return iter(blocks)

    assert connect(app).get().body == path.read_bytes()


def test_the_wrapper_is_its_own_iterator(connect, path):
    """Werkzeug answers a Range so: it closes what iter() gave it."""
    closed = threading.Event()
    opened = []

    class Part:
        def __init__(self, wrapper):
            self.iterator = iter(wrapper)

        def __iter__(self):
            yield next(self.iterator)

        def close(self):
            self.iterator.close()
            closed.set()

    def app(environ, start_response):
        start_response("206 Partial Content", TEXT)
        opened.append(path.open("rb"))
        return Part(environ["wsgi.file_wrapper"](opened[0], 1000))

    assert connect(app).get().body == BLOCK[:1000]
    assert closed.wait(PATIENCE)
    assert opened[0].closed


def test_a_file_for_a_slow_client(slow, path):
    """The descriptor is held until all is sent, close() or not."""
    file = Watched(path)
    client = slow(by_path(file=send(lambda: file))).request("/file")
    client.head()
    assert file.is_closed_unread()
    content = path.read_bytes()
    path.unlink()
    assert client.exactly(len(content)) == content
    assert client.get("/").body == b"here"


def test_a_file_when_the_client_leaves(slow, path):
    file = Watched(path)
    client = slow(send(lambda: file)).request()
    client.head()
    client.reset()
    assert file.is_closed_unread()


def test_a_file_that_becomes_shorter(slow, path, errors):
    client = slow(send(lambda: path.open("rb"))).request()
    _, headers = client.head()
    os.truncate(path, 1_000_000)
    with pytest.raises(ConnectionResetError):
        client.exactly(int(headers["Content-Length"]))
    errors.take("a file became shorter")


# Threads and contexts


@pytest.mark.parametrize("threads", [0, 1])
def test_a_stream_that_waits_between_its_blocks_lets_others_in(serve, threads):
    blocks = []
    asked, answered = threading.Event(), threading.Event()

    def stream(environ, start_response):
        start_response("200 OK", TEXT)
        yield b"begun"
        assert asked.wait(PATIENCE)
        while not answered.is_set() and len(blocks) < 400:
            time.sleep(0.006)
            blocks.append(b"x")
            yield b"x"

    def app(environ, start_response):
        answered.set()
        start_response("200 OK", TEXT)
        return []

    address = serve(by_path(stream=stream, end=app), threads=threads)
    with Connection(address) as reader, Connection(address) as client:
        reader.request("/stream").head()
        assert reader.chunk() == b"begun"
        client.request("/end")
        asked.set()
        assert client.response().status == 200
        while reader.chunk():
            pass
    assert len(blocks) < 100


@pytest.mark.parametrize("code", [None, 3, "a text"])
def test_a_child_of_the_application_may_exit(connect, code):
    def app(environ, start_response):
        child = os.fork()
        if child == 0:
            os.close(2)
            sys.exit(code)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        start_response("200 OK", TEXT)
        return [b"%d" % status]

    client = connect(app)
    for _ in range(3):
        assert client.get().body == {None: b"0", 3: b"3"}.get(code, b"1")


def test_what_a_child_has_printed_is_written(connect, tmp_path):
    path = tmp_path / "printed"

    def app(environ, start_response):
        child = os.fork()
        if child == 0:
            sys.stdout = path.open("w")
            sys.stderr.close()
            sys.stdout.write("by the child\n")
            sys.exit("to nobody")
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        start_response("200 OK", TEXT)
        return [b"%d" % status]

    assert connect(app).get().body == b"1"
    assert path.read_text() == "by the child\n"


def test_one_slow_request_does_not_delay_others():
    app = Waiting([b"slow"])
    with (
        fasthttp.Server(by_path(slow=app), port=0, threads=2) as server,
        Connection(server.addresses[0]) as slow,
        Connection(server.addresses[0]) as fast,
    ):
        slow.request("/slow")
        app.wait()
        for _ in range(20):
            assert fast.get("/").body == b"here"
        app.open()
        assert slow.response().body == b"slow"


def test_a_client_that_leaves_before_a_thread_is_free():
    app = Waiting([b"waited"])
    with (
        fasthttp.Server(by_path(wait=app), port=0, threads=1) as server,
        Connection(server.addresses[0]) as first,
        Connection(server.addresses[0]) as last,
    ):
        first.request("/wait")
        app.wait()
        for path in ("/wait", "/"):
            Connection(server.addresses[0]).request(path).reset()
        last.request("/")
        app.open()
        assert first.response().body == b"waited"
        assert last.response().body == b"here"


def test_who_leaves_before_a_thread_is_free_takes_no_memory():
    """However many come and go meanwhile; those that stay are answered."""
    app = Waiting([b"waited"])
    with (
        fasthttp.Server(app, port=0, threads=1) as server,
        Connection(server.addresses[0]) as first,
        Connection(server.addresses[0]) as last,
    ):

        def let_the_loop_turn():
            with Connection(server.addresses[0]) as refused:
                assert refused.send(b"?\r\n\r\n").response().status == 400

        sender = os.urandom(8).hex()
        first.request()
        app.wait()
        last.request()
        for _ in range(8):
            leaving = [Connection(server.addresses[0]) for _ in range(50)]
            for client in leaving:
                client.request("/", f"From: {sender}", "X-Own: 1")
            let_the_loop_turn()
            for client in leaving:
                client.reset()
            let_the_loop_turn()
        gc.collect()
        left = [
            each
            for each in gc.get_objects()
            if type(each) is dict and each.get("HTTP_FROM") == sender
        ]
        assert len(left) <= 100
        app.open()
        assert first.response().body == b"waited"
        assert last.response().body == b"waited"


def test_a_thread_goes_on_with_what_waits():
    """First come, first served; no answer waits for the next request."""
    order = []
    entered = threading.Semaphore(0)
    go_on = [threading.Semaphore(0) for _ in range(5)]

    def app(environ, start_response):
        number = int(environ["PATH_INFO"][1:])
        order.append(number)
        entered.release()
        assert go_on[number].acquire(timeout=PATIENCE)
        start_response("200 OK", TEXT)
        return [b"%d" % number]

    with (
        fasthttp.Server(
            by_path(**{str(n): app for n in range(5)}), port=0, threads=1
        ) as server,
        contextlib.ExitStack() as clients,
    ):
        connections = [
            clients.enter_context(Connection(server.addresses[0]))
            for _ in range(5)
        ]
        connections[0].request("/0")
        assert entered.acquire(timeout=PATIENCE)
        for number in range(1, 5):
            connections[number].request(f"/{number}")
            # A refusal that comes after it: the loop has seen both.
            with Connection(server.addresses[0]) as refused:
                assert refused.send(b"?\r\n\r\n").response().status == 400
        for number in range(5):
            go_on[number].release()
            if number < 4:
                assert entered.acquire(timeout=PATIENCE)
            assert connections[number].response().body == b"%d" % number
    assert order == list(range(5))


def test_streams_leave_a_request_its_turn():
    """Though one is always ready to go on when the thread is free."""
    stop = threading.Event()

    def stream(environ, start_response):
        start_response("200 OK", TEXT)
        yield b"begun"
        while not stop.is_set():
            # Meanwhile the loop, in its turns, gives the thread the others.
            for _ in range(3):
                with Connection(server.addresses[0]) as refused:
                    assert refused.send(b"?\r\n\r\n").response().status == 400
            # Enough for now, though nothing to send.
            yield from [b""] * 512

    with (
        fasthttp.Server(by_path(stream=stream), port=0, threads=1) as server,
        contextlib.ExitStack() as clients,
    ):
        readers = [
            clients.enter_context(Connection(server.addresses[0]))
            for _ in range(3)
        ]
        try:
            for reader in readers:
                reader.request("/stream").head()
                assert reader.chunk() == b"begun"
            with Connection(server.addresses[0]) as client:
                for _ in range(5):
                    assert client.get("/").body == b"here"
        finally:
            stop.set()
        for reader in readers:
            assert reader.chunk() == b""


def test_requests_leave_a_stream_its_turn():
    """Also when the thread could go on with the next one by itself."""
    order = []
    go_on = threading.Event()
    first = Waiting([b"first"])

    def stream(environ, start_response):
        start_response("200 OK", TEXT)
        yield b"begun"
        assert go_on.wait(PATIENCE)
        # Enough for now, though nothing to send.
        yield from [b""] * 512
        order.append("stream")

    def last(environ, start_response):
        order.append("last")
        start_response("200 OK", TEXT)
        return [b"last"]

    def let_the_loop_turn():
        with Connection(server.addresses[0]) as refused:
            assert refused.send(b"?\r\n\r\n").response().status == 400

    apps = by_path(stream=stream, first=first, last=last)
    with (
        fasthttp.Server(apps, port=0, threads=1) as server,
        Connection(server.addresses[0]) as reader,
        Connection(server.addresses[0]) as one,
        Connection(server.addresses[0]) as other,
    ):
        reader.request("/stream").head()
        assert reader.chunk() == b"begun"
        one.request("/first")
        let_the_loop_turn()
        other.request("/last")
        let_the_loop_turn()
        go_on.set()
        first.wait()
        for _ in range(2):
            let_the_loop_turn()
        first.open()
        assert one.response().body == b"first"
        assert other.response().body == b"last"
        assert reader.chunk() == b""
    assert order == ["stream", "last"]


def test_many_requests_leave_a_stream_its_turns():
    """One of a stream's comes behind each request, however many wait."""
    order = []
    go_on = threading.Event()

    def let_the_loop_turn():
        with Connection(server.addresses[0]) as refused:
            assert refused.send(b"?\r\n\r\n").response().status == 400

    def stream(environ, start_response):
        start_response("200 OK", TEXT)
        yield b"begun"
        assert go_on.wait(PATIENCE)
        for _ in range(3):
            # Enough for now, though nothing to send.
            yield from [b""] * 512
            order.append("stream")

    def other(environ, start_response):
        order.append("other")
        for _ in range(3):
            let_the_loop_turn()
        start_response("200 OK", TEXT)
        return []

    with (
        fasthttp.Server(
            by_path(stream=stream, other=other), port=0, threads=1
        ) as server,
        contextlib.ExitStack() as clients,
    ):
        reader, *others = [
            clients.enter_context(Connection(server.addresses[0]))
            for _ in range(5)
        ]
        reader.request("/stream").head()
        assert reader.chunk() == b"begun"
        for client in others:
            client.request("/other")
        let_the_loop_turn()
        go_on.set()
        for client in others:
            assert client.response().status == 200
        assert reader.chunk() == b""
    assert order == ["other", "stream"] * 3 + ["other"]


def test_a_fault_that_cannot_be_logged_ends_the_connection(connect, errors):
    log = logging.getLogger("fasthttp.error")

    def fail(record):
        if "exception in the application" in record.getMessage():
            raise ZeroDivisionError
        return True

    client = connect(answer([b"here"], headers=[("a b", "c")]))
    log.addFilter(fail)
    try:
        client.request()
        with contextlib.suppress(ConnectionResetError):
            client.file.read()
        errors.take("ZeroDivisionError")
    finally:
        log.removeFilter(fail)


def test_a_failure_in_the_loop_costs_no_thread(errors):
    """Here of the program's own log."""
    log = logging.getLogger("fasthttp.access")
    failures = iter([True])

    def fail_once(record):
        if next(failures, False):
            raise ZeroDivisionError
        return True

    log.addFilter(fail_once)
    log.setLevel(logging.INFO)
    try:
        with fasthttp.Server(
            answer([b"here"]), port=0, threads=1, access_log=True
        ) as server:
            with Connection(server.addresses[0]) as client:
                client.request()
                errors.take("ZeroDivisionError")
            with Connection(server.addresses[0]) as client:
                assert client.get().body == b"here"
    finally:
        log.removeFilter(fail_once)
        log.setLevel(logging.NOTSET)


def test_a_loop_without_memory_costs_no_thread(monkeypatch):
    failures = iter([True])
    open_soon = fasthttp.AsyncSocketServer.open_soon

    def fail_once(server, gate):
        if next(failures, False):
            raise MemoryError
        open_soon(server, gate)

    monkeypatch.setattr(fasthttp.AsyncSocketServer, "open_soon", fail_once)
    with (
        fasthttp.Server(answer([b"here"]), port=0, threads=1) as server,
        Connection(server.addresses[0]) as client,
    ):
        for _ in range(2):
            assert client.get().body == b"here"
    assert next(failures, None) is None


def test_a_wake_up_that_fails_hands_no_call_over_twice(monkeypatch):
    """It would serve two clients at a time then."""
    failures, both = iter([True]), threading.Barrier(2)
    call_soon = fasthttp.AsyncSocketServer.call_soon_threadsafe

    def fail_once(server, callback, *args):
        if callback.__name__ == "deliver" and next(failures, False):
            raise MemoryError
        call_soon(server, callback, *args)

    def app(environ, start_response):
        if environ["PATH_INFO"] != "/":
            both.wait(PATIENCE)
        start_response("200 OK", TEXT)
        return [environ["PATH_INFO"].encode()]

    monkeypatch.setattr(
        fasthttp.AsyncSocketServer, "call_soon_threadsafe", fail_once
    )
    with (
        fasthttp.Server(app, port=0, threads=2) as server,
        Connection(server.addresses[0]) as first,
        Connection(server.addresses[0]) as second,
    ):
        assert first.get("/").body == b"/"
        assert next(failures, None) is None
        first.request("/first")
        second.request("/second")
        assert first.response().body == b"/first"
        assert second.response().body == b"/second"


def test_an_exception_that_comes_too_late_costs_no_thread():
    """From another thread, as a timeout's does, behind the application."""
    entered, go_on = threading.Lock(), threading.Lock()
    entered.acquire()
    go_on.acquire()
    idents = []

    class Late(Body):
        def __init__(self):
            super().__init__(b"late")
            # No line of Python in which it could be raised.
            steps = map(operator.call, [entered.release, go_on.acquire])
            self.close = functools.partial(list, steps)

    def app(environ, start_response):
        idents.append(threading.get_ident())
        start_response("200 OK", TEXT)
        return Late()

    with fasthttp.Server(by_path(late=app), port=0, threads=1) as server:
        with Connection(server.addresses[0]) as client:
            assert client.get("/late").body == b"late"
        assert entered.acquire(timeout=PATIENCE)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(idents[0]), ctypes.py_object(ZeroDivisionError)
        )
        go_on.release()
        with Connection(server.addresses[0]) as client:
            assert client.get("/").body == b"here"


@pytest.mark.parametrize(
    "body", [[b"here"], lambda: iter([b"here"])], ids=["list", "iterator"]
)
def test_a_refusal_that_cannot_be_logged(connect, body, errors):
    """Behind an answer it is found by the loop, in nobody's call."""
    log = logging.getLogger("fasthttp.error")

    def fail(record):
        if "refused with 400" in record.getMessage():
            raise ZeroDivisionError
        return True

    client = connect(answer(body))
    log.addFilter(fail)
    try:
        client.send(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n?\r\n\r\n")
        with contextlib.suppress(ConnectionResetError):
            client.file.read()
        errors.take("ZeroDivisionError")
    finally:
        log.removeFilter(fail)


def test_write_where_the_stack_is_full(connect, errors):
    """One RecursionError is the end of one response."""
    read = queue.SimpleQueue()

    def nest(write, left):
        if left < 0:
            write(b"deeper")
            # Until the loop waits to be told of the next block.
            read.get(timeout=PATIENCE)
        nest(write, left - 1)

    def app(environ, start_response):
        write = start_response("200 OK", TEXT)
        nest(write, sys.getrecursionlimit() - 100)

    first = connect(by_path(nest=app))
    first.request("/nest").head()
    # A chunk's line that is empty: the connection has ended.
    while first.file.readline():
        assert first.file.readline() == b"deeper\r\n"
        read.put(None)
    errors.take("RecursionError")
    with Connection(first.socket.getpeername()) as second:
        for _ in range(3):
            assert second.get("/").body == b"here"


def test_threads_run_at_the_same_time():
    barrier = threading.Barrier(4)

    def app(environ, start_response):
        barrier.wait(PATIENCE)
        start_response("200 OK", TEXT)
        return [b"together"]

    with (
        fasthttp.Server(app, port=0, threads=4) as server,
        contextlib.ExitStack() as clients,
    ):
        connections = [
            clients.enter_context(Connection(server.addresses[0]))
            for _ in range(8)
        ]
        for client in connections:
            client.request()
        for client in connections:
            assert client.response().body == b"together"


def test_where_the_application_runs(connect, threads):
    def app(environ, start_response):
        start_response("200 OK", TEXT)
        return [threading.current_thread().name.encode()]

    name = connect(app).get().body.decode()
    assert name == "fasthttp" if threads == 0 else "fasthttp-" in name


variable = contextvars.ContextVar("variable", default="default")


def test_a_stream_goes_on_though_others_keep_their_threads(slow):
    """What comes while it waits for its client gets another thread."""
    body = Body(*[BLOCK] * 40)
    keep = Waiting([b"kept"])
    client = slow(by_path(stream=answer(body), keep=keep), threads=2)
    client.request("/stream").head()
    asked = None
    while body.asked != asked:
        asked = body.asked
        time.sleep(0.05)
    with Connection(client.socket.getpeername()) as other:
        other.request("/keep")
        keep.wait()
        for _ in range(40):
            assert client.chunk() == BLOCK
        keep.open()
        assert other.response().body == b"kept"


@pytest.mark.parametrize("threads", [0, 1])
def test_close_at_a_stop_that_does_not_wait(threads):
    class Ticking(Endless):
        def __iter__(self):
            for block in self.iterator:
                time.sleep(0.05)
                yield block

    body = Ticking(b"tick")
    with (
        fasthttp.Server(answer(body), port=0, threads=threads) as server,
        Connection(server.addresses[0]) as client,
    ):
        client.request().head()
        assert client.chunk() == b"tick"
        server.stop(0)
        # Not some time later: the process may end here.
        assert body.closed.is_set()


def test_a_stream_keeps_its_thread_and_context(slow):
    """Through every wait for its client, and to its close()."""
    streams = 3
    homes = {}
    done = threading.Semaphore(0)
    local = threading.local()

    def home():
        return threading.get_ident(), variable.get(), local.name

    def app(environ, start_response):
        name = environ["PATH_INFO"]
        variable.set(name)
        local.name = "own"
        start_response("200 OK", TEXT)
        places = homes[name] = [home()]
        try:
            for _ in range(40):
                yield BLOCK
                places.append(home())
        finally:
            places.append(home())
            done.release()

    address = slow(app).socket.getpeername()
    with contextlib.ExitStack() as clients:
        readers = {}
        for number in range(streams):
            client = Connection(address, receive_buffer=32768)
            readers[f"/{number}"] = clients.enter_context(client)
            client.request(f"/{number}").head()
        for _ in range(40):
            for client in readers.values():
                assert client.chunk() == BLOCK
        for client in readers.values():
            assert client.chunk() == b""
            assert done.acquire(timeout=PATIENCE)
    for name in readers:
        thread = homes[name][0][0]
        assert set(homes[name]) == {(thread, name, "own")}
        assert len(homes[name]) == 42


@pytest.mark.parametrize("count", [1, 2])
def test_what_a_stream_keeps_for_its_thread_is_its_own(count):
    """From the call to close(), as Django's database connections are."""
    local = threading.local()
    local.holder = None
    together = set()
    most = []

    def app(environ, start_response):
        together.add(environ["PATH_INFO"])
        most.append(len(together))
        # One that stood here before would be another request's.
        holder = getattr(local, "holder", None)
        local.holder = environ["PATH_INFO"]
        start_response("200 OK", TEXT)
        together.discard(environ["PATH_INFO"])
        return Kept(holder, local.holder)

    class Kept(Body):
        def __init__(self, before, holder):
            super().__init__(*[BLOCK] * (40 if holder > "/a" else 1))
            self.before, self.holder = before, holder
            self.others = set()

        def __next__(self):
            self.others |= {self.before, local.holder} - {None, self.holder}
            try:
                return super().__next__()
            except StopIteration:
                if self.others:
                    raise AssertionError(self.others) from None
                raise

        def close(self):
            assert local.holder == self.holder
            local.holder = None

    with (
        fasthttp.Server(app, port=0, threads=count) as server,
        contextlib.ExitStack() as clients,
    ):
        address = server.addresses[0]
        streams = []
        for number in range(5):
            client = Connection(address, receive_buffer=4096)
            clients.enter_context(client).request(f"/stream-{number}").head()
            streams.append(client)
        for number in range(20):
            with Connection(address) as client:
                client.request(f"/Short-{number}").head()
                assert client.chunk() == BLOCK
                assert client.chunk() == b""
        for client in streams:
            for _ in range(40):
                assert client.chunk() == BLOCK
            assert client.chunk() == b""
        with Connection(address) as client:
            assert client.request("/Last").head()[0] == 200
    assert max(most) <= count


def test_threads_for_streams_end_with_them():
    def threads():
        return {
            thread
            for thread in threading.enumerate()
            if thread.name.startswith("fasthttp-") and thread.name[-1].isdigit()
        }

    before = threads()
    apps = by_path(stream=lambda *about: answer(Endless())(*about))
    with fasthttp.Server(apps, port=0, threads=2) as server:
        with contextlib.ExitStack() as clients:
            for _ in range(6):
                client = Connection(server.addresses[0], receive_buffer=4096)
                clients.enter_context(client).request("/stream").head()
            with Connection(server.addresses[0]) as client:
                assert client.get("/").body == b"here"
            assert len(threads() - before) >= 7
        # The last two stay, whichever these are.
        until = time.monotonic() + PATIENCE
        while len(left := threads() - before) > 2:
            assert time.monotonic() < until
            left.pop().join(0.01)
        with Connection(server.addresses[0]) as client:
            assert client.get("/").body == b"here"


def test_requests_wait_where_no_thread_can_be_had(errors, monkeypatch):
    stream = Endless()
    with (
        fasthttp.Server(
            by_path(stream=answer(stream)), port=0, threads=1
        ) as server,
        Connection(server.addresses[0]) as client,
    ):
        with Connection(server.addresses[0], receive_buffer=4096) as reader:
            reader.request("/stream").head()
            asked = None
            while stream.asked != asked:
                asked = stream.asked
                time.sleep(0.05)

            def fail(thread):
                raise RuntimeError("no thread can be had")

            monkeypatch.setattr(threading.Thread, "start", fail)
            client.request("/")
            errors.take("no thread can be had")
            # By turns that nobody else can take.
            for _ in range(100):
                assert reader.chunk() == BLOCK
        assert client.response().body == b"here"


def test_threads_of_the_application_are_no_daemons(connect, threads):
    """Or what they do would be cut off at the program's end."""
    found = []

    def app(environ, start_response):
        thread = threading.Thread(target=found.append, args=[1])
        found.append(thread.daemon)
        start_response("200 OK", TEXT)
        return []

    assert connect(app, threads=threads).get().status == 200
    # In the loop they are as the thread of the server: here a daemon.
    assert found == [threads == 0]


def test_a_large_block_is_the_last_of_its_request(serve):
    """Between it and its close() comes no other: at once or in the loop."""
    order = []

    class Large(Body):
        def __init__(self, path):
            super().__init__(BLOCK * 20)
            self.path = path

        def close(self):
            order.append(self.path)

    def app(environ, start_response):
        order.append(environ["PATH_INFO"])
        start_response("200 OK", TEXT)
        return Large(environ["PATH_INFO"])

    address = serve(app, threads=0)
    with contextlib.ExitStack() as clients:
        connections = [
            clients.enter_context(Connection(address)) for _ in range(20)
        ]
        for number, client in enumerate(connections):
            client.request(f"/{number}")
        for client in connections:
            client.head()
            assert client.chunk() == BLOCK * 20
            assert client.chunk() == b""
    assert order[::2] == order[1::2]
    assert len(order) == 40


def test_a_request_does_not_see_the_context_of_another(connect):
    def app(environ, start_response):
        before = variable.get()
        variable.set(environ["PATH_INFO"])
        start_response("200 OK", TEXT)
        return [before.encode()]

    client = connect(app)
    for number in range(6):
        assert client.get(f"/{number}").body == b"default"


@pytest.mark.parametrize("kind", ["start_response", "write"])
def test_what_an_application_keeps_is_of_one_request(connect, kind):
    late = []
    fault = ValueError, ValueError(), None

    def app(environ, start_response):
        write = start_response("200 OK", TEXT)
        for call in late:
            call()
        if kind == "write":
            late.append(functools.partial(write, b"late"))
        else:
            late.append(functools.partial(start_response, "500 ", [], fault))
        return [b"here"]

    client = connect(app)
    for _ in range(3):
        got = client.get()
        assert (got.status, got.body) == (200, b"here")
    assert len(late) == 3


def test_who_leaves_takes_nobody_else_along(slow):
    """Not whom that serves by now which has served the one that leaves."""
    body = Body(*[BLOCK] * 40)
    client = slow(by_path(stream=answer(body)))
    address = client.socket.getpeername()
    leaving = Connection(address)
    assert leaving.get("/").body == b"here"
    client.request("/stream").head()
    wait_until_stalled(body, address)
    leaving.request("/", "Content-Length: 9")
    with Connection(address) as other:
        assert other.get("/").body == b"here"
        leaving.reset()
        assert other.get("/").body == b"here"
    for _ in range(40):
        assert client.chunk() == BLOCK
    assert client.chunk() == b""


# wsgiref.validate


def thorough(path):
    """An application that uses all a server offers, under the validator."""

    def app(environ, start_response):
        stream = environ["wsgi.input"]
        size = int(environ.get("CONTENT_LENGTH") or 0)
        body = stream.read(size // 2) + stream.readline() + b"".join(stream)
        environ["wsgi.errors"].write("")
        environ["wsgi.errors"].writelines([])
        environ["wsgi.errors"].flush()
        write = start_response("200 OK", list(TEXT))
        if environ["PATH_INFO"] == "/file":
            return environ["wsgi.file_wrapper"](path.open("rb"))
        if environ["PATH_INFO"] == "/write":
            write(b"written")
        if environ["PATH_INFO"] == "/endless":
            return Endless()
        return [b"<", body, b">"]

    return validator(app)


def test_the_validator_finds_nothing(threads, path, errors):
    targets = "/", "/a%20%ff?b", "/write", "/file", "http://x"
    methods = "GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD"
    fields = "Cookie: a", "Cookie: b", "X: y", "Content-Type: a/b"
    settings = {"port": 0, "threads": threads, "body_memory": 1000}
    with (
        fasthttp.Server(thorough(path), **settings) as server,
        Connection(server.addresses[0]) as client,
        Connection(server.addresses[0]) as other,
    ):
        for target, method in itertools.product(targets, methods):
            body = b"a\nb" * 1000 if method in ("POST", "PUT") else b""
            got = client.get(target, *fields, method=method, body=body)
            assert (target, method, got.status) == (target, method, 200)
        client.request("/", "Transfer-Encoding: chunked", method="POST")
        client.send(b"4\r\nbody\r\n0\r\n\r\n")
        assert client.response().body == b"<body>"
        client.request("/endless").head()
        assert client.chunk() == BLOCK
        client.reset()
        other.send(b"GET / HTTP/1.0\r\n\r\n")
        assert other.response().body == b"<>"
    # the validator complains of what was not closed when it is collected
    gc.collect()
