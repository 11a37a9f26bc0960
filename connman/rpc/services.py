"""What one process offers: functions under ids, the threads that run them, and the answers that may be asked for again."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

from connman.clock import Clock, SystemClock
from connman.connection import fork
from connman.errors import InvalidOption
from connman.rpc.answered import Answered
from connman.rpc.wire import LARGE, checked_service_id
from connman.rpc.workers import Job, Workers

Service = Callable[..., Any]

MOST_SENDERS = 1000
"""Threads that send streams: one each while what gives the chunks blocks, the others come in between."""
QUICK = 0.0002
"""Seconds: while a service that takes no longer runs, its worker is expected back to read the next request."""
MOST_WAITING = 64 * 1024 * 1024
"""Letters of the large requests that may wait for a thread: smaller ones their number bounds."""


class Services:
    """Functions that the other side may call, and at most ``max_workers`` threads for all peers that share this.

    Streams are sent by threads of their own, at most 1,000 for all of them together.

    ``functions``: ids (a positive int or a text) and what they name. While all threads are busy ``max_waiting`` requests
    wait, large ones of 64 MiB together; what comes beyond is answered at once with an error whose ``code`` is "TOO-BUSY".

    Raises: InvalidOption; ValueError for an id that is none; TypeError for what cannot be called.
    Threads: every method from any thread; functions are called on several threads at once.
    """

    def __init__(
        self,
        functions: Mapping[int | str, Service] | None = None,
        *,
        max_workers: int = 32,
        max_waiting: int = 1024,
        clock: Clock | None = None,
    ) -> None:
        for name, number, least in (("max_workers", max_workers, 1), ("max_waiting", max_waiting, 0)):
            if type(number) is not int or number < least:
                raise InvalidOption(f"{name} is a number from {least}")
        self._functions: dict[int | str, Service] = {}
        # Those that took longer than `QUICK` the last time: single operations of any worker.
        self.slow: set[int | str] = set()
        self.max_workers = max_workers
        self.workers = Workers("services", max_workers, max_waiting)
        # How many streams there are is each session's to bound, and one that has begun is not to be refused any more.
        self.senders = Workers("streams", MOST_SENDERS, sys.maxsize)
        self.answered = Answered(clock or SystemClock())
        self._make_lock()
        # Guarded by _lock: _users (paths that are open), _waiting (letters of large requests).
        self._users = self._waiting = 0
        for key, function in (functions or {}).items():
            self.add(key, function)
        fork.register(self)

    def _make_lock(self) -> None:
        self._lock = threading.RLock()

    def add(self, service: int | str, function: Service) -> None:
        """Offer ``function`` as ``service``, in the place of what was there.

        Raises: ValueError for an id that is neither a positive int nor a text; TypeError for what cannot be called.
        Threads: any.
        """
        if not callable(function):
            raise TypeError(f"a service is a callable, not {type(function).__name__}")
        self._functions[checked_service_id(service)] = function

    def remove(self, service: int | str) -> None:
        """Offer ``service`` no longer; nothing when it is not there. Calls that run go on.

        Threads: any.
        """
        self._functions.pop(service, None)
        self.slow.discard(service)

    def clear(self) -> None:
        """Offer nothing any more.

        Threads: any.
        """
        self._functions = {}
        self.slow.clear()

    def note(self, service: int | str, seconds: float) -> None:
        """Note how long ``service`` took.

        Threads: a worker.
        """
        if seconds > QUICK and service in self._functions:
            self.slow.add(service)
        else:
            self.slow.discard(service)

    def get(self, service: int | str) -> Service | None:
        """Return the function of ``service``, None when there is none.

        Threads: any.
        """
        return self._functions.get(service)

    def submit(self, job: Job, size: int) -> bool:
        """Have ``job()`` run for a request of ``size`` letters; False when too many wait, or too much.

        Threads: any; it does not block.
        """
        if size < LARGE:
            return self.workers.submit(job)
        with self._lock:
            if self._waiting and self._waiting + size > MOST_WAITING:
                return False
            self._waiting += size

        def run() -> None:
            self._count_off(size)
            job()

        is_taken = self.workers.submit(run)
        if not is_taken:
            self._count_off(size)
        return is_taken

    def _count_off(self, size: int) -> None:
        with self._lock:
            self._waiting -= size

    def opened(self) -> None:
        """Count a path over which requests may come.

        Threads: any.
        """
        with self._lock:
            self._users += 1
            self.workers.resume()
            self.senders.resume()

    def ended(self) -> None:
        """Count one path less; without any the idle threads end at once.

        Threads: any.
        """
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self.workers.rest()
                self.senders.rest()

    def after_fork(self) -> None:
        """Run nothing in a child process; what is offered stays.

        Threads: the first one of the child that uses connman.
        """
        self._make_lock()
        self._users = self._waiting = 0
        self.answered.after_fork()
