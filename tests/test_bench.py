"""bench/report.py: what its summary says of runs that went wrong."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parent.parent / "bench"
LATENCY = [[50, 100], [99, 200], [99.9, 300]]


def figures(cpu_us):
    return {"rps": 1000.0, "cpu_us": cpu_us, "latency": LATENCY, "errors": 0}


def entry(*rounds, failure=""):
    return {
        "failure": failure,
        "facts": {"date": ""},
        "rounds": [figures(cpu_us) for cpu_us in rounds],
    }


@pytest.fixture
def row(tmp_path):
    """The summary's row of one workload with these entries."""
    roles = {"fasthttp": "ours", "fasthttp-thread": "ours", "bare-c": "floor"}

    def row(**entries):
        entries = {name.replace("_", "-"): e for name, e in entries.items()}
        results = {
            "date": "2026-01-01",
            "machine": dict.fromkeys(("processor", "kernel", "python"), "x"),
            "settings": {"rounds": 3, "seconds": 1},
            "servers": {
                name: {
                    "role": roles.get(name, "peer"),
                    "version": "",
                    "unavailable": "",
                }
                for name in entries
            },
            "workloads": {
                "hello": {
                    "title": "hello",
                    "measure": "cpu_us",
                    "servers": entries,
                }
            },
        }
        results["machine"]["cores"] = 2
        path = tmp_path / "results.json"
        path.write_text(json.dumps(results))
        done = subprocess.run(
            [sys.executable, "report.py", path],
            cwd=BENCH,
            capture_output=True,
            text=True,
            check=True,
        )
        (line,) = [
            line
            for line in done.stdout.partition("## CPU")[0].splitlines()
            if line.startswith("| hello ")
        ]
        return [cell.strip() for cell in line.split("|")[1:-1]]

    return row


def test_the_best_other_is_one_that_answered_rightly(row):
    found = row(
        fasthttp=entry(10.0, 8.0, 9.0),
        liar=entry(1.0, 1.0, failure="19,092 errors in 18,380 answers"),
        slow=entry(90.0, 100.0, 80.0),
        good=entry(20.0, 32.0, 18.0),
        bare_c=entry(7.0, 7.0, 7.0),
    )
    # Ratios are taken round by round: 0.50, 0.25, 0.50.
    assert found == ["hello", "9.0 us", "good 20.0", "0.50 (0.25-0.50)"]


def test_what_was_not_run_does_not_fail(row):
    assert row(good=entry(20.0)) == ["hello", "not run", "good 20.0", ""]
    failing = row(fasthttp=entry(failure="no answer"), good=entry(20.0))
    assert failing == ["hello", "fails", "good 20.0", ""]


def test_another_of_ours_is_named(row):
    found = row(
        fasthttp=entry(failure="no answer"),
        fasthttp_thread=entry(9.0),
        bare_c=entry(6.0),
    )
    assert found[1:3] == ["9.0 us (fasthttp-thread)", "bare-c 6.0"]
