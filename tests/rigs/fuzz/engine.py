"""Run a target's cases: each is made from the seed and its number alone, timed, and kept when it is a finding."""

import gc
import logging
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from types import FrameType
from typing import Any

from tests.rigs.fuzz.mutation import mutated, smaller
from tests.rigs.fuzz.target import Target

LONGEST = 1.0  # seconds of CPU for one case: what others do on the machine meanwhile is not the case's
_MOST_FINDINGS = 5  # of one run; one cause mostly has many
_WARM = 2000  # cases: until then caches fill, and a run that has less is not judged by its memory
_MOST_BLOCKS = 5000  # of memory, that may be added after a tenth of the cases
_MOST_PEAK = 64 * 1024  # KiB, the same


class TookTooLong(BaseException):
    """A case that was stopped."""


@dataclass
class Found:
    """One finding: the case, its number (-1 for one of the corpus), and what was raised."""

    number: int
    case: bytes
    error: str


@dataclass
class Outcome:
    """What came of some cases of one target."""

    cases: int = 0
    seconds: float = 0.0
    longest: float = 0.0
    longest_case: bytes = b""
    findings: list[Found] = field(default_factory=list)

    def add(self, other: "Outcome") -> None:
        self.cases += other.cases
        self.seconds = max(self.seconds, other.seconds)
        if other.longest > self.longest:
            self.longest, self.longest_case = other.longest, other.longest_case
        self.findings += other.findings


class Cases:
    """The cases of a target, by number."""

    def __init__(self, target: Target, seed: int, *, use_corpus: bool = True) -> None:
        self._target = target
        self._seed = seed
        self._kept = target.seeds() if use_corpus else []
        self._random = Random()

    def __getitem__(self, number: int) -> bytes:
        random, target = self._random, self._target
        random.seed(self._seed << 32 | number)
        roll = random.random()
        if roll < 0.4:
            return target.make(random)
        base = target.make(random) if roll < 0.7 or not self._kept else random.choice(self._kept)
        return mutated(random, base, target.tokens, self._kept)


def run(
    target: Target,
    numbers: range,
    seed: int,
    tell: Callable[[int], Any] = lambda number: None,
    *,
    use_corpus: bool = True,
) -> Outcome:
    """Run the corpus and then the cases of these numbers; ``tell`` hears of each before it begins.

    Without ``use_corpus`` there is none to begin with, nor to mutate.

    Threads: the main one of a process.
    """
    cases, outcome = Cases(target, seed, use_corpus=use_corpus), Outcome()
    clock, began = time.thread_time, time.perf_counter()
    before, silenced = signal.signal(signal.SIGPROF, _stop), logging.root.manager.disable
    logging.disable()  # what a login raises is logged with its traceback
    try:
        for case in target.seeds() if use_corpus else ():
            _run_one(target, -1, case, outcome)
        warm = numbers.start + max(len(numbers) // 10, _WARM) * numbers.step
        memory = None
        for number in numbers:
            if number >= warm and memory is None:
                memory = _memory()
            tell(number)
            case = cases[number]
            start = clock()
            error = _error_of(target, case)
            took = clock() - start
            outcome.cases += 1
            if took > outcome.longest:
                outcome.longest, outcome.longest_case = took, case
            if error or took > LONGEST:
                outcome.findings.append(Found(number, case, error or f"it took {took:.1f} s of CPU"))
                if len(outcome.findings) >= _MOST_FINDINGS:
                    break
        if memory is not None and not outcome.findings:
            _judge_memory(memory, outcome)
    finally:
        signal.signal(signal.SIGPROF, before)
        logging.disable(silenced)
    outcome.seconds = time.perf_counter() - began
    return outcome


def _run_one(target: Target, number: int, case: bytes, outcome: Outcome) -> None:
    if error := _error_of(target, case):
        outcome.findings.append(Found(number, case, error))


def _error_of(target: Target, case: bytes) -> str:
    """Return what is wrong with how ``case`` went, nothing if nothing is."""
    signal.setitimer(signal.ITIMER_PROF, 2 * LONGEST)
    try:
        target.check(case)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # noqa: BLE001  whatever comes out is what we are looking for
        return traceback.format_exc(limit=-6)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return ""


def _stop(number: int, frame: FrameType | None) -> None:
    raise TookTooLong(f"more than {2 * LONGEST:g} s of CPU")


def _memory() -> tuple[int, int]:
    gc.collect()
    return sys.getallocatedblocks(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _judge_memory(before: tuple[int, int], outcome: Outcome) -> None:
    blocks, peak = (after - then for after, then in zip(_memory(), before, strict=True))
    if blocks > _MOST_BLOCKS or peak > _MOST_PEAK:
        outcome.findings.append(Found(-1, b"", f"memory grew by {blocks} blocks, its peak by {peak} KiB"))


def reduced(target: Target, found: Found) -> bytes:
    """Return a small case that ends in the same kind of error."""
    kind = _last_line(found.error)[:40]
    if found.number < 0 or "CPU" in found.error:
        return found.case
    before = signal.signal(signal.SIGPROF, _stop)
    try:
        return smaller(found.case, lambda case: _last_line(_error_of(target, case)).startswith(kind))
    finally:
        signal.signal(signal.SIGPROF, before)


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line and not line.startswith(" ")]
    return lines[-1] if lines else "\0"
