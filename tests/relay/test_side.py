"""One socket of a relay: pings, flow control, big messages, and how it ends when its client does not answer."""

import contextlib
import os
import socket
import ssl
import time
from collections.abc import Iterator

import pytest

from connman.relay import Grant, Relay
from tests.authorities import AUTHORITY, server_context
from tests.loopback import PATIENCE
from tests.relay.rig import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    Client,
    caller,
    close_frame,
    frame,
    group,
    make,
    pair,
    provider,
)
from tests.waiting import eventually

LOST = (4102, "the other side was lost")


# Pings


def test_pings_are_answered_by_the_relay_and_go_no_further(relay: Relay) -> None:
    near, far = pair(relay)
    with near, far:
        near.write(frame(PING, b"hello") + frame(PONG, b"unasked") + frame(TEXT, b"x"))
        assert near.frame() == (PONG, True, b"hello")
        assert far.frame() == (TEXT, True, b"x")


def test_of_many_pings_the_newest_is_answered(relay: Relay) -> None:
    near, far = pair(relay)
    with near, far:
        near.write(b"".join(frame(PING, b"%d" % number) for number in range(1000)) + frame(TEXT, b"end"))
        assert far.hear() == "end"
        seen = []
        while not seen or seen[-1] != 999:
            opcode, _, payload = near.frame()
            assert opcode == PONG
            seen.append(int(payload))
        assert seen == sorted(set(seen))


def test_a_client_that_answers_pings_stays() -> None:
    with make(ping_interval=0.1, ping_timeout=0.1) as relay, provider(relay) as far:
        for _ in range(5):
            assert far.frame() == (PING, True, b"")
            far.write(frame(PONG))


@pytest.mark.parametrize("is_joined", [False, True])
def test_a_client_that_does_not_is_lost(is_joined: bool) -> None:
    with make(ping_interval=0.1, ping_timeout=0.1) as relay, contextlib.ExitStack() as stack:
        if not is_joined:
            dead = stack.enter_context(provider(relay))
        else:
            left, dead = map(stack.enter_context, pair(relay))
            with pytest.raises(AssertionError, match="the other side was lost"):
                left.hear()  # answers pings
        assert dead.frame() == (PING, True, b"")
        assert dead.is_at_end()
    assert relay.snapshot().spares == 0


def test_no_pings() -> None:
    with make(ping_interval=None) as relay, provider(relay) as far:
        assert far.leave() == (1000, "")


# Flow


def fill(client: Client, message: bytes, most: int) -> int:
    """Send copies of a message until nothing more is taken for a while; return how many bytes were."""
    client.sock.settimeout(0.1)
    sent = 0
    with contextlib.suppress(TimeoutError):
        while sent < most:
            sent += client.sock.send(message)
    client.sock.settimeout(PATIENCE)
    return sent


def rss() -> int:
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("far_is_slow", [False, True])
def test_a_reader_that_does_not_read_stops_the_writer(far_is_slow: bool) -> None:
    with make(ping_interval=None) as relay:
        near, far = pair(relay)
        slow, quick = (far, near) if far_is_slow else (near, far)
        message = frame(BINARY, os.urandom(100_000))
        with near, far:
            before = rss()
            sent = fill(quick, message * 10, 200 << 20)
            # What is under way lies in the system's buffers for two sockets, and a few marks in the relay.
            assert sent < 64 << 20
            assert rss() - before < 32 << 20
            # The other direction is open.
            slow.say("still here")
            assert quick.hear() == "still here"
            # Nothing was lost or changed: as many bytes as make whole messages come out.
            got = 0
            while got < sent // len(message):
                assert len(slow.hear()) == 100_000
                got += 1


def test_a_slow_pair_delays_no_other(relay: Relay) -> None:
    near, far = pair(relay)
    with near, far:
        fill(near, frame(BINARY, bytes(100_000)) * 10, 200 << 20)
        other, partner = pair(relay, "other")
        with other, partner:
            other.say("quick")
            assert partner.hear() == "quick"


