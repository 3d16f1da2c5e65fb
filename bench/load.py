"""One measurement: the load by wrk, the server's share by /proc."""

import json
import os
import resource
import socket
import subprocess
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import apps
from servers import DESCRIPTORS, Running
from workloads import IDLE_CONNECTIONS, WrongAnswerError

LUA = Path(__file__).resolve().parent / "lua"
TICKS = os.sysconf("SC_CLK_TCK")
IDLE_SECONDS = 5
FILLING_SECONDS = 30
START_SECONDS = 15
NOISY = 0.05
FORGIVEN = 0.001  # of the answers
TOO_MANY_FOR_A_TICK = 5000


class Load:
    """How to run wrk: path, seconds and tries of a run; the server's core."""

    def __init__(self, wrk, seconds, tries, core):
        self.wrk = wrk
        self.seconds = seconds
        self.tries = tries
        self.core = core

    def run(self, workload, running):
        """Time one workload on one running server; a dict of figures.

        Times are in microseconds a request (cpu, user, system) or in
        milliseconds (latency), memory in MB. A run that others disturbed
        is repeated, and the quietest counts. Raises WrongAnswerError when
        the server ends or answers nothing.
        """
        runs = []
        while len(runs) < self.tries and (
            not runs or runs[-1]["others"] > NOISY
        ):
            runs.append(self._run_once(workload, running))
        return min(runs, key=lambda figures: figures["others"])

    def _run_once(self, workload, running):
        pid = running.process.pid
        started = time.monotonic()
        core_before = _core_seconds(self.core)
        before = _processor_seconds(pid)
        told = self._ask_wrk(workload, running.port)
        if failure := running.failure():
            raise WrongAnswerError(f"ended under load, {failure}")
        if not told["requests"]:
            raise WrongAnswerError("no answer under load")
        if told["errors"] > told["requests"] * FORGIVEN:
            raise WrongAnswerError(
                f"{told['errors']:,} errors in {told['requests']:,} answers"
            )
        after = _processor_seconds(pid)
        core = _core_seconds(self.core) - core_before
        elapsed = time.monotonic() - started
        user, system = (
            late - early for early, late in zip(before, after, strict=True)
        )
        if told["requests"] > TOO_MANY_FOR_A_TICK and not user + system:
            raise WrongAnswerError("another process answered")
        latency = dict(told["latency"])
        # Those under way at the end were worked at, too; half is a guess.
        worked_at = told["requests"] + workload.connections / 2
        figures = {
            "rps": told["requests"] * 1e6 / told["duration"],
            "cpu_us": (user + system) * 1e6 / worked_at,
            "user_us": user * 1e6 / worked_at,
            "system_us": system * 1e6 / worked_at,
            "p50_ms": latency[50] / 1e3,
            "p99_ms": latency[99] / 1e3,
            "p999_ms": latency[99.9] / 1e3,
            "rss_mb": _memory(pid, "VmHWM") / 1e6,
            "errors": told["errors"],
            "others": (core - user - system) / elapsed,
            "latency": told["latency"],
        }
        if workload.threads:
            ideal = workload.threads / apps.SLEEP_SECONDS
            figures["of_ideal"] = figures["rps"] / ideal
            # A client waits for those before it, if threads are short.
            turns = workload.connections / workload.threads
            figures["added_p99_ms"] = (
                figures["p99_ms"] - turns * apps.SLEEP_SECONDS * 1e3
            )
        return figures

    def _ask_wrk(self, workload, port):
        command = [self.wrk, "-t1", f"-c{workload.connections}"]
        command += [f"-d{self.seconds}s", "-s", f"{workload.script}.lua"]
        for name, value in workload.headers.items():
            command += ["-H", f"{name}: {value}"]
        command += [f"http://127.0.0.1:{port}/", "--", str(workload.argument)]
        done = subprocess.run(
            command,
            cwd=LUA,
            env={**os.environ, "CONNECTIONS": str(workload.connections)},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise WrongAnswerError(f"wrk: {done.stderr.strip() or done.stdout}")
        return json.loads(done.stdout.splitlines()[-1])

    def run_beside_idle(self, workload, running):
        """Time the busy connections alone, then beside the idle ones."""
        if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < DESCRIPTORS:
            raise WrongAnswerError(f"not asked: needs ulimit -n {DESCRIPTORS}")
        alone = self.run(workload, running)
        pid = running.process.pid
        # Memory stays with the process: the next round would show no growth.
        running.rested = running.rested or _memory(pid, "VmRSS")
        with ExitStack() as stack:
            idle = []
            deadline = time.monotonic() + FILLING_SECONDS
            while len(idle) < IDLE_CONNECTIONS:
                if time.monotonic() > deadline:
                    raise WrongAnswerError(
                        f"takes {len(idle):,} connections in "
                        f"{FILLING_SECONDS} s"
                    )
                client = stack.enter_context(_idle_connection(running.port))
                idle.append(client)
            grown = _memory(pid, "VmRSS") - running.rested
            figures = self.run(workload, running)
            if (left := sum(map(_is_open, idle))) < IDLE_CONNECTIONS:
                raise WrongAnswerError(
                    f"keeps {left:,} of {IDLE_CONNECTIONS:,} idle connections"
                )
        figures["idle_bytes"] = grown / IDLE_CONNECTIONS
        figures["idle_cost"] = figures["cpu_us"] / alone["cpu_us"]
        return figures


def run_start(workload, server, place):
    """Start a server, time its first answer, end it."""
    started = time.monotonic()
    running = Running(server, workload, place)
    try:
        _first_answer(running, started + START_SECONDS)
        taken = time.monotonic() - started
        return {
            "start_ms": taken * 1e3,
            "rss_mb": _memory(running.process.pid, "VmRSS") / 1e6,
        }
    finally:
        running.close()


def _first_answer(running, deadline):
    while time.monotonic() < deadline:
        if failure := running.failure():
            raise WrongAnswerError(failure)
        try:
            _idle_connection(running.port).close()
            return
        except OSError:
            time.sleep(0.0005)
    raise WrongAnswerError(f"no answer after {START_SECONDS} s")


def _idle_connection(port):
    """A connection that has had its first answer."""
    client = socket.create_connection(("127.0.0.1", port), IDLE_SECONDS)
    try:
        client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = b""
        while not answer.endswith(apps.HELLO):
            if not (data := client.recv(4096)):
                raise WrongAnswerError("connection closed without an answer")
            answer += data
    except BaseException:
        client.close()
        raise
    return client


def _is_open(client):
    client.setblocking(False)
    try:
        return bool(client.recv(1))
    except BlockingIOError:
        return True
    except OSError:
        return False


def _tree(pid):
    """The process and all its descendants."""
    found = [pid]
    for thread in Path(f"/proc/{pid}/task").iterdir():
        # A thread may end with its connection.
        with suppress(FileNotFoundError, ProcessLookupError):
            for child in (thread / "children").read_text().split():
                found += _tree(int(child))
    return found


def _processor_seconds(pid):
    """User and system time of the tree, with that of ended children."""
    user = system = 0
    for member in _tree(pid):
        text = Path(f"/proc/{member}/stat").read_text()
        fields = text.rpartition(")")[2].split()
        user += int(fields[11]) + int(fields[13])
        system += int(fields[12]) + int(fields[14])
    return user / TICKS, system / TICKS


def _core_seconds(core):
    """The time the core was not idle; the hypervisor's share too."""
    for line in Path("/proc/stat").read_text().splitlines():
        name, *ticks = line.split()
        if name == f"cpu{core}":
            user, nice, system, _idle, _wait, *others = map(int, ticks[:8])
            return (user + nice + system + sum(others)) / TICKS
    raise ValueError(f"no cpu{core} in /proc/stat")


def _memory(pid, field):
    """Bytes of VmRSS or VmHWM, summed over the tree."""
    total = 0
    for member in _tree(pid):
        for line in Path(f"/proc/{member}/status").read_text().splitlines():
            if line.startswith(field + ":"):
                total += int(line.split()[1]) * 1024
    return total
