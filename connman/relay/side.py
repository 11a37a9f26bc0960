"""One socket of a relay after its upgrade: frames in and out, pings, flow control, and how it ends."""

from __future__ import annotations

import asyncio
import enum
import time
from collections.abc import Sequence
from typing import Protocol

from connman.relay.broker import Other
from connman.relay.counts import Counts
from connman.relay.frames import CLOSE, PING, PONG, TEXT, Frames, frame
from connman.relay.limits import Limits
from connman.relay.tokens import Grant
from connman.relay.wire import (
    BAD_TOKEN,
    INVALID_MESSAGE,
    NO_FIRST_MESSAGE,
    OTHER_LOST,
    close_payload,
    sendable,
)

_HELD_AT_MOST = 65536


class Phase(enum.Enum):
    """What a side is in the middle of.

    JOINING: its first message is awaited. SPARE: it waits under a name. CALLED: handed over, its "ready" is awaited.
    HELD: it waits to be joined, and what it sends waits as well. ALONE: the first of a group; what it sends is dropped.
    PAIRED: frames go both ways. CLOSING: we have said goodbye. GONE: the socket is closed.
    """

    JOINING = enum.auto()
    SPARE = enum.auto()
    CALLED = enum.auto()
    HELD = enum.auto()
    ALONE = enum.auto()
    PAIRED = enum.auto()
    CLOSING = enum.auto()
    GONE = enum.auto()


class Switch(Protocol):
    """What a side tells of itself: the switchboard decides what it means."""

    limits: Limits
    counts: Counts

    def first_message(self, side: Side, text: str) -> None:
        """Take the first message of ``side``."""

    def ready(self, side: Side, text: str) -> None:
        """Take what a spare said to the handover."""

    def left(self, side: Side, code: int, reason: str) -> None:
        """Take note that ``side`` will neither send nor take anything any more; once for each side."""

    def gone(self, side: Side) -> None:
        """Take note that the socket of ``side`` is closed; once for each side."""


