"""Jobs over many connections, the same for every client that can open many: memory, time to open, CPU a message."""

from __future__ import annotations

import gc
import itertools
import resource
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from bench.clients.meter import PATIENCE, Result

OpenMany = Callable[[str, int, Callable[[object, object], object] | None], object]
"""Of a client: take a URL, how many, and a callback or None; return, once all are open, what keeps them so."""
WARM_UP = 0.5


def idle(open_many: OpenMany, url: str, count: int) -> Result:
    """KiB of resident memory that one more open and silent connection takes."""
    kept: list[object] = [
        open_many(url, 1, None)
    ]  # what the first of all imports and builds is not the next one's
    before = memory()
    kept.append(open_many(url, count, None))
    after = memory()
    result: Result = {name: (after[name] - before[name]) / count for name in after}
    return {"value": result["Rss"], "threads": threading.active_count(), **result}


def memory() -> dict[str, int]:
    """Return KiB of this process: resident, its share of what it shares, and what is its alone."""
    gc.collect()
    sums = {"Rss": 0, "Pss": 0, "Uss": 0}
    with open("/proc/self/smaps_rollup", encoding="ascii") as lines:
        for line in lines:
            name, *words = line.split()
            name = name.rstrip(":")
            if name in sums:
                sums[name] += int(words[0])
            elif name.startswith("Private_") and name != "Private_Hugetlb":
                sums["Uss"] += int(words[0])
    return sums


def opening(open_many: OpenMany, url: str, count: int) -> Result:
    """Seconds until so many connections are open."""
    open_many(url, 1, None)
    begin, cpu = time.perf_counter(), cpu_seconds()
    kept = open_many(url, count, None)
    result: Result = {"value": time.perf_counter() - begin, "cpu": cpu_seconds() - cpu}
    del kept
    return result


def ticks(open_many: OpenMany, url: str, count: int, seconds: int) -> Result:
    """Microseconds of this process's CPU for one message, while the server sends to all in turn."""
    counter = itertools.count()  # its next() is atomic: the callbacks of many threads count with it
    kept = open_many(url, count, lambda connection, data: next(counter))
    time.sleep(WARM_UP)
    begin, cpu, first = time.perf_counter(), cpu_seconds(), next(counter)
    time.sleep(seconds)
    cpu, messages, took = cpu_seconds() - cpu, next(counter) - first - 1, time.perf_counter() - begin
    del kept
    if not messages:
        raise TimeoutError("no message came")
    return {"value": cpu / messages * 1e6, "messages_per_second": messages / took, "cores": cpu / took}


def cpu_seconds() -> float:
    """Return what this process has used so far, in the system's code as well as in its own."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


class Gathering:
    """Counts who is open, so that one may wait for all."""

    def __init__(self, count: int) -> None:
        self._left = itertools.count(count - 1, -1)
        self._all = threading.Event()

    def one_more(self, *_: Any) -> None:
        """Say that one more is open: a callback that takes whatever it is given."""
        if next(self._left) == 0:
            self._all.set()

    def wait(self) -> None:
        """Return when all are open."""
        if not self._all.wait(PATIENCE):
            raise TimeoutError("not all connections opened")


def start_threads(targets: Iterable[Callable[[], object]]) -> None:
    """Start a thread for each, which ends with the process."""
    for target in targets:
        threading.Thread(target=target, daemon=True).start()


JOBS = {"idle": idle, "opening": opening, "ticks": ticks}
