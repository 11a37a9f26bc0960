"""A bounded queue between a reader and whoever takes what it read: when it is full, the reader stops reading."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from connman.clock import Clock, Deadline
from connman.errors import WaitTimeout

_T = TypeVar("_T")

MAX_ITEMS = 1024


class BoundedQueue(Generic[_T]):
    """First in, first out, at most `MAX_ITEMS` items and ``max_size`` in all (one item always fits).

    Threads: every method from any thread.
    """

    def __init__(self, clock: Clock, max_size: int) -> None:
        self._clock = clock
        self._max_size = max_size
        # Entered itself, not through the condition, whose own `with` is Python code: a Ctrl-C there would leave it locked.
        self._lock = threading.RLock()
        self._condition = threading.Condition(self._lock)
        # Guarded by _lock: _items, _size, _is_closed, _is_bounded.
        self._items: deque[tuple[_T, int]] = deque()
        self._size = 0
        self._is_closed = False
        self._is_bounded = True

    def put(self, item: _T, size: int) -> bool:
        """Append ``item``, waiting for room without a limit; False, and not appended, once the queue is closed.

        Only `get` and `close` end the wait: it is the backpressure. Threads: any.
        """
        with self._lock:
            while not self._is_closed and self._is_full_locked(size):
                self._clock.wait(self._condition, None)
            if self._is_closed:
                return False
            self._items.append((item, size))
            self._size += size
            self._condition.notify_all()
            return True

    def _is_full_locked(self, size: int) -> bool:
        if not self._is_bounded:
            return False
        return len(self._items) >= MAX_ITEMS or (self._size + size > self._max_size and bool(self._items))

    def get(self, deadline: Deadline, why_no_more: Callable[[], Exception | None]) -> _T:
        """Take the oldest item, waiting for one until ``deadline``.

        Raises: WaitTimeout; what ``why_no_more()`` returns while the queue is empty, unless that is None.
        Threads: any.
        """
        with self._lock:
            error: Exception | None = None

            def is_ready() -> bool:
                nonlocal error
                error = None if self._items else why_no_more()
                return bool(self._items) or error is not None

            if not deadline.wait_for(self._condition, is_ready):
                raise WaitTimeout("no message in time")
            if error is not None:
                raise error
            item, size = self._items.popleft()
            self._size -= size
            self._condition.notify_all()
            return item

    def wake(self) -> None:
        """Have everyone who waits look again.

        Threads: any.
        """
        with self._lock:
            self._condition.notify_all()

    def lift_bound(self) -> None:
        """Have `put` never wait again: only a last few items follow.

        Threads: any.
        """
        with self._lock:
            self._is_bounded = False
            self._condition.notify_all()

    def close(self) -> None:
        """Forget what is queued and take no more; everyone who waits wakes up. Idempotent.

        Threads: any.
        """
        with self._lock:
            self._is_closed = True
            self._items.clear()
            self._size = 0
            self._condition.notify_all()
