"""Waiting for a condition, with a bound that only a failing test reaches."""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self, TypeVar

T = TypeVar("T")


def eventually(
    predicate: Callable[[], T],
    timeout: float = 10.0,
    message: str | Callable[[], str] = "the condition to hold",
) -> T:
    """Wait until `predicate()` is true and return what it returned; `AssertionError` after `timeout` seconds.

    `message` completes "waited 10 s for …"; a callable is asked at the time of the failure.
    """
    deadline = time.monotonic() + timeout
    pause = threading.Event()
    while not (result := predicate()):
        if time.monotonic() >= deadline:
            text = message() if callable(message) else message
            raise AssertionError(f"waited {timeout:g} s for {text}")
        pause.wait(0.005)
    return result


class Stalls:
    """How many seconds the machine has kept this process from running, as a thread sees it that wants to run all the time.

    For a bound that is about connman and not about who else is on the machine. What holds the interpreter for less than
    `STEP` at a time, as busy threads of ours do, does not count. Complete when the `with` block is left, or by `so_far()`.
    """

    STEP = 0.05
    NAME = "stalls"

    def __init__(self) -> None:
        self.seconds = 0.0
        self._looks = 0
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name=self.NAME)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._is_over.set()
        self._thread.join()

    def so_far(self) -> float:
        """Return the seconds with a stall that has just ended."""
        looks = self._looks
        eventually(lambda: self._looks > looks)
        return self.seconds

    def _watch(self) -> None:
        pause = self.STEP / 5
        is_over, before = False, time.monotonic()
        while not is_over:
            is_over, now = self._is_over.wait(pause), time.monotonic()
            late = now - before - pause
            if late > self.STEP:
                self.seconds += late
            before = now
            self._looks += 1


def waited_for_a_processor(pid: int) -> float:
    """Return the seconds for which the main thread of that process had work and no processor so far (0: unknown)."""
    return _waited(Path(f"/proc/{pid}"))


class ProcessorWaits:
    """How many seconds this process's threads have had work and no processor since, added up.

    For a bound on what a few threads do in turn. Neither what has ended counts, nor a watcher of `Stalls`, which nobody
    waits for.
    """

    def __init__(self) -> None:
        self._before = self._so_far()

    @property
    def seconds(self) -> float:
        return sum(waited - self._before.get(thread, 0.0) for thread, waited in self._so_far().items())

    @staticmethod
    def _so_far() -> dict[str, float]:
        watchers = {str(thread.native_id) for thread in threading.enumerate() if thread.name == Stalls.NAME}
        tasks = Path("/proc/self/task")
        found = list(tasks.iterdir()) if tasks.exists() else []
        return {task.name: _waited(task) for task in found if task.name not in watchers}


@contextlib.contextmanager
def precedence(*pids: int) -> Iterator[None]:
    """Have the threads of these processes come before other programs' where the system grants that, as it does to root.

    For a bound on what many threads do in turn: what ended threads have waited for a processor nobody can tell.
    """
    usual = os.getpriority(os.PRIO_PROCESS, 0)
    _prefer(pids, usual - 10)
    try:
        yield
    finally:
        _prefer(pids, usual)  # those that were begun meanwhile as well


def _prefer(pids: tuple[int, ...], priority: int) -> None:
    tasks = [Path(f"/proc/{pid}/task") for pid in pids]
    for task in [task for each in tasks if each.exists() for task in each.iterdir()]:
        with contextlib.suppress(PermissionError, ProcessLookupError):
            os.setpriority(os.PRIO_PROCESS, int(task.name), priority)


def _waited(task: Path) -> float:
    try:
        return int((task / "schedstat").read_text().split()[1]) / 1e9
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
