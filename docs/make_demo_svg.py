"""Make the picture in README.md from what the demo prints: scripts/demo | python docs/make_demo_svg.py > docs/demo.svg.

Nothing is invented: lines are coloured, cut at the right, and left out where the act has shown one of their kind.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from xml.sax.saxutils import escape

COLUMNS = 130
FONT_SIZE, LINE_HEIGHT, PADDING = 12, 17, 16
COLUMN_WIDTH = 0.6021 * FONT_SIZE  # of DejaVu Sans Mono, Menlo, Consolas and their like

PLAIN, BOLD, DIM, RED, GREEN, YELLOW = "plain", "bold", "dim", "red", "green", "yellow"
STATE_COLOURS = {"O": GREEN, "C": YELLOW, "W": RED}
VERDICT_COLOURS = {"OK": GREEN, "BROKEN": RED}
STYLE = """
text { font: 12px ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; fill: #c9d1d9; white-space: pre }
.bold { fill: #ffffff; font-weight: bold } .dim { fill: #8b949e }
.red { fill: #ff7b72 } .green { fill: #56d364 } .yellow { fill: #e3b341 }
"""

# "  9.18  OOWW CC     264 msg/s  4 x open"
_TIMED = re.compile(r"( *\d+\.\d\d  )([.OCWx]+(?: [.OCWx]+)*)( +[\d,]+ msg/s  )(.*)")
_VERDICT = re.compile(r"(.*  )(OK|BROKEN)")

Span = tuple[str, str]


def condensed(lines: Iterable[str]) -> Iterator[str]:
    """Yield the lines without the demo's options, and of each act the first line of each kind."""
    seen: set[str] = set()
    for line in lines:
        if line.startswith("== "):
            seen = set()
        elif timed := _TIMED.fullmatch(line):
            kind = re.sub(r"\d[\d.,]*", "#", timed[4].partition("; try")[0])
            if kind in seen:
                continue
            seen.add(kind)
        if not line.startswith("options:"):
            yield line


def spans(line: str) -> Iterator[Span]:
    """Yield the parts of a line with their colours."""
    line = line if len(line) <= COLUMNS else line[: COLUMNS - 1] + "…"
    if line.startswith("== "):
        yield line, BOLD
    elif timed := _TIMED.fullmatch(line):
        yield timed[1], DIM
        yield from ((run[0], STATE_COLOURS.get(run[1], DIM)) for run in re.findall(r"((.)\2*)", timed[2]))
        yield timed[3], DIM
        yield timed[4], PLAIN
    elif verdict := _VERDICT.fullmatch(line):
        yield verdict[1], PLAIN
        yield verdict[2], VERDICT_COLOURS[verdict[2]]
    else:
        yield line, DIM


def svg(lines: list[str]) -> str:
    """Return the picture of a terminal that shows ``lines``."""
    width = round(COLUMNS * COLUMN_WIDTH) + 2 * PADDING
    height = len(lines) * LINE_HEIGHT + 2 * PADDING
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">',
        f"<style>{STYLE}</style>",
        f'<rect width="{width}" height="{height}" rx="8" fill="#0d1117"/>',
    ]
    for number, line in enumerate(lines):
        baseline = PADDING + number * LINE_HEIGHT + FONT_SIZE
        tspans = "".join(
            f'<tspan class="{colour}">{escape(text)}</tspan>' for text, colour in spans(line) if text
        )
        if tspans:
            parts.append(f'<text x="{PADDING}" y="{baseline}" xml:space="preserve">{tspans}</text>')
    return "\n".join([*parts, "</svg>", ""])


if __name__ == "__main__":
    shown = list(condensed(line.rstrip("\n") for line in sys.stdin))
    if not shown:
        sys.exit("there is no demo's output on standard input")
    sys.stdout.write(svg(shown))
