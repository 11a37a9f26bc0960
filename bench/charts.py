"""The pictures of the curves, drawn from bench/results.json into docs/."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

DOCS = Path(__file__).parent.parent / "docs"
STYLE = {
    "svg.hashsalt": "connman",  # the same figures give the same file
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "axes.spines.top": False,
    "axes.spines.right": False,
}
SIZES = {
    0: "0",
    32: "32 B",
    256: "256 B",
    1024: "1 KiB",
    8192: "8 KiB",
    65536: "64 KiB",
    1 << 20: "1 MiB",
}
CHARTS = {
    "sizes": ("bench-messages.svg", "Messages received, by size", "size of a message", "messages/s"),
    "cpu": ("bench-cpu.svg", "CPU a message, 10,000 messages/s in all", "connections", "µs of CPU a message"),
    "memory": ("bench-memory.svg", "Memory of an idle connection", "connections", "KiB"),
    "threads": (
        "bench-threads.svg",
        "Threads sending on one connection",
        "threads",
        "messages/s, all together",
    ),
    "calls": ("bench-calls.svg", "Calls over one connection", "calls in flight", "calls/s"),
    "forward": ("bench-forward.svg", "64 B frames through one relay process", "pairs", "frames/s"),
}
LOGARITHMIC = {"sizes", "forward"}
COLOURS = {
    "connman": "#1f77b4",
    "connman Pool(readers=1)": "#17becf",
    "connman through its relay": "#1f77b4",
    "connman, plain": "#17becf",
    "WebSocketApp": "#ff7f0e",
    "WebSocketApp, no UTF-8 check": "#ffbb78",
    "websocket-client": "#8c564b",
    "websocket-client, no UTF-8 check": "#c49c94",
    "websockets, threads": "#2ca02c",
    "simple-websocket": "#9467bd",
    "picows": "#d62728",
    "picows, uvloop": "#ff9896",
    "websockets": "#2ca02c",
    "websockets, uvloop": "#98df8a",
    "aiohttp": "#9467bd",
    "rpyc direct, async_()": "#8c564b",
    "python-socketio emit() direct": "#ff7f0e",
}

Points = dict[str, list[tuple[int, float]]]


def curve(results: Mapping[str, Any], name: str) -> Points:
    """Return the points of a curve, for each client that has some."""
    points: Points = defaultdict(list)
    for row in results["rows"].values():
        if row.get("curve") == name:
            for label, figures in row["figures"].items():
                if figures.get("median"):
                    points[label].append((row["x"], figures["median"]))
    return {label: sorted(found) for label, found in points.items()}


def draw_all(results: Mapping[str, Any]) -> list[Path]:
    """Draw every chart that there are points for; return the files."""
    drawn = []
    for name, words in CHARTS.items():
        points = curve(results, name)
        if points:
            drawn.append(draw(name, points, *words))
    return drawn


def draw(name: str, points: Points, file: str, *words: str) -> Path:
    """Draw one chart: rates that lie far apart on a logarithmic axis, the rest from zero; connman thick, the floor dotted."""
    title, across, up = words
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8, 4.5), layout="constrained")
        axes = figure.add_subplot(title=title, xlabel=across, ylabel=up)
        if name in LOGARITHMIC:
            axes.set_yscale("log")
            axes.yaxis.set_minor_formatter(lambda value, _: "")
        else:
            axes.set_ylim(0, 1.1 * max(y for found in points.values() for _, y in found))
        places = sorted({x for found in points.values() for x, _ in found})
        axes.set_xticks(range(len(places)), [SIZES[x] if name == "sizes" else f"{x:,}" for x in places])
        for label, found in points.items():
            axes.plot(
                [places.index(x) for x, _ in found],
                [y for _, y in found],
                label=label,
                **line(label),
                marker=".",
            )
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
        axes.grid(axis="y", alpha=0.3)
        axes.legend(fontsize="small", frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
        path = DOCS / file
        figure.savefig(path, metadata={"Date": None, "Creator": None})
        strip(path)
    return path


def strip(path: Path) -> None:
    """Take the blanks from the ends of lines, which a diff would show."""
    text = path.read_text(encoding="utf-8")
    path.write_text("\n".join(part.rstrip() for part in text.splitlines()) + "\n", encoding="utf-8")


def line(label: str) -> dict[str, Any]:
    """Say how a client's line looks."""
    if label.startswith("floor"):
        return {"linestyle": ":", "color": "grey", "linewidth": 1}
    return {"linewidth": 2.6 if label.startswith("connman") else 1.2, "color": COLOURS.get(label)}
