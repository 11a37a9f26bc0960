import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from connman.errors import ConnectError, ConnectTimeout
from connman.transport import resolve as resolving
from connman.transport.resolve import forget_lookups_after_fork, hold_lookups, release_lookups, resolve
from tests.loopback import PATIENCE, Aborted, in_thread, make_dial
from tests.waiting import eventually

ANSWER = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.7", 5000))]


class HangingResolver:
    """A `getaddrinfo` that answers when it is let go."""

    def __init__(self) -> None:
        self.calls = 0
        self.go = threading.Event()

    def __call__(self, *_: Any, **__: Any) -> Any:
        self.calls += 1
        self.go.wait(PATIENCE)
        return ANSWER


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[HangingResolver]:
    hanging = HangingResolver()
    monkeypatch.setattr(socket, "getaddrinfo", hanging)
    yield hanging
    hanging.go.set()
    # One that has begun and not asked yet would ask the system's, once this one is taken back.
    eventually(lambda: not looks_up())


def answer_with(monkeypatch: pytest.MonkeyPatch, answer: Callable[[], Any]) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answer())


def raising(error: Exception) -> Callable[[], Any]:
    def answer() -> Any:
        raise error

    return answer


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", (socket.AF_INET, ("127.0.0.1", 80))),
        ("::1", (socket.AF_INET6, ("::1", 80, 0, 0))),
        ("fe80::1%7", (socket.AF_INET6, ("fe80::1", 80, 0, 7))),
        ("fe80::1%lo", (socket.AF_INET6, ("fe80::1", 80, 0, socket.if_nametoindex("lo")))),
    ],
)
def test_a_literal_needs_no_lookup(resolver: HangingResolver, host: str, expected: object) -> None:
    dial = make_dial("tcp://host:80")
    assert resolve(dial, host, 80) == [expected]
    assert resolver.calls == 0
    assert dial.log == []


def test_a_name_is_looked_up_and_logged() -> None:
    dial = make_dial("tcp://localhost:80")
    assert (socket.AF_INET, ("127.0.0.1", 80)) in resolve(dial, "localhost", 80)
    assert [(step.phase, step.address, step.cause) for step in dial.log] == [("dns", "localhost", None)]


def test_an_address_named_twice_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    answer_with(monkeypatch, lambda: ANSWER * 2)
    assert resolve(make_dial("tcp://twice:5000"), "twice", 5000) == [(socket.AF_INET, ("192.0.2.7", 5000))]


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (
            raising(socket.gaierror(socket.EAI_NONAME, "Name or service not known")),
            "Name or service not known",
        ),
        (raising(UnicodeError("label too long")), "label too long"),
        (list, "no address"),
    ],
)
def test_a_name_without_address_is_a_connect_error(
    monkeypatch: pytest.MonkeyPatch, answer: Callable[[], Any], cause: str
) -> None:
    answer_with(monkeypatch, answer)
    dial = make_dial("tcp://nowhere.test:80")
    with pytest.raises(ConnectError, match=cause) as caught:
        resolve(dial, "nowhere.test", 80)
    assert [(step.phase, step.address) for step in caught.value.attempts] == [("dns", "nowhere.test")]


def test_an_abort_ends_a_hanging_lookup(resolver: HangingResolver) -> None:
    dial = make_dial("tcp://slow:80")
    dialling = in_thread(resolve, dial, "slow", 80)
    eventually(lambda: resolver.calls)
    dial.abort(Aborted("enough"))
    with pytest.raises(Aborted):
        dialling.result(PATIENCE)


def test_an_abort_before_the_lookup_counts(resolver: HangingResolver) -> None:
    dial = make_dial("tcp://slow:80")
    dial.abort(Aborted("enough"))
    with pytest.raises(Aborted):
        resolve(dial, "slow", 80)


def test_a_hanging_lookup_ends_at_the_deadline(resolver: HangingResolver) -> None:
    dial = make_dial("tcp://slow:80", open_timeout=0.05)
    with pytest.raises(ConnectTimeout):
        in_thread(resolve, dial, "slow", 80).result(PATIENCE)


def test_a_hanging_resolver_costs_one_thread_for_all_attempts(resolver: HangingResolver) -> None:
    for _ in range(5):
        with pytest.raises(ConnectTimeout):
            resolve(make_dial("tcp://slow:80", open_timeout=0.02), "slow", 80)
    dialling = [in_thread(resolve, make_dial("tcp://slow:80"), "slow", 80) for _ in range(5)]
    assert resolver.calls == 1
    resolver.go.set()
    assert {str(each.result(PATIENCE)) for each in dialling} == {str([(socket.AF_INET, ("192.0.2.7", 5000))])}


def test_answers_are_not_remembered(resolver: HangingResolver) -> None:
    resolver.go.set()
    for _ in range(3):
        resolve(make_dial("tcp://name:80"), "name", 80)
    assert resolver.calls == 3


def test_other_names_do_not_wait(resolver: HangingResolver) -> None:
    dialling = in_thread(resolve, make_dial("tcp://slow:80"), "slow", 80)
    other = in_thread(resolve, make_dial("tcp://other:80"), "other", 80)
    eventually(lambda: resolver.calls == 2)
    resolver.go.set()
    dialling.result(PATIENCE)
    other.result(PATIENCE)


