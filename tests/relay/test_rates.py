"""How often an address may try, and that a flood of addresses neither grows the table nor harms others."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connman.errors import InvalidOption
from connman.relay.rates import Rates


def test_a_burst_is_allowed_and_then_so_many_a_second() -> None:
    rates = Rates(2.0, 3)
    assert [rates.delay("a", 0.0) for _ in range(3)] == [0.0] * 3
    assert rates.delay("a", 0.0) == pytest.approx(0.5)
    assert rates.delay("a", 0.25) == pytest.approx(0.25)
    assert rates.delay("a", 0.5) == 0.0
    assert rates.delay("a", 0.5) > 0


def test_addresses_do_not_share() -> None:
    rates = Rates(1.0, 1)
    assert rates.delay("a", 0.0) == 0.0
    assert rates.delay("a", 0.0) > 0
    assert rates.delay("b", 0.0) == 0.0


def test_a_refused_attempt_costs_nothing() -> None:
    rates = Rates(1.0, 1)
    rates.delay("a", 0.0)
    for tenth in range(1, 10):
        assert rates.delay("a", tenth / 10) > 0
    assert rates.delay("a", 1.0) == 0.0


def test_a_bucket_never_holds_more_than_the_burst() -> None:
    rates = Rates(1.0, 2)
    rates.delay("a", 0.0)
    assert [rates.delay("a", 1000.0) for _ in range(2)] == [0.0, 0.0]
    assert rates.delay("a", 1000.0) > 0


def test_a_clock_that_goes_back_gives_nothing() -> None:
    rates = Rates(1.0, 1)
    rates.delay("a", 100.0)
    assert rates.delay("a", 0.0) == pytest.approx(1.0)


def test_a_flood_of_addresses_is_bounded_and_spares_the_others() -> None:
    rates = Rates(1.0, 1, max_addresses=100)
    for number in range(10_000):
        assert rates.delay(f"address {number}", 0.0) == 0.0
        assert len(rates) <= 100


def test_whoever_hammers_stays_known_in_a_flood() -> None:
    rates = Rates(1.0, 1, max_addresses=10)
    rates.delay("hammer", 0.0)
    for number in range(1000):
        rates.delay(f"address {number}", 0.0)
        assert rates.delay("hammer", 0.0) > 0


def test_the_table_empties_when_the_flood_is_over() -> None:
    rates = Rates(1.0, 1, max_addresses=1000)
    for number in range(1000):
        rates.delay(f"address {number}", 0.0)
    for second in range(1000):
        rates.delay("honest", 10.0 + second)
    assert len(rates) == 1


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 2)), max_size=200))
def test_no_address_gets_more_than_its_rate(attempts: list[tuple[str, float]]) -> None:
    rates = Rates(5.0, 4, max_addresses=3)
    now = 0.0
    allowed: dict[str, list[float]] = {"a": [], "b": [], "c": []}
    for address, pause in attempts:
        now += pause
        delay = rates.delay(address, now)
        assert 0.0 <= delay <= 0.2 + 1e-9
        if not delay:
            allowed[address].append(now)
    for times in allowed.values():
        for first, last in itertools.combinations(range(len(times)), 2):
            assert last - first + 1 <= 4 + 5.0 * (times[last] - times[first]) + 1e-6


@pytest.mark.parametrize(
    ("rate", "burst", "most"), [(0, 1, 1), (-1, 1, 1), (math.nan, 1, 1), (1, 0, 1), (1, 1, 0)]
)
def test_limits_that_limit_all_are_refused(rate: float, burst: int, most: int) -> None:
    with pytest.raises(InvalidOption):
        Rates(rate, burst, most)
