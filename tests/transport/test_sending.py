"""Sending without ever waiting for the network: `send_now`, and what finishes it. `test_pipe.py` has the rest."""

import threading
from collections.abc import Iterator

import pytest

from connman.clock import SystemClock
from connman.errors import ConnectionLost, NotConnected, SendTimeout
from connman.transport.memory import memory_pair
from connman.transport.pipe import Pipe
from tests.loopback import in_thread

PATIENCE = 10.0
MUCH = "x" * 1_000_000


@pytest.fixture
def ends() -> Iterator[tuple[Pipe, Pipe]]:
    near, far = memory_pair(SystemClock(), 1 << 24)
    yield near, far
    near.dispose()
    far.dispose()


def read(pipe: Pipe, count: int) -> list[str | bytes]:
    messages: list[str | bytes] = []
    while len(messages) < count:
        messages += pipe.receive()
    return messages


def test_what_the_network_takes_at_once_is_sent(ends: tuple[Pipe, Pipe]) -> None:
    near, far = ends
    assert near.send_now(["a", b"b", "c"]) is None
    assert read(far, 3) == ["a", b"b", "c"]
    assert near.messages_out == 3


def test_the_rest_is_sent_when_somebody_waits_for_it(ends: tuple[Pipe, Pipe]) -> None:
    near, far = ends
    finish = near.send_now(["first", MUCH, "last"])
    assert finish is not None
    reading = in_thread(read, far, 3)
    finish(PATIENCE)
    assert reading.result(PATIENCE) == ["first", MUCH, "last"]
    assert near.messages_out == 3
    assert near.send_now(["on"]) is None
    assert read(far, 1) == ["on"]


def test_nothing_comes_between_the_two_halves(ends: tuple[Pipe, Pipe]) -> None:
    near, far = ends
    finish = near.send_now([MUCH])
    assert finish is not None
    other = near.send_now(["other"])
    assert other is not None
    near.ping()
    reading = in_thread(read, far, 2)
    others = in_thread(other, PATIENCE)
    finish(PATIENCE)
    others.result(PATIENCE)
    assert reading.result(PATIENCE) == [MUCH, "other"]


def test_while_somebody_sends_it_is_left_to_whoever_may_wait(ends: tuple[Pipe, Pipe]) -> None:
    near, far = ends
    sending = in_thread(near.send, [MUCH], PATIENCE)
    while near.send_now(["x"]) is None:
        read(far, 1)
    finish = near.send_now(["behind"])
    assert finish is not None
    reading = in_thread(read, far, 2)
    finish(PATIENCE)
    sending.result(PATIENCE)
    assert set(reading.result(PATIENCE)) >= {MUCH, "behind"}


def test_a_close_waits_for_the_second_half(ends: tuple[Pipe, Pipe]) -> None:
    near, far = ends
    finish = near.send_now([MUCH])
    assert finish is not None
    near.close(1000, "done", PATIENCE)
    with pytest.raises(NotConnected):
        near.send(["late"], PATIENCE)
    reading = in_thread(read, far, 1)
    finish(PATIENCE)
    assert reading.result(PATIENCE) == [MUCH]
    with pytest.raises(NotConnected):
        near.send_now(["late"])


def test_time_runs_out_for_the_rest(ends: tuple[Pipe, Pipe]) -> None:
    near, _ = ends
    finish = near.send_now(["whole", MUCH])
    assert finish is not None
    with pytest.raises(SendTimeout) as caught:
        finish(0.01)
    assert caught.value.sent == 1
    assert near.error is not None


def test_the_end_comes_before_the_rest(ends: tuple[Pipe, Pipe]) -> None:
    near, _ = ends
    finish = near.send_now([MUCH])
    assert finish is not None
    near.abort(ConnectionLost("cut"))
    with pytest.raises(ConnectionLost):
        finish(PATIENCE)
    with pytest.raises(NotConnected):
        near.send_now(["x"])


def test_what_cannot_be_sent_holds_nothing_up(ends: tuple[Pipe, Pipe]) -> None:
    near, far = ends
    with pytest.raises(TypeError):
        near.send_now([5])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="surrogates"):
        near.send_now(["\ud800"])
    assert near.error is None
    assert near.send_now(["fine"]) is None
    assert read(far, 1) == ["fine"]


def test_many_threads(ends: tuple[Pipe, Pipe]) -> None:
    near, far = ends
    begin = threading.Barrier(4)

    def say(who: int) -> None:
        begin.wait(PATIENCE)
        for number in range(100):
            finish = near.send_now([f"{who}/{number}/" + "x" * 5000])
            if finish is not None:
                finish(PATIENCE)

    reading = in_thread(read, far, 400)
    for future in [in_thread(say, who) for who in range(4)]:
        future.result(PATIENCE)
    got = [str(message).split("/")[:2] for message in reading.result(PATIENCE)]
    for who in range(4):
        assert [number for name, number in got if name == str(who)] == [str(number) for number in range(100)]
