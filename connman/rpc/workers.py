"""Threads that come when there is work and go when there is none: as few as do, as many as it takes."""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable

from connman.connection import fork
from connman.threads import is_kill, latch, spawn

logger = logging.getLogger("connman.rpc")

IDLE = 10.0
"""Seconds after which a thread that has nothing to do ends."""

Job = Callable[[], object]


class _Worker:
    """One thread, as the others see it: the lock it waits at while it has nothing to do."""

    __slots__ = ("has_begun", "is_let_go", "is_started", "wake")

    def __init__(self) -> None:
        self.is_started = self.has_begun = False
        self.is_let_go = False
        self.wake = latch()


class Workers:
    """Run jobs on at most ``most`` threads, in the order they came in; at most ``room`` of them wait for a thread.

    A thread that is awake takes one job after another, so many short ones cost no wake-up each. Another one is woken
    whenever something waits and none is on its way: it gets its turn when the first one blocks or computes for long.
    So a slow job delays no other one, as long as there are threads.

    Threads: every method from any thread; none blocks.
    """

    def __init__(self, name: str, most: int, room: int) -> None:
        self._name = name
        self._most = most
        self._room = room
        self._fresh()
        fork.register(self)

    def _fresh(self) -> None:
        self._lock = threading.RLock()
        # Guarded by _lock: everything below. The thread that was idle last is woken first: its memory is still warm.
        self._jobs: deque[Job] = deque()
        self._ends: dict[Job, None] = {}
        self._idle: list[_Worker] = []
        self._count = 0
        self._called: _Worker | None = None  # who is on the way, and has no job yet
        self._is_resting = False

    def submit(self, job: Job, *, is_new: bool = True) -> bool:
        """Have ``job()`` run soon; False when there is neither a thread for it nor room to wait.

        One that is not new had its place before, and needs no room.
        """
        try:
            with self._lock:
                # Who is on the way has no job yet.
                free = len(self._idle) + self._most - self._count + (self._called is not None)
                if is_new and len(self._jobs) >= self._room + free:
                    return False
                self._jobs.append(job)
                worker = self._call_locked()
            return worker is None or self._send_out(worker)
        except BaseException:  # user code (a signal handler) raised: nobody may wait for who does not come
            self._mend()
            raise

    def _mend(self) -> None:
        with self._lock:
            worker = self._called
            if worker is None:
                return
            if worker.has_begun:
                if worker.wake.locked():
                    worker.wake.release()
                return
            worker.is_let_go = True
            self._called = None
            self._count -= 1

    @property
    def idle(self) -> int:
        """How many threads have nothing to do."""
        return len(self._idle)

    @property
    def has_jobs(self) -> bool:
        """Whether jobs wait for a thread."""
        return bool(self._jobs)

    @property
    def has_spare(self) -> bool:
        """Whether nothing waits and another thread is there, or would be, for what comes."""
        return not (self._jobs or self._ends) and (bool(self._idle) or self._count < self._most)

    def run_last(self, end: Job) -> None:
        """Have ``end()`` called behind the jobs that wait, or by another thread if one of them takes long.

        For what several jobs have in common, such as sending their answers: it is called once for all who ask meanwhile.

        Threads: a job.
        """
        with self._lock:
            self._ends[end] = None

    def _call_locked(self) -> _Worker | None:
        """Return whom to send out for what waits; None when somebody is on the way, or there is nobody left."""
        if self._called is not None or not (self._idle or self._count < self._most):
            return None
        if self._idle:
            self._called = self._idle.pop()
        else:
            self._called = _Worker()
            self._count += 1
        return self._called

    def _send_out(self, worker: _Worker) -> bool:
        """Wake ``worker``, or start it; False when no thread is granted and there is no other one to do its jobs."""
        if worker.is_started:
            worker.wake.release()
            return True
        worker.is_started = True
        try:
            spawn(f"worker-{self._name}", lambda: self._loop(worker))
        except RuntimeError:
            with self._lock:
                self._called = None
                self._count -= 1
                if not self._count:
                    self._jobs.clear()
                return self._count > 0
        return True

    def _loop(self, worker: _Worker) -> None:
        with self._lock:
            if worker.is_let_go:
                return
            worker.has_begun = True
        try:
            self._work(worker)
        except BaseException as killed:  # top of a thread: what waits is for another one
            with self._lock:
                self._count -= 1
                if self._called is worker:
                    self._called = None
                other = self._call_locked() if self._jobs or self._ends else None
            if other is not None:
                self._send_out(other)
            if not is_kill(killed):
                raise

    def _work(self, worker: _Worker) -> None:
        is_out, pid = True, os.getpid()
        while (
            os.getpid() == pid
        ):  # a job that forks comes back in the child as well, where this is nobody's thread
            other = None
            with self._lock:
                if is_out:
                    is_out = False
                    if self._called is worker:
                        self._called = None
                    elif worker in self._idle:  # woken once more by `_mend`
                        self._idle.remove(worker)
                    # It was called because somebody is busy: what that one has left to the end must not wait for him.
                    job = self._next_end_locked() or self._next_job_locked()
                else:
                    job = self._next_job_locked() or self._next_end_locked()
                if job is None:
                    if self._is_resting:
                        self._count -= 1
                        return
                    self._idle.append(worker)
                elif self._jobs or self._ends:
                    other = self._call_locked()
            if other is not None:
                self._send_out(other)
            if job is not None:
                self._run(job)
            elif not self._wait(worker):
                return
            else:
                is_out = True
            del job

    def _next_job_locked(self) -> Job | None:
        return self._jobs.popleft() if self._jobs else None

    def _next_end_locked(self) -> Job | None:
        if not self._ends:
            return None
        end = next(iter(self._ends))
        del self._ends[end]
        return end

    def _wait(self, worker: _Worker) -> bool:
        """Wait to be sent out; False when nobody has for long, or everybody was let go: the thread has to end."""
        if worker.wake.acquire(timeout=IDLE):
            return not worker.is_let_go
        with self._lock:
            if worker in self._idle:
                self._idle.remove(worker)
                self._count -= 1
                return False
        # It was called just now, and is woken in a moment.
        worker.wake.acquire()
        return not worker.is_let_go

    def _run(self, job: Job) -> None:
        try:
            job()
        except BaseException as error:  # top of a thread: one job's failure must not stop the others
            if is_kill(error):
                raise
            logger.exception("a job of %s failed", self._name)

    def resume(self) -> None:
        """Let threads wait for jobs again."""
        with self._lock:
            self._is_resting = False

    def rest(self) -> None:
        """Let every thread end as soon as it has nothing to do; jobs still get one, until `resume` for each of them."""
        with self._lock:
            self._is_resting = True
            idle, self._idle = self._idle, []
            self._count -= len(idle)
        for worker in idle:
            worker.is_let_go = True
            worker.wake.release()

    def after_fork(self) -> None:
        """Have nothing to do in a child process: jobs and threads are the parent's.

        Threads: the first one of the child that uses connman.
        """
        self._fresh()
