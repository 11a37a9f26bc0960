"""Relays of a cluster without sockets and without Redis: their links over a bus in memory, one batch at a time."""

from collections import deque
from collections.abc import Callable, Sequence

from connman.relay.cluster.link import Link
from connman.relay.cluster.links import Links
from connman.relay.cluster.pair import RemoteSide


class FakeSide:
    """A local side: keeps what it is told, and may be a slow reader."""

    def __init__(self) -> None:
        self.other: RemoteSide | None = None
        self.pieces: list[bytes] = []
        self.size = 0
        self.closes: list[tuple[int, str]] = []
        self.is_paused = False

    def forward(self, frames: Sequence[bytes | bytearray]) -> None:
        assert not self.closes, "a frame behind the close"
        self.pieces.append(b"".join(frames))
        self.size += len(self.pieces[-1])

    def close(self, code: int, reason: str) -> None:
        self.closes.append((code, reason))

    def pause(self) -> None:
        self.is_paused = True

    def resume(self) -> None:
        self.is_paused = False

    @property
    def data(self) -> bytes:
        return b"".join(self.pieces)


class FakeClaims:
    """Grants each claim at once, unless it is told to wait."""

    def __init__(self) -> None:
        self.waits = False
        self.claims: list[tuple[Link, int, str]] = []
        self.cancels: list[int] = []
        self.refusals: list[tuple[int, int, str]] = []
        self.granted_sides: dict[int, RemoteSide] = {}
        self.served: list[FakeSide] = []
        self.spares = 10**6

    def claimed(self, link: Link, key: int, name: str) -> None:
        self.claims.append((link, key, name))
        if not self.waits:
            self.answer(link, key)

    def answer(self, link: Link, key: int) -> FakeSide | None:
        if not self.spares:
            link.refuse(key, 4104, "no provider of that name")
            return None
        remote = link.grant(key)
        if remote is None:
            return None
        self.spares -= 1
        side = FakeSide()
        side.other = remote
        remote.attach(side)
        self.served.append(side)
        return side

    def cancelled(self, link: Link, key: int) -> None:
        self.cancels.append(key)

    def granted(self, link: Link, key: int, side: RemoteSide) -> None:
        self.granted_sides[key] = side

    def refused(self, link: Link, key: int, code: int, reason: str) -> None:
        self.refusals.append((key, code, reason))


class Node:
    """A relay: its links and its claims."""

    def __init__(self, number: int, wake: Callable[[], None] = lambda: None) -> None:
        self.id = number.to_bytes(8, "big")
        self.claims = FakeClaims()
        self.links = Links(self.id, self.claims, wake)
        self.inbox: deque[bytes] = deque()


class Bus:
    """Stands for Redis: hands batches over when it is told to, loses what it is told to."""

    def __init__(self, count: int = 2) -> None:
        self.nodes = [Node(number + 1) for number in range(count)]
        self.by_id = {node.id: node for node in self.nodes}

    def publish(self, node: Node) -> int:
        """Take a round of a relay's batches to the inboxes of the others; tell it of those that nobody listens for."""
        batches = node.links.take()
        for there, batch in batches:
            if there in self.by_id:
                self.by_id[there].inbox.append(batch)
            else:
                node.links.lost(there)
        return len(batches)

    def deliver(self, node: Node) -> bool:
        """Hand a relay the next batch."""
        if not node.inbox:
            return False
        node.links.receive(node.inbox.popleft())
        return True

    def settle(self) -> None:
        """Carry everything, until nobody has anything to say."""
        busy = True
        while busy:
            busy = False
            for node in self.nodes:
                busy = bool(self.publish(node)) or busy
                while self.deliver(node):
                    busy = True

    def beat(self) -> None:
        """Let a beat pass on every relay."""
        for node in self.nodes:
            node.links.tick()
        self.settle()

    def pair(self, caller: int = 0, owner: int = 1) -> tuple[FakeSide, FakeSide]:
        """Join a caller of one relay with a spare of another."""
        here, there = self.nodes[caller], self.nodes[owner]
        key = here.links.to(there.id).claim("device")
        self.settle()
        side = FakeSide()
        side.other = here.claims.granted_sides.pop(key)
        side.other.attach(side)
        return side, there.claims.served[-1]


def send(side: FakeSide, *frames: bytes) -> None:
    """Let the client of a side send frames; to a pair their heads are bytes as any."""
    assert side.other is not None
    side.other.forward([part for frame in frames for part in (frame[:1], frame[1:])])
