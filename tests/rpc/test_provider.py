"""A provider's spares and callers: replaced at once, bounded, back when lost, and ended in every phase."""

import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import connman
from connman import Manager
from connman.errors import ConnectionClosed, ConnectTimeout, UpgradeRefused, WaitTimeout, WouldDeadlock
from connman.rpc import Peer, Provider, ProviderStats, provide
from connman.testing import Peer as Side
from connman.testing import ScriptedDialer
from tests.rpc.relay_side import PATIENCE, RelaySide, answer, ask, hand_over
from tests.waiting import eventually

SERVICES = {"add": lambda a, b: a + b, 1: lambda: "one"}


@pytest.fixture
def relay() -> RelaySide:
    return RelaySide()


@pytest.fixture
def manager() -> Iterator[Manager]:
    with Manager() as manager:
        yield manager


class Providing:
    """Providers that are closed behind the test, with next to no waits between attempts."""

    def __init__(self, manager: Manager) -> None:
        self.manager = manager
        self.providers: list[Provider] = []

    def __call__(self, relay: RelaySide, **options: Any) -> Provider:
        chosen = {"wait": lambda _: 0.0, "stable_after": 0.0, "manager": self.manager, **options}
        self.providers.append(provide(relay.dialer, "device", chosen.pop("services", SERVICES), **chosen))
        return self.providers[-1]


@pytest.fixture
def providing(manager: Manager) -> Iterator[Providing]:
    providing = Providing(manager)
    yield providing
    for provider in providing.providers:
        provider.close(0)


def spares(relay: RelaySide, count: int = 2) -> list[Side]:
    return [relay.spare() for _ in range(count)]


# Spares


def test_as_many_spares_as_were_asked_for_wait_at_the_relay(relay: RelaySide, providing: Providing) -> None:
    provider = providing(relay, spares=3)
    spares(relay, 3)
    eventually(lambda: provider.stats.open_spares == 3, PATIENCE)
    assert provider.stats == ProviderStats(3, 3, 0, 0, None)
    assert provider.wait_ready(0) is provider
    assert len(relay.dialer.dials) == 3


def test_a_spare_that_is_taken_serves_its_caller_and_is_replaced(
    relay: RelaySide, providing: Providing
) -> None:
    provider = providing(relay)
    first, _ = spares(relay)
    caller = hand_over(first)
    relay.spare()  # the third dial: the replacement
    ask(caller, 0, "add", 2, 3)
    assert answer(caller) == {"responseId": 0, "type": "data", "data": 5}
    eventually(lambda: provider.stats.open_spares == 2, PATIENCE)
    assert provider.stats == ProviderStats(2, 2, 1, 1, None)
    assert len(provider.peers) == 1


def test_what_comes_with_the_handover_is_the_callers(relay: RelaySide, providing: Providing) -> None:
    providing(relay)
    first, _ = spares(relay)
    caller = hand_over(first, '{"requestId":0,"type":"request","serviceId":1,"args":[]}')
    assert answer(caller)["data"] == "one"


def test_a_caller_can_be_called_back(relay: RelaySide, providing: Providing) -> None:
    provider = providing(relay)
    first, _ = spares(relay)
    caller = hand_over(first)
    peer = eventually(lambda: provider.peers, PATIENCE)[0]
    future = peer.send("ping", 1)
    request = answer(caller)
    assert (request["type"], request["serviceId"], request["args"]) == ("request", "ping", [1])
    caller.send('{"responseId":0,"type":"data","data":"pong"}')
    assert future.result(PATIENCE) == "pong"


def test_all_callers_share_the_services(relay: RelaySide, providing: Providing) -> None:
    provider = providing(relay)
    callers = [hand_over(side) for side in spares(relay)]
    provider.services.add("late", lambda: "here")
    for caller in callers:
        ask(caller, 0, "late")
        assert answer(caller)["data"] == "here"


def test_a_spare_that_is_lost_comes_back(relay: RelaySide, providing: Providing) -> None:
    provider = providing(relay, spares=1)
    relay.spare().drop()
    relay.spare()
    eventually(lambda: provider.stats.open_spares == 1, PATIENCE)
    assert provider.stats.last_error is not None


