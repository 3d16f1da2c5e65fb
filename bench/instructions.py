"""Instruction counts by callgrind: repeatable where times are not.

`PYTHONPATH=. python bench/instructions.py` counts, compares with
instructions.json, and ends with status 1 when a case costs more than
ALLOWED; `--update` writes the file. Needs valgrind.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import cases

BENCH = Path(__file__).resolve().parent
RECORD = BENCH / "instructions.json"
ALLOWED = 1.03
REPEAT = 100
RUNS = 2


def count_all():
    """Instructions of one call of each case."""
    started = _count("none", 0)
    return {
        name: round((_count(name, REPEAT) - started) / REPEAT)
        for name in cases.COUNTED
    }


def _count(name, repeat):
    """All instructions of a process that runs the case so often.

    The least of RUNS: now and then a start compiles a module anew.
    """
    command = ["valgrind", "--tool=callgrind"]
    command += ["--callgrind-out-file=/dev/null", sys.executable]
    command += [cases.__file__, name, str(repeat)]
    fixed = {"PYTHONHASHSEED": "0", "PYTHONPATH": str(BENCH.parent)}
    found = []
    for _ in range(RUNS):
        done = subprocess.run(
            command,
            env=os.environ | fixed,
            capture_output=True,
            text=True,
            check=True,
        )
        found.append(int(re.search(r"Collected : (\d+)", done.stderr)[1]))
    return min(found)


def compare(counted, recorded):
    """Print both; the names of the cases that cost more than ALLOWED."""
    worse = []
    for name, count in counted.items():
        before = recorded.get(name, count)
        print(f"{name:<28} {count:>10,} {count / before:>8.1%}")
        if count > before * ALLOWED:
            worse.append(name)
    return worse


def main():
    """Count, compare or update."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--update", action="store_true")
    options = parser.parse_args()
    if shutil.which("valgrind") is None:
        sys.exit("valgrind not found: instructions are not counted")
    built_for = sysconfig.get_config_var("SOABI")
    records = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    counted = count_all()
    worse = compare(counted, records.get(built_for, {}))
    if options.update:
        records[built_for] = counted
        text = json.dumps(records, indent=1, sort_keys=True)
        RECORD.write_text(text + "\n")
    elif worse:
        sys.exit(f"more than {ALLOWED - 1:.0%} over: {', '.join(worse)}")


if __name__ == "__main__":
    main()
