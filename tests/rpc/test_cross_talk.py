"""Many callers, answers late, shuffled and twice, losses between: nobody ever gets somebody else's answer."""

import json
import random
import threading
from collections import Counter
from concurrent.futures import CancelledError
from typing import Any

import pytest

from connman import Connection
from connman.errors import CallTimeout, PeerGone, WaitTimeout
from connman.rpc import Peer
from connman.testing import ScriptedDialer
from connman.testing.dialer import Peer as Far
from tests.loopback import in_thread
from tests.waiting import eventually

PATIENCE = 60.0


class Shuffler:
    """A server that answers each request with its nonce, at the wrong time and in the wrong order."""

    def __init__(self, seed: int, drop_every: int) -> None:
        self._random = random.Random(seed)
        self._drop_every = drop_every
        self.ran: Counter[str] = Counter()
        self.drops = 0

    def serve(self, far: Far) -> None:
        held: list[dict[str, Any]] = []
        seen = 0
        while True:
            try:
                held.append(json.loads(far.recv(0.002)))
                seen += 1
            except WaitTimeout:
                pass
            if seen > self._drop_every:
                self.drops += 1
                far.drop()
                return
            if len(held) > 20 or self._random.random() < 0.2:
                self._random.shuffle(held)
                # Some are held back for long: their callers have given up by then.
                for request in held[len(held) // 4 :]:
                    self._answer(far, request)
                del held[len(held) // 4 :]

    def _answer(self, far: Far, request: dict[str, Any]) -> None:
        nonce = request["args"][0]
        self.ran[nonce] += 1
        answer = json.dumps({"responseId": request["requestId"], "type": "data", "data": {"nonce": nonce}})
        for _ in range(2 if self._random.random() < 0.01 else 1):
            far.send(answer)


class Caller:
    """One thread that calls, times out, cancels, and looks whether what it gets is its own."""

    def __init__(self, peer: Peer, number: int, seed: int) -> None:
        self._peer = peer
        self._number = number
        self._random = random.Random(seed * 1000 + number)
        self.outcomes: Counter[str] = Counter()
        self.wrong: list[object] = []
        self.done: list[str] = []
        self.gone_unsent: list[str] = []

    def run(self, calls: int) -> None:
        for count in range(calls):
            nonce = f"{self._number}/{count}"
            try:
                answer = self._call(nonce)
            except CallTimeout:
                self.outcomes["timeout"] += 1
            except CancelledError:
                self.outcomes["cancelled"] += 1
            except PeerGone as gone:
                self.outcomes["gone"] += 1
                if not gone.sent:
                    self.gone_unsent.append(nonce)
                # Between two attempts a call fails at once: do not burn all of them there.
                threading.Event().wait(0.002)
            else:
                self.outcomes["answered"] += 1
                self.done.append(nonce)
                if answer != {"nonce": nonce}:
                    self.wrong.append((nonce, answer))

    def _call(self, nonce: str) -> object:
        kind = self._random.random()
        if kind < 0.2:
            return self._peer.call("echo", nonce, timeout=self._random.random() * 0.01)
        if kind < 0.35:
            future = self._peer.send("echo", nonce, timeout=PATIENCE)
            threading.Event().wait(self._random.random() * 0.004)
            future.cancel()
            return future.result(PATIENCE)
        if kind < 0.5:
            return self._peer.send("echo", nonce, timeout=PATIENCE).result(PATIENCE)
        if kind < 0.6:
            return self._peer.call("echo", nonce, timeout=PATIENCE, retry_safe=True)
        return self._peer.call("echo", nonce, timeout=PATIENCE)


def talk(seed: int, threads: int, calls: int, drop_every: int) -> Counter[str]:
    server = Shuffler(seed, drop_every)
    conn = Connection(
        ScriptedDialer(lambda _: server.serve),
        ping_interval=None,
        wait=lambda _: 0.001,
        stable_after=0,
        name="stress",
    )
    peer = Peer(conn)
    try:
        conn.wait_open(PATIENCE)
        callers = [Caller(peer, number, seed) for number in range(threads)]
        for future in [in_thread(caller.run, calls) for caller in callers]:
            future.result(PATIENCE)
        outcomes = sum((caller.outcomes for caller in callers), Counter[str]())
        print(dict(outcomes), "drops:", server.drops, peer.stats)
        assert not [wrong for caller in callers for wrong in caller.wrong]
        assert outcomes.total() == threads * calls
        assert server.drops
        # What is said not to have been sent has not run, and what was answered has.
        assert not [nonce for caller in callers for nonce in caller.gone_unsent if server.ran[nonce]]
        assert all(server.ran[nonce] for caller in callers for nonce in caller.done)
        assert peer.stats.calls_in_flight == 0
        eventually(lambda: peer.stats.late_answers > 0, 10.0)
        assert peer.stats.unknown_answers == 0
    finally:
        peer.close(timeout=0)
    assert "internal" not in str(conn.last_error)
    return outcomes


def test_cross_talk_of_few(seed: int) -> None:
    talk(seed, threads=10, calls=30, drop_every=100)


@pytest.mark.slow
def test_cross_talk_of_many(seed: int) -> None:
    outcomes = talk(seed, threads=100, calls=200, drop_every=2000)
    assert outcomes["answered"] > outcomes.total() / 2
    assert outcomes["timeout"] + outcomes["cancelled"] > outcomes.total() / 8