class Side(asyncio.Protocol):
    """One client of the relay.

    Threads: the relay's.
    """

    __slots__ = (
        "_awaits_pong", "_drained", "_due", "_frames", "_has_left", "_is_alive", "_is_blocked", "_is_paused", "_loop",
        "_switch", "_timer", "address", "grant", "group", "name", "other", "phase", "transport", "write",
    )  # fmt: skip

    def __init__(
        self, switch: Switch, transport: asyncio.Transport, address: str, grant: Grant | None
    ) -> None:
        limits = switch.limits
        self.transport = transport
        self.write = transport.write
        self.address = address
        self.grant = grant
        self.phase = Phase.JOINING
        self.name = ""
        self.group = b""
        self.other: Other | None = None
        self._switch = switch
        self._frames = Frames()
        self._loop = asyncio.get_running_loop()
        self._has_left = False
        # Liveness: has anything come, or has anything gone out, since the last look? Is a pong owed?
        self._is_alive = True
        self._awaits_pong = False
        # Flow: is there too much to be sent to it (and how much at the last ping)? Is it not read from?
        self._is_blocked = False
        self._drained = 0
        self._due = 0.0
        self._is_paused = False
        transport.set_write_buffer_limits(limits.high_water, limits.low_water)
        self._timer = self._loop.call_later(limits.join_timeout, self._not_joined)

    def __repr__(self) -> str:
        return f"<side {self.address} {self.phase.name.lower()} {self.name!r}>"

    # What asyncio calls

    def data_received(self, data: bytes) -> None:
        """Take what has arrived."""
        self._is_alive = True
        if self.phase is Phase.PAIRED:
            self._pass_on(data)
            return
        frames = self._frames
        if self.phase is Phase.CLOSING:
            self._await_goodbye(data)
        elif self.phase is Phase.ALONE:
            frames.feed(data)  # dropped, as the model does: nobody is there to take it
            self._see_to_events()
        else:
            frames.rest += data
            self._talk()

    def pause_writing(self) -> None:
        """Stop the other side: what it sends piles up here."""
        self._is_blocked = True
        if self.other is not None:
            self.other.pause()

    def resume_writing(self) -> None:
        """Let the other side go on. That its client has read so much is a sign of life."""
        self._is_blocked = False
        self._is_alive = True
        if self.other is not None:
            self.other.resume()

    def eof_received(self) -> None:
        """Take the end of what the client sends for the end of it: what it was sent and has not read may stay unread."""
        if self.phase is not Phase.CLOSING:
            self.phase = Phase.CLOSING
            self._await_end()
            self._leave(1006, "")

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell of the end, which is a loss unless it has been told before."""
        self._timer.cancel()
        self.phase = Phase.GONE
        self._leave(1006, "")
        self._switch.gone(self)

    # What the switchboard calls

    def send(self, text: str) -> None:
        """Send a control message."""
        self.write(frame(TEXT, text.encode()))

    def waits_as(self, phase: Phase) -> None:
        """Enter another phase of waiting, from which on pings tell whether it lives."""
        begins = self.phase is Phase.JOINING
        self.phase = phase
        if phase is Phase.ALONE:
            self._frames.pass_on(self._switch.limits.max_message_size)
        if begins:
            self._timer.cancel()
            self._is_alive, self._awaits_pong = True, False
            self._set_tick()

    def join(self, other: Other) -> None:
        """Be half of a pair from now on; `begin` sees to what has come too early."""
        self.other = other
        if self.phase is Phase.ALONE:
            self._frames.skip()
        self.phase = Phase.PAIRED
        self._frames.pass_on(self._switch.limits.max_message_size)
        if self._is_blocked:
            other.pause()

    def begin(self) -> None:
        """Pass on what came before both were joined, and read on."""
        if self.phase is Phase.PAIRED:
            self.resume()
            self._pass_on(b"")

    # What the other side of a pair calls; the first is `write`, where both are here

    def forward(self, frames: Sequence[bytes | bytearray]) -> None:
        """Send frames that come from afar."""
        if self.phase is Phase.PAIRED:
            self.write(b"".join(frames))

    def pause(self) -> None:
        """Read no more for now."""
        if not self._is_paused and self.phase is not Phase.GONE:
            self._is_paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self._is_paused and self.phase is not Phase.GONE:
            self._is_paused = False
            self.transport.resume_reading()

    def close(self, code: int, reason: str) -> None:
        """Say goodbye behind what is being sent, and let go when it is answered or the time for that is over."""
        if self.phase in (Phase.CLOSING, Phase.GONE):
            return
        code, reason = sendable(code, reason)
        self.phase = Phase.CLOSING
        self._switch.counts.count_closed(code)
        self.write(frame(CLOSE, close_payload(code, reason)))
        self._await_end()
        if self._frames.closed is not None:
            self.transport.close()
        elif self._frames.error is not None and self.transport.can_write_eof():
            # Nothing of what it sends can be understood any more, its goodbye neither: what ends it is its end of file.
            # Closed at once, with bytes unread, the system would reset the connection and our goodbye with it.
            self.transport.write_eof()
        self.resume()
        self._leave(code, reason)

    def drop(self) -> None:
        """End it at once."""
        if self.phase is not Phase.GONE:
            self.transport.abort()

    # Inside

    def _pass_on(self, data: bytes) -> None:
        """Hand frames on to the other side: the hot path."""
        frames = self._frames
        out = frames.feed(data)
        counts = self._switch.counts
        counts.bytes_total += len(data)
        if out:
            counts.frames_total += len(out) >> 1
            other = self.other
            if type(other) is Side:
                # One write a chunk: a system call for each frame costs three times as much as all the rest.
                other.write(b"".join(out))
            elif other is not None:
                other.forward(out)
        if frames.ping is not None or frames.is_over:
            self._see_to_events()

    def _talk(self) -> None:
        """Take messages one by one: each may change what becomes of the next."""
        while self._is_talking():
            held = self.phase is Phase.HELD
            message = self._frames.take(hold=held)
            self._see_to_events()
            if message is None:
                if held and len(self._frames.rest) > _HELD_AT_MOST:
                    self.pause()
                return
            if self._is_talking():
                self._take(*message)

    def _is_talking(self) -> bool:
        return self.phase in (Phase.JOINING, Phase.SPARE, Phase.CALLED, Phase.HELD)

    def _take(self, opcode: int, payload: bytes) -> None:
        if opcode != TEXT:
            self._refuse(INVALID_MESSAGE, "Invalid message (expected a JSON string)")
            return
        try:
            text = payload.decode()
        except UnicodeDecodeError:
            self._refuse(1007, "text that is not valid UTF-8")
            return
        if self.phase is Phase.JOINING:
            self._switch.first_message(self, text)
        elif self.phase is Phase.CALLED:
            self._switch.ready(self, text)
        else:
            self._refuse(INVALID_MESSAGE, "Invalid message (nothing may be sent before the handover)")

    def _refuse(self, code: int, reason: str) -> None:
        self._switch.counts.count_refused("message")
        self.close(code, reason)

    def _see_to_events(self) -> None:
        frames = self._frames
        if frames.ping is not None:
            # Only the newest (5.5.3), and none while the client reads nothing: answers must not pile up.
            if not self._is_blocked:
                self.write(frame(PONG, frames.ping))
            frames.ping = None
        if frames.closed is not None and self.phase is not Phase.CLOSING:
            code, reason = frames.closed
            self._leave(code, reason)
            self.close(code, reason)
        elif frames.error is not None and self.phase is not Phase.CLOSING:
            code, reason = frames.error
            self._switch.counts.count_refused("too-big" if code == 1009 else "protocol")
            self._leave(OTHER_LOST, f"the other side was closed: {code} {reason}")
            self.close(code, reason)

    def _await_goodbye(self, data: bytes) -> None:
        frames = self._frames
        if not frames.is_over:
            frames.feed(data)
            if frames.is_over:
                self.transport.close()

    def _leave(self, code: int, reason: str) -> None:
        if not self._has_left:
            self._has_left = True
            self._switch.left(self, code, reason)

    # Time

    def _await_end(self) -> None:
        self._timer.cancel()
        self._timer = self._loop.call_later(self._switch.limits.close_timeout, self.drop)

    def _not_joined(self) -> None:
        self._switch.counts.count_refused("first-message")
        self.close(NO_FIRST_MESSAGE, "no first message in time")

    def _set_tick(self) -> None:
        limits = self._switch.limits
        delay = limits.ping_timeout if self._awaits_pong else limits.ping_interval or 3600.0
        self._due = self._loop.time() + delay
        if self.grant is not None and self.grant.expires is not None:
            delay = max(0.0, min(delay, self.grant.expires - time.time() + 0.01))
        self._timer = self._loop.call_later(delay, self._tick)

    def _tick(self) -> None:
        if self.grant is not None and self.grant.is_expired(time.time()):
            self.close(BAD_TOKEN, "the token has expired")
            return
        if self._loop.time() + 0.005 < self._due:
            self._set_tick()  # the clock on the wall was set back: it has not expired yet
            return
        if self._awaits_pong:
            if not self._shows_life():
                self.drop()
                return
            self._awaits_pong = False
        elif self._switch.limits.ping_interval is not None:
            self._is_alive, self._awaits_pong = False, True
            self._drained = self.transport.get_write_buffer_size()
            if not self._is_blocked:
                self.write(frame(PING, b""))
        self._set_tick()

    def _shows_life(self) -> bool:
        # Not read from, it cannot be heard. And where much is to be sent, the pong stands behind all of it: that its
        # client takes some is enough.
        return self._is_alive or self._is_paused or self.transport.get_write_buffer_size() < self._drained
