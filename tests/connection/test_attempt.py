"""One try: headers that are evaluated anew, a dial that may fail in any way, and the login conversation."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from connman import Connection, Fatal, State
from connman.errors import (
    ConnectError,
    ConnectionClosed,
    HandshakeFailed,
    HandshakeTimeout,
    NotConnected,
    UpgradeRefused,
    WaitTimeout,
)
from connman.testing import Peer
from connman.transport.login import Channel
from tests.connection.rig import DEAF, OPEN, PATIENCE, Rig, forever, read_as_told
from tests.waiting import eventually

BAD = [ZeroDivisionError("a bug"), SystemExit(3), OSError("not ours")]


def failing_once(error: BaseException, then: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that raises at first, and is `then` from then on."""
    left = [error]

    def function(*args: Any) -> Any:
        if left:
            raise left.pop()
        return then(*args)

    return function


def tracebacks(caplog: pytest.LogCaptureFixture) -> list[BaseException | None]:
    return [record.exc_info[1] for record in caplog.records if record.exc_info]


# Headers


def test_headers_reach_the_dial() -> None:
    with Rig(headers={"X-One": "1"}) as rig:
        rig.open()
        assert rig.dialer.dials[0].headers == (("X-One", "1"),)


def test_a_headers_callable_is_evaluated_for_each_attempt() -> None:
    tokens = iter(range(1, 99))
    with Rig(
        [UpgradeRefused(401), OPEN, OPEN], headers=lambda: {"Authorization": f"Bearer {next(tokens)}"}
    ) as rig:
        rig.fail_through(1)
        peer = rig.open()
        peer.drop()
        rig.clock.advance(rig.wait_delay(2))
        rig.open()
        sent = [dial.headers for dial in rig.dialer.dials]
    assert sent == [(("Authorization", f"Bearer {n}"),) for n in (1, 2, 3)]


def test_401_twice_is_fatal_although_the_headers_were_fresh() -> None:
    tokens = iter(range(1, 99))
    error = UpgradeRefused(401)
    with Rig(forever(error), headers=lambda: [("X-Token", str(next(tokens)))]) as rig:
        future = rig.conn.get_connected()
        rig.clock.advance(rig.wait_delay(1))
        assert future.exception(PATIENCE) is error
        assert [dial.headers for dial in rig.dialer.dials] == [(("X-Token", "1"),), (("X-Token", "2"),)]


