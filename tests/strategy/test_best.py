"""Children side by side: who ends whom."""

from connman.errors import ConnectError
from connman.strategy import BestConnected, FirstConnected, Opened
from tests.strategy.rig import No, Ok, Rig


def names(rig: Rig) -> list[str]:
    return [result.name for result in rig.results if isinstance(result, Opened)]


def test_all_start_at_once_and_a_success_forces_its_priority_on_all(rig: Rig) -> None:
    rig.connect(BestConnected(rig.leaf("a"), rig.leaf("b", Ok(10), priority=7), rig.leaf("c")))
    rig.advance(10)
    assert rig.took() == [
        (0, "a started"),
        (0, "b started"),
        (0, "c started"),
        (10, "b ok"),
        (10, "a forced to 7"),
        (10, "a failed"),
        (10, "b forced to 7"),
        (10, "c forced to 7"),
        (10, "c failed"),
        (10, "root: b"),
    ]


def test_an_equal_priority_survives_and_calls_back_again(rig: Rig) -> None:
    rig.connect(
        BestConnected(rig.leaf("a", Ok(10)), rig.leaf("b", Ok(20)), rig.leaf("c", Ok(30), priority=4))
    )
    rig.advance(30)
    assert names(rig) == ["a", "b", "c"]
    assert rig.open_pipes == ["a", "b", "c"]


def test_a_lower_one_is_ended_and_closed_if_it_comes_all_the_same(rig: Rig) -> None:
    low = rig.leaf("low", priority=1, obeys=False)
    rig.connect(BestConnected(rig.leaf("high", Ok(10)), low))
    rig.advance(10)
    low.attempts[0].settle(Ok())
    assert names(rig) == ["high"]
    assert rig.open_pipes == ["high"]


def test_it_fails_when_every_child_has(rig: Rig) -> None:
    rig.connect(BestConnected(rig.leaf("a", No(30)), rig.leaf("b", No()), rig.leaf("c", No(20))))
    rig.advance(29)
    assert rig.results == []
    rig.advance(1)
    (error,) = rig.results
    assert isinstance(error, ConnectError)
    assert "none of 3 ways opened: a failed" in str(error)


def test_with_one_success_it_never_fails(rig: Rig) -> None:
    leaf = rig.leaf("a", Ok(10), obeys=False)
    rig.connect(BestConnected(leaf, rig.leaf("b", No(20))))
    rig.advance(20)
    leaf.attempts[0].settle(No())
    assert names(rig) == ["a"]
    assert len(rig.results) == 1


def test_abort_ends_those_that_have_not_failed_once_each(rig: Rig) -> None:
    leaves = [rig.leaf("a", No(5)), rig.leaf("b"), rig.leaf("c", Ok(7))]
    runner = rig.connect(BestConnected(*leaves))
    rig.advance(10)
    runner.abort()
    runner.abort()
    assert [leaf.attempts[0].aborts for leaf in leaves] == [0, 1, 1]


def test_a_forced_priority_reaches_all(rig: Rig) -> None:
    runner = rig.connect(BestConnected(*rig.leaves("a", "b")))
    runner.force_min_priority(5)
    assert [what for _, what in rig.took()] == [
        "a started",
        "b started",
        "a forced to 5",
        "a failed",
        "b forced to 5",
        "b failed",
        "root failed",
    ]


def test_several_at_once_give_one_result_at_first_connected(rig: Rig) -> None:
    leaves = [rig.leaf(name, Ok()) for name in "abc"]
    rig.connect(FirstConnected(BestConnected(*leaves)))
    assert rig.results == []
    rig.advance(0)
    assert rig.winner == "a"
    assert rig.open_pipes == ["a"]


def test_without_children_it_fails(rig: Rig) -> None:
    assert not BestConnected().is_supported()
    rig.connect(BestConnected())
    rig.advance(0)
    assert "nothing to try" in str(rig.results[0])
