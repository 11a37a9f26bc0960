"""Where what listeners are to be told waits: they run one at a time, in order, on whichever thread finds nobody there."""

from __future__ import annotations

import contextlib
import logging
import math
import threading
from collections import deque
from collections.abc import Callable, Iterable

from connman.clock import Clock, Signal
from connman.connection import fork
from connman.threads import is_kill, is_own, spawn

logger = logging.getLogger("connman.pusher")

MOST = 1024
"""What may wait for a listener that does not return, before whoever reads the network waits for it as well."""

Call = Callable[[], object]
Tell = Callable[[], Iterable[Call]]
"""Returns the calls to make, asked when their turn has come: who has unbound a listener meanwhile is not called."""


class Mailbox:
    """Tell listeners one at a time in the order of what is posted. Whoever drains it tells what waits, unless somebody does.

    Nearly always that is the connection's reader, which posts and drains at once. Only what a timer or a user's thread
    causes runs elsewhere, and then never beside the reader's: what it posts meanwhile is run by who is at it.

    Threads: every method from any thread, calls included.
    """

    def __init__(self, name: str, clock: Clock) -> None:
        self._name = name
        self._clock = clock
        self._fresh()
        fork.register(self)

    def _fresh(self) -> None:
        self._lock = threading.RLock()
        self._changed = Signal(self._lock)
        # Guarded by _lock: _waiting (with the thread that posted it), _runner (the thread that runs calls now).
        self._waiting: deque[tuple[int, Tell]] = deque()
        self._runner: int | None = None

    def post(self, tell: Tell) -> None:
        """Have the calls of ``tell`` made by the next `drain`, or by the one that is under way. Never blocks."""
        with self._lock:
            self._waiting.append((threading.get_ident(), tell))

    def wait_room(self, is_over: Callable[[], bool]) -> None:
        """Wait without a limit, which is the backpressure, while too much waits for another thread.

        ``is_over``: looked at before each wait; whoever changes what it says calls `wake`.
        """
        me = threading.get_ident()
        with self._lock:
            while len(self._waiting) >= MOST and self._runner not in (None, me) and not is_over():
                self._clock.wait(self._changed.condition, None)

    def wake(self) -> None:
        """Have a blocked `wait_room` look again."""
        with self._lock:
            self._changed.notify_all()

    def drain(self) -> None:
        """Run what waits, unless another thread is at it, or this one is: a call that drains is not interrupted.

        A thread of the user's runs what waits now and what it posts itself; the rest is run by one of connman's.
        """
        me = threading.get_ident()
        with self._lock:
            if self._runner == me:
                return
            # Otherwise a busy connection would keep whoever disconnects, or connects again, for as long as it is busy.
            left = math.inf if is_own() else len(self._waiting)
        try:
            while (tell := self._take(me, left > 0)) is not None:
                left -= 1
                for call in tell():
                    _guarded(call)
        except BaseException:  # user code: Ctrl-C in a user's thread, or a greenlet that is killed
            self._release(me)
            self.drain_apart()
            raise
        if left <= 0:
            self.drain_apart()

    def drain_apart(self) -> None:
        """Have what waits run on a thread of its own, for callers that may not block; nothing when none waits.

        At the interpreter's end there is no thread to be had, and nobody to be told.
        """
        with self._lock:
            is_idle = self._runner is None and bool(self._waiting)
        if is_idle:
            with contextlib.suppress(RuntimeError):
                spawn(f"pusher-{self._name}", self.drain)

    def _take(self, me: int, is_any: bool) -> Tell | None:
        """Take what is next and be the runner; None when none waits (of this thread's, unless any will do), or another is."""
        with self._lock:
            if self._runner not in (None, me):
                return None
            is_there = bool(self._waiting) and (is_any or self._waiting[0][0] == me)
            # Left under the lock under which it is seen to be empty: who posts later finds no runner, and drains.
            self._runner = me if is_there else None
            self._changed.notify_all()
            return self._waiting.popleft()[1] if is_there else None

    def _release(self, me: int) -> None:
        with self._lock:
            if self._runner == me:
                self._runner = None
            self._changed.notify_all()

    def wait_idle(self, within: float) -> bool:
        """Wait up to ``within`` real seconds until nothing waits and nothing runs, or this thread runs it.

        Threads: any but connman's own.
        """
        me = threading.get_ident()
        with self._lock:
            return self._changed.condition.wait_for(
                lambda: self._runner == me or not (self._runner or self._waiting), within
            )

    def after_fork(self) -> None:
        """Be empty in a child process: what waits is the parent's.

        Threads: the first one of the child that uses connman.
        """
        self._fresh()


def _guarded(call: Call) -> None:
    try:
        call()
    except BaseException as error:  # user callback: it must not end the connection
        # On a user's own thread a Ctrl-C is the user's.
        if is_kill(error) or not (is_own() or isinstance(error, Exception)):
            raise
        logger.exception("a listener raised")
