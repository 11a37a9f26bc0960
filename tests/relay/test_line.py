"""The socket of a side: pings, flow control, and taking turns."""

import contextlib
import os
import socket
import threading

import pytest

from connman.relay import Relay
from tests.loopback import PATIENCE
from tests.relay.rig import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    Client,
    frame,
    make,
    pair,
    provider,
)

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
    with make(ping_interval=0.1, ping_timeout=0.4) as relay, provider(relay) as far:
        for _ in range(3):
            assert far.frame() == (PING, True, b"")
            far.write(frame(PONG))


@pytest.mark.parametrize("is_joined", [False, True])
def test_a_client_that_does_not_is_lost(is_joined: bool) -> None:
    with make(ping_interval=0.1, ping_timeout=0.4) as relay, contextlib.ExitStack() as stack:
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
    client.sock.settimeout(0.25)
    sent, left = 0, memoryview(b"")
    with contextlib.suppress(TimeoutError):
        while sent < most:
            # The system takes a part of a message at times: what follows is its rest.
            left = left or memoryview(message)
            taken = client.sock.send(left)
            sent, left = sent + taken, left[taken:]
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


# Turns


@pytest.mark.parametrize("size", [0, 64, 10_000])
def test_a_flood_leaves_room_for_others(size: int) -> None:
    with make(close_timeout=0.1) as relay:
        flood(relay, size)


def flood(relay: Relay, size: int) -> None:
    near, far = pair(relay)
    block = frame(BINARY, bytes(size)) * (200_000 // (size + 8))
    over = threading.Event()

    def send() -> None:
        with contextlib.suppress(OSError):
            while not over.is_set():
                near.sock.sendall(block)

    def take() -> None:
        with contextlib.suppress(OSError):
            while far.sock.recv(1 << 20):
                pass

    threads = [threading.Thread(target=send), threading.Thread(target=take)]
    with near, far:
        for thread in threads:
            thread.start()
        for number in range(5):
            other, partner = pair(relay, f"other {number}")
            with other, partner:
                other.say("x")
                assert partner.hear() == "x"
        over.set()
        near.sock.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(PATIENCE)


def test_how_much_is_read_at_once_follows_the_frames(relay: Relay) -> None:
    near, far = pair(relay)
    with near, far:
        for size, count in ((0, 20_000), (100_000, 20), (1, 20_000), (3000, 300), (0, 20_000)):
            message = bytes(size)
            sender = threading.Thread(target=near.write, args=(frame(BINARY, message) * count,))
            sender.start()
            for _ in range(count):
                assert far.hear() == message
            sender.join()
