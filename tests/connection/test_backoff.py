"""The delays between attempts: the series, the hints of servers, and the rules that end it."""

import itertools
import logging
import math
import random
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
import tenacity

from connman import Fatal, State
from connman.connection.backoff import SHORTEST_DELAY, Backoff, retry_after
from connman.errors import (
    CertificateError,
    ConnectError,
    ConnectionClosed,
    ConnectionLost,
    ConnectTimeout,
    ConnmanError,
    GaveUp,
    HandshakeFailed,
    InvalidTarget,
    PingTimeout,
    ProxyRefused,
    UpgradeRefused,
)
from connman.options import make_options
from connman.testing import FakeClock
from tests.connection.rig import OPEN, PATIENCE, REFUSED, Rig, forever

SAMPLES = 300


def make(clock: FakeClock | None = None, **options: Any) -> Backoff:
    return Backoff(make_options(options), clock or FakeClock())


def refused(status: int, **headers: str) -> UpgradeRefused:
    return UpgradeRefused(status, {name.replace("_", "-"): value for name, value in headers.items()})


def delay(backoff: Backoff, error: ConnmanError | None = None) -> float:
    answer = backoff.failed(error or ConnectError("there"))
    assert isinstance(answer, float), answer
    return answer


def full(attempt: int) -> float:
    """Give the upper end of the default delay behind attempt number `attempt`."""
    return min(0.1 * 2 ** (attempt - 1), 128.0)


# The series


def test_the_default_series_doubles_to_its_cap_half_fixed_half_random() -> None:
    for _ in range(20):
        backoff = make()
        for attempt in range(1, 16):
            assert backoff.attempt == attempt
            assert full(attempt) / 2 <= delay(backoff) <= full(attempt)
    assert full(11) == pytest.approx(102.4)
    assert full(12) == 128.0


def test_the_random_half_is_spread_over_its_whole_range() -> None:
    delays = [delay(make()) for _ in range(SAMPLES)]
    assert min(delays) < 0.055
    assert max(delays) > 0.095
    assert len(set(delays)) > SAMPLES / 2


def test_the_cap_holds_for_ever() -> None:
    backoff = make()
    delays = [delay(backoff) for _ in range(2000)]
    assert all(64 <= d <= 128 for d in delays[12:])


def test_reset_begins_the_series_anew() -> None:
    backoff = make()
    for _ in range(5):
        delay(backoff)
    backoff.reset()
    assert backoff.attempt == 1
    assert delay(backoff) <= 0.1


def test_two_backoffs_do_not_share_their_place() -> None:
    first, second = make(), make()
    for _ in range(6):
        delay(first)
    assert delay(second) <= 0.1


@pytest.mark.parametrize(
    ("wait", "expected"),
    [
        (tenacity.wait_fixed(3), [3, 3, 3]),
        (tenacity.wait_incrementing(start=1, increment=2), [1, 3, 5]),
        (tenacity.wait_chain(tenacity.wait_fixed(1), tenacity.wait_fixed(7)), [1, 7, 7]),
        (lambda state: state.attempt_number * 10, [10, 20, 30]),
        (tenacity.wait_none(), [SHORTEST_DELAY] * 3),
        (lambda _: -5, [SHORTEST_DELAY] * 3),
    ],
)
def test_a_custom_wait(wait: Any, expected: list[float]) -> None:
    backoff = make(wait=wait)
    assert [delay(backoff) for _ in expected] == expected


def raising(error: BaseException) -> Any:
    def function(_: object) -> Any:
        raise error

    return function


@pytest.mark.parametrize(
    "wait",
    [
        raising(ZeroDivisionError()),
        raising(SystemExit(3)),
        lambda _: "soon",
        lambda _: math.nan,
        lambda _: math.inf,
    ],
)
def test_a_wait_that_fails_gives_way_to_the_default(wait: Any) -> None:
    backoff = make(wait=wait)
    for attempt in (1, 2, 3):
        assert full(attempt) / 2 <= delay(backoff) <= full(attempt)


# Hints of the server


