"""How calls are measured, the same for every client: one at a time, from many threads, or so many under way at once."""

from __future__ import annotations

import collections
import resource
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from bench.clients.meter import PATIENCE, Result

WARM_UP = 200
Add = Callable[[int, int], int]
"""A blocking call: adds two numbers on the other side."""
Begin = Callable[[int, int], Callable[[], int]]
"""Sends the call and returns what waits for its answer."""


def one_by_one(add: Add, count: int) -> Result:
    """Measure calls a second when each waits for the one before, and how long the middle one and the slow ones took."""
    times: list[float] = []

    def run() -> None:
        now, took = time.perf_counter, times.append
        before = now()
        for number in range(count):
            if add(number, 1) != number + 1:
                raise AssertionError("a wrong answer")
            after = now()
            took(after - before)
            before = after

    result = _timed(add, count, run)
    parts = statistics.quantiles(times, n=100)
    return {**result, "p50": parts[49] * 1e6, "p99": parts[98] * 1e6}


def from_threads(add: Add, count: int, threads: int) -> Result:
    """Measure calls a second of so many threads, each of which calls one by one over the same connection."""
    share = count // threads

    def run() -> None:
        with ThreadPoolExecutor(threads) as pool:
            for work in [pool.submit(_repeat, add, share) for _ in range(threads)]:
                work.result(PATIENCE)

    return _timed(add, share * threads, run)


def in_flight(add: Add, begin: Begin, count: int, window: int) -> Result:
    """Measure calls a second of one thread that has so many under way, which waits for the oldest and then sends another."""

    def run() -> None:
        waiting: collections.deque[tuple[int, Callable[[], int]]] = collections.deque()
        for number in range(count):
            if len(waiting) == window:
                _check(*waiting.popleft())
            waiting.append((number, begin(number, 1)))
        while waiting:
            _check(*waiting.popleft())

    return _timed(add, count, run)


def _repeat(add: Add, count: int) -> None:
    for number in range(count):
        if add(number, 1) != number + 1:
            raise AssertionError("a wrong answer")


def _check(number: int, wait: Callable[[], int]) -> None:
    if wait() != number + 1:
        raise AssertionError("a wrong answer")


def _timed(add: Add, count: int, run: Callable[[], Any]) -> Result:
    _repeat(add, WARM_UP)
    cpu, begin = _cpu(), time.perf_counter()
    run()
    seconds = time.perf_counter() - begin
    return {"value": count / seconds, "cpu_of_caller": (_cpu() - cpu) / count * 1e6}


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
