"""The seam to other relays: a broker that is scripted, and sides that are elsewhere."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack

import pytest

from connman.relay import BrokerHost, BrokerLost, Limits, Relay, RelaySeen, RemoteRefused
from connman.relay.broker import NoBroker, Other
from tests.loopback import PATIENCE
from tests.relay.rig import HANDOVER, REACHED, READY, TEXT, caller, pair, provider
from tests.waiting import eventually


class Far:
    """A side that is elsewhere: what it is sent goes back, and it keeps what it is told."""

    def __init__(self) -> None:
        self.side: Other | None = None
        self.told: list[object] = []

    def attach(self, side: Other) -> None:
        self.side = side
        side.forward([b"\x81\x05", b"hello"])

    def forward(self, frames: Sequence[bytes | bytearray]) -> None:
        assert self.side is not None
        self.side.forward([bytes(part) for part in frames])

    def close(self, code: int, reason: str) -> None:
        self.told.append((code, reason))

    def pause(self) -> None:
        self.told.append("pause")

    def resume(self) -> None:
        self.told.append("resume")


class Scripted(NoBroker):
    """A broker that says what it is told to."""

    def __init__(self) -> None:
        self.answer: Far | Exception | None = None
        self.host: BrokerHost | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self.events: list[str] = []
        self.is_asked = threading.Event()
        self.may_answer = threading.Event()
        self.may_answer.set()

    async def start(self, host: BrokerHost) -> None:
        self.host = host
        self.loop = asyncio.get_running_loop()

    async def stop(self) -> None:
        self.events.append("stop")

    def spare_added(self, name: str) -> None:
        self.events.append(f"+{name}")

    def spare_gone(self, name: str) -> None:
        self.events.append(f"-{name}")

    async def open_remote(self, name: str) -> Far | None:
        self.is_asked.set()
        while not self.may_answer.is_set():
            await asyncio.sleep(0.001)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def relays(self) -> tuple[RelaySeen, ...]:
        return (RelaySeen("1", "here", 0.0),)


@pytest.fixture
def broker() -> Scripted:
    return Scripted()


@pytest.fixture
def relay(broker: Scripted) -> Iterator[Relay]:
    with Relay(port=0, broker=broker, limits=Limits(ready_timeout=30.0)) as relay:
        yield relay


def test_a_caller_is_joined_with_a_side_elsewhere(relay: Relay, broker: Scripted) -> None:
    far = broker.answer = Far()
    with caller(relay) as near:
        assert near.told() == REACHED
        assert near.hear() == "hello"
        near.say("and back")
        assert near.hear() == "and back"
        near.say(b"x" * 100_000)
        assert near.hear() == b"x" * 100_000
        snapshot = relay.snapshot()
        assert (snapshot.pairs, snapshot.relays) == (1, (RelaySeen("1", "here", 0.0),))
        assert relay.names() == [("device", 0, 1)]
        near.leave(4005, "bye")
    eventually(lambda: far.told == [(4005, "bye")])
    assert relay.snapshot().pairs == 0


def test_a_side_elsewhere_that_ends(relay: Relay, broker: Scripted) -> None:
    far = broker.answer = Far()
    with caller(relay) as near:
        assert near.told() == REACHED
        assert near.hear() == "hello"
        assert broker.loop is not None
        assert far.side is not None
        broker.loop.call_soon_threadsafe(far.side.close, 4113, "broker lost")
        assert near.closed() == (4113, "broker lost")


@pytest.mark.parametrize(
    ("answer", "told", "counted"),
    [
        (None, (4104, "no provider of that name"), "no-provider"),
        (BrokerLost("gone"), (4113, "broker lost"), "broker"),
        (ValueError("staged"), (4113, "broker lost"), "broker"),
        (RemoteRefused(4110, "not ready in time"), (4110, "not ready in time"), "not-ready"),
    ],
)
def test_nobody_elsewhere(
    relay: Relay, broker: Scripted, answer: Exception | None, told: tuple[int, str], counted: str
) -> None:
    broker.answer = answer  # type: ignore[assignment]
    with caller(relay) as near:
        assert near.closed() == told
    assert relay.snapshot().refused == {counted: 1}


@pytest.mark.parametrize("answer", [None, BrokerLost("gone")])
def test_a_spare_that_comes_while_others_are_asked_is_taken(
    broker: Scripted, answer: Exception | None
) -> None:
    broker.answer = answer  # type: ignore[assignment]
    broker.may_answer.clear()
    with Relay(port=0, broker=broker) as relay, caller(relay) as near:
        assert broker.is_asked.wait(PATIENCE)
        with provider(relay) as far:
            broker.may_answer.set()
            assert far.told() == HANDOVER
            far.say(READY)
            assert near.told() == REACHED


def test_a_name_in_use_is_waited_for_though_nobody_else_can_be_asked(broker: Scripted) -> None:
    broker.answer = BrokerLost("gone")
    with Relay(port=0, broker=broker) as relay, ExitStack() as stack:
        for side in pair(relay):
            stack.enter_context(side)
        second = stack.enter_context(caller(relay))
        assert broker.is_asked.wait(PATIENCE)
        with provider(relay) as spare:
            assert spare.told() == HANDOVER
            spare.say(READY)
            assert second.told() == REACHED


def test_the_relays_own_spares_come_first(relay: Relay, broker: Scripted) -> None:
    broker.answer = Far()
    with provider(relay) as far, caller(relay) as near:
        assert far.told() == HANDOVER
        far.say(READY)
        assert near.told() == REACHED
        near.say("to the spare")
        assert far.hear() == "to the spare"
    assert broker.events[:2] == ["+device", "-device"]


def take(broker: Scripted) -> Future[Other | None]:
    assert broker.host is not None
    assert broker.loop is not None
    return asyncio.run_coroutine_threadsafe(broker.host.take_spare("device"), broker.loop)


def test_a_spare_is_handed_to_a_caller_elsewhere(relay: Relay, broker: Scripted) -> None:
    with provider(relay) as spare:
        taken = take(broker)
        assert spare.told() == HANDOVER
        spare.write(bytes(0))
        spare.say(READY)
        spare.say("early")
        side = taken.result(5)
        far = Far()
        assert broker.host is not None
        assert broker.loop is not None
        broker.loop.call_soon_threadsafe(broker.host.join, side, far)
        assert spare.frame() == (TEXT, True, b"hello")
        assert spare.hear() == "early"
        spare.sock.close()
        eventually(lambda: far.told == [(1006, "")])


def test_no_spare_for_one_elsewhere(broker: Scripted) -> None:
    with Relay(port=0, broker=broker, limits=Limits(ready_timeout=0.2)) as relay:
        assert take(broker).result(5) is None
        with provider(relay) as spare:
            taken = take(broker)
            assert spare.told() == HANDOVER
            assert taken.result(5) is None
            assert spare.closed() == (4110, "not ready in time")


def test_one_that_is_called_off_in_the_handover(relay: Relay, broker: Scripted) -> None:
    with provider(relay) as spare:
        taken = take(broker)
        assert spare.told() == HANDOVER
        taken.cancel()
        assert spare.closed() == (4102, "the other side was lost")


def test_the_spares_of_a_relay_are_told_of_one_by_one(broker: Scripted) -> None:
    with Relay(port=0, broker=broker) as relay, provider(relay) as one, provider(relay):
        one.leave()
        eventually(lambda: len(broker.events) == 3)
    assert broker.events == ["+device", "+device", "-device", "-device", "stop"]


class Stuck(Scripted):
    """A broker that fails in its last moment."""

    async def stop(self) -> None:
        raise RuntimeError("staged")


def test_a_broker_that_fails_does_not_hold_up_the_end(caplog: pytest.LogCaptureFixture) -> None:
    limits = Limits(close_timeout=0.1)
    with Relay(port=0, broker=Stuck(), limits=limits) as relay, provider(relay) as spare:
        assert relay.stop(0.0)
        assert spare.closed()[0] == 1001
    assert "the broker has failed while it was stopped" in caplog.text


class Refusing(NoBroker):
    """A broker that does not take this relay."""

    async def start(self, host: BrokerHost) -> None:
        raise BrokerLost("staged")


def test_a_broker_that_refuses_ends_the_start() -> None:
    relay = Relay(port=0, broker=Refusing())
    with pytest.raises(BrokerLost, match="staged"):
        relay.start()
    assert relay.wait(5)
