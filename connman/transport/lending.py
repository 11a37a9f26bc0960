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
from collections.abc import Callable

from connman.clock import Clock
from connman.threads import latch
from connman.transport.receiving import Receiving
from connman.transport.stream import Codec, LendingCodec, LendingStream, Stream

GRACE = 0.001
"""Seconds for which nobody may read before the reader does."""
_STEP = 0.001
"""Seconds after which who waits looks whether he still has to."""
_MOST_TICKS = 5
"""Looks of the reader at which something lay there unread, after which it takes it itself: a signal handler is running."""
_MOST_SKIPS = 255
_MOST_LENT = 2
_BUSY = 0.05


class _Seats:
    """How many readers of a process stand by: with more than two under way none does, for a twentieth of a second.

    Then threads are awake, so that to wake one costs little, and readers that look around are in their way. Ten callers of
    a process, each over a connection of its own, made 12,500 calls a second without lending, and 9,500 with it.

    Threads: any.
    """

    def __init__(self) -> None:
        self._free = [None] * _MOST_LENT  # single operations
        self._busy_until = 0.0

    @property
    def is_busy(self) -> bool:
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
        self._free.append(None)


# By process: what is taken in a parent is taken by nobody in a child.
_seats: dict[int, _Seats] = {}


class _Turn:
    """Who reads, and who waits to.

    ``reading``: the lock of whoever is at the stream; the reader holds it but for when it stands by, others only for the one
    call that takes out what is there: a signal handler that runs while they wait must keep nobody from reading.
    ``waiting``: the lock of the one who waits, and ``owner``: his thread; ``held`` has something in it while he has `reading`.
    ``call``: released to have a reader that stands by go on at once. ``found``, ``error``: what one of the others has read,
    or met; until it is taken it is the reader's. ``is_missed``: somebody has come before the reader stood by.
    """

    __slots__ = (
        "call", "error", "found", "held", "is_for_main", "is_missed", "only_text", "owner", "reading", "take_into", "used_at", "wait", "waiting",
    )  # fmt: skip

    def __init__(self, stream: LendingStream, codec: LendingCodec) -> None:
        self.wait, self.take_into, self.only_text = stream.wait, stream.take_into, codec.only_text
        self.is_for_main, self.is_missed = stream.lends_to_main, False
        self.reading: _thread.LockType = latch()  # taken: it is the reader who makes this
        self.waiting = _thread.allocate_lock()
        self.call = latch()
        self.owner: int | None = None
        self.held: list[bool] = []
        self.used_at = 0.0
        self.error: OSError | None = None
        self.found: list[bytes] = []


