"""The shared Future: a Future that nobody can cancel for the others and that knows its process and its reader."""

from __future__ import annotations

import contextlib
import logging
import os
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from typing import TYPE_CHECKING, TypeVar

from connman.clock import LONGEST_WAIT
from connman.errors import Forked, WouldDeadlock
from connman.threads import Condition, at_once, is_kill, is_own

if TYPE_CHECKING:
    from connman.connection.connection import Connection

_T = TypeVar("_T")

logger = logging.getLogger("connman.connection")


class ReaderFuture(Future[_T]):
    """A Future that a reader thread settles.

    Waiting for it on that thread raises WouldDeadlock; in a forked child the parent's pending one fails with Forked.

    Threads: every method from any thread.
    """

    _deadlock = "the reader thread cannot wait for what only it can bring"

    def __init__(self, is_reader: Callable[[], bool]) -> None:
        super().__init__()
        # Whoever waits for the Future may be interrupted: the reader, which settles it, must not find it locked then.
        self._condition = Condition()
        self._is_reader = is_reader
        self._owner_pid = os.getpid()

    def result(self, timeout: float | None = None) -> _T:
        """Return what it resolves to, waiting up to ``timeout`` seconds.

        None: for as long as it takes; 0 and less: not at all.

        Raises: TimeoutError, which leaves the Future as it is; the error with which it ended; WouldDeadlock.
        Threads: any.
        """
        if self._must_wait():
            self._wait(timeout)
        return super().result(0)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return the error, None when there is none, waiting up to ``timeout`` seconds; None, 0 and less as for `result`.

        Raises: TimeoutError; WouldDeadlock.
        Threads: any.
        """
        if self._must_wait():
            self._wait(timeout)
        return super().exception(0)

    def _wait(self, timeout: float | None) -> None:
        """Wait until it is done, or for ``timeout`` seconds; in steps, see `at_once`."""
        until = None if timeout is None else time.monotonic() + min(timeout, LONGEST_WAIT)
        while not self.done():
            left = None if until is None else until - time.monotonic()
            if left is not None and left <= 0:
                return
            with contextlib.suppress(TimeoutError):  # also if it is the error of the Future: it is done then
                super().exception(at_once(left))

    def add_done_callback(self, fn: Callable[[Future[_T]], object]) -> None:
        """Have ``fn`` called with this Future when it is done, at once if it is.

        What it raises on the reader thread, SystemExit included, is logged and ends nothing.

        Threads: any; ``fn`` runs on the one that settles it.
        """
        todo = [fn]

        def call(future: Future[_T]) -> None:
            # Once, as `finish_cut` calls all of them anew.
            try:
                callback = todo[0]
                del todo[0]
            except IndexError:
                return
            try:
                callback(future)
            except BaseException as error:  # user callback: it must not end the connection
                # concurrent.futures holds back Exception only: a SystemExit would end our reader.
                if not is_own() or is_kill(error):
                    raise
                logger.exception("a callback of the Future raised")

        super().add_done_callback(call)

    def fail_forked(self) -> None:
        """Fail it in a child process. The lock inside may have been held by a thread that does not exist here.

        Threads: the first one of the child that uses it.
        """
        self._owner_pid = os.getpid()
        self._condition = Condition()
        self.fail(Forked("this Future belongs to the parent process: ask for a new one"))

    def fail(self, error: Exception) -> None:
        """Settle it with ``error``, unless it is settled, in the parent process or just now by another thread.

        Threads: any.
        """
        with contextlib.suppress(InvalidStateError):
            self.set_exception(error)

    def finish_cut(self) -> None:
        """Wake who waits and call back whom a Ctrl-C has cut off, right behind the settling.

        Threads: the one that settled it, or whom that has left it to.
        """
        with self._condition:
            self._condition.notify_all()
        self._invoke_callbacks()  # type: ignore[attr-defined]

    def _must_wait(self) -> bool:
        # The process first: in a child the lock that `done` takes may have been held when it forked.
        if os.getpid() != self._owner_pid:
            self.fail_forked()
        if self.done():
            return False
        if self._is_reader() and not self.done():
            raise WouldDeadlock(self._deadlock)
        return True


class ConnectedFuture(ReaderFuture["Connection"]):
    """The Future that `Connection.get_connected` shares among all callers.

    It is running from the start, so ``cancel()`` returns False.

    Threads: every method from any thread.
    """

    _deadlock = "the reader thread cannot wait for the connection that only it can open"

    def __init__(self, is_reader: Callable[[], bool]) -> None:
        super().__init__(is_reader)
        self.set_running_or_notify_cancel()


class SharedFuture:
    """The Future that all who ask one connection get: the very same until it is taken away.

    It takes 1.6 KiB, so it is made when somebody asks, and held weakly once it has opened: who has let go of it cannot
    tell another one from it. One that is asked for again is kept: whoever asks once more may ask often.

    Threads: whoever holds the life's lock.
    """

    __slots__ = ("_connection", "_future", "_is_reader", "_loose")

    def __init__(self, is_reader: Callable[[], bool]) -> None:
        self._is_reader = is_reader
        self._future: ConnectedFuture | None = None
        self._loose: weakref.ref[ConnectedFuture] | None = None
        self._connection: Connection | None = None

    def current(self) -> ConnectedFuture | None:
        """Return the one to share, None when there is none."""
        if self._future is None and self._connection is not None:
            future = None if self._loose is None else self._loose()
            if future is None:
                future = ConnectedFuture(self._is_reader)
                future.set_result(self._connection)
            self._future = future  # settled by now, wherever a Ctrl-C comes
        return self._future

    def renew(self, error: Exception | None) -> ConnectedFuture:
        """Put a fresh one, that has failed with ``error`` if there is one, in its place and return it."""
        future = ConnectedFuture(self._is_reader)
        if error is not None:
            future.fail(error)
        self.take()
        self._future = future
        return future

    @property
    def pending(self) -> ConnectedFuture | None:
        """The one that `take` would return."""
        return self._future

    def take(self) -> ConnectedFuture | None:
        """Have none; return the one that is pending."""
        future, self._future = self._future, None
        self._loose = self._connection = None
        return future

    def opened(self, connection: Connection) -> ConnectedFuture | None:
        """Return the one that the caller has to resolve to ``connection``, if there is one; held weakly from now on."""
        future, self._future = self._future, None
        self._loose = None if future is None else weakref.ref(future)
        self._connection = connection
        return future
