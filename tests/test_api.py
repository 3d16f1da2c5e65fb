import contextlib
import gc
import http.client
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import weakref

import pytest
from fakes import Waiting, fetch

import fasthttp
from fasthttp import api
from fasthttp.errors import (
    AppLoadError,
    BindError,
    ConfigError,
    FastHttpError,
)
from fasthttp.listeners import refuse_new_clients
from fasthttp.log import AccessLog


def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [threading.current_thread().name.encode()]


def test_public_names():
    for name in fasthttp.__all__:
        assert getattr(fasthttp, name) is not None
    assert issubclass(fasthttp.HttpProtocol, fasthttp.BaseProtocol)


def test_context_manager():
    with fasthttp.Server(app, port=0) as server:
        assert server.running
        ((host, port),) = server.addresses
        assert host == "127.0.0.1"
        assert server.url == f"http://127.0.0.1:{port}"
        assert server.sockets[0].getsockname() == (host, port)
        assert fetch(server.url)
    assert not server.running
    with socket.socket() as client:
        assert client.connect_ex((host, port)) != 0


def test_where_the_application_runs():
    for threads, in_loop in ((0, True), (1, False)):
        with fasthttp.Server(app, port=0, threads=threads) as server:
            assert (fetch(server.url) == b"fasthttp") is in_loop


def test_several_servers_in_one_process():
    with (
        fasthttp.Server(app, port=0) as first,
        fasthttp.Server(app, port=0) as second,
    ):
        assert first.url != second.url
        assert fetch(first.url)
        first.stop()
        assert fetch(second.url)


def test_stop_may_be_repeated_and_start_too():
    server = fasthttp.Server(app, port=0)
    with pytest.raises(RuntimeError, match="not started"):
        assert server.url
    server.stop()
    for _ in range(2):
        server.start()
        with pytest.raises(RuntimeError, match="running"):
            server.start()
        assert fetch(server.url)
        server.stop()
        server.stop()
        assert server.wait(0)


def test_a_taken_port():
    with fasthttp.Server(app, port=0) as server:
        other = fasthttp.Server(app, *server.addresses[0])
        with pytest.raises(BindError, match="already in use"):
            other.start()
        assert not other.running


def test_a_bound_socket():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        with fasthttp.Server(app, sockets=[listener]) as server:
            assert server.addresses == (listener.getsockname(),)
            assert fetch(server.url)
        assert listener.fileno() == -1


def test_a_socket_of_a_server_that_was_killed_while_it_stopped():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        refuse_new_clients([listener])
        with fasthttp.Server(app, sockets=[listener]) as server:
            assert fetch(server.url)


def test_several_addresses(tmp_path):
    path = tmp_path / "socket"
    bind = "0.0.0.0:0", "[::]:0", f"unix:{path}"
    with fasthttp.Server(app, bind=bind) as server:
        assert server.url.startswith("http://127.0.0.1:")
        assert [len(name) for name in server.addresses[:2]] == [2, 4]
        assert server.addresses[2] == str(path)
        assert fetch(server.url)
    with fasthttp.Server(app, bind="[::]:0") as server:
        assert server.url.startswith("http://[::1]:")
        assert fetch(server.url)


def test_stop_finishes_requests():
    gate = Waiting([b"finished"])
    with fasthttp.Server(gate, port=0) as server:
        client = http.client.HTTPConnection(*server.addresses[0])
        client.request("GET", "/")
        gate.wait()
        stopper = threading.Thread(target=server.stop)
        stopper.start()
        assert not server.wait(0)
        gate.open()
        assert client.getresponse().read() == b"finished"
        client.close()
        stopper.join()
        assert server.wait(0)


def test_stop_ends_within_its_timeout():
    gate = Waiting([b"finished"])
    server = fasthttp.Server(gate, port=0)
    server.start()
    client = http.client.HTTPConnection(*server.addresses[0])
    client.request("GET", "/")
    gate.wait()
    server.stop(timeout=0.1)
    assert not server.running
    with pytest.raises((http.client.RemoteDisconnected, ConnectionError)):
        client.getresponse()
    client.close()
    gate.open()


