"""The servers: how each is installed, started and stopped."""

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import apps
from workloads import WORKLOADS

BENCH = Path(__file__).resolve().parent
PROJECT = BENCH.parent
CACHE = PROJECT / ".bench"
# Where fasthttp is; the servers run in another directory.
PACKAGE = os.pathsep.join(
    os.path.abspath(path)
    for path in [*os.environ.get("PYTHONPATH", "").split(os.pathsep), PROJECT]
    if path
)
START_SECONDS = 15
STOP_SECONDS = 5
DESCRIPTORS = 20_000

ALONE = {"protocol", "on-request", "on-request-pipelined"}
WSGI = {workload.name for workload in WORKLOADS} - ALONE
ASGI = WSGI - {"file-1m", "flask"}
ASGI -= {workload.name for workload in WORKLOADS if workload.threads}
HEADS = {"hello", "head-fixed", "head-varied", "pipelined"}


@dataclass(frozen=True, kw_only=True)
class Server:
    """One server: what to install and the command that runs a workload.

    The command is a template: {python}, {bin} (the interpreter's scripts),
    {port}, {app} ("module:name"), {asgi_app}, {module}, {name}, {threads}
    (at least 1), {pool} (0 when one thread will do) and {files}.
    """

    name: str
    command: str
    workloads: set[str]
    requires: tuple[str, ...] = ()
    role: str = "peer"
    old_python: tuple[str, ...] = ()  # the minor versions it runs on

    def argv(self, workload, port, place):
        """The command for one workload as a list of words."""
        python = place.interpreter_of(self).path
        module, _, name = workload.app.partition(":")
        values = {
            "python": python,
            "bin": Path(python).parent,
            "files": place.files,
            "port": port,
            "app": workload.app,
            "asgi_app": workload.asgi_app,
            "module": module,
            "name": name,
            "threads": workload.threads or 1,
            "pool": workload.threads,
        }
        return [word.format_map(values) for word in shlex.split(self.command)]


SERVERS = (
    Server(
        name="fasthttp",
        command="{python} -m fasthttp --bind 127.0.0.1:{port} "
        "--threads {pool} --worker-connections 20000 {app}",
        workloads=WSGI,
        role="ours",
    ),
    Server(
        name="fasthttp-thread",
        command="{python} -m fasthttp --bind 127.0.0.1:{port} {app}",
        workloads={"hello", "post-1k", "busy", "flask"},
        role="ours",
    ),
    Server(
        name="fasthttp-protocol",
        command="{python} protocols.py base_protocol {port}",
        workloads={"protocol"},
        role="ours",
    ),
    Server(
        name="fasthttp-on-request",
        command="{python} protocols.py on_request {port}",
        workloads={"on-request", "on-request-pipelined"},
        role="ours",
    ),
    Server(
        name="freastal",
        command="{python} -c 'import freastal, {module}; "
        'freastal.serve({module}.{name}, "127.0.0.1", {port})\'',
        workloads=WSGI,
        requires=("freastal",),
    ),
    Server(
        name="peregrine",
        command="{bin}/peregrine --port {port} --protocol wsgi "
        "--wsgi-threads {threads} --max-connections 20000 "
        "--keep-alive 75000 --log-level error {app}",
        workloads=WSGI,
        requires=("peregrine-server",),
    ),
    Server(
        name="bjoern",
        command="{python} -c 'import bjoern, {module}; "
        'bjoern.run({module}.{name}, "127.0.0.1", {port})\'',
        workloads=WSGI,
        requires=("bjoern",),
    ),
    Server(
        name="fastpysgi",
        command="{bin}/fastpysgi --host 127.0.0.1 --port {port} {app}",
        workloads=WSGI,
        requires=("fastpysgi",),
    ),
    Server(
        name="granian",
        command="{bin}/granian --interface wsgi --port {port} --http 1 "
        "--no-ws --runtime-mode st --blocking-threads {threads} "
        "--backlog 4096 --backpressure 20000 --log-level error {app}",
        workloads=WSGI,
        requires=("granian",),
    ),
    Server(
        name="gunicorn",
        command="{python} -m gunicorn -k gthread --threads {threads} "
        "-b 127.0.0.1:{port} --worker-connections 20000 --keep-alive 75 "
        "--log-level error {app}",
        workloads=WSGI,
        requires=("gunicorn", "gunicorn_h1c"),
    ),
    Server(
        name="waitress",
        command="{python} -c 'import logging, waitress, {module}; "
        'logging.getLogger("waitress.queue").setLevel("ERROR"); '
        'waitress.serve({module}.{name}, listen="127.0.0.1:{port}", '
        "threads={threads}, connection_limit=20000, "
        "asyncore_use_poll=True)'",
        workloads=WSGI,
        requires=("waitress",),
    ),
    Server(
        name="cheroot",
        command="{python} -m cheroot --bind 127.0.0.1:{port} "
        "--threads {threads} --max-threads {threads} --timeout 75 "
        "--request-queue-size 2048 {app}",
        workloads=WSGI,
        requires=("cheroot",),
    ),
    Server(
        name="uvicorn",
        command="{python} -m uvicorn --port {port} --no-access-log "
        "--log-level error --timeout-keep-alive 75 --lifespan off "
        "--backlog 4096 {asgi_app}",
        workloads=ASGI,
        requires=("uvicorn", "uvloop", "httptools"),
    ),
    Server(
        name="uvloop-protocol",
        command="{python} protocols.py uvloop_protocol {port}",
        workloads={"protocol"},
        requires=("uvloop",),
    ),
    Server(
        name="japronto",
        command="{python} protocols.py japronto {port}",
        workloads={"pipelined", "on-request", "on-request-pipelined"},
        requires=("japronto", "uvloop<0.15"),
        old_python=("7", "6"),
    ),
    Server(
        name="nginx",
        command="nginx -e stderr -p {files} -c {files}/nginx-{port}.conf",
        workloads=HEADS | {"body-64k", "body-1m", "file-1m", "close", "idle"},
        role="floor",
    ),
    Server(
        name="bare-c",
        command="{files}/floor {port}",
        workloads=HEADS | ALONE | {"idle"},
        role="floor",
    ),
    Server(
        name="bare-threads",
        command="{python} protocols.py bare_threads {port}",
        workloads={"sleep"},
        role="floor",
    ),
)

