"""The command: run cases and print a table; repeat one; or look for more with atheris."""

import argparse
import hashlib
import os
import random
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.rigs.fuzz.engine import LONGEST, Found, reduced
from tests.rigs.fuzz.target import Target
from tests.rigs.fuzz.workers import run_in_processes

KEPT = Path("build") / "fuzz"

_DESCRIPTION = f"""\
Feed connman what no decent peer or user would. Every case is made from the seed and its number alone, and has to end
as documented: in the right messages or in an error of connman's, in less than {LONGEST:g} s of CPU, with memory flat.
Without arguments every target runs in its full number of cases, on all processors; that takes some minutes. The exit
status is 1 if there is a finding; its case is left in {KEPT}, to be repeated with --replay.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = _make_parser()
    options = parser.parse_args(arguments)
    if options.guided is not None:
        from tests.rigs.fuzz.guided import run_guided  # lazy: wants atheris, and to import connman by itself

        return run_guided(options.guided, options.target)
    from tests.rigs.fuzz.targets import TARGETS  # lazy: atheris has to be there before

    unknown = {*options.only, *([options.target] if options.target else [])} - TARGETS.keys()
    if unknown:
        parser.error(f"no target {min(unknown)!r}; there are {', '.join(TARGETS)}")
    chosen = [target for name, target in TARGETS.items() if name in options.only or not options.only]
    if options.list:
        for target in chosen:
            print(f"{target.name:<10}{target.full:>10,}  {target.what}")
        return 0
    if options.planted:
        from tests.rigs.fuzz.planted import find_planted  # lazy: only then

        return find_planted(options.only)
    if options.replay:
        if options.target is None:
            parser.error("--replay wants a target behind it")
        return _replay(TARGETS[options.target], options.replay)
    seed = random.SystemRandom().randrange(1 << 31) if options.seed is None else options.seed
    return _run_all(chosen, options.count, seed, options.jobs)


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/fuzz", description=_DESCRIPTION, formatter_class=argparse.RawTextHelpFormatter
    )
    add = parser.add_argument
    add("--only", action="append", default=[], metavar="TARGET", help="this target; may be repeated")
    add("--count", type=int, metavar="N", help="so many cases of each target instead of the full number")
    add("--seed", type=int, metavar="S", help="repeat a run; it is printed, and a new one each time")
    add("--jobs", type=int, metavar="N", default=os.cpu_count() or 1, help="so many processes")
    add("--list", action="store_true", help="print the targets and what they take")
    add("--replay", type=Path, metavar="FILE", help="run the one case in FILE, of the target behind it")
    add("--planted", action="store_true", help="plant bugs in a copy of connman: each has to be found")
    add(
        "--guided",
        type=float,
        metavar="SECONDS",
        help="look for more of the target with atheris (coverage-guided)",
    )
    add("target", nargs="?", metavar="TARGET", help="for --guided and --replay")
    return parser


def _run_all(targets: Sequence[Target], count: int | None, seed: int, processes: int) -> int:
    print(f"seed {seed}, {processes} processes")
    print(
        f"{'target':<10}{'cases':>11}{'seconds':>9}{'cases/s':>9}{'longest':>11}{'findings':>10}", flush=True
    )
    is_clean = True
    for target in targets:
        outcome = run_in_processes(target, count or target.full, seed, processes)
        speed = outcome.cases / outcome.seconds
        longest = f"{outcome.longest * 1000:.1f} ms"
        numbers = f"{outcome.cases:>11,}{outcome.seconds:>9.1f}{speed:>9,.0f}{longest:>11}"
        print(f"{target.name:<10}{numbers}{len(outcome.findings):>10}", flush=True)
        for found in outcome.findings:
            _report(target, found)
        is_clean = is_clean and not outcome.findings
    return 0 if is_clean else 1


def _report(target: Target, found: Found) -> None:
    where = "in the corpus" if found.number < 0 else f"case {found.number}"
    print(
        f"\n  {target.name}, {where}:\n"
        + "\n".join(f"    {line}" for line in found.error.rstrip().splitlines())
    )
    if found.case:
        path = keep(target, reduced(target, found))
        print(f"    to repeat: scripts/fuzz --replay {path} {target.name}\n")


def keep(target: Target, case: bytes) -> Path:
    """Write a case into a file of its own."""
    KEPT.mkdir(parents=True, exist_ok=True)
    path = KEPT / f"{target.name}-{hashlib.sha256(case).hexdigest()[:12]}"
    path.write_bytes(case)
    return path


def _replay(target: Target, path: Path) -> int:
    """Run one case, without anything around it: what is wrong comes out as it is."""
    target.check(path.read_bytes())
    print("nothing is wrong with it")
    return 0


if __name__ == "__main__":
    sys.exit(main())
