"""What sits on a connection instead of a user: told of everything, on the reader thread, first."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from connman import Connection, Reset, State
from connman.connection.cycle import Cycle
from connman.connection.receiver import Handover, Receiver
from connman.records import Message
from connman.transport.base import Transport
from tests.connection.rig import OPEN, PATIENCE, REFUSED, Rig, reader_name
from tests.loopback import in_thread
from tests.stacks import is_in
from tests.waiting import eventually


class Taker:
    """A receiver that remembers what it is told, and on which thread."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.threads: list[str] = []
        self.on_message: Callable[[Message], None] = lambda _: None

    def opened(self, transport: Transport) -> None:
        self._note(("opened", transport))

    def received(self, messages: list[Message]) -> None:
        for message in messages:
            self._note(message)
            self.on_message(message)

    def reset(self, reset: Reset) -> None:
        self._note("lost" if reset.opened else "failed")

    def changed(self, state: State) -> None:
        self.told.append(state)

    def _note(self, event: object) -> None:
        self.told.append(event)
        self.threads.append(threading.current_thread().name)

    @property
    def kinds(self) -> list[object]:
        """What it was told, without transports and states."""
        return [
            "opened" if isinstance(event, tuple) else event
            for event in self.told
            if not isinstance(event, State)
        ]

    def wait(self, *kinds: object) -> None:
        eventually(lambda: self.kinds == list(kinds), PATIENCE, lambda: f"{kinds}: {self.kinds}")


def quiet(script: Any = (OPEN,), **options: Any) -> Rig:
    """A rig without on_data, whose other callbacks are told."""
    return Rig(script, on_data=None, **options)


def test_it_takes_what_is_read_on_the_reader_thread() -> None:
    with quiet() as rig:
        taker = Taker()
        rig.conn.attach(taker)
        peer = rig.open()
        peer.send("one")
        peer.send(b"two")
        taker.wait("opened", "one", b"two")
        assert set(taker.threads) == {reader_name()}
        assert rig.conn.stats.messages_in == 2


@pytest.mark.parametrize("dispatch", ["reader", "thread"])
def test_it_is_told_before_the_user(dispatch: str) -> None:
    taker, order = Taker(), list[object]()

    def on_reset(conn: Connection, reset: Reset) -> None:
        order.append("user lost" if reset.opened else "user failed")
        assert taker.kinds[-1] in ("lost", "failed", "opened")

    def on_open(conn: Connection) -> None:
        order.append("user opened")
        assert "opened" in taker.kinds

    rig = quiet([REFUSED, OPEN], on_open=on_open, on_reset=on_reset, dispatch=dispatch, wait=lambda _: 0.0)
    with rig:
        rig.conn.attach(taker)
        rig.conn.connect()
        rig.clock.wait_until_waiting(delays=1)
        rig.clock.advance(1.0)
        eventually(lambda: "user opened" in order, PATIENCE)
        assert taker.kinds == ["failed", "opened"]
    # By whoever ends it and by the reader, at once.
    assert sorted(map(str, taker.told[-2:])) == sorted(map(str, (State.CLOSED, "lost")))


def test_states_come_to_it_in_order() -> None:
    taker = Taker()
    with quiet() as rig:
        rig.conn.attach(taker)
        rig.open()
        taker.wait("opened")
    assert [event for event in taker.told if isinstance(event, State)] == [
        State.CONNECTING,
        State.OPEN,
        State.CLOSED,
    ]


def test_what_lies_in_the_inbox_comes_first() -> None:
    with quiet() as rig:
        peer = rig.open()
        for number in range(5):
            peer.send(str(number))
        assert rig.conn.recv(PATIENCE) == "0"
        eventually(lambda: rig.conn.stats.messages_in == 5, PATIENCE)
        taker = Taker()
        rig.conn.attach(taker)
        taker.wait("opened", "1", "2", "3", "4")
        peer.send("5")
        taker.wait("opened", "1", "2", "3", "4", "5")


def test_the_reader_waits_until_it_knows_what_was_before() -> None:
    """What the reader brings while a receiver is being told of the past comes behind that."""
    with quiet() as rig:
        peer = rig.open()
        peer.send("first")
        eventually(lambda: rig.conn.stats.messages_in == 1, PATIENCE)
        has_second = threading.Event()

        class Slow(Taker):
            def opened(self, transport: Transport) -> None:
                super().opened(transport)
                peer.send("second")
                eventually(lambda: rig.conn.stats.messages_in == 2, PATIENCE)
                has_second.wait(0.05)  # which it must not have

        taker = Slow()
        taker.on_message = lambda message: has_second.set() if message == "second" else None
        rig.conn.attach(taker)
        taker.wait("opened", "first", "second")


