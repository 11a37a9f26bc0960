"""The life of a connection: one lock, one state, and every transition between states."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Callable
from concurrent.futures import InvalidStateError
from dataclasses import dataclass
from typing import TYPE_CHECKING

from connman.clock import LONGEST_WAIT, Clock, Deadline
from connman.connection.counters import Counters
from connman.connection.future import ConnectedFuture, SharedFuture
from connman.connection.ownership import Owned
from connman.errors import ConnectionClosed, ConnmanError, NotConnected, WaitTimeout, WouldDeadlock
from connman.records import State, Stats
from connman.threads import uncut
from connman.transport.base import Dial, Transport

if TYPE_CHECKING:
    from connman.connection.connection import Connection


@dataclass(frozen=True, slots=True)
class Ended:
    """What a transition out of an attempt or an open transport decided."""

    was_open: bool
    is_closing: bool
    error: ConnmanError
    retry_in: float | None
    generation: int


class Life(Owned):
    """The state of one connection and the rules by which it changes.

    Every method decides under the lock and acts after it: Futures are settled and transports ended outside.
    ``watch`` is called with the new state after each change, on the thread that made it, outside the lock.

    Threads: any, but for `take_dial`, `opened`, `ended` and `wait_retry`, which belong to the reader thread.
    """

    __slots__ = (
        "_clock", "_dial", "_failing", "_is_cut", "_is_hurried", "_is_told", "_shared", "_watch", "closing", "counters",
        "generation", "last_error", "opened_at", "state", "transport",
    )  # fmt: skip

    def __init__(
        self, clock: Clock, watch: Callable[[State], None], closing: ConnectionClosed | None = None
    ) -> None:
        super().__init__()
        self._clock = clock
        self._watch = watch
        # Guarded by _lock: everything below; `state`, `closing` and `transport` may be read without it.
        self.state = State.IDLE if closing is None else State.CLOSED
        self.closing = closing
        self.transport: Transport | None = None
        self.generation = 0
        self.last_error: Exception | None = None
        self.opened_at = 0.0
        self.counters = Counters()
        self._shared = SharedFuture(self.is_reader)
        self._dial: Dial | None = None
        self._is_hurried = False
        # Of the end: whether it is told, or somebody does it; the Future that is to fail; whether a Ctrl-C has cut that. Of
        # who does it, and without the lock once that has begun.
        self._is_told = closing is not None
        self._failing: ConnectedFuture | None = None
        self._is_cut = False

    # Asking for a connection.

    def ask(self, *, wants_future: bool = True) -> tuple[ConnectedFuture | None, bool]:
        """Return the Future to share, if wanted, and whether the caller now has to start a reader thread."""
        me = threading.get_ident()
        with self._lock:
            future = self._shared.current() if wants_future else None
            if future is None and wants_future:
                future = self._shared.renew(self.closing)
            is_begun = self.state is State.IDLE
            must_start = is_begun and not self.has_reader
            if must_start:
                self._starter = me
            if is_begun:
                self.state = State.CONNECTING
                self.has_reader = True
        if is_begun:
            self._watch(State.CONNECTING)
        return future, must_start

    def start_interrupted(self) -> None:
        """Be idle again if the calling thread was to start the reader, and none has begun: Ctrl-C came between."""
        self.reader_failed(NotConnected("the start was interrupted"), starter=threading.get_ident())

    def reader_failed(self, error: ConnmanError, *, starter: int | None = None) -> None:
        """Be idle again: no reader thread was granted, or it failed; with ``starter`` unless a reader has begun."""
        with self._lock:
            # Under the same lock as what follows: a reader that begins in between would not know that it was given up.
            if starter is not None and (self._reader_id is not None or self._starter != starter):
                return
            self._forget_reader_locked()
            self._dial = self.transport = None
            if self.closing is not None:
                return
            self.last_error = error
            before, self.state = self.state, State.IDLE
            future = self._shared.take()
        if before is not State.IDLE:
            self._watch(State.IDLE)
        # Behind that: whom it calls back may ask anew at once, and what he begins has not ended.
        if future is not None:
            future.fail(error)

    # The reader's transitions.

    def take_dial(self, dial: Dial) -> bool:
        """Begin an attempt with ``dial``; False when there is nothing to do and the reader thread has to end."""
        with self._lock:
            if self.state is State.CONNECTING:
                self._dial = dial
                return True
            self._forget_reader_locked()
            return False

    def opened(self, transport: Transport) -> bool:
        """Count ``transport`` as open; False when the connection was ended meanwhile and nobody may see it."""
        now = self._clock.now()
        with self._lock:
            self._dial = None
            if self.closing is not None:
                return False
            self.transport = transport
            self.generation += 1
            self.counters.opens += 1
            self.opened_at = now
            self.state = State.OPEN
            self._changed.notify_all()
        self._watch(State.OPEN)
        return True

    def resolve(self, connection: Connection) -> None:
        """Settle the Future of the generation that has just opened."""
        with self._lock:
            future = self._shared.opened(connection) if self.state is State.OPEN else None
        # None or invalid when `disconnect` has come since: what is there then is for those who ask too late.
        with contextlib.suppress(InvalidStateError):
            if future is not None:
                future.set_result(connection)

    def was_stable(self, stable_after: float) -> bool:
        """Return whether a transport is open and has been for ``stable_after`` seconds."""
        return self.transport is not None and self._clock.now() - self.opened_at >= stable_after

    def ended(self, error: ConnmanError, decide: float | ConnmanError) -> Ended:
        """Leave an attempt or an open transport for what was decided: a delay, or the error that ends retrying."""
        failed: ConnectedFuture | None = None
        with self._lock:
            transport, self.transport, self._dial = self.transport, None, None
            was_open, is_closing = transport is not None, self.closing is not None
            if transport is not None:
                self.counters.add(transport)
            if self.closing is not None:
                error, delay = self.closing, None
            elif isinstance(decide, ConnmanError):
                delay = None
                self.last_error = decide
                self.state = State.IDLE
                failed = self._shared.take()
            else:
                delay = decide
                self.last_error = error
                self.state = State.WAITING
                if was_open:
                    self._shared.take()
            if self.closing is None:
                self.counters.losses += was_open
                self.counters.failed_attempts += not was_open
            state, generation = self.state, self.generation
            self._changed.notify_all()
        if state is not State.CLOSED:  # that was told by `disconnect`
            self._watch(state)
        # Behind that, as in `reader_failed`.
        if failed is not None and isinstance(decide, ConnmanError):
            failed.fail(decide)
        return Ended(was_open, is_closing, error, delay, generation)

    def wait_retry(self, delay: float) -> None:
        """Wait between two attempts, until the time, `hurry` or `disconnect` ends it."""
        with self._lock:
            Deadline.after(self._clock, delay).wait_for(
                self._changed.condition, lambda: self._is_hurried or self.closing is not None
            )
        self.retry()

    @property
    def is_wait_over(self) -> bool:
        """Whether `hurry` or `disconnect` has cut the wait between two attempts."""
        return self._is_hurried or self.closing is not None

    def retry(self) -> None:
        """Leave the wait between two attempts for the next one, unless the connection was ended."""
        with self._lock:
            self._is_hurried = False
            if self.closing is not None:
                return
            self.state = State.CONNECTING
        self._watch(State.CONNECTING)

    # From outside.

    def hurry(self) -> None:
        """Cut the wait between two attempts short; nothing in any other state."""
        with self._lock:
            if self.state is State.WAITING:
                self._is_hurried = True
                self._changed.notify_all()
            wake = self._wake_reader
        if wake is not None:
            wake()

    def disconnect(self, closing: ConnectionClosed, timeout: float) -> None:
        """End it for good, in whatever phase it is, without blocking. Idempotent: the first call's code counts."""
        # What a Ctrl-C cuts is done all the same, and if that is cut as well, by the next call.
        uncut(lambda: self._end(closing, timeout))

    def _end(self, closing: ConnectionClosed, timeout: float) -> None:
        must_tell = has_told = False

        def tell() -> None:
            nonlocal has_told
            self._watch(State.CLOSED)
            has_told = True

        try:
            with self._lock:
                closing = self.closing = self.closing or closing
                self.state = State.CLOSED
                must_tell, self._is_told = not self._is_told, True
                if must_tell:
                    # One that has opened stays as it is, but whoever asks from now on gets another.
                    self._failing = self._failing or self._shared.pending
                    self._shared.take()
                failing = self._failing if must_tell or self._is_cut else None
                dial, transport, wake = self._dial, self.transport, self._wake_reader
                self._changed.notify_all()
            # Outside the lock: each of these takes locks of its own, and Futures call back. All are told, whatever one of
            # them raises; by each call, as a Ctrl-C may have come before the first had told them.
            with contextlib.ExitStack() as everyone:
                if wake is not None:
                    everyone.callback(wake)  # called last
                if must_tell:
                    everyone.callback(tell)
                if failing is not None:
                    everyone.callback(self._fail, failing, closing)
                if transport is not None:
                    everyone.callback(transport.close, closing.code or 1000, closing.reason, timeout)
                if dial is not None:
                    everyone.callback(dial.abort, closing)
        except BaseException:  # user code (a signal handler, a callback) raised
            if must_tell:
                self._is_told, self._is_cut = has_told, True
            raise

    def _fail(self, future: ConnectedFuture, closing: ConnectionClosed) -> None:
        future.fail(closing)
        if self._is_cut:
            future.finish_cut()
        self._failing = None

    def abort(self) -> None:
        """Break what `disconnect` left to end in order."""
        transport = self.transport
        if self.closing is not None and transport is not None:
            transport.abort(self.closing)

    # Waiting for it.

    def is_reader(self) -> bool:
        """Return whether the calling thread is the one that reads, or one that dials for it, one way of several."""
        dials = self._dial.threads if self._dial is not None else ()
        return super().is_reader() or (self.has_reader and threading.get_ident() in dials)

    def wait_told(self, transport: Transport, timeout: float) -> bool:
        """Wait, in real time, until its reader has told that ``transport`` has ended; False after ``timeout`` seconds.

        Raises: WouldDeadlock on the reader thread, if it would have to wait.
        """
        if timeout > 0 and self.is_reader():
            raise WouldDeadlock("the reader thread cannot wait for the connection that only it can open")
        with self._lock:
            return timeout > 0 and self._changed.condition.wait_for(
                lambda: self.transport is not transport or self.closing is not None,
                min(timeout, LONGEST_WAIT),
            )

    def wait_ended(self, deadline: Deadline) -> ConnmanError | Exception | None:
        """Wait until it is closed (returns None) or idle (returns why).

        Raises: WaitTimeout at the deadline.
        """
        over = (State.CLOSED, State.IDLE)
        with self._lock:
            if not deadline.wait_for(
                self._changed.condition, lambda: self.state in over and not self.has_reader
            ):
                raise WaitTimeout(f"not ended in time but {self.state.value}")
            if self.state is State.CLOSED:
                return None
            return self.last_error or NotConnected("it was never started")

    def abandon_after_fork(self) -> Callable[[], None] | None:
        """Be closed in a child process, which gets a new life; return what fails the parent's Future, if there is one.

        Were it the reader that forked, inside a callback, it finds this life closed when it returns from there.

        Threads: the first one of the child that uses connman.
        """
        self._make_locks()
        self.closing = self.closing or ConnectionClosed()
        self.state, self._is_told = State.CLOSED, True
        future = self._shared.current()
        return None if future is None else future.fail_forked

    def stats(self, messages_in: int, callback_errors: int) -> Stats:
        """Return the counters together with those of the present transport."""
        with self._lock:
            counters = dataclasses.replace(self.counters)
            transport, opened_at, error = self.transport, self.opened_at, self.last_error
        if transport is not None:
            counters.add(transport)
        uptime = 0.0 if transport is None else self._clock.now() - opened_at
        return counters.snapshot(messages_in, callback_errors, error, uptime)
