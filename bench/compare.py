"""Compare HTTP servers: every server on every workload, interleaved.

Run `python bench/compare.py --help`.
"""

import argparse
import datetime
import fcntl
import http.client
import json
import math
import os
import platform
import resource
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import report
from load import Load, run_start
from servers import (
    CACHE,
    DESCRIPTORS,
    SERVERS,
    Interpreter,
    Place,
    Running,
    UnavailableError,
)
from workloads import WORKLOADS, WrongAnswerError, check

OVERHEAD = 1.3
FAILURES = (
    UnavailableError,
    WrongAnswerError,
    OSError,
    ValueError,
    IndexError,
    http.client.HTTPException,
)


class Progress:
    """One line on standard error: share done, time left, what runs.

    Where no terminal can redraw it, a new line for each workload.
    """

    WIDTH = 24

    def __init__(self, runs, seconds):
        self.runs = runs
        self.done = 0
        self.started = time.monotonic()
        self.expected = runs * seconds
        self.workload = None

    def show(self, workload, what=""):
        """Draw the bar."""
        terminal = sys.stderr.isatty()
        if not terminal and workload == self.workload:
            return
        self.workload = workload
        share = self.done / max(self.runs, 1)
        left = self.expected
        if self.done:
            elapsed = time.monotonic() - self.started
            left = elapsed * (1 - share) / share
        filled = round(share * self.WIDTH)
        bar = "#" * filled + "." * (self.WIDTH - filled)
        room = min(shutil.get_terminal_size().columns, 80) - 1
        clock = f"{round(left) // 60}:{round(left) % 60:02}"
        text = f"[{bar}] {share:4.0%}  {clock} left  {workload} {what}"
        start, end = ("\r", "") if terminal else ("", "\n")
        text = f"{text:<{room}.{room}}" if terminal else text
        print(f"{start}{text}", end=end, file=sys.stderr, flush=True)

    def end(self):
        """Leave the line."""
        if sys.stderr.isatty():
            print(file=sys.stderr)


class Comparison:
    """All runs of one call and what they gave."""

    def __init__(self, options, files):
        self.options = options
        cores = sorted(os.sched_getaffinity(0))
        self.place = Place(Interpreter(options.python), cores[0], files)
        self.load = Load(options.wrk, options.seconds, options.tries, cores[0])
        os.sched_setaffinity(0, {cores[-1]})
        self.results = {
            "date": datetime.datetime.now(datetime.UTC).isoformat(),
            "machine": {
                "processor": _processor_name(),
                "cores": len(cores),
                "kernel": platform.release(),
                "python": self.place.interpreter.version,
            },
            "settings": {
                "rounds": options.rounds,
                "seconds": options.seconds,
            },
            "servers": {},
            "workloads": {},
        }

    def run(self):
        """Measure everything; results are saved after each workload."""
        pairs = sum(
            workload.name in server.workloads
            for workload in self.options.workloads
            for server in self.options.servers
        )
        runs = pairs * self.options.rounds
        progress = Progress(runs, self.options.seconds * OVERHEAD)
        print(
            f"{pairs} pairs of server and workload, {self.options.rounds} "
            f"rounds of {self.options.seconds} s: some "
            f"{math.ceil(progress.expected / 60)} minutes, more if the\n"
            "machine is not quiet. Installing what is missing first.",
            file=sys.stderr,
        )
        self._prepare()
        progress.started = time.monotonic()
        try:
            for workload in self.options.workloads:
                self._compare(workload, progress)
                self._save()
        finally:
            progress.end()

    def _prepare(self):
        for server in self.options.servers:
            reason = version = ""
            try:
                self.place.prepare(server)
                version = self.place.interpreter_of(server).version_of(server)
            except UnavailableError as error:
                reason = str(error)
            self.results["servers"][server.name] = {
                "role": server.role,
                "version": version,
                "unavailable": reason,
            }

    def _compare(self, workload, progress):
        """Interleave the rounds; another server begins each round."""
        candidates = [
            server
            for server in self.options.servers
            if workload.name in server.workloads
        ]
        missing = ""
        try:
            self.place.interpreter.require(workload.requires)
        except UnavailableError as error:
            missing = str(error)
        servers = self.results["servers"]
        entries = {
            server.name: {
                "failure": servers[server.name]["unavailable"] or missing,
                "facts": {},
                "rounds": [],
            }
            for server in candidates
        }
        self.results["workloads"][workload.name] = {
            "title": workload.title,
            "measure": workload.measure,
            "servers": entries,
        }
        started = {}
        try:
            if workload.kind != "start":
                for server in candidates:
                    progress.show(workload.name, server.name)
                    if not entries[server.name]["failure"]:
                        self._start(workload, server, entries, started)
            for turn in range(self.options.rounds):
                first = turn % max(len(candidates), 1)
                for server in candidates[first:] + candidates[:first]:
                    progress.show(
                        workload.name, f"{server.name}, round {turn + 1}"
                    )
                    entry = entries[server.name]
                    if not entry["failure"]:
                        self._time(workload, server, entry, started)
                    progress.done += 1
            for name, running in started.items():
                if not entries[name]["failure"]:
                    self._check_again(workload, running, entries[name])
        finally:
            # A second Ctrl-C must not leave servers behind.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            for running in started.values():
                running.ask_to_end()
            for running in started.values():
                running.close()
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _start(self, workload, server, entries, started):
        entry = entries[server.name]
        try:
            running = Running(server, workload, self.place)
            started[server.name] = running
            running.wait_until_listening()
            entry["facts"] = check(workload, running.port, running.arrived)
        except FAILURES as error:
            entry["failure"] = _reason(error, started.get(server.name))
            if server.name in started:
                # It would run beside the others.
                started.pop(server.name).close()

    def _check_again(self, workload, running, entry):
        """It may have begun to answer wrongly under load."""
        try:
            check(workload, running.port, running.arrived)
        except FAILURES as error:
            entry["failure"] = f"after the load: {_reason(error, running)}"

    def _time(self, workload, server, entry, started):
        running = started.get(server.name)
        try:
            if workload.kind == "start":
                figures = run_start(workload, server, self.place)
            elif workload.kind == "idle":
                figures = self.load.run_beside_idle(workload, running)
            else:
                figures = self.load.run(workload, running)
            entry["rounds"].append(figures)
        except FAILURES as error:
            entry["failure"] = _reason(error, running)

    def _save(self):
        text = json.dumps(self.results, indent=1)
        self.options.output.mkdir(parents=True, exist_ok=True)
        (self.options.output / "results.json").write_text(text)


