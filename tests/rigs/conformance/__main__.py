"""The command line: which runs, with which client, and what is kept of them."""

from __future__ import annotations

import argparse
import functools
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.rigs.conformance import report
from tests.rigs.conformance.client import CLIENTS
from tests.rigs.conformance.runs import RUNS, Result, Run, both_readers, execute, execute_all, quick
from tests.rigs.conformance.suite import UnfitError, set_up

USAGE = """\
Run Autobahn|Testsuite against connman: its fuzzing server on loopback, a client that echoes. The suite needs a
Python 2.7 with pip and is installed once, into .venv-conformance. Exit status: 0 when every target was reached, which
are in each run 0 FAILED, 0 wrong close and at most 2 NON-STRICT; 1 when one was missed; 2 for a wrong call and for a
machine without Python 2.7."""


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        "scripts/conformance", description=USAGE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--python", metavar="X.Y", help="with that interpreter, in .venv-X.Y")
    add("--client", choices=CLIENTS, default="connman", help="whom to test (default: connman)")
    add("--quick", action="store_true", help="of the compressed messages, most of the time, the short ones")
    add("--run", action="append", default=[], metavar="NAME", help="only that run; may be repeated")
    add(
        "--cases",
        action="append",
        default=[],
        metavar="PATTERN",
        help="only such cases, as 6.*; may be repeated",
    )
    add("--both-readers", action="store_true", help="each run once more with Pool(readers=1)")
    add("--dev", action="store_true", help="the client with -X dev -W error")
    add("--jobs", type=int, default=1, metavar="N", help="so many runs at a time (default: 1)")
    add("--chapters", action="store_true", help="a row for each chapter of cases as well")
    add("--json", type=Path, metavar="FILE", help="write every verdict there")
    add(
        "--reports",
        type=Path,
        metavar="FOLDER",
        help="write the suite's own pages there, with the bytes of each case",
    )
    add("--list", action="store_true", help="name the runs and do none")
    return parser.parse_args(words)


def say(text: str) -> None:
    """Show on a terminal what is under way."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def chosen(wanted: argparse.Namespace) -> list[Run]:
    """Return the runs that the command line asks for.

    Raises: ValueError for one that there is not.
    """
    runs = quick(RUNS) if wanted.quick else list(RUNS)
    runs = both_readers(runs) if wanted.both_readers else runs
    names = [run.name for run in runs]
    if unknown := set(wanted.run) - set(names):
        raise ValueError(f"no run is named {', '.join(sorted(unknown))}: there are {', '.join(names)}")
    return [run for run in runs if run.name in wanted.run or not wanted.run]


def tell(results: Sequence[Result], *, in_chapters: bool) -> bool:
    """Print everything; return whether every target was reached."""
    said = [line for result in results for line in report.not_ok(result)]
    if said:
        print("Not OK:", *said, "", sep="\n")
    print(*report.table(results, in_chapters=in_chapters), "", sep="\n")
    for line in (line for result in results for line in report.notes(result)):
        print(line)
    missed = [line for result in results for line in report.missed(result)]
    if missed:
        print("MISSED:", *missed, sep="\n")
    return not missed


def main(words: list[str] | None = None) -> int:
    """Do what the command line says; return the exit status."""
    wanted = arguments(words)
    try:
        runs = chosen(wanted)
        if wanted.list:
            print(*(f"{run.name:20} {run.title}" for run in runs), sep="\n")
            return 0
        python27 = set_up()
        begin = time.monotonic()
        one = functools.partial(
            execute,
            python27=python27,
            client=wanted.client,
            only=wanted.cases,
            is_dev=wanted.dev,
            reports=wanted.reports,
            say=say,
        )
        results = [result for result in execute_all(runs, wanted.jobs, one) if result.cases]
    except (UnfitError, ValueError) as error:
        print(f"scripts/conformance: {error}", file=sys.stderr)
        return 2
    say("")
    if not results:
        print(f"scripts/conformance: no case is like {', '.join(wanted.cases)}", file=sys.stderr)
        return 2
    is_reached = tell(results, in_chapters=wanted.chapters)
    if wanted.json:
        report.write(wanted.json, wanted.client, results)
    count = sum(len(result.cases) for result in results)
    print(f"{wanted.client}: {count} cases in {time.monotonic() - begin:.0f} s")
    return 0 if is_reached else 1


if __name__ == "__main__":
    sys.exit(main())