class Lending(Receiving):
    """What `Pipe` is to those who wait for one message; ``base.Transport`` documents the methods.

    The one who reads may be Python's main thread, where a signal handler may run anywhere, and raise. So a chunk is never
    held by a variable alone until the message in it is taken: what happens before leaves it to the reader, who then takes
    all of it. The codec, which could not be left half done, is the reader's alone.

    Threads: as each method says.
    """

    __slots__ = ("_can_lend", "_skips", "_to_skip", "_turn", "lent")

    def __init__(self, stream: Stream, codec: Codec, clock: Clock, leftover: bytes) -> None:
        super().__init__(stream, codec, clock, leftover)
        self.lent = 0
        self._can_lend = True  # as far as is known
        self._turn: _Turn | None = None
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
        elif self._can_lend and not (self.rest or self.has_end or self.error is not None):
            turn = self._turn or self._make_turn()
            if turn is not None and not turn.is_missed:
                self._stand_by(turn)
            elif turn is not None:
                turn.is_missed = False

    def _make_turn(self) -> _Turn | None:
        stream, codec = self._stream, self._codec
        if isinstance(stream, LendingStream) and isinstance(codec, LendingCodec) and stream.can_lend:
            self._turn = _Turn(stream, codec)
        self._can_lend = self._turn is not None
        return self._turn

    def _stand_by(self, turn: _Turn) -> None:
        seats = _seats.get(self._pid) or _seats.setdefault(self._pid, _Seats())
        if seats.take():
            try:
                self._lend(turn, seats)
            finally:
                seats.leave()

    def _lend(self, turn: _Turn, seats: _Seats) -> None:
        before = self.lent
        # What comes is noticed all the time.
        self.life = self._clock.now()
        self.reading = True
        self._wait_while_lent(turn, seats)
        self.reading = False
        if turn.error is not None:
            raise self._broken(turn.error)
        if turn.found:
            self.rest = turn.found.pop()
            self.bytes_in += len(self.rest)
        self._skips = self._skips // 2 if self.lent != before else min(2 * self._skips + 1, _MOST_SKIPS)
        self._to_skip = self._skips

    def _wait_while_lent(self, turn: _Turn, seats: _Seats) -> None:
        turn.call.acquire(False)  # one that came too late the last time
        seen, patience, unread = self.lent, GRACE, 0
        turn.used_at = time.monotonic()
        turn.reading.release()
        while True:
            must_go_on = turn.call.acquire(timeout=patience) or seats.is_busy
            left = turn.used_at + GRACE - time.monotonic()
            patience = GRACE
            if self.lent != seen:
                # Looked at again when nobody has read for long enough.
                seen, unread = self.lent, 0
                patience = max(left, 0)
            elif not turn.waiting.locked():
                must_go_on = must_go_on or left <= 0
            else:
                unread = unread + 1 if self.is_readable() else 0
                must_go_on = must_go_on or unread >= _MOST_TICKS
            if not turn.reading.locked():  # a Ctrl-C has come between
                must_go_on = must_go_on or bool(turn.found or turn.error)
            if must_go_on and turn.reading.acquire(timeout=GRACE):
                return

    # The others'.

    @property
    def stands_by(self) -> bool:
        """Whether the reader stands by; see ``base.Transport``.

        Threads: any.
        """
        turn = self._turn
        if turn is None or not turn.reading.locked():
            return turn is not None
        # One that is about to stand by would do so for nobody.
        turn.is_missed = not self.reading
        return False

    def call_reader(self) -> None:
        """Have a reader that stands by read on; see ``base.Transport``.

        Threads: any; never blocks.
        """
        turn = self._turn
        if turn is None or os.getpid() != self._pid:
            return
        if turn.owner == threading.get_ident() and turn.held:
            # A signal handler, within what this thread does below, which finds that it is not its turn any more.
            try:
                turn.held.clear()
            finally:
                turn.reading.release()
        if not turn.reading.locked():
            with contextlib.suppress(RuntimeError):  # called already
                turn.call.release()

    def take_one(
        self, seconds: float, take: Callable[[str], bool], is_wanted: Callable[[], bool] = lambda: True
    ) -> bool:
        """Read the next message if the reader stands by; see ``base.Transport``.

        Threads: any but the reader.
        """
        turn = self._turn
        if turn is None or turn.reading.locked() or os.getpid() != self._pid:
            return False
        is_taken = False
        if turn.is_for_main or threading.current_thread() is not threading.main_thread():
            # That it waits is noted by the call that has it wait, in C: a Ctrl-C comes before both or behind both.
            held: list[bool] = []
            try:
                held.extend(map(turn.waiting.acquire, (False,)))
                if held[0] and is_wanted():
                    # In steps: what the reader takes out, called by another thread, wakes nobody here.
                    is_there = turn.wait(_STEP) or self._wait(turn, seconds - _STEP, is_wanted)
                    is_taken = is_there and self._take_one(turn, take)
            finally:
                if held and held[0]:
                    # Nothing before this that a signal handler could come behind.
                    turn.waiting.release()
        if not is_taken:
            self.call_reader()
        return is_taken

    def _wait(self, turn: _Turn, seconds: float, is_wanted: Callable[[], bool]) -> bool:
        """Wait on; False when nothing has come in time, the reader reads, or nobody wants it any more."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and is_wanted() and not turn.reading.locked():
            if turn.wait(_STEP):
                return True
        return False

    def _take_one(self, turn: _Turn, take: Callable[[str], bool]) -> bool:
        turn.owner = threading.get_ident()
        held: list[bool] = []
        turn.held = held
        try:
            held.extend(filter(None, map(turn.reading.acquire, (False,))))
            if not held or turn.found or turn.error is not None or self.error is not None:
                return False
            turn.take_into(turn.found, held)
            if not turn.found:
                return False
            chunk = turn.found[0]
            text = turn.only_text(chunk)
            if text is None or not take(text):
                return False
            # Not if a signal handler had the reader called meanwhile, who has read it as well.
            if held:
                turn.found.clear()
                self.bytes_in += len(chunk)
                self.lent += 1
                self.life = self._clock.now()
                self.progress.part = 0
                turn.used_at = time.monotonic()
            return True
        except OSError as error:
            turn.error = error
            return False
        finally:
            if held:
                # One step to a signal handler, as no call comes between the two.
                turn.owner = None
                turn.reading.release()
