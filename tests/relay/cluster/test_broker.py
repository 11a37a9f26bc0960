"""Relays over a real Redis: calls across, each spare once, and what is left when Redis or a relay is gone."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager

import pytest

from connman.errors import ConnmanError
from connman.relay import RedisBroker, Relay
from connman.relay.cluster.store import Store
from connman.relay.limits import Limits
from tests.redis_server import RedisServer
from tests.relay.cluster.clients import (
    PATIENCE,
    Client,
    cluster,
    get_ready,
    pair,
    provide,
    reach,
    reach_when_known,
    wait_for_all,
)
from tests.waiting import eventually

LOST = (4102, "the other side was lost")
NO_PROVIDER = (4104, "no provider of that name")
BROKER_LOST = (4113, "broker lost")
QUICK = {"timeout": 0.5}


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


def state(*relays: Relay) -> set[str]:
    return {relay.snapshot().broker for relay in relays}


def refusal(relay: Relay, name: str) -> object:
    with reach(relay, name) as caller:
        return caller.hear()


# Across


def test_a_caller_reaches_a_provider_of_another_relay(redis: RedisServer) -> None:
    with cluster(redis.url) as (here, there), pair(here, there, "device") as (caller, provider):
        caller.send("tschüß")
        caller.send(b"\x00\xff")
        assert provider.hear() == "tschüß"
        assert provider.hear() == b"\x00\xff"
        provider.send("")
        assert caller.hear() == ""
        assert (here.snapshot().pairs, there.snapshot().pairs) == (1, 1)


def test_a_large_message_crosses_whole(redis: RedisServer) -> None:
    data = os.urandom(3_000_000)
    with cluster(redis.url) as (here, there), pair(here, there, "device") as (caller, provider):
        sending = threading.Thread(target=caller.send, args=(data,))
        sending.start()
        assert provider.hear() == data
        sending.join()


def test_a_close_crosses_with_code_and_reason_behind_what_was_sent(redis: RedisServer) -> None:
    with cluster(redis.url) as (here, there):
        with pair(here, there, "one") as (caller, provider):
            caller.send("last words")
            caller.close(4321, "tschüß")
            assert provider.hear() == "last words"
            assert provider.hear() == (4321, "tschüß")
        with pair(here, there, "two") as (caller, provider):
            provider.close(1000, "")
            assert caller.hear() == (1000, "")
        eventually(lambda: here.snapshot().pairs == there.snapshot().pairs == 0)


def test_a_side_that_is_lost_is_told_to_the_far_one(redis: RedisServer) -> None:
    with cluster(redis.url) as (here, there):
        with pair(here, there, "one") as (caller, provider):
            caller.drop()
            assert provider.hear()[0] == 4102
        with pair(here, there, "two") as (caller, provider):
            provider.drop()
            assert caller.hear()[0] == 4102


def test_a_name_that_nobody_has_is_refused(redis: RedisServer) -> None:
    with cluster(redis.url) as (here, _):
        assert refusal(here, "nobody") == NO_PROVIDER


def test_spares_of_this_relay_come_before_those_of_others(redis: RedisServer) -> None:
    limits = Limits(ready_timeout=0.5)
    with cluster(redis.url, limits=limits) as (here, there), ExitStack() as stack:
        near, far = (stack.enter_context(provide(relay, "device")) for relay in (here, there))
        caller = stack.enter_context(reach_when_known(here, "device", near))
        other = stack.enter_context(reach_when_known(here, "device", far))
        caller.send("near")
        other.send("far")
        assert (near.hear(), far.hear()) == ("near", "far")


def test_a_provider_that_does_not_get_ready_in_time_is_let_go_and_the_next_is_asked(
    redis: RedisServer,
) -> None:
    with cluster(redis.url, limits=Limits(ready_timeout=0.5)) as (here, there), ExitStack() as stack:
        stack.enter_context(pair(here, there, "device"))
        good, dull = (stack.enter_context(provide(there, "device")) for _ in range(2))
        eventually(lambda: redis.command("EXISTS", "connman:n:device") == b":1\r\n")
        caller = stack.enter_context(reach(here, "device"))
        assert dull.hear() == '{"command":"handover"}'
        get_ready(good)
        assert dull.hear() == (4110, "not ready in time")
        assert caller.hear() == '{"command":"reached"}'


def test_names_are_gone_with_their_provider(redis: RedisServer) -> None:
    limits = Limits(ready_timeout=0.5)  # so long a caller of a name in use waits for its next spare
    with cluster(redis.url, limits=limits) as (here, there), pair(here, there, "device"):
        spare = provide(there, "device")
        eventually(lambda: redis.command("EXISTS", "connman:n:device") == b":1\r\n")
        spare.drop()
        eventually(lambda: there.snapshot().spares == 0)
        assert refusal(here, "device") == NO_PROVIDER
        eventually(lambda: redis.command("EXISTS", "connman:n:device") == b":0\r\n")


def test_a_caller_waits_for_the_spare_that_replaces_the_one_that_was_taken(redis: RedisServer) -> None:
    with cluster(redis.url) as (here, there), pair(here, there, "device"), reach(here, "device") as second:
        eventually(lambda: there.snapshot().spares == 0)
        with provide(there, "device") as spare:
            get_ready(spare)
            assert second.hear() == '{"command":"reached"}'


def test_groups_are_within_one_relay(redis: RedisServer) -> None:
    with cluster(redis.url) as (here, there), ExitStack() as stack:
        one = stack.enter_context(Client(here, {"self": "a", "other": "b"}))
        stack.enter_context(Client(there, {"self": "b", "other": "a"}))
        two = stack.enter_context(Client(here, {"self": "b", "other": "a"}))
        assert one.hear() == two.hear() == '{"connected":true,"groupSize":2}'


@pytest.mark.slow
def test_each_spare_is_given_out_once_under_callers_at_the_same_moment(redis: RedisServer) -> None:
    with cluster(redis.url, 3, Limits(ready_timeout=1.0)) as relays, ExitStack() as stack:
        owners = relays[:2]
        providers = [stack.enter_context(provide(owners[number % 2], "device")) for number in range(12)]
        with pair(relays[2], owners[0], "other"), pair(relays[2], owners[1], "another"):
            pass  # so that all is written and known
        eventually(lambda: redis.command("HLEN", "connman:n:device") == b":2\r\n")
        threads = [threading.Thread(target=get_ready, args=(provider,)) for provider in providers]
        heard: list[object] = []
        barrier = threading.Barrier(20)

        def call() -> None:
            barrier.wait(10)
            caller = reach(relays[2], "device")
            heard.append(caller.hear())
            stack.push(caller.__exit__)

        threads += [threading.Thread(target=call) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert heard.count('{"command":"reached"}') == 12
        assert heard.count(NO_PROVIDER) == 8
        assert [owner.snapshot().pairs for owner in owners] == [6, 6]


def test_a_caller_that_leaves_while_its_provider_gets_ready_ends_that_spare(redis: RedisServer) -> None:
    with cluster(redis.url) as (here, there), pair(here, there, "other"), provide(there, "device") as spare:
        eventually(lambda: redis.command("EXISTS", "connman:n:device") == b":1\r\n")
        caller = reach(here, "device")
        assert spare.hear() == '{"command":"handover"}'
        caller.drop()
        assert spare.hear() == LOST


# A slow reader


def test_a_slow_reader_holds_its_sender_up_and_fills_nothing(redis: RedisServer) -> None:
    with cluster(redis.url) as (here, there), pair(here, there, "device") as (caller, provider):
        block, sent, stopped = b"x" * 100_000, 0, threading.Event()
        progress = threading.Event()

        def send() -> None:
            nonlocal sent
            while not stopped.is_set():
                caller.send(block)
                sent += 1
                progress.set()
            caller.send("that was all")

        with pair(here, there, "beside") as (quick_caller, quick_provider):
            sending = threading.Thread(target=send)
            sending.start()
            # It is held up when nothing has gone out for a while.
            while progress.wait(0.3):
                progress.clear()
            assert sent < 300  # kernel buffers, the marks of two relays, and a window: some MiB
            quick_caller.send("still quick")
            assert quick_provider.hear() == "still quick"
            clients = redis.command("CLIENT", "LIST").decode()
            assert max(map(int, re.findall(r"omem=(\d+)", clients))) < 1_000_000
        stopped.set()
        got = 0
        while (heard := provider.hear()) != "that was all":
            assert heard == block
            got += 1
        sending.join()
        assert got == sent


# Redis is gone


def test_without_redis_pairs_across_end_local_ones_go_on_and_it_heals(redis: RedisServer) -> None:
    with cluster(redis.url, **QUICK) as (here, there), ExitStack() as stack:
        spare = stack.enter_context(provide(there, "elsewhere"))
        caller, provider = stack.enter_context(pair(here, there, "device"))
        local_caller, local_provider = stack.enter_context(pair(here, here, "local"))
        redis.kill()
        assert caller.hear() == BROKER_LOST
        assert provider.hear() == BROKER_LOST
        eventually(lambda: state(here, there) == {"lost"})
        local_caller.send("still here")
        assert local_provider.hear() == "still here"
        with pair(here, here, "new"):
            pass
        assert refusal(here, "elsewhere")[0] == 4113  # type: ignore[index]
        redis.start()
        wait_for_all([here, there])
        with reach_when_known(here, "elsewhere", spare) as again:
            again.send("healed")
            assert spare.hear() == "healed"
        local_caller.send("all the time")
        assert local_provider.hear() == "all the time"


def test_a_redis_that_hangs_is_a_lost_one(redis: RedisServer) -> None:
    with cluster(redis.url, **QUICK) as (here, there), pair(here, there, "device") as (caller, provider):
        redis.suspend()
        assert caller.hear() == BROKER_LOST
        assert provider.hear() == BROKER_LOST
        eventually(lambda: state(here, there) == {"lost"})
        assert refusal(here, "device")[0] == 4113  # type: ignore[index]
        redis.resume()
        wait_for_all([here, there])


def test_a_redis_that_has_become_a_replica_is_a_lost_one(redis: RedisServer) -> None:
    """It answers, publishes and refuses to be written to: some loops fail and the others would go on."""
    with cluster(redis.url) as (here, there), pair(here, there, "device") as (caller, provider):
        redis.command("REPLICAOF", "127.0.0.1", "1")
        assert caller.hear() in (BROKER_LOST, LOST)
        assert provider.hear() in (BROKER_LOST, LOST)
        eventually(lambda: state(here, there) == {"lost"})
        redis.command("REPLICAOF", "NO", "ONE")
        wait_for_all([here, there])
        with pair(here, there, "again"):
            pass


def test_a_redis_that_has_been_emptied_is_told_the_names_again(redis: RedisServer) -> None:
    with cluster(redis.url) as (here, there), provide(there, "device") as spare:
        eventually(lambda: b"device" in redis.command("KEYS", "connman:n:*"))
        redis.command("FLUSHALL")
        with reach_when_known(here, "device", spare):
            pass


def test_relays_whose_subscription_is_cut_begin_anew(redis: RedisServer) -> None:
    with cluster(redis.url, **QUICK) as (here, there), pair(here, there, "device") as (caller, provider):
        assert redis.command("CLIENT", "KILL", "TYPE", "pubsub") == b":2\r\n"
        # Each learns first of its own loss, or that nobody listens at the other relay.
        assert caller.hear() in (BROKER_LOST, LOST)
        assert provider.hear() in (BROKER_LOST, LOST)
        with pair(here, there, "again"):
            pass


def test_a_redis_that_comes_later_is_joined_then(redis: RedisServer) -> None:
    redis.kill()
    with (
        Relay(port=0, broker=RedisBroker(redis.url, beat=0.1)) as here,
        Relay(port=0, broker=RedisBroker(redis.url, beat=0.1)) as there,
    ):
        assert state(here, there) == {"lost"}
        with pair(here, here, "local"):
            pass
        redis.start()
        with pair(here, there, "device"):
            assert state(here, there) == {"up"}


def test_a_login_that_is_refused_is_told_at_the_start() -> None:
    with RedisServer("--requirepass", "right") as server:
        relay = Relay(port=0, broker=RedisBroker(f"unix://:wrong@{server.path}"))
        with pytest.raises(ConnmanError, match="refuses the login") as caught:
            relay.start()
        assert "wrong@" not in str(caught.value)


# A relay is gone


def test_a_relay_that_stops_says_so_to_both_sides_and_takes_its_names_along(redis: RedisServer) -> None:
    with cluster(redis.url, limits=Limits(close_timeout=0.1)) as (here, there), ExitStack() as stack:
        caller, provider = stack.enter_context(pair(here, there, "device"))
        spare = stack.enter_context(provide(there, "spare"))
        there.stop()
        assert caller.hear() == (1001, "the relay is stopping")
        assert provider.hear() == (1001, "the relay is stopping")
        assert spare.hear()[0] == 1001
        assert refusal(here, "spare") == NO_PROVIDER
        eventually(lambda: len(here.snapshot().relays) == 1)
        assert redis.command("KEYS", "connman:n:*") == b"*0\r\n"


Names = Sequence[tuple[str, int | None]]


class SlowWriter:
    """Has the first write to Redis held up until the relay has left, and behind a write that comes meanwhile."""

    def __init__(self) -> None:
        self.is_writing = threading.Event()
        self.written: list[tuple[str, int | None]] = []
        self._write, self._leave = Store.write, Store.leave
        self._may_go_on, self._is_over = asyncio.Event(), asyncio.Event()
        self._is_overtaken = False

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def write(store: Store, names: Names) -> None:
            await (self._later if self.is_writing.is_set() else self._first)(store, names)

        async def leave(store: Store) -> None:
            await self._leave(store)
            # Not before the task that leaves has come as far as it can, be it to a write of its own.
            asyncio.get_running_loop().call_soon(self._maybe_go_on)

        monkeypatch.setattr(Store, "write", write)
        monkeypatch.setattr(Store, "leave", leave)

    def _maybe_go_on(self) -> None:
        if not self._is_overtaken:
            self._may_go_on.set()

    async def _first(self, store: Store, names: Names) -> None:
        self.is_writing.set()
        await self._may_go_on.wait()
        await self._write(store, names)
        self.written += names
        self._is_over.set()

    async def _later(self, store: Store, names: Names) -> None:
        self._is_overtaken = not self._is_over.is_set()
        await self._write(store, names)
        self.written += names
        self._may_go_on.set()
        await self._is_over.wait()


def test_names_are_taken_out_behind_a_write_of_them_that_is_under_way(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has a connection of its own: the write came last, and the name of a relay that had stopped stayed."""
    writer = SlowWriter()
    writer.install(monkeypatch)
    limits = Limits(close_timeout=0.1)
    with cluster(redis.url, 1, limits) as (relay,), provide(relay, "device"):
        assert writer.is_writing.wait(PATIENCE)
        relay.stop()
        assert redis.command("KEYS", "connman:n:*") == b"*0\r\n"
    assert [(name, stamp is None) for name, stamp in writer.written] == [("device", False), ("device", True)]


