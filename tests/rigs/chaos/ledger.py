"""What was called, what came of it and what ran, a line each, in files that outlive the processes that write them."""

from __future__ import annotations

import os
import statistics
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

PROMPT = 1.0  # seconds in which a call has to end behind a break


class Lines:
    """A file to which several processes append whole lines, each by one write: none is lost when its writer is killed."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(self, *words: object) -> None:
        os.write(self._descriptor, (" ".join(map(str, words)) + "\n").encode())

    def close(self) -> None:
        os.close(self._descriptor)


@dataclass(slots=True)
class Call:
    """One call. ``key``: who called and its number. ``end``: None for one that has not ended."""

    key: str
    pid: int
    is_safe: bool
    start: float
    end: float | None = None
    outcome: str = ""


@dataclass
class Record:
    """Everything that was written."""

    calls: dict[str, Call] = field(default_factory=dict)
    # How often each call ran, and in which process.
    runs: Counter[tuple[str, int]] = field(default_factory=Counter)

    @classmethod
    def read(cls, *paths: Path) -> Record:
        record = cls()
        for path in paths:
            for line in path.read_text().splitlines():
                record.take(line.split())
        return record

    def take(self, words: Sequence[str]) -> None:
        kind, key, pid = words[0], words[1], int(words[2])
        if kind == "ran":
            self.runs[key, pid] += 1
        elif kind == "called":
            self.calls[key] = Call(key, pid, words[3] == "safe", float(words[4]))
        else:
            call = self.calls[key]
            call.end, call.outcome = float(words[3]), words[4]


@dataclass(frozen=True, slots=True)
class Break:
    """A moment at which something was killed. ``pid``: of what was killed."""

    at: float
    what: str
    pid: int


def complaints(record: Record, breaks: Sequence[Break]) -> list[str]:
    """Return which promises were not kept, a line each."""
    killed = {each.pid for each in breaks}
    runs: Counter[str] = Counter()
    for (key, _), count in record.runs.items():
        runs[key] += count
    found = [f"{key} ran {n} times in process {pid}" for (key, pid), n in record.runs.items() if n > 1]
    for call in record.calls.values():
        if call.end is None:
            found += [] if call.pid in killed else [f"{call.key} never ended"]
        else:
            found += _complaints_of(call, runs[call.key], breaks)
    return found


def _complaints_of(call: Call, runs: int, breaks: Sequence[Break]) -> list[str]:
    found = []
    if call.outcome == "ok" and not runs:
        found.append(f"{call.key} was answered and never ran")
    if call.outcome not in ("ok", "gone", "unsent", "nobody"):
        found.append(f"{call.key} ended as {call.outcome}")
    if call.outcome in ("unsent", "nobody") and runs:
        found.append(f"{call.key} was said never to have left, and ran")
    if call.is_safe:
        found += [] if call.outcome == "ok" else [f"{call.key} was lost, though it may be sent again"]
        return found
    if runs > 1:
        found.append(f"{call.key} ran {runs} times, though it may not be sent again")
    late = lateness(call, breaks)
    if late > PROMPT:
        found.append(f"{call.key} ended as {call.outcome} {late:.2f} s behind what ended it")
    return found


def lateness(call: Call, breaks: Sequence[Break]) -> float:
    """Return the seconds from the last break that it has met, or else from its start, to its end."""
    assert call.end is not None
    met = [each.at for each in breaks if call.start < each.at < call.end]
    return call.end - max([call.start, *met])


def now() -> float:
    # Of the system, not of the process: times of several processes are compared.
    return time.clock_gettime(time.CLOCK_MONOTONIC)


def flat(series: Iterable[float]) -> str | None:
    """Return how resident memory grew, in MiB; None when it did not: the last quarter beside the second."""
    values = list(series)
    if len(values) < 8:
        return None
    quarter = len(values) // 4
    before, behind = statistics.median(values[quarter : 2 * quarter]), statistics.median(values[-quarter:])
    return f"{before:.1f} -> {behind:.1f} MiB" if behind > 1.1 * before + 3 else None
