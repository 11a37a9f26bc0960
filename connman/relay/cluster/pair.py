"""A pair whose two sides are on two machines, as each of the two relays sees it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from connman.relay.broker import Other
from connman.relay.cluster import wire

if TYPE_CHECKING:
    from connman.relay.cluster.link import Link

PIECE: Final = 64 * 1024  # frames that go together: so no pair holds up the others for long
COST: Final = 16  # what a piece counts beside its bytes: small ones cost memory as well
WINDOW: Final = 256 * 1024  # what may be under way to a slow reader, in each direction of each pair


class RemoteSide:
    """The far side of a pair: a socket of another relay, to be forwarded to like one of this relay.

    Frames go out while the far side's credit lasts. What is beyond it waits here, and the near side is not read from
    meanwhile: what waits is what was read before the pause took hold. Credit is given back when the near side has
    taken a frame, and not while its own buffer is full. So whatever a reader does, at most `WINDOW` bytes of its pair
    are in the broker and in its relay.

    Threads: belongs to the relay's loop, as everything here.
    """

    __slots__ = (
        "_closing",
        "_credit",
        "_ended",
        "_held",
        "_is_open",
        "_is_paused",
        "_key",
        "_link",
        "_near",
        "_owed",
        "_queue",
        "idle_ticks",
        "is_waiting",
    )

    def __init__(self, link: Link, key: int, credit: int) -> None:
        self._link = link
        self._key = key
        self._near: Other | None = None
        self._credit = credit  # what may still be sent
        self._owed = 0  # what has come and the far side has not been given credit for again
        self._queue: deque[bytes] = deque()  # what waits for credit
        self._held: list[bytes] = []  # what came before the near side was attached
        self._is_open = True
        self._is_paused = False
        self._closing: bytes | None = None  # goes out behind the queue
        self._ended: tuple[int, str] | None = None  # came before the near side was attached
        self.is_waiting = False  # in the link's round of those with something to send
        self.idle_ticks = 0

    # What the relay does with it

    def attach(self, near: Other) -> None:
        """Name the near side: from now on it gets the far side's frames, first those that are here already."""
        self._near = near
        held, self._held = self._held, []
        for frames in held:
            near.forward((frames,))
        self._return_credit()
        if self._ended:
            self._near = None
            near.close(*self._ended)

    def forward(self, frames: Sequence[bytes | bytearray]) -> None:
        """Send frames of the near side to the far one: head, payload, head, payload and so on."""
        if self._is_open:  # else the near side speaks on after its end; nobody hears it
            for piece in pieces(frames):
                self._pass_on(piece)

    def close(self, code: int, reason: str) -> None:
        """Say that the near side has gone: the far side is closed with this behind the frames that wait."""
        if self._is_open:
            self._is_open = False
            self._near = None
            self._held.clear()
            self._closing = wire.pack_closing(code, reason)
            if not self._queue:
                self._finish()

    def pause(self) -> None:
        """Have the far relay stop reading when its credit is used up: the near side's buffer is full."""
        self._is_paused = True

    def resume(self) -> None:
        """Give credit again."""
        self._is_paused = False
        self._give_credit()

    # What the link does with it

    def deliver(self, frames: bytes) -> None:
        """Hand frames of the far side to the near one.

        Raises:
            BadBatch: it had no credit for them: what a slow reader has not taken would pile up.
        """
        self._owed += len(frames) + COST
        if self._owed > WINDOW:
            raise wire.BadBatch("frames beyond the credit")
        near = self._near
        if near is not None:
            near.forward((frames,))
            self._return_credit()
        elif self._is_open:
            self._held.append(frames)

    def credited(self, amount: int) -> None:
        """Send on: the far side has taken so much."""
        self._credit += amount
        self.idle_ticks = 0
        if self._queue:
            self._link.wait_turn(self)

    def send_one(self) -> bool:
        """Send a piece of those that wait; return whether the link had room for it."""
        frames = self._queue[0]
        if not self._link.send_frames(self._key, frames):
            return False
        self._credit -= len(frames) + COST
        self._queue.popleft()
        if not self._queue:
            self._drained()
        return True

    @property
    def is_ready(self) -> bool:
        """Whether something waits that its credit allows."""
        return bool(self._queue) and len(self._queue[0]) + COST <= self._credit

    @property
    def is_lingering(self) -> bool:
        """Whether the near side has gone and its last frames still wait for credit."""
        return self._closing is not None

    def give_up(self) -> None:
        """Close without the frames that wait: the far side takes none."""
        self._queue.clear()
        self._finish()

    def part(self, code: int, reason: str) -> None:
        """Close both sides: their relay stops."""
        near = self._near
        self.close(code, reason)
        if near is not None:
            near.close(code, reason)

    def ended(self, code: int, reason: str) -> None:
        """Close the near side: the far one has gone, or the way to it. The link has forgotten the pair already."""
        was_open, self._is_open = self._is_open, False
        self._queue.clear()
        self._closing = None
        near, self._near = self._near, None
        if near is not None:
            near.close(code, reason)
        elif was_open:
            self._ended = (code, reason)

    def _pass_on(self, frames: bytes) -> None:
        cost = len(frames) + COST
        if not self._queue and cost <= self._credit and self._link.send_frames(self._key, frames):
            self._credit -= cost
            return
        self._queue.append(frames)
        if len(self._queue) == 1 and self._near is not None:
            self._near.pause()
        if self.is_ready:
            self._link.wait_turn(self)

    def _drained(self) -> None:
        if self._closing is not None:
            self._finish()
        elif self._near is not None:
            self._near.resume()

    def _finish(self) -> None:
        closing, self._closing = self._closing, None
        assert closing is not None
        self._link.send(wire.CLOSE, self._key, closing)
        self._link.forget(self._key)

    def _return_credit(self) -> None:
        # In large portions: a message of credit for each piece would be as many again.
        if self._owed >= WINDOW // 4 and not self._is_paused:
            self._give_credit()

    def _give_credit(self) -> None:
        if self._owed and self._is_open:
            self._link.send(wire.CREDIT, self._key, wire.NUMBER.pack(self._owed))
            self._owed = 0


def pieces(frames: Sequence[bytes | bytearray]) -> Iterator[bytes]:
    """Join frames to pieces, none longer than `PIECE` but for a single frame; no frame is cut."""
    data = b"".join(frames)
    if len(data) <= PIECE:
        yield data
        return
    begin = size = 0
    for number in range(0, len(frames), 2):
        length = sum(map(len, frames[number : number + 2]))
        if size and size + length > PIECE:
            yield b"".join(frames[begin:number])
            begin, size = number, 0
        size += length
    yield b"".join(frames[begin:])
