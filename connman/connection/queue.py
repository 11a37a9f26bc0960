"""A bounded queue between a reader and whoever takes what it read: while it is full, the reader does not read."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from connman.clock import Clock, Deadline, Signal
from connman.errors import WaitTimeout

_T = TypeVar("_T")

MAX_ITEMS = 1024


class BoundedQueue(Generic[_T]):
    """First in, first out; full while `MAX_ITEMS` items, or ``max_size`` by the measure of ``size_of``, wait.

    What one read brings is taken whole; whoever reads waits for room before reading on. So it holds at most the
    bound and what one read brings.

    Threads: every method from any thread.
    """

    __slots__ = (
        "_clock", "_is_bounded", "_is_closed", "_items", "_lock", "_max_size", "_not_empty", "_not_full",
        "_on_room", "_sink", "_size", "_size_of",
    )  # fmt: skip

    def __init__(self, clock: Clock, max_size: int, size_of: Callable[[_T], int]) -> None:
        self._clock = clock
        self._max_size = max_size
        self._size_of = size_of
        # Entered itself, not through a condition, whose own `with` is Python code: a Ctrl-C there would leave it locked.
        self._lock = threading.RLock()
        # Two, because every item that comes in would wake a reader that waits for one to go out.
        self._not_empty = Signal(self._lock)
        self._not_full = Signal(self._lock)
        # Guarded by _lock: _items, _size, _is_closed, _is_bounded, _sink.
        # Made for the first item: an empty one takes 760 bytes of a connection that is idle or has an `on_data`.
        self._items: deque[_T] | None = None
        self._size = 0
        self._is_closed = False
        self._is_bounded = True
        self._sink: Callable[[Sequence[_T]], object] | None = None
        self._on_room: Callable[[], None] | None = None

    def on_room(self, callback: Callable[[], None]) -> None:
        """Have ``callback`` called, on the thread that takes, whenever there is room again; it must not block.

        Threads: before the queue is used.
        """
        self._on_room = callback

    def put(self, item: _T) -> None:
        """Append ``item`` once there is room, waiting for it without a limit; once it is closed ``item`` is dropped.

        Threads: any.
        """
        with self._lock:
            self.wait_room(lambda: False)
            self.extend((item,))

    def extend(self, items: Sequence[_T]) -> None:
        """Append ``items`` without waiting, beyond the bound if need be; once it is closed they are dropped.

        Threads: any.
        """
        size = sum(map(self._size_of, items))
        with self._lock:
            sink = self._sink
            if sink is None and not self._is_closed:
                if self._items is None:
                    self._items = deque()
                self._items.extend(items)
                self._size += size
                self._not_empty.notify_all()
        if sink is not None:
            sink(items)

    def divert(self, sink: Callable[[Sequence[_T]], object]) -> list[_T]:
        """Have ``sink`` called with what comes from now on, and return what waits; everyone who waits looks again.

        Threads: any; ``sink`` runs on that of whoever appends.
        """
        with self._lock:
            items, self._items, self._size = list(self._items or ()), None, 0
            self._sink = sink
        self.wake()
        if self._on_room is not None:
            self._on_room()
        return items

    @property
    def has_room(self) -> bool:
        """Whether the bound is not reached, or does not hold any more.

        Threads: any.
        """
        # Two reads without the lock: what is taken meanwhile makes room, and only the reader brings more.
        return not self._is_bounded or (len(self._items or ()) < MAX_ITEMS and self._size < self._max_size)

    def wait_room(self, is_over: Callable[[], bool]) -> bool:
        """Wait without a limit, which is the backpressure, for room; False when ``is_over()`` came first.

        Whoever changes what ``is_over`` tells calls `wake`.

        Threads: any.
        """
        with self._lock:
            while not self.has_room:
                if is_over():
                    return False
                self._clock.wait(self._not_full.condition, None)
            return True

    def get(self, deadline: Deadline, why_no_more: Callable[[], Exception | None]) -> _T:
        """Take the oldest item, waiting for one until ``deadline``.

        Raises: WaitTimeout; what ``why_no_more()`` returns while the queue is empty, unless that is None.
        Threads: any.
        """
        with self._lock:
            if not self._items:
                self._wait_for_item(deadline, why_no_more)
            assert self._items is not None
            had_room = self.has_room
            item = self._items.popleft()
            self._size -= self._size_of(item)
            if had_room or not self.has_room:
                return item
            self._not_full.notify_all()
        # Outside the lock: whoever is told may look into this queue.
        if self._on_room is not None:
            self._on_room()
        return item

    def _wait_for_item(self, deadline: Deadline, why_no_more: Callable[[], Exception | None]) -> None:
        while not self._items:
            error = why_no_more()
            if error is not None:
                raise error
            if deadline.expired:
                raise WaitTimeout("no message in time")
            self._clock.wait(self._not_empty.condition, deadline.remaining())

    def wake(self) -> None:
        """Have everyone who waits look again.

        Threads: any.
        """
        with self._lock:
            self._not_empty.notify_all()
            self._not_full.notify_all()

    def lift_bound(self) -> None:
        """Let the reader never wait again: only a last few items follow.

        Threads: any.
        """
        with self._lock:
            self._is_bounded = False
            self._not_full.notify_all()

    def close(self) -> None:
        """Forget what is queued and take no more; everyone who waits wakes up. Idempotent.

        Threads: any.
        """
        with self._lock:
            self._is_closed = True
            self._items = None
            self._size = 0
            self._not_empty.notify_all()
            self._not_full.notify_all()
