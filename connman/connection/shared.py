"""A thread that reads many connections: a selector tells which has something, other threads dial."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import logging
import os
import selectors
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial

from connman.clock import Clock, Timer
from connman.connection.cycle import Cycle
from connman.connection.diallers import Diallers
from connman.connection.member import Member
from connman.threads import Condition, is_kill, join, spawn
from connman.transport.base import Transport
from connman.transport.sockets import READABLE

logger = logging.getLogger("connman.connection")


class SharedReader:
    """One thread that reads many connections; it lives while it has any. The `Host` of their members.

    Everything happens in steps on that thread, none of which waits for the network: what others have to tell it they
    `post`. Each connection that is ready is read once a round, so that none can starve the others.

    Threads: `start`, `post`, `seen_until`, `wait_gone` and `size` from any thread; the rest is the thread's own.
    """

    def __init__(self, name: str, clock: Clock, diallers: Diallers) -> None:
        self.clock = clock
        self.diallers = diallers
        self._name = name
        self._selector: selectors.BaseSelector | None = None
        # Whether a round is under way, and when the last one that has ended began: what had arrived by then is read.
        self._is_busy = False
        self._looked_at = clock.now()
        self._is_asleep = False
        # Appended to by any thread, taken from by this one: single operations are atomic.
        self._jobs: deque[tuple[Member, Callable[[], None]]] = deque()
        # What is due without a timer: (when, order, member, step).
        self._due: list[tuple[float, int, Member, Callable[[], None]]] = []
        self._order = itertools.count()
        self._make_locks()

    def _make_locks(self) -> None:
        # Entered itself, not through the condition, whose own `with` is Python code: a Ctrl-C there would leave it locked.
        self._lock = threading.RLock()
        self._changed = Condition(self._lock)
        # Guarded by _lock: _members, _thread (the one that runs), _leaving (those before it that may not have ended),
        # _alarm (the pipe that wakes it: its two ends). Looking whether a member is in _members needs no lock.
        self._members: set[Member] = set()
        self._thread: threading.Thread | None = None
        self._leaving: set[threading.Thread] = set()
        self._alarm: tuple[int, int] | None = None

    @property
    def size(self) -> int:
        """How many connections it has."""
        return len(self._members)

    def start(self, cycle: Cycle) -> None:
        """Take ``cycle`` in and begin its first attempt.

        Raises: RuntimeError when no thread is granted.
        Threads: any; never blocks.
        """
        member = Member(cycle, self)
        try:
            with self._lock:
                self._add_locked(member)
        finally:
            self._wake()  # also when Ctrl-C came: what was posted must not lie there until something else wakes it

    def _add_locked(self, member: Member) -> None:
        is_posted = False
        try:
            self._members.add(member)
            if self._thread is not None:
                # Were it a callback on that thread that starts this, waiting for it there would last for ever.
                member.cycle.life.note_dialler(self._thread.ident)
            self._changed.notify_all()
            if self._thread is None:
                self._start_locked()
            is_posted = True
            self._jobs.append((member, member.begin))
        except BaseException:  # user code (a signal handler): what never begins would keep the thread
            # What is posted may have begun; else it finds that its start was given up, and leaves.
            if not is_posted:
                self._members.discard(member)
            raise

    def _start_locked(self) -> None:
        try:
            self._alarm = os.pipe()  # not os.pipe2(), which macOS has not
            for end in self._alarm:
                os.set_blocking(end, False)
            self._selector = selectors.DefaultSelector()
            self._selector.register(self._alarm[0], selectors.EVENT_READ)
            spawn(f"readers-{self._name}", self._loop, partial(setattr, self, "_thread"))
        except OSError as error:
            self._close_locked()
            raise RuntimeError(f"no selector for it: {error.strerror}") from error
        except BaseException:  # user code (a signal handler), perhaps behind the start: that thread ends
            self._thread = None
            self._close_locked()
            raise

    def _close_locked(self) -> None:
        alarm, self._alarm = self._alarm, None
        selector, self._selector = self._selector, None
        self._jobs.clear()
        self._due.clear()
        # Who has closed one of them may be what the reader ends by: its members are to be told all the same.
        if selector is not None:
            with contextlib.suppress(OSError):
                selector.close()
        for end in alarm or ():
            with contextlib.suppress(OSError):
                os.close(end)

    def has(self, member: Member) -> bool:
        """Whether it has not left ``member``.

        Threads: any.
        """
        return member in self._members

    def post(self, member: Member, step: Callable[[], None]) -> None:
        """Have the thread call ``step()`` soon; nothing when it has left ``member``.

        Threads: any; never blocks.
        """
        if member in self._members:
            self._jobs.append((member, step))
            self._wake()

    def call_later(self, member: Member, delay: float, step: Callable[[], None]) -> Timer | None:
        """Have the thread call ``step()`` after ``delay`` seconds; see `Host`.

        Threads: the reading one.
        """
        try:
            return self.clock.call_later(delay, partial(self.post, member, step))
        except RuntimeError:
            # The system is short of threads just now and grants no timer: then this one keeps the time.
            heapq.heappush(self._due, (time.monotonic() + delay, next(self._order), member, step))
            return None

    def _post_due(self) -> float | None:
        """Post what is due without a timer; return the seconds until the next, None for none."""
        while self._due and self._due[0][0] <= time.monotonic():
            _, _, member, step = heapq.heappop(self._due)
            self._jobs.append((member, step))
        return max(0.0, self._due[0][0] - time.monotonic()) if self._due else None

    def _wake(self) -> None:
        # The thread says that it sleeps before it looks at the jobs for the last time; we look after having added one.
        if self._is_asleep:
            with self._lock:
                if self._alarm is not None:
                    # A full pipe wakes it as well.
                    with contextlib.suppress(BlockingIOError):
                        os.write(self._alarm[1], b"\0")

    def wait_gone(self, within: float) -> bool:
        """Wait up to ``within`` seconds for the thread to end, or to have a connection that is not about to leave.

        Threads: any but connman's own.
        """
        until = time.monotonic() + within
        with self._lock:
            if not self._changed.wait_for(self._need_not_wait_locked, within):
                return False
            threads = list(self._leaving) if self._thread is None else []
        for thread in threads:
            join(thread, until - time.monotonic())
        return not any(thread.is_alive() for thread in threads)

    def _need_not_wait_locked(self) -> bool:
        # A connection is told to be gone just before its member leaves: the last one's must not be taken for one that
        # keeps the thread.
        return self._thread is None or any(member.cycle.life.has_reader for member in self._members)

    # The thread.

    def _loop(self) -> None:
        with self._lock:
            if self._thread is not threading.current_thread():
                return  # whoever started it was interrupted, and has cleared everything away
        pid = os.getpid()
        try:
            while self._round(pid) and not self._is_done():
                pass
        except BaseException as bug:  # top of a thread: its connections would wait for ever
            if os.getpid() == pid:
                self._give_up(bug)

    def _give_up(self, bug: BaseException) -> None:
        with self._lock:
            if self._thread is not threading.current_thread():
                return  # it had left already: what is there is its successor's
            # Whoever asks for an idle one from now on gets another thread: what has come before is no failure of his.
            members, self._members = self._members, set()
            self._leave_locked()
        # All are told, whatever one of them, or a log handler, raises.
        with contextlib.ExitStack() as everyone:
            for member in members:
                everyone.callback(self._abandon, member, bug)
            if not is_kill(bug):
                everyone.callback(logger.error, "a shared reader failed", exc_info=bug)  # called first

    def _abandon(self, member: Member, bug: BaseException) -> None:
        try:
            member.abandon(bug)
        except BaseException:  # top of a thread: the others are to be told all the same
            logger.exception("giving up failed", extra={"conn": member.cycle.name})

    def _is_done(self) -> bool:
        with self._lock:
            if self._members:
                return False
            self._leave_locked()
            return True

    def _leave_locked(self) -> None:
        self._leaving = {known for known in self._leaving if known.is_alive()}
        if self._thread is not None:
            self._leaving.add(self._thread)
        self._thread = None
        self._close_locked()
        self._changed.notify_all()

    def _round(self, pid: int) -> bool:
        """Read every connection that is ready once, then do what was posted; False in a child of process ``pid``."""
        selector = self._selector
        assert selector is not None
        self._is_asleep = True
        patience = self._post_due() if self._due else None
        events = selector.select(0 if self._jobs else patience)
        self._is_asleep = False
        self._is_busy = True
        began = self.clock.now()
        if os.getpid() != pid:
            return False
        for key, _ in events:
            member = key.data
            if member is None:
                with contextlib.suppress(BlockingIOError):
                    os.read(key.fd, 4096)
                continue
            # As in _do, which would cost a tenth of what a message costs here.
            try:
                member.read()
            except BaseException as bug:  # top of a thread: the other connections are not concerned
                if self._selector is selector:
                    self._fail(member, bug)
            # A callback may have forked: the child, told by Python's hook, has another selector by now, or none.
            if self._selector is not selector:
                return False
        for _ in range(len(self._jobs)):
            if not self._do(*self._jobs.popleft(), pid):
                return False
        self._looked_at = began
        self._is_busy = False
        return True

    def _do(self, member: Member, step: Callable[[], None], pid: int) -> bool:
        try:
            if member in self._members:
                step()
        except BaseException as bug:  # top of a thread: the other connections are not concerned
            if os.getpid() == pid:
                self._fail(member, bug)
        # A callback may have forked: the child has neither these connections nor this thread's business, not even when
        # it has connections of its own by now, which another thread reads.
        return os.getpid() == pid

    def _fail(self, member: Member, bug: BaseException) -> None:
        if is_kill(bug):
            raise bug  # it is this thread that has to end
        try:
            member.fail(bug)
        except BaseException:  # top of a thread: the other connections are not concerned
            logger.exception("giving up failed", extra={"conn": member.cycle.name})

    def seen_until(self, transport: Transport) -> float:
        """Return the clock's time up to which what had arrived on ``transport`` has been read; see `Host`.

        Threads: any.
        """
        now = self.clock.now()
        # In this order: what a round has taken out of the socket counts when the round has ended.
        return self._looked_at if transport.is_readable() or self._is_busy else now

    def watch(self, member: Member, fd: int, reads_when: int) -> None:
        """Have ``member.read()`` called when ``fd`` is ready; see `Host`.

        Threads: the reading one, or for 0 one that gives up.
        """
        if not reads_when:
            # None, or its successor's, which knows nothing of it, when this thread has given up.
            if (selector := self._selector) is not None:
                with contextlib.suppress(KeyError):
                    selector.unregister(fd)
            return
        assert self._selector is not None
        events = selectors.EVENT_READ if reads_when == READABLE else selectors.EVENT_WRITE
        if fd in self._selector.get_map():
            self._selector.modify(fd, events, member)
        else:
            self._selector.register(fd, events, member)

    def leave(self, member: Member) -> None:
        """Forget ``member``; see `Host`.

        Threads: the reading one, or one that gives up.
        """
        with self._lock:
            self._members.discard(member)

    def after_fork(self) -> None:
        """Become fresh in a child process, which has none of the connections.

        Threads: the first one of the child that uses connman.
        """
        # Closing our copies touches neither the parent's selector nor its pipe.
        self._close_locked()
        self._make_locks()
        self._is_asleep = self._is_busy = False
