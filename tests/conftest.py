"""Fixtures of several modules: the real command, and small ones."""

import contextlib
import gc
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from fakes import ErrorLog

from fasthttp import server as server_module

ROOT = Path(__file__).parent.parent
PATIENCE = 30
# A shell's background job ignores it, and so would what it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
# A proxy that the system names is not asked for what is served here.
os.environ["no_proxy"] = "*"
LISTENING = re.compile(r"listening at (\S+)$")


def pytest_collection_finish():
    """No garbage collection need look through 5,000 tests, 0.2 s each."""
    gc.freeze()


class Command:
    """The command `python -m fasthttp`, its URLs and what it writes."""

    def __init__(self, *arguments, cwd, env=None, **popen):
        environ = {
            name: value
            for name, value in os.environ.items()
            if name != "PORT" and not name.startswith(("FASTHTTP_", "LISTEN_"))
        }
        environ |= {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fasthttp", *arguments],
            cwd=cwd,
            env=environ | (env or {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **popen,
        )
        self.lines = []
        self.access_lines = []
        self._changed = threading.Condition()
        self._readers = [
            threading.Thread(target=self._read, args=pair)
            for pair in (
                (self.process.stderr, self.lines),
                (self.process.stdout, self.access_lines),
            )
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, stream, lines):
        for line in stream:
            with self._changed:
                lines.append(line.rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    def _wait_for(self, condition, what):
        def over():
            return condition() or not self._readers[0].is_alive()

        with self._changed:
            self._changed.wait_for(over, PATIENCE)
            assert condition(), f"no {what} in:\n{self.stderr}"

    @property
    def stderr(self):
        return "\n".join(self.lines)

    @property
    def urls(self):
        found = [LISTENING.search(line) for line in self.lines]
        return [match[1] for match in found if match]

    @property
    def url(self):
        return self.urls[0]

    @property
    def port(self):
        return int(self.url.rpartition(":")[2])

    def wait_for_line(self, pattern, *, access=False):
        """The first line, of stderr or stdout, that holds `pattern`."""
        lines = self.access_lines if access else self.lines

        def found():
            return [line for line in lines if re.search(pattern, line)]

        self._wait_for(found, repr(pattern))
        return found()[0]

    def wait_for_urls(self, count=1):
        self._wait_for(lambda: len(self.urls) >= count, "start-up line")
        return self

    def stop(self, number=signal.SIGTERM):
        """Send a signal, wait for the end, return the exit code."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self):
        try:
            return self.ended()
        finally:
            self.close()

    def ended(self, within=PATIENCE):
        """The exit code, as of Popen.wait(), which looks every 50 ms."""
        end = time.monotonic() + within
        self._readers[0].join(within)
        return self.process.wait(max(0, end - time.monotonic()))

    def close(self):
        self.process.kill()
        self.process.wait()
        for reader in self._readers:
            reader.join()
        self.process.stdout.close()
        self.process.stderr.close()


@pytest.fixture
def stack():
    """What is entered is left after the test."""
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
def free_port():
    """A port that a server may listen at, and nobody else is given."""
    dual = socket.has_dualstack_ipv6()
    with socket.socket(socket.AF_INET6 if dual else socket.AF_INET) as holder:
        if dual:
            holder.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, False)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, True)
        holder.bind(("", 0))
        yield holder.getsockname()[1]


@pytest.fixture
def error_log():
    with ErrorLog() as log:
        yield log


@pytest.fixture
def often_swept(monkeypatch):
    """New servers look for what is due every 10 ms, not 250."""
    monkeypatch.setattr(server_module, "SWEEP_INTERVAL", 0.01)


@pytest.fixture
def command(tmp_path):
    """Starts `python -m fasthttp ...` in `tmp_path`; ended after the test."""
    started = []

    def start(*arguments, cwd=tmp_path, **options):
        started.append(Command(*arguments, cwd=cwd, **options))
        return started[-1]

    yield start
    for each in started:
        each.close()


@pytest.fixture
def serve(command):
    """Starts the command for an application on port 0, waits for its URL.

    `app` is `module:app`; `cwd`, the temporary directory unless given, is
    where the module is found.
    """

    def serve(app, *arguments, **options):
        place = [] if "--bind" in arguments else ["--bind", "127.0.0.1:0"]
        addresses = [*place, *arguments].count("--bind")
        return command(*place, *arguments, app, **options).wait_for_urls(
            addresses
        )

    return serve
