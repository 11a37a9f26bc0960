"""The first result, and no second one."""

from connman.errors import ConnectError
from connman.strategy import BestConnected, FirstConnected
from tests.strategy.rig import No, Ok, Rig


def test_the_child_is_ended_before_anybody_is_told(rig: Rig) -> None:
    rig.connect(FirstConnected(rig.leaf("a", Ok(10))))
    rig.advance(10)
    assert rig.took() == [(0, "a started"), (10, "a ok"), (10, "a aborted"), (10, "root: a")]
    assert rig.open_pipes == ["a"]


def test_an_error_is_passed_on_unchanged(rig: Rig) -> None:
    error = ConnectError("h", (), "mine")
    rig.connect(FirstConnected(rig.leaf("a", No(5, error))))
    rig.advance(5)
    assert rig.results == [error]
    assert rig.took() == [(0, "a started"), (5, "a failed"), (5, "root failed")]


def test_a_second_success_is_closed(rig: Rig) -> None:
    late = rig.leaf("b", obeys=False)
    rig.connect(FirstConnected(BestConnected(rig.leaf("a", Ok(10)), late)))
    rig.advance(10)
    late.attempts[0].settle(Ok())
    late.attempts[0].settle(No())
    rig.advance(10)
    assert rig.winner == "a"
    assert rig.open_pipes == ["a"]


def test_abort_and_force_reach_the_child(rig: Rig) -> None:
    runner = rig.connect(FirstConnected(rig.leaf("a")))
    runner.force_min_priority(2)
    runner.abort()
    runner.abort()
    runner.force_min_priority(3)
    assert rig.took() == [(0, "a started"), (0, "a forced to 2"), (0, "a aborted")]


def test_after_the_success_an_abort_does_nothing(rig: Rig) -> None:
    leaf = rig.leaf("a", Ok(10))
    runner = rig.connect(FirstConnected(leaf))
    rig.advance(10)
    runner.abort()
    assert leaf.attempts[0].aborts == 1
    assert rig.open_pipes == ["a"]


def test_it_is_supported_as_its_child_is(rig: Rig) -> None:
    assert FirstConnected(rig.leaf("a")).is_supported()
    assert not FirstConnected(rig.leaf("a", supported=False)).is_supported()
