"""What two relays have between them: batches in their order, both ways, and the claims and pairs that ride on them.

Pure: no I/O and no clock. A `Link` is one life of the way between two relays: when a batch was lost, or one of the two
has begun anew, it ends with all that rode on it, and another one takes its place (`Links`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from connman.relay.cluster import wire
from connman.relay.cluster.pair import WINDOW, RemoteSide
from connman.relay.wire import OTHER_LOST, REASONS

BATCH: Final = 128 * 1024  # a batch ends with the message that reaches this
# Frames, in bytes, after which the other relay is told that they were taken in.
TAKEN_EVERY: Final = 64 * 1024
LINGER_TICKS: Final = 10  # how long the last frames of a pair that has ended wait for a slow reader


class Claims(Protocol):
    """Who decides about claims: the relay's own, and those of other relays on its spares."""

    def claimed(self, link: Link, key: int, name: str) -> None:
        """Answer a claim of the other relay, now or later, by `link.grant` or `link.refuse`."""

    def cancelled(self, link: Link, key: int) -> None:
        """Forget a claim of the other relay: its caller has gone."""

    def granted(self, link: Link, key: int, side: RemoteSide) -> None:
        """Take the far side that was claimed."""

    def refused(self, link: Link, key: int, code: int, reason: str) -> None:
        """Learn that a claim of this relay got nothing."""


