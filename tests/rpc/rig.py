"""Peers whose other side is the test: as raw frames, or as a second peer in the same process."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Self

from connman import Connection
from connman.clock import SystemClock
from connman.rpc import Peer, PeerStats
from connman.rpc.wire import size_of
from connman.testing import FakeClock, ScriptedDialer
from connman.testing.dialer import Peer as Far
from connman.transport.base import Dial, Transport
from connman.transport.memory import memory_pair
from tests.transport.pipes import socket_pair
from tests.waiting import eventually

PATIENCE = 10.0  # seconds that only a failing test reaches


class Wired:
    """A peer named "wired", and the far end of its connection as frames. Leaving the with-block ends it.

    `script`: see `ScriptedDialer`. `clock`: a `FakeClock` moves only when told.
    """

    def __init__(
        self,
        services: Mapping[int | str, Any] | None = None,
        *,
        script: Any = (ScriptedDialer.OPEN,),
        clock: FakeClock | None = None,
        peer: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        self.dialer = ScriptedDialer(script)
        defaults = {"reconnect": False, "ping_interval": None, "name": "wired", "clock": clock}
        self.conn = Connection(self.dialer, **{**defaults, **options})
        self.peer = Peer(self.conn, services=services, **(peer or {}))
        self.far: Far = None  # type: ignore[assignment]
        self._due = 0  # bytes that the peer will have received when it has taken what was said

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.peer.close(timeout=1.0)

    def open(self) -> Far:
        """Wait until it is open (again), and return the new far end."""
        self.conn.wait_open(PATIENCE)
        self.far = self.dialer.next_peer()
        self._due = self.peer.stats.bytes_received
        return self.far

    def say(self, *messages: Any) -> None:
        """Send frames to the peer: bytes and texts as they are, anything else as JSON."""
        for message in messages:
            frame = message if isinstance(message, str | bytes) else json.dumps(message)
            self._due += size_of(frame)
            self.far.send(frame)

    def hear(self) -> Any:
        """Return what the peer sends next: JSON, or bytes."""
        frame = self.far.recv(PATIENCE)
        return json.loads(frame) if isinstance(frame, str) else frame

    def ask(self, service: object, *args: Any, number: int = 0, **fields: Any) -> Any:
        """Send a request and return what the peer answers."""
        self.say({"requestId": number, "type": "request", "serviceId": service, "args": list(args), **fields})
        return self.hear()

    def ask_raw(self, **fields: Any) -> Any:
        """Send a request with these fields alone and return what the peer answers."""
        self.say({"type": "request", **fields})
        return self.hear()

    def mark(self) -> PeerStats:
        """Wait until everything that was said has been taken, and return the stats then."""
        self.say({"responseId": "mark", "type": "data"})
        # Counted one by one, before each is taken: with the bytes of the mark everything before it is dealt with.
        eventually(lambda: self.peer.stats.bytes_received == self._due, PATIENCE)
        return self.peer.stats


class Given:
    """A target that opens a transport which is there already, once."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def dial(self, dial: Dial) -> Transport:
        return self._transport


class Pair:
    """Two peers, `here` and `there`, joined in memory, or by sockets. Leaving the with-block ends both."""

    def __init__(
        self,
        services: Mapping[int | str, Any] | None = None,
        *,
        over_sockets: bool = False,
        here: Mapping[int | str, Any] | None = None,
        **options: Any,
    ) -> None:
        ends = socket_pair(SystemClock()) if over_sockets else memory_pair(SystemClock(), 1 << 24)
        self.here, self.there = (
            Peer(
                Connection(Given(end), reconnect=False, ping_interval=None, name=name),
                services=services if name == "there" else here,
                **options,
            )
            for end, name in zip(ends, ("here", "there"), strict=True)
        )

    def __enter__(self) -> Self:
        self.here.conn.wait_open(PATIENCE)
        self.there.conn.wait_open(PATIENCE)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.here.close(timeout=1.0)
        self.there.close(timeout=1.0)
