"""Counters: generations are summed, the present one comes on top."""

from types import SimpleNamespace
from typing import Any

from connman.connection.counters import Counters
from connman.errors import ConnectionLost
from tests.connection.rig import OPEN, Rig


def transport(**numbers: Any) -> Any:
    return SimpleNamespace(
        **{"messages_out": 0, "bytes_in": 0, "bytes_out": 0, "lent": 0, "ping_rtt": None, **numbers}
    )


def test_transports_are_summed() -> None:
    counters = Counters()
    counters.add(transport(messages_out=1, bytes_in=20, bytes_out=300))
    counters.add(transport(messages_out=2, bytes_in=10, bytes_out=100))
    assert (counters.messages_out, counters.bytes_in, counters.bytes_out) == (3, 30, 400)


def test_the_newest_round_trip_that_was_measured_counts() -> None:
    counters = Counters()
    counters.add(transport(ping_rtt=0.5))
    counters.add(transport(ping_rtt=0.25))
    counters.add(transport())
    assert counters.ping_rtt == 0.25


def test_a_snapshot_has_all_of_it_and_does_not_change() -> None:
    counters = Counters(opens=3, losses=2, failed_attempts=1)
    counters.add(transport(messages_out=4, bytes_in=5, bytes_out=6, ping_rtt=0.1, lent=10))
    stats = counters.snapshot(7, 8, ConnectionLost("gone"), 9.0)
    counters.opens = 100
    assert (stats.opens, stats.losses, stats.failed_attempts) == (3, 2, 1)
    assert (stats.messages_in, stats.messages_out, stats.bytes_in, stats.bytes_out) == (17, 4, 5, 6)
    assert (stats.callback_errors, stats.ping_rtt, stats.uptime) == (8, 0.1, 9.0)
    assert stats.last_error == "gone"
    assert counters.snapshot(0, 0, None, 0.0).last_error is None


def test_a_connection_counts_over_its_generations() -> None:
    with Rig([OPEN, OPEN], wait=lambda _: 1.0) as rig:
        peer = rig.open()
        rig.conn.send("one")
        assert peer.recv() == "one"
        first = rig.conn.stats
        peer.drop()
        rig.clock.advance(rig.wait_delay(1))
        assert rig.conn.stats.messages_out == 1
        rig.open()
        rig.conn.send_many(["two", "three"])
        stats = rig.conn.stats
        assert (stats.opens, stats.losses, stats.messages_out) == (2, 1, 3)
        assert stats.bytes_out > first.bytes_out
