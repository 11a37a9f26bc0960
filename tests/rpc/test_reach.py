"""A peer that reaches a name: it comes back, says at once when nobody is there, and ends what is its own."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from connman import Manager, Reset
from connman.errors import (
    InvalidOption,
    InvalidTarget,
    NoSuchPeer,
    PeerGone,
    RpcError,
    UpgradeRefused,
)
from connman.rpc import Peer, reach
from connman.testing import Peer as Side
from connman.testing import ScriptedDialer
from tests.loopback import in_thread
from tests.rpc.relay_side import PATIENCE, RelaySide, answer
from tests.waiting import eventually


@pytest.fixture
def manager() -> Iterator[Manager]:
    with Manager() as manager:
        yield manager


class Reaching:
    def __init__(self, manager: Manager) -> None:
        self.manager = manager

    def __call__(self, relay: RelaySide, **options: Any) -> Peer:
        chosen = {"wait": lambda _: 0.0, "stable_after": 0.0, "manager": self.manager, **options}
        return reach(relay.dialer, "device", **chosen)


@pytest.fixture
def reaching(manager: Manager) -> Reaching:
    return Reaching(manager)


def serve(side: Side, count: int = 1) -> None:
    """Answer the next calls with their arguments."""
    for _ in range(count):
        request = answer(side)
        side.send(f'{{"responseId":{request["requestId"]},"type":"data","data":{request["args"]}}}')


def test_a_call_waits_for_the_first_attempt(reaching: Reaching) -> None:
    relay = RelaySide()
    peer = reaching(relay)
    result = in_thread(peer.call, "echo", 1, 2)
    serve(relay.joined())
    assert result.result(PATIENCE) == [1, 2]


def test_while_nobody_provides_the_name_calls_say_so_at_once(reaching: Reaching) -> None:
    relay = RelaySide()
    resets: list[Reset] = []
    peer = reaching(relay, wait=lambda _: 3600.0, on_reset=lambda _, reset: resets.append(reset))
    call = in_thread(peer.call, "echo")
    relay.dialled().close(4104, "")
    with pytest.raises(NoSuchPeer):
        call.result(PATIENCE)
    eventually(lambda: resets, PATIENCE)
    with pytest.raises(NoSuchPeer):
        peer.call("echo")
    with pytest.raises(NoSuchPeer):
        peer.send("echo").result(PATIENCE)


def test_a_relay_that_is_not_there_is_told_as_gone(reaching: Reaching) -> None:
    peer = reaching(RelaySide([ConnectionRefusedError]), wait=lambda _: 3600.0)
    with pytest.raises(PeerGone):
        peer.call("echo")


def test_the_same_peer_goes_on_with_a_provider_that_came_back(reaching: Reaching) -> None:
    relay = RelaySide()
    peer = reaching(relay)
    first = relay.joined()
    lost = in_thread(peer.call, "echo", 1)
    answer(first)
    first.close(4102, "")
    with pytest.raises(PeerGone) as gone:
        lost.result(PATIENCE)
    assert gone.value.sent
    relay.dialled().close(4104)
    relay.dialled().close(4104)
    second = relay.joined()
    eventually(lambda: peer.conn.is_open, PATIENCE)
    result = in_thread(peer.call, "echo", 2)
    serve(second)
    assert result.result(PATIENCE) == [2]


def test_a_call_that_may_be_sent_again_waits_for_a_provider(reaching: Reaching) -> None:
    relay = RelaySide()
    peer = reaching(relay)
    future = peer.send("echo", 7, retry_safe=True)
    relay.dialled().close(4104)
    relay.dialled().close(4104)
    serve(relay.joined())
    assert future.result(PATIENCE) == [7]


def test_the_provider_may_call_back(reaching: Reaching) -> None:
    relay = RelaySide()
    reaching(relay, services={"add": lambda a, b: a + b})
    side = relay.joined()
    side.send('{"requestId":0,"type":"request","serviceId":"add","args":[2,3]}')
    assert answer(side) == {"responseId": 0, "type": "data", "data": 5}


def test_closing_the_peer_ends_its_connection(reaching: Reaching) -> None:
    relay = RelaySide()
    peer = reaching(relay)
    side = relay.joined()
    eventually(lambda: peer.conn.is_open, PATIENCE)
    peer.close()
    assert side.wait_closed(PATIENCE)
    assert peer.closed.result(PATIENCE).code == 1000
    with pytest.raises(RpcError):
        peer.call("echo")
    assert len(relay.dialer.dials) == 1


@pytest.mark.parametrize("outcome", [ScriptedDialer.HANG, ScriptedDialer.DEAF, ConnectionRefusedError])
def test_closing_the_peer_in_every_phase(reaching: Reaching, outcome: Any) -> None:
    relay = RelaySide([outcome])
    peer = reaching(relay, wait=lambda _: 3600.0)
    relay.dialer.wait_until_dialled()
    waiting = in_thread(peer.call, "echo")
    peer.close()
    with pytest.raises(RpcError):
        waiting.result(PATIENCE)
    eventually(lambda: not [t for t in threading.enumerate() if "reach device" in t.name], PATIENCE)


def test_a_refusal_for_good_fails_calls_at_once(reaching: Reaching) -> None:
    relay = RelaySide([UpgradeRefused(401)] * 8)
    peer = reaching(relay, token="wrong")
    future = peer.send("echo", retry_safe=True)
    with pytest.raises(RpcError, match="401"):
        future.result(PATIENCE)
    # A failure is not remembered: a call asks again, and hears the same.
    with pytest.raises(RpcError, match="401"):
        peer.call("echo")
    assert 3 <= len(relay.dialer.dials) <= 6  # two a series: at the start, by `send` perhaps, and by `call`


def test_what_the_relay_lets_one_in_for_is_asked_for_each_attempt(reaching: Reaching) -> None:
    tokens = iter(f"token-{n}" for n in range(10))
    relay = RelaySide()
    reaching(relay, token=lambda: next(tokens))
    relay.joined().drop()
    relay.joined()
    sent = [dict(dialled.headers)["Authorization"] for dialled in relay.dialer.dials]
    assert sent == ["Bearer token-0", "Bearer token-1"]


@pytest.mark.parametrize("option", ["on_data", "framing", "dispatch", "handshake", "nonsense"])
def test_an_option_that_is_not_the_users_is_refused(option: str) -> None:
    with pytest.raises(TypeError, match=option):
        reach("ws://127.0.0.1:1/", "device", **{option: None})


def test_what_cannot_work_is_refused_before_anything_is_dialled() -> None:
    with pytest.raises(InvalidTarget):
        reach("tcp://127.0.0.1:1", "device")
    with pytest.raises(InvalidOption):
        reach("ws://127.0.0.1:1/", "")
