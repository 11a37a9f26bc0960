"""What a dial talks to here: a socket with no network behind it, and a clock that only the script moves."""

import socket
import threading
from collections.abc import Callable
from typing import Any

NEVER = 1e9  # seconds: behind every deadline


class StepClock:
    """A `connman.clock.Clock` for one thread. Who waits on it is told by ``on_wait``, which lets time pass."""

    def __init__(self) -> None:
        self.time = 0.0
        self.on_wait: Callable[[float | None], None] = self._pass
        self._timers: list[_Timer] = []

    def now(self) -> float:
        return self.time

    def wait(self, condition: threading.Condition, timeout: float | None) -> None:
        if timeout is None or timeout > 0:
            self.on_wait(timeout)

    def call_later(self, delay: float, callback: Callable[[], None]) -> "_Timer":
        timer = _Timer(self.time + delay, callback)
        self._timers.append(timer)
        return timer

    def advance(self, seconds: float) -> None:
        """Let time pass; timers that are due run in order."""
        target = self.time + seconds
        while due := min((t for t in self._timers if t.callback and t.at <= target), key=_when, default=None):
            self._timers.remove(due)
            self.time = max(self.time, due.at)
            callback, due.callback = due.callback, None
            assert callback is not None
            callback()
        self.time = max(self.time, target)

    def _pass(self, timeout: float | None) -> None:
        self.advance(NEVER if timeout is None else timeout)


class _Timer:
    def __init__(self, at: float, callback: Callable[[], None]) -> None:
        self.at = at
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None


def _when(timer: _Timer) -> float:
    return timer.at


TAILS = ("eof", "stall", "reset")


class Wire(socket.socket):
    """A socket whose peer is a script: what is sent goes to ``on_send``, what is received are ``chunks``, then ``tail``.

    ``drip``: seconds that pass before each chunk.
    """

    def __init__(self, clock: StepClock, chunks: list[bytes], tail: str, drip: float = 0.0) -> None:
        super().__init__(socket.AF_UNIX)
        self._clock = clock
        self.chunks = chunks
        self._tail = tail
        self._drip = drip
        self.sent = b""
        self.on_send: Callable[[Wire], None] = lambda wire: None

    def send(self, data: Any, flags: int = 0) -> int:
        self.sent += bytes(data)
        self.on_send(self)
        return len(data)

    def recv(self, size: int, flags: int = 0) -> bytes:
        if self.chunks:
            self._clock.time += self._drip
            piece, rest = self.chunks[0][:size], self.chunks[0][size:]
            if not flags & socket.MSG_PEEK:
                self.chunks[:1] = [rest] if rest else []
            return piece
        if self._tail == "eof":
            return b""
        if self._tail == "reset":
            raise ConnectionResetError(104, "Connection reset by peer")
        self._clock.time += NEVER
        raise BlockingIOError
