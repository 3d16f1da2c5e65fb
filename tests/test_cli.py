import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from fakes import fetch

from fasthttp import __version__, cli
from fasthttp.config import Config
from fasthttp.errors import ConfigError

ROOT = Path(cli.__file__).parents[1]
APP = """
import os, sys, time

def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello from " + __name__.encode()]

def factory():
    return app

class Holder:
    inner = staticmethod(app)

application = app
number = 7

async def asgi(scope, receive, send):
    raise AssertionError
"""
GATED = """
import os, signal, threading

ENTERED, GATE = int(os.environ["ENTERED"]), int(os.environ["GATE"])

def tell_interrupts():
    handler = signal.getsignal(signal.SIGINT)

    def told(*arguments):
        os.write(ENTERED, b"i")
        handler(*arguments)

    signal.signal(signal.SIGINT, told)

def app(environ, start_response):
    if threading.current_thread() is threading.main_thread():
        tell_interrupts()
    os.write(ENTERED, b"x")
    os.read(GATE, 1)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"finished"]
"""
WAITING = (
    GATED
    + """
def wait(self=None, write=os.write, read=os.read, entered=ENTERED, gate=GATE):
    write(entered, b"w")
    read(gate, 1)
"""
)
CATCHING = """
try:
    wait()
except BaseException:
    pass
"""
FORKING = """
import os, signal

def app(environ, start_response):
    number = int(environ["PATH_INFO"][1:])
    child = os.fork()
    if child == 0:
        try:
            signal.raise_signal(number)
        except KeyboardInterrupt:
            os._exit(9)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"%d" % status]
"""
LOGGING_SET_UP = """
import logging.config
logging.config.dictConfig({"version": 1})
"""
STOPS = [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT]
LOG_LINE = re.compile(
    r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4}\] \[(\d+)\] \[([A-Z]+)\] (.+)"
)


@pytest.fixture(autouse=True)
def site(tmp_path):
    (tmp_path / "site_app.py").write_text(APP)
    return tmp_path


@pytest.fixture
def gated(serve, site):
    """A server whose application waits; `enter`, `open` steer it."""
    (site / "gated.py").write_text(GATED)
    entered, entered_w = os.pipe()
    gate, gate_w = os.pipe()

    class Gated:
        options = {
            "env": {"ENTERED": str(entered_w), "GATE": str(gate)},
            "pass_fds": (entered_w, gate),
        }

        def start(self, *arguments):
            self.server = serve("gated:app", *arguments, **self.options)
            return self.server

        def request(self):
            client = http.client.HTTPConnection("127.0.0.1", self.server.port)
            client.request("GET", "/")
            assert self.told() == b"x"
            return client

        def told(self):
            return os.read(entered, 1)

        def open(self, times=1):
            os.write(gate_w, b"x" * times)

    yield Gated()
    for fd in (entered, entered_w, gate, gate_w):
        os.close(fd)


@pytest.fixture
def python(site, monkeypatch):
    """Lets the command be started by lines of sh, as `exec $PYTHON "$@"`."""

    def python(lines):
        script = site / "python"
        script.write_text(f"#!/bin/sh\nPYTHON={sys.executable}\n{lines}\n")
        script.chmod(0o700)
        monkeypatch.setattr(sys, "executable", str(script))

    return python


@pytest.mark.parametrize(
    "spec",
    [
        "site_app:app",
        "site_app:factory()",
        "site_app:Holder.inner",
        "site_app",
    ],
)
def test_application_is_found_in_the_current_directory(serve, spec):
    assert fetch(serve(spec).url) == b"hello from site_app"


def test_the_current_directory_goes_first(serve, site):
    other = site / "other"
    other.mkdir()
    (other / "site_app.py").write_text("")
    path = os.pathsep.join([str(ROOT), str(other), str(site)])
    environ = {"PYTHONPATH": path, "PYTHONSAFEPATH": "1"}
    assert fetch(serve("site_app", env=environ).url) == b"hello from site_app"


def test_a_current_directory_that_was_removed(serve, python):
    python('mkdir gone; cd gone; rmdir ../gone; exec $PYTHON "$@"')
    assert b"It works" in fetch(serve("fasthttp.demo:app").url)