def http_date(seconds: float) -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize(
    ("value", "low", "high"),
    [
        ("7", 7, 7.7),
        (" 7 ", 7, 7.7),
        ("127", 127, 139.7),
        ("129", 128, 140.8),
        ("9" * 400, 128, 140.8),
        (60, 50, 66),
        (100_000, 128, 140.8),
        (-60, 0.05, 0.1),
        ("0", 0.05, 0.1),
        ("-3", 0.05, 0.1),
        ("1.5", 0.05, 0.1),
        ("²", 0.05, 0.1),
        ("soon", 0.05, 0.1),
        ("", 0.05, 0.1),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
def test_retry_after(status: int, value: str | int, low: float, high: float) -> None:
    if isinstance(value, int):  # a date, made when it is needed: it is counted from now
        value = http_date(value)
    assert low <= delay(make(), refused(status, retry_after=value)) <= high


def test_those_who_are_refused_together_do_not_come_back_together() -> None:
    delays = [delay(make(), refused(503, retry_after="30")) for _ in range(SAMPLES)]
    assert min(delays) < 30.3
    assert max(delays) > 32.7
    assert len(set(delays)) > SAMPLES / 2


def test_the_random_part_can_be_repeated() -> None:
    def series() -> list[float]:
        backoff = Backoff(make_options({}), FakeClock(), chance=random.Random(7))
        return [delay(backoff) for _ in range(5)] + [delay(backoff, refused(503, retry_after="90"))]

    assert series() == series()


def test_retry_after_does_not_shorten_a_longer_delay() -> None:
    assert delay(make(wait=tenacity.wait_fixed(30)), refused(503, retry_after="5")) == 30


def test_retry_after_without_a_header_is_none() -> None:
    assert retry_after(refused(503)) is None


# The end of it


@pytest.mark.parametrize(
    "error",
    [
        Fatal("no use"),
        CertificateError("there"),
        InvalidTarget("malformed"),
        refused(301),
        refused(400),
        refused(404),
        ProxyRefused("there", (), "auth", 407),
        *(ConnectionClosed(code) for code in (1008, 1010, 4000, 4001, 4099, 4300, 4999)),
    ],
    ids=repr,
)
def test_fatal_errors_end_it_at_once(error: ConnmanError) -> None:
    assert make().failed(error) is error


@pytest.mark.parametrize(
    "error",
    [
        ConnectTimeout("there"),
        HandshakeFailed("there"),
        ConnectionLost(),
        PingTimeout(),
        *(refused(status) for status in (408, 425, 429, 500, 502, 503, 599)),
        ProxyRefused("there", (), "no route", 503),
        *(ConnectionClosed(code) for code in (None, 1000, 1001, 1006, 1011, 1012, 1013, 4100, 4299)),
    ],
    ids=repr,
)
def test_other_errors_are_retried_for_ever(error: ConnmanError) -> None:
    backoff = make()
    for _ in range(50):
        delay(backoff, error)


@pytest.mark.parametrize(
    "error", [refused(401), refused(403), ConnectionClosed(3000), ConnectionClosed(3003)]
)
def test_a_refused_login_is_retried_once(error: ConnmanError) -> None:
    backoff = make()
    delay(backoff, error)
    assert backoff.failed(error) is error
    backoff.reset()
    delay(backoff, error)
    assert backoff.failed(error) is error


def test_another_failure_between_does_not_make_a_login_better() -> None:
    backoff = make()
    delay(backoff, refused(401))
    delay(backoff, refused(503))
    assert isinstance(backoff.failed(refused(403)), UpgradeRefused)


def test_a_handshake_that_failed_by_a_close_is_judged_by_the_close() -> None:
    failure = HandshakeFailed("there")
    failure.__cause__ = ConnectionClosed(4001)
    assert make().failed(failure) is failure
    failure.__cause__ = ConnectionClosed(1013)
    delay(make(), failure)


@pytest.mark.parametrize(
    ("said", "error", "is_retried"),
    [
        (True, Fatal("no use"), True),
        (True, refused(404), True),
        (False, ConnectionLost(), False),
        (None, ConnectionLost(), True),
        (None, refused(404), False),
    ],
)
def test_retry_if_overrides_the_table(said: bool | None, error: ConnmanError, is_retried: bool) -> None:
    asked: list[BaseException] = []

    def retry_if(error: BaseException) -> bool | None:
        asked.append(error)
        return said

    answer = make(retry_if=retry_if).failed(error)
    assert asked == [error]
    assert isinstance(answer, float) if is_retried else answer is error


@pytest.mark.parametrize("how", [ZeroDivisionError(), SystemExit(3)])
def test_a_retry_if_that_fails_gives_way_to_the_table(
    how: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    backoff = make(retry_if=raising(how))
    delay(backoff, ConnectionLost())
    fatal = Fatal("no use")
    assert backoff.failed(fatal) is fatal
    assert [record.exc_info and record.exc_info[1] for record in caplog.records] == [how, how]


def test_stop_after_attempts() -> None:
    backoff = make(stop=tenacity.stop_after_attempt(3))
    cause = ConnectError("there", (), "refused")
    for _ in range(2):
        delay(backoff, cause)
    gave_up = backoff.failed(cause)
    assert isinstance(gave_up, GaveUp)
    assert gave_up.__cause__ is cause
    assert "3 tries" in str(gave_up)
    assert "refused" in str(gave_up)


def test_stop_after_a_time_on_our_clock() -> None:
    clock = FakeClock(start=1e6)
    backoff = make(clock, stop=tenacity.stop_after_delay(10))
    for _ in range(9):
        clock.advance(1)
        delay(backoff)
    clock.advance(1)
    assert isinstance(backoff.failed(ConnectionLost()), GaveUp)


def test_reset_begins_the_time_anew() -> None:
    clock = FakeClock()
    backoff = make(clock, stop=tenacity.stop_after_delay(10))
    clock.advance(9)
    backoff.reset()
    clock.advance(9)
    delay(backoff)


def test_a_fatal_error_is_not_given_up_on() -> None:
    fatal = Fatal("no use")
    assert make(stop=tenacity.stop_after_attempt(1)).failed(fatal) is fatal


@pytest.mark.parametrize("how", [ZeroDivisionError(), SystemExit(3)])
def test_a_stop_that_fails_does_not_stop(how: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    delay(make(stop=raising(how)))
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def test_stop_and_wait_see_the_error_and_the_attempt() -> None:
    seen: list[tuple[int, BaseException | None]] = []

    def look(state: tenacity.RetryCallState) -> float:
        assert state.outcome is not None
        seen.append((state.attempt_number, state.outcome.exception()))
        return 0.0

    backoff = make(wait=look, stop=look)
    first, second = ConnectionLost("one"), ConnectionLost("two")
    delay(backoff, first)
    delay(backoff, second)
    assert seen == [(1, first), (1, first), (2, second), (2, second)]


# The same through a connection, on the delays that it asks its clock for


def test_the_delays_a_connection_asks_for() -> None:
    with Rig(forever(REFUSED)) as rig:
        delays = rig.fail_through(14)
        told = [reset.retry_in for reset in rig.told.resets[:14]]
    assert all(full(n) / 2 <= d <= full(n) * 1.0001 for n, d in enumerate(delays, start=1)), delays
    assert told == pytest.approx(delays)
    assert [reset.attempt for reset in rig.told.resets[:14]] == list(range(1, 15))
    # Each dial came when its delay was over, and not before.
    waits = [b.at - a.at for a, b in itertools.pairwise(rig.dialer.dials)]
    assert waits[:13] == pytest.approx(delays[:13])


@pytest.mark.parametrize(("open_for", "attempt"), [(1.01, 1), (50.0, 1), (0.99, 6), (0.0, 6)])
def test_a_stable_time_open_begins_the_series_anew(open_for: float, attempt: int) -> None:
    with Rig([*[REFUSED] * 5, OPEN, *[REFUSED] * 9]) as rig:
        rig.fail_through(5)
        peer = rig.open()
        rig.clock.advance(open_for)
        peer.drop()
        assert full(attempt) / 2 <= rig.wait_delay(6) <= full(attempt) * 1.0001
        assert rig.told.resets[-1].attempt == attempt
        assert rig.told.resets[-1].opened


def test_a_server_that_accepts_and_drops_is_not_hammered() -> None:
    with Rig(forever(lambda peer: peer.drop())) as rig:
        delays = rig.fail_through(8)
    assert all(full(n) / 2 <= d <= full(n) * 1.0001 for n, d in enumerate(delays, start=1)), delays


def test_stable_after_0_is_the_plain_rule() -> None:
    with Rig(forever(lambda peer: peer.drop()), stable_after=0) as rig:
        delays = rig.fail_through(8)
    assert all(0.05 <= d <= 0.1001 for d in delays), delays


def test_giving_up_leaves_it_idle_and_the_next_call_begins_anew() -> None:
    with Rig(forever(REFUSED), stop=tenacity.stop_after_attempt(3), wait=tenacity.wait_fixed(1)) as rig:
        for series in (1, 2):
            future = rig.conn.get_connected()
            for number in (1, 2):
                rig.wait_delay(2 * series - 2 + number)
                rig.clock.advance(1)
            error = future.exception(PATIENCE)
            assert isinstance(error, GaveUp)
            assert rig.conn.last_error is error
            assert rig.conn.state == State.IDLE
            assert len(rig.dialer.dials) == 3 * series
            rig.told.wait(3 * series)
            assert [reset.attempt for reset in rig.told.resets[-3:]] == [1, 2, 3]
            assert rig.told.resets[-1].retry_in is None


def test_giving_up_after_a_time() -> None:
    options = {"stop": tenacity.stop_after_delay(10), "wait": tenacity.wait_fixed(4)}
    with Rig(forever(REFUSED), **options) as rig:
        future = rig.conn.get_connected()
        for number in (1, 2, 3):
            rig.wait_delay(number)
            assert not future.done()
            rig.clock.advance(4)
        assert isinstance(future.exception(PATIENCE), GaveUp)
        assert len(rig.dialer.dials) == 4


def test_a_fatal_error_ends_retrying() -> None:
    fatal = UpgradeRefused(404)
    with Rig([REFUSED, fatal, OPEN]) as rig:
        future = rig.conn.get_connected()
        rig.clock.advance(rig.wait_delay(1))
        assert future.exception(PATIENCE) is fatal
        assert rig.conn.state == State.IDLE
        rig.open()
        assert rig.told.wait(3).kinds == ["failed", "failed", "open"]


def test_a_server_that_is_fatally_closed_is_not_dialled_again() -> None:
    with Rig([OPEN, OPEN]) as rig:
        rig.open().close(4001, "go away")
        reset = rig.told.wait(2).resets[0]
        assert (reset.opened, reset.code, reset.reason, reset.retry_in) == (True, 4001, "go away", None)
        assert rig.conn.state == State.IDLE
        assert len(rig.dialer.dials) == 1