def test_a_writer_that_is_stopped_is_not_taken_for_dead() -> None:
    with make(ping_interval=0.2, ping_timeout=0.2) as relay:
        near, far = pair(relay)
        with near, far:
            fill(near, frame(BINARY, bytes(100_000)) * 10, 16 << 20)
            # Neither answers pings, but the writer cannot be heard: the one that reads nothing is the one that is lost.
            opcode = PING
            while opcode == PING:
                opcode, _, payload = near.frame()
            assert (opcode, payload) == (CLOSE, (4102).to_bytes(2) + b"the other side was lost")


# Messages


def test_a_big_message_passes_and_a_bigger_one_does_not() -> None:
    with make(max_message_size=1 << 20) as relay:
        near, far = pair(relay)
        with near, far:
            payload = os.urandom(1 << 20)
            near.say(payload)
            assert far.hear() == payload
            near.write(frame(BINARY, payload + b"x")[:14])
            assert near.frame() == (CLOSE, True, (1009).to_bytes(2) + b"the message is too big")
            assert far.closed() == (4102, "the other side was closed: 1009 the message is too big")
        assert relay.snapshot().refused == {"too-big": 1}


def test_one_that_goes_on_with_a_message_too_big_hears_why() -> None:
    with make(max_message_size=1000, close_timeout=0.5) as relay:
        near, far = pair(relay)
        with near, far:
            near.write(frame(BINARY, bytes(5 << 20)))
            assert near.frame() == (CLOSE, True, (1009).to_bytes(2) + b"the message is too big")


def test_a_big_message_over_tls() -> None:
    certificate = AUTHORITY.issue_cert("127.0.0.1")
    with Relay(port=0, tls=server_context(certificate)) as relay:
        assert relay.url == f"wss://127.0.0.1:{relay.port}/"
        context = ssl.create_default_context()
        AUTHORITY.configure_trust(context)
        one = Client(relay, {"self": "a", "other": "b"}, context=context)
        two = Client(relay, {"self": "b", "other": "a"}, context=context)
        with one, two:
            one.told(), two.told()
            payload = os.urandom(300_000)
            one.say(payload)
            one.say("behind")
            assert two.hear() == payload
            assert two.hear() == "behind"
            assert one.leave(4000, "x") == (4000, "x")
            assert two.closed() == (4002, "")


# Ends


def test_a_client_that_does_not_answer_a_close_is_dropped() -> None:
    with make(close_timeout=0.1) as relay:
        one, two = group(relay)
        with one, two:
            one.leave()
            assert two.frame() == (CLOSE, True, (4002).to_bytes(2))
            assert two.is_at_end()


def test_what_a_client_says_behind_its_goodbye_is_not_heard(relay: Relay) -> None:
    near, far = pair(relay)
    with near, far:
        near.write(close_frame(1000) + frame(TEXT, b"late") + frame(PING))
        assert far.closed() == (1000, "")
        assert near.frame() == (CLOSE, True, (1000).to_bytes(2))
        assert near.is_at_end()


def test_an_end_of_file_without_a_goodbye_is_a_loss(relay: Relay) -> None:
    near, far = pair(relay)
    with near, far:
        near.sock.shutdown(socket.SHUT_WR)
        assert far.closed() == LOST
        assert near.is_at_end()


class Expiring:
    """Every token ends soon."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def check(self, token: str | None) -> Grant:
        return Grant(("*",), ("*",), time.time() + self.seconds)


@pytest.fixture
def expiring() -> Iterator[Relay]:
    with Relay(port=0, tokens=Expiring(0.3)) as relay:
        yield relay


def test_spares_and_pairs_end_with_their_token(expiring: Relay) -> None:
    with provider(expiring, "spare") as spare:
        near, far = pair(expiring)
        with near, far:
            told = {near.closed(), far.closed()}
            assert told == {(3000, "the token has expired")}
        assert spare.closed() == (3000, "the token has expired")


def test_a_token_that_has_expired_before_the_first_message() -> None:
    first = {"command": "reach", "name": "x"}
    with Relay(port=0, tokens=Expiring(0.0)) as relay, Client(relay, first, authorization="Bearer x") as near:
        assert near.closed() == (3000, "the token has expired")


def test_one_that_waits_is_shown_without_secrets(relay: Relay) -> None:
    with caller(relay, "nobody") as near:
        assert near.closed()[0] == 4104
    eventually(lambda: relay.snapshot().connections == 0)
