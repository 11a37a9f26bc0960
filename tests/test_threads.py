"""connman's own threads: named, marked, daemons."""

import threading

from connman.threads import is_own, spawn


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
