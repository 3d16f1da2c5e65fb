"""Builds the harnesses with clang's sanitizers and runs them in turn.

Each runs first over fuzz/corpus again and again, to see that no input leaves
memory behind, and then over what it makes of it. Inputs that reach new code
are kept below build/fuzz; `--keep` brings the fewest and smallest that reach
as much to fuzz/corpus.
"""

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

HARNESSES = "parser", "chunked", "serializer", "protocol", "gateway"
HERE = Path(__file__).parent
BUILD = Path("build/fuzz").absolute()
LIBRARY = BUILD / "lib"
IGNORED = f"-fsanitize-ignorelist={HERE.absolute()}/ignore.txt"
SANITIZERS = (
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=undefined",
    IGNORED,
)
# The limits are narrow where it counts, and short inputs are quick.
MAX_LENGTH = 1024
KEPT_LENGTH = 400
QUIET_SECONDS = 10
HINT = "make fuzz needs clang. Debian: apt install clang libclang-rt-dev"
ENVIRON = os.environ | {
    "ASAN_OPTIONS": "detect_leaks=0:malloc_context_size=1:"
    "quarantine_size_mb=1:thread_local_quarantine_size_kb=64",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "PYTHONHASHSEED": "0",
    "PYTHONPATH": f"{LIBRARY}:{HERE.absolute()}",
}
BUILD_ENVIRON = os.environ | {
    "CC": "clang",
    "CFLAGS": "-O2 -g -fsanitize-coverage=inline-8bit-counters,pc-table "
    + IGNORED,
    "FASTHTTP_SANITIZE": "1",
    "LDSHARED": "clang -shared",
}


def build():
    """The modules below build/fuzz/lib, and one program for all harnesses."""
    python = sysconfig.get_config_var
    source = BUILD / "harness.c"
    compiler = (
        "clang", "-O2", "-g", "-fno-omit-frame-pointer",
        f"-I{sysconfig.get_path('include')}", "-Ifasthttp",
        f'-DPYTHON="{sys.executable}"',
    )  # fmt: skip
    library = f"-lpython{python('LDVERSION')}"
    places = [python("LIBDIR"), python("LIBPL")]
    for command in (
        ("setup.py", "--quiet", "build", "--parallel", "2", "--build-base",
         str(BUILD), "--build-lib", str(LIBRARY)),
        ("-m", "cython", "-3", str(HERE / "harness.pyx"), "-o", str(source)),
    ):  # fmt: skip
        run([sys.executable, *command], BUILD_ENVIRON)
    # A harness loads what it imports: every module's counters cost time.
    (LIBRARY / "fasthttp" / "__init__.py").write_text("")
    compiler += SANITIZERS
    objects = []
    for path in (source, HERE / "driver.c"):
        objects.append(str(BUILD / f"{path.stem}.o"))
        run([*compiler, "-c", str(path), "-o", objects[-1]])
    run(
        [
            *compiler, "-fsanitize=fuzzer", "-rdynamic", *objects,
            "-o", str(BUILD / "run"),
            *(f"-L{place}" for place in places), f"-Wl,-rpath,{places[0]}",
            library, *python("LIBS").split(), *python("SYSLIBS").split(),
        ]
    )  # fmt: skip
    for name in HARNESSES:
        link = BUILD / name
        link.unlink(missing_ok=True)
        link.symlink_to("run")


def run(command, environ=None):
    """Run one step of the build; its failure ends the program."""
    done = subprocess.run(command, env=environ)
    if done.returncode:
        sys.exit(f"failed: {' '.join(command)}")


def watch(name, arguments):
    """Run one harness; return if it found nothing, and its executions."""
    log = BUILD / f"{name}.log"
    command = [
        str(BUILD / name), f"-artifact_prefix={BUILD}/{name}-",
        "-print_final_stats=1", "-print_funcs=0", "-timeout=20",
        "-rss_limit_mb=2000", f"-max_len={MAX_LENGTH}", "-reload=0",
        *arguments, str(HERE / "corpus" / name),
    ]  # fmt: skip
    executions = 0
    told = time.monotonic()
    with log.open("w") as file:
        process = subprocess.Popen(
            command, env=ENVIRON, stderr=subprocess.PIPE, text=True,
            errors="replace",
        )  # fmt: skip
        for line in process.stderr:
            file.write(line)
            if line.startswith("stat::number_of_executed_units:"):
                executions = int(line.split()[1])
            quiet = time.monotonic() - told
            if line.startswith("#") and quiet > QUIET_SECONDS:
                told += quiet
                print(line, end="", flush=True)
    if process.wait():
        print("".join(log.read_text().splitlines(keepends=True)[-60:]))
        print(f"{name} found something; the whole story is in {log}")
    return process.returncode == 0, executions


def fuzz(name, limits):
    """Run one harness in both ways; as `watch`."""
    inputs = sum(1 for _ in (HERE / "corpus" / name).iterdir())
    print(f"== {name}: {inputs} inputs, for leaks", flush=True)
    clean, _ = watch(name, ["--leaks", "-runs=0"])
    if not clean:
        return False, 0
    grown = BUILD / "corpus" / name
    grown.mkdir(parents=True, exist_ok=True)
    print(f"== {name}", flush=True)
    return watch(name, [*limits, f"-dict={HERE / 'http.dict'}", str(grown)])


def keep(name):
    """Bring the fewest inputs that reach everything to fuzz/corpus."""
    fewest = BUILD / "fewest"
    shutil.rmtree(fewest, ignore_errors=True)
    fewest.mkdir()
    kept = HERE / "corpus" / name
    options = "-merge=1", "-use_counters=0", f"-max_len={KEPT_LENGTH}"
    places = [str(kept), str(BUILD / "corpus" / name)]
    run([str(BUILD / name), *options, str(fewest), *places], ENVIRON)
    shutil.rmtree(kept)
    kept.mkdir()
    for path in fewest.iterdir():
        path.rename(kept / path.name[:12])


def main():
    """Parse the command line, build, run."""
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument(
        "--seconds", type=int, default=60, help="for each harness"
    )
    parser.add_argument(
        "--runs", type=int, default=-1, help="the most inputs for each"
    )
    parser.add_argument("--keep", action="store_true", help="see above")
    parser.add_argument("names", nargs="*", default=HARNESSES)
    options = parser.parse_args()
    if shutil.which("clang") is None:
        sys.exit(HINT)
    BUILD.mkdir(parents=True, exist_ok=True)
    build()
    limits = f"-max_total_time={options.seconds}", f"-runs={options.runs}"
    done = {name: fuzz(name, limits) for name in options.names}
    failed = [name for name, (clean, _) in done.items() if not clean]
    if options.keep and not failed:
        for name in options.names:
            keep(name)
    for name, (_, executions) in done.items():
        print(f"{name:12}{executions:14,} executions")
    total = sum(executions for _, executions in done.values())
    print(f"{'in all':12}{total:14,}")
    sys.exit(f"found something: {', '.join(failed)}" if failed else 0)


main()
