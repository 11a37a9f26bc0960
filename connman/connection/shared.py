"""A few threads that read many connections: selectors tell which has something, other threads dial."""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import threading
import time
from collections import deque
from collections.abc import Callable

from connman.clock import Clock
from connman.connection import fork
from connman.connection.cycle import Cycle
from connman.connection.diallers import Diallers
from connman.connection.member import Member
from connman.threads import spawn
from connman.transport.sockets import READABLE

logger = logging.getLogger("connman.connection")

# A round that takes longer was held up by callbacks: meanwhile nobody looked at what the others' peers have sent.
_LONG_ROUND = 0.1


class SharedReader:
    """One thread that reads many connections; it lives while it has any. The `Host` of their members.

    Everything happens in steps on that thread, none of which waits for the network: what others have to tell it they
    `post`. Each connection that is ready is read once a round, so that none can starve the others.

    Threads: `start`, `post`, `is_watching`, `wait_gone` and `size` from any thread; the rest is the thread's own.
    """

    def __init__(self, name: str, clock: Clock, diallers: Diallers) -> None:
        self.clock = clock
        self.diallers = diallers
        self._name = name
        self._pid = os.getpid()
        self.now = clock.now()
        self._selector: selectors.BaseSelector | None = None
        self._busy_since: float | None = None
        self._is_asleep = False
        # Appended to by any thread, taken from by this one: single operations are atomic.
        self._jobs: deque[tuple[Member, Callable[[], None]]] = deque()
        self._lock = threading.Lock()
        # Guarded by _lock: _members, _is_running, _thread, _alarm (the pipe that wakes the thread: its two ends).
        self._members: set[Member] = set()
        self._is_running = False
        self._thread: threading.Thread | None = None
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
        with self._lock:
            self._members.add(member)
            self._jobs.append((member, member.begin))
            if not self._is_running:
                self._start_locked(member)
        self._wake()

    def _start_locked(self, member: Member) -> None:
        self._alarm = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._alarm[0], selectors.EVENT_READ)
        try:
            self._thread = spawn(f"readers-{self._name}", self._loop)
            self._is_running = True
        except RuntimeError:
            self._members.discard(member)
            self._close_locked()
            raise

    def _close_locked(self) -> None:
        alarm, self._alarm = self._alarm, None
        self._jobs.clear()
        if self._selector is not None:
            self._selector.close()
        for end in alarm or ():
            os.close(end)

    def post(self, member: Member, step: Callable[[], None]) -> None:
        """Have the thread call ``step()`` soon; nothing when it has left ``member``.

        Threads: any; never blocks.
        """
        if member in self._members:
            self._jobs.append((member, step))
            self._wake()

    def _wake(self) -> None:
        # The thread says that it sleeps before it looks at the jobs for the last time; we look after having added one.
        if self._is_asleep:
            with self._lock:
                if self._alarm is not None:
                    # A full pipe wakes it as well.
                    with contextlib.suppress(BlockingIOError):
                        os.write(self._alarm[1], b"\0")

    def wait_gone(self, within: float) -> bool:
        """Wait up to ``within`` seconds for the thread to end, if it has no connection left.

        Threads: any but connman's own.
        """
        with self._lock:
            thread = None if self._members else self._thread
        if thread is None:
            return True
        thread.join(within)
        return not thread.is_alive()

    # The thread.

    def _loop(self) -> None:
        while self._round() and not self._is_done():
            pass

    def _is_done(self) -> bool:
        with self._lock:
            if self._members:
                return False
            self._is_running = False
            self._close_locked()
            return True

    def _round(self) -> bool:
        """Read every connection that is ready once, then do what was posted; False in a forked child."""
        selector = self._selector
        assert selector is not None
        self._is_asleep = True
        events = selector.select(0 if self._jobs else None)
        self._is_asleep = False
        self._busy_since = self.now = began = self.clock.now()
        if os.getpid() != self._pid:
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
                    member.fail(bug)
            # A callback may have forked: the child, told by Python's hook, has neither these connections nor a selector.
            if self._selector is not selector:
                return False
        for _ in range(len(self._jobs)):
            if not self._do(*self._jobs.popleft()):
                return False
        self._busy_since = None
        self._forgive(self.clock.now() - began)
        return True

    def _do(self, member: Member, step: Callable[[], None]) -> bool:
        try:
            if member in self._members:
                step()
        except BaseException as bug:  # top of a thread: the other connections are not concerned
            if os.getpid() == self._pid:
                member.fail(bug)
        # A callback may have forked: the child has neither these connections nor this thread's business.
        return os.getpid() == self._pid

    def _forgive(self, seconds: float) -> None:
        """Do not hold it against the peers when a callback has kept us from reading what they sent."""
        if seconds > _LONG_ROUND:
            for member in self._members:
                if member.transport is not None:
                    member.transport.life += seconds

    def is_watching(self) -> bool:
        """Whether what arrives is read at once; see `Host`.

        Threads: any.
        """
        since = self._busy_since
        return since is None or self.clock.now() - since < _LONG_ROUND

    def watch(self, member: Member, fd: int, reads_when: int) -> None:
        """Have ``member.read()`` called when ``fd`` is ready; see `Host`.

        Threads: the reading one.
        """
        assert self._selector is not None
        events = selectors.EVENT_READ if reads_when == READABLE else selectors.EVENT_WRITE
        if not reads_when:
            with contextlib.suppress(KeyError):
                self._selector.unregister(fd)
        elif fd in self._selector.get_map():
            self._selector.modify(fd, events, member)
        else:
            self._selector.register(fd, events, member)

    def leave(self, member: Member) -> None:
        """Forget ``member``; see `Host`.

        Threads: the reading one.
        """
        with self._lock:
            self._members.discard(member)

    def after_fork(self) -> None:
        """Become fresh in a child process, which has none of the connections.

        Threads: the first one of the child that uses connman.
        """
        # Closing our copies touches neither the parent's selector nor its pipe.
        self._close_locked()
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._members = set()
        self._is_running = self._is_asleep = False
        self._thread = self._busy_since = self._selector = None


class SharedReaders:
    """A fixed number of threads that read however many connections, and the threads that dial for them. A `Readers`.

    Threads: every method from any thread.
    """

    def __init__(self, count: int, name: str, clock: Clock) -> None:
        self._diallers = Diallers(name)
        self._readers = [
            SharedReader(f"{name}-{number}", clock, self._diallers) for number in range(1, count + 1)
        ]
        fork.register(self)

    def start(self, cycle: Cycle) -> None:
        """Have the reader that has the fewest connections drive ``cycle``; see `Readers`.

        Raises: RuntimeError when no thread is granted.
        Threads: any; never blocks.
        """
        min(self._readers, key=lambda reader: reader.size).start(cycle)

    def wait_gone(self, within: float) -> bool:
        """Wait up to ``within`` seconds for those threads to end that have nothing to do any more; see `Readers`.

        Threads: any but connman's own.
        """
        until = time.monotonic() + within
        if not all(reader.wait_gone(max(0.0, until - time.monotonic())) for reader in self._readers):
            return False
        is_idle = not any(reader.size for reader in self._readers)
        return not is_idle or self._diallers.wait_gone(max(0.0, until - time.monotonic()))

    def after_fork(self) -> None:
        """Become fresh in a child process: the threads are the parent's.

        Threads: the first one of the child that uses connman.
        """
        self._diallers.after_fork()
        for reader in self._readers:
            reader.after_fork()
