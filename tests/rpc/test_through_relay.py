"""Providers and callers with a real relay between them."""

import itertools
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from connman import Manager, Reset
from connman.errors import NoSuchPeer, PeerGone, RpcError
from connman.relay import Grant, Limits, Relay, TokenFile
from connman.rpc import Peer, Provider, RelayRefused, current_peer, provide, reach
from tests.loopback import held_port
from tests.waiting import eventually

PATIENCE = 10.0
SERVICES: dict[int | str, Any] = {"add": lambda a, b: a + b, "who": lambda: current_peer().call("name")}


@pytest.fixture
def manager() -> Iterator[Manager]:
    with Manager() as manager:
        yield manager


class Ends:
    """Providers and callers with short waits between attempts; the manager ends them."""

    def __init__(self, manager: Manager) -> None:
        self._options = {"manager": manager, "wait": lambda _: 0.02, "stable_after": 0.0}

    def provide(self, url: str, name: str = "device", services: Any = None, **options: Any) -> Provider:
        provider = provide(url, name, services or SERVICES, **{**self._options, **options})
        return provider.wait_ready(PATIENCE)

    def reach(self, url: str, name: str = "device", **options: Any) -> Peer:
        return reach(url, name, **{**self._options, **options})


@pytest.fixture
def ends(manager: Manager) -> Ends:
    return Ends(manager)


@pytest.fixture
def relay() -> Iterator[Relay]:
    with Relay(port=0) as relay:
        yield relay


def test_both_sides_call(relay: Relay, ends: Ends) -> None:
    ends.provide(relay.url)
    caller = ends.reach(relay.url, services={"name": lambda: "the caller"})
    assert caller.call("add", 2, 3) == 5
    assert caller.call("who") == "the caller"


def test_a_name_in_any_script(relay: Relay, ends: Ends) -> None:
    ends.provide(relay.url, "Gerät/№ 42 – 装置")
    assert ends.reach(relay.url, "Gerät/№ 42 – 装置").call("add", 1, 1) == 2


def test_a_name_that_nobody_provides(relay: Relay, ends: Ends) -> None:
    with pytest.raises(NoSuchPeer):
        ends.reach(relay.url, wait=lambda _: 3600.0).call("add", 1, 1)


def test_a_call_that_may_be_sent_again_waits_for_the_provider(relay: Relay, ends: Ends) -> None:
    refused = threading.Event()
    caller = ends.reach(relay.url, on_reset=lambda _, reset: refused.set())
    future = caller.send("add", 2, 3, retry_safe=True)
    assert refused.wait(PATIENCE)
    ends.provide(relay.url)
    assert future.result(PATIENCE) == 5


def test_many_callers_at_once_all_get_through(ends: Ends) -> None:
    """More than there are spares: the relay waits for those that are on their way."""
    with Relay(port=0, limits=Limits(ready_timeout=30.0, join_timeout=30.0)) as relay:
        ends.provide(relay.url, spares=2)
        callers = [ends.reach(relay.url, handshake_timeout=30.0) for _ in range(30)]
        with ThreadPoolExecutor(30) as threads:
            assert list(threads.map(lambda caller: caller.call("add", 1, 2), callers)) == [3] * 30
        assert "no-provider" not in relay.snapshot().refused


def test_providers_of_one_name_share_the_callers(relay: Relay, ends: Ends) -> None:
    first, second = (ends.provide(relay.url, services={"id": lambda n=n: n}, spares=1) for n in (1, 2))
    eventually(lambda: relay.snapshot().spares == 2, PATIENCE)
    callers = [ends.reach(relay.url)]
    # The newest spare is the second's; what takes its place is newer still: only when both have none they take turns.
    callers[0].call("id")
    second.close()
    assert ends.reach(relay.url).call("id", retry_safe=True) == 1
    assert first.stats.handovers + second.stats.handovers >= 2


def test_the_same_peer_goes_on_when_the_provider_comes_back(relay: Relay, ends: Ends) -> None:
    provider = ends.provide(relay.url)
    caller = ends.reach(relay.url)
    assert caller.call("add", 1, 1) == 2
    provider.close()
    eventually(lambda: not caller.conn.is_open, PATIENCE)
    with pytest.raises(RpcError):
        caller.call("add", 1, 1)
    ends.provide(relay.url)
    assert caller.call("add", 2, 2, retry_safe=True) == 4


def test_a_relay_that_is_started_again_finds_everybody_back(ends: Ends) -> None:
    with held_port() as port:
        with Relay(port=port) as first:
            provider = ends.provide(first.url, spares=3)
            caller = ends.reach(first.url)
            assert caller.call("add", 1, 1) == 2
        eventually(lambda: not caller.conn.is_open and not provider.peers, PATIENCE)
        with Relay(port=port) as second:
            assert caller.call("add", 2, 2, retry_safe=True) == 4
            eventually(lambda: provider.stats.open_spares == 3, PATIENCE)
            snapshot = second.snapshot()
            assert (snapshot.spares, snapshot.pairs) == (3, 1)
            assert provider.stats.handovers == 2


def test_a_caller_that_leaves_is_gone_on_both_sides(relay: Relay, ends: Ends) -> None:
    provider = ends.provide(relay.url)
    caller = ends.reach(relay.url)
    caller.call("add", 1, 1)
    peer = eventually(lambda: provider.peers, PATIENCE)[0]
    caller.close("done")
    assert peer.closed.result(PATIENCE).code == 1000
    assert peer.closed.result(0).reason == "done"
    eventually(lambda: relay.snapshot().pairs == 0 and not provider.peers, PATIENCE)


