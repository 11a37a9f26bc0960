"""One run: its events one at a time, whoever brings them; its timers; what those who watch it learn."""

import logging
import threading

import pytest

from connman.records import Step
from connman.strategy import Run
from connman.threads import join, spawn
from tests.strategy.rig import Rig


class Watching:
    """A watcher that counts."""

    is_alive = True

    def __init__(self) -> None:
        self.told: list[str] = []

    def watch(self, transport: object) -> None:
        self.told.append("watch")

    def opened(self) -> None:
        self.told.append("opened")

    def nothing_opened(self) -> None:
        self.told.append("nothing")


def test_what_an_event_posts_comes_before_what_others_have_posted(rig: Rig) -> None:
    run, seen = Run(rig.dial()), []

    def event() -> None:
        threads: list[threading.Thread] = []
        spawn("other", lambda: run.post(lambda: seen.append("other")), threads.append)
        join(threads[0], 10.0)
        run.post(lambda: seen.append("own"))
        seen.append("event")

    run.post(event)
    assert seen == ["event", "own", "other"]


def test_an_event_that_raises_does_not_hold_the_others_up(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    run, seen = Run(rig.dial()), []

    def event() -> None:
        run.post(lambda: seen.append("next"))
        raise RuntimeError("mine")

    with caplog.at_level(logging.ERROR, "connman"):
        run.post(event)
    assert seen == ["next"]
    assert "a strategy failed" in caplog.text


def test_a_signal_in_the_midst_of_an_event_leaves_the_rest_to_another_thread(rig: Rig) -> None:
    run, seen = Run(rig.dial()), []

    def event() -> None:
        run.post(lambda: seen.append("next"))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.post(event)
    assert seen == []
    rig.advance(0)
    assert seen == ["next"]


def test_a_timer_cancelled_in_an_event_is_not_called_although_it_was_due(rig: Rig) -> None:
    run, seen = Run(rig.dial()), []
    second = run.call_later(1.0, lambda: seen.append("second"))

    def both_due() -> None:
        rig.advance(1000)
        second.cancel()

    run.post(both_due)
    assert seen == []


def test_the_log_of_a_tree_that_tries_for_long_keeps_the_newest_steps(rig: Rig) -> None:
    run = Run(rig.dial())
    for number in range(1000):
        run.note(Step("tcp", str(number), 0.0, "refused", "leaf", 0.0))
    assert [step.address for step in run.dial.log] == [str(number) for number in range(744, 1000)]


def test_those_who_watch_are_told_once_that_it_opened_or_that_nothing_did(rig: Rig) -> None:
    good, bad = Watching(), Watching()
    opened, failed = Run(rig.dial(), [good]), Run(rig.dial(), [bad])
    for _ in range(2):
        opened.post(opened.note_opened)
        failed.fail()
    opened.fail()
    assert good.told == ["opened"]
    assert bad.told == ["nothing"]


def test_events_of_many_threads_run_one_at_a_time(rig: Rig) -> None:
    run, lock, clashes, count = Run(rig.dial()), threading.Lock(), [], [0]

    def event() -> None:
        if not lock.acquire(blocking=False):
            clashes.append(1)
            return
        count[0] += 1
        lock.release()

    threads: list[threading.Thread] = []
    for _ in range(8):
        spawn("poster", lambda: [run.post(event) for _ in range(500)], threads.append)  # type: ignore[arg-type,return-value]
    for thread in threads:
        join(thread, 20.0)
    run.wait_told()
    assert (count[0], clashes) == (4000, [])
