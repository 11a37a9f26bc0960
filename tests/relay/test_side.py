"""One socket of a relay: pings, flow control, big messages, and how it ends when its client does not answer."""

import asyncio
import errno
import os
import socket
import ssl
import time
from collections.abc import Iterator

import pytest

from connman.relay import Grant, Limits, Relay
from connman.relay.broker import NoBroker
from connman.relay.counts import Counts
from connman.relay.side import Side
from connman.relay.switch import Switchboard
from connman.relay.tokens import NoTokens
from tests.authorities import AUTHORITY, server_context
from tests.relay.rig import (
    BINARY,
    CLOSE,
    LOST,
    PING,
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


# Flow


class _Socket(asyncio.Transport):
    """What a side writes to and reads from, as far as it matters here."""

    def __init__(self) -> None:
        super().__init__()
        self.is_read = True
        self.is_aborted = False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def write(self, data: bytes | bytearray | memoryview) -> None:
        pass

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        raise OSError(errno.ENOTCONN, "gone")

    def abort(self) -> None:
        self.is_aborted = True

    def pause_reading(self) -> None:
        self.is_read = False

    def resume_reading(self) -> None:
        self.is_read = True


def _switchboard() -> Switchboard:
    return Switchboard(Limits(), NoTokens(), NoBroker(), Counts(0.0), lambda _side: None)


def test_one_that_is_joined_with_a_reader_who_is_behind_already_is_not_read() -> None:
    async def main() -> None:
        switch = _switchboard()
        sockets = _Socket(), _Socket()
        near, far = (Side(switch, socket, "127.0.0.1", None) for socket in sockets)
        far.pause_writing()  # the answers to its pings have piled up
        near.join(far)
        far.join(near)
        near.begin()
        far.begin()
        assert [socket.is_read for socket in sockets] == [False, True]
        far.resume_writing()
        assert [socket.is_read for socket in sockets] == [True, True]
        for side in (near, far):
            side.stop_timer()

    asyncio.run(main())


# Ends


def test_one_that_breaks_the_protocol_and_is_gone_is_dropped() -> None:
    async def main() -> None:
        socket = _Socket()
        side = Side(_switchboard(), socket, "127.0.0.1", None)
        side.data_received(b"\xff" * 6)
        assert socket.is_aborted
        side.stop_timer()

    asyncio.run(main())


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


def test_a_goodbye_that_came_with_a_refused_message_is_heard() -> None:
    with make(close_timeout=60.0) as relay, Client(relay) as client:
        client.write(frame(TEXT, b"{}") + close_frame(1000))
        assert client.frame()[0] == CLOSE
        assert client.is_at_end()


def test_one_that_sends_much_too_early_hears_why_nothing_comes_of_it() -> None:
    with make(close_timeout=0.5) as relay:
        for _ in range(10):
            with Client(relay) as client:
                first = frame(TEXT, b'{"command":"reach","name":"nobody"}')
                client.write(first + frame(BINARY, bytes(1 << 20)))
                assert client.closed() == (4104, "no provider of that name")


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
    with Relay(port=0, tokens=Expiring(1.0)) as relay:
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
