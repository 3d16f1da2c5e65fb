"""What programs written for `wsgiref.simple_server` call."""

import contextlib
import errno
import http.client
import inspect
import io
import os
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
import urllib.request
from wsgiref import simple_server as wsgiref_server
from wsgiref.validate import validator

import pytest

from fasthttp import ConfigError, simple_server
from fasthttp.simple_server import (
    WSGIRequestHandler,
    WSGIServer,
    demo_app,
    make_server,
)


class QuietHandler(WSGIRequestHandler):
    def log_message(self, format, *args):
        self.server.lines.append((self, format % args))


class QuietServer(WSGIServer):
    def __init__(self, *args):
        self.lines = []
        self.timeouts = 0
        super().__init__(*args)

    def handle_timeout(self):
        self.timeouts += 1


@pytest.fixture
def make():
    """Like make_server, on a free port and without noise."""
    made = []

    def make(app=demo_app, handler=QuietHandler, server=QuietServer):
        made.append(make_server("127.0.0.1", 0, app, server, handler))
        return made[-1]

    yield make
    for each in made:
        each.shutdown()
        each.server_close()


@pytest.fixture
def serving(make):
    """`make`, and `serve_forever` in a thread until the test's end."""
    started = []

    def serving(*args, **kwargs):
        server = make(*args, **kwargs)
        thread = threading.Thread(target=server.serve_forever)
        started.append((server, thread))
        thread.start()
        return server

    yield serving
    for server, thread in started:
        server.shutdown()
        thread.join(10)
        assert not thread.is_alive()


def url(server, path="/"):
    return f"http://127.0.0.1:{server.server_port}{path}"


def fetch(server, path="/"):
    with urllib.request.urlopen(url(server, path), timeout=10) as response:
        return response.read().decode()


def call(server, times=1):
    """A thread that asks `times` times; its answers end up in a list."""
    answers = []

    def ask():
        for _ in range(times):
            answers.append(fetch(server))

    thread = threading.Thread(target=ask)
    thread.start()
    return thread, answers


def names(function):
    return list(inspect.signature(function).parameters)


@pytest.mark.parametrize(
    "path",
    [
        "make_server",
        "demo_app",
        "WSGIServer.serve_forever",
        "WSGIServer.handle_request",
        "WSGIServer.shutdown",
        "WSGIServer.server_close",
        "WSGIServer.set_app",
        "WSGIServer.get_app",
        "WSGIServer.fileno",
        "WSGIServer.handle_timeout",
        "WSGIServer.server_bind",
        "WSGIServer.server_activate",
        "WSGIServer.setup_environ",
        "WSGIRequestHandler.log_message",
        "WSGIRequestHandler.log_request",
        "WSGIRequestHandler.log_error",
        "WSGIRequestHandler.address_string",
        "WSGIRequestHandler.log_date_time_string",
        "WSGIRequestHandler.get_environ",
        "WSGIRequestHandler.get_stderr",
    ],
)
def test_signatures(path):
    ours, theirs = simple_server, wsgiref_server
    for part in path.split("."):
        ours, theirs = getattr(ours, part), getattr(theirs, part)
    assert names(ours) == names(theirs)


def test_constructor():
    assert names(WSGIServer)[:2] == ["server_address", "RequestHandlerClass"]
    server = WSGIServer(("127.0.0.1", 0), WSGIRequestHandler, False)
    with server:
        assert server.server_address == ("127.0.0.1", 0)
        server.server_bind()
        server.server_activate()
        assert server.server_port == server.server_address[1] > 0
    assert server.fileno() == -1


def test_attributes(make):
    server = make()
    assert server.server_address == server.socket.getsockname()
    assert server.server_port == server.server_address[1]
    assert server.server_name
    assert server.fileno() == server.socket.fileno()
    assert server.get_app() is server.application is demo_app
    assert server.base_environ["SERVER_PORT"] == str(server.server_port)
    for name in (
        "allow_reuse_address",
        "allow_reuse_port",
        "request_queue_size",
        "address_family",
        "timeout",
    ):
        assert hasattr(WSGIServer, name)


def test_a_taken_port_is_an_os_error(make):
    with pytest.raises(OSError, match="in use") as caught:
        make_server("127.0.0.1", make().server_port, demo_app)
    assert caught.value.errno == errno.EADDRINUSE


def test_an_empty_host_is_every_interface():
    with make_server("", 0, demo_app) as server:
        assert server.server_address[0] == "0.0.0.0"


def test_serve_forever_and_shutdown(serving):
    server = serving()
    text = fetch(server, "/path?query")
    assert text.startswith("Hello world!\n")
    assert "PATH_INFO = '/path'" in text
    server.shutdown()
    assert server.fileno() >= 0


def test_serve_forever_again(make):
    server = make()
    for _ in range(2):
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        assert fetch(server).startswith("Hello")
        server.shutdown()
        thread.join(10)
        assert not thread.is_alive()


