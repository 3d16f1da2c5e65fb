"""Instruction counts by callgrind: repeatable where times are not.

`PYTHONPATH=. python bench/instructions.py` counts, compares with
instructions.json, and ends with status 1 when a case costs more than
ALLOWED; `--update` records. Counts are of one build: interpreter, C library,
compilers, valgrind and vector form decide them, too. On another one they
are shown, but not judged; without valgrind they are not counted.
"""

import argparse
import ctypes
import gc
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import cases

from fasthttp import _parser

BENCH = Path(__file__).resolve().parent
RECORD = BENCH / "instructions.json"
ALLOWED = 1.03
REPEAT = 10
ALLOCATORS = re.compile("malloc|calloc|realloc|free|unlink_chunk", re.I)
MADE_BY = re.compile(rb"GCC: [ -~]+|clang version [ -~]+|_cython_[0-9]\w+")


def build():
    """What the counts depend on beside our source, in one line."""
    marks = sorted(set(MADE_BY.findall(Path(_parser.__file__).read_bytes())))
    valgrind = subprocess.run(
        ["valgrind", "--version"], capture_output=True, text=True, check=True
    )
    parts = [
        f"Python {' '.join(sys.version.split())}",
        " ".join(platform.libc_ver()),
        *(mark.decode() for mark in marks),
        valgrind.stdout.strip(),
        f"{platform.machine()} {_parser.VECTORS[0]}",
    ]
    return ", ".join(filter(None, [*parts, os.environ.get("CFLAGS")]))


def count_all():
    """Instructions of one call of each case."""
    with tempfile.TemporaryDirectory() as folder:
        library, dump = Path(folder, "count.so"), Path(folder, "dump")
        source = BENCH / "count.c"
        compiler = ["cc", "-shared", "-fPIC", "-o", library, source]
        subprocess.run(compiler, check=True)
        command = ["valgrind", "--tool=callgrind", "--quiet"]
        command += ["--instr-atstart=no", f"--callgrind-out-file={dump}"]
        command += [sys.executable, __file__, "--count", library]
        # Nothing of the caller's: its size moves the stack, hash seeds and
        # allocators change the path.
        alone = {"PATH": os.environ["PATH"], "PYTHONHASHSEED": "0"}
        alone["PYTHONPATH"] = str(BENCH.parent)
        subprocess.run(command, env=alone, cwd=BENCH, check=True)
        return dict(sorted(map(_read_dump, Path(folder).glob("dump.*"))))


def _read_dump(path):
    """The case's name and the instructions of one call of it.

    Allocators are left out: what they cost depends on what was freed before.
    """
    text = path.read_text()
    case = re.search(r"Client Request: (.+)", text)[1]
    names = dict(re.findall(r"^c?fn=(\(\d+\)) (.+)$", text, re.M))
    # The line after "calls=" is the callee's sum, which its own lines give.
    text = re.sub(r"^calls=.*\n.*\n", "", text, flags=re.M)
    total = 0
    for section in text.split("\nfn=")[1:]:
        if not ALLOCATORS.search(names[section.split()[0]]):
            counts = re.findall(r"^[-+*\d]\S* (\d+)$", section, re.M)
            total += sum(map(int, counts))
    return case, total // REPEAT


def count_here(library):
    """Run the cases in this process, under callgrind."""
    valgrind = ctypes.CDLL(library)
    gc.disable()
    for name, run in cases.COUNTED.items():
        for _ in range(REPEAT):
            run()
        gc.collect()
        valgrind.start_counting()
        for _ in range(REPEAT):
            run()
        valgrind.dump_counts(name.encode())


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
    parser.add_argument("--count", metavar="LIBRARY", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.count:
        count_here(options.count)
        return
    if shutil.which("valgrind") is None:
        print("Not counted: valgrind is missing.")
        return
    this = {"build": build(), "instructions": count_all()}
    record = json.loads(RECORD.read_text())
    worse = compare(this["instructions"], record["instructions"])
    if options.update:
        RECORD.write_text(json.dumps(this, indent=1) + "\n")
    elif this["build"] != record["build"]:
        print(
            f"Not judged: {RECORD.name} is of another build,\n"
            f"  {record['build']},\nnot of this one,\n  {this['build']}.\n"
            "To judge a change here, count with --update before it."
        )
    elif worse:
        sys.exit(f"more than {ALLOWED - 1:.0%} over: {', '.join(worse)}")


if __name__ == "__main__":
    main()