@pytest.mark.parametrize("error", BAD, ids=repr)
def test_headers_that_raise_are_a_failed_attempt(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    with Rig(headers=failing_once(error, dict)) as rig:
        rig.fail_through(1)
        rig.open()
        failed = rig.told.wait(2).resets[0].error
        assert rig.conn.stats.failed_attempts == 1
    assert isinstance(failed, ConnectError)
    assert failed.__cause__ is error
    assert tracebacks(caplog) == [error]


@pytest.mark.parametrize("bad", [{"X": "a\r\nb"}, {"Upgrade": "h2c"}, 7, [("X",)], {"X": 1}], ids=repr)
def test_headers_that_cannot_be_sent_are_a_failed_attempt(bad: Any) -> None:
    answers = iter([bad, {}])
    with Rig(headers=lambda: next(answers)) as rig:
        rig.fail_through(1)
        rig.open()
        assert isinstance(rig.told.wait(2).resets[0].error, ConnectError)
        assert len(rig.dialer.dials) == 1


def test_fatal_headers_end_retrying() -> None:
    fatal = Fatal("no pass for you")

    def headers() -> dict[str, str]:
        raise fatal

    with Rig(headers=headers) as rig:
        assert rig.conn.get_connected().exception(PATIENCE) is fatal


def test_nothing_is_dialled_when_the_end_comes_while_headers_are_made() -> None:
    asked, go_on = threading.Event(), threading.Event()

    def headers() -> dict[str, str]:
        asked.set()
        go_on.wait(PATIENCE)
        return {}

    with Rig(headers=headers) as rig:
        future = rig.conn.get_connected()
        assert asked.wait(PATIENCE)
        rig.conn.end_soon()
        go_on.set()
        assert rig.conn.wait_gone(PATIENCE)
        assert isinstance(future.exception(0), ConnectionClosed)
        assert rig.dialer.dials == []


# Dials that raise what no dial should


@pytest.mark.parametrize("error", BAD, ids=repr)
def test_a_target_that_raises_anything_is_a_failed_attempt(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    rig = Rig()

    class Target:
        dial = staticmethod(failing_once(error, rig.dialer.dial))

    conn = Connection(Target(), clock=rig.clock, ping_interval=None, on_reset=rig.told.on_reset)
    read_as_told(conn, rig.clock)
    conn.connect()
    rig.clock.advance(rig.wait_delay(1))
    conn.wait_open(PATIENCE)
    conn.disconnect()
    failed = rig.told.resets[0].error
    assert isinstance(failed, ConnectError)
    assert failed.__cause__ is error
    assert tracebacks(caplog) == [error]


# The login conversation


def login(channel: Channel) -> None:
    channel.send("open sesame")
    assert channel.recv() == "welcome"


def let_in(peer: Peer) -> None:
    assert peer.recv() == "open sesame"
    peer.send("welcome")


def test_it_counts_as_open_behind_the_handshake_only() -> None:
    asked, answer = threading.Event(), threading.Event()

    def server(peer: Peer) -> None:
        peer.recv()
        asked.set()
        answer.wait(PATIENCE)
        peer.send("welcome")

    with Rig([server], handshake=login) as rig:
        future = rig.conn.get_connected()
        assert asked.wait(PATIENCE)
        assert rig.conn.state == State.CONNECTING
        assert not future.done()
        assert rig.told.events == []
        with pytest.raises(NotConnected):
            rig.conn.send("too early")
        answer.set()
        assert future.result(PATIENCE) is rig.conn
        rig.told.wait(1)


def test_it_logs_in_again_on_every_transport() -> None:
    with Rig(forever(let_in), handshake=login) as rig:
        for number in (1, 2, 3):
            peer = rig.open()
            assert rig.conn.generation == number
            peer.drop()
            rig.told.wait(2 * number)
            eventually(lambda: rig.clock.waiting or rig.clock.pending)
            rig.clock.advance(1)


def test_what_came_behind_the_last_reply_is_delivered_in_order() -> None:
    def server(peer: Peer) -> None:
        peer.recv()
        for message in ["welcome", *map(str, range(300))]:
            peer.send(message)

    with Rig([server], handshake=login) as rig:
        rig.open()
        assert rig.told.wait(301).kinds == ["open", *map(str, range(300))]
        assert rig.conn.stats.messages_in == 300


def test_what_came_behind_the_last_reply_reaches_recv() -> None:
    def server(peer: Peer) -> None:
        for message in ["welcome", b"1", "2", b"3"]:
            peer.send(message)

    with Rig([server], handshake=lambda channel: channel.recv(), on_data=None) as rig:
        rig.open()
        assert [rig.conn.recv(PATIENCE) for _ in range(3)] == [b"1", "2", b"3"]


def test_a_server_that_says_its_piece_and_closes_behind_the_handshake_is_heard() -> None:
    def server(peer: Peer) -> None:
        for message in ["welcome", "1", "2"]:
            peer.send(message)
        peer.close(4100, "come back")

    with Rig([server], handshake=lambda channel: channel.recv()) as rig:
        rig.conn.wait_open(PATIENCE)
        assert rig.told.wait(4).kinds == ["open", "1", "2", "lost"]
        assert rig.told.resets[0].code == 4100


@pytest.mark.parametrize("error", BAD, ids=repr)
def test_a_handshake_that_raises_is_a_failed_attempt(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    with Rig(forever(OPEN), handshake=failing_once(error, lambda _: None)) as rig:
        rig.fail_through(1)
        rig.conn.wait_open(PATIENCE)
        failed = rig.told.wait(2).resets[0].error
        assert rig.told.kinds == ["failed", "open"]
        assert rig.conn.stats.failed_attempts == 1
        # What failed to log in is not left open.
        rig.dialer.next_peer().wait_closed()
    assert type(failed) is HandshakeFailed
    assert failed.__cause__ is error
    assert type(error).__name__ in str(failed)
    assert tracebacks(caplog) == [error]


def test_a_handshake_has_a_time_limit() -> None:
    with Rig([DEAF, OPEN], handshake=failing_once(WaitTimeout(), lambda _: None)) as rig:
        rig.fail_through(1)
        rig.open()
        assert type(rig.told.wait(1).resets[0].error) is HandshakeFailed
    with Rig([DEAF], handshake=login, handshake_timeout=7) as rig:
        rig.conn.connect()
        rig.clock.wait_until_waiting()
        rig.clock.advance(6.9)
        assert rig.told.events == []
        rig.clock.advance(0.1)
        assert isinstance(rig.told.wait(1).resets[0].error, HandshakeTimeout)


def test_a_server_that_drips_does_not_stretch_the_time_limit() -> None:
    def patient(channel: Channel) -> None:
        while channel.recv() != "welcome":
            pass

    with Rig([OPEN], handshake=patient, handshake_timeout=7) as rig:
        rig.conn.connect()
        peer = rig.dialer.next_peer()
        for asked in range(1, 8):
            rig.clock.wait_until_waiting(delays=asked)
            assert rig.told.events == []
            rig.clock.advance(1)
            if asked < 7:
                peer.send("not yet")
        assert isinstance(rig.told.wait(1).resets[0].error, HandshakeTimeout)


def test_a_handshake_that_is_late_without_the_network_is_late_as_well() -> None:
    rig = Rig([OPEN], handshake=lambda _: rig.clock.advance(10), handshake_timeout=10)
    with rig:
        rig.conn.connect()
        assert isinstance(rig.told.wait(1).resets[0].error, HandshakeTimeout)


def test_a_recv_of_a_handshake_may_have_a_shorter_limit() -> None:
    def impatient(channel: Channel) -> None:
        with pytest.raises(WaitTimeout):
            channel.recv(timeout=2)
        channel.send("hello?")
        assert channel.recv(timeout=99) == "yes"

    with Rig([OPEN], handshake=impatient) as rig:
        rig.conn.connect()
        rig.clock.advance(rig.wait_delay(1))
        peer = rig.dialer.next_peer()
        assert peer.recv() == "hello?"
        eventually(lambda: len(rig.clock.delays) == 2)
        peer.send("yes")
        rig.conn.wait_open(PATIENCE)
        assert rig.clock.delays == [2, pytest.approx(8)]


def test_a_fatal_handshake_ends_retrying() -> None:
    fatal = Fatal("wrong pass")

    def handshake(_: Channel) -> None:
        raise fatal

    with Rig([OPEN], handshake=handshake) as rig:
        assert rig.conn.get_connected().exception(PATIENCE) is fatal
        assert rig.conn.state == State.IDLE
        assert rig.told.wait(1).resets[0].error is fatal


@pytest.mark.parametrize(("code", "is_fatal"), [(4001, True), (1008, True), (4100, False), (1011, False)])
def test_a_server_that_closes_during_the_handshake(code: int, is_fatal: bool) -> None:
    with Rig(forever(lambda peer: peer.close(code, "no")), handshake=login) as rig:
        future = rig.conn.get_connected()
        reset = rig.told.wait(1).resets[0]
        assert (reset.opened, reset.retry_in is None) == (False, is_fatal)
        assert isinstance(reset.error, HandshakeFailed)
        assert isinstance(reset.error.__cause__, ConnectionClosed)
        if is_fatal:
            assert future.exception(PATIENCE) is reset.error
        else:
            assert not future.done()


def test_disconnect_during_the_handshake() -> None:
    said: list[BaseException] = []

    def handshake(channel: Channel) -> None:
        try:
            channel.recv()
        except BaseException as error:
            said.append(error)
            raise

    with Rig([DEAF], handshake=handshake) as rig:
        future = rig.conn.get_connected()
        rig.clock.wait_until_waiting()
        rig.conn.disconnect(4321)
        assert isinstance(future.exception(0), ConnectionClosed)
        assert len(said) == 1
        assert rig.told.kinds == ["failed"]
        assert isinstance(rig.told.resets[0].error, ConnectionClosed)
        assert rig.told.resets[0].retry_in is None
        assert rig.conn.stats.failed_attempts == 0


def test_a_handshake_that_ignores_the_end_does_not_open_it() -> None:
    started, go_on = threading.Event(), threading.Event()

    def stubborn(_: Channel) -> None:
        started.set()
        go_on.wait(PATIENCE)

    with Rig([OPEN], handshake=stubborn) as rig:
        rig.conn.connect()
        assert started.wait(PATIENCE)
        rig.conn.end_soon()
        go_on.set()
        assert rig.conn.wait_gone(PATIENCE)
        assert rig.conn.generation == 0
        assert rig.told.kinds == ["failed"]
        rig.dialer.next_peer().wait_closed()


@pytest.mark.parametrize("does_fail", [False, True])
def test_a_channel_is_of_no_use_afterwards(does_fail: bool) -> None:
    kept: list[Channel] = []

    def handshake(channel: Channel) -> None:
        kept.append(channel)
        if does_fail:
            raise ValueError

    with Rig([OPEN], handshake=handshake) as rig:
        rig.conn.connect()
        rig.told.wait(1)
        for use in (kept[0].recv, lambda: kept[0].send("x")):
            with pytest.raises(NotConnected):
                use()


def test_the_log_of_the_attempt_names_the_handshake() -> None:
    with Rig([OPEN], handshake=failing_once(ValueError("bad pass"), lambda _: None)) as rig:
        rig.conn.connect()
        error = rig.told.wait(1).resets[0].error
    assert isinstance(error, ConnectError)
    assert [step.phase for step in error.attempts] == ["script", "handshake"]
    assert "ValueError: bad pass" in str(error)
    assert error.endpoint == "rig"