class Link:
    """One life of the way between this relay and another one."""

    def __init__(
        self,
        here: bytes,
        there: bytes,
        *,
        epoch: int,
        window: int,
        claims: Claims,
        wake: Callable[[Link], None],
    ) -> None:
        self.there = there
        self.epoch = epoch
        self.peer_epoch = 0  # not heard from yet
        self.pairs: dict[int, RemoteSide] = {}
        self.asked: set[int] = set()  # claims of this relay that have no answer yet
        # Claims of the other relay without an answer, with the credit of each.
        self.serving: dict[int, int] = {}
        self.heard_ticks = 0  # since it was last heard from
        self._is_needed_there = False
        self._said_needed = False
        self._here = here
        self._window = window
        self._claims = claims
        self._wake = wake
        self._number = 0  # of the next batch
        self._expected = 0  # number of the next batch from there
        self._next_key = 0
        self._out: list[bytes] = []
        self._out_size = 0
        self._sent = 0  # frames given to the link, in bytes
        self._acknowledged = 0  # of these, what the other relay has taken in
        self._taken = 0  # frames taken in from there, in bytes
        self._told = 0  # what it was told of these
        self._turns: deque[RemoteSide] = deque()  # pairs whose frames wait for room on the link

    @property
    def is_needed(self) -> bool:
        """Whether anything rides on it."""
        return bool(self.pairs or self.asked or self.serving)

    # Sending

    def send(self, kind: int, key: int, body: bytes = b"") -> None:
        """Send a message that is no frame; those are few, and their number is bounded by the pairs'."""
        self._append(wire.message(kind, key, body))
        self._wake(self)

    def send_frames(self, key: int, frames: bytes) -> bool:
        """Send frames, unless too much is under way to the other relay; return whether they were taken."""
        size = len(frames) + wire.MESSAGE.size
        if self._sent - self._acknowledged + size > self._window:
            return False
        self._sent += size
        self._out.append(wire.MESSAGE.pack(wire.FRAMES, key, len(frames)))
        self._out.append(frames)
        self._out_size += size
        self._wake(self)
        return True

    def wait_turn(self, side: RemoteSide) -> None:
        """Call the side's `send_one` when there is room."""
        if not side.is_waiting:
            side.is_waiting = True
            self._turns.append(side)
            self._take_turns()

    def claim(self, name: str) -> int:
        """Ask the other relay for a spare of a name; the answer comes under the returned key."""
        key, self._next_key = self._next_key, (self._next_key + 2) & 0xFFFFFFFF
        self.asked.add(key)
        self.send(wire.CLAIM, key, wire.pack_claim(WINDOW, name))
        return key

    def cancel(self, key: int) -> None:
        """Take a claim back that has no answer yet."""
        if key in self.asked:
            self.asked.discard(key)
            self.send(wire.CANCEL, key)

    def grant(self, key: int) -> RemoteSide | None:
        """Answer a claim of the other relay; return its caller's side, None when the caller has gone meanwhile."""
        credit = self.serving.pop(key, None)
        if credit is None:
            return None
        side = self.pairs[key] = RemoteSide(self, key, credit)
        self.send(wire.GRANT, key, wire.NUMBER.pack(WINDOW))
        return side

    def refuse(self, key: int, code: int, reason: str) -> None:
        """Answer a claim of the other relay: there is no spare for it."""
        if self.serving.pop(key, None) is not None:
            self.send(wire.REFUSE, key, wire.pack_closing(code, reason))

    def forget(self, key: int) -> None:
        """Have no more of a pair."""
        self.pairs.pop(key, None)

    # Batches

    @property
    def has_batch(self) -> bool:
        """Whether there is something to send."""
        return bool(self._out)

    def take_batch(self) -> bytes:
        """Return the next batch; an empty one says that this relay lives, and what it has taken in."""
        out = self._out
        if self._out_size <= BATCH:
            self._out, self._out_size = [], 0
        else:
            size = count = 0
            while size < BATCH:
                size += len(out[count])
                count += 1
            self._out, out = out[count:], out[:count]
            self._out_size -= size
        self._told = self._taken
        self._said_needed = self.is_needed
        header = wire.Header(
            self._here, self.epoch, self.peer_epoch, self._number, self._taken, is_needed=self._said_needed
        )
        self._number = (self._number + 1) & 0xFFFFFFFF
        return wire.pack(header, out)

    def follows(self, header: wire.Header) -> bool:
        """Return whether a batch is the next one of this life of the link."""
        return (
            header.epoch == self.peer_epoch
            and header.number == self._expected
            and header.peer_epoch in (0, self.epoch)
        )

    def receive(self, header: wire.Header, batch: bytes) -> None:
        """Take in a batch that follows.

        Raises: BadBatch when something in it makes no sense; what came before that is done.
        """
        self._expected = (header.number + 1) & 0xFFFFFFFF
        self.heard_ticks = 0
        self._is_needed_there = header.is_needed
        news = (header.taken - self._acknowledged) & 0xFFFFFFFF
        if news > self._sent - self._acknowledged:
            raise wire.BadBatch("more taken in than was sent")
        self._acknowledged += news
        unpack, head = wire.MESSAGE.unpack_from, wire.MESSAGE.size
        pairs = self.pairs
        offset, end = wire.HEADER.size, len(batch)
        while offset < end:
            if end - offset < head:
                raise wire.BadBatch("half a message")
            kind, key, size = unpack(batch, offset)
            offset += head
            body = batch[offset : offset + size]
            if len(body) != size:
                raise wire.BadBatch("half a message")
            offset += size
            if kind == wire.FRAMES:
                self._taken += head + size
                # A pair that is not known has ended here, and its close is under way.
                if (side := pairs.get(key ^ 1)) is not None:
                    side.deliver(body)
            else:
                self._take_message(kind, key ^ 1, body)
        if self._taken - self._told >= TAKEN_EVERY:
            self._wake(self)  # an empty batch, if there is nothing else
        if news:
            self._take_turns()

    @property
    def owes_news(self) -> bool:
        """Whether the other relay waits to hear what was taken in."""
        return self._taken - self._told >= TAKEN_EVERY

    def tick(self) -> bool:
        """Let a beat pass; return whether a batch should go out: a sign of life, and a look whether the other lives."""
        self.heard_ticks = self.heard_ticks + 1 if self.is_needed else 0
        for side in [side for side in self.pairs.values() if side.is_lingering]:
            side.idle_ticks += 1
            if side.idle_ticks >= LINGER_TICKS:
                side.give_up()
        # The other relay may have a pair that has ended here: its close was lost, and the next number tells it so.
        return self.is_needed or self._is_needed_there or self._said_needed

    def leave(self, code: int, reason: str) -> None:
        """End its pairs with a word to both sides: this relay stops."""
        for side in list(self.pairs.values()):
            side.part(code, reason)

    def end(self, code: int, reason: str) -> None:
        """End all that rides on it: the way is broken."""
        pairs, self.pairs = self.pairs, {}
        asked, self.asked = self.asked, set()
        serving, self.serving = self.serving, {}
        self._out, self._out_size = [], 0
        self._turns.clear()
        for key in serving:
            self._claims.cancelled(self, key)
        for key in asked:
            self._claims.refused(self, key, code, reason)
        for side in pairs.values():
            side.ended(code, reason)

    def _append(self, message: bytes) -> None:
        self._out.append(message)
        self._out_size += len(message)

    def _take_turns(self) -> None:
        # One piece each, round after round, so that one that sends much delays the other pairs by a piece.
        turns = self._turns
        while turns:
            side = turns.popleft()
            if side.is_ready and not side.send_one():
                turns.appendleft(side)
                return
            if side.is_ready:
                turns.append(side)
            else:
                side.is_waiting = False

    def _take_message(self, kind: int, key: int, body: bytes) -> None:
        match kind:
            case wire.CREDIT:
                amount = wire.unpack_number(body)
                if (side := self.pairs.get(key)) is not None:
                    side.credited(amount)
            case wire.CLOSE:
                closing = wire.unpack_closing(body)
                if (side := self.pairs.pop(key, None)) is not None:
                    side.ended(*closing)
            case wire.CLAIM:
                credit, name = wire.unpack_claim(body)
                if not key & 1 or key in self.serving or key in self.pairs:
                    raise wire.BadBatch("a claim under a number that is taken")
                self.serving[key] = credit
                self._claims.claimed(self, key, name)
            case wire.GRANT:
                self._granted(key, wire.unpack_number(body))
            case wire.REFUSE:
                closing = wire.unpack_closing(body)
                if key in self.asked:
                    self.asked.discard(key)
                    self._claims.refused(self, key, *closing)
            case wire.CANCEL:
                self._cancelled(key)
            case _:
                raise wire.BadBatch(f"a message of the kind {kind}")

    def _granted(self, key: int, credit: int) -> None:
        if key in self.asked:  # else it was taken back, and the other relay learns so
            self.asked.discard(key)
            side = self.pairs[key] = RemoteSide(self, key, credit)
            self._claims.granted(self, key, side)

    def _cancelled(self, key: int) -> None:
        if self.serving.pop(key, None) is not None:
            self._claims.cancelled(self, key)
        elif (side := self.pairs.pop(key, None)) is not None:
            side.ended(OTHER_LOST, REASONS[OTHER_LOST])  # granted meanwhile