@contextmanager
def relay_process(url: str) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """Run a relay of its own, to be killed."""
    program = (
        "import sys; from connman.relay import RedisBroker, Relay\n"
        f"with Relay(port=0, broker=RedisBroker({url!r}, beat=0.1)) as relay:\n"
        "    print(relay.url, flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        with closing(process.stdin):
            yield process, process.stdout.readline().strip()
        process.kill()


@pytest.mark.parametrize("sign", [pytest.param(signal.SIGKILL, marks=pytest.mark.slow), signal.SIGSTOP])
def test_a_relay_that_dies_ends_its_pairs_and_its_names_vanish(
    redis: RedisServer, sign: signal.Signals
) -> None:
    with ExitStack() as stack:
        (here,) = stack.enter_context(cluster(redis.url, 1))
        process, url = stack.enter_context(relay_process(redis.url))
        caller, _ = stack.enter_context(pair(here, url, "device"))
        stack.enter_context(provide(url, "spare"))
        eventually(lambda: redis.command("EXISTS", "connman:n:spare") == b":1\r\n")
        process.send_signal(sign)
        stack.callback(process.send_signal, signal.SIGCONT)
        assert caller.hear() == LOST
        eventually(lambda: len(here.snapshot().relays) == 1)
        assert refusal(here, "spare") == NO_PROVIDER
        eventually(lambda: redis.command("EXISTS", "connman:n:spare") == b":0\r\n")


# What it says of itself


def test_a_relay_has_its_id_from_its_start(redis: RedisServer) -> None:
    """A broker that was made before a fork is started in each process."""
    broker = RedisBroker(redis.url)
    made = broker.id
    with Relay(port=0, broker=broker) as relay:
        assert broker.id != made
        eventually(lambda: [seen.id for seen in relay.snapshot().relays] == [broker.id.hex()])


def test_it_shows_its_broker_without_secrets() -> None:
    broker = RedisBroker("redis://user:secret@127.0.0.1:1/?socket_timeout=7")
    assert repr(broker) == "<RedisBroker redis://127.0.0.1:1/ lost>"
    assert broker.relays() == ()
