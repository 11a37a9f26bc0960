"""A thread that looks after names while there are any to look after."""

from __future__ import annotations

import contextlib
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
        # Guarded by _lock: _names (in order, the values mean nothing), _thread.
        self._names: dict[str, None] = {}
        self._thread: threading.Thread | None = None

    def ask(self, names: Iterable[str]) -> None:
        """Have ``names`` looked after soon. Never blocks."""
        with self._lock:
            self._names.update(dict.fromkeys(names))
            # At the interpreter's end there is no thread to be had, and nothing is joined any more.
            if self._names and not self._is_busy_locked():
                with contextlib.suppress(RuntimeError):
                    # Under the lock, and noted before it starts: a Ctrl-C leaves no thread that is believed in and not there.
                    spawn(f"pusher-{self._name}", self._loop, self._note_locked)

    def _note_locked(self, thread: threading.Thread) -> None:
        self._thread = thread

    def _is_busy_locked(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def wait_idle(self, within: float) -> bool:
        """Wait up to ``within`` real seconds until no name is left and none is looked after.

        Threads: any but connman's own.
        """
        with self._lock:
            return self._changed.condition.wait_for(lambda: not self._is_busy_locked(), within)

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
            self._thread = None
            self._changed.notify_all()

    def after_fork(self) -> None:
        """Have nothing to do in a child process: the thread is the parent's.

        Threads: the first one of the child that uses connman.
        """
        self._fresh()