def test_a_child_process_waits_for_no_lookup_of_its_parent(resolver: HangingResolver) -> None:
    dialling = in_thread(resolve, make_dial("tcp://slow:80"), "slow", 80)
    eventually(lambda: resolver.calls == 1)
    forget_lookups_after_fork()
    again = in_thread(resolve, make_dial("tcp://slow:80"), "slow", 80)
    eventually(lambda: resolver.calls == 2)
    resolver.go.set()
    dialling.result(PATIENCE)
    again.result(PATIENCE)


def looks_up() -> bool:
    return any(thread.name.startswith("connman-dns-") for thread in threading.enumerate())


def test_a_fork_waits_for_the_lookups_under_way(
    resolver: HangingResolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolving, "FORK_PATIENCE", PATIENCE)
    dialling = in_thread(resolve, make_dial("tcp://slow:80"), "slow", 80)
    eventually(lambda: resolver.calls == 1)
    answered = []

    def fork() -> None:
        hold_lookups()
        answered.append(resolver.go.is_set())
        release_lookups()

    forking = in_thread(fork)
    other = in_thread(resolve, make_dial("tcp://slow:80"), "slow", 80)
    resolver.go.set()
    for each in (forking, dialling, other):
        each.result(PATIENCE)
    assert answered == [True]


class Leaving:
    """A value of a thread: says that the thread leaves, and keeps it until it may go."""

    def __init__(self, leaves: threading.Event, go: threading.Event) -> None:
        self.leaves, self.go = leaves, go

    def __del__(self) -> None:
        self.leaves.set()
        self.go.wait(PATIENCE)


@pytest.mark.parametrize("patience", [PATIENCE, 0.02])
def test_a_fork_waits_for_the_threads_of_lookups_to_leave(
    monkeypatch: pytest.MonkeyPatch, patience: float
) -> None:
    """They take a lock of the C library then. Seen failing: `hold_lookups` returned while one was there."""
    leaves, go, of_thread = threading.Event(), threading.Event(), threading.local()

    def answer() -> Any:
        of_thread.leaving = Leaving(leaves, go)
        return ANSWER

    answer_with(monkeypatch, answer)
    monkeypatch.setattr(resolving, "FORK_PATIENCE", patience)
    assert resolve(make_dial("tcp://name:80"), "name", 80)
    assert leaves.wait(PATIENCE)
    forking = in_thread(lambda: (hold_lookups(), release_lookups()))
    if patience == PATIENCE:
        with pytest.raises(TimeoutError):
            forking.result(0.05)
        go.set()
    forking.result(PATIENCE / 2)
    go.set()


def test_no_lookup_begins_while_a_thread_forks(resolver: HangingResolver) -> None:
    resolver.go.set()
    hold_lookups()
    # Another's fork, which is over first.
    in_thread(lambda: (hold_lookups(), release_lookups())).result(PATIENCE)
    dialling = in_thread(resolve, make_dial("tcp://name:80"), "name", 80)
    with pytest.raises(TimeoutError):
        dialling.result(0.05)
    assert resolver.calls == 0
    release_lookups()
    dialling.result(PATIENCE)
    assert resolver.calls == 1


def test_a_lookup_that_hangs_keeps_no_fork_waiting(
    resolver: HangingResolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is at its name server then, and holds no lock. Seen failing by the time it took."""
    monkeypatch.setattr(resolving, "FORK_PATIENCE", 0.02)
    dialling = in_thread(resolve, make_dial("tcp://slow:80"), "slow", 80)
    eventually(lambda: resolver.calls == 1)
    in_thread(lambda: (hold_lookups(), release_lookups())).result(PATIENCE / 2)
    assert not dialling.done()
    resolver.go.set()
    dialling.result(PATIENCE)


def test_lookups_go_on_when_nobody_says_that_the_fork_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a Ctrl-C between the fork and what follows it does."""
    monkeypatch.setattr(resolving, "FORK_LIMIT", 0.02)
    hold_lookups()
    try:
        assert resolve(make_dial("tcp://localhost:80"), "localhost", 80)
    finally:
        release_lookups()


def test_no_thread_to_be_had_is_a_connect_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        with pytest.raises(ConnectError, match="can't start new thread"):
            resolve(make_dial("tcp://localhost:80"), "localhost", 80)
    assert resolve(make_dial("tcp://localhost:80"), "localhost", 80)


@pytest.mark.parametrize("when", ["asking", "held by a fork"])
def test_a_lookup_that_is_killed_is_told_and_not_remembered(
    monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """As gevent kills a greenlet. Seen failing: every later dial to the name waited out its deadline."""
    greenlet = pytest.importorskip("greenlet")

    def be_killed(*_: object, **__: object) -> None:
        raise greenlet.GreenletExit

    with monkeypatch.context() as patch:
        if when == "asking":
            patch.setattr(socket, "getaddrinfo", be_killed)
        else:
            hold_lookups()
            patch.setattr(resolving._table()._condition, "wait", be_killed)  # noqa: SLF001
        with pytest.raises(ConnectError, match="GreenletExit"):
            resolve(make_dial("tcp://localhost:80"), "localhost", 80)
    release_lookups()
    assert resolve(make_dial("tcp://localhost:80"), "localhost", 80)
