"""Heads parsed by fasthttp and gunicorn_h1c, in turn.

pytest-benchmark times one after the other, so a machine that changes its
speed meanwhile shows as a difference. Here both parse the same heads again
and again in turn; nanoseconds of one head are those of the least and the
median of ROUNDS.
"""

import statistics
import time

import cases
import test_micro

ROUNDS = 3000
KINDS = {
    "objects": (cases.objects, test_micro.with_h1c),
    "environ": (cases.environ, test_micro.environ_by_h1c),
}


def time_in_turn(calls):
    """For each call the nanoseconds of all rounds, for one head."""
    times = [[] for _ in calls]
    for _ in range(ROUNDS):
        for call, taken in zip(calls, times, strict=True):
            began = time.perf_counter_ns()
            call()
            taken.append((time.perf_counter_ns() - began) / cases.HEADS)
    return times


def main():
    """Print a table."""
    print("| heads | to | | fasthttp | gunicorn_h1c | ratio |")
    print("| --- | --- | --- | --- | --- | --- |")
    for batch, heads in cases.BATCHES.items():
        for kind, made in KINDS.items():
            times = time_in_turn([make(heads) for make in made])
            for what in (min, statistics.median):
                ours, theirs = map(what, times)
                print(
                    f"| {batch} | {kind} | {what.__name__} | {ours:,.0f} ns"
                    f" | {theirs:,.0f} ns | {ours / theirs:.2f} |"
                )


if __name__ == "__main__":
    main()
