"""The user's callbacks: order, one at a time, on which thread, and what their failures may not do."""

import itertools
import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest

from connman import Connection, Reset, State
from connman.errors import ConnectionClosed, ConnectionLost
from connman.testing import Peer
from connman.transport.login import Channel
from tests.connection.rig import OPEN, PATIENCE, REFUSED, Rig, forever, reader_name, say
from tests.loopback import in_thread
from tests.waiting import eventually

BAD = [ZeroDivisionError("a bug"), SystemExit(3), GeneratorExit(), ConnectionClosed(4001)]
both_ways = pytest.mark.parametrize("dispatch", ["reader", "thread"])


def raising(error: BaseException) -> Callable[..., Any]:
    def hook(*_: object) -> Any:
        raise error

    return hook


class Gate:
    """A hook that blocks until it is opened."""

    def __init__(self) -> None:
        self._inside, self._open = threading.Event(), threading.Event()

    def __call__(self, *_: object) -> None:
        self._inside.set()
        assert self._open.wait(3 * PATIENCE)  # longer than the test waits for anything

    def wait_inside(self) -> None:
        assert self._inside.wait(PATIENCE)

    def open(self) -> None:
        self._open.set()


# Order


@both_ways
def test_what_a_server_says_before_it_closes_comes_before_the_reset(dispatch: str) -> None:
    def server(peer: Peer) -> None:
        for number in range(2000):
            peer.send(str(number))
        peer.close(1012, "restart")

    with Rig([server], dispatch=dispatch) as rig:
        rig.conn.wait_open(PATIENCE)
        assert rig.told.wait(2002).kinds == ["open", *map(str, range(2000)), "lost"]
        assert (rig.told.resets[0].code, rig.told.resets[0].reason) == (1012, "restart")


@both_ways
def test_each_open_has_its_reset_and_each_failure_its_own(dispatch: str) -> None:
    def server(peer: Peer) -> None:
        peer.send("hello")
        peer.close(1001)

    script = [REFUSED, server, REFUSED, REFUSED, server, server]
    with Rig(script, dispatch=dispatch, stable_after=0) as rig:
        rig.fail_through(len(script) - 1)
        rig.told.wait(12)
        spoken = ["open", "hello", "lost"]
        assert rig.told.kinds[:12] == ["failed", *spoken, "failed", "failed", *spoken, *spoken]
        assert [reset.generation for reset in rig.told.resets[:6]] == [0, 1, 1, 1, 2, 3]
        assert rig.told.overlaps == 0


@both_ways
def test_what_a_reset_tells(dispatch: str) -> None:
    with Rig([REFUSED, OPEN], dispatch=dispatch) as rig:
        (delay,) = rig.fail_through(1)
        rig.open().close(4200, "later")
        lost = rig.told.wait(3).resets[1]
        rig.wait_delay(2)
        rig.conn.disconnect()
    failed = rig.told.resets[0]
    assert (failed.opened, failed.code, failed.reason, failed.generation) == (False, None, "", 0)
    assert failed.retry_in == pytest.approx(delay)
    assert lost == Reset(
        opened=True,
        error=lost.error,
        code=4200,
        reason="later",
        attempt=2,
        retry_in=lost.retry_in,
        generation=1,
    )
    assert isinstance(lost.error, ConnectionClosed)


@both_ways
def test_the_reset_of_a_disconnect_is_the_last_word(dispatch: str) -> None:
    with Rig([OPEN], dispatch=dispatch) as rig:
        rig.open()
        rig.told.wait(1)
        rig.conn.disconnect(4321, "enough")
        assert rig.told.kinds == ["open", "lost"]
        (reset,) = rig.told.resets
        assert (reset.code, reset.reason, reset.retry_in) == (4321, "enough", None)


def test_binary_and_text_arrive_as_what_they_were() -> None:
    with Rig([OPEN]) as rig:
        peer = rig.open()
        for message in ("text", b"\x00bytes", "", b""):
            peer.send(message)
        assert rig.told.wait(5).events[1:] == ["text", b"\x00bytes", "", b""]


# What on_reset returns