def test_shutdown_before_serve_forever(make):
    server = make()
    server.shutdown()
    server.serve_forever()


class ThreadingServer(socketserver.ThreadingMixIn, QuietServer):
    pass


@pytest.mark.parametrize("cls", [QuietServer, ThreadingServer])
def test_shutdown_from_the_application(make, cls):
    def last(environ, start_response):
        server.shutdown()
        start_response("200 OK", [])
        return [b"last"]

    server = make(last, server=cls)
    thread, answers = call(server)
    server.serve_forever()
    thread.join()
    assert answers == ["last"]


def test_the_application_runs_in_the_callers_thread(make):
    def which(environ, start_response):
        start_response("200 OK", [])
        assert not environ["wsgi.multithread"]
        return [str(threading.get_ident()).encode()]

    server = make(which)
    thread, answers = call(server)
    server.handle_request()
    thread.join()
    assert answers == [str(threading.get_ident())]


def test_a_threading_mix_in(serving):
    barrier = threading.Barrier(2, timeout=10)

    def meet(environ, start_response):
        assert environ["wsgi.multithread"]
        barrier.wait()
        start_response("200 OK", [])
        return [b"met"]

    class Threading(socketserver.ThreadingMixIn, QuietServer):
        daemon_threads = True

    server = serving(meet, server=Threading)
    calls = [call(server) for _ in range(2)]
    for thread, _ in calls:
        thread.join()
    assert [answers for _, answers in calls] == [["met"], ["met"]]


@contextlib.contextmanager
def handling(server):
    """It reads on until its client has left: that may do so meanwhile."""
    thread = threading.Thread(target=server.handle_request)
    thread.start()
    try:
        yield
    finally:
        thread.join()


@pytest.mark.parametrize("connection", ["keep-alive", "close"])
def test_handle_request_serves_one(make, connection):
    server = make()
    clients = []
    for _ in range(3):
        client = http.client.HTTPConnection(*server.server_address)
        client.request("GET", "/", headers={"Connection": connection})
        clients.append(client)
    for served, client in enumerate(clients, 1):
        with handling(server):
            assert client.getresponse().status == 200
            client.close()
        assert len(server.lines) == served


def test_handle_request_keeps_the_socket_open(make):
    server = make()
    for _ in range(3):
        thread, answers = call(server)
        server.handle_request()
        thread.join()
        assert answers[0].startswith("Hello")


def test_handle_request_ends_after_a_bad_request(make):
    server = make()
    with socket.create_connection(server.server_address) as client:
        client.sendall(b"nonsense\r\n\r\n")
        server.handle_request()
        assert client.recv(100).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("data", [b"", b"GET / HT"])
def test_handle_request_ends_with_its_client(make, data):
    """As of somebody who looks whether the port is open."""
    server = make()
    for _ in range(2):
        with socket.create_connection(server.server_address) as client:
            client.sendall(data)
        server.handle_request()
    assert server.timeouts == 0


def test_handle_request_serves_no_second_request(make, capsys):
    server = make()
    request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    for _ in range(2):
        with (
            handling(server),
            socket.create_connection(server.server_address) as client,
        ):
            client.sendall(request * 2)
            with client.makefile("rb") as answers:
                data = answers.read()
        assert data.count(b"HTTP/1.1 200") == 1
        assert b"\r\nConnection: close\r\n" in data
    assert len(server.lines) == 2
    assert capsys.readouterr().err == ""


def test_handle_request_may_be_shut_down(make):
    """By whom its client, who says nothing, is not waited for."""
    server = make()
    with socket.create_connection(server.server_address):
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        until = time.monotonic() + 10
        while (worker := server._worker) is None or not worker.server.draining:
            assert time.monotonic() < until
            thread.join(0.01)
        stopping = threading.Thread(target=server.shutdown)
        stopping.start()
        thread.join(10)
        assert not thread.is_alive()
        stopping.join()


@pytest.mark.parametrize(
    ("base", "hook"),
    [
        (WSGIServer, "verify_request"),
        (WSGIServer, "get_request"),
        (WSGIServer, "service_actions"),
        (WSGIRequestHandler, "handle"),
    ],
)
def test_hooks_that_nobody_would_call(base, hook):
    """Or a server that lets in only some would let in all."""
    mixin = type("Mixin", (), {hook: print})
    for bases, content in [((base,), {hook: print}), ((mixin, base), {})]:
        with pytest.raises(TypeError, match=f"Own.{hook} would never"):
            type("Own", bases, content)


def test_server_close_frees_the_port_of_one_that_serves(serving):
    server = serving()
    fetch(server)
    server.server_close()
    with socket.create_server(server.server_address):
        pass


def test_tls_is_told_of(make):
    server = make()

    class Wrapped(socket.socket):
        context = None

    with Wrapped() as wrapped:
        plain, server.socket = server.socket, wrapped
        try:
            with pytest.raises(ConfigError, match="TLS"):
                server.serve_forever()
        finally:
            server.socket = plain


