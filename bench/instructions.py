"""Instruction counts by callgrind: repeatable where times are not.

`PYTHONPATH=. python bench/instructions.py` counts, compares with
instructions.json, and ends with status 1 when a case costs more than
ALLOWED; `--update` writes the file. Needs valgrind with its headers, and cc.
"""

import argparse
import ctypes
import gc
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import cases

BENCH = Path(__file__).resolve().parent
RECORD = BENCH / "instructions.json"
ALLOWED = 1.03
REPEAT = 20
WARM = 20


def count_all():
    """Instructions of one call of each case."""
    with tempfile.TemporaryDirectory() as folder:
        library, dump = Path(folder, "count.so"), Path(folder, "dump")
        source = BENCH / "count.c"
        compiler = ["cc", "-shared", "-fPIC", "-o", library, source]
        subprocess.run(compiler, check=True)
        command = ["valgrind", "--tool=callgrind", "--quiet"]
        command += [f"--callgrind-out-file={dump}", sys.executable]
        command += [__file__, "--count", library]
        fixed = {"PYTHONHASHSEED": "0", "PYTHONPATH": str(BENCH.parent)}
        subprocess.run(command, env=os.environ | fixed, check=True)
        return dict(map(_read_dump, sorted(Path(folder).glob("dump.*"))))


def _read_dump(path):
    text = path.read_text()
    name = re.search(r"Client Request: (.+)", text)[1]
    return name, int(re.search(r"^totals: (\d+)", text, re.M)[1]) // REPEAT


def count_here(library):
    """Run the cases in this process, under callgrind."""
    valgrind = ctypes.CDLL(library)
    gc.disable()
    for name, run in cases.COUNTED.items():
        for _ in range(WARM):
            run()
        gc.collect()
        valgrind.zero_counts()
        for _ in range(REPEAT):
            run()
        valgrind.dump_counts(name.encode())


def compare(counted, recorded):
    """Print both; the names of the cases that cost more than ALLOWED."""
    worse = []
    for name, count in sorted(counted.items()):
        before = recorded.get(name, count)
        print(f"{name:<28} {count:>10,} {count / before:>8.1%}")
        if count > before * ALLOWED:
            worse.append(name)
    return worse


def main():
    """Count, compare or update."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--update", action="store_true")
    parser.add_argument("--count", metavar="LIBRARY", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.count:
        count_here(options.count)
        return
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