@both_ways
def test_a_callable_returned_by_on_reset_rules_the_following_opens(dispatch: str) -> None:
    opened: list[str] = []
    answers: list[object] = [
        None,
        lambda _: opened.append("new"),
        None,
        lambda _: opened.append("newer"),
        None,
    ]
    rig = Rig(forever(OPEN), dispatch=dispatch, stable_after=0)
    rig.told.hooks["open"] = lambda _: opened.append("first")
    rig.told.hooks["reset"] = lambda *_: answers.pop(0) if answers else None
    with rig:
        for number in itertools.count(1):
            peer = rig.open()
            eventually(lambda number=number: len(opened) >= number)
            if number == 6:
                break
            peer.drop()
            rig.clock.advance(rig.wait_delay(number))
        assert opened == ["first", "first", "new", "new", "newer", "newer"]


def test_a_callable_returned_for_a_failed_attempt_counts_as_well() -> None:
    opened: list[str] = []
    rig = Rig([REFUSED, OPEN])
    rig.told.hooks["reset"] = lambda *_: lambda conn: opened.append(conn.name)
    with rig:
        rig.fail_through(1)
        rig.open()
        eventually(lambda: opened == ["rig"])


@both_ways
@pytest.mark.parametrize("answer", [7, "on_open", False, []], ids=repr)
def test_anything_else_is_logged_and_ignored(
    answer: object, dispatch: str, caplog: pytest.LogCaptureFixture
) -> None:
    rig = Rig([REFUSED, OPEN], dispatch=dispatch)
    rig.told.hooks["reset"] = lambda *_: answer
    with rig:
        rig.fail_through(1)
        rig.open()
        assert rig.told.wait(2).kinds == ["failed", "open"]
        assert rig.conn.stats.callback_errors == 1
        (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
        assert isinstance(record.exc_info[1] if record.exc_info else None, TypeError)
        assert type(answer).__name__ in record.getMessage()


# Failures


@both_ways
@pytest.mark.parametrize("error", BAD, ids=repr)
@pytest.mark.parametrize("where", ["open", "data", "reset"])
def test_an_exception_is_logged_counted_and_survived(
    where: str, error: BaseException, dispatch: str, caplog: pytest.LogCaptureFixture
) -> None:
    rig = Rig([OPEN, OPEN], dispatch=dispatch)
    rig.told.hooks[where] = raising(error)
    with rig:
        peer = rig.open()
        peer.send("1")
        peer.send("2")
        rig.told.wait(3)
        peer.drop()
        rig.clock.advance(rig.wait_delay(1))
        rig.open().send("3")
        assert rig.told.wait(6).kinds == ["open", "1", "2", "lost", "open", "3"]
        count = {"open": 2, "data": 3, "reset": 1}[where]
        eventually(lambda: rig.conn.stats.callback_errors == count)
    records = [record for record in caplog.records if record.exc_info]
    assert {record.exc_info[1] for record in records if record.exc_info} == {error}
    assert {vars(record)["conn"] for record in records} == {"rig"}
    assert f"on_{where}" in records[0].getMessage()


# On a thread of their own


# What gevent kills a greenlet with. It is not to be taken for an error of the callback: who kills waits for the end.


def kill() -> BaseException:
    error: BaseException = pytest.importorskip("greenlet").GreenletExit()
    return error


@pytest.mark.parametrize("where", ["open", "data", "reset"])
def test_a_reader_that_is_killed_in_a_callback_ends_and_the_connection_is_idle(
    where: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Seen failing: the kill was logged as the callback's error, and the reader went on."""
    rig = Rig([OPEN, OPEN])
    rig.told.hooks[where] = raising(kill())
    with rig:
        peer = rig.open()
        say(peer, "1")
        if where == "reset":
            rig.told.wait(2)
            peer.drop()
        eventually(lambda: rig.conn.state is State.IDLE and "lost" in rig.told.kinds)
        eventually(lambda: reader_name() not in {thread.name for thread in threading.enumerate()})
        assert rig.told.kinds == ["open", *(["1"] if where != "open" else []), "lost"]
        assert rig.conn.stats.callback_errors == 0
        rig.told.hooks.clear()
        before = len(rig.told.events)
        rig.open().send("2")
        assert rig.told.wait(before + 2).kinds[before:] == ["open", "2"]
    assert not [record for record in caplog.records if record.exc_info]


def test_a_killed_reader_fails_who_asked_for_it_meanwhile() -> None:
    """It cannot go on, and the next to ask gets another."""
    asked = []
    rig = Rig([OPEN, OPEN])

    def on_reset(*_: object) -> None:
        asked.append(rig.conn.get_connected())

    rig.told.hooks |= {"data": raising(kill()), "reset": on_reset}
    with rig:
        rig.open().send("1")
        eventually(lambda: asked)
        assert isinstance(asked[0].exception(PATIENCE), ConnectionLost)
        rig.told.hooks.clear()
        eventually(lambda: rig.conn.state is State.IDLE)
        assert rig.open()


def test_who_is_killed_while_he_logs_in_ends() -> None:
    """A thread that dials for a shared reader costs one attempt only."""

    def handshake(_: Channel) -> None:
        if len(rig.dialer.dials) == 1:
            raise kill()

    rig = Rig([OPEN, OPEN], handshake=handshake)
    with rig:
        future = rig.conn.get_connected()
        assert rig.told.wait(1).kinds == ["failed"]
        if rig.told.resets[0].retry_in is None:
            assert "killed" in str(future.exception(PATIENCE))
            assert rig.conn.wait_gone(PATIENCE)
        else:
            assert "readers" in reader_name()
            rig.clock.advance(rig.wait_delay(1))
        rig.open()


@pytest.mark.parametrize("where", ["open", "data", "reset"])
def test_a_callback_thread_that_is_killed_is_replaced_and_the_transport_lost(where: str) -> None:
    """What was read together with the message that it was killed in will not be delivered."""
    rig = Rig([OPEN, OPEN], dispatch="thread")
    rig.told.hooks[where] = raising(kill())
    with rig:
        peer = rig.open()
        if where != "open":
            say(peer, "1")
        if where == "reset":
            rig.told.wait(2)
            peer.drop()
        eventually(lambda: "lost" in rig.told.kinds)
        # The one that was killed has done whatever it does then.
        eventually(lambda: not all(thread.is_alive() for thread in rig.told.threads))
        rig.told.hooks.clear()
        before = len(rig.told.events)
        rig.clock.advance(rig.wait_delay(1))
        rig.open().send("3")
        assert rig.told.wait(before + 2).kinds[before:] == ["open", "3"]
        assert rig.conn.stats.callback_errors == 0


def test_on_the_reader_they_come_on_one_thread() -> None:
    with Rig([OPEN]) as rig:
        rig.open().send("x")
        assert [thread.name for thread in rig.told.wait(2).threads] == [reader_name()]


def test_on_a_callback_thread_a_blocked_callback_does_not_hold_the_reader() -> None:
    gate = Gate()
    rig = Rig([OPEN, OPEN], dispatch="thread")
    rig.told.hooks["open"] = gate
    with rig:
        peer = rig.open()
        gate.wait_inside()
        peer.send("x")
        peer.drop()
        rig.clock.advance(rig.wait_delay(1))
        rig.conn.wait_open(PATIENCE)
        assert rig.conn.generation == 2
        assert rig.told.kinds == ["open"]
        rig.told.hooks.clear()
        gate.open()
        assert rig.told.wait(4).kinds == ["open", "x", "lost", "open"]
        assert [thread.name for thread in rig.told.threads] == ["connman-callbacks-rig"]
        assert rig.told.overlaps == 0


@pytest.mark.parametrize("size", [40, 60_000])
def test_a_full_queue_holds_the_peer_back(size: int) -> None:
    gate = Gate()
    count = 1_200_000 // size if size > 40 else 12_000
    rig = Rig([OPEN], dispatch="thread", max_message_size=100_000)
    rig.told.hooks["open"] = gate
    with rig:
        peer = rig.open()
        gate.wait_inside()

        def send() -> None:
            for number in range(count):
                peer.send(str(number).ljust(size))

        sending = in_thread(send)
        with pytest.raises(TimeoutError):
            sending.result(0.1)
        assert rig.conn.stats.messages_in < count
        rig.told.hooks.clear()
        gate.open()
        sending.result(PATIENCE)
        expected = [str(number).ljust(size) for number in range(count)]
        assert rig.told.wait(1 + count).kinds[1:] == expected


def test_the_callback_thread_ends_when_the_connection_is_idle_and_comes_back() -> None:
    def names() -> set[str]:
        return {thread.name for thread in threading.enumerate() if "rig" in thread.name}

    with Rig([OPEN, OPEN], dispatch="thread", reconnect=False) as rig:
        for _ in range(2):
            peer = rig.open()
            eventually(lambda: names() == {reader_name(), "connman-callbacks-rig"})
            peer.drop()
            eventually(lambda: names() == set())
        assert rig.told.kinds == ["open", "lost", "open", "lost"]


def test_a_restart_from_idle_does_not_overlap_a_callback_that_still_runs() -> None:
    gate = Gate()
    rig = Rig([OPEN, OPEN], dispatch="thread", reconnect=False)
    rig.told.hooks["reset"] = gate
    with rig:
        rig.open().drop()
        gate.wait_inside()
        assert rig.conn.state == State.IDLE
        rig.open().send("x")
        eventually(lambda: rig.conn.stats.messages_in == 1)
        assert rig.told.kinds == ["open", "lost"]
        gate.open()
        assert rig.told.wait(4).kinds == ["open", "lost", "open", "x"]
        assert rig.told.overlaps == 0


def test_disconnect_while_the_callback_thread_is_blocked_delivers_no_more() -> None:
    gate = Gate()
    rig = Rig([OPEN], dispatch="thread")
    rig.told.hooks["data"] = gate
    with rig:
        peer = rig.open()
        for number in range(10):
            peer.send(str(number))
        gate.wait_inside()
        eventually(lambda: rig.conn.stats.messages_in == 10)
        ending = in_thread(rig.conn.disconnect)
        peer.wait_closed()
        assert not ending.done()
        gate.open()
        ending.result(PATIENCE)
        assert rig.told.kinds == ["open", "0", "lost"]


def test_disconnect_while_the_queue_is_full() -> None:
    gate = Gate()
    # Room for one: 64 bytes each are counted beside their own.
    rig = Rig([OPEN], dispatch="thread", max_message_size=100)
    rig.told.hooks["open"] = gate
    with rig:
        peer = rig.open()
        gate.wait_inside()
        for number in (1, 2):  # one after the other: what arrives together is one item, which always fits
            peer.send(f"message {number}")
            eventually(lambda number=number: rig.conn.stats.messages_in == number)
        rig.conn.end_soon()
        # The reader is set free although the callback still blocks.
        eventually(lambda: "connman-reader-rig" not in {thread.name for thread in threading.enumerate()})
        peer.wait_closed()
        gate.open()
        assert rig.conn.wait_gone(PATIENCE)
        assert rig.told.kinds == ["open", "lost"]


@pytest.mark.parametrize("where", ["open", "data", "reset"])
def test_disconnect_from_a_callback_on_the_callback_thread(where: str) -> None:
    rig = Rig(forever(OPEN), dispatch="thread")
    rig.told.hooks[where] = lambda conn, *_: conn.disconnect()
    with rig:
        peer = rig.open()
        say(peer, "x")
        if where == "reset":
            rig.told.wait(2)
            peer.drop()
        rig.told.wait({"open": 2, "data": 3, "reset": 3}[where])
        assert rig.conn.wait_gone(PATIENCE)
        expected = {"open": ["open", "lost"], "data": ["open", "x", "lost"], "reset": ["open", "x", "lost"]}
        assert rig.told.kinds == expected[where]
        assert len(rig.dialer.dials) == 1


def test_disconnect_during_a_wait_ends_the_callback_thread_too() -> None:
    with Rig([REFUSED], dispatch="thread") as rig:
        rig.conn.connect()
        rig.wait_delay(1)
        rig.conn.end_soon()
        assert rig.conn.wait_gone(PATIENCE)
        assert rig.told.kinds == ["failed"]


def test_without_a_thread_the_callbacks_run_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """An ending interpreter grants no thread."""
    start = threading.Thread.start

    def start_or_not(thread: threading.Thread) -> None:
        if "callbacks" in thread.name:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_or_not)
    with Rig([OPEN], dispatch="thread") as rig:
        rig.open().send("x")
        assert rig.told.wait(2).kinds == ["open", "x"]
    assert rig.told.kinds == ["open", "x", "lost"]


def test_callbacks_are_optional() -> None:
    with Rig([REFUSED, OPEN, OPEN], on_open=None, on_data=None, on_reset=None) as rig:
        rig.fail_through(1)
        rig.open().drop()
        rig.clock.advance(rig.wait_delay(2))
        peer = rig.open()
        peer.send("x")
        assert rig.conn.recv(PATIENCE) == "x"
        assert isinstance(rig.conn, Connection)