def test_a_spare_that_is_refused_for_now_tries_again(providing: Providing) -> None:
    relay = RelaySide([ConnectionRefusedError, UpgradeRefused(503)])
    provider = providing(relay, spares=1)
    relay.spare()
    provider.wait_ready(PATIENCE)


def test_an_unknown_word_of_the_relay_means_nothing(relay: RelaySide, providing: Providing) -> None:
    providing(relay, spares=1)
    side = relay.spare()
    side.send('{"command":"dance"}')
    side.send(b"\x00")
    side.send("")
    assert hand_over(side)


# Callers


def side_threads() -> list[str]:
    """Return the threads of this side's connections and peers; the relay's side has others, and so have timers."""
    names = [thread.name for thread in threading.enumerate()]
    return [name for name in names if name.startswith(("connman-reader-", "connman-worker-"))]


def test_a_caller_that_leaves_takes_its_connection_with_it(relay: RelaySide, providing: Providing) -> None:
    provider = providing(relay, spares=1)
    for _ in range(3):
        side = hand_over(relay.spare())
        side.close(1000, "done")
        eventually(lambda: not provider.peers, PATIENCE)
    relay.spare()
    # One spare, as at the beginning: no pair has left a thread.
    eventually(lambda: len(side_threads()) == 1, PATIENCE, lambda: str(side_threads()))
    assert provider.stats.handovers == 3
    assert len(relay.dialer.dials) == 4


def test_a_caller_that_is_lost_is_not_dialled_again(relay: RelaySide, providing: Providing) -> None:
    provider = providing(relay, spares=1)
    side = hand_over(relay.spare())
    peer = eventually(lambda: provider.peers, PATIENCE)[0]
    relay.spare()
    side.drop()
    assert eventually(peer.closed.done, PATIENCE)
    eventually(lambda: not provider.peers, PATIENCE)
    assert len(relay.dialer.dials) == 2


def test_never_more_callers_and_spares_than_allowed(relay: RelaySide, providing: Providing) -> None:
    provider = providing(relay, spares=2, max_peers=3)
    first, second = spares(relay)
    hand_over(first)
    third = relay.spare()
    hand_over(second)
    hand_over(third)
    eventually(lambda: len(provider.peers) == 3, PATIENCE)
    assert provider.stats.spares == 0
    assert len(relay.dialer.dials) == 3
    first.close(1000)
    relay.spare()  # room for one again, and for one only
    assert (provider.stats.spares, len(relay.dialer.dials)) == (1, 4)


def test_whoever_asked_for_it_is_told_of_each_caller(relay: RelaySide, providing: Providing) -> None:
    told: list[Peer] = []
    providing(relay, spares=1, on_peer=told.append)
    side = hand_over(relay.spare())
    eventually(lambda: told, PATIENCE)[0].add_service("own", lambda: "of this caller")
    ask(side, 0, "own")
    assert answer(side)["data"] == "of this caller"


