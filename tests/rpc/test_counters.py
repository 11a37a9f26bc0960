"""What a peer counts."""

import dataclasses

import pytest

from connman.rpc.counters import WINDOW, Counters


def test_a_snapshot_is_a_copy() -> None:
    counters = Counters()
    counters.sent = 3
    before = counters.snapshot(2)
    counters.sent = 4
    assert (before.requests_sent_total, before.calls_in_flight) == (3, 2)
    with pytest.raises(dataclasses.FrozenInstanceError):
        before.requests_sent_total = 0  # type: ignore[misc]


def test_latencies() -> None:
    counters = Counters()
    assert counters.snapshot(0).latency_mean is None
    counters.latencies.extend(number / 100 for number in range(100, 0, -1))
    stats = counters.snapshot(0)
    assert (stats.latency_p50, stats.latency_p99) == (0.5, 0.99)
    assert stats.latency_mean == pytest.approx(0.505)


def test_one_latency_is_all_of_them() -> None:
    counters = Counters()
    counters.latencies.append(2.0)
    stats = counters.snapshot(0)
    assert stats.latency_mean == stats.latency_p50 == stats.latency_p99 == 2.0


def test_the_window_is_bounded() -> None:
    counters = Counters()
    counters.latencies.extend([100.0] * 10 + [1.0] * WINDOW)
    assert counters.snapshot(0).latency_mean == 1.0
