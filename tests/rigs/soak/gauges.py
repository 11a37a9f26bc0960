"""What may not grow: memory, descriptors, threads, objects; measured at rest, and judged."""

from __future__ import annotations

import ctypes
import gc
import os
import threading
from array import array
from collections.abc import Iterable
from pathlib import Path

MIB = 2**20
PAGE = os.sysconf("SC_PAGE_SIZE")
MOST_GROWTH = 1.0  # MiB, of the line through all that was measured
MOST_OBJECTS = 0.001  # of those that were there

M_ARENA_MAX = -8  # of malloc.h

NAMES = ("memory", "descriptors", "threads", "objects")
Sample = tuple[float, int, int, int]


def steady_memory() -> None:
    """Have malloc, where it is glibc's, take everything from one heap; before any thread is started.

    Each thread has one of its own otherwise, and how full these are is chance: several MiB of it.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_ARENA_MAX, 1)


def measure() -> Sample:
    """Return the resident MiB, and how many descriptors, threads and tracked objects there are."""
    for _ in range(2):
        gc.collect()
    # What malloc keeps for later says nothing about what is in use.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * PAGE / MIB
    # Without the one that lists them.
    descriptors = len(os.listdir("/proc/self/fd")) - 1
    return resident, descriptors, threading.active_count(), len(gc.get_objects())


class Gauges:
    """The samples so far, in a form that does not grow much itself."""

    def __init__(self) -> None:
        self._columns = {name: array("d") for name in NAMES}

    def __len__(self) -> int:
        return len(self._columns["memory"])

    def add(self, sample: Sample) -> None:
        for name, value in zip(NAMES, sample, strict=True):
            self._columns[name].append(value)

    def column(self, name: str) -> list[float]:
        """Return what was measured after the warm-up, which is the first third."""
        values = self._columns[name]
        return list(values[len(values) // 3 :])

    def complaints(self) -> list[str]:
        """Return what has grown."""
        growth = rise(self.column("memory"))
        found = [f"memory grew by {growth:.2f} MiB"] if growth >= MOST_GROWTH else []
        for name in ("descriptors", "threads"):
            values = self.column(name)
            if len(set(values)) > 1:
                found.append(
                    f"{name} went from {values[0]:.0f} to {values[-1]:.0f}, at most {max(values):.0f}"
                )
        objects = self.column("objects")
        if abs(objects[-1] - objects[0]) > MOST_OBJECTS * objects[0]:
            found.append(f"objects went from {objects[0]:.0f} to {objects[-1]:.0f}")
        return found

    def summary(self) -> str:
        last = {name: self.column(name)[-1] for name in NAMES}
        first = {name: self.column(name)[0] for name in NAMES}
        return f"memory {rise(self.column('memory')):+.2f} MiB (of {last['memory']:.1f}), " + ", ".join(
            f"{name} {last[name] - first[name]:+.0f} (of {last[name]:.0f})" for name in NAMES[1:]
        )


def rise(values: Iterable[float]) -> float:
    """Return by how much the straight line through the values rises from the first to the last."""
    points = list(enumerate(values))
    if len(points) < 2:
        return 0.0
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points)
    return slope * (len(points) - 1)
