"""One child after the other: the pace, the loop, and what ends it."""

import pytest

from connman.errors import CertificateError, ConnectError, InvalidOption, Retry, UpgradeRefused, retry_verdict
from connman.strategy import FirstConnected, Sequential
from tests.strategy.rig import No, Ok, Rig


def test_slots_double_up_to_the_limit_and_go_round(rig: Rig) -> None:
    tree = Sequential(*rig.leaves("a", "b"), loop=True, timeout=0.1, timeout_limit=0.4)
    rig.connect(tree)
    rig.advance(1500)
    starts = [line for line in rig.journal if line[1].endswith("started")]
    # Slots of 100, 200, 400, 400, 400.
    assert starts == [
        (0, "a started"),
        (100, "b started"),
        (300, "a started"),
        (700, "b started"),
        (1100, "a started"),
        (1500, "b started"),
    ]
    assert (100, "a aborted") in rig.journal
    assert rig.results == []


def test_without_a_limit_the_slot_goes_on_doubling(rig: Rig) -> None:
    rig.connect(Sequential(rig.leaf("a"), loop=True, timeout=0.1))
    rig.advance(1500)
    assert [at for at, what in rig.journal if what == "a started"] == [0, 100, 300, 700, 1500]


def test_a_failure_within_the_slot_is_waited_out(rig: Rig) -> None:
    rig.connect(Sequential(rig.leaf("a", No(10)), rig.leaf("b", Ok(5)), timeout=0.1))
    rig.advance(99)
    assert rig.took() == [(0, "a started"), (10, "a failed")]
    rig.advance(6)
    assert rig.took() == [(100, "b started"), (105, "b ok"), (105, "root: b")]


def test_the_last_failure_is_waited_out_as_well(rig: Rig) -> None:
    rig.connect(Sequential(rig.leaf("a", No(10)), timeout=0.1))
    rig.advance(99)
    assert rig.results == []
    rig.advance(1)
    assert len(rig.results) == 1
    assert rig.clock.pending == 0


def test_fail_fast_does_not_wait(rig: Rig) -> None:
    rig.connect(Sequential(rig.leaf("a", No(10)), rig.leaf("b", No(10)), timeout=0.1, fail_fast=True))
    rig.advance(20)
    assert rig.took() == [
        (0, "a started"),
        (10, "a failed"),
        (10, "b started"),
        (20, "b failed"),
        (20, "root failed"),
    ]
    assert rig.clock.pending == 0


def test_without_a_timeout_the_next_follows_at_once(rig: Rig) -> None:
    rig.connect(Sequential(rig.leaf("a", No()), rig.leaf("b", No(3)), rig.leaf("c", Ok()), timeout=0))
    rig.advance(3)
    assert rig.took()[-3:] == [(3, "c started"), (3, "c ok"), (3, "root: c")]


def test_a_timeout_fails_only_after_the_last_child(rig: Rig) -> None:
    rig.connect(Sequential(*rig.leaves("a", "b"), timeout=0.1))
    rig.advance(299)
    assert rig.results == []
    rig.advance(1)
    (error,) = rig.results
    assert "none of 2 ways opened: not open within 0.2 s" in str(error)


@pytest.mark.parametrize("after", [99, 100])
def test_who_opens_exactly_at_the_timeout_is_too_late(rig: Rig, after: int) -> None:
    rig.connect(FirstConnected(Sequential(rig.leaf("a", Ok(after)), rig.leaf("b", Ok(50)), timeout=0.1)))
    rig.advance(1000)
    assert rig.winner == ("a" if after < 100 else "b")
    assert rig.open_pipes == [rig.winner]
    assert rig.clock.pending == 0


def test_a_success_stops_the_clock_and_not_the_child(rig: Rig) -> None:
    leaf = rig.leaf("a", Ok(10))
    rig.connect(Sequential(leaf, rig.leaf("b"), timeout=0.1))
    rig.advance(1000)
    assert rig.took() == [(0, "a started"), (10, "a ok"), (10, "root: a")]
    assert rig.clock.pending == 0
    leaf.attempts[0].settle(Ok())
    assert [result.name for result in rig.results] == ["a", "a"]  # type: ignore[union-attr]


