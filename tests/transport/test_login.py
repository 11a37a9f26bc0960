"""What a login that failed tells of the path; tests/connection/test_attempt.py has the conversation itself."""

import pytest

from connman.errors import (
    ConnectError,
    ConnectionClosed,
    ConnectionLost,
    ConnmanError,
    Fatal,
    HandshakeFailed,
    HandshakeTimeout,
    MessageTooBig,
    NotConnected,
    PingTimeout,
    ProtocolError,
    SendTimeout,
    WaitTimeout,
)
from connman.options import Options
from connman.testing import FakeClock
from connman.transport.base import Dial
from connman.transport.login import Channel, is_answer, log_in
from connman.transport.memory import memory_pair


class Rejected(ConnmanError):
    """What a handshake of the user's own may raise."""


def failed(cause: BaseException) -> HandshakeFailed:
    error = HandshakeFailed("h", (), "handshake")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "cause", [ValueError("wrong password"), Rejected(), ConnectionClosed(4001), ConnectionClosed(None)]
)
def test_what_the_peer_said_is_an_answer(cause: BaseException) -> None:
    assert is_answer(failed(cause))


@pytest.mark.parametrize(
    "cause",
    [
        WaitTimeout(),
        TimeoutError(),
        ConnectionLost(),
        PingTimeout(),
        SendTimeout(),
        NotConnected(),
        ProtocolError(),
        MessageTooBig(),
    ],
)
def test_silence_and_losses_are_none(cause: BaseException) -> None:
    assert not is_answer(failed(cause))


def test_fatal_is_an_answer_and_a_login_that_took_too_long_is_none() -> None:
    late = HandshakeTimeout("h")
    late.__cause__ = ValueError("judged too late")
    assert is_answer(Fatal("go away"))
    assert not is_answer(late)
    assert not is_answer(ConnectError("h"))
    assert not is_answer(HandshakeFailed("h"))


def test_what_came_behind_the_login_is_returned() -> None:
    clock = FakeClock()
    dial = Dial(None, Options(), clock)
    near, far = memory_pair(clock, 1000)
    far.send(["welcome", "first", "second"], 1)

    def handshake(channel: Channel) -> None:
        assert channel.recv() == "welcome"

    assert log_in(dial, near) == []
    dial.handshake = handshake
    assert log_in(dial, near) == ["first", "second"]
    assert [step.phase for step in dial.log] == ["handshake"]
