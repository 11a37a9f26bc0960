"""Two peers that are joined as by a relay, in memory; and one peer whose other side is frames that a test writes."""

import itertools
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Self

from tenacity import wait_none

from connman import Connection, ConnmanError
from connman.rpc import Peer
from connman.testing import Peer as FarEnd
from connman.testing import ScriptedDialer

PATIENCE = 10.0  # seconds that only a failing test reaches

Frame = str | bytes


class Raw:
    """The other side of a peer, as frames."""

    def __init__(self, far: FarEnd, peer: Peer) -> None:
        self.far = far
        self.peer = peer

    def send(self, *frames: Any) -> None:
        for frame in frames:
            self.far.send(frame if isinstance(frame, Frame) else json.dumps(frame))

    def recv(self) -> Any:
        """Return the next frame: what its JSON says, or bytes."""
        frame = self.far.recv(PATIENCE)
        return json.loads(frame) if isinstance(frame, str) else frame

    def recv_all(self, count: int) -> list[Any]:
        return [self.recv() for _ in range(count)]


@contextmanager
def raw(*, is_deaf: bool = False, **options: Any) -> Iterator[Raw]:
    """Open a peer, and hold its other side, which reads nothing if it is deaf."""
    dialer = ScriptedDialer([ScriptedDialer.DEAF if is_deaf else ScriptedDialer.OPEN])
    own = {name: options.pop(name) for name in ("services", "call_timeout") if name in options}
    with Connection(dialer, reconnect=False, **options) as conn:
        peer = Peer(conn, **own)
        yield Raw(dialer.next_peer(), peer)
        peer.close()


class Wire:
    """What carries frames between two peers: it notes them, and can be held up and cut.

    ``frames``: (from "a" or "b", frame) in the order in which they were passed on.
    """

    def __init__(self) -> None:
        self.frames: list[tuple[str, Frame]] = []
        self.ends: dict[str, FarEnd] = {}
        self.alter: Callable[[str, Frame], Frame | None] = lambda _side, frame: frame
        self._may_pass = threading.Event()
        self._may_pass.set()

    def carry(self, side: str, source: FarEnd, sink: FarEnd) -> None:
        try:
            while True:
                frame = source.recv(3600)
                self._may_pass.wait(PATIENCE)
                self.frames.append((side, frame))
                altered = self.alter(side, frame)
                if altered is not None:
                    sink.send(altered)
        except ConnmanError:
            sink.drop()

    def texts(self, side: str) -> list[dict[str, Any]]:
        return [
            json.loads(frame)
            for where, frame in list(self.frames)
            if where == side and isinstance(frame, str)
        ]

    def hold(self) -> None:
        self._may_pass.clear()

    def let_go(self) -> None:
        self._may_pass.set()

    def cut(self) -> None:
        for end in self.ends.values():
            end.drop()


@contextmanager
def wired(**options: Any) -> Iterator[tuple[Peer, Peer, Wire]]:
    """Open two peers, "a" and "b", that reach each other."""
    with ExitStack() as stack:
        wire = Wire()
        peers = []
        for side in "ab":
            dialer = ScriptedDialer([ScriptedDialer.OPEN])
            conn = stack.enter_context(Connection(dialer, reconnect=False, name=side, **options))
            peers.append(Peer(conn))
            wire.ends[side] = dialer.next_peer()
        ends = wire.ends["a"], wire.ends["b"]
        threads = [
            threading.Thread(target=wire.carry, args=("a", *ends)),
            threading.Thread(target=wire.carry, args=("b", *reversed(ends))),
        ]
        for thread in threads:
            thread.start()
        try:
            yield peers[0], peers[1], wire
        finally:
            wire.let_go()
            for peer in peers:
                peer.close()
            for thread in threads:
                thread.join(PATIENCE)


class Rewired:
    """Two peers "a" and "b" that reach each other again each time their path was cut; a with-block."""

    def __init__(self) -> None:
        self.cuts = 0
        self._dialers = [ScriptedDialer(itertools.repeat(ScriptedDialer.OPEN)) for _ in "ab"]
        options: dict[str, Any] = {"wait": wait_none(), "stable_after": 0}
        self._conns = [Connection(dialer, **options) for dialer in self._dialers]
        self.a, self.b = (Peer(conn) for conn in self._conns)
        self._is_over = threading.Event()
        self._wire = Wire()
        self._thread = threading.Thread(target=self._pair_loop)

    def _pair_loop(self) -> None:
        while not self._is_over.is_set():
            with suppress(AssertionError):  # nobody has come
                ends = self._dialers[0].next_peer(0.1), self._dialers[1].next_peer(PATIENCE)
                self._wire = wire = Wire()
                wire.ends = {"a": ends[0], "b": ends[1]}
                back = threading.Thread(target=wire.carry, args=("b", *reversed(ends)))
                back.start()
                wire.carry("a", *ends)
                back.join()

    def cut(self) -> None:
        self.cuts += 1
        self._wire.cut()

    def __enter__(self) -> Self:
        self._thread.start()
        for conn in self._conns:
            conn.wait_open(PATIENCE)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._is_over.set()
        for conn in self._conns:
            conn.disconnect()
        self._thread.join(PATIENCE)
