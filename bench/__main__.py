"""The command line: which rows, how much of them, and what is kept of the run."""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import replace

from bench import report
from bench.judge import Outcomes, Row, Verdict, exit_status, verdicts
from bench.rows import all_rows, chosen
from bench.run import run_row
from bench.scale import FULL, QUICK

USAGE = """\
connman beside its peers, in one run, in turn: A B C, A B C. Each client runs in a fresh process against a fresh
load server. A ratio is the median of the ratios of each round. Exit status: 0 when every target was reached,
1 when one was missed, 2 for a wrong call. A full run also draws the curves and writes bench/results.json and
docs/bench-*.svg."""


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        "scripts/bench", description=USAGE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--python", metavar="X.Y", help="with that interpreter, in .venv-X.Y")
    parser.add_argument(
        "--quick", action="store_true", help="fewer rounds, smaller counts, no curves: under two minutes"
    )
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="ROW",
        help="rows whose name begins so; may be repeated",
    )
    parser.add_argument("--rounds", type=int, metavar="N", help="run each row N times")
    parser.add_argument(
        "--write",
        action="store_true",
        help="write the results and charts of a quick run as well; with --only, beside those that are there",
    )
    parser.add_argument("--list", action="store_true", help="name the rows and run none")
    parser.add_argument(
        "--draw", action="store_true", help="draw the charts of the results that are there, run none"
    )
    return parser.parse_args(words)


def say(text: str) -> None:
    """Show on a terminal what is under way."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def run_all(rows: list[Row]) -> tuple[list[tuple[Row, Outcomes]], list[tuple[Row, Verdict]]]:
    """Run the rows, print each when it is done, and judge them."""
    measured: list[tuple[Row, Outcomes]] = []
    judged: list[tuple[Row, Verdict]] = []
    for row in rows:
        outcomes = run_row(row, say)
        say("")
        print(*report.lines(row, outcomes), "", sep="\n", flush=True)
        measured.append((row, outcomes))
        judged += [(row, verdict) for verdict in verdicts(row, outcomes)]
    return measured, judged


def draw() -> None:
    """Draw the charts of the results that are there."""
    from bench import charts  # lazy: half a second that a quick run does without

    charts.draw_all(report.read())


def with_rounds(rows: list[Row], rounds: int | None) -> list[Row]:
    """Return the rows with another number of rounds."""
    return [replace(row, rounds=rounds) for row in rows] if rounds else rows


def main(words: list[str] | None = None) -> int:
    """Do what the command line says; return the exit status."""
    wanted = arguments(words)
    rows = all_rows(QUICK if wanted.quick else FULL)
    try:
        rows = with_rounds(chosen(rows, wanted.only), wanted.rounds)
    except ValueError as error:
        print(f"scripts/bench: {error}", file=sys.stderr)
        return 2
    if wanted.list:
        print(*(f"{row.name:20} {row.title}" for row in rows), sep="\n")
        return 0
    if wanted.draw:
        draw()
        return 0
    begin, load = time.monotonic(), os.getloadavg()[0]  # before, because a run is a load of its own
    measured, judged = run_all(rows)
    print(report.summary(judged))
    print(
        f"took {time.monotonic() - begin:.0f} s, load average before {load:.1f} on {os.cpu_count()} processors"
    )
    if wanted.write or not (wanted.only or wanted.quick):
        kept = report.results(measured, load)
        report.write(report.joined(report.read(), kept) if wanted.only else kept)
        draw()
    return exit_status([verdict for _, verdict in judged])


if __name__ == "__main__":
    sys.exit(main())
