"""Answers by the ids of calls that may come twice: what has run is not run again as long as its answer is kept."""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict
from typing import Protocol

from connman.clock import Clock
from connman.rpc.wire import NOT_KEPT

MOST_ANSWERS = 10_000
MOST_BYTES = 16 * 1024 * 1024
MOST_SECONDS = 600.0
MOST_WAITING = 16
"""Of one call that runs: who is told of its answer, the first and the newest others."""
_EACH = 256

Key = tuple[int | str, ...]
"""The service, the id that the caller has given the call, and what tells its arguments from others."""


class Asker(Protocol):
    """Who waits for the answer of a call."""

    def answer(self, tail: str) -> None:
        """Send it; a worker calls this."""


class Answered:
    """The calls of one provider that have ids of their own: who waits for those that run, and what the others answered.

    Kept are at most `MOST_ANSWERS` answers of `MOST_BYTES` together, for at most `MOST_SECONDS` each; the oldest go first.

    Threads: any; no method blocks.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._fresh()

    def _fresh(self) -> None:
        self._lock = threading.RLock()
        # Guarded by _lock: everything below. _kept: oldest first, with the time from which on it may be forgotten.
        self._running: dict[Key, list[Asker]] = {}
        self._kept: OrderedDict[Key, tuple[float, str]] = OrderedDict()
        self._size = 0

    def begin(self, key: Key, asker: Asker) -> tuple[bool, str | None]:
        """Return whether the call has to be run now, and its answer if it has run; with neither ``asker`` is told later.

        Whoever has to run it calls `finish`, or `give_back`.
        """
        with self._lock:
            waiting = self._running.get(key)
            if waiting is not None:
                if len(waiting) == MOST_WAITING:
                    # The first has it run. Of the others the oldest: whoever asks again has lost the way he asked by.
                    del waiting[1]
                waiting.append(asker)
                return False, None
            self._forget_old_locked()
            kept = self._kept.get(key)
            if kept is not None:
                return False, kept[1]
            self._running[key] = [asker]
            return True, None

    def give_back(self, key: Key) -> list[Asker]:
        """Forget a call that was begun and has not run after all; return who waits for it."""
        with self._lock:
            return self._running.pop(key, [])

    def finish(self, key: Key, answer: str | None) -> None:
        """Keep ``answer``, None for one that went out as a stream, and tell everybody who waits for it.

        Threads: a worker.
        """
        is_kept = answer is not None and _size_of(answer) <= MOST_BYTES // 4
        text = answer if answer is not None and is_kept else NOT_KEPT
        with self._lock:
            waiting = self._running.pop(key, [])
            self._kept[key] = (self._clock.now() + MOST_SECONDS, text)
            self._size += _size_of(text)
            self._forget_old_locked()
        # A stream went to the one for whom it has run.
        for asker in waiting[answer is None :]:
            asker.answer(answer or text)

    def _forget_old_locked(self) -> None:
        now = self._clock.now()
        while self._kept:
            until, text = next(iter(self._kept.values()))
            if until > now and len(self._kept) <= MOST_ANSWERS and self._size <= MOST_BYTES:
                return
            self._kept.popitem(last=False)
            self._size -= _size_of(text)

    def __len__(self) -> int:
        return len(self._kept)

    def after_fork(self) -> None:
        """Run nothing in a child process; what was answered before the fork it still knows."""
        kept = self._kept
        self._fresh()
        self._kept = OrderedDict(kept)
        self._size = sum(_size_of(text) for _, text in kept.values())


def _size_of(text: str) -> int:
    # In memory, where a letter takes up to four bytes.
    return sys.getsizeof(text) + _EACH
