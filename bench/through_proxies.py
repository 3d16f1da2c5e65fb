"""Sends 100,000 checked requests through nginx and through HAProxy each.

Starts the real command and the proxy with tests/peers/, eight clients that
keep their connections, and ends with 1 if any answer was not the
application's. Then the server gives up idle connections, with
`--keep-alive 1`, while requests come a second apart. Run as
`python -m bench.through_proxies` with `tests` on PYTHONPATH.
"""

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.apps.serving import serving
from tests.peers.load import CLIENTS, PORT, play, play_with_gaps
from tests.peers.proxies import PROXIES, proxied

APP = "tests.peers.places:app"
SHOWN = 10
# nginx uses a connection for as many requests.
KEPT = 1000


def steady(name, place, threads, options):
    """Play all kinds of requests; yield what is wrong."""
    with (
        serving(APP, "--threads", threads) as server,
        proxied(name, server.port, place) as front,
    ):
        ports = set()
        began = time.monotonic()
        for tenth in range(1, 11):
            played = play(front.address, options.requests // 10)
            ports |= played.ports
            print(
                f"{tenth * 10:>4} %: {time.monotonic() - began:.0f} s,"
                f" {len(ports)} connections to the server,"
                f" {len(played.wrong)} wrong answers",
                flush=True,
            )
            yield from played.wrong
        yield from front.complaints()
        if len(ports) > CLIENTS * 2 + options.requests // KEPT:
            yield f"{name}: {len(ports)} connections were not kept"


def crossing(name, place, threads, options):
    """Play requests whose gaps are the server's patience; yield faults."""
    gaps = [random.gauss(1, 0.01) for _ in range(options.rounds)]
    with (
        serving(APP, "--threads", threads, "--keep-alive", "1") as server,
        proxied(name, server.port, place, retry=True) as front,
    ):
        played = play_with_gaps(front.address, gaps, [PORT])
        print(
            f"--keep-alive 1: {CLIENTS * options.rounds} requests,"
            f" {len(played.ports)} connections to the server,"
            f" {len(played.wrong)} wrong answers",
            flush=True,
        )
        yield from played.wrong


def main():
    """Parse the command line, play, give the verdict."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--proxies", nargs="+", default=list(PROXIES))
    parser.add_argument("--threads", default="2")
    options = parser.parse_args()
    failed = []
    for name in options.proxies:
        print(f"== {name}: {options.requests} requests", flush=True)
        for part in steady, crossing:
            with tempfile.TemporaryDirectory() as place:
                failed += part(name, Path(place), options.threads, options)
    print("\n".join(failed[:SHOWN]) if failed else "nothing was lost")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
