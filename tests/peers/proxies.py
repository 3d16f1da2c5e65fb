"""nginx and HAProxy in front of a server, each started and ended here."""

import contextlib
import grp
import os
import pwd
import re
import shutil
import signal
import socket
import string
import subprocess
from pathlib import Path

HERE = Path(__file__).parent
PATIENCE = 30
NEVER = 60_000
# HAProxy: the session ended by the server, or its response was malformed.
FAULTS = {
    "nginx": re.compile(r"\[(error|crit|alert|emerg)\](?!.*client sent)"),
    "haproxy": re.compile(r"^\d+ (S.|P[HD])"),
}


def tool(name):
    """The path of a program; tells how to get it when there is none."""
    path = f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin"
    if found := shutil.which(name, path=path):
        return found
    raise FileNotFoundError(
        f"{name} is not installed; as root: sh tests/install-tools.sh"
    )


class Proxy:
    """A running proxy: its `address`, and `complaints()` of the server."""

    def __init__(self, name, process, address, log):
        self.name = name
        self.process = process
        self.address = address
        self.log = log

    @property
    def url(self):
        return f"http://127.0.0.1:{self.address[1]}"

    def complaints(self):
        """The lines of its log that blame the server."""
        lines = self.log.read_text("latin-1").splitlines()
        return [line for line in lines if FAULTS[self.name].search(line)]


def _nginx(listener, upstream, place, *, buffering, idle, retry):
    configured = _configure(
        place / "nginx.conf",
        user=pwd.getpwuid(os.geteuid()).pw_name,
        group=grp.getgrgid(os.getegid()).gr_name,
        port=listener.getsockname()[1],
        upstream=upstream,
        buffering="on" if buffering else "off",
        idle=idle,
        retry="error timeout" if retry else "off",
    )
    command = tool("nginx"), "-p", place, "-c", configured, "-e", "stderr"
    return command, {"NGINX": f"{listener.fileno()};"}


def _haproxy(listener, upstream, place, *, buffering, idle, retry):
    assert not buffering, "HAProxy has no buffering of whole bodies"
    configured = _configure(
        place / "haproxy.cfg",
        listener=listener.fileno(),
        upstream=upstream,
        idle=idle,
        retries=3 if retry else 0,
        retry="conn-failure empty-response" if retry else "none",
    )
    return (tool("haproxy"), "-db", "-f", configured), {}


def _configure(path, **values):
    template = string.Template((HERE / path.name).read_text())
    path.write_text(template.substitute(values))
    return path


PROXIES = {"nginx": _nginx, "haproxy": _haproxy}


@contextlib.contextmanager
def proxied(name, upstream, place, *, buffering=False, idle=NEVER, retry=False):
    """Run the proxy `name` in front of the port `upstream`.

    Its files are in the directory `place`. It keeps an upstream connection
    for `idle` milliseconds and, with `retry`, sends a request that a closed
    connection has swallowed again where HTTP allows. It inherits a socket
    that listens already, so no port is guessed and nothing is waited for.
    """
    place.mkdir(exist_ok=True)
    log = place / "log"
    options = {"buffering": buffering, "idle": idle, "retry": retry}
    with (
        socket.create_server(("127.0.0.1", 0), backlog=512) as listener,
        log.open("wb") as output,
    ):
        listener.setblocking(False)
        command, env = PROXIES[name](listener, upstream, place, **options)
        address = listener.getsockname()
        process = subprocess.Popen(
            command,
            cwd=place,
            env=os.environ | env,
            pass_fds=[listener.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield Proxy(name, process, address, log)
        assert process.poll() is None, log.read_text("latin-1")
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