NGINX = """\
daemon off;
master_process off;
pid {files}/nginx-{port}.pid;
worker_rlimit_nofile 20000;
events {{ worker_connections 16384; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_timeout 75;
    keepalive_requests 1000000000;
    default_type text/plain;
    client_body_temp_path {files}/nginx-{port}.temp;
    proxy_temp_path {files}/nginx-{port}.temp;
    fastcgi_temp_path {files}/nginx-{port}.temp;
    uwsgi_temp_path {files}/nginx-{port}.temp;
    scgi_temp_path {files}/nginx-{port}.temp;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{ {answer} }}
    }}
}}
"""


class UnavailableError(Exception):
    """A server cannot be had here; the message is the reason."""


class Interpreter:
    """The Python that runs every server, and what is installed in it."""

    def __init__(self, python=None, old=()):
        self.path = python or self._create(old)
        self.versions = self._installed()
        code = "import platform; print(platform.python_version())"
        self.version = _output([self.path, "-c", code]).strip()

    def _create(self, old):
        minor = f"3.{sys.version_info.minor}"
        venv = CACHE / ("venv-old" if old else f"venv-{minor}")
        if not venv.exists():
            found = _find_python(old) if old else sys.executable
            # Under another name until it is whole.
            new = venv.with_suffix(".new")
            subprocess.run([found, "-m", "venv", "--clear", new], check=True)
            if old:
                # Its own is too old to know the wheels there are.
                pip = [new / "bin" / "python", "-m", "pip"]
                _output([*pip, "install", "-qU", "pip<22"])
            new.rename(venv)
        return str(venv / "bin" / "python")

    def _installed(self):
        command = [self.path, "-m", "pip", "list", "--format", "freeze"]
        listing = _output(command)
        return {
            _normal(name): version
            for name, _, version in (
                line.partition("==") for line in listing.splitlines()
            )
        }

    def require(self, names):
        """Install what is missing; the error carries pip's last words."""
        for name in names:
            if _normal(name) in self.versions:
                continue
            done = subprocess.run(
                [self.path, "-m", "pip", "install", "-q", name],
                capture_output=True,
                text=True,
            )
            if done.returncode:
                raise UnavailableError(_last_line(done.stderr) or "pip failed")
            self.versions = self._installed()

    def version_of(self, server):
        """The version of the server's own distribution, or ""."""
        if not server.requires or server.role == "ours":
            return ""
        return self.versions.get(_normal(server.requires[0]), "")


