"""connman's own threads: named, marked, daemons."""

import threading

import pytest

from connman.threads import is_kill, is_own, spawn


def test_a_thread_is_named_marked_and_a_daemon() -> None:
    answers = []
    thread = spawn("x", lambda: answers.append((threading.current_thread(), is_own())))
    thread.join(10)
    assert answers == [(thread, True)]
    assert (thread.name, thread.daemon) == ("connman-x", True)


def test_other_threads_are_not_own() -> None:
    answers = []
    thread = threading.Thread(target=lambda: answers.append(is_own()))
    thread.start()
    thread.join(10)
    assert answers == [False]
    assert not is_own()


def test_who_notes_a_thread_has_it_before_it_runs() -> None:
    noted: list[threading.Thread] = []
    seen = []
    thread = spawn("x", lambda: seen.append(noted[0] is threading.current_thread()), noted.append)
    thread.join(10)
    assert noted == [thread]
    assert seen == [True]


def test_a_kill_is_what_gevent_throws_into_a_greenlet() -> None:
    greenlet = pytest.importorskip("greenlet")
    assert is_kill(greenlet.GreenletExit())
    assert not is_kill(SystemExit())
    assert not is_kill(ValueError())
