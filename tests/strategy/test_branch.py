"""One branch or the other, as the test says just then."""

from connman.errors import ConnectError
from connman.strategy import If, Sequential
from tests.strategy.rig import No, Ok, Rig


def test_the_test_is_asked_each_time(rig: Rig) -> None:
    answers = iter([True, False, True])
    tree = If(lambda: next(answers), rig.leaf("then", supported=False), rig.leaf("else"))
    assert not tree.is_supported()
    assert tree.is_supported()
    rig.connect(tree)
    assert rig.took() == [(0, "then started")]


def test_the_runner_is_that_of_the_branch(rig: Rig) -> None:
    is_first = True
    tree = If(lambda: is_first, rig.leaf("then"), rig.leaf("else"))
    runner = rig.connect(tree, min_priority=1)
    is_first = False
    runner.force_min_priority(2)
    runner.abort()
    assert rig.took() == [(0, "then started with 1"), (0, "then forced to 2"), (0, "then aborted")]


def test_each_round_of_a_loop_asks_again(rig: Rig) -> None:
    rig.connect(
        Sequential(
            If(lambda: rig.now < 100, rig.leaf("then", No()), rig.leaf("else", Ok())), loop=True, timeout=0.1
        )
    )
    rig.advance(100)
    assert rig.winner == "else"


def test_a_test_that_raises_is_a_failed_child(rig: Rig) -> None:
    def broken() -> bool:
        raise KeyError("S3CR3T")

    rig.connect(Sequential(If(broken, rig.leaf("a"), rig.leaf("b")), rig.leaf("c", No())))
    rig.advance(0)
    assert [what for _, what in rig.journal] == ["c started", "c failed", "root failed"]
    rig.connect(If(broken, rig.leaf("a"), rig.leaf("b")))
    rig.advance(0)
    error = rig.results[-1]
    assert isinstance(error, ConnectError)
    assert "If raised KeyError" in str(error)
    assert "S3CR3T" not in str(error)