@pytest.mark.parametrize("threads", [0, 1])
def test_stop_from_the_application(threads):
    def stopping(environ, start_response):
        server.stop()
        start_response("200 OK", [])
        return [b"last words"]

    server = fasthttp.Server(stopping, port=0, threads=threads)
    server.start()
    assert fetch(server.url) == b"last words"
    assert server.wait(10)


def test_nothing_holds_a_server_that_was_stopped():
    server = fasthttp.Server(app, port=0)
    with server:
        assert fetch(server.url)
    held = weakref.ref(server)
    del server
    gc.collect()
    assert held() is None


def test_the_backlog_of_a_given_socket():
    with socket.create_server(("127.0.0.1", 0), backlog=1) as listener:
        gate = Waiting([b"finished"])
        with (
            fasthttp.Server(
                gate, sockets=[listener.dup()], threads=0, backlog=50
            ) as server,
            contextlib.ExitStack() as clients,
        ):
            threading.Thread(target=fetch, args=[server.url]).start()
            gate.wait()
            # Nobody accepts now.
            for _ in range(30):
                client = socket.create_connection(server.addresses[0], 10)
                clients.enter_context(client)
                client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            gate.open()


def test_the_programs_signal_handlers_come_back():
    source = """
import signal, threading, fasthttp
from fasthttp import demo
numbers = signal.SIGTERM, signal.SIGINT, signal.SIGQUIT
before = [signal.signal(number, print) for number in numbers]
server = fasthttp.Server(demo.app, port=0)
def stop():
    while not server.running:
        pass
    server.stop()
threading.Thread(target=stop).start()
server.run()
assert [signal.getsignal(number) for number in numbers] == [print] * 3
"""
    environ = os.environ | {"PYTHONPATH": os.getcwd()}
    subprocess.run([sys.executable, "-c", source], env=environ, check=True)


@pytest.fixture
def unstartable(monkeypatch):
    """Lets threads of one name not be had."""
    start = threading.Thread.start
    names = set()

    def fail(thread):
        if thread.name in names:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", fail)
    return names


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("fasthttp-2", pytest.raises(FastHttpError, match="start 2 threads")),
        ("fasthttp", pytest.raises(RuntimeError, match="start new thread")),
    ],
)
def test_a_start_without_enough_threads(unstartable, name, error):
    server = fasthttp.Server(app, port=0, threads=2)
    unstartable.add(name)
    with error:
        server.start()
    assert not server.running
    assert server.sockets[0].fileno() == -1
    unstartable.clear()
    with server:
        assert fetch(server.url)


def test_a_thread_that_cannot_be_started(monkeypatch, unstartable):
    died = threading.Event()
    monkeypatch.setattr(threading, "excepthook", lambda args: died.set())
    unstartable.add("fasthttp-flusher")
    server = fasthttp.Server(app, port=0, threads=2)
    server.start()
    assert died.wait(10)
    assert server.wait(10)
    assert server.sockets[0].fileno() == -1


# Of a process that has threads, from 3.12 on.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_does_not_wait_for_its_parents_loop():
    with fasthttp.Server(app, port=0) as server:
        code = os.fork()
        if code == 0:
            try:
                server.stop()
            finally:
                os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(code, 0)[1]) == 7
        assert fetch(server.url)


def test_threads_may_stop_it_together():
    server = fasthttp.Server(app, port=0)
    server.start()
    stoppers = [threading.Thread(target=server.stop) for _ in range(8)]
    for stopper in stoppers:
        stopper.start()
    for stopper in stoppers:
        stopper.join()
    assert not server.running