def _normal(name):
    return name.lower().replace("_", "-").partition("<")[0]


def _find_python(minors):
    """The first of the 3.x that runs, on the path or by pyenv."""
    pyenv = Path.home() / ".pyenv" / "versions"
    for minor in minors:
        found = [f"python3.{minor}", *pyenv.glob(f"3.{minor}.*/bin/python")]
        for python in found:
            with contextlib.suppress(OSError, subprocess.CalledProcessError):
                _output([python, "-c", ""])
                return python
    versions = " or ".join(f"3.{minor}" for minor in minors)
    raise UnavailableError(f"needs Python {versions}")


def _output(command):
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout


def _last_line(text):
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""


@dataclass(frozen=True)
class Place:
    """Where servers run: their Python, their core, their files."""

    interpreter: Interpreter
    core: int
    files: Path
    old: dict[tuple[str, ...], Interpreter] = field(default_factory=dict)

    def interpreter_of(self, server):
        """That of all servers, or an older one for a server that is old."""
        if not server.old_python:
            return self.interpreter
        if server.old_python not in self.old:
            self.old[server.old_python] = Interpreter(old=server.old_python)
        return self.old[server.old_python]

    def prepare(self, server):
        """Install or build one server. Raises UnavailableError."""
        try:
            self.interpreter_of(server).require(server.requires)
            if server.name == "bare-c":
                floor = self.files / "floor"
                _output(["cc", "-O2", "-o", floor, BENCH / "floor.c"])
            elif server.name == "nginx":
                _output(["nginx", "-v"])
        except (OSError, subprocess.CalledProcessError) as error:
            raise UnavailableError(str(error)) from error

    def served_file(self):
        """The 1 MB file of the file workload; made when missing."""
        path = self.files / "body-1m"
        if not path.exists():
            path.write_bytes(apps.BODY_1M)
        return path

    def configure_nginx(self, workload, port):
        """Write the configuration that gives the workload's answer."""
        if workload.answer == apps.HELLO:
            answer = f'return 200 "{apps.HELLO.decode()}";'
        else:
            path = self.files / f"nginx-{port}.body"
            path.write_bytes(workload.answer)
            answer = f"root {self.files}; try_files /{path.name} =404;"
        text = NGINX.format(files=self.files, port=port, answer=answer)
        (self.files / f"nginx-{port}.conf").write_text(text)


class Running:
    """A started server; close() ends its whole process group."""

    def __init__(self, server, workload, place):
        self.server = server
        self.port = _free_port()
        self.rested = 0
        self.log = place.files / f"{server.name}.log"
        self.arrived = place.files / f"{server.name}.arrived"
        if server.name == "nginx":
            place.configure_nginx(workload, self.port)
        environment = {
            **os.environ,
            "PYTHONPATH": f"{BENCH}{os.pathsep}{PACKAGE}",
            "BENCH_FILE": str(place.served_file()),
            "BENCH_ARRIVED": str(self.arrived),
        }
        environment.pop("PORT", None)
        everywhere = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {place.core})
        try:
            with open(self.log, "wb") as log:
                self.process = subprocess.Popen(
                    server.argv(workload, self.port, place),
                    stdout=log,
                    stderr=log,
                    stdin=subprocess.DEVNULL,
                    cwd=BENCH,
                    env=environment,
                    start_new_session=True,
                )
        except OSError as error:
            raise UnavailableError(str(error)) from error
        finally:
            os.sched_setaffinity(0, everywhere)

    def failure(self):
        """Why the process ended, or "" while it runs."""
        code = self.process.poll()
        if code is None:
            return ""
        said = _last_line(self.log.read_text(errors="replace"))
        how = f"exit status {code}"
        if code < 0:
            how = signal.Signals(-code).name
        return f"{how}: {said}" if said else how

    def wait_until_listening(self):
        """Return once a connection is accepted. Raises UnavailableError."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if failure := self.failure():
                raise UnavailableError(failure)
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                time.sleep(0.001)
        raise UnavailableError(f"not listening after {START_SECONDS} s")

    def ask_to_end(self):
        """Several end at the same time if all are asked first."""
        _signal_group(self.process.pid, signal.SIGTERM)

    def close(self):
        """End the server, its children too."""
        self.ask_to_end()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_SECONDS)
        _signal_group(self.process.pid, signal.SIGKILL)
        self.process.wait()


def _signal_group(group, number):
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
