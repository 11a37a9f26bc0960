"""Calls one at a time over sockets: the caller reads his answer himself, and the worker that answers the next request."""

import contextlib
import json
import os
import ssl
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from connman import Connection, Manager
from connman.clock import SystemClock
from connman.errors import CallTimeout, ConnmanError, PeerGone
from connman.relay import Relay
from connman.rpc import Peer, current_peer, provide, reach
from connman.transport import lending
from connman.transport.pipe import Pipe
from tests.authorities import AUTHORITY, server_context
from tests.interrupts import every_point
from tests.loopback import in_thread
from tests.rpc.rig import PATIENCE, Given, Pair
from tests.transport.pipes import socket_pair
from tests.waiting import eventually

SERVICES: dict[int | str, Any] = {
    "add": lambda a, b: a + b,
    "count": lambda n: map(str, range(n)),
    "total": lambda numbers: sum(map(int, numbers)),
    "back": lambda x: current_peer().call("double", x),
    "fail": lambda: {}["no such key"],
}


@pytest.fixture
def pair() -> Iterator[Pair]:
    with Pair(SERVICES, over_sockets=True, here={"double": lambda x: 2 * x}) as pair:
        yield pair


def lent(peer: Peer) -> int:
    """How many messages others than the reader have read for a peer."""
    transport = peer.conn._life.transport  # noqa: SLF001
    return 0 if transport is None else transport.lent


def call_one_by_one(peer: Peer, count: int) -> None:
    for number in range(count):
        assert peer.call("add", number, 1) == number + 1


def call_until_lent(pair: Pair) -> None:
    """Call until caller and worker read themselves."""
    before = lent(pair.here), lent(pair.there)

    def is_lent() -> bool:
        call_one_by_one(pair.here, 10)
        return lent(pair.here) > before[0] and lent(pair.there) > before[1]

    eventually(is_lent, PATIENCE)


def test_both_sides_read_themselves_and_nothing_is_counted_wrong(pair: Pair) -> None:
    call_until_lent(pair)
    eventually(
        lambda: pair.there.stats.bytes_sent == pair.here.stats.bytes_received, PATIENCE
    )  # counted when it has gone
    here, there = pair.here.stats, pair.there.stats
    assert here.requests_sent_total == there.requests_received_total == pair.here.conn.stats.messages_in
    assert pair.there.conn.stats.messages_in == there.requests_received_total
    assert (here.bytes_sent, there.bytes_sent) == (there.bytes_received, here.bytes_received)
    assert pair.here.conn.stats.bytes_in > here.bytes_received
    assert (here.calls_in_flight, here.late_answers, here.unknown_answers) == (0, 0, 0)


def test_what_is_no_answer_arrives_all_the_same(pair: Pair) -> None:
    call_until_lent(pair)
    for number in range(50):
        assert pair.here.call("back", number) == 2 * number
        assert list(pair.here.stream("count", 3)) == ["0", "1", "2"]
        assert pair.here.call("total", iter([str(number), "1"])) == number + 1
        with pytest.raises(ConnmanError, match="no such key"):
            pair.here.call("fail")
        assert pair.there.call("double", number) == 2 * number
        call_one_by_one(pair.here, 3)


