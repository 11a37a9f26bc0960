"""A thread that looks after names while there are any to look after."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable

from connman.clock import Signal
from connman.connection import fork
from connman.threads import is_kill, spawn

logger = logging.getLogger("connman.pusher")


class Worker:
    """Call ``look(name)`` for each name that it is asked for, one at a time, on a thread that lives while there are any.

    A name that is asked for again before its turn is looked after once, so what waits is bounded by the names there are.

    Threads: every method from any thread.
    """

    def __init__(self, name: str, look: Callable[[str], None]) -> None:
        self._name = name
        self._look = look
        self._fresh()
        fork.register(self)

    def _fresh(self) -> None:
        self._lock = threading.RLock()
        self._changed = Signal(self._lock)
        # Guarded by _lock: _names (in order, the values mean nothing), _has_thread.
        self._names: dict[str, None] = {}
        self._has_thread = False

    def ask(self, names: Iterable[str]) -> None:
        """Have ``names`` looked after soon. Never blocks."""
        with self._lock:
            self._names.update(dict.fromkeys(names))
            if self._has_thread or not self._names:
                return
            self._has_thread = True
        try:
            spawn(f"pusher-{self._name}", self._loop)
        except BaseException as error:  # user code (a signal handler), or there is no thread to be had
            with self._lock:
                self._has_thread = False
            # At the interpreter's end nothing is joined any more.
            if not isinstance(error, RuntimeError):
                raise

    def wait_idle(self, within: float) -> bool:
        """Wait up to ``within`` real seconds until no name is left and none is looked after.

        Threads: any but connman's own.
        """
        with self._lock:
            return self._changed.condition.wait_for(lambda: not self._has_thread, within)

    def _loop(self) -> None:
        try:
            while (name := self._next()) is not None:
                self._run(name)
        except BaseException:  # top of a thread: killed; whoever asks next starts another
            self._leave()
            raise

    def _run(self, name: str) -> None:
        try:
            self._look(name)
        except BaseException as error:  # top of a thread: one name's failure must not stop the others
            if is_kill(error):
                raise
            logger.exception("%s failed", self._name)

    def _next(self) -> str | None:
        with self._lock:
            if self._names:
                name = next(iter(self._names))
                del self._names[name]
                return name
            # Under the lock under which it is seen to be empty: whoever asks later starts a thread of its own.
            self._leave()
            return None

    def _leave(self) -> None:
        with self._lock:
            self._has_thread = False
            self._changed.notify_all()

    def after_fork(self) -> None:
        """Have nothing to do in a child process: the thread is the parent's.

        Threads: the first one of the child that uses connman.
        """
        self._fresh()
