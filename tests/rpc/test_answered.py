"""What has run is not run again as long as its answer is kept."""

import json
import threading

import pytest

from connman.rpc import answered as module
from connman.rpc.answered import MOST_SECONDS, Answered
from connman.rpc.wire import NOT_KEPT
from connman.testing import FakeClock


class Asker:
    def __init__(self) -> None:
        self.answers: list[str] = []

    def answer(self, tail: str) -> None:
        self.answers.append(tail)


KEY = ("service", "id")


def run(kept: Answered, key: tuple[int | str, str], answer: str | None) -> Asker:
    asker = Asker()
    assert kept.begin(key, asker) == (True, None)
    kept.finish(key, answer)
    return asker


def test_the_first_one_runs_and_is_answered() -> None:
    assert run(Answered(FakeClock()), KEY, "done").answers == ["done"]


def test_what_has_run_is_answered_from_memory() -> None:
    kept = Answered(FakeClock())
    run(kept, KEY, "done")
    assert kept.begin(KEY, Asker()) == (False, "done")


def test_what_runs_is_answered_to_all() -> None:
    kept, askers = Answered(FakeClock()), [Asker(), Asker(), Asker()]
    assert [kept.begin(KEY, asker) for asker in askers] == [(True, None), (False, None), (False, None)]
    kept.finish(KEY, "done")
    assert [asker.answers for asker in askers] == [["done"]] * 3


def test_ids_belong_to_their_service() -> None:
    kept = Answered(FakeClock())
    run(kept, ("one", "id"), "of one")
    assert kept.begin(("two", "id"), Asker()) == (True, None)


def test_what_was_given_back_runs_next_time() -> None:
    kept, asker = Answered(FakeClock()), Asker()
    kept.begin(KEY, asker)
    assert kept.give_back(KEY) == [asker]
    assert kept.begin(KEY, Asker()) == (True, None)


def test_answers_are_kept_for_so_long() -> None:
    clock = FakeClock()
    kept = Answered(clock)
    run(kept, KEY, "done")
    clock.advance(MOST_SECONDS - 1)
    assert kept.begin(KEY, Asker()) == (False, "done")
    clock.advance(1)
    assert kept.begin(KEY, Asker()) == (True, None)


def test_so_many_answers_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_ANSWERS", 10)
    kept = Answered(FakeClock())
    for number in range(25):
        run(kept, (1, str(number)), "done")
    assert len(kept) == 10
    assert kept.begin((1, "24"), Asker()) == (False, "done")
    assert kept.begin((1, "14"), Asker()) == (True, None)


def test_so_many_bytes_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 100_000)
    kept = Answered(FakeClock())
    for number in range(100):
        run(kept, (1, str(number)), "x" * 10_000)
    assert 5 < len(kept) < 10


def test_a_huge_answer_is_given_but_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has run, so it does not run again: who asks later is told that."""
    monkeypatch.setattr(module, "MOST_BYTES", 1000)
    kept = Answered(FakeClock())
    assert run(kept, KEY, "x" * 999).answers == ["x" * 999]
    assert kept.begin(KEY, Asker()) == (False, NOT_KEPT)
    assert json.loads("{" + NOT_KEPT)["error"]["code"] == "NOT-KEPT"


def test_a_stream_is_not_kept() -> None:
    kept, first, second = Answered(FakeClock()), Asker(), Asker()
    kept.begin(KEY, first)
    kept.begin(KEY, second)
    kept.finish(KEY, None)
    assert (first.answers, second.answers) == ([], [NOT_KEPT])
    assert kept.begin(KEY, Asker()) == (False, NOT_KEPT)


def test_who_waits_is_bounded() -> None:
    kept, askers = Answered(FakeClock()), [Asker() for _ in range(100)]
    for asker in askers:
        kept.begin(KEY, asker)
    kept.finish(KEY, "done")
    # The one for whom it runs, and those who asked last: the others have lost the path by which they asked.
    told = [number for number, asker in enumerate(askers) if asker.answers]
    assert told == [0, *range(101 - module.MOST_WAITING, 100)]


def test_what_is_kept_is_counted_as_memory() -> None:
    kept = Answered(FakeClock())
    for number in range(100):
        run(kept, ("service", str(number)), "\U0001f600" * (module.MOST_BYTES // 40))
    assert 8 <= len(kept) <= 10


def test_one_of_many_runs_it() -> None:
    kept, begin, must_run = Answered(FakeClock()), threading.Barrier(8), list[bool]()

    def ask() -> None:
        begin.wait(10)
        must_run.append(kept.begin(KEY, Asker())[0])

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sorted(must_run) == [False] * 7 + [True]
