"""Tables and plots from the results of compare.py.

`python bench/report.py` prints the tables again; `--publish` puts them, the
plots and what the micro-benchmarks gave into docs/ and README.md.
"""

import argparse
import json
import statistics
from pathlib import Path

import plots
from servers import CACHE, PROJECT
from workloads import WORKLOADS

DOCS = PROJECT / "docs"
COLUMNS = {
    "rps": ("requests/s", "{:,.0f}"),
    "cpu_us": ("CPU us", "{:.1f}"),
    "user_us": ("user", "{:.1f}"),
    "system_us": ("system", "{:.1f}"),
    "p50_ms": ("p50 ms", "{:.2f}"),
    "p99_ms": ("p99 ms", "{:.2f}"),
    "p999_ms": ("p99.9 ms", "{:.2f}"),
    "added_p99_ms": ("added p99 ms", "{:.2f}"),
    "of_ideal": ("of ideal", "{:.1%}"),
    "start_ms": ("start ms", "{:.0f}"),
    "rss_mb": ("RSS MB", "{:.1f}"),
    "idle_bytes": ("bytes an idle one", "{:,.0f}"),
    "idle_cost": ("CPU x without idle", "{:.2f}"),
    "errors": ("errors", "{:.0f}"),
    "others": ("others", "{:.0%}"),
}
UNITS = {"cpu_us": "us", "p99_ms": "ms", "start_ms": "ms"}


class Standing:
    """One workload's results, compared.

    `timed` are the servers that did it right, the cheapest first; `ours` is
    the first of fasthttp's, `best_other` the best peer, or the best floor
    where there is none. A server that joins streamed chunks is no best.
    """

    def __init__(self, workload, servers):
        self.title = workload["title"]
        self.measure = workload["measure"]
        self.entries = workload["servers"]
        self.roles = {name: servers[name]["role"] for name in self.entries}
        self.timed = sorted(
            (name for name in self.entries if self.is_right(name)),
            key=self.figure,
        )
        self.ours = next(
            (
                name
                for name, role in self.roles.items()
                if role == "ours" and name in self.timed
            ),
            None,
        )
        self.best_peer = self._best("peer")
        self.best_floor = self._best("floor")
        self.best_other = self.best_peer or self.best_floor

    def is_right(self, name):
        """Whether the server did the workload to the end."""
        entry = self.entries[name]
        return bool(entry["rounds"]) and not entry["failure"]

    def figure(self, name, key=None):
        """A server's median of the workload's measure or of a figure."""
        rounds = self.entries[name]["rounds"]
        return statistics.median(
            figures[key or self.measure] for figures in rounds
        )

    def latency(self, name):
        """[(percent, ms), ...] from the median on, medians of the rounds."""
        rounds = [
            figures["latency"] for figures in self.entries[name]["rounds"]
        ]
        return [
            (points[0][0], statistics.median(us for _, us in points) / 1e3)
            for points in zip(*rounds, strict=True)
            if 50 <= points[0][0] <= 99.9
        ]

    def _best(self, role):
        for name in self.timed:
            joins = self.entries[name]["facts"].get("streams") is False
            if self.roles[name] == role and not joins:
                return name
        return None

    def ratios(self, name, reference):
        """The measure relative to the reference's, round by round."""
        pairs = zip(
            self.entries[name]["rounds"],
            self.entries[reference]["rounds"],
            strict=True,
        )
        return [
            mine[self.measure] / theirs[self.measure] for mine, theirs in pairs
        ]

    def ratio_text(self, name, reference):
        """The median ratio with its least and greatest."""
        if reference is None:
            return ""
        ratios = self.ratios(name, reference)
        middle = statistics.median(ratios)
        return f"{middle:.2f} ({min(ratios):.2f}-{max(ratios):.2f})"

    def notes(self, name):
        """What is amiss with the server's answers."""
        facts = self.entries[name]["facts"]
        joins = facts.get("streams") is False
        notes = [facts.get("date"), "joins the chunks" if joins else ""]
        return ", ".join(filter(None, notes))


def standings(results):
    """A Standing for each workload, by name."""
    return {
        name: Standing(workload, results["servers"])
        for name, workload in results["workloads"].items()
    }


def markdown(results):
    """The whole report."""
    compared = standings(results)
    parts = [
        "# Results\n",
        conditions(results),
        "## Servers\n\n" + _servers(results["servers"]),
        "## Summary\n\n" + summary(compared),
        "## CPU us per request\n\n" + _overview(results, compared),
    ]
    for name, standing in compared.items():
        parts.append(f"## {standing.title} (`{name}`)\n\n" + _detail(standing))
    return "\n".join(parts)


def conditions(results):
    """Where and how it was measured."""
    machine, settings = results["machine"], results["settings"]
    return (
        f"{machine['processor']}, {machine['cores']} cores, "
        f"Linux {machine['kernel']}, Python {machine['python']},\n"
        f"{settings['rounds']} rounds of {settings['seconds']} s, "
        f"medians, {results['date'][:10]}.\n"
    )