def test_abort_ends_the_current_child_and_the_clock(rig: Rig) -> None:
    runner = rig.connect(Sequential(*rig.leaves("a", "b"), timeout=0.1))
    rig.advance(150)
    runner.abort()
    runner.abort()
    rig.advance(1000)
    assert rig.took() == [(0, "a started"), (100, "a aborted"), (100, "b started"), (150, "b aborted")]
    assert rig.clock.pending == 0
    assert rig.results == []


def test_a_child_that_comes_late_does_not_restart_a_sequence_that_was_aborted(rig: Rig) -> None:
    leaf = rig.leaf("a", obeys=False)
    runner = rig.connect(Sequential(leaf, rig.leaf("b")))
    runner.abort()
    leaf.attempts[0].settle(No())
    rig.advance(1000)
    assert [what for _, what in rig.journal] == ["a started", "a aborted", "a failed"]


def test_a_child_that_comes_after_its_slot_is_closed(rig: Rig) -> None:
    late = rig.leaf("a", obeys=False)
    rig.connect(FirstConnected(Sequential(late, rig.leaf("b", Ok(50)), timeout=0.1)))
    rig.advance(120)
    late.attempts[0].settle(Ok())
    assert rig.open_pipes == []
    rig.advance(30)
    assert rig.winner == "b"
    assert rig.open_pipes == ["b"]


def test_a_forced_priority_is_kept_for_later_children(rig: Rig) -> None:
    runner = rig.connect(Sequential(*rig.leaves("a", "b"), timeout=0.1))
    runner.force_min_priority(2)
    rig.advance(100)
    assert rig.took() == [
        (0, "a started"),
        (0, "a forced to 2"),
        (100, "a aborted"),
        (100, "b started with 2"),
    ]


def test_a_minimum_from_the_start_is_passed_on(rig: Rig) -> None:
    rig.connect(Sequential(rig.leaf("a", priority=1), rig.leaf("b", Ok())), min_priority=2)
    rig.advance(0)
    assert rig.winner == "b"


def test_a_loop_of_children_that_fail_at_once_does_not_spin(rig: Rig) -> None:
    # Neither waits for a slot: a round begins a tenth of a second after the one before.
    runners = [
        rig.connect(Sequential(rig.leaf("a", No()), rig.leaf("b", No()), loop=True)),
        rig.connect(Sequential(rig.leaf("c", No()), loop=True, timeout=5, fail_fast=True)),
    ]
    rig.advance(1000)
    assert [at for at, what in rig.journal if what == "a started"] == list(range(0, 1001, 100))
    assert [at for at, what in rig.journal if what == "c started"] == list(range(0, 1001, 100))
    for runner in runners:
        runner.abort()
    assert rig.clock.pending == 0


def test_an_empty_list_is_not_supported_and_fails(rig: Rig) -> None:
    tree = Sequential(loop=True, timeout=1)
    assert not tree.is_supported()
    rig.connect(tree)
    assert rig.results == []
    rig.advance(0)
    (error,) = rig.results
    assert isinstance(error, ConnectError)
    assert "nothing to try" in str(error)


def test_it_is_supported_when_any_child_is(rig: Rig) -> None:
    assert Sequential(rig.leaf("a", supported=False), rig.leaf("b")).is_supported()
    assert not Sequential(rig.leaf("a", supported=False)).is_supported()


@pytest.mark.parametrize("name", ["timeout", "timeout_limit"])
@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), "1", True])
def test_a_time_that_cannot_be_waited_for_is_refused(rig: Rig, name: str, value: object) -> None:
    with pytest.raises(InvalidOption, match=name):
        Sequential(rig.leaf("a"), **{name: value})  # type: ignore[arg-type]


def test_the_error_is_worth_a_retry_when_that_of_any_child_is(rig: Rig) -> None:
    certificate, forbidden = CertificateError("h"), UpgradeRefused(403)
    cases: list[tuple[list[Exception], Retry]] = [
        ([certificate], Retry.NEVER),
        ([certificate, UpgradeRefused(404)], Retry.NEVER),
        ([certificate, forbidden], Retry.ONCE),
        ([forbidden, certificate], Retry.ONCE),
        ([certificate, ConnectError("h"), forbidden], Retry.AGAIN),
    ]
    for errors, verdict in cases:
        rig = Rig()
        rig.connect(Sequential(*(rig.leaf("a", No(error=error)) for error in errors)))  # type: ignore[arg-type]
        rig.advance(0)
        (result,) = rig.results
        assert isinstance(result, Exception)
        assert retry_verdict(result) is verdict, errors
