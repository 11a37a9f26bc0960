"""The suite again and again, in random order, on an interpreter that switches threads all the time: no test may fail.

A test that fails in one round of many shows a race, of connman's until it is proven to be the test's own.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent.parent
STRICT = ("-X", "dev", "-W", "error")
# For a child that was told to show the stacks of its threads and to end.
GRACE = 30.0
USAGE = "scripts/stress [--times N] [--seed S] [--jobs N] [--bound SECONDS] [PYTEST ARGUMENT...]"


@dataclass
class Round:
    """One run of the tests and what came of it."""

    seed: int
    log: Path
    seconds: float = 0.0
    counts: dict[str, int] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {what}" for what, count in sorted(self.counts.items())) or "nothing ran"
        return f"seed {self.seed}: {counts}, {len(self.failed)} failed, {self.seconds:.0f} s"


def command(seed: int, report: Path, jobs: int, arguments: Sequence[str]) -> list[str]:
    """Return what runs one round."""
    python = [sys.executable, *STRICT]
    spread = ["--tx", f"{jobs}*popen//python={shlex.join(python)}", "--dist", "worksteal"] if jobs > 1 else []
    ours = [f"--stress-seed={seed}", f"--stress-report={report}", f"--hypothesis-seed={seed}"]
    return [*python, "-m", "pytest", "-p", "tests.rigs.stress.plugin", *ours, *spread, *arguments]


def run_round(seed: int, folder: Path, options: argparse.Namespace, arguments: Sequence[str]) -> Round:
    """Run the tests once. What hangs shows the stacks of its threads and is ended."""
    report = folder / f"{seed}.json"
    this = Round(seed, folder / f"{seed}.log")
    with this.log.open("wb") as log:
        child = subprocess.Popen(
            command(seed, report, options.jobs, arguments), cwd=ROOT, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            code = ended(child, options.bound)
        finally:
            child.kill()
            child.wait()
    if report.exists():
        found: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
        this.seconds, this.counts, this.failed = found["seconds"], found["counts"], found["failed"]
    if code != 0 and not this.failed:
        this.failed = {"the run itself": "hung" if code is None else f"exit status {code}"}
    return this


def ended(child: subprocess.Popen[bytes], bound: float) -> int | None:
    """Wait for the child and return its exit status; None when it had to be ended."""
    try:
        return child.wait(bound)
    except subprocess.TimeoutExpired:
        # faulthandler writes the stacks of all threads into the log.
        child.send_signal(signal.SIGABRT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(GRACE)
        return None


def tell(rounds: Sequence[Round], arguments: Sequence[str]) -> None:
    """Print every failure with what repeats it."""
    for each in rounds:
        for test, why in each.failed.items():
            print(f"\nFLAKE {test}\n  {why}\n  log: {each.log}")
            again = ["--times", "1", "--seed", str(each.seed), *arguments]
            print(f"  again: scripts/stress {shlex.join(again)}")


def failures_of(log: Path) -> str:
    """Return the part of a log that tells about failures, or its end."""
    text = log.read_text(encoding="utf-8", errors="replace")
    start = re.search(r"^=+ (ERRORS|FAILURES) =+$", text, re.MULTILINE)
    return text[start.start() :] if start else text[-10_000:]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/stress", description=__doc__, usage=USAGE, allow_abbrev=False
    )
    parser.add_argument("--times", type=int, default=20, help="rounds to run (default: 20)")
    parser.add_argument("--seed", type=int, help="seed of the first round; each further one has the next")
    parser.add_argument("--jobs", type=int, default=1, help="processes a round (default: 1)")
    parser.add_argument("--bound", type=float, default=3600, help="seconds a round may take (default: 3600)")
    options, arguments = parser.parse_known_args(argv)
    # Not ignored by what the tests start, as it is by what a shell has put into the background.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    first = random.randrange(2**31) if options.seed is None else options.seed
    print(f"seed {first}, {options.times} rounds of: pytest {shlex.join(arguments)}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="connman-stress-"))
    rounds = []
    for number in range(options.times):
        this = run_round(first + number, folder, options, arguments)
        rounds.append(this)
        print(f"round {number + 1} of {options.times}, {this}", flush=True)
        if this.failed:
            print(failures_of(this.log), flush=True)
    bad = [each for each in rounds if each.failed]
    tell(bad, arguments)
    print(f"\n{len(rounds)} rounds, {len(bad)} of them with failures")
    if not bad:
        shutil.rmtree(folder)
    return 1 if bad else 0


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit(130)
