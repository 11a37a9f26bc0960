"""The order in which connman's locks are taken, recorded: two orders for the same two locks are a deadlock in waiting.

A lock that is made by code of connman's is replaced by one that remembers, for each thread, what it holds. Locks are told
apart by the line that makes them, so that no deadlock has to happen: taking A inside B on one day, and B inside A on
another, by other threads and other instances, is enough. Of one line's instances each is told apart, since a lock may be
held inside another one of its kind as long as all do so in one order.

Who does not wait makes no order: `acquire(False)`, and a thread that takes its RLock once more. Who waits with a timeout
makes one, since the other order costs it the whole timeout. Coming back from a condition's wait takes the lock anew.
"""

from __future__ import annotations

import _thread
import contextlib
import itertools
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent import futures
from types import FrameType
from typing import Any

STACK_DEPTH = 12
# Code that makes locks for its caller: whose they are is told by the first frame outside.
GO_BETWEENS = frozenset((threading.__file__, futures._base.__file__, __file__))

# What the interpreter makes; kept here, since `install` puts others in their place.
_make_lock, _make_rlock = threading.Lock, threading.RLock

Node = str | tuple[str, int]


class Holdings(threading.local):
    """What the calling thread holds."""

    def __init__(self) -> None:
        self.locks: list[Any] = []


