"""Who comes in at all: limits, addresses, origins, hosts, tokens, TLS; and the orderly end."""

import contextlib
import ssl
import subprocess
import sys
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from connman.relay import Grant, Limits, Relay, TokenRefused
from tests.authorities import AUTHORITY, server_context
from tests.relay.rig import (
    CLOSE,
    HANDOVER,
    REACHED,
    READY,
    Client,
    Raw,
    caller,
    group,
    make,
    pair,
    provider,
    upgrade,
)
from tests.waiting import eventually


def status(relay: Relay, source: str = "127.0.0.1", **headers: str | None) -> tuple[int, dict[str, str], str]:
    with Raw(relay, source=source) as raw:
        raw.write(upgrade(**headers))
        return raw.answer()


# Limits


def test_too_many_connections() -> None:
    with make(max_connections=2) as relay:
        near, far = pair(relay)
        with near, far:
            code, headers, body = status(relay)
            assert (code, headers["retry-after"], body) == (503, "5", "the relay is full\n")
            near.leave()
            far.closed()
        eventually(lambda: relay.snapshot().connections == 0)
        with provider(relay):
            pass


def test_too_many_connections_of_one_address() -> None:
    with make(max_per_address=1) as relay, provider(relay):
        code, headers, _ = status(relay)
        assert (code, headers["retry-after"]) == (429, "5")
        assert status(relay, source="127.0.0.2")[0] == 101


def test_too_many_attempts_of_one_address() -> None:
    with make(attempts_per_second=0.1, burst=2) as relay:
        assert status(relay)[0] == 101
        assert status(relay)[0] == 101
        code, headers, body = status(relay)
        assert (code, body) == (429, "too many attempts\n")
        assert 1 <= int(headers["retry-after"]) <= 11
        assert status(relay, source="127.0.0.2")[0] == 101
        assert relay.snapshot().refused == {"rate": 1}


@pytest.mark.parametrize("limits", [{"ping_interval": 1e7}, {"ping_timeout": 1e300}])
def test_durations_beyond_what_the_system_counts(limits: dict[str, float]) -> None:
    with make(**limits) as relay:
        assert status(relay)[0] == 101


def test_a_rate_that_is_as_good_as_none() -> None:
    with make(attempts_per_second=5e-324, burst=1) as relay:
        assert status(relay)[0] == 101
        code, headers, _ = status(relay)
        assert (code, headers["retry-after"]) == (429, "86401")


def test_attempts_behind_a_trusted_proxy_are_the_clients_own() -> None:
    limits = Limits(attempts_per_second=0.1, burst=1)
    with Relay(port=0, limits=limits, trusted_proxies=["127.0.0.1"]) as relay:
        assert status(relay, x_forwarded_for="192.0.2.1")[0] == 101
        assert status(relay, x_forwarded_for="192.0.2.2")[0] == 101
        # What the client wrote itself stands to the left.
        assert status(relay, x_forwarded_for="192.0.2.3, 192.0.2.1")[0] == 429
        # Another address is no trusted proxy: what it says counts for nothing.
        assert status(relay, source="127.0.0.2", x_forwarded_for="192.0.2.4")[0] == 101
        assert status(relay, source="127.0.0.2", x_forwarded_for="192.0.2.5")[0] == 429


def test_sockets_that_say_nothing_keep_nobody_out() -> None:
    with make(handshake_timeout=30.0) as relay, contextlib.ExitStack() as stack:
        idle = [stack.enter_context(Raw(relay)) for _ in range(600)]
        near, far = pair(relay)
        with near, far:
            # The oldest made room.
            assert idle[0].is_at_end()
            near.say("x")
            assert far.hear() == "x"
        assert relay.snapshot().refused["flood"] >= 80


_FEW = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
from connman.relay import Relay
with Relay(port=0) as relay:
    print(relay.port, flush=True)
    sys.stdin.read()
    print(dict(relay.snapshot().refused))
