"""Before the upgrade: heads in drips, heads that are too long, and heads that are none."""

import asyncio
import errno
from typing import ClassVar

import pytest

from connman.relay import Limits, Relay
from connman.relay.door import Door
from tests.relay.rig import TEXT, Raw, frame, make, upgrade
from tests.waiting import eventually


def test_a_head_in_drips_and_what_comes_behind_it(relay: Relay) -> None:
    with Raw(relay) as raw:
        for byte in upgrade():
            raw.write(bytes((byte,)))
        assert raw.head().startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
    with Raw(relay) as raw:
        first = b'{"command":"provide","name":"device"}'
        raw.write(upgrade() + frame(TEXT, first))
        assert raw.head().startswith(b"HTTP/1.1 101 ")
        assert raw.take(24)[2:] == b'{"command":"provided"}'


def test_a_head_that_drips_too_slowly() -> None:
    with make(handshake_timeout=0.2) as relay, Raw(relay) as raw:
        raw.write(upgrade()[:50])
        assert raw.is_at_end()
        assert relay.snapshot().refused == {"handshake": 1}
        eventually(lambda: relay.snapshot().connections == 0)


def test_a_client_that_says_nothing() -> None:
    with make(handshake_timeout=0.2) as relay, Raw(relay) as raw:
        assert raw.is_at_end()


def test_a_head_without_end(relay: Relay) -> None:
    with Raw(relay) as raw:
        raw.write(upgrade()[:-2] + b"x: " + b"y" * 16384)
        assert raw.answer()[0] == 431
        assert raw.is_at_end()
    with Raw(relay) as raw:
        raw.write(b"\x00" * 17000)
        assert raw.answer()[0] == 431
    assert relay.snapshot().refused == {"head": 2}


def test_a_refusal_arrives_though_more_was_sent_than_read(relay: Relay) -> None:
    with Raw(relay) as raw:
        raw.write(b"POST / HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n" + bytes(1 << 20))
        status, headers, body = raw.answer()
        assert (status, headers["allow"], headers["connection"], body) == (405, "GET", "close", "only GET\n")


@pytest.mark.slow
def test_a_client_that_is_refused_and_stays_is_dropped(relay: Relay) -> None:
    with Raw(relay) as raw:
        raw.write(b"GET / HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
        status, headers, _ = raw.answer()
        assert (status, headers["upgrade"]) == (426, "websocket")
        assert raw.is_at_end()
        eventually(lambda: relay.snapshot().connections == 0)


def test_a_client_that_leaves_before_its_upgrade(relay: Relay) -> None:
    with Raw(relay) as raw:
        raw.write(b"GET / HT")
        eventually(lambda: relay.snapshot().connections == 1)
    eventually(lambda: relay.snapshot().connections == 0)


class _Gone(asyncio.Transport):
    """A client that has gone before the relay knows of it."""

    is_aborted = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        pass

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        raise OSError(errno.ENOTCONN, "gone")

    def abort(self) -> None:
        self.is_aborted = True


def test_a_refused_client_that_is_gone_is_dropped() -> None:
    class Porter:
        limits = Limits()
        whys: ClassVar[list[str]] = []

        def refused(self, why: str) -> None:
            self.whys.append(why)

        def door_gone(self, _door: Door) -> None:
            self.whys.append("gone")

    async def main() -> None:
        transport = _Gone()
        door = Door(Porter(), "127.0.0.1")  # type: ignore[arg-type]
        door.connection_made(transport)
        door.data_received(b"nonsense\r\n\r\n")
        assert transport.is_aborted
        door.connection_lost(None)
        assert Porter.whys == ["head", "gone"]

    asyncio.run(main())