def test_start_up_lines(serve):
    server = serve("site_app:app")
    lines = [LOG_LINE.fullmatch(line) for line in server.lines]
    pids, levels, texts = zip(*[line.groups() for line in lines], strict=True)
    assert set(pids) == {str(server.process.pid)}
    assert set(levels) == {"INFO"}
    assert __version__ in texts[0]
    assert str(server.process.pid) in texts[0]
    assert texts[1] == f"listening at http://127.0.0.1:{server.port}"


def test_the_demo_says_how_to_serve_ones_own(serve):
    server = serve("fasthttp.demo:app")
    server.wait_for_line("your own: .*module:app")
    page = fetch(f"{server.url}/<b>?q=<i>").decode()
    assert "python -m fasthttp hello:app" in page
    assert "&lt;b&gt;" in page
    assert "<b>" not in page
    assert "<i>" not in page


def test_several_addresses(serve, site):
    server = serve(
        "site_app",
        "--bind",
        "127.0.0.1:0",
        "--bind",
        "[::1]:0",
        "-b",
        f"unix:{site}/s",
    ).wait_for_urls(3)
    for url in server.urls[:2]:
        assert fetch(url) == b"hello from site_app"
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(f"{site}/s")
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert b"200 OK" in client.recv(4096)
    assert server.stop() == 0
    assert not (site / "s").exists()


def test_address_by_its_parts(command):
    server = command("--host", "localhost", "--port", "0", "site_app")
    server.wait_for_urls()
    assert fetch(server.url) == b"hello from site_app"


def test_inherited_descriptor(command):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        fd = str(listener.fileno())
        server = command("--fd", fd, "site_app", pass_fds=[int(fd)])
        server.wait_for_urls()
    assert fetch(server.url) == b"hello from site_app"


def test_socket_activation(site):
    """systemd passes descriptor 3 and names the process by LISTEN_PID."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        shell = (
            "exec 3<&0 0<&-; export LISTEN_FDS=1 LISTEN_PID=$$;"
            f" exec {sys.executable} -m fasthttp site_app"
        )
        process = subprocess.Popen(
            ["/bin/sh", "-c", shell],
            cwd=site,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdin=listener,
            stderr=subprocess.DEVNULL,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        assert fetch(url) == b"hello from site_app"
    finally:
        process.terminate()
        assert process.wait(10) == 0


def test_port_from_the_environment(command, free_port):
    server = command("site_app", env={"PORT": str(free_port)}).wait_for_urls()
    assert server.url == f"http://0.0.0.0:{free_port}"
    assert fetch(f"http://127.0.0.1:{free_port}") == b"hello from site_app"


def test_address_from_the_environment(command, site):
    place = {"FASTHTTP_HOST": "127.0.0.1", "FASTHTTP_PORT": "0"}
    server = command("site_app", env=place).wait_for_urls()
    assert fetch(server.url) == b"hello from site_app"
    server = command("site_app", env={"FASTHTTP_UDS": "s"}).wait_for_urls()
    assert server.url == "unix:s"


def test_a_name_that_is_no_option_is_told(serve):
    environ = {"FASTHTTP_KEEPALIVE": "5", "FASTHTTP_PORT": "tcp://10.0.0.1:80"}
    server = serve("site_app", env=environ)
    (line,) = [line for line in server.lines if "FASTHTTP" in line]
    assert LOG_LINE.fullmatch(line)[2] == "WARNING"
    assert line.endswith("no such option: FASTHTTP_KEEPALIVE")


def test_a_relative_path_is_removed_where_it_was_made(serve, site):
    (site / "moving.py").write_text(f"{APP}os.chdir('/')")
    server = serve("moving", "--bind", "unix:s")
    assert (site / "s").exists()
    assert server.stop() == 0
    assert not (site / "s").exists()


@pytest.mark.parametrize("number", STOPS)
@pytest.mark.parametrize("source", ["wait()", CATCHING])
def test_a_signal_while_the_application_is_loaded(
    command, gated, site, number, source
):
    (site / "loading.py").write_text(f"{WAITING}{source}")
    server = command("--bind", "unix:s", "loading:app", **gated.options)
    assert gated.told() == b"w"
    assert (site / "s").exists()
    assert server.stop(number) == 0
    (line,) = server.lines
    assert line.endswith("interrupted")
    assert not (site / "s").exists()


@pytest.mark.parametrize(
    "last",
    [
        "import atexit; atexit.register(wait)",
        "import threading; threading.Thread(target=wait).start()",
        "class Last: __del__ = wait\nlast = Last()",
    ],
)
def test_a_signal_after_the_stop_changes_nothing(serve, gated, site, last):
    (site / "leaving.py").write_text(f"{WAITING}{last}")
    server = serve("leaving:app", **gated.options)
    server.process.send_signal(signal.SIGTERM)
    server.wait_for_line("stopped")
    assert gated.told() == b"w"
    server.process.send_signal(signal.SIGTERM)
    server.process.send_signal(signal.SIGINT)
    gated.open()
    assert server.wait() == 0
    assert "Traceback" not in server.stderr


def test_quit_ends_what_does_not_end_by_itself(serve, gated, site):
    last = "import atexit; atexit.register(wait)"
    (site / "leaving.py").write_text(f"{WAITING}{last}")
    server = serve("leaving:app", **gated.options)
    server.process.send_signal(signal.SIGTERM)
    assert gated.told() == b"w"
    assert server.stop(signal.SIGQUIT) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_with_zero(serve, number):
    server = serve("site_app")
    assert fetch(server.url)
    assert server.stop(number) == 0
    assert signal.Signals(number).name in server.stderr
    assert "Traceback" not in server.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    "end", ["sys.exit(5)", "before(number, frame)", "raise ValueError('end')"]
)
def test_the_applications_signal_handler_comes_last(serve, site, number, end):
    source = f"""