class LockOrder:
    """Everything that is known about orders: which lock was taken while which was held, and where.

    Threads: any.
    """

    def __init__(self, is_ours: Callable[[str], bool]) -> None:
        self._is_ours = is_ours
        self._serials = itertools.count(1)
        self.holdings = Holdings()
        self.is_installed = False
        self._is_paused = False
        self._make_fresh()
        # Guarded by _lock: _after, _cycles. A look whether an order is known needs no lock.
        self._after: dict[Node, dict[Node, str]] = {}
        self._cycles: list[str] = []
        # In a child the lock may be held by a thread that does not exist there.
        os.register_at_fork(after_in_child=self._make_fresh)

    def _make_fresh(self) -> None:
        self._lock = _thread.allocate_lock()

    # Making locks

    def install(self) -> None:
        """Make the locks of our code, from now on, ones that are recorded."""
        self.is_installed = True
        threading.Lock, threading.RLock = self.make_lock, self.make_rlock  # type: ignore[misc, assignment]

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Record no lock that is made within the block."""
        self._is_paused = True
        try:
            yield
        finally:
            self._is_paused = False

    def make_lock(self) -> Any:
        site = self._site(sys._getframe(1))
        return _make_lock() if site is None else OrderedLock(self, site, next(self._serials))

    def make_rlock(self) -> Any:
        site = self._site(sys._getframe(1))
        return _make_rlock() if site is None else OrderedRLock(self, site, next(self._serials))

    def _site(self, frame: FrameType | None) -> str | None:
        while frame is not None and frame.f_code.co_filename in GO_BETWEENS:
            frame = frame.f_back
        if frame is None or self._is_paused or not self._is_ours(frame.f_code.co_filename):
            return None
        return f"{frame.f_code.co_filename}:{frame.f_lineno}"

    # What locks tell

    def held(self) -> list[OrderedLock | OrderedRLock]:
        """Return what the calling thread holds."""
        return self.holdings.locks

    def taking(self, wanted: OrderedLock | OrderedRLock) -> None:
        """Note that the calling thread waits for `wanted`, holding what it holds."""
        for holding in tuple(self.holdings.locks):
            if holding is wanted:  # a plain lock, a second time: it waits for itself, which is no order
                continue
            first, second = _nodes(holding, wanted)
            if second not in self._after.get(first, ()):
                self._add(first, second)

    def _add(self, first: Node, second: Node) -> None:
        # Without the frames of pytest's, of which there are many.
        frames = [f for f in traceback.extract_stack() if is_telling(f.filename)][-STACK_DEPTH:]
        stack = f"{threading.current_thread().name}:\n{''.join(traceback.format_list(frames))}"
        with self._lock:
            back = self._path(second, first)
            self._after.setdefault(first, {})[second] = stack
            if back is not None:
                self._cycles.append(_told([first, *back], self._after))

    def _path(self, start: Node, end: Node) -> list[Node] | None:
        """Return a way from one lock to another through the orders that are known, both included."""
        ways: list[list[Node]] = [[start]]
        seen = {start}
        for way in ways:  # grows
            if way[-1] == end:
                return way
            fresh = [node for node in self._after.get(way[-1], ()) if node not in seen]
            seen.update(fresh)
            ways += [[*way, node] for node in fresh]
        return None

    def take_cycles(self) -> list[str]:
        """Return what has been found since the last time, each with the stacks of all the orders it is made of."""
        with self._lock:
            found, self._cycles = self._cycles, []
        return found

    @property
    def orders(self) -> int:
        """How many orders are known."""
        return sum(map(len, list(self._after.values())))


def is_telling(filename: str) -> bool:
    return filename not in GO_BETWEENS and "site-packages" not in filename


def _nodes(holding: OrderedLock | OrderedRLock, wanted: OrderedLock | OrderedRLock) -> tuple[Node, Node]:
    if holding.site != wanted.site:
        return holding.site, wanted.site
    return (holding.site, holding.serial), (wanted.site, wanted.serial)


def _name(node: Node) -> str:
    return node if isinstance(node, str) else f"{node[0]} (instance {node[1]})"


def _told(cycle: list[Node], after: dict[Node, dict[Node, str]]) -> str:
    parts = ["locks are taken in more than one order:"]
    for first, second in itertools.pairwise(cycle):
        parts.append(f"holding the lock made at {_name(first)}")
        parts.append(f"  took the one made at {_name(second)}, in thread {after[first][second]}")
    return "\n".join(parts)


class OrderedLock:
    """What `threading.Lock` makes, telling a recorder."""

    def __init__(self, order: LockOrder, site: str, serial: int) -> None:
        self.site = site
        self.serial = serial
        self._order = order
        self._holdings = order.holdings
        self._real = _make_lock()
        self._holder: list[Any] | None = None

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        held = self._holdings.locks
        if blocking and held:
            self._order.taking(self)
        if not self._real.acquire(blocking, timeout):
            return False
        held.append(self)
        self._holder = held
        return True

    def release(self) -> None:
        # Perhaps by another thread than the one that took it; before the real one, after which others may take it.
        holder, self._holder = self._holder, None
        if holder is not None:
            holder.remove(self)
        self._real.release()

    def locked(self) -> bool:
        return self._real.locked()

    __enter__ = acquire

    def __exit__(self, *exc_info: object) -> None:
        self.release()

    def _at_fork_reinit(self) -> None:
        self._real = _make_lock()
        holder, self._holder = self._holder, None
        if holder is not None:
            holder.remove(self)


class OrderedRLock:
    """What `threading.RLock` makes, telling a recorder. With all that a condition asks of one."""

    def __init__(self, order: LockOrder, site: str, serial: int) -> None:
        self.site = site
        self.serial = serial
        self._order = order
        self._holdings = order.holdings
        self._real: Any = _make_rlock()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        if self._real._is_owned():
            return bool(self._real.acquire(blocking, timeout))
        held = self._holdings.locks
        if blocking and held:
            self._order.taking(self)
        if not self._real.acquire(blocking, timeout):
            return False
        held.append(self)
        return True

    def release(self) -> None:
        self._real.release()
        if not self._real._is_owned():
            self._holdings.locks.remove(self)

    __enter__ = acquire

    def __exit__(self, *exc_info: object) -> None:
        self.release()

    def _is_owned(self) -> bool:
        return bool(self._real._is_owned())

    def _release_save(self) -> Any:
        state = self._real._release_save()
        self._holdings.locks.remove(self)
        return state

    def _acquire_restore(self, state: Any) -> None:
        self._order.taking(self)
        self._real._acquire_restore(state)
        self._holdings.locks.append(self)

    def _at_fork_reinit(self) -> None:
        held = self._holdings.locks
        if self._real._is_owned():
            held.remove(self)
        self._real = _make_rlock()
