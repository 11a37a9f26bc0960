"""What a guard drops, and what it closes: whoever calls back late, twice, or although it was told to end."""

import logging
from typing import Any

import pytest

from connman.errors import ConnectError
from connman.strategy import BestConnected, Opened, Result, Run, Sequential, Strategy
from connman.strategy.guard import Guard
from connman.strategy.results import Report, Runner
from tests.strategy.rig import Gated, LeafRunner, No, Ok, Rig


class Child:
    """A guarded leaf that a test makes report what it likes."""

    def __init__(self, rig: Rig, priority: int = 3, min_priority: int = 0) -> None:
        self.leaf = rig.leaf("leaf", priority=priority, obeys=False)
        self.told: list[Result] = []
        self.run = Run(rig.dial())
        self.guard = self.run.start(self.leaf, self.told.append, min_priority)
        assert isinstance(self.guard, Guard)

    def reports(self, *outcomes: Ok | No) -> list[str]:
        for outcome in outcomes:
            self.attempt.settle(outcome)
        return ["ok" if isinstance(result, Opened) else "failed" for result in self.told]

    @property
    def attempt(self) -> LeafRunner:
        return self.leaf.attempts[0]


def test_successes_are_passed_on_and_a_failure_after_one_is_not(rig: Rig) -> None:
    assert Child(rig).reports(Ok(), No(), Ok(), No()) == ["ok", "ok"]
    assert rig.open_pipes == ["leaf", "leaf"]


@pytest.mark.parametrize("is_aborted", [False, True])
def test_the_same_transport_once_more_is_left_open(rig: Rig, is_aborted: bool) -> None:
    child = Child(rig)
    opened = rig.opened(child.leaf)
    child.attempt.report(opened)
    if is_aborted:
        child.guard.abort()
    child.attempt.report(opened)
    assert child.told == [opened]
    assert rig.open_pipes == ["leaf"]


@pytest.mark.parametrize("result", [None, True, OSError("whatever"), "text"])
def test_what_is_no_result_is_a_failure(rig: Rig, result: Any) -> None:
    child = Child(rig)
    child.attempt.report(result)
    assert str(child.told[0]) == f"rig: a strategy has reported {type(result).__name__}, which is no result"
    assert isinstance(child.told[0], ConnectError)
    assert child.reports(Ok()) == ["failed"]


def test_after_a_failure_nothing_is_passed_on_and_what_opens_is_closed(rig: Rig) -> None:
    assert Child(rig).reports(No(), Ok(), No()) == ["failed"]
    assert rig.open_pipes == []


def test_after_an_abort_nothing_is_passed_on_and_what_opens_is_closed(rig: Rig) -> None:
    child = Child(rig)
    child.guard.abort()
    child.guard.abort()
    assert child.reports(Ok(), No(), Ok()) == []
    assert child.attempt.aborts == 1
    assert rig.open_pipes == []


def test_a_child_that_has_failed_is_not_aborted(rig: Rig) -> None:
    child = Child(rig)
    child.reports(No())
    child.guard.abort()
    child.guard.force_min_priority(9)
    assert child.attempt.aborts == 0
    assert [what for _, what in rig.journal] == ["leaf started", "leaf failed"]


@pytest.mark.parametrize("when", ["start", "later"])
def test_what_opens_below_the_wanted_priority_is_a_failure(rig: Rig, when: str) -> None:
    child = Child(rig, priority=1, min_priority=2 if when == "start" else 0)
    if when == "later":
        child.guard.force_min_priority(2)
    assert child.reports(Ok()) == ["failed"]
    assert str(child.told[0]) == "rig: leaf has priority 1, and 2 is there"
    assert rig.open_pipes == []


def test_an_equal_priority_is_good_enough(rig: Rig) -> None:
    child = Child(rig, priority=2, min_priority=2)
    child.guard.force_min_priority(2)
    assert child.reports(Ok()) == ["ok"]


def test_a_child_that_fails_to_be_told_does_not_keep_the_others_from_it(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        def abort(self) -> None:
            raise RuntimeError("cannot")

        def force_min_priority(self, priority: int) -> None:
            raise RuntimeError("cannot")

    def begin(run: Run, report: Report, min_priority: int) -> Runner:
        return Broken()

    other = rig.leaf("other")
    runner = rig.connect(BestConnected(Gated(begin), other))
    with caplog.at_level(logging.ERROR, "connman"):
        runner.force_min_priority(1)
        runner.abort()
    assert other.attempts[0].aborts == 1
    assert caplog.text.count("a strategy failed") == 2


def test_the_root_drops_what_comes_after_its_abort(rig: Rig) -> None:
    leaf = rig.leaf("leaf", obeys=False)
    runner = rig.connect(leaf)
    runner.abort()
    leaf.attempts[0].settle(Ok())
    rig.advance(0)
    assert rig.results == []
    assert rig.open_pipes == []


def test_a_result_that_was_under_way_at_the_abort_is_closed(rig: Rig) -> None:
    # It has been reported within connect(), so it is called back with later: the abort comes first.
    runner = rig.connect(rig.leaf("leaf", Ok()))
    runner.abort()
    rig.advance(1000)
    assert rig.results == []
    assert rig.open_pipes == []


def trees(rig: Rig) -> list[Strategy]:
    return [Sequential(rig.leaf("a", No())), BestConnected(rig.leaf("b", No()))]


def test_composites_fail_once(rig: Rig) -> None:
    for tree in trees(rig):
        rig.connect(tree)
    rig.advance(10)
    assert len(rig.results) == 2
    assert all(isinstance(result, ConnectError) for result in rig.results)