def _reason(error, running):
    """The failure in a few words, with the process's end if it ended."""
    text = str(error) or type(error).__name__
    ended = running.failure() if running else ""
    if ended and ended not in text:
        text = f"{text} ({ended})"
    return text


def _processor_name():
    with open("/proc/cpuinfo") as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def _choice(things):
    by_name = {thing.name: thing for thing in things}

    def choose(text):
        chosen = text.split(",")
        if unknown := set(chosen) - set(by_name):
            raise argparse.ArgumentTypeError(
                f"{', '.join(sorted(unknown))}: not one of {', '.join(by_name)}"
            )
        return [thing for thing in things if thing.name in chosen]

    return choose


def _count(text):
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text} is no number above 0")
    return int(text)


def _program(text):
    if (found := shutil.which(text)) is None:
        raise argparse.ArgumentTypeError(f"{text} is no program")
    return os.path.abspath(found)


def parse_arguments():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add(
        "--rounds", type=_count, default=5, help="runs of each pair (default 5)"
    )
    add("--seconds", type=_count, default=1, help="of one run (default 1)")
    add(
        "--tries",
        type=_count,
        default=2,
        help="runs until one is undisturbed (default 2)",
    )
    add(
        "--servers",
        type=_choice(SERVERS),
        default=list(SERVERS),
        metavar="A,B",
        help=", ".join(server.name for server in SERVERS),
    )
    add(
        "--workloads",
        type=_choice(WORKLOADS),
        default=list(WORKLOADS),
        metavar="A,B",
        help=", ".join(workload.name for workload in WORKLOADS),
    )
    add("--wrk", type=_program, default=shutil.which("wrk"), metavar="PATH")
    add(
        "--python",
        type=_program,
        metavar="PATH",
        help="interpreter that has the servers (default: a venv in "
        f"{CACHE.name}/, made and filled from PyPI)",
    )
    add(
        "--output",
        type=Path,
        default=CACHE / "results",
        metavar="DIR",
        help=f"for results.json, results.md, *.svg (default {CACHE.name}/"
        "results)",
    )
    options = parser.parse_args()
    if options.wrk is None:
        parser.error("wrk not found: install it or name it by --wrk")
    for workload in options.workloads:
        able = [
            server.name
            for server in SERVERS
            if workload.name in server.workloads and server.role == "ours"
        ]
        if not {server.name for server in options.servers} & set(able):
            print(
                f"{workload.name}: of fasthttp's only {', '.join(able)} can do"
                " this; --servers names none of them",
                file=sys.stderr,
            )
    return options


def _lock(file):
    """Two comparisons at once would measure each other."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit("another comparison is running")


def main():
    """Compare, then report."""
    # Debian has nginx there, which is not everybody's path.
    os.environ["PATH"] += os.pathsep + "/usr/sbin"
    options = parse_arguments()
    options.output.mkdir(parents=True, exist_ok=True)
    CACHE.mkdir(exist_ok=True)
    (CACHE / ".gitignore").write_text("*\n")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    wanted = min(DESCRIPTORS, hard) if hard > 0 else DESCRIPTORS
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, lambda *_: sys.exit("terminated"))
    with (
        open(CACHE / "lock", "w") as lock,
        tempfile.TemporaryDirectory(dir=CACHE) as files,
    ):
        _lock(lock)
        comparison = Comparison(options, Path(files))
        interrupted = False
        try:
            comparison.run()
        except KeyboardInterrupt:
            interrupted = True
    report.write(comparison.results, options.output)
    print((options.output / "results.md").read_text())
    print(f"Tables and plots are in {options.output}.")
    if interrupted:
        sys.exit("interrupted: what was measured until then stands above")


if __name__ == "__main__":
    main()