def summary(compared):
    """One row a workload: ours, the best other, the ratio with its spread.

    Ratios are of CPU time for a request, or where the unit is ms, of p99
    (`sleep`) or of the time to the first answer (`start`).
    """
    rows = []
    for name, standing in compared.items():
        is_tried = "ours" in standing.roles.values()
        row = [name, "fails" if is_tried else "not run", "", ""]
        if (ours := standing.ours) is not None:
            unit = UNITS[standing.measure]
            row[1] = f"{standing.figure(ours):.1f} {unit}"
            if ours != "fasthttp" and "fasthttp" in standing.entries:
                row[1] += f" ({ours})"
        if (other := standing.best_other) is not None:
            star = "\\*" * bool(standing.notes(other))
            row[2] = f"{other}{star} {standing.figure(other):.1f}"
            if ours is not None:
                row[3] = standing.ratio_text(ours, other)
        rows.append(row)
    return _table(["workload", "fasthttp", "best other", "ratio"], rows)


def _table(head, rows):
    cells = [head, *rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "| "
        + " | ".join(
            cell.ljust(width) for cell, width in zip(row, widths, strict=True)
        )
        + " |"
        for row in cells
    ]
    rule = "| " + " | ".join("-" * width for width in widths) + " |"
    return "\n".join([lines[0], rule, *lines[1:]]) + "\n"


def _servers(servers):
    rows = [
        [name, about["version"], about["unavailable"] or "runs"]
        for name, about in servers.items()
    ]
    return _table(["server", "version", "state"], rows)


def _overview(results, compared):
    """Workloads x servers, without those that need an interface of one."""
    compared = {
        name: standing
        for name, standing in compared.items()
        if standing.measure == "cpu_us"
        and not name.startswith(("protocol", "on-request"))
    }
    names = [
        name
        for name in results["servers"]
        if any(name in standing.entries for standing in compared.values())
    ]
    rows = []
    for workload, standing in compared.items():
        row = [workload]
        for name in names:
            if name not in standing.entries:
                row.append("")
            elif name in standing.timed:
                row.append(f"{standing.figure(name):.1f}")
            else:
                row.append("fails")
        rows.append(row)
    return _table(["workload", *names], rows)


def _detail(standing):
    shown = [
        key
        for key in COLUMNS
        if any(
            key in standing.entries[name]["rounds"][0]
            for name in standing.timed
        )
    ]
    head = ["server", *(COLUMNS[key][0] for key in shown)]
    head += ["x best peer", "x floor", "notes"]
    rows = []
    for name in standing.timed:
        row = [name]
        for key in shown:
            row.append(COLUMNS[key][1].format(standing.figure(name, key)))
        row.append(standing.ratio_text(name, standing.best_peer))
        row.append(standing.ratio_text(name, standing.best_floor))
        row.append(standing.notes(name))
        rows.append(row)
    failing = [
        f"- {name} fails: {entry['failure']}\n"
        for name, entry in standing.entries.items()
        if name not in standing.timed
    ]
    return _table(head, rows) + "\n" * bool(failing) + "".join(failing)


def micro(measured):
    """Nanoseconds for one head, chunk or answer: the least of all rounds.

    A group's name begins with how many of them one round does.
    """
    groups, contenders = {}, {}
    for benchmark in measured["benchmarks"]:
        each, _, group = benchmark["group"].partition(" ")
        names = dict(benchmark["params"] or {})
        names.pop("batch", None)
        name = "".join(names.values()) or "fasthttp"
        contenders[name] = None
        ns = benchmark["stats"]["min"] * 1e9 / int(each)
        groups.setdefault(group, {})[name] = f"{ns:,.0f}"
    rows = [
        [group, *(figures.get(name, "") for name in contenders)]
        for group, figures in groups.items()
    ]
    return _table(["ns for one of", *contenders], rows)


def write(results, directory):
    """Write results.md, summary.svg and one SVG for each workload."""
    directory.mkdir(parents=True, exist_ok=True)
    for plot in directory.glob("*.svg"):
        # of an earlier run, with other figures
        plot.unlink()
    (directory / "results.md").write_text(markdown(results))
    compared = standings(results)
    plots.summary(list(compared.values()), directory / "summary.svg")
    for name, standing in compared.items():
        if standing.timed:
            plots.workload(standing, directory / f"{name}.svg")


def publish(results, measured):
    """Renew docs/figures and the summaries in README.md and docs."""
    write(results, DOCS / "figures")
    with open(DOCS / "figures" / "results.md", "a") as report:
        report.write("\n## Parsing and serializing\n\n" + micro(measured))
    table = conditions(results) + "\n" + summary(standings(results))
    for path in (PROJECT / "README.md", DOCS / "performance.md"):
        before, rest = path.read_text().split("<!-- summary -->\n")
        after = rest.partition("<!-- end summary -->\n")[2]
        path.write_text(
            f"{before}<!-- summary -->\n\n{table}\n"
            f"<!-- end summary -->\n{after}"
        )


def main():
    """Print the tables, or publish them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--publish", action="store_true")
    parser.add_argument(
        "results",
        type=Path,
        nargs="?",
        default=CACHE / "results" / "results.json",
    )
    options = parser.parse_args()
    if not options.results.exists():
        parser.error(f"no {options.results}: run compare.py first")
    results = json.loads(options.results.read_text())
    if options.publish:
        missing = {each.name for each in WORKLOADS} - set(results["workloads"])
        if missing:
            parser.error(f"not measured: {', '.join(sorted(missing))}")
        measured = options.results.with_name("micro.json").read_text()
        publish(results, json.loads(measured))
    else:
        print(markdown(results))


if __name__ == "__main__":
    main()