import signal, sys
before = signal.getsignal({number:d})
def told(number, frame):
    print("told", number, file=sys.stderr)
    {end}
signal.signal({number:d}, told)
"""
    (site / "handling.py").write_text(APP + source)
    server = serve("handling")
    assert fetch(server.url)
    assert server.stop(number) == 0
    at = server.lines.index(f"told {number:d}")
    assert server.lines[at - 1].endswith("stopped")
    rest = "\n".join(server.lines[at + 1 :])
    assert ("application's signal handler" in rest) == ("ValueError" in end)
    assert ("ValueError: end" in rest) == ("ValueError" in end)


@pytest.mark.parametrize("threads", ["0", "1"])
def test_signals_to_a_child_of_the_application_are_its_own(
    serve, site, threads
):
    (site / "forking.py").write_text(FORKING)
    server = serve("forking:app", "--threads", threads)
    for number in STOPS:
        ended = 9 if number == signal.SIGINT else -number
        assert fetch(f"{server.url}/{number:d}") == b"%d" % ended
    assert server.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("threads", ["0", "1"])
def test_a_request_in_flight_is_finished(gated, number, threads):
    server = gated.start("--threads", threads)
    client = gated.request()
    server.process.send_signal(number)
    if threads != "0":
        server.wait_for_line("finishing open requests")
    gated.open()
    response = client.getresponse()
    assert (response.status, response.read()) == (200, b"finished")
    client.close()
    assert server.wait() == 0


def test_a_request_in_the_backlog_is_finished(gated):
    server = gated.start("--threads", "0")
    clients = [gated.request()]
    for _ in range(3):
        client = http.client.HTTPConnection("127.0.0.1", server.port)
        client.request("GET", "/")
        clients.append(client)
    server.process.send_signal(signal.SIGTERM)
    gated.open(4)
    for client in clients:
        assert client.getresponse().read() == b"finished"
        client.close()
    assert server.wait() == 0


@pytest.mark.parametrize("threads", ["0", "1"])
def test_a_second_interrupt_forces(gated, threads):
    server = gated.start("--threads", threads)
    client = gated.request()
    server.process.send_signal(signal.SIGINT)
    if threads == "0":
        assert gated.told() == b"i"
    else:
        server.wait_for_line("finishing open requests")
    assert server.stop(signal.SIGINT) == 0
    with pytest.raises((http.client.RemoteDisconnected, ConnectionError)):
        client.getresponse()
    client.close()


def test_quit_is_fast(gated):
    server = gated.start()
    client = gated.request()
    assert server.stop(signal.SIGQUIT) == 0
    client.close()


def test_the_graceful_timeout_ends_a_stuck_request(gated):
    server = gated.start("--graceful-timeout", "0.2")
    client = gated.request()
    assert server.stop() == 0
    assert "did not finish in time" in server.stderr
    client.close()


def test_a_taken_port(command):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        server = command("--bind", address, "site_app")
        assert server.wait() == 1
    (line,) = server.lines
    assert line.endswith(f"cannot listen on {address}: address already in use")


def test_too_few_descriptors(command, python):
    python('ulimit -n 6; exec $PYTHON "$@"')
    server = command("--bind", "127.0.0.1:0", "site_app")
    assert server.wait() == 1
    (line,) = server.lines
    assert line.endswith("cannot start: Too many open files")


@pytest.mark.parametrize(
    ("source", "spec", "message", "tracebacks"),
    [
        ("1/0", "broken:app", "ZeroDivisionError", 1),
        ("import missing_module", "broken", "missing_module", 1),
        ("raise SystemExit(3)", "broken", "it called sys.exit(3)", 1),
        ("{}['KEY']", "broken", "cannot load 'broken': KeyError: 'KEY'", 1),
        ("def app(): 1/0", "broken:app()", "ZeroDivisionError", 1),
        ("def app(a): a()", "broken:app(1)", "TypeError: 'int' object", 1),
        (f"{LOGGING_SET_UP}1/0", "broken:app", "ZeroDivisionError", 1),
        ("", "absent_module:app", "No module named 'absent_module'", 1),
        ("", "site_app:nothing", "no nothing", 0),
        ("", "broken", "no app or application", 0),
        ("", "site_app:number", "not callable", 0),
        ("", "site_app:asgi", "ASGI", 0),
        ("", "site_app:factory(1)", "but 1 was given", 0),
        ("", "site_app:factory(number)", "literals as arguments", 0),
        ("", "site/app.py", "module:app", 0),
        ("", "site_app.py", "name its module: site_app:app", 0),
    ],
)
def test_an_application_that_cannot_be_loaded(
    command, site, source, spec, message, tracebacks
):
    (site / "broken.py").write_text(source)
    server = command("--bind", "127.0.0.1:0", spec)
    assert server.wait() == 4
    assert message in server.stderr
    assert server.stderr.count("Traceback") == tracebacks


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "module:app"),
        (["--threads", "1.5", "app"], "threads: '1.5' is no whole number"),
        (["--keep-alive", "x", "app"], "keep_alive: 'x' is no number"),
        (["--threads", "-1", "app"], "threads"),
        (["--bind", "nowhere", "app"], "bind"),
        (["--bind", ":1", "--port", "2", "app"], "bind"),
        (["--thread", "1", "app"], "--thread"),
        (["--nonsense", "app"], "--nonsense"),
    ],
)
def test_usage_errors(capsys, arguments, message):
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("fasthttp: error: ")
    assert message in line


def test_version(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"fasthttp {__version__}\n"


def config_of(*arguments, **environ):
    parsed = vars(cli.build_parser().parse_args([*arguments, "app"]))
    parsed.pop("app")
    return cli.read_config(parsed, environ)


def test_defaults():
    assert config_of() == Config()


def test_arguments_go_before_the_environment():
    environ = {"FASTHTTP_THREADS": "2", "FASTHTTP_KEEP_ALIVE": "3"}
    config = config_of("--threads", "4", **environ)
    assert (config.threads, config.keep_alive) == (4, 3)
    assert config_of(PORT="5000").bind == ("0.0.0.0:5000",)
    assert config_of("--port", "1", PORT="5000").bind == ("127.0.0.1:1",)
    assert config_of("--host", "h", PORT="5000").bind == ("h:5000",)
    assert config_of("-b", ":1", PORT="5000").bind == (":1",)
    assert config_of("-b", ":1", PORT="x", FASTHTTP_FD="x").bind == (":1",)
    assert config_of("--threads", "4", FASTHTTP_THREADS="x").threads == 4


def test_an_address_of_arguments_and_environment():
    place = {"FASTHTTP_HOST": "h", "FASTHTTP_PORT": "2"}
    assert config_of("--port", "1", **place).bind == ("h:1",)
    assert config_of("--host", "g", **place, PORT="3").bind == ("g:2",)
    assert config_of("--uds", "/s", **place).bind == ("unix:/s",)
    assert config_of("--fd", "3", FASTHTTP_BIND=":1").bind == ("fd://3",)


def test_other_servers_option_names():
    config = config_of(
        "--timeout-keep-alive",
        "1",
        "--timeout-graceful-shutdown",
        "2",
        "--limit-concurrency",
        "3",
        "--limit-request-field_size",
        "4",
    )
    assert config == Config(
        keep_alive=1,
        graceful_timeout=2,
        worker_connections=3,
        limit_request_field_size=4,
    )


def test_switches():
    assert config_of("--access-log").access_log
    assert not config_of("--no-access-log", FASTHTTP_ACCESS_LOG="1").access_log
    assert not config_of("--no-server-header").server_header


def test_the_access_log_is_on_at_a_terminal(monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert config_of().access_log
    assert not config_of("--no-access-log").access_log


def test_a_bad_environment_names_the_option():
    with pytest.raises(ConfigError, match=r"^FASTHTTP_THREADS: threads: "):
        config_of(FASTHTTP_THREADS="many")
    with pytest.raises(ConfigError, match=r"^PORT: 'abc' is no number"):
        config_of("--host", "h", PORT="abc")


def test_every_option_is_in_the_help():
    text = cli.build_parser().format_help()
    for name in Config.__dataclass_fields__:
        assert f"--{name.replace('_', '-')}" in text


def test_access_log(serve):
    server = serve("site_app", "--access-log")
    request = urllib.request.Request(
        f"{server.url}/a?b", headers={"User-Agent": 'x"y', "Referer": "r"}
    )
    with urllib.request.urlopen(request) as response:
        response.read()
    line = server.wait_for_line("GET", access=True)
    assert re.fullmatch(
        r"127\.0\.0\.1 - - \[[^]]+\]"
        r' "GET /a\?b HTTP/1\.1" 200 19 "r" "x\\x22y"',
        line,
    )


def test_no_access_log_by_default(serve):
    server = serve("site_app")
    fetch(server.url)
    assert server.stop() == 0
    assert server.access_lines == []


@pytest.mark.parametrize(
    "line", ['exec $PYTHON "$@" >&-', 'exec $PYTHON "$@" >/dev/full']
)
def test_a_stdout_that_takes_nothing(serve, python, line):
    python(f"unset PYTHONUNBUFFERED; {line}")
    server = serve("site_app", "--access-log")
    assert fetch(server.url) == b"hello from site_app"
    assert server.stop() == 0
    assert "Traceback" not in server.stderr
    assert "Exception ignored" not in server.stderr


def test_no_socket_is_where_stderr_was(serve, python, site):
    """What writes to descriptor 2 must not write to a client."""
    (site / "look_app.py").write_text(
        "import os\n"
        "def app(environ, start_response):\n"
        "    start_response('200 OK', [])\n"
        "    return [os.readlink('/proc/self/fd/0').encode()]\n"
    )
    python('exec $PYTHON "$@" <&-')
    server = serve("look_app")
    assert fetch(server.url) == b"/dev/null"
    assert server.stop() == 0


def test_log_level(command):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        fd = listener.fileno()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        arguments = "--log-level", "error", "--fd", str(fd), "site_app"
        server = command(*arguments, pass_fds=[fd])
    assert fetch(url) == b"hello from site_app"
    assert server.stop() == 0
    assert server.lines == []


def test_logging_set_up_by_the_application_does_not_silence(serve, site):
    (site / "configured.py").write_text(
        f"{LOGGING_SET_UP}"
        "def app(environ, start_response):\n"
        "    raise RuntimeError('from the application')\n"
    )
    server = serve("configured")
    with pytest.raises(urllib.error.HTTPError, match="500") as told:
        fetch(server.url)
    told.value.close()
    server.wait_for_line("RuntimeError: from the application")


HEAVY = {
    "asyncio",
    "concurrent.futures",
    "email",
    "http.client",
    "importlib.metadata",
    "multiprocessing",
    "socketserver",
    "ssl",
    "wsgiref",
}


def test_imports_stay_light():
    """From start to first answer it shall take 120 ms at most."""
    names = subprocess.run(
        [sys.executable, "-c", "import fasthttp.cli, sys; print(*sys.modules)"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    ).stdout.split()
    assert HEAVY.isdisjoint(names)
