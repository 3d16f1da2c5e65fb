"""Tables and plots from the results of compare.py.

Run `python bench/report.py results.json [--plots DIR]`; plots need
matplotlib.
"""

import argparse
import json
import statistics
from pathlib import Path

COLUMNS = {
    "rps": ("requests/s", "{:,.0f}"),
    "cpu_us": ("CPU us", "{:.1f}"),
    "user_us": ("user", "{:.1f}"),
    "system_us": ("system", "{:.1f}"),
    "p50_ms": ("p50 ms", "{:.2f}"),
    "p99_ms": ("p99 ms", "{:.2f}"),
    "p999_ms": ("p99.9 ms", "{:.2f}"),
    "added_p99_ms": ("p99 - 10 ms", "{:.2f}"),
    "of_ideal": ("of ideal", "{:.1%}"),
    "start_ms": ("start ms", "{:.0f}"),
    "rss_mb": ("RSS MB", "{:.1f}"),
    "idle_bytes": ("bytes an idle one", "{:,.0f}"),
    "idle_cost": ("CPU x without idle", "{:.2f}"),
    "idle_alive": ("idle left", "{:.0f}"),
    "errors": ("errors", "{:.0f}"),
    "others": ("others", "{:.0%}"),
}
COLOURS = {"ours": "#d1495b", "peer": "#30638e", "floor": "#8d99ae"}


def median(rounds, key):
    """The median of one figure over the rounds."""
    return statistics.median(figures[key] for figures in rounds)


class Standing:
    """One workload's results, compared."""

    def __init__(self, workload, servers):
        self.title = workload["title"]
        self.measure = workload["measure"]
        self.entries = workload["servers"]
        self.roles = {name: servers[name]["role"] for name in self.entries}
        self.timed = sorted(
            (name for name in self.entries if self.is_right(name)),
            key=self.figure,
        )
        self.best_peer = self._best("peer")
        self.best_floor = self._best("floor")

    def is_right(self, name):
        """Whether the server did the workload to the end."""
        entry = self.entries[name]
        return bool(entry["rounds"]) and not entry["failure"]

    def figure(self, name, key=None):
        """A server's median of the workload's measure or of a figure."""
        return median(self.entries[name]["rounds"], key or self.measure)

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


def standings(results):
    """A Standing for each workload, by name."""
    return {
        name: Standing(workload, results["servers"])
        for name, workload in results["workloads"].items()
    }


def markdown(results):
    """The whole report."""
    compared = standings(results)
    machine, settings = results["machine"], results["settings"]
    parts = [
        f"{machine['processor']}, {machine['cores']} cores, "
        f"Linux {machine['kernel']}, Python {machine['python']}; "
        f"{settings['rounds']} rounds of {settings['seconds']} s, "
        f"medians; {results['date'][:10]}.\n"
        "CPU us: the server's processor time for one request. "
        "Ratios are of CPU us (or\nof p99 where threads wait, or of the time "
        "to start): median (least-greatest)\nover the rounds; lower is "
        "better.\n"
    ]
    parts.append("## Servers\n\n" + _servers(results["servers"]))
    parts.append("## CPU us per request\n\n" + _overview(results, compared))
    for name, standing in compared.items():
        parts.append(f"## {standing.title} (`{name}`)\n\n" + _detail(standing))
    return "\n".join(parts)


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
        row.append(_notes(standing.entries[name]["facts"]))
        rows.append(row)
    failing = [
        f"- {name} fails: {entry['failure']}\n"
        for name, entry in standing.entries.items()
        if name not in standing.timed
    ]
    return _table(head, rows) + "\n" * bool(failing) + "".join(failing)


def _notes(facts):
    notes = []
    if facts.get("date") is False:
        notes.append("no Date")
    if facts.get("streams") is False:
        notes.append("joins the chunks")
    return ", ".join(notes)


def plot(results, directory):
    """Write overview.svg and one SVG for each workload."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "bench"
    directory.mkdir(parents=True, exist_ok=True)
    compared = {
        name: standing
        for name, standing in standings(results).items()
        if standing.timed
    }
    for name, standing in compared.items():
        _plot_workload(standing, directory / f"{name}.svg")
    _plot_overview(compared, directory / "overview.svg")


def _plot_workload(standing, path):
    from matplotlib import pyplot

    panels = 1 if standing.measure == "start_ms" else 2
    figure, axes = pyplot.subplots(
        1, panels, figsize=(6 * panels, 4), squeeze=False, layout="constrained"
    )
    figure.suptitle(standing.title)
    _draw_bars(axes[0][0], standing)
    if panels == 2:
        _draw_latency(axes[0][1], standing)
    figure.savefig(path)
    pyplot.close(figure)


def _draw_bars(axis, standing):
    names = standing.timed[::-1]
    whole = [standing.figure(name) for name in names]
    colours = [COLOURS[standing.roles[name]] for name in names]
    bars = axis.barh(names, whole, color=colours)
    if standing.measure == "cpu_us":
        system = [standing.figure(name, "system_us") for name in names]
        axis.barh(names, system, color="black", alpha=0.25)
        axis.set_xlabel("CPU us per request (system darker)")
    else:
        axis.set_xlabel(COLUMNS[standing.measure][0])
    axis.bar_label(bars, fmt="%.1f", padding=2, fontsize=8)
    axis.margins(x=0.12)
    if max(whole) > 20 * min(whole):
        axis.set_xscale("log")


def _draw_latency(axis, standing):
    for name in standing.timed:
        curves = [
            [ms for _, ms in figures["latency"]]
            for figures in standing.entries[name]["rounds"]
        ]
        points = standing.entries[name]["rounds"][0]["latency"]
        beyond = [1 / (1 - percent / 100) for percent, _ in points]
        middle = [
            statistics.median(values) / 1e3
            for values in zip(*curves, strict=True)
        ]
        role = standing.roles[name]
        axis.plot(
            beyond,
            middle,
            label=name,
            color=COLOURS["ours"] if role == "ours" else None,
            linewidth=2.5 if role == "ours" else 1,
            linestyle=":" if role == "floor" else "-",
        )
    axis.set_xscale("log")
    axis.set_yscale("log")
    ticks = {2: "50 %", 10: "90 %", 100: "99 %", 1000: "99.9 %"}
    axis.set_xticks(list(ticks), list(ticks.values()))
    axis.set_ylabel("latency, ms")
    axis.legend(fontsize=7)


def _plot_overview(compared, path):
    from matplotlib import pyplot

    columns = 3
    rows = -(-len(compared) // columns)
    figure, axes = pyplot.subplots(
        rows,
        columns,
        figsize=(5 * columns, 3 * rows),
        squeeze=False,
        layout="constrained",
    )
    for axis in axes.flat[len(compared) :]:
        axis.remove()
    for axis, standing in zip(axes.flat, compared.values(), strict=False):
        _draw_bars(axis, standing)
        axis.set_title(standing.title, fontsize=10)
        axis.tick_params(labelsize=8)
    figure.savefig(path)
    pyplot.close(figure)


def main():
    """Print the tables; draw the plots when asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("--plots", type=Path, metavar="DIR")
    options = parser.parse_args()
    results = json.loads(options.results.read_text())
    if options.plots:
        plot(results, options.plots)
    else:
        print(markdown(results))


if __name__ == "__main__":
    main()
