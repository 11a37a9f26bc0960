"""One transport's worth of a peer, as its streams see it."""

from typing import Any

import pytest

from connman.errors import MessageTooBig, PeerGone, WouldDeadlock
from connman.rpc.session import Session
from tests.rpc.rig import PATIENCE, Wired
from tests.waiting import eventually


def session_of(wire: Wired) -> Session:
    """Return the present session, as a service over it would see it."""
    found: Session = wire.peer._path.session  # type: ignore[assignment]  # noqa: SLF001
    return found


class Sink:
    def __init__(self) -> None:
        self.told: list[Any] = []

    def settle(self, value: object) -> None:
        self.told.append(value)

    def fail(self, error: BaseException) -> None:
        self.told.append(error)

    def dropped(self, call: object) -> None:
        self.told.append("dropped")


def test_a_request_whose_answer_goes_to_a_stream() -> None:
    with Wired() as wire:
        session, sink = session_of(wire), Sink()
        call = session.start("x", "[1]", sink, ',"window":7')
        assert wire.hear() == {"requestId": 0, "type": "request", "serviceId": "x", "args": [1], "window": 7}
        assert session.find(0) is call
        assert session.was_sent(0)
        assert not session.was_sent(1)
        wire.say({"responseId": 0, "type": "data", "data": "plain"})
        eventually(lambda: sink.told, PATIENCE)
        assert sink.told == ["plain"]


def test_a_call_that_is_cancelled_tells_nobody() -> None:
    with Wired() as wire:
        session, sink = session_of(wire), Sink()
        session.cancel(session.start("x", "[]", sink))
        wire.say({"responseId": 0, "type": "data"})
        wire.mark()
        assert sink.told == []


def test_its_end() -> None:
    with Wired() as wire:
        session, sink = session_of(wire), Sink()
        session.start("x", "[]", sink)
        assert session.post('{"posted":1}')
        session.write('{"written":1}')
        assert [wire.hear() for _ in range(3)][1:] == [{"posted": 1}, {"written": 1}]
        wire.peer.close()
        assert session.is_over
        assert isinstance(sink.told[0], PeerGone)
        assert not session.post("x")
        for use in (
            lambda: session.write("x"),
            lambda: session.start("x", "[]", sink),
            lambda: session.notify("x"),
        ):
            with pytest.raises(PeerGone) as caught:
                use()
            assert caught.value.sent is False


def test_sizes() -> None:
    with Wired(max_message_size=1000) as wire:
        session = session_of(wire)
        assert not session.is_too_big("x" * 872)
        assert session.is_too_big("x" * 873)
        assert session.is_too_big("€" * 300)
        with pytest.raises(MessageTooBig):
            session.start("x", '["' + "x" * 900 + '"]', Sink())


def test_the_reader_is_refused_to_wait() -> None:
    refused: list[object] = []

    def on_open(conn: object) -> None:
        try:
            session_of(wires[0]).refuse_reader()
        except WouldDeadlock as error:
            refused.append(error)

    wires: list[Wired] = []
    wire = Wired(on_open=on_open)
    wires.append(wire)
    wire.open()
    eventually(lambda: refused, PATIENCE)
    session_of(wire).refuse_reader()
    wire.peer.close()
