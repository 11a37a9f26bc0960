"""Reading that is lent: while a pipe's reader stands by, the thread that waits for the next message reads it itself.

Who waits for what another thread reads is woken behind it, and to wake an idle processor's thread takes as long as all
else that is done for a message. Measured on two idle processors: a call through the relay took 214 µs with readers that
hand on at both ends, of which each hand-over was more than 30.
"""

from __future__ import annotations

import _thread
import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, cast

from connman.clock import Clock
from connman.threads import latch
from connman.transport.receiving import Receiving
from connman.transport.stream import Codec, LendingCodec, LendingStream, Stream

GRACE = 0.001
"""Seconds for which nobody may read before the reader does, four times as many after a long run; and between its looks."""
_STEP = 0.001
"""Seconds after which who waits asks whether he still has to."""
_MOST_LOOKS = 5
"""Looks of the reader, one after another, at which the same lay there untaken: then whoever should take it is kept."""
_LENT = 16384
"""Bytes that are read at a time: what is longer is for the reader."""
_MOST_SKIPS = 255
_MOST_LENT = 2
"""Readers of a process that stand by at a time."""
_BUSY = 0.05
"""Seconds for which none stands by when one more would have."""


class _Seats:
    """How many readers of a process stand by: where more than two would, none does for a moment.

    Then threads are awake, so that to wake one costs little, and readers that look around are in their way. Ten callers of
    a process, each over a connection of its own, made 12,500 calls a second without lending, and 9,500 with it.

    Threads: any.
    """

    def __init__(self) -> None:
        self._free = [None] * _MOST_LENT  # single operations
        self._busy_until = 0.0

    @property
    def is_busy(self) -> bool:
        """Whether none is to stand by."""
        return time.monotonic() < self._busy_until

    def take(self) -> bool:
        """Take one if there is one; who does calls `leave`."""
        if self.is_busy:
            return False
        try:
            self._free.pop()
        except IndexError:
            self._busy_until = time.monotonic() + _BUSY
            return False
        return True

    def leave(self) -> None:
        """Give the seat back."""
        self._free.append(None)


# Returns its second argument, in C.
_second: Callable[[bytes, int], int] = cast(Any, {}.get)
# By process: what is taken in a parent is taken by nobody in a child.
_seats: dict[int, _Seats] = {}


class _Loan:
    """Who may read while the reader stands by, who waits to, and what came of it.

    ``token``: its one element is there while nobody is at the stream; it is taken in the same call as what is read. What was
    read is in ``found`` until it is taken, and the token comes back, or until it is the reader's: in ``left``, or ``errors``.
    ``waiting``: the lock of the one who waits. ``call``: released to have the reader go on at once. ``is_missed``: somebody
    came just before the reader stood by. ``used_at``: when something was taken last.
    """

    __slots__ = (
        "call", "errors", "found", "is_for_main", "is_missed", "is_on", "left", "only_text", "read", "token", "used_at",
        "wait", "waiting",
    )  # fmt: skip

    def __init__(self, stream: LendingStream, codec: LendingCodec) -> None:
        self.wait, self.read, self.only_text = stream.wait, stream.read_lent, codec.only_text
        self.is_for_main = stream.lends_to_main
        self.is_on = self.is_missed = False
        self.waiting = _thread.allocate_lock()
        self.call = latch()
        self.used_at = 0.0
        self.token: list[int] = []
        self.found: list[bytes] = []
        self.left: list[bytes] = []
        self.errors: list[OSError] = []