def test_nothing_of_the_host_program_changes():
    def look():
        names = "", "fasthttp", "fasthttp.error", "fasthttp.access"
        return (
            [signal.getsignal(each) for each in (2, 3, 15)],
            [logging.getLogger(name).handlers[:] for name in names],
        )

    before = look()
    with fasthttp.Server(app, port=0) as server:
        assert fetch(server.url)
        assert look() == before


def test_run_off_the_main_thread():
    server = fasthttp.Server(app, port=0)
    listening = threading.Event()
    thread = threading.Thread(target=server.run)

    class Told(logging.Handler):
        def emit(self, record):
            if "listening" in record.getMessage():
                listening.set()

    logger = logging.getLogger("fasthttp.error")
    handler = Told()
    logger.addHandler(handler)
    level = logger.level
    logger.setLevel("INFO")
    try:
        thread.start()
        assert listening.wait(10)
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)
    assert fetch(server.url)
    server.stop()
    thread.join(10)
    assert not thread.is_alive()


def test_access_log_goes_to_its_logger(caplog):
    caplog.set_level(logging.INFO, "fasthttp.access")
    with fasthttp.Server(app, port=0, access_log=True) as server:
        fetch(f"{server.url}/path")
    (message,) = caplog.messages
    assert '"GET /path HTTP/1.1" 200' in message


def test_settings_are_checked():
    for settings in (
        {"threads": -1},
        {"port": 65536},
        {"log_level": "?"},
        {"sockets": []},
        {"bind": 8000},
        {"bind": [8000]},
    ):
        with pytest.raises(ConfigError):
            fasthttp.Server(app, **settings)
    with pytest.raises(TypeError, match="worker"):
        fasthttp.Server(app, worker=1)


