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
from collections.abc import Callable

from connman.clock import Clock
from connman.threads import latch
from connman.transport.receiving import Receiving
from connman.transport.stream import Codec, LendingCodec, LendingStream, Stream

GRACE = 0.001
"""Seconds for which nobody may read before the reader does."""
_MOST_SKIPS = 255


class _Turn:
    """Whose turn it is to read: the lock's holder, who is the reader or one that it stands by for.

    ``call``: released to have a reader that stands by look at once. ``found``, ``error``: what one of the others has read,
    or met, and is the reader's.
    """

    __slots__ = ("call", "error", "found", "is_for_main", "lock", "only_text", "take_into")

    def __init__(self, stream: LendingStream, codec: LendingCodec) -> None:
        self.take_into, self.only_text = stream.take_into, codec.only_text
        self.is_for_main = stream.lends_to_main
        self.error: OSError | None = None
        self.lock: _thread.LockType = latch()  # taken: it is the reader who makes this
        self.call = latch()
        self.found: list[bytes] = []


class Lending(Receiving):
    """What `Pipe` is to those who wait for one message; ``base.Transport`` documents the methods.

    The one who reads may be Python's main thread, where a signal handler may raise anywhere. So a chunk is never held by
    a variable alone until the message in it is taken: what happens before leaves it to the reader, who then takes all of
    it. The codec, which could not be left half done, is the reader's alone.

    Threads: as each method says.
    """

    __slots__ = ("_skips", "_to_skip", "_turn", "lent")

    def __init__(self, stream: Stream, codec: Codec, clock: Clock, leftover: bytes) -> None:
        super().__init__(stream, codec, clock, leftover)
        self.lent = 0
        self._turn: _Turn | None = None
        # Standing by is of no use where nobody wants to read: the more often it was not, the more seldom it is done.
        self._skips = self._to_skip = 0

    def stand_by(self) -> None:
        """Let others read for as long as they do; see ``base.Transport``.

        Raises: ConnectionLost when one of them has met the end of the connection.
        Threads: the reader only.
        """
        if self._to_skip:
            self._to_skip -= 1
        elif not (self.rest or self.has_end or self.error is not None) and (turn := self._own_turn()):
            before = self.lent
            self._wait_while_lent(turn)
            if turn.error is not None:
                raise self._broken(turn.error)
            if turn.found:
                self.rest = turn.found.pop()
            self._skips = 0 if self.lent != before else min(2 * self._skips + 1, _MOST_SKIPS)
            self._to_skip = self._skips

    def _own_turn(self) -> _Turn | None:
        stream, codec = self._stream, self._codec
        if self._turn is None and isinstance(stream, LendingStream) and isinstance(codec, LendingCodec):
            self._turn = _Turn(stream, codec) if stream.can_lend else None
        return self._turn

    def _wait_while_lent(self, turn: _Turn) -> None:
        seen = self.lent
        turn.call.acquire(False)  # one that came too late the last time
        turn.lock.release()
        while True:
            is_called = turn.call.acquire(timeout=GRACE)
            is_unused = self.lent == seen
            seen = self.lent
            # Who calls has let go before; a Ctrl-C may have come between, hence the look at what was found.
            if (is_called or is_unused or turn.found or turn.error) and turn.lock.acquire(
                timeout=GRACE if is_called else 0
            ):
                return

    def take_one(self, seconds: float, take: Callable[[str], bool]) -> bool:
        """Read the next message if the reader stands by; see ``base.Transport``.

        Threads: any but the reader.
        """
        turn = self._turn
        if turn is None or os.getpid() != self._pid:
            return False
        if not turn.is_for_main and threading.current_thread() is threading.main_thread():
            return False
        # What is taken is noted by the call that takes it, in C: a Ctrl-C comes before both or behind both.
        held: list[bool] = []
        is_taken = False
        try:
            held.extend(map(turn.lock.acquire, (False,)))
            is_taken = held[0] and self._take_one(turn, seconds, take)
            return is_taken
        finally:
            if held and held[0]:
                # Nothing before this that a signal handler could come behind.
                turn.lock.release()
                if not is_taken:
                    with contextlib.suppress(RuntimeError):  # called already
                        turn.call.release()

    def _take_one(self, turn: _Turn, seconds: float, take: Callable[[str], bool]) -> bool:
        found = turn.found
        if found or turn.error is not None or self.error is not None:
            return False
        self.life = self._clock.now()
        self.reading = True
        try:
            turn.take_into(found, seconds)
        except OSError as error:
            turn.error = error
        finally:
            self.reading = False
        if not found:
            return False
        self.bytes_in += len(found[0])
        text = turn.only_text(found[0])
        if text is None or not take(text):
            return False
        found.clear()
        self.lent += 1
        self.life = self._clock.now()
        self.progress.part = 0
        return True
