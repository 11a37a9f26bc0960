"""Several processes for one target, each of which may hang or die: then the case it was at is the finding."""

import multiprocessing
import multiprocessing.connection
import time
from typing import Any

from tests.rigs.fuzz.engine import Cases, Found, Outcome, run
from tests.rigs.fuzz.target import Target

PATIENCE = 60.0  # seconds for one case: one that waits for ever uses no CPU, so only somebody else can tell
_LOOK = 1.0


def run_in_processes(
    target: Target, count: int, seed: int, processes: int, patience: float = PATIENCE
) -> Outcome:
    """Run ``count`` cases of a target in so many processes."""
    began = time.perf_counter()
    workers = [_Worker(target, range(n, count, processes), seed) for n in range(processes)]
    outcome = Outcome()
    for worker in workers:
        outcome.add(worker.outcome(patience))
    outcome.seconds = time.perf_counter() - began
    return outcome


class _Worker:
    def __init__(self, target: Target, numbers: range, seed: int) -> None:
        # fork: a case is made of nothing but its number, and nothing has to be imported again.
        context = multiprocessing.get_context("fork")
        self._target = target
        self._seed = seed
        self._current = context.RawValue("q", -1)
        self._result, theirs = context.Pipe(duplex=False)
        self._process = context.Process(target=_work, args=(target, numbers, seed, self._current, theirs))
        self._process.start()
        theirs.close()

    def outcome(self, patience: float) -> Outcome:
        """Wait for the process to end, or to be stuck; it is gone afterwards."""
        try:
            while True:
                before = self._current.value
                # Of a case: before the first one it is the process that has to begin.
                deadline = time.monotonic() + (patience if before >= 0 else PATIENCE)
                while self._current.value == before:
                    if self._result.poll(_LOOK):
                        found: Outcome = self._result.recv()
                        return found
                    if time.monotonic() > deadline:
                        return self._stuck("it hangs: nothing happened for a minute")
        except EOFError:
            return self._stuck("the process died")
        finally:
            self._process.kill()
            self._process.join()
            self._result.close()

    def _stuck(self, what: str) -> Outcome:
        number = self._current.value
        case = Cases(self._target, self._seed)[number] if number >= 0 else b""
        return Outcome(cases=0, findings=[Found(number, case, what)])


def _work(target: Target, numbers: range, seed: int, current: Any, result: Any) -> None:
    def tell(number: int) -> None:
        current.value = number

    result.send(run(target, numbers, seed, tell))