def test_it_may_come_while_messages_do() -> None:
    """However attaching meets the reader: nothing is lost, nothing comes twice, and the order holds."""
    for _ in range(30):
        with quiet() as rig:
            peer = rig.open()
            talk = in_thread(lambda peer=peer: [peer.send(str(number)) for number in range(50)])
            taker = Taker()
            rig.conn.attach(taker)
            talk.result(PATIENCE)
            eventually(lambda taker=taker: "49" in taker.kinds, PATIENCE)
            assert [kind for kind in taker.kinds if kind != "opened"] == [str(number) for number in range(50)]
            assert taker.kinds[0] == "opened"


def test_it_may_come_while_it_opens_and_is_lost() -> None:
    """Who attaches at any moment knows the transport that is open, or is told of the end of the one that was."""
    for _ in range(30):
        with quiet([OPEN], reconnect=False) as rig:
            rig.conn.connect()
            taker = Taker()
            rig.conn.attach(taker)
            rig.dialer.next_peer().drop()
            eventually(lambda taker=taker: "lost" in taker.kinds, PATIENCE)
            assert taker.kinds.index("opened") < taker.kinds.index("lost")


def test_a_full_inbox_does_not_hold_the_reader_any_more() -> None:
    with quiet(max_message_size=1000) as rig:
        peer = rig.open()
        for _ in range(20):
            peer.send("x" * 900)
        eventually(lambda: rig.conn.stats.messages_in >= 2, PATIENCE)
        taker = Taker()
        rig.conn.attach(taker)
        eventually(lambda: len(taker.kinds) == 21, PATIENCE)


def test_recv_is_no_longer_for_anybody() -> None:
    with quiet() as rig:
        rig.open()
        waiting = in_thread(lambda: rig.conn.recv(PATIENCE))
        rig.conn.attach(Taker())
        with pytest.raises(TypeError):
            waiting.result(PATIENCE)
        with pytest.raises(TypeError):
            rig.conn.recv(0)


def test_there_is_one() -> None:
    with quiet() as rig:
        rig.conn.attach(Taker())
        with pytest.raises(ValueError, match="receiver already"):
            rig.conn.attach(Taker())


def test_with_on_data_there_is_none() -> None:
    with Rig() as rig, pytest.raises(TypeError):
        rig.conn.attach(Taker())


def test_one_makes_room_for_another_within_a_message() -> None:
    """What came with the last word of the first one is the second one's, in order, and so is all that follows."""
    first, second = Taker(), Taker()
    with quiet() as rig:

        def turn(message: Message) -> None:
            if message == "turn":
                first.on_message = lambda _: None
                rig.conn.attach(second, ["left over"], replaces=first)

        first.on_message = turn
        rig.conn.attach(first)
        peer = rig.open()
        peer.send("turn")
        eventually(lambda: "left over" in second.kinds, PATIENCE)
        peer.send("for the second")
        second.wait("opened", "left over", "for the second")
        assert first.kinds == ["opened", "turn"]


def test_one_makes_room_within_what_lay_in_the_inbox() -> None:
    """The same on the thread that attaches the first one, while the reader brings more."""
    first, second = Taker(), Taker()
    with quiet() as rig:
        first.on_message = lambda message: (
            rig.conn.attach(second, replaces=first) if message == "turn" else None
        )
        peer = rig.open()
        peer.send("turn")
        eventually(lambda: rig.conn.stats.messages_in == 1, PATIENCE)
        rig.conn.attach(first)
        peer.send("for the second")
        second.wait("opened", "for the second")


def test_nothing_comes_behind_the_end() -> None:
    taker = Taker()
    with quiet() as rig:
        taker.on_message = lambda _: rig.conn.disconnect(timeout=0)
        rig.conn.attach(taker)
        peer = rig.open()
        peer.send("one")
        eventually(lambda: State.CLOSED in taker.told, PATIENCE)
        count = len([kind for kind in taker.kinds if kind == "one"])
        assert count == 1


def test_a_handover_tells_whoever_is_there_then() -> None:
    there: list[Taker] = []
    handover = Handover(lambda: there[0] if there else None)
    handover.received(["lost"])
    handover.changed(State.OPEN)
    there.append(Taker())
    handover.received(["a"])
    handover.changed(State.WAITING)
    assert there[0].told == ["a", State.WAITING]


def is_handing_on() -> bool:
    """Whether a thread is within the handover's `received`."""
    return is_in(Handover.received.__code__)


def test_what_comes_while_it_attaches_waits_until_it_knows_of_the_transport(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with quiet() as rig:
        peer = rig.open()
        attach = Cycle.receive_by

        def slow(cycle: Cycle, receiver: Receiver) -> None:
            attach(cycle, receiver)
            if isinstance(receiver, Handover):
                peer.send("first")
                eventually(is_handing_on, PATIENCE)

        monkeypatch.setattr(Cycle, "receive_by", slow)
        taker = Taker()
        rig.conn.attach(taker)
        taker.wait("opened", "first")