def test_a_callback_that_raises_harms_nobody(
    relay: RelaySide, providing: Providing, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(peer: Peer) -> None:
        raise ValueError("no")

    with caplog.at_level(logging.ERROR, "connman.rpc"):
        providing(relay, spares=1, on_peer=fail)
        side = hand_over(relay.spare())
        ask(side, 0, 1)
        assert answer(side)["data"] == "one"
    assert "on_peer raised" in caplog.text


# Refused for good


def test_a_refusal_for_good_ends_the_spares_and_is_told(
    relay: RelaySide, providing: Providing, caplog: pytest.LogCaptureFixture
) -> None:
    provider = providing(relay)
    first, second = spares(relay)
    with caplog.at_level(logging.ERROR, "connman.rpc"):
        first.close(4001, "the name")
        with pytest.raises(ConnectionClosed) as refused:
            provider.wait_closed(PATIENCE)
    assert refused.value.code == 4001
    assert second.wait_closed(PATIENCE)
    assert "no further attempt" in caplog.text
    with pytest.raises(ConnectionClosed):
        provider.wait_ready(0)
    assert len(relay.dialer.dials) == 2


def test_callers_outlive_a_refusal_of_spares(relay: RelaySide, providing: Providing) -> None:
    provider = providing(relay, spares=1)
    caller = hand_over(relay.spare())
    relay.spare().close(4001)
    eventually(lambda: provider.stats.spares == 0, PATIENCE)
    ask(caller, 0, 1)
    assert answer(caller)["data"] == "one"
    with pytest.raises(WaitTimeout):
        provider.wait_closed(0)
    caller.close(1000)
    with pytest.raises(ConnectionClosed):
        provider.wait_closed(PATIENCE)


@pytest.mark.parametrize("code", [3000, 3003])
def test_a_refused_token_is_tried_once_more(providing: Providing, code: int) -> None:
    tokens: list[str] = []

    def token() -> str:
        tokens.append(f"token-{len(tokens)}")
        return tokens[-1]

    relay = RelaySide()
    provider = providing(relay, spares=1, token=token)
    relay.spare().close(code)
    relay.spare()
    provider.wait_ready(PATIENCE)
    assert tokens == ["token-0", "token-1"]
    assert [dict(dialled.headers)["Authorization"] for dialled in relay.dialer.dials] == [
        "Bearer token-0",
        "Bearer token-1",
    ]


def test_a_wrong_token_ends_it(providing: Providing) -> None:
    provider = providing(RelaySide([UpgradeRefused(401)] * 4), spares=1, token="wrong")
    with pytest.raises(UpgradeRefused):
        provider.wait_closed(PATIENCE)


def test_the_user_may_say_that_nothing_is_for_good(providing: Providing) -> None:
    relay = RelaySide([UpgradeRefused(404)] * 3)
    provider = providing(relay, spares=1, retry_if=lambda error: True)
    relay.spare()
    provider.wait_ready(PATIENCE)


def test_what_was_not_granted_in_time_is_told_with_why(providing: Providing) -> None:
    provider = providing(RelaySide([ConnectionRefusedError] * 1000), spares=1, wait=lambda _: 60.0)
    eventually(lambda: provider.stats.last_error, PATIENCE)
    with pytest.raises(WaitTimeout, match="ConnectionRefusedError"):
        provider.wait_ready(0)


# Ending


def is_over(provider: Provider) -> bool:
    stats = provider.stats
    return (stats.spares, stats.peers) == (0, 0)


def test_closing_ends_spares_and_callers(relay: RelaySide, providing: Providing) -> None:
    provider = providing(relay, spares=1)
    caller = hand_over(relay.spare())
    spare = relay.spare()
    peer = eventually(lambda: provider.peers, PATIENCE)[0]
    eventually(lambda: provider.stats.open_spares, PATIENCE)
    provider.close()
    assert is_over(provider)
    closed = caller.wait_closed(PATIENCE)
    assert isinstance(closed, ConnectionClosed)
    assert (closed.code, closed.reason) == (1001, "the provider stops")
    assert isinstance(spare.wait_closed(PATIENCE), ConnectionClosed)
    assert peer.closed.done()
    provider.wait_closed(0)
    provider.close()
    with pytest.raises(ConnectionClosed):
        provider.wait_ready(0)
    assert len(relay.dialer.dials) == 2


@pytest.mark.parametrize("outcome", [ScriptedDialer.HANG, ScriptedDialer.DEAF, ConnectionRefusedError])
def test_closing_while_it_dials_logs_in_or_waits(providing: Providing, outcome: Any) -> None:
    relay = RelaySide([outcome] * 100)
    provider = providing(relay, wait=lambda _: 60.0)
    relay.dialer.wait_until_dialled(2)
    provider.close(0)
    assert is_over(provider)
    provider.wait_closed(0)
    assert len(relay.dialer.dials) == 2


def test_closing_by_a_service(relay: RelaySide, providing: Providing) -> None:
    provider = providing(relay, spares=1)
    provider.services.add("stop", provider.close)
    caller = hand_over(relay.spare())
    ask(caller, 0, "stop")
    provider.wait_closed(PATIENCE)
    assert isinstance(caller.wait_closed(PATIENCE), ConnectionClosed)


def test_closing_while_a_service_runs(relay: RelaySide, providing: Providing) -> None:
    running, release = threading.Event(), threading.Event()

    def slow() -> str:
        running.set()
        release.wait(PATIENCE)
        return "too late"

    provider = providing(relay, spares=1, services={"slow": slow})
    caller = hand_over(relay.spare())
    ask(caller, 0, "slow")
    assert running.wait(PATIENCE)
    provider.close()
    assert is_over(provider)
    assert isinstance(caller.wait_closed(PATIENCE), ConnectionClosed)
    release.set()


def test_closing_by_the_callback_that_tells_of_a_caller(relay: RelaySide, providing: Providing) -> None:
    provider = providing(relay, spares=1, on_peer=lambda peer: provider.close())
    side = relay.spare()
    side.send('{"command":"handover"}')
    provider.wait_closed(PATIENCE)
    assert side.wait_closed(PATIENCE)


def test_a_handover_that_comes_while_it_closes(providing: Providing) -> None:
    for _ in range(20):
        relay = (
            RelaySide()
        )  # each its own: what was dialled in time to replace the spare is of no use in the next round
        provider = providing(relay, spares=1)
        side = relay.spare()
        barrier = threading.Barrier(2)

        def hand(side: Side = side, barrier: threading.Barrier = barrier) -> None:
            barrier.wait(PATIENCE)
            try:
                side.send('{"command":"handover"}')
            except connman.ConnmanError:
                pass  # closed already

        thread = threading.Thread(target=hand)
        thread.start()
        barrier.wait(PATIENCE)
        provider.close(1.0)
        thread.join(PATIENCE)
        assert is_over(provider)
        assert side.wait_closed(PATIENCE)
        provider.wait_closed(0)


def test_a_spare_that_is_lost_while_it_is_handed_over(relay: RelaySide, providing: Providing) -> None:
    provider = providing(relay, spares=1)
    for _ in range(20):
        side = relay.spare()
        side.send('{"command":"handover"}')
        side.drop()
    # Whether the drop or the handover was seen first: there is one spare again, and nobody else.
    relay.spare()
    eventually(lambda: provider.stats.open_spares == 1 and provider.stats.peers == 0, PATIENCE)


def test_the_end_of_all_connections_is_the_providers(relay: RelaySide, manager: Manager) -> None:
    provider = provide(relay.dialer, "device", SERVICES, manager=manager)
    caller, _ = spares(relay)
    hand_over(caller)
    relay.spare()
    manager.disconnect_all()
    provider.wait_closed(PATIENCE)
    assert is_over(provider)
    dials = len(relay.dialer.dials)
    assert dials == 3


def test_the_end_of_all_connections_at_the_bound_is_the_providers(relay: RelaySide, manager: Manager) -> None:
    provider = provide(relay.dialer, "device", SERVICES, manager=manager, spares=1, max_peers=1)
    hand_over(relay.spare())
    eventually(lambda: provider.peers, PATIENCE)
    manager.disconnect_all()
    provider.wait_closed(PATIENCE)


# As a value


def test_a_with_block_waits_until_it_is_known(relay: RelaySide, providing: Providing) -> None:
    grant = threading.Thread(target=relay.spare)
    grant.start()
    with providing(relay, spares=1) as provider:
        assert provider.stats.open_spares >= 1
    grant.join(PATIENCE)
    assert is_over(provider)


def test_a_with_block_that_never_is_known_ends(providing: Providing) -> None:
    provider = providing(RelaySide([ScriptedDialer.HANG] * 10), open_timeout=0.05)
    with pytest.raises(ConnectTimeout, match="not known to the relay"):
        provider.__enter__()
    assert is_over(provider)


def test_waiting_on_a_thread_of_ours_is_refused(relay: RelaySide, providing: Providing) -> None:
    errors: list[BaseException] = []

    def wait(peer: Peer) -> None:
        for wait in (provider.wait_ready, provider.wait_closed):
            try:
                wait(1.0)
            except WouldDeadlock as error:
                errors.append(error)

    provider = providing(relay, spares=1, on_peer=wait)
    hand_over(relay.spare())
    eventually(lambda: len(errors) == 2, PATIENCE)


def test_it_says_what_it_is(relay: RelaySide, providing: Providing) -> None:
    assert "device" in repr(providing(relay))
