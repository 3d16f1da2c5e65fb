"""Compare HTTP servers: every server on every workload, interleaved.

Run `python bench/compare.py --help`.
"""

import argparse
import datetime
import fcntl
import http.client
import json
import os
import platform
import resource
import shutil
import signal
import subprocess
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

FAILURES = (
    UnavailableError,
    WrongAnswerError,
    OSError,
    ValueError,
    http.client.HTTPException,
)


class Progress:
    """One line on standard error: share done, time left, what runs."""

    WIDTH = 24

    def __init__(self, total):
        self.total = total
        self.done = 0
        self.started = time.monotonic()
        self.shown = sys.stderr.isatty()

    def show(self, what):
        """Draw the bar."""
        if not self.shown:
            return
        share = self.done / max(self.total, 1)
        filled = round(share * self.WIDTH)
        bar = "#" * filled + "." * (self.WIDTH - filled)
        left = "--:--"
        if self.done:
            elapsed = time.monotonic() - self.started
            seconds = round(elapsed * (1 - share) / share)
            left = f"{seconds // 60}:{seconds % 60:02}"
        text = f"[{bar}] {share:4.0%}  {left} left  {what}"
        print(f"\r{text:<79.79}", end="", file=sys.stderr, flush=True)

    def end(self):
        """Leave the line."""
        if self.shown:
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
                "cores": os.cpu_count(),
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
        self._prepare()
        pairs = sum(
            workload.name in server.workloads
            for workload in self.options.workloads
            for server in self.options.servers
        )
        progress = Progress(pairs * self.options.rounds)
        try:
            for workload in self.options.workloads:
                self._compare(workload, progress)
                self._save()
        finally:
            progress.end()

    def _prepare(self):
        for server in self.options.servers:
            reason = ""
            try:
                self.place.prepare(server)
            except UnavailableError as error:
                reason = str(error)
            self.results["servers"][server.name] = {
                "role": server.role,
                "version": self.place.interpreter.version_of(server),
                "unavailable": reason,
            }

    def _compare(self, workload, progress):
        """Interleave the rounds; another server begins each round."""
        candidates = [
            server
            for server in self.options.servers
            if workload.name in server.workloads
        ]
        entries = {
            server.name: {
                "failure": self.results["servers"][server.name]["unavailable"],
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
                    progress.show(f"{workload.name}: {server.name}")
                    if not entries[server.name]["failure"]:
                        self._start(workload, server, entries, started)
            for turn in range(self.options.rounds):
                first = turn % max(len(candidates), 1)
                for server in candidates[first:] + candidates[:first]:
                    progress.show(
                        f"{workload.name}: {server.name}, round {turn + 1}"
                    )
                    entry = entries[server.name]
                    if not entry["failure"]:
                        self._time(workload, server, entry, started)
                    progress.done += 1
        finally:
            for running in started.values():
                running.close()

    def _start(self, workload, server, entries, started):
        entry = entries[server.name]
        try:
            running = Running(server, workload, self.place)
            started[server.name] = running
            running.wait_until_listening()
            entry["facts"] = check(workload, running.port)
        except FAILURES as error:
            entry["failure"] = _reason(error, started.get(server.name))

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
        self.options.json.write_text(json.dumps(self.results, indent=1))


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
        return [by_name[name] for name in chosen]

    return choose


def parse_arguments():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--quick", action="store_true", help="2 rounds of 1 s")
    add("--rounds", type=int, help="runs of each pair (default 5)")
    add("--seconds", type=int, help="seconds of one run (default 2)")
    add(
        "--tries",
        type=int,
        default=3,
        help="runs until one is undisturbed (default 3)",
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
    add("--wrk", default=shutil.which("wrk"), metavar="PATH")
    add(
        "--python",
        metavar="PATH",
        help="interpreter that has the servers (default: a venv in "
        f"{CACHE.name}/, made and filled from PyPI)",
    )
    add("--json", type=_path, default=CACHE / "results.json", metavar="FILE")
    add("--markdown", type=_path, metavar="FILE", help="write the tables")
    add("--plots", type=_path, metavar="DIR", help="write SVG plots")
    options = parser.parse_args()
    options.rounds = options.rounds or (2 if options.quick else 5)
    options.seconds = options.seconds or (1 if options.quick else 2)
    if options.wrk is None:
        parser.error("wrk not found: install it or name it by --wrk")
    return options


def _path(text):
    return Path(text).absolute()


def _lock(file):
    """Two comparisons at once would measure each other."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit("another comparison is running")


def main():
    """Compare, then report."""
    options = parse_arguments()
    CACHE.mkdir(exist_ok=True)
    (CACHE / ".gitignore").write_text("*\n")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    wanted = min(DESCRIPTORS, hard) if hard > 0 else DESCRIPTORS
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    with (
        open(CACHE / "lock", "w") as lock,
        tempfile.TemporaryDirectory(dir=CACHE) as files,
    ):
        _lock(lock)
        comparison = Comparison(options, Path(files))
        comparison.run()
    text = report.markdown(comparison.results)
    print(text)
    if options.markdown:
        options.markdown.write_text(text)
    if options.plots:
        interpreter = comparison.place.interpreter
        interpreter.require(["matplotlib"])
        program = [interpreter.path, report.__file__]
        subprocess.run(
            [*program, options.json, "--plots", options.plots], check=True
        )


if __name__ == "__main__":
    main()
