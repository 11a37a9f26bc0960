"""A thread that looks after names while there are any."""

import threading

import pytest

from connman.integrations.pusher.worker import Worker
from tests.loopback import PATIENCE
from tests.waiting import eventually


def test_each_name_once_and_in_order_and_then_the_thread_ends() -> None:
    looked: list[str] = []
    go = threading.Event()

    def look(name: str) -> None:
        assert go.wait(PATIENCE)
        looked.append(name)

    worker = Worker("test", look)
    worker.ask(["a"])
    eventually(lambda: any(thread.name == "connman-pusher-test" for thread in threading.enumerate()))
    worker.ask(["b", "c"])
    worker.ask(["c", "b"])
    assert not worker.wait_idle(0.01)
    go.set()
    assert worker.wait_idle(PATIENCE)
    assert looked[-2:] == ["b", "c"]
    assert looked == ["a", "b", "c"]
    worker.ask(["d"])
    eventually(lambda: looked[-1] == "d")


def test_a_name_that_fails_stops_no_other(caplog: pytest.LogCaptureFixture) -> None:
    looked: list[str] = []

    def look(name: str) -> None:
        looked.append(name)
        raise SystemExit

    worker = Worker("test", look)
    worker.ask(["a", "b"])
    assert worker.wait_idle(PATIENCE)
    assert looked == ["a", "b"]
    assert "SystemExit" in caplog.text


def test_a_child_begins_anew() -> None:
    go = threading.Event()
    worker = Worker("test", lambda _: go.wait(PATIENCE))
    worker.ask(["a"])
    worker.after_fork()  # as in a child, in which the thread does not run
    assert worker.wait_idle(0)
    go.set()
