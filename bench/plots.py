"""SVG plots of the results: ratios at a glance, bars and latency curves."""

import math
import statistics
from html import escape

WIDTH = 800
ROW = 20
TOP = 44
NAMES = 130
OURS, PEER, FLOOR, INK, RULE = (
    "#d1495b",
    "#30638e",
    "#8d99ae",
    "#222",
    "#ccc",
)
BARS = {"ours": OURS, "peer": PEER, "floor": FLOOR}
CURVES = (
    "#30638e",
    "#edae49",
    "#00798c",
    "#66a182",
    "#8e6c8a",
    "#b07156",
    "#5f0f40",
    "#9a8c98",
    "#386641",
    "#2e4057",
)
LONGEST_BAR = 5
BEYOND = {50: "50 %", 90: "90 %", 99: "99 %", 99.9: "99.9 %"}


class Drawing:
    """SVG elements and the file they end in; units are pixels."""

    def __init__(self, height):
        self.height = height
        self.parts = []

    def text(self, x, y, content, size=12, anchor="start", fill=INK):
        """Write a line of text whose baseline is at y."""
        self.parts.append(
            f'<text x="{x:.0f}" y="{y:.0f}" font-size="{size}" '
            f'text-anchor="{anchor}" fill="{fill}">{escape(content)}</text>'
        )

    def bar(self, x, y, width, height, fill, opacity=1):
        """Fill a rectangle."""
        self.parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" '
            f'height="{height:.1f}" fill="{fill}" fill-opacity="{opacity}"/>'
        )

    def line(self, points, stroke, width=1, dashes="none"):
        """Draw a line through the points."""
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self.parts.append(
            f'<polyline points="{path}" fill="none" stroke="{stroke}" '
            f'stroke-width="{width}" stroke-dasharray="{dashes}"/>'
        )

    def save(self, path):
        """Write the file, on white: a page's background may be dark."""
        path.write_text(
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" '
            f'height="{self.height}" viewBox="0 0 {WIDTH} {self.height}" '
            'font-family="system-ui, sans-serif">\n'
            '<rect width="100%" height="100%" fill="white"/>\n'
            + "\n".join(self.parts)
            + "\n</svg>\n"
        )


def summary(compared, path):
    """One row a workload: our ratio to the best other, with its spread."""
    rows = [each for each in compared if each.ours and each.best_other]
    drawing = Drawing(TOP + ROW * len(rows) + 30)
    drawing.text(10, 20, "What fasthttp needs relative to the best other", 15)
    drawing.text(10, 37, "left of 1 it needs less; the line spans the rounds")
    left, right = 270, WIDTH - 150
    most = max(
        [2.1, *(max(row.ratios(row.ours, row.best_other)) for row in rows)]
    )
    low, high = math.log(0.1), math.log(most)

    def at(ratio):
        share = (math.log(max(ratio, 0.1)) - low) / (high - low)
        return left + share * (right - left)

    bottom = TOP + ROW * len(rows)
    for ratio in (0.1, 0.2, 0.5, 1, 2, 5):
        if ratio <= most:
            width = 2 if ratio == 1 else 1
            ends = [(at(ratio), TOP), (at(ratio), bottom)]
            drawing.line(ends, INK if ratio == 1 else RULE, width)
            drawing.text(at(ratio), bottom + 16, f"{ratio:g}", 11, "middle")
    for number, row in enumerate(rows):
        y = TOP + ROW * number + ROW / 2
        ratios = row.ratios(row.ours, row.best_other)
        middle = statistics.median(ratios)
        colour = PEER if middle <= 1 else OURS
        drawing.text(left - 10, y + 4, row.title, 12, "end")
        drawing.line([(at(min(ratios)), y), (at(max(ratios)), y)], colour, 3)
        drawing.bar(at(middle) - 4, y - 4, 8, 8, colour)
        label = f"{middle:.2f} x {row.best_other}"
        drawing.text(right + 8, y + 4, label, 12)
    drawing.save(path)


def workload(standing, path):
    """Bars of the measure and, where it was taken, the latency curves."""
    rows = standing.timed
    has_curves = "latency" in standing.entries[rows[0]]["rounds"][0]
    drawing = Drawing(max(TOP + ROW * len(rows) + 20, 260))
    drawing.text(10, 20, standing.title, 15)
    _draw_bars(drawing, standing, 420 if has_curves else WIDTH)
    if has_curves:
        _draw_curves(drawing, standing, 470)
    drawing.save(path)


def _draw_bars(drawing, standing, width):
    is_cpu = standing.measure == "cpu_us"
    unit = "CPU us a request, the kernel's part darker" if is_cpu else "ms"
    drawing.text(10, 37, unit)
    figures = {name: standing.figure(name) for name in standing.timed}
    longest = min(LONGEST_BAR * min(figures.values()), max(figures.values()))
    scale = (width - NAMES - 60) / longest
    for number, (name, figure) in enumerate(figures.items()):
        y = TOP + ROW * number
        length = min(figure, longest) * scale
        drawing.text(NAMES - 6, y + 14, name, 12, "end")
        role = standing.roles[name]
        drawing.bar(NAMES, y + 3, length, ROW - 6, BARS[role])
        if is_cpu:
            system = standing.figure(name, "system_us") / figure * length
            drawing.bar(NAMES, y + 3, system, ROW - 6, "black", 0.25)
        if figure > longest:
            drawing.bar(NAMES + length - 16, y, 5, ROW, "white")
        drawing.text(NAMES + length + 5, y + 14, f"{figure:,.1f}")


def _draw_curves(drawing, standing, left):
    """Latency against the share of requests that took longer, both log."""
    right, top, bottom = WIDTH - 120, TOP, drawing.height - 34
    curves = {name: standing.latency(name) for name in standing.timed}
    values = [ms for curve in curves.values() for _, ms in curve]
    low = math.floor(math.log10(max(min(values), 0.01)))
    high = max(math.ceil(math.log10(max(values))), low + 1)

    def across(percent):
        share = (-math.log10(1 - percent / 100) - 0.3) / 2.7
        return left + share * (right - left)

    def up(ms):
        share = (math.log10(max(ms, 10**low)) - low) / (high - low)
        return bottom - share * (bottom - top)

    drawing.text(left, 37, "latency, ms: so many requests took at most")
    for power in range(low, high + 1):
        y = up(10**power)
        drawing.line([(left, y), (right, y)], RULE)
        drawing.text(left - 6, y + 4, f"{10**power:g}", 11, "end")
    for percent, text in BEYOND.items():
        x = across(percent)
        drawing.line([(x, top), (x, bottom)], RULE)
        drawing.text(x, bottom + 16, text, 11, "middle")
    colours = iter(CURVES)
    for number, (name, curve) in enumerate(curves.items()):
        role = standing.roles[name]
        colour = next(colours) if role == "peer" else BARS[role]
        style = {"ours": (3, "none"), "peer": (1.5, "none")}
        width, dashes = style.get(role, (1.5, "4 3"))
        points = [(across(percent), up(ms)) for percent, ms in curve]
        drawing.line(points, colour, width, dashes)
        y = top + 10 + 16 * number
        ends = [(right + 8, y), (right + 26, y)]
        drawing.line(ends, colour, width, dashes)
        drawing.text(right + 31, y + 4, name, 11)