def test_a_call_under_way_ends_with_the_provider(relay: Relay, ends: Ends) -> None:
    running, release = threading.Event(), threading.Event()

    def slow() -> None:
        running.set()
        release.wait(PATIENCE)

    provider = ends.provide(relay.url, services={"slow": slow})
    caller = ends.reach(relay.url)
    future = caller.send("slow")
    assert running.wait(PATIENCE)
    provider.close()
    with pytest.raises(PeerGone) as gone:
        future.result(PATIENCE)
    assert gone.value.sent
    release.set()


def test_no_more_callers_than_allowed(ends: Ends) -> None:
    with Relay(port=0, limits=Limits(ready_timeout=0.5)) as relay:
        provider = ends.provide(relay.url, max_peers=2)
        callers = [ends.reach(relay.url) for _ in range(2)]
        for caller in callers:
            assert caller.call("add", 1, 1, retry_safe=True) == 2
        with pytest.raises(NoSuchPeer):
            ends.reach(relay.url, wait=lambda _: 3600.0).call("add", 1, 1)
        assert provider.stats.peers == 2
        callers[0].close()
        assert ends.reach(relay.url).call("add", 1, 1, retry_safe=True) == 2


# Tokens


def tokens(path: Path, *lines: str) -> TokenFile:
    path.write_text("".join(f"{line}\n" for line in lines))
    return TokenFile(path, interval=0.01)


PROVIDER, CALLER = "provider-token-of-16", "callers-token-of-16"


def test_each_side_is_let_in_for_its_token(tmp_path: Path, ends: Ends) -> None:
    known = tokens(tmp_path / "tokens", f"{PROVIDER} provide=dev*", f"{CALLER} reach=dev*")
    with Relay(port=0, tokens=known) as relay:
        ends.provide(relay.url, token=PROVIDER)
        assert ends.reach(relay.url, token=CALLER).call("add", 1, 1) == 2
        # With the token in the first frame, as the header is taken.
        url = relay.url.replace("//", "//user:password@")
        assert ends.reach(url, token=CALLER).call("add", 1, 1, retry_safe=True) == 2


def test_a_name_that_the_token_does_not_allow(tmp_path: Path, ends: Ends) -> None:
    known = tokens(tmp_path / "tokens", f"{PROVIDER} provide=other", f"{CALLER} reach=other")
    with Relay(port=0, tokens=known) as relay:
        with pytest.raises(RpcError, match="does not allow this name"):
            ends.reach(relay.url, token=CALLER).call("add", 1, 1, retry_safe=True)
        provider = provide(relay.url, "device", SERVICES, token=PROVIDER, wait=lambda _: 0.01)
        with pytest.raises(Exception, match="does not allow this name") as refused:
            provider.wait_closed(PATIENCE)
        assert isinstance(refused.value.__cause__, RelayRefused)
        assert refused.value.__cause__.code == 3003


def test_a_token_that_is_replaced_in_mid_life(tmp_path: Path, ends: Ends) -> None:
    """The relay forgets the old token and is started again: everybody comes back with the new one."""
    path = tmp_path / "tokens"
    current = {"token": "the-first-token-of-all"}
    resets: list[Reset] = []
    with held_port() as port:
        with Relay(port=port, tokens=tokens(path, current["token"])) as relay:
            provider = ends.provide(relay.url, token=lambda: current["token"])
            caller = ends.reach(
                relay.url, token=lambda: current["token"], on_reset=lambda _, reset: resets.append(reset)
            )
            assert caller.call("add", 1, 1) == 2
        current["token"] = "the-second-token-of-all"
        with Relay(port=port, tokens=tokens(path, current["token"])):
            assert caller.call("add", 2, 2, retry_safe=True) == 4
            assert provider.stats.spares == 2


class ShortLived:
    """Lets everyone in who has a token, each for a moment, and writes down which."""

    def __init__(self) -> None:
        self.seen: list[str | None] = []

    def check(self, token: str | None) -> Grant:
        self.seen.append(token)
        return Grant(provide=("*",), reach=("*",), expires=time.time() + 0.4)


def test_a_token_that_expires_in_mid_life_is_replaced(ends: Ends) -> None:
    known, numbers = ShortLived(), itertools.count()
    closes: list[int | None] = []
    with Relay(port=0, tokens=known) as relay:
        ends.provide(relay.url, token=lambda: f"provider-{next(numbers)}", spares=1)
        caller = ends.reach(
            relay.url,
            token=lambda: f"caller-{next(numbers)}",
            on_reset=lambda _, reset: closes.append(reset.code) if reset.opened else None,
        )
        for _ in range(3):
            generation = caller.conn.generation
            assert caller.call("add", 1, 1, retry_safe=True) == 2
            eventually(lambda: caller.conn.generation > generation, PATIENCE)  # noqa: B023 - it is waited for here
        assert set(closes) == {3000}
    # Each attempt with a token of its own.
    assert len(set(known.seen)) == len(known.seen)


def test_a_relay_that_is_full_is_asked_again(ends: Ends) -> None:
    with Relay(port=0, limits=Limits(max_connections=2)) as relay:
        provider = ends.provide(relay.url, spares=2)
        eventually(lambda: relay.snapshot().spares == 2)
        caller = ends.reach(relay.url, wait=lambda _: 0.02)
        refused = caller.send("add", 1, 1)
        with pytest.raises(PeerGone, match="503"):
            refused.result(PATIENCE)
        provider.close()
        ends.provide(relay.url, spares=1)
        # It asks for patience, which whoever knows better may cut short.
        eventually(lambda: caller.conn.reconnect_now() or caller.conn.is_open, PATIENCE)
        assert caller.call("add", 1, 1) == 2