"""


@pytest.mark.slow
def test_few_descriptors_are_shared_between_those_who_say_something_and_those_who_do_not() -> None:
    with (
        subprocess.Popen(
            [sys.executable, "-c", _FEW], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process,
        contextlib.ExitStack() as stack,
    ):
        assert process.stdout is not None
        relay = SimpleNamespace(port=int(process.stdout.readline()))
        for _ in range(300):
            stack.enter_context(Raw(relay))  # type: ignore[arg-type]
        for number in range(100):
            stack.enter_context(provider(relay, f"device{number}"))  # type: ignore[arg-type]
        refused, _ = process.communicate()
        assert "descriptors" not in refused


# Pages and names of hosts


def test_origins_and_hosts(relay: Relay) -> None:
    assert status(relay, origin=None)[0] == 101
    assert status(relay, origin=f"http://127.0.0.1:{relay.port}", host=f"127.0.0.1:{relay.port}")[0] == 101
    assert status(relay, origin="https://evil.example")[0] == 403
    assert status(relay, host="evil.example", origin="http://evil.example")[0] == 403
    assert status(relay, host="localhost:1")[0] == 101
    assert relay.snapshot().refused == {"origin": 1, "host": 1}


def test_allowed_origins_and_hosts() -> None:
    with Relay(port=0, origins=["https://good.example"], hosts=["relay.example"]) as relay:
        assert status(relay, origin="https://good.example", host="relay.example")[0] == 101
        assert status(relay, origin="https://evil.example", host="relay.example")[0] == 403


def test_nothing_is_compressed_or_negotiated(relay: Relay) -> None:
    with Raw(relay) as raw:
        raw.write(upgrade(sec_websocket_extensions="permessage-deflate", sec_websocket_protocol="chat"))
        code, headers, _ = raw.answer()
        assert code == 101
        assert sorted(headers) == ["connection", "sec-websocket-accept", "upgrade"]


# Tokens


@pytest.mark.parametrize("has_failed", [True, False])
def test_tokens_of_ones_own_that_fail(has_failed: bool, caplog: pytest.LogCaptureFixture) -> None:
    class Mine:
        def check(self, token: str | None) -> Grant:
            table: dict[str | None, Grant] = {}
            return table[token] if has_failed else None  # type: ignore[return-value]

    with Relay(port=0, tokens=Mine()) as relay:
        code, headers, body = status(relay, authorization="Bearer s3cret")
        assert (code, headers["retry-after"], body) == (503, "5", "the token could not be checked\n")
        with Client(relay, {"command": "reach", "name": "a", "token": "s3cret"}) as client:
            assert client.closed() == (1011, "the token could not be checked")
        assert relay.snapshot().refused == {"tokens-failed": 2}
    assert "s3cret" not in caplog.text
    assert ("raised KeyError in line" if has_failed else "returned NoneType") in caplog.text


class OneToken:
    """Knows one token."""

    def check(self, token: str | None) -> Grant:
        if token != "right":
            raise TokenRefused("the token is not known")
        return Grant(("*",), ("*",))


def test_a_wrong_token_gets_no_upgrade() -> None:
    with Relay("0.0.0.0", 0, tokens=OneToken()) as relay:
        code, headers, body = status(relay, authorization="Bearer s3cret")
        assert (code, headers["www-authenticate"], body) == (401, "Bearer", "the token is not known\n")
        # With tokens the name of the host does not matter.
        assert status(relay, authorization="Bearer right", host="relay.example")[0] == 101


# TLS


@pytest.fixture
def context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    return context


def test_a_pair_over_tls(context: ssl.SSLContext) -> None:
    with Relay(port=0, tls=server_context(AUTHORITY.issue_cert("127.0.0.1"))) as relay:
        with provider(relay, context=context) as far, caller(relay, context=context) as near:
            assert far.told() == HANDOVER
            far.say(READY)
            assert near.told() == REACHED
            near.say("x" * 100_000)
            assert far.hear() == "x" * 100_000
            assert near.leave() == (1000, "")
            assert far.closed() == (1000, "")
        with pytest.raises(AssertionError, match="403"), Client(relay, context=context, host="evil.example"):
            pass


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00"])
def test_tls_that_comes_to_nothing(said: bytes) -> None:
    limits = Limits(handshake_timeout=0.3)
    with Relay(port=0, limits=limits, tls=server_context(AUTHORITY.issue_cert("127.0.0.1"))) as relay:
        with Raw(relay) as raw:
            raw.write(said)
            while raw.take(1):
                pass
        eventually(lambda: relay.snapshot().connections == 0)


# The end


def stopping(relay: Relay, grace: float) -> threading.Thread:
    thread = threading.Thread(target=relay.stop, args=(grace,))
    thread.start()
    eventually(lambda: relay.snapshot().is_stopping)
    return thread


def test_an_orderly_end() -> None:
    told = (1001, "the relay is stopping")
    with make() as relay:
        near, far = pair(relay)
        with near, far, provider(relay, "spare") as spare, Client(relay) as joining:
            thread = stopping(relay, 10.0)
            assert spare.closed() == told
            assert joining.closed() == told
            code, headers, body = status(relay)
            assert (code, headers["retry-after"], body) == (503, "1", "the relay is stopping\n")
            near.say("goes on")
            assert far.hear() == "goes on"
            near.leave()
            assert far.closed() == (1000, "")
            thread.join()
        assert relay.wait(0)


def test_the_grace_ends() -> None:
    with make(close_timeout=0.1) as relay:
        one, two = group(relay)
        with one, two:
            thread = stopping(relay, 0.2)
            for member in (one, two):
                assert member.frame() == (CLOSE, True, (1001).to_bytes(2) + b"the relay is stopping")
            thread.join()


def test_a_second_stop_shortens_the_grace() -> None:
    with make(close_timeout=0.1) as relay:
        near, far = pair(relay)
        with near, far:
            thread = stopping(relay, 600.0)
            assert relay.stop()
            thread.join()
            assert {near.frame()[2][:2], far.frame()[2][:2]} == {(1001).to_bytes(2)}


def test_clients_that_do_not_answer_do_not_hold_up_the_end() -> None:
    with make(close_timeout=0.2) as relay:
        near, far = pair(relay)
        with near, far, Raw(relay):
            assert relay.stop(0.0, timeout=5.0)


def test_what_is_counted(relay: Relay) -> None:
    near, far = pair(relay)
    with near, far:
        near.say(b"12345")
        far.hear()
        snapshot: Any = relay.snapshot()
        assert (snapshot.pairs, snapshot.pairs_total, snapshot.connections_total) == (1, 1, 2)
        assert snapshot.frames_total == 1
        assert 0 < snapshot.bytes_total < 20
        near.leave(4005)
        far.closed()
    eventually(lambda: relay.snapshot().closes == {4005: 2})
