"""Name and mark connman's own threads, and let all others wait so that a Ctrl-C does no harm.

``threading`` is looked up at call time and nothing is made at import, so that gevent may patch it later.
"""

from __future__ import annotations

import _thread
import contextlib
import functools
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import TypeVar

_T = TypeVar("_T")


class Condition(threading.Condition):
    """A condition on an RLock that a signal handler which raises leaves as it ought to be.

    Python runs the handler in the main thread, when a call has returned among others. In the `with` of a
    ``threading.Condition``, which is Python code, that leaves the lock taken for ever; in its ``wait`` the lock may be
    let go and not taken again, which replaces a KeyboardInterrupt by a RuntimeError at the end of the caller's `with`.
    Only ``notify_all`` is used: a ``notify`` that it cuts short may leave a waiter that has gone in the queue, where it
    takes the next one's wake-up.

    Threads: any.
    """

    # The lock's own, which are in C: nothing can come between taking it and the block.
    __enter__ = property(attrgetter("_lock.__enter__"))
    __exit__ = property(attrgetter("_lock.__exit__"))

    def wait(self, timeout: float | None = None) -> bool:
        """Wait as ``threading.Condition`` does; the lock is taken at the end, however it comes.

        Threads: whoever holds the lock.
        """
        try:
            return super().wait(timeout)
        except BaseException:  # user code (a signal handler) raised
            try:
                self.notify(0)  # says whether this thread holds the lock
            except RuntimeError:
                self.acquire()
            raise

    def wait_for(self, predicate: Callable[[], _T], timeout: float | None = None) -> _T:
        """Wait as ``threading.Condition`` does, in steps: see `at_once`.

        Threads: whoever holds the lock.
        """
        until = None if timeout is None else time.monotonic() + timeout
        while not (result := predicate()):
            left = None if until is None else until - time.monotonic()
            if left is not None and left <= 0:
                break
            self.wait(at_once(left))
        return result


def latch() -> _thread.LockType:
    """Return a taken lock for one thread to wait at until another lets go of it: a signal, the cheapest there is.

    It guards nothing, so it has no place in the order of locks that the tests watch, which are ``threading``'s.

    Threads: any.
    """
    # Looked up now, as gevent may have patched it since.
    lock = _thread.allocate_lock()
    lock.acquire(False)
    return lock


LOOK = 0.5
"""Seconds after which the main thread looks for signals that have not woken it."""


def at_once(timeout: float | None) -> float | None:
    """Return for how long to wait at once, when ``timeout`` seconds (None: for ever) are to be waited in a loop.

    Python looks for signals, lets go of the interpreter, and only then waits: a Ctrl-C that comes in between, for which
    there is time when other threads want the interpreter, is noticed when the wait is over. So the main thread, which
    alone runs signal handlers, waits in steps.

    Threads: any.
    """
    if threading.current_thread() is not threading.main_thread():
        return timeout
    return LOOK if timeout is None else min(timeout, LOOK)


def if_free(lock: threading.Lock) -> Iterator[bool]:
    """Take ``lock`` without waiting for the body of a `for`, which lets go of it; there is no body if it is taken.

    As at a `with` no signal handler comes between taking it and the body, if the lock is one in C: Python runs handlers
    behind a call of ``acquire``, and not behind a step of a loop.

    Threads: any.
    """
    return filter(None, map(lock.acquire, (False,)))


def uncut(function: Callable[[], _T]) -> _T:
    """Return what ``function()`` returns; if a signal handler raises in it, call it once more before that goes on.

    For what does not block and, called again, finishes what was cut. A second Ctrl-C in the same moment cuts it for good.

    Raises: what ``function`` does, after the second call.
    Threads: any.
    """
    try:
        return function()
    except BaseException:  # user code (a signal handler, a callback) raised
        function()
        raise


def _wait_for_tstate_lock(self: threading.Thread, block: bool = True, timeout: float = -1) -> None:
    lock = self._tstate_lock  # type: ignore[attr-defined]
    if lock is not None:
        for _ in filter(None, map(lock.acquire, (block,), (timeout,))):  # as in `if_free`
            lock.release()
            self._stop()  # type: ignore[attr-defined]


@functools.cache
def _uncut_thread(base: type[threading.Thread]) -> type[threading.Thread]:
    """Return the kind of ``base`` that is not taken for ended because a Ctrl-C came to who waits for it, or looks at it.

    Until Python 3.13, which does not call this, a lock stands for a thread's life, and whenever a signal handler raises in
    `join` or `is_alive` they let go of it, also while the thread goes on. By ``base``, because gevent has its own.
    """
    return type("Thread", (base,), {"_wait_for_tstate_lock": _wait_for_tstate_lock})


def join(thread: threading.Thread, timeout: float) -> None:
    """Wait up to ``timeout`` seconds for ``thread`` to end, in steps: see `at_once`.

    Threads: any but that one.
    """
    until = time.monotonic() + timeout
    while thread.is_alive() and (left := until - time.monotonic()) > 0:
        thread.join(at_once(left))


def spawn(
    name: str, target: Callable[[], None], note: Callable[[threading.Thread], None] | None = None
) -> threading.Thread:
    """Start and return a marked daemon thread named ``connman-<name>``.

    Daemon, because an open connection must not keep the interpreter from ending; the exit hook ends it politely.
    ``note`` is called with it before it starts: a lock that was made before gevent came does not keep a greenlet out.

    Raises: RuntimeError when the system or an ending interpreter grants no thread.
    Threads: any.
    """
    # By process: a thread that forks is the main one of the child, and the user's there.
    pid = os.getpid()

    def run() -> None:
        try:
            target()
        finally:
            if os.getpid() != pid:
                # A greenlet that a fork has copied: here `threading` has forgotten it, and would stumble over its end.
                # This makes it known again.
                threading.current_thread()

    thread = _uncut_thread(threading.Thread)(target=run, name=f"connman-{name}", daemon=True)
    thread.connman_pid = pid  # type: ignore[attr-defined]
    # Python waits for the thread to begin at a condition that a Ctrl-C breaks: the thread would die of it before it runs.
    with contextlib.suppress(AttributeError):  # gevent's has none
        thread._started._cond = Condition()  # type: ignore[attr-defined]  # noqa: SLF001
    if note is not None:
        note(thread)
    thread.start()
    return thread


_handles_of_parents: list[object] = []


def keep_handles_after_fork() -> None:
    """Keep Python's handles of the parent's threads for as long as this child lives; see below why.

    Threads: the first one of the child that uses connman.
    """
    # Since 3.13 a handle that goes detaches its thread if nobody has joined it. Python's own hook marks those of the
    # parent as done, but under a bare fork() it does not run, and the child's threads get the stacks, and so the
    # identities, of the parent's: theirs are detached. Seen: a join that failed, and SIGSEGV at the end of a thread.
    for ref in list(threading._dangling.data):  # type: ignore[attr-defined]  # noqa: SLF001
        _handles_of_parents.append(getattr(ref(), "_handle", None))


def is_kill(error: BaseException) -> bool:
    """Return whether ``error`` is what gevent kills a greenlet with; who swallows it keeps the killer waiting for ever.

    Threads: any.
    """
    greenlet = sys.modules.get("greenlet")
    return greenlet is not None and isinstance(error, greenlet.GreenletExit)


def is_own() -> bool:
    """Return whether the calling thread is one of connman's.

    Threads: any.
    """
    return getattr(threading.current_thread(), "connman_pid", None) == os.getpid()
