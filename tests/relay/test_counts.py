"""What is counted, and that the copies of it stay as they are."""

import dataclasses
import random
import threading

import pytest

from connman.relay.counts import MOST_KINDS, SAMPLES, Counts, Rate, RelaySeen, Snapshot


def test_a_snapshot_is_a_copy() -> None:
    counts = Counts(100.0)
    counts.connections = 3
    counts.pairs_total += 2
    counts.count_refused("token")
    counts.count_refused("token")
    counts.count_closed(1000)
    taken = counts.snapshot(107.0, names=1, relays=[RelaySeen("a", "10.0.0.1:8765", 0.5)], broker="up")
    counts.connections = 0
    counts.count_refused("token")
    counts.count_closed(1000)
    assert (taken.uptime, taken.connections, taken.pairs_total, taken.names) == (7.0, 3, 2, 1)
    assert (dict(taken.refused), dict(taken.closes)) == ({"token": 2}, {1000: 1})
    assert taken.relays[0].id == "a"
    with pytest.raises(dataclasses.FrozenInstanceError):
        taken.pairs = 1  # type: ignore[misc]
    with pytest.raises(TypeError):
        taken.refused["token"] = 0  # type: ignore[index]


def test_the_ring_of_rates_is_a_ring() -> None:
    counts = Counts(0.0)
    for second in range(1, 2 * SAMPLES + 1):
        counts.frames_total += 10 * second
        counts.tick(float(second))
    rates = counts.snapshot(0.0).rates
    assert len(rates) == SAMPLES
    assert rates[0].frames == 10 * (SAMPLES + 1)
    assert rates[-1] == Rate(at=2 * SAMPLES, frames=20 * SAMPLES, bytes=0.0, pairs=0.0)


def test_a_late_tick_counts_over_the_time_that_has_passed() -> None:
    counts = Counts(0.0)
    counts.bytes_total, counts.pairs_total = 1000, 5
    counts.tick(5.0)
    counts.tick(5.0)  # no time has passed: nothing to divide by
    assert [(rate.bytes, rate.pairs) for rate in counts.snapshot(0.0).rates] == [(200.0, 1.0)]


def test_kinds_that_clients_choose_do_not_grow_for_ever() -> None:
    counts = Counts(0.0)
    counts.count_closed(1000)
    for code in range(3000, 5000):
        counts.count_closed(code)
        counts.count_refused(str(code))
    counts.count_closed(1000)
    taken = counts.snapshot(0.0)
    assert len(taken.closes) == MOST_KINDS + 1
    assert len(taken.refused) == MOST_KINDS + 1
    assert taken.closes[1000] == 2
    assert (sum(taken.closes.values()), sum(taken.refused.values())) == (2002, 2000)
    assert taken.closes[0] == taken.refused["other"] + 1 == 2001 - MOST_KINDS


@pytest.mark.parametrize(
    ("taken", "healthy"),
    [
        (Snapshot(), True),
        (Snapshot(broker="up"), True),
        (Snapshot(broker="lost"), False),
        (Snapshot(is_stopping=True), False),
    ],
)
def test_health(taken: Snapshot, *, healthy: bool) -> None:
    assert taken.is_healthy is healthy


def test_snapshots_may_be_taken_while_the_numbers_grow(seed: int) -> None:
    counts = Counts(0.0)
    ended = threading.Event()

    def write() -> None:
        chance = random.Random(seed)
        for second in range(1, 20_000):
            counts.count_closed(chance.randrange(3000, 3100))
            counts.count_refused(str(chance.randrange(100)))
            counts.tick(float(second))
        ended.set()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        while not ended.is_set():
            taken = counts.snapshot(0.0)
            assert len(taken.rates) <= SAMPLES
            assert sum(taken.closes.values()) <= 20_000
    finally:
        writer.join()
