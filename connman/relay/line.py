"""The socket of a side: how much of it is read at once, what stops that, and the pings that tell whether it lives."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from connman.relay.frames import PING, frame
from connman.relay.limits import Limits

_LONG = 3600.0
# What a side reads at once where frames are tiny; otherwise all of the buffer.
_SMALL = 8192


class Line(asyncio.BufferedProtocol):
    """One socket of a relay.

    All lines read into one buffer, whose content is taken out before the loop goes on.

    Threads: the relay's.
    """

    __slots__ = (
        "_all", "_awaits_pong", "_buffer", "_drained", "_due", "_expires", "_is_alive", "_is_paused", "_is_yielding",
        "_loop", "_timer", "is_blocked", "is_gone", "limits", "transport", "write",
    )  # fmt: skip

    def __init__(self, transport: asyncio.Transport, limits: Limits, buffer: memoryview) -> None:
        self.transport = transport
        self.write = transport.write
        self.limits = limits
        self.is_gone = False
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._all = buffer
        self._buffer = buffer[:_SMALL]
        # Reading: somebody wants it to rest; or it has been read from in this round of the loop, and is not until the next.
        self._is_paused = False
        self._is_yielding = False
        # Is there too much to be sent to it? And how much was there at the last ping?
        self.is_blocked = False
        self._drained = 0
        # Has anything come, or enough gone out, since the last ping? Is a pong owed? When is it looked at again?
        self._is_alive = True
        self._awaits_pong = False
        self._due = 0.0
        self._expires: float | None = None
        transport.set_write_buffer_limits(limits.high_water, limits.low_water)

    # Reading

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where to put what arrives."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take what has arrived there."""
        self._is_alive = True
        self.data_received(bytes(self._buffer[:nbytes]))
        if nbytes == len(self._buffer) and not self._is_paused and not self.is_gone:
            # There is more. uvloop would read on, 32 times in a row, while the others wait: measured with four pairs
            # that send frames of 6 bytes as fast as they can, it took 4.5 s to open one more.
            self._is_yielding = True
            self.transport.pause_reading()
            self._loop.call_soon(self._read_on)

    def data_received(self, data: bytes) -> None:
        """Take what has arrived."""
        raise NotImplementedError

    def _read_on(self) -> None:
        self._is_yielding = False
        if not self._is_paused and not self.is_gone:
            self.transport.resume_reading()

    def choose_buffer(self, size: int, entries: int, rest: int) -> None:
        """Read much at once where it is quickly done, so that a flood keeps the others waiting for 2 ms at most.

        ``size``: of what has been read; ``entries``: what came of it, two a frame; ``rest``: what is left of it.
        Frames cost time, not their bytes: 64 KiB of empty ones take 4 ms, of pings 16, of 64 bytes each 0.3.
        """
        if size >= _SMALL:
            # Less than 64 bytes a frame; or nothing to pass on, and no long frame that is coming in either.
            is_costly = entries > size >> 5 or (not entries and rest < size >> 1)
            self._buffer = self._all[:_SMALL] if is_costly else self._all

    def pause(self) -> None:
        """Read no more for now."""
        if not self._is_paused and not self.is_gone:
            self._is_paused = True
            if not self._is_yielding:
                self.transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self._is_paused and not self.is_gone:
            self._is_paused = False
            if not self._is_yielding:
                self.transport.resume_reading()

    # Writing

    def pause_writing(self) -> None:
        """Take note that more is to be sent than the high mark."""
        self.is_blocked = True

    def resume_writing(self) -> None:
        """Take note that it is less than the low mark. That the client has read so much is a sign of life."""
        self.is_blocked = False
        self._is_alive = True

    def end_writing(self) -> None:
        """Send an end of file behind what is being sent, where that can be: not over TLS."""
        if self.transport.can_write_eof():
            try:
                self.transport.write_eof()
            except OSError:  # asyncio's own does it at once, and the client may be gone
                self.abort()

    def abort(self) -> None:
        """End it at once."""
        if not self.is_gone:
            self.transport.abort()

    # Time

    def set_timer(self, delay: float, act: Callable[[], None]) -> None:
        """Do ``act`` after a while, in the place of whatever was to be done."""
        self.stop_timer()
        self._timer = self._loop.call_later(delay, act)

    def stop_timer(self) -> None:
        """Do nothing later."""
        if self._timer is not None:
            self._timer.cancel()

    def watch(self, expires: float | None) -> None:
        """Begin to send pings, in the place of any timer; call `expired` at ``expires``, in Unix seconds."""
        self._expires = expires
        self._is_alive, self._awaits_pong = True, False
        self._set_tick(self.limits.ping_interval or _LONG)

    def expired(self) -> None:
        """Be told that the time is over."""
        raise NotImplementedError

    def _set_tick(self, delay: float) -> None:
        self._due = self._loop.time() + delay
        self._await_tick()

    def _await_tick(self) -> None:
        delay = max(0.0, self._due - self._loop.time())
        if self._expires is not None:
            delay = max(0.0, min(delay, self._expires - time.time() + 0.01))
        self.set_timer(delay, self._tick)

    def _tick(self) -> None:
        limits = self.limits
        if self._expires is not None and time.time() >= self._expires:
            self.expired()
        elif self._loop.time() + 0.005 < self._due:
            self._await_tick()  # the clock on the wall was set back: it has not expired yet
        elif limits.ping_interval is None:
            self._set_tick(_LONG)
        elif not self._awaits_pong:
            self._is_alive, self._awaits_pong = False, True
            self._drained = self.transport.get_write_buffer_size()
            if not self.is_blocked:
                self.write(frame(PING, b""))
            self._set_tick(limits.ping_timeout)
        elif self._shows_life():
            self._awaits_pong = False
            self._set_tick(max(0.0, limits.ping_interval - limits.ping_timeout))
        else:
            self.abort()

    def _shows_life(self) -> bool:
        # Not read from, it cannot be heard. And where much is to be sent, the pong stands behind all of it: that its
        # client takes some is enough.
        return self._is_alive or self._is_paused or self.transport.get_write_buffer_size() < self._drained
