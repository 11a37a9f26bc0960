"""The relay and the honest pair as processes, and what is read off them while they are attacked."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from tests.rigs.relay_hostile.attacks import token
from tests.rigs.relay_hostile.relay import ROOT, relay
from tests.waiting import eventually


@dataclass
class Program:
    """A program that is asked in lines of JSON; it ends when its stdin does."""

    process: "subprocess.Popen[str]"

    def line(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(f"{self.process.args} has ended with {self.process.wait()}")
        return json.loads(line)

    def ask(self) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.line()


@contextmanager
def program(name: str, *words: str) -> Iterator[Program]:
    with subprocess.Popen(
        [sys.executable, "-m", f"tests.rigs.relay_hostile.{name}", *words],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield Program(process)
        finally:
            process.kill() if process.stdin is None else process.stdin.close()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                raise


@dataclass
class Measured:
    """What the honest pair has seen for a while, in seconds."""

    opens: list[float] = field(default_factory=list)
    echoes: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    bystander: float = 0.0

    def complaints(self, bound: float) -> list[str]:
        """Say what was worse than promised: an answer later than `bound`, anything that went wrong, or nothing at all."""
        found = list(self.wrong)
        for what, times in (
            ("an open pair's answer", self.echoes),
            ("opening a pair, to its answer", self.opens),
        ):
            late = [seconds for seconds in times if seconds > bound]
            if late:
                most = f"{max(late) * 1e3:.0f} ms at most, {bound * 1e3:.0f} are allowed"
                found.append(f"{what}: {len(late)} of {len(times)} took {most}")
            if not times:
                found.append(f"{what}: none came")
        return found

    def __str__(self) -> str:
        def row(times: list[float]) -> str:
            return f"{median(times) * 1e3:5.1f} {max(times) * 1e3:6.1f}" if times else "    -      -"

        return f"{len(self.opens):5} {row(self.opens)}  {row(self.echoes)}  {self.bystander * 1e3:6.1f}"


@dataclass
class Gauges:
    """Memory and descriptors of a process."""

    pid: int

    def memory(self) -> float:
        """MiB that are resident now."""
        return self._status("VmRSS:")

    def peak(self) -> float:
        """MiB that were resident at most since `forget_peak`."""
        return self._status("VmHWM:")

    def forget_peak(self) -> None:
        # 5: "reset the peak resident set size", see proc(5).
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def processor(self) -> dict[str, tuple[int, int]]:
        """Nanoseconds that each thread has had a processor so far, and that it has waited for one though it had work."""
        found = {}
        for task in Path(f"/proc/{self.pid}/task").iterdir():
            # It has ended meanwhile: before its file was opened, or before that was read.
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                ran, waited, _ = (task / "schedstat").read_text().split()
                found[task.name] = int(ran), int(waited)
        return found

    def ran_since(self, before: dict[str, tuple[int, int]]) -> tuple[float, float]:
        """Return the seconds that its threads, those of `before` alone, have run and waited since then."""
        now = self.processor()
        pairs = [(now[task], then) for task, then in before.items() if task in now]
        return sum(n[0] - t[0] for n, t in pairs) / 1e9, sum(n[1] - t[1] for n, t in pairs) / 1e9

    def _status(self, name: str) -> float:
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1]) / 1024
        raise AssertionError(f"no {name}")


@dataclass
class Town:
    """All that there is while an attack runs."""

    port: int
    admin: int
    gauges: Gauges
    honest: Program

    def measured(self) -> Measured:
        return Measured(**self.honest.ask())


@contextmanager
def town() -> Iterator[Town]:
    """Start the relay and the honest pair, and wait until that is at work."""
    with relay() as running, program("bystander") as bystander:
        port = str(bystander.line()["port"])
        with program("honest", str(running.port), token(["honest"]), port) as honest:
            built = Town(running.port, running.admin, Gauges(running.pid), honest)
            eventually(lambda: len(built.measured().opens) >= 1, 20.0, "the honest pair to be at work")
            yield built
