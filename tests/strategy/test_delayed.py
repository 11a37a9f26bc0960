"""A child that starts later."""

import pytest

from connman.errors import InvalidOption
from connman.strategy import Delayed
from tests.strategy.rig import No, Ok, Rig


def test_it_starts_exactly_after_the_delay(rig: Rig) -> None:
    rig.connect(Delayed(rig.leaf("a", Ok(5)), 0.1))
    rig.advance(99)
    assert rig.took() == []
    rig.advance(6)
    assert rig.took() == [(100, "a started"), (105, "a ok"), (105, "root: a")]


def test_a_failure_is_passed_on(rig: Rig) -> None:
    rig.connect(Delayed(rig.leaf("a", No()), 0.1))
    rig.advance(100)
    assert rig.took() == [(100, "a started"), (100, "a failed"), (100, "root failed")]


def test_aborted_before_it_never_starts(rig: Rig) -> None:
    runner = rig.connect(Delayed(rig.leaf("a"), 0.1))
    rig.advance(99)
    runner.abort()
    runner.abort()
    assert rig.clock.pending == 0
    rig.advance(1000)
    assert rig.took() == []


def test_aborted_after_it_the_child_is(rig: Rig) -> None:
    leaf = rig.leaf("a")
    runner = rig.connect(Delayed(leaf, 0.1))
    rig.advance(100)
    runner.abort()
    runner.abort()
    assert leaf.attempts[0].aborts == 1


def test_a_priority_forced_before_is_used_at_the_start(rig: Rig) -> None:
    runner = rig.connect(Delayed(rig.leaf("a", Ok(5)), 0.1), min_priority=1)
    runner.force_min_priority(2)
    rig.advance(100)
    runner.force_min_priority(3)
    rig.advance(5)
    assert rig.took() == [(100, "a started with 2"), (100, "a forced to 3"), (105, "a ok"), (105, "root: a")]


def test_no_delay_is_a_delay_too(rig: Rig) -> None:
    rig.connect(Delayed(rig.leaf("a"), 0))
    assert rig.took() == []
    rig.advance(0)
    assert rig.took() == [(0, "a started")]


def test_it_is_supported_as_its_child_is(rig: Rig) -> None:
    assert Delayed(rig.leaf("a"), 1).is_supported()
    assert not Delayed(rig.leaf("a", supported=False), 1).is_supported()


@pytest.mark.parametrize("delay", [-1, float("nan"), None, "1"])
def test_a_delay_that_cannot_be_waited_for_is_refused(rig: Rig, delay: float) -> None:
    with pytest.raises(InvalidOption, match="delay"):
        Delayed(rig.leaf("a"), delay)