@pytest.mark.parametrize(
    "told",
    [
        {"responseId": True, "type": "data", "data": "of a truth value"},
        {"responseId": "1", "type": "data", "data": "of a text"},
        {"responseId": 7, "type": "data", "data": "of another call"},
        {"type": "data", "data": "of none"},
        ["no", "message"],
    ],
)
def test_what_a_caller_reads_must_be_his_answer(told: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the other side says before it; the id is one that a truth value equals in Python."""
    monkeypatch.setattr(lending, "GRACE", 0.05)
    for _ in range(5):
        near, far = socket_pair(SystemClock())
        answering = in_thread(answer_oddly, near, far, told)
        conn = Connection(Given(near), reconnect=False, ping_interval=None)
        with Peer(conn) as peer:
            assert [peer.call("x", timeout=PATIENCE) for _ in range(3)] == ["right"] * 3
        answering.result(PATIENCE)


def answer_oddly(near: Pipe, far: Pipe, told: Any) -> None:
    """Be the other side: answer each call rightly, but the first after something odd that has arrived alone."""
    try:
        for _ in range(3):
            request = json.loads(far.receive()[0])
            if request["requestId"]:
                before = near.bytes_in
                far.send([json.dumps(told)], PATIENCE)
                eventually(lambda before=before: near.bytes_in > before, PATIENCE)  # type: ignore[misc]
            far.send(
                [json.dumps({"responseId": request["requestId"], "type": "data", "data": "right"})], PATIENCE
            )
        with contextlib.suppress(ConnmanError):
            far.receive()
    finally:
        far.dispose()


def test_a_message_that_comes_when_nobody_calls_any_more_is_taken(pair: Pair) -> None:
    for _ in range(20):
        call_one_by_one(pair.here, 5)
        assert pair.there.call("double", 4) == 8
        assert pair.there.send("double", 5).result(PATIENCE) == 10


def test_a_slow_service_delays_nobody() -> None:
    go_on, is_slow = threading.Event(), threading.Event()

    def slow() -> str:
        is_slow.set()
        go_on.wait(PATIENCE)
        return "done"

    with Pair({**SERVICES, "slow": slow}, over_sockets=True) as pair:
        call_until_lent(pair)
        waiting = in_thread(lambda: pair.here.call("slow"))
        assert is_slow.wait(PATIENCE)
        call_one_by_one(pair.here, 100)
        go_on.set()
        assert waiting.result(PATIENCE) == "done"


def test_services_that_take_long_are_not_read_for_by_those_who_run_them() -> None:
    """Or requests of several callers would wait for one another."""
    both = threading.Barrier(2)
    with Pair({"meet": lambda: both.wait(PATIENCE) >= 0}, over_sockets=True) as pair:
        for _ in range(50):
            calls = [in_thread(lambda: pair.here.call("meet")) for _ in range(2)]
            assert all(call.result(PATIENCE) for call in calls)


def test_one_worker_is_enough_for_several_peers() -> None:
    with Relay(port=0) as relay, provide(relay.url, "x", SERVICES, max_workers=1) as provider:
        provider.wait_ready(PATIENCE)
        with reach(relay.url, "x") as one, reach(relay.url, "x") as other:
            calling = in_thread(call_one_by_one, one, 500)
            call_one_by_one(other, 500)
            calling.result(PATIENCE)


def test_a_deadline_ends_who_reads_himself() -> None:
    over = threading.Event()
    with Pair({**SERVICES, "slow": lambda: over.wait(PATIENCE)}, over_sockets=True) as pair:
        for timeout in (0.001, 0.005, 0.05):
            call_until_lent(pair)
            with pytest.raises(CallTimeout):
                pair.here.call("slow", timeout=timeout)
        over.set()


@pytest.mark.parametrize("end", ["close", "abort"])
def test_an_end_ends_who_reads_himself(end: str) -> None:
    over, is_slow = threading.Event(), threading.Event()

    def slow() -> None:
        is_slow.set()
        over.wait(PATIENCE)

    with Pair({**SERVICES, "slow": slow}, over_sockets=True) as pair:
        call_until_lent(pair)
        waiting = in_thread(lambda: pair.here.call("slow"))
        assert is_slow.wait(PATIENCE)
        if end == "close":
            pair.here.close(timeout=PATIENCE)
        else:
            pair.there.conn._life.transport.abort(PeerGone("cut"))  # type: ignore[union-attr]  # noqa: SLF001
        assert isinstance(waiting.exception(PATIENCE), PeerGone)
        over.set()


def test_a_service_that_forks_leaves_its_parent_everything() -> None:
    def fork() -> int:
        child = os.fork()
        if child:
            return os.waitpid(child, 0)[1]
        return 0  # the child's answer: nobody's

    with Pair({**SERVICES, "fork": fork}, over_sockets=True) as pair:
        for _ in range(3):
            call_until_lent(pair)
            # The thread that forked is the child's only one: it ends when it finds no work that is its own.
            assert pair.here.call("fork") == 0
        call_one_by_one(pair.here, 100)


@pytest.mark.plain_locks
@pytest.mark.slow
def test_an_interrupt_at_any_point_of_a_call_harms_no_other() -> None:
    # A timer may be left, which nobody waits for: for the time of a call.
    for point in every_point(more_than=50):
        with Pair(SERVICES, over_sockets=True, call_timeout=2) as pair:
            call_until_lent(pair)
            where = point.interrupt(lambda pair=pair: pair.here.call("add", 1, 1))  # type: ignore[misc]
            if pair.here.conn.is_open:  # an interrupt while it sends ends the path
                try:
                    call_one_by_one(pair.here, 3)
                except PeerGone:
                    eventually(lambda pair=pair: not pair.here.conn.is_open, PATIENCE, where or "")  # type: ignore[misc]
            assert not pair.here.stats.calls_in_flight, where


def test_over_tls_all_but_the_main_thread_read_themselves() -> None:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    certificate = server_context(AUTHORITY.issue_cert("127.0.0.1"))
    with Relay(port=0, tls=certificate) as relay, Manager() as manager:
        options: dict[str, Any] = {"manager": manager, "ssl_context": context}
        provide(relay.url, "x", SERVICES, **options).wait_ready(PATIENCE)
        with reach(relay.url, "x", **options) as peer:
            call_one_by_one(peer, 50)
            assert lent(peer) == 0

            def is_lent() -> bool:
                in_thread(call_one_by_one, peer, 20).result(PATIENCE)
                return lent(peer) > 0

            eventually(is_lent, PATIENCE)