def test_an_application_by_name(tmp_path, monkeypatch):
    (tmp_path / "named_app.py").write_text(
        "def app(environ, start_response):\n"
        "    start_response('200 OK', [])\n"
        "    return [b'by name']\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with fasthttp.Server("named_app:app", port=0) as server:
        assert fetch(server.url) == b"by name"
    with pytest.raises(AppLoadError, match="no other"):
        fasthttp.Server("named_app:other")
    (tmp_path / "named-app.py").write_text("from named_app import app")
    (tmp_path / "named_package").mkdir()
    (tmp_path / "named_package" / "app.py").touch()
    (tmp_path / "named_package" / "__init__.py").write_text(
        "from named_app import app as application\n"
        "from named_package import app"
    )
    for name in ("named-app:app", "named_package"):
        with fasthttp.Server(name, port=0) as server:
            assert fetch(server.url) == b"by name"


def test_sockets_that_cannot_listen():
    closed = socket.socket()
    closed.close()
    with (
        socket.socket(type=socket.SOCK_DGRAM) as datagrams,
        pytest.raises(fasthttp.BindError, match="not supported"),
    ):
        fasthttp.Server(app, sockets=[datagrams]).start()
    with pytest.raises(fasthttp.BindError, match="Bad file descriptor"):
        fasthttp.Server(app, sockets=[closed]).start()


class Asgi:
    async def __call__(self, scope, receive, send):
        raise AssertionError


@pytest.mark.parametrize(
    ("app", "message"),
    [
        (42, "the application is not callable: 42"),
        (Asgi(), "the application is an ASGI application"),
    ],
)
def test_what_is_no_application(app, message):
    with pytest.raises(AppLoadError, match=message):
        fasthttp.Server(app)
    with pytest.raises(AppLoadError, match=message):
        fasthttp.serve(app, listen="127.0.0.1:x", url_scheme="https")


def run_script(source, *, stop=signal.SIGTERM):
    """Run a program until its server listens, ask it, stop it."""
    with subprocess.Popen(
        [sys.executable, "-c", source],
        env=os.environ | {"PYTHONPATH": os.getcwd()},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            lines = []
            for line in process.stderr:
                lines.append(line)
                if "listening at" in line:
                    break
            answer = fetch(line.split()[-1])
            process.send_signal(stop)
            lines += process.stderr
        finally:
            process.kill()
    return answer, "".join(lines), process.returncode


@pytest.mark.parametrize(
    "call",
    [
        "run(app, port=0)",
        "run('fasthttp.demo:app', '127.0.0.1', 0, threads=2)",
        "serve(app, listen='*:0')",
        "serve(app, host='127.0.0.1', port=0, connection_limit=9)",
        "Server(app, port=0).run()",
    ],
)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_run_and_serve(call, number):
    if call.startswith("Server"):
        call = f"logging.basicConfig(level='INFO'); fasthttp.{call}"
    else:
        call = f"fasthttp.{call}"
    answer, stderr, code = run_script(
        f"import fasthttp, logging\nfrom fasthttp.demo import app\n{call}\n",
        stop=number,
    )
    assert b"It works" in answer
    assert code == 0
    assert "Traceback" not in stderr
    assert stderr.count("listening at") == 1


@pytest.mark.parametrize("call", ["run(app,", "serve(app,"])
def test_the_access_log_of_run_goes_to_stdout_at_once(call):
    source = (
        "import fasthttp\nfrom fasthttp.demo import app\n"
        f"fasthttp.{call} port=0, access_log=True)\n"
    )
    reading, writing = os.pipe()
    with open(reading) as stdout:
        process = subprocess.Popen(
            [sys.executable, "-c", source],
            env=os.environ | {"PYTHONPATH": os.getcwd()},
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
        )
        os.close(writing)
        try:
            for line in process.stderr:
                if "listening at" in line:
                    break
            fetch(f"{line.split()[-1]}/path")
            assert select.select([stdout], [], [], 10)[0]
            assert '"GET /path HTTP/1.1" 200' in stdout.readline()
        finally:
            process.kill()
            process.communicate()


def test_run_leaves_logging_alone_where_it_is_set_up():
    source = (
        "import fasthttp, logging\n"
        "logging.basicConfig(level='INFO', format='mine: %(message)s')\n"
        "from fasthttp.demo import app\n"
        "fasthttp.run(app, port=0)\n"
    )
    _, stderr, _ = run_script(source)
    assert all(line.startswith("mine: ") for line in stderr.splitlines())


def test_run_logs_though_loggers_were_disabled(monkeypatch):
    logger = logging.getLogger("fasthttp.error")
    monkeypatch.setattr(logger, "disabled", True)
    monkeypatch.setattr(fasthttp.Server, "run", lambda server: None)
    fasthttp.run(app, port=0)
    assert not logger.disabled


def test_exit_while_serving():
    """A program that ends without a stop neither hangs nor complains."""
    process = subprocess.run(
        [
            sys.executable,
            "-c",
            "import fasthttp\nfrom fasthttp.demo import app\n"
            "import urllib.request\n"
            "server = fasthttp.Server(app, port=0)\nserver.start()\n"
            "print(urllib.request.urlopen(server.url).status)\n",
        ],
        env=os.environ | {"PYTHONPATH": os.getcwd()},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (process.stdout, process.stderr) == ("200\n", "")
    assert process.returncode == 0


def test_load_app_accepts_nested_names():
    assert api.load_app("fasthttp.demo") is api.load_app("fasthttp.demo:app")
    made = api.load_app("fasthttp.log:AccessLog.to_stream(None)")
    assert type(made) is AccessLog


@pytest.mark.parametrize(
    "call",
    [
        "methodcaller('get')",
        "methodcaller('get', -1, [None, (2.5, b'')], a={'b:c/d.e()': True})",
    ],
)
def test_load_app_calls_with_literals(call):
    for each in (call, call.replace(" ", "\n")):
        assert repr(api.load_app(f"operator:{each}")) == f"operator.{call}"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("DEMO()", "'str' object is not callable"),
        ("build_parser()", "is not callable: _Parser"),
        ("build_parser(1)", "takes 0 positional arguments but 1 was given"),
        ("build_parser(a=1)", "unexpected keyword argument 'a'"),
        ("build_parser(**{'a': 1})", "keywords must be strings"),
        ("build_parser(DEMO)", "no call with literals as arguments"),
        ("build_parser(a={[]: 1})", "no call with literals as arguments"),
        ("build_parser(1,,2)", "no call with literals as arguments"),
        ("build_parser()(1)", "no call with literals as arguments"),
        ("build_parser()\n", "is none of module"),
    ],
)
def test_load_app_tells_what_is_wrong_with_a_call(call, message):
    with pytest.raises(AppLoadError, match=message) as caught:
        api.load_app(f"fasthttp.cli:{call}")
    assert caught.value.__cause__ is None
    assert "\n" not in str(caught.value)


def test_serve_behind_a_proxy(monkeypatch):
    seen = []

    def scheme(environ, start_response):
        seen.append(environ["wsgi.url_scheme"])
        return app(environ, start_response)

    def run(app, *args, **settings):
        with fasthttp.Server(app, port=0) as server:
            fetch(server.url)

    monkeypatch.setattr(api, "run", run)
    api.serve(scheme)
    api.serve(scheme, url_scheme="https")
    assert seen == ["http", "https"]


def test_addresses_that_contradict():
    with pytest.raises(ConfigError, match="bind"):
        fasthttp.run(app, uds="/s", bind="127.0.0.1:0")


def test_serve_by_waitress_names(monkeypatch):
    calls = []
    monkeypatch.setattr(api, "run", lambda *a, **k: calls.append((a, k)))
    api.serve(app, listen="*:80 [::1]:81", max_request_body_size=5)
    api.serve(app, unix_socket="/s", backlog=7)
    assert calls == [
        (
            (app, "127.0.0.1", 8080),
            {
                "uds": None,
                "threads": 4,
                "bind": ("0.0.0.0:80", "[::1]:81"),
                "limit_request_body": 5,
            },
        ),
        (
            (app, "127.0.0.1", 8080),
            {"uds": "/s", "threads": 4, "backlog": 7},
        ),
    ]


@pytest.mark.parametrize(
    ("arguments", "bind"),
    [
        ({"listen": "*:0"}, "0.0.0.0:0"),
        ({"listen": "*"}, "0.0.0.0:8080"),
        ({"listen": "127.0.0.1"}, "127.0.0.1:8080"),
        ({"listen": "[::1]", "port": 81}, "[::1]:81"),
        ({"host": "*"}, "0.0.0.0:8080"),
        ({"host": "*", "port": 0}, "0.0.0.0:0"),
    ],
)
def test_addresses_as_waitress_takes_them(monkeypatch, arguments, bind):
    servers = []

    def run(*args, uds, **settings):
        servers.append(api.Server(*args, **settings))

    monkeypatch.setattr(api, "run", run)
    api.serve(app, **arguments)
    assert servers[0].config.bind == (bind,)


def test_serve_by_an_ini_file(monkeypatch):
    calls = []
    monkeypatch.setattr(api, "run", lambda *a, **k: calls.append((a, k)))
    texts = {
        "host": "*",
        "port": "6543",
        "threads": "8",
        "keep_alive": "2.5",
        "access_log": "true",
        "connection_limit": "100",
        "max_request_body_size": "1000",
    }
    assert api.serve_paste(app, {"here": "/"}, **texts) == 0
    assert api.serve_paste(app, {}, bind="127.0.0.1:80 unix:/s") == 0
    settings = {
        "uds": None,
        "threads": 8,
        "keep_alive": 2.5,
        "access_log": True,
        "worker_connections": 100,
        "limit_request_body": 1000,
    }
    bind = {"bind": ("127.0.0.1:80", "unix:/s"), "uds": None, "threads": 4}
    assert calls == [
        ((app, "0.0.0.0", 6543), settings),
        ((app, "127.0.0.1", 8080), bind),
    ]
    for name in ("port", "threads", "access_log"):
        with pytest.raises(ConfigError, match=name):
            api.serve_paste(app, {}, **{name: "many"})
