"""Whose a connection is: the one thread that dials and reads, and those that have to end with it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from connman.clock import LONGEST_WAIT, Signal
from connman.threads import join


class Owned:
    """The threads of one connection, under the lock of its life: `Life` has the rest of what that lock guards.

    Threads: any, but for `claim_reader`.
    """

    __slots__ = (
        "_changed", "_dialler_id", "_lock", "_reader_id", "_starter", "_threads", "_wake_reader", "has_reader",
    )  # fmt: skip

    def __init__(self) -> None:
        self._make_locks()
        # Guarded by _lock: everything below; `has_reader` may be read without it.
        self._threads: tuple[threading.Thread, ...] = ()
        self.has_reader = False
        self._reader_id: int | None = None
        self._dialler_id: int | None = None
        self._wake_reader: Callable[[], None] | None = None
        self._starter: int | None = None

    def _make_locks(self) -> None:
        # Entered itself, not through the condition, whose own `with` is Python code: a Ctrl-C there would leave it locked.
        self._lock = threading.RLock()
        self._changed = Signal(self._lock)

    def claim_reader(self, wake: Callable[[], None] | None = None) -> bool:
        """Make the calling thread the reader; False when none is wanted: its start was interrupted and given up.

        ``wake``: of a reader that is shared with others and does not wait in here; called, on any thread, when a wait
        between two attempts is cut or the connection is ended. It must not block.

        Threads: the one that is to read.
        """
        with self._lock:
            if not self.has_reader or self._reader_id is not None:
                return False
            self._reader_id, self._wake_reader = threading.get_ident(), wake
        if wake is None:
            self.note_thread(threading.current_thread())
        return True

    def _forget_reader_locked(self) -> None:
        # The system gives a thread's number to the next one that starts, which must not be taken for the reader.
        self.has_reader, self._reader_id, self._starter = False, None, None
        self._dialler_id = self._wake_reader = None
        self._changed.notify_all()

    def note_dialler(self, thread_id: int | None) -> None:
        """Have ``thread_id`` count as the reader's: it dials for it, or is a shared one that begins soon; None for none.

        Threads: any.
        """
        self._dialler_id = thread_id

    def is_reader(self) -> bool:
        """Return whether the calling thread is the one that dials and reads.

        Threads: any.
        """
        return self.has_reader and threading.get_ident() in (self._reader_id, self._dialler_id)

    def note_thread(self, thread: threading.Thread) -> None:
        """Count ``thread`` among those that `wait_gone` waits for.

        Threads: any.
        """
        with self._lock:
            self._threads = (*(known for known in self._threads if known.is_alive()), thread)

    def wait_gone(self, timeout: float) -> bool:
        """Wait until the connection's threads are gone, in real time; False when ``timeout`` seconds did not do.

        Threads: any but connman's own.
        """
        timeout = min(timeout, LONGEST_WAIT)
        until = time.monotonic() + timeout
        with self._lock:
            if not self._changed.condition.wait_for(lambda: not self.has_reader, timeout):
                return False
            threads = self._threads
        for thread in threads:
            join(thread, until - time.monotonic())
        return not any(thread.is_alive() for thread in threads)