class Lending(Receiving):
    """What `Pipe` is to those who wait for one message; ``base.Transport`` documents the methods.

    The one who reads may be Python's main thread, where a signal handler may run behind any call, and raise, or wait for
    what only the reader can bring. So what is read, and whose turn it is, is never held by a variable, nor by a lock: it
    moves from list to list, each time in one call of C. The codec, which could not be left half done, is the reader's alone.

    Threads: as each method says.
    """

    __slots__ = ("_can_lend", "_loan", "_skips", "_to_skip", "lent")

    def __init__(self, stream: Stream, codec: Codec, clock: Clock, leftover: bytes) -> None:
        super().__init__(stream, codec, clock, leftover)
        self.lent = 0
        self._can_lend = True  # as far as is known
        self._loan: _Loan | None = None
        # Standing by is of no use where nobody wants to read: the more often it was not, the more seldom it is done.
        self._skips = self._to_skip = 0

    # The reader's side.

    def stand_by(self) -> None:
        """Let others read for as long as they do; see ``base.Transport``.

        Raises: ConnectionLost when one of them has met the end of the connection.
        Threads: the reader only.
        """
        if self._to_skip:
            self._to_skip -= 1
            return
        if not self._can_lend or self.rest or self.has_end or self.error is not None:
            return
        loan = self._loan or self._make_loan()
        if loan is None:
            return
        if loan.is_missed:
            loan.is_missed = False
            return
        seats = _seats.get(self._pid) or _seats.setdefault(self._pid, _Seats())
        if seats.take():
            try:
                self._lend(loan, seats)
            finally:
                seats.leave()

    def _make_loan(self) -> _Loan | None:
        stream, codec = self._stream, self._codec
        if isinstance(stream, LendingStream) and isinstance(codec, LendingCodec) and stream.can_lend:
            self._loan = _Loan(stream, codec)
        self._can_lend = self._loan is not None
        return self._loan

    def _lend(self, loan: _Loan, seats: _Seats) -> None:
        before = self.lent
        # What comes is noticed all the time.
        self.life = self._clock.now()
        self.reading = True
        loan.call.acquire(False)  # one that came too late the last time
        loan.used_at = time.monotonic()
        loan.is_on = True
        loan.token.append(_LENT)
        try:
            self._wait_while_lent(loan, seats)
        finally:
            loan.is_on = self.reading = False
        if loan.errors:
            raise self._broken(loan.errors.pop())
        if loan.left:
            self.rest = loan.left.pop()
            self.bytes_in += len(self.rest)
        self._skips = self._skips // 2 if self.lent != before else min(2 * self._skips + 1, _MOST_SKIPS)
        self._to_skip = self._skips

    def _wait_while_lent(self, loan: _Loan, seats: _Seats) -> None:
        """Return when it is the reader's turn again: with the token, with what was left, or with an error."""
        seen, patience, looks, must_go_on = self.lent, GRACE, 0, False
        longest = GRACE
        while True:
            must_go_on = loan.call.acquire(timeout=patience) or must_go_on or seats.is_busy
            unused_for = time.monotonic() - loan.used_at
            patience = GRACE
            if self.lent != seen:
                # While it goes on and on there is less to look for, and a look takes a processor's time.
                seen, looks, longest = self.lent, 0, min(2 * longest, 4 * GRACE)
                patience = max(longest - unused_for, 0)
            elif loan.found or (loan.waiting.locked() and self.is_readable()):
                looks += 1
            else:
                looks = 0
                must_go_on = must_go_on or (unused_for >= GRACE and not loan.waiting.locked())
            is_kept = looks >= _MOST_LOOKS
            if self._take_back(loan, must_go_on=must_go_on or is_kept, is_kept=is_kept):
                return

    def _take_back(self, loan: _Loan, *, must_go_on: bool, is_kept: bool) -> bool:
        if loan.left or loan.errors:
            return True
        if not must_go_on:
            return False
        try:
            loan.token.pop()
        except IndexError:  # somebody is at it, and calls or comes to an end soon, unless he is kept
            if is_kept:
                with contextlib.suppress(IndexError):
                    loan.left.append(loan.found.pop())
            return bool(loan.left)
        return True

    # The others'.

    def may_take(self) -> bool:
        """Return whether the reader stands by; see ``base.Transport``.

        Threads: any.
        """
        loan = self._loan
        if loan is None or loan.is_on:
            return loan is not None
        # A reader that is about to stand by would do so for nobody.
        loan.is_missed = not self.reading
        return False

    def call_reader(self) -> None:
        """Have a reader that stands by read on; see ``base.Transport``.

        Threads: any; never blocks.
        """
        loan = self._loan
        if loan is not None and loan.is_on:
            with contextlib.suppress(RuntimeError):  # called already
                loan.call.release()

    def take_one(
        self, seconds: float, take: Callable[[str], bool], is_wanted: Callable[[], bool] = lambda: True
    ) -> bool:
        """Read the next message if the reader stands by; see ``base.Transport``.

        Threads: any but the reader.
        """
        loan = self._loan
        if loan is None or not loan.is_on or os.getpid() != self._pid:
            return False
        is_main = threading.current_thread() is threading.main_thread()
        is_taken = False
        if loan.is_for_main or not is_main:
            # That it waits is noted by the call that has it wait, in C: a Ctrl-C comes before both or behind both.
            held: list[bool] = []
            try:
                held.extend(map(loan.waiting.acquire, (False,)))
                if held[0] and is_wanted():
                    # Made now: what can be done before something is there delays nobody; and to make it is a call as well.
                    read = loan.read(loan.token)
                    # In steps: what the reader takes out, called by another thread, wakes nobody here.
                    is_there = loan.wait(_STEP) or self._wait(loan, seconds - _STEP, is_wanted)
                    is_taken = (
                        is_there and self._read(loan, read) and self._offer(loan, take, is_main=is_main)
                    )
            finally:
                if held and held[0]:
                    # Nothing before this that a signal handler could come behind.
                    loan.waiting.release()
        if not is_taken:
            self.call_reader()
        return is_taken

    def _wait(self, loan: _Loan, seconds: float, is_wanted: Callable[[], bool]) -> bool:
        """Wait on; False when nothing has come in time, the reader reads, or nobody wants it any more."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and is_wanted() and loan.is_on:
            if loan.wait(_STEP):
                return True
        return False

    def _read(self, loan: _Loan, read: Iterator[bytes]) -> bool:
        """Put what is there into ``found``, which takes the token; False when it is not there, or there is nothing."""
        try:
            loan.found.extend(read)
        except IndexError:
            return False
        # Of the system's call; or user code (a signal handler) raised, which comes behind it.
        except BaseException as error:
            if loan.found:
                raise
            is_empty = isinstance(error, BlockingIOError)
            if isinstance(error, OSError) and error.errno is not None and not is_empty:
                loan.errors.append(error)
                return False
            loan.token.append(_LENT)
            if not is_empty:
                raise
            return False
        return True

    def _offer(self, loan: _Loan, take: Callable[[str], bool], *, is_main: bool) -> bool:
        chunks = loan.found
        try:
            if not is_main:
                chunks = [loan.found.pop()]  # here no handler runs, and nobody may have it twice
            chunk = chunks[0]
        except IndexError:
            return False  # this thread was kept, and the reader has come for it
        is_taken = False
        try:
            text = loan.only_text(chunk)
            is_taken = text is not None and take(text)
        finally:
            # One for the other in one call; without a chunk the reader has come for it.
            if not is_taken:
                with contextlib.suppress(IndexError):
                    loan.left.extend(map(chunks.pop, (0,)))
        if is_taken:
            self.bytes_in += len(chunk)
            self.lent += 1
            self.life = self._clock.now()
            self.progress.part = 0
            loan.used_at = time.monotonic()
            try:
                loan.token.extend(map(_second, map(chunks.pop, (0,)), (_LENT,)))
            except IndexError:
                pass
        return is_taken
