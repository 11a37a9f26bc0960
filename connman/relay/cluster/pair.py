"""A pair whose two sides are on two machines, as each of the two relays sees it."""

from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

from connman.relay.cluster import wire

if TYPE_CHECKING:
    from connman.relay.cluster.link import Link

PIECE: Final = (
    64 * 1024
)  # a longer frame crosses as fragments, so that none holds up the others or fills a batch
FRAME_COST: Final = 16  # what a frame counts beside its bytes: empty ones cost memory as well
WINDOW: Final = 256 * 1024  # what may be under way to a slow reader, in each direction of each pair
CONTINUATION: Final = 0


class LocalSide(Protocol):
    """A socket of this relay, as far as a pair needs it."""

    def forward(self, opcode: int, fin: bool, payload: bytes) -> None:
        """Send a frame."""

    def close(self, code: int, reason: str) -> None:
        """Close with a code and a reason, once."""

    def pause(self) -> None:
        """Stop reading from the socket."""

    def resume(self) -> None:
        """Read again."""


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

    def __init__(self, link: "Link", key: int, credit: int) -> None:
        self._link = link
        self._key = key
        self._near: LocalSide | None = None
        self._credit = credit  # what may still be sent
        self._owed = 0  # what the near side has taken and the far side has no credit for yet
        self._queue: deque[tuple[int, bool, memoryview]] = deque()  # what waits for credit
        self._held: list[tuple[int, bool, bytes]] = []  # what came before the near side was attached
        self._is_open = True
        self._is_paused = False
        self._closing: bytes | None = None  # goes out behind the queue
        self._ended: tuple[int, str] | None = None  # came before the near side was attached
        self.is_waiting = False  # in the link's round of those with something to send
        self.idle_ticks = 0

    # What the relay does with it

    def attach(self, near: LocalSide) -> None:
        """Name the near side: from now on it gets the far side's frames, first those that are here already."""
        self._near = near
        held, self._held = self._held, []
        for opcode, fin, payload in held:
            self.deliver(opcode, fin, payload)
        if self._ended:
            self._near = None
            near.close(*self._ended)

    def forward(self, opcode: int, fin: bool, payload: bytes) -> None:
        """Send a frame of the near side to the far one."""
        cost = len(payload) + FRAME_COST
        if (
            self._queue
            or cost > self._credit
            or len(payload) > PIECE
            or not self._is_open
            or not self._link.send_frame(wire.FRAME | fin << 4 | opcode, self._key, payload)
        ):
            self._hold_back(opcode, fin, payload)
        else:
            self._credit -= cost

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

    def deliver(self, opcode: int, fin: bool, payload: bytes) -> None:
        """Hand a frame of the far side to the near one."""
        near = self._near
        if near is None:
            if self._is_open:
                self._held.append((opcode, fin, payload))
            return
        near.forward(opcode, fin, payload)
        self._owed += len(payload) + FRAME_COST
        # In large portions: a message of credit for each frame would be as many again.
        if self._owed >= WINDOW // 4 and not self._is_paused:
            self._give_credit()

    def credited(self, amount: int) -> None:
        """Send on: the far side has taken so much."""
        self._credit += amount
        self.idle_ticks = 0
        if self._queue:
            self._link.wait_turn(self)

    def send_one(self) -> bool:
        """Send one piece of what waits, when credit and link allow it; return whether it did."""
        opcode, fin, payload = self._queue[0]
        room = self._credit - FRAME_COST
        size = min(len(payload), PIECE)
        if room < size and room < PIECE // 4:
            return False  # no crumbs: it waits for a piece's worth of credit
        size = min(size, room)
        is_last = size == len(payload)
        kind = wire.FRAME | (fin and is_last) << 4 | opcode
        if not self._link.send_frame(kind, self._key, payload[:size]):
            return False
        self._credit -= size + FRAME_COST
        if is_last:
            self._queue.popleft()
        else:
            self._queue[0] = (CONTINUATION, fin, payload[size:])
        if not self._queue:
            self._drained()
        return True

    @property
    def is_ready(self) -> bool:
        """Whether something waits that its credit allows."""
        if not self._queue:
            return False
        room = self._credit - FRAME_COST
        return room >= min(len(self._queue[0][2]), PIECE // 4)

    @property
    def is_lingering(self) -> bool:
        """Whether the near side has gone and its last frames still wait for credit."""
        return self._closing is not None

    def give_up(self) -> None:
        """Close without the frames that wait: the far side takes none."""
        self._queue.clear()
        self._finish()

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

    def _hold_back(self, opcode: int, fin: bool, payload: bytes) -> None:
        if not self._is_open:
            return  # the near side speaks on after its end; nobody hears it
        self._queue.append((opcode, fin, memoryview(payload)))  # cut without a copy
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

    def _give_credit(self) -> None:
        if self._owed and self._is_open:
            self._link.send(wire.CREDIT, self._key, wire.NUMBER.pack(self._owed))
            self._owed = 0