def test_handle_request_times_out(make):
    server = make()
    server.timeout = 0.01
    server.handle_request()
    assert server.timeouts == 1


def test_set_app(make):
    def other(environ, start_response):
        start_response("200 OK", [])
        return [b"other"]

    server = make()
    server.set_app(other)
    assert server.get_app() is other
    thread, answers = call(server)
    server.handle_request()
    thread.join()
    assert answers == ["other"]


def test_log_hooks(serving):
    server = serving()
    request = urllib.request.Request(
        url(server, "/x"), headers={"User-Agent": "agent"}
    )
    with urllib.request.urlopen(request, timeout=10) as response:
        size = len(response.read())
    server.shutdown()
    ((handler, text),) = server.lines
    assert text == f'"GET /x HTTP/1.1" 200 {size}'
    assert (handler.command, handler.path) == ("GET", "/x")
    assert handler.request_version == "HTTP/1.1"
    assert handler.client_address[0] == "127.0.0.1"
    assert handler.headers["user-agent"] == "agent"
    assert handler.headers.get("referer", "-") == "-"
    assert handler.server is server


def test_default_log_goes_to_stderr_and_is_escaped(capsys):
    with make_server("127.0.0.1", 0, demo_app) as server:
        WSGIRequestHandler({}, ("10.0.0.1", 1), server).log_message(
            '"%s" %d', "a\x1b\n", 7
        )
    line = capsys.readouterr().err
    assert line.startswith("10.0.0.1 - - [")
    assert line.endswith('] "a\\x1b\\x0a" 7\n')


class Broken(io.StringIO):
    def write(self, text):
        raise OSError(errno.EIO, "Input/output error")


def closed():
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize("stderr", [None, Broken(), closed()])
def test_a_log_that_cannot_be_written_ends_no_connection(
    serving, monkeypatch, stderr
):
    server = serving(handler=WSGIRequestHandler)
    monkeypatch.setattr(sys, "stderr", stderr)
    client = http.client.HTTPConnection(*server.server_address)
    client.connect()
    connection = client.sock
    for _ in range(3):
        client.request("GET", "/")
        assert client.getresponse().read().startswith(b"Hello")
        assert client.sock is connection
    client.close()


def test_a_log_that_raises_is_told_and_ends_handle_request(make, caplog):
    class Raising(WSGIRequestHandler):
        def log_request(self, code="-", size="-"):
            raise RuntimeError("from the handler")

    server = make(handler=Raising)
    thread = threading.Thread(target=server.handle_request)
    thread.start()
    assert fetch(server).startswith("Hello")
    thread.join(10)
    assert not thread.is_alive()
    assert "from the handler" in caplog.text


def test_environ_hooks(make):
    class Handler(QuietHandler):
        def address_string(self):
            return "the.client"

        def get_environ(self):
            environ = super().get_environ()
            environ["mine"] = self.headers["X-Test"]
            environ["peer"] = self.client_address
            del environ["HTTP_X_TEST"]
            return environ

    seen = {}

    def look(environ, start_response):
        seen.update(environ)
        start_response("200 OK", [])
        return []

    server = make(look, Handler)
    server.base_environ["SERVER_NAME"] = "named"
    server.base_environ["extra"] = "value"
    client = http.client.HTTPConnection(*server.server_address)
    client.request("GET", "/", headers={"X-Test": "1"})
    with handling(server):
        assert client.getresponse().status == 200
        client.close()
    assert seen["mine"] == "1"
    assert seen["peer"][0] == seen["REMOTE_ADDR"] == "127.0.0.1"
    assert seen["peer"][1] == int(seen["REMOTE_PORT"])
    assert seen["REMOTE_HOST"] == "the.client"
    assert (seen["SERVER_NAME"], seen["extra"]) == ("named", "value")
    assert "HTTP_X_TEST" not in seen
    assert seen["wsgi.errors"] is sys.stderr


def test_environ_is_valid(make):
    server = make(validator(demo_app))
    thread, answers = call(server)
    server.handle_request()
    thread.join()
    assert answers[0].startswith("Hello world!")


def test_an_interrupt_is_raised_as_by_wsgiref():
    source = (
        "from fasthttp import make_server\n"
        "from fasthttp.simple_server import demo_app\n"
        "server = make_server('127.0.0.1', 0, demo_app)\n"
        "print(server.server_port, flush=True)\n"
        "try:\n"
        "    server.serve_forever()\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted')\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", source],
        env=os.environ | {"PYTHONPATH": os.getcwd()},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            port = process.stdout.readline().strip()
            urllib.request.urlopen(f"http://127.0.0.1:{port}/").close()
            process.send_signal(signal.SIGINT)
            stdout, stderr = process.communicate(timeout=10)
        finally:
            process.kill()
    assert stdout == "interrupted\n"
    assert '"GET / HTTP/1.1" 200' in stderr
    assert "Traceback" not in stderr
