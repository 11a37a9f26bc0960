"""Connections opened, used and dropped by the thousand, over bad servers behind bad networks: nothing may grow.

Memory, descriptors, threads and objects are measured at rest after each round; every connection's callbacks, counters
and changes of state are checked against what is allowed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import random
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from connman.clock import SystemClock
from connman.connection.sharing import SharedReaders
from tests.rigs.soak.gauges import Gauges, measure, steady_memory
from tests.rigs.soak.visits import Town, visit, visit_alone

ROOT = Path(__file__).parent.parent.parent.parent
KINDS = ("echo", "rst", "busy", "hole", "liar")
ROUNDS = 20
REST = 5.0  # seconds for timers and closed sockets to be gone after the last connection has ended

_leaked: list[object] = []
# What the rig's own tests plant, to see it found: called once a cycle.
PLANTS: dict[str, Callable[[], object]] = {
    "descriptor": lambda: _leaked.append(os.dup(0)),
    "memory": lambda: _leaked.append(bytes(20_000)),
    "objects": lambda: _leaked.append([[]]),
    "thread": lambda: threading.Thread(target=threading.Event().wait, daemon=True).start(),
}


@contextlib.contextmanager
def servers(seed: int) -> Iterator[dict[str, int]]:
    """Run the servers in a process of their own; yield their ports."""
    command = [sys.executable, "-m", "tests.rigs.soak.servers", "--seed", str(seed)]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())
            process.stdin.close()
            if process.wait(30) != 0:
                raise RuntimeError("a server failed")
        finally:
            process.kill()


class Soak:
    """The cycles, shared out among workers, round by round."""

    def __init__(self, town: Town, seed: int, workers: int, plant: Callable[[], object]) -> None:
        self.gauges = Gauges()
        self.done = 0
        self.failures: list[str] = []
        self._town = town
        self._seed = seed
        self._workers = workers
        self._plant = plant
        self._patience = REST

    def run_round(self, cycles: int) -> None:
        """Do so many cycles, come to rest, and measure."""
        numbers = iter(range(self.done, self.done + cycles))
        lock = threading.Lock()

        def work() -> None:
            while not self.failures:
                with lock:
                    number = next(numbers, None)
                if number is None:
                    return
                self._cycle(number)

        threads = [threading.Thread(target=work, name=f"worker-{n}") for n in range(self._workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.done += cycles
        self._rest()
        visit_alone(self._town)
        self._rest()
        self.gauges.add(measure())

    def _cycle(self, number: int) -> None:
        kind = KINDS[number % len(KINDS)]
        try:
            visit(self._town, kind, random.Random(f"{self._seed} {number}"))
            self._plant()
        except BaseException:  # noqa: BLE001 - whatever it is, it is what the rig is for
            self.failures.append(f"cycle {number} ({kind}): {traceback.format_exc()}")

    def _rest(self) -> None:
        pause = threading.Event()
        deadline = time.monotonic() + self._patience
        while threading.active_count() > self._threads_at_rest():
            if time.monotonic() > deadline:
                self._patience = 0.1  # it leaks: waiting so long each time would not change that
                return
            pause.wait(0.01)

    def _threads_at_rest(self) -> int:
        return int(min(self.gauges.column("threads"), default=1)) if len(self.gauges) else 1


def budget(options: argparse.Namespace) -> Iterator[int]:
    """Yield the cycles of each round until it is enough."""
    if options.hours:
        end = time.monotonic() + options.hours * 3600
        while time.monotonic() < end:
            yield 1000
        return
    share, rest = divmod(options.cycles, ROUNDS)
    yield from (share + (number < rest) for number in range(ROUNDS))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="scripts/soak", description=__doc__)
    parser.add_argument(
        "--cycles",
        type=int,
        default=20_000,
        help="connections in all (default: 20000; below 1000 it does not warm up)",
    )
    parser.add_argument("--hours", type=float, help="for so long instead")
    parser.add_argument("--workers", type=int, default=32, help="threads that use connections (default: 32)")
    parser.add_argument("--seed", type=int, default=random.randrange(2**31))
    parser.add_argument("--plant", choices=PLANTS, help="leak one a cycle on purpose, to see it found")
    options = parser.parse_args(argv)
    logging.getLogger("connman").setLevel(logging.CRITICAL)
    plant = PLANTS.get(options.plant, lambda: None)
    steady_memory()
    print(f"seed {options.seed}", flush=True)
    begin = time.monotonic()
    with servers(options.seed) as ports:
        town = Town(ports, SharedReaders(2, "soak", SystemClock()))
        soak = Soak(town, options.seed, options.workers, plant)
        for cycles in budget(options):
            soak.run_round(cycles)
            print(
                f"{soak.done} cycles, {time.monotonic() - begin:.0f} s: {soak.gauges.summary()}", flush=True
            )
            if soak.failures:
                break
        complaints = [*soak.failures, *soak.gauges.complaints()]
    for complaint in complaints:
        print(f"BROKEN: {complaint}")
    print(f"in all: {town.tally}")
    print("broken" if complaints else f"flat over {soak.done} cycles: {soak.gauges.summary()}")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
