"""A server that comes back is not trampled by those who wait for it; a simulation, and a few hundred real sockets.

First seen failing: with a fixed delay, which is all that `run_forever(reconnect=5)` of websocket-client 1.9.2 offers, and
with the jitter taken out, all clients come back within the same 100 ms; without `SPREAD`, all that one Retry-After has put
off do.
"""

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from connman import Connection, ConnmanError, Pool, Reset
from connman.connection.backoff import FIRST_DELAY, LONGEST_DELAY, SPREAD
from connman.errors import CertificateError
from tests.rigs.herd.simulation import (
    NoJitter,
    answer,
    ask_for_date,
    away,
    most_attempts,
    simulate,
)
from tests.servers import WebSocketProcess, ws_server
from tests.waiting import Stalls, eventually

MOST = 0.05  # of all, in any 100 ms
SIZES = [1_000, pytest.param(10_000, marks=pytest.mark.slow)]


# The simulation


@pytest.mark.parametrize("clients", SIZES)
def test_a_server_that_was_away_for_a_minute_is_not_trampled(clients: int) -> None:
    herd = simulate(clients, away(60))
    print(f"the fullest 100 ms: {herd.peak:.2%}; attempts: {Counter(herd.attempts.values())}")
    assert len(herd.back) == clients
    assert herd.peak <= MOST
    assert max(herd.attempts.values()) <= most_attempts(60)
    # Nobody waits longer than for as long as it was away, and the longest delay.
    assert max(herd.back) <= 60 + min(LONGEST_DELAY, 120)


@pytest.mark.parametrize("ask", [answer(503, retry_after="30"), answer(429, retry_after="30")])
def test_those_whom_a_retry_after_has_put_off_do_not_come_back_as_one(
    ask: Callable[[float], ConnmanError],
) -> None:
    herd = simulate(1_000, away(25, ask))
    assert herd.peak <= MOST
    assert all(30 <= wait <= 30 * (1 + SPREAD) for wait in herd.waits)
    assert set(herd.attempts.values()) == {2}


@pytest.mark.parametrize("status", [503, 429])
def test_a_retry_after_with_a_date(status: int) -> None:
    herd = simulate(500, away(25, ask_for_date(30, status)))
    # A date has whole seconds; it was made a little before it was looked at.
    assert all(28 <= wait <= 30 * (1 + SPREAD) for wait in herd.waits)
    assert set(herd.attempts.values()) == {2}


@pytest.mark.parametrize("value", ["86400", "9" * 30])
def test_a_retry_after_is_capped(value: str) -> None:
    herd = simulate(500, away(100, answer(503, retry_after=value)))
    assert all(LONGEST_DELAY <= wait <= LONGEST_DELAY * (1 + SPREAD) for wait in herd.waits)
    assert herd.peak <= MOST


@pytest.mark.parametrize(
    ("error", "attempts"),
    [(answer(404), 1), (answer(401), 2), (answer(403), 2), (lambda _: CertificateError("there"), 1)],
    ids=["404", "401", "403", "certificate"],
)
def test_what_no_retry_helps_is_not_retried(error: Callable[[float], ConnmanError], attempts: int) -> None:
    # 401 and 403 once more, with fresh headers.
    herd = simulate(100, error)
    assert len(herd.gave_up) == 100
    assert set(herd.attempts.values()) == {attempts}


def test_the_criterion_tells_a_fixed_delay_and_missing_jitter() -> None:
    assert simulate(200, away(60), options={"wait": lambda _: 5.0}).peak == 1
    assert simulate(200, away(60), chance=NoJitter).peak == 1
    assert simulate(200, away(25, answer(503, retry_after="30")), chance=NoJitter).peak == 1


# Real sockets


@pytest.fixture
def server() -> Iterator[WebSocketProcess]:
    with ws_server() as process:
        yield process


class Times:
    """When connections opened, how long each waited before its newest attempt, and how many it has made since."""

    def __init__(self) -> None:
        self.opened: list[float] = []
        self.waited: dict[int, float] = {}
        self.failed: Counter[int] = Counter()

    def on_open(self, _: Connection) -> None:
        self.opened.append(time.monotonic())

    def on_reset(self, conn: Connection, reset: Reset) -> None:
        if reset.retry_in is not None:
            self.waited[conn.id] = reset.retry_in
        if not reset.opened:
            self.failed[conn.id] += 1


@pytest.mark.slow
@pytest.mark.parametrize("readers", [None, 1], ids=["own readers", "shared reader"])
def test_300_connections_come_back_to_a_server_that_was_away_for_3_seconds(
    server: WebSocketProcess, readers: int | None
) -> None:
    times = Times()
    with Pool(
        url=server.url("/silent"), size=300, readers=readers, proxy=None, stable_after=0,
        on_open=times.on_open, on_reset=times.on_reset,
    ) as pool:  # fmt: skip
        pool.wait_open(30)
        eventually(lambda: len(times.opened) == 300)
        server.kill()
        gone = time.monotonic()
        threading.Event().wait(3.0)
        server.start()
        back, away_for = time.monotonic(), time.monotonic() - gone
        with Stalls() as stalls:
            eventually(lambda: len(times.opened) == 600, 30.0)
    # What each has waited, as a part of the delay that its attempt could have had: half of it and up, by chance. When they
    # came says less: a machine that stands still for a moment lets all of them come together.
    parts = [
        wait / FIRST_DELAY / 2 ** math.ceil(math.log2(wait / FIRST_DELAY)) for wait in times.waited.values()
    ]
    bins = Counter(math.floor((part - 0.5) * 10) for part in parts)
    print(f"away for {away_for:.2f} s; in each tenth of their delays: {sorted(bins.items())}")
    assert len(parts) == 300
    assert max(bins.values()) <= 300 * 0.35
    assert max(times.failed.values()) <= most_attempts(max(times.opened) - gone)
    assert max(times.opened) - back <= 2 * away_for + 2 + stalls.seconds


@pytest.mark.slow
def test_a_server_that_accepts_and_drops_for_3_seconds_is_not_hammered(server: WebSocketProcess) -> None:
    # Each open that dies before `stable_after` counts as a failed attempt: with 0 the same server gets some 40 each.
    with Pool(url=server.url("/close?code=1011"), size=100, proxy=None) as pool:
        begun = time.monotonic()
        eventually(lambda: server.stats()["upgraded"] >= 100)
        threading.Event().wait(3.0)
        upgraded, took = server.stats()["upgraded"], time.monotonic() - begun
        assert all(conn.stats.opens for conn in pool.get_connections())
    print(f"{upgraded} opens of 100 connections in {took:.1f} s")
    assert upgraded <= 100 * (1 + most_attempts(took))
