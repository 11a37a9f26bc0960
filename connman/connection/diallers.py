"""Threads that dial for readers who must not wait: few while dials are quick, more while they are slow."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from connman.clock import SystemClock, maybe_call_later
from connman.errors import ConnectError, ConnmanError
from connman.threads import Condition, is_kill, join, spawn
from connman.transport.base import Dial

logger = logging.getLogger("connman.diallers")

# Threads at once while dials are quick, and how many more each `_PATIENCE` seconds in which something still waits: a
# server that takes 10 s to answer holds 200 dials up for 1.2 s, not for minutes.
_FEW = 16
_PATIENCE = 0.1
# A dial that hangs is ended by its own deadline; no more than these hang at once.
_MOST = 512


@dataclass(slots=True, eq=False)
class _Waiting:
    work: Callable[[], None]
    dial: Dial | None
    give_up: Callable[[ConnmanError], None]


class Diallers:
    """Run dials on threads of their own, which end when nothing is left to dial.

    Threads: every method from any thread.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._make_fresh()

    def _make_fresh(self) -> None:
        self._lock = threading.RLock()
        self._changed = Condition(self._lock)
        # Guarded by _lock: everything below.
        self._queue: dict[_Waiting, None] = {}  # in order, and to be taken from in the middle
        self._cancelled: dict[_Waiting, None] = {}  # and not told yet
        self._threads: set[threading.Thread] = set()
        self._limit = _FEW
        self._active = 0
        self._submitted = 0
        self._is_growing = False
        self._busy_times = 0  # that they had something to do, so far

    def submit(self, dial: Dial, work: Callable[[], None], give_up: Callable[[ConnmanError], None]) -> None:
        """Have ``work()`` run on a dialler.

        ``give_up(error)`` is called instead if ``dial`` is aborted while it still waits for one, or if there is no
        thread for it and none will come; twice, should an abort that was interrupted come again.

        Threads: any; never blocks. ``give_up`` runs here or on the thread that aborts, and must not block.
        """
        waiting = _Waiting(work, dial, give_up)
        self._put(waiting)
        try:
            # Behind the queue: an abort that came in between would find nothing there to take out.
            dial.add_abortable(partial(self._cancel, waiting))
        except ConnmanError:
            self._cancel(waiting)
        self._maybe_spawn()

    def run(self, work: Callable[[], None]) -> None:
        """Run something else that must not be waited for, among the dials, or here if no thread is granted.

        Threads: any.
        """
        self._put(_Waiting(work, None, lambda _: work()))
        self._maybe_spawn()

    def _put(self, waiting: _Waiting) -> None:
        with self._lock:
            self._queue[waiting] = None
            self._submitted += 1
            self._changed.notify_all()

    def wait_gone(self, within: float) -> bool:
        """Wait up to ``within`` seconds for all threads to end, or for something more to dial.

        Threads: any but connman's own.
        """
        until = time.monotonic() + within
        with self._lock:
            submitted = self._submitted

            def need_not_wait() -> bool:
                return self._submitted != submitted or not self._active

            if not self._changed.wait_for(need_not_wait, within):
                return False
            threads = list(self._threads) if self._submitted == submitted else []
        for thread in threads:
            join(thread, until - time.monotonic())
        return not any(thread.is_alive() for thread in threads)

    def after_fork(self) -> None:
        """Become fresh in a child process: the threads are the parent's.

        Threads: the first one of the child that uses connman.
        """
        self._make_fresh()

    def _maybe_spawn(self) -> None:
        with self._lock:
            must_spawn = bool(self._queue) and self._active < self._limit
            self._active += must_spawn
            must_grow = bool(self._queue) and not must_spawn and not self._is_growing and self._limit < _MOST
            self._is_growing = self._is_growing or must_grow
            grow = partial(self._grow, self._busy_times)
        if must_spawn:
            self._spawn()
        # The real clock: it is threads of the system that are short.
        if must_grow and maybe_call_later(SystemClock(), _PATIENCE, grow) is None:
            with self._lock:
                self._is_growing = False  # whoever submits next tries again

    def _spawn(self) -> None:
        try:
            spawn(f"dialler-{self._name}", self._loop)
        except RuntimeError as error:
            stranded: list[_Waiting] = []
            with self._lock:
                self._active -= 1
                if not self._active:
                    # Those of others as well, who were content when they saw that a thread was about to start.
                    stranded.extend(self._queue)
                    self._queue.clear()
                    self._changed.notify_all()
            # The system is short of threads, which passes, or the interpreter ends, and the connections with it.
            for waiting in stranded:
                name = "" if waiting.dial is None else waiting.dial.name
                waiting.give_up(ConnectError(name, (), f"no thread to dial: {error}"))

    def _grow(self, busy_times: int) -> None:
        with self._lock:
            if busy_times != self._busy_times:
                return  # late: all that waited then is done
            self._is_growing = False
            missing = min(len(self._queue), _FEW, _MOST - self._limit)
            self._limit += missing
        for _ in range(missing):
            self._maybe_spawn()
        self._maybe_spawn()  # which comes back here as long as something waits

    def _cancel(self, waiting: _Waiting) -> None:
        with self._lock:
            if waiting in self._queue:
                # Noted first, and forgotten last: whatever Ctrl-C leaves undone the next abort does.
                self._cancelled[waiting] = None
                del self._queue[waiting]
            if waiting not in self._cancelled:
                return  # a dialler has it
        assert waiting.dial is not None
        try:
            waiting.dial.check_aborted()
        except ConnmanError as error:
            waiting.give_up(error)
        with self._lock:
            self._queue.pop(waiting, None)
            self._cancelled.pop(waiting, None)

    def _loop(self) -> None:
        pid = os.getpid()
        # By itself, while it counts as active: whoever waits for all to be gone sees it, however late its starter is.
        with self._lock:
            self._threads = {known for known in self._threads if known.is_alive()} | {
                threading.current_thread()
            }
        while (waiting := self._next()) is not None:
            try:
                waiting.work()
            except BaseException as bug:  # top of a thread: what dials says itself why a dial failed
                if is_kill(bug):
                    return self._left()
                logger.exception("a dialler failed")
            if os.getpid() != pid:
                return  # a login has forked: the child's dials are none of this thread's business
            # What it held must not live until the next dial.
            del waiting

    def _left(self) -> None:
        """Have another thread take this one's place, which was killed."""
        with self._lock:
            self._active -= 1
            self._changed.notify_all()
        self._maybe_spawn()

    def _next(self) -> _Waiting | None:
        with self._lock:
            if self._queue and self._active <= self._limit:
                waiting = next(iter(self._queue))
                del self._queue[waiting]
                return waiting
            self._active -= 1
            if not self._active:
                self._limit = _FEW
                self._is_growing = False
                self._busy_times += 1
                self._changed.notify_all()
            return None
