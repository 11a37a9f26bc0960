"""One socket of a relay after its upgrade: frames in and out, what each phase makes of them, and how it ends."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Sequence
from typing import Protocol

from connman.relay.broker import Other
from connman.relay.counts import Counts
from connman.relay.frames import CLOSE, PONG, TEXT, Frames, frame
from connman.relay.limits import Limits
from connman.relay.line import Line
from connman.relay.tokens import Grant
from connman.relay.wire import (
    BAD_TOKEN,
    INVALID_MESSAGE,
    NO_FIRST_MESSAGE,
    OTHER_LOST,
    REASONS,
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
    # What all sides read into: one chunk, which is taken out before the loop goes on.
    buffer: memoryview

    def first_message(self, side: Side, text: str) -> None:
        """Take the first message of ``side``."""

    def ready(self, side: Side, text: str) -> None:
        """Take what a spare said to the handover."""

    def left(self, side: Side, code: int, reason: str) -> None:
        """Take note that ``side`` will neither send nor take anything any more; once for each side."""

    def gone(self, side: Side) -> None:
        """Take note that the socket of ``side`` is closed; once for each side."""


class Side(Line):
    """One client of the relay.

    Threads: the relay's.
    """

    __slots__ = ("_frames", "_has_left", "_switch", "address", "grant", "group", "name", "other", "phase")

    def __init__(
        self, switch: Switch, transport: asyncio.Transport, address: str, grant: Grant | None
    ) -> None:
        super().__init__(transport, switch.limits, switch.buffer)
        self.address = address
        self.grant = grant
        self.phase = Phase.JOINING
        self.name = ""
        self.group = b""
        self.other: Other | None = None
        self._switch = switch
        self._frames = Frames()
        self._has_left = False
        self.set_timer(switch.limits.join_timeout, self._not_joined)

    def __repr__(self) -> str:
        return f"<side {self.address} {self.phase.name.lower()} {self.name!r}>"

    # What asyncio calls

    def data_received(self, data: bytes) -> None:
        """Take what has arrived."""
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
        super().pause_writing()
        if self.other is not None:
            self.other.pause()

    def resume_writing(self) -> None:
        """Let the other side go on."""
        super().resume_writing()
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
        self.stop_timer()
        self.is_gone = True
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
            self._frames.pass_on(self.limits.max_message_size)
        if begins:
            self.watch(None if self.grant is None else self.grant.expires)

    def join(self, other: Other) -> None:
        """Be half of a pair from now on; `begin` sees to what has come too early."""
        self.other = other
        if self.phase is Phase.ALONE:
            self._frames.skip()
        self.phase = Phase.PAIRED
        self._frames.pass_on(self.limits.max_message_size)
        if self.is_blocked:
            other.pause()

    def begin(self) -> None:
        """Pass on what came before both were joined, and read on."""
        if self.phase is Phase.PAIRED:
            other = self.other
            # It may be blocked from the start, by answers to its pings that it has not read: `join` has paused us then.
            if not (isinstance(other, Side) and other.is_blocked):
                self.resume()
            self._pass_on(b"")

    # What the other side of a pair calls, besides `pause` and `resume`

    def forward(self, frames: Sequence[bytes | bytearray]) -> None:
        """Send frames that come from afar."""
        if self.phase is Phase.PAIRED:
            self.write(b"".join(frames))

    def close(self, code: int, reason: str) -> None:
        """Say goodbye behind what is being sent, and let go when it is answered or the time for that is over."""
        if self.phase in (Phase.CLOSING, Phase.GONE):
            return
        code, reason = sendable(code, reason)
        self.phase = Phase.CLOSING
        self._switch.counts.count_closed(code)
        self.write(frame(CLOSE, close_payload(code, reason)))
        self._await_end()
        # From here on it is skipped, however long: it need not know yet that it was refused.
        self._frames.pass_on(self.limits.max_message_size)
        self._await_goodbye(b"")
        self.resume()
        self._leave(code, reason)

    # Inside

    def _pass_on(self, data: bytes) -> None:
        """Hand frames on to the other side: the hot path."""
        frames = self._frames
        out = frames.feed(data)
        counts = self._switch.counts
        counts.bytes_total += len(data)
        self.choose_buffer(len(data), len(out), len(frames.rest))
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
            if not self.is_blocked:
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
        elif data:
            return
        if frames.closed is not None:
            self.transport.close()
        elif frames.error is not None:
            # Nothing of what it sends can be understood any more, its goodbye neither: what ends it is its end of file.
            # Closed at once, with bytes unread, the system would reset the connection and our goodbye with it.
            self.end_writing()

    def _leave(self, code: int, reason: str) -> None:
        if not self._has_left:
            self._has_left = True
            self._switch.left(self, code, reason)

    # Time

    def _await_end(self) -> None:
        self.set_timer(self.limits.close_timeout, self.abort)

    def _not_joined(self) -> None:
        self._switch.counts.count_refused("first-message")
        self.close(NO_FIRST_MESSAGE, REASONS[NO_FIRST_MESSAGE])

    def expired(self) -> None:
        """End with the token that it came with."""
        self.close(BAD_TOKEN, REASONS[BAD_TOKEN])
