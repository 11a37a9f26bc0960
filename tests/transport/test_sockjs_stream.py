"""A stream made of requests: how it goes on, what ends it, and how it never spins."""

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

import connman
from connman.errors import (
    ConnectionClosed,
    ConnectionLost,
    ConnmanError,
    PingTimeout,
    ProtocolError,
    SendTimeout,
    SessionLost,
)
from connman.records import Message
from connman.testing import FakeClock
from connman.transport.base import Dial, Transport
from connman.transport.openers import EndpointDialer
from tests.loopback import PATIENCE, in_thread, make_dial
from tests.transport.conformance import end_of, patient, read_out
from tests.transport.sockjs_peers import PRELUDE, Request, SockjsPeer, SockjsServer
from tests.waiting import eventually

KINDS = pytest.mark.parametrize("kind", ["streaming", "polling"])
GARBAGE = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 0\r\n\r\n"


@contextlib.contextmanager
def opened(
    kind: str, clock: FakeClock | None = None, **options: object
) -> Iterator[tuple[Transport, SockjsPeer, SockjsServer]]:
    with SockjsServer(f"xhr-{kind}+http") as server:
        dial = make_dial(server.target, **options)
        if clock is not None:
            dial = Dial(dial.endpoint, dial.options, clock)
        transport = EndpointDialer().dial(dial)
        try:
            yield transport, server.accept(), server
        finally:
            transport.dispose()


def received(transport: Transport, count: int) -> list[Message]:
    found: list[Message] = []
    while len(found) < count:
        found += transport.receive(patient())
    return found


def asks(server: SockjsServer) -> list[Request]:
    """Return the requests for messages so far."""
    return [request for request in server.requests if request.what != "xhr_send"]


# Going on


@KINDS
def test_an_answer_that_ends_is_followed_by_a_request_with_the_same_session(kind: str) -> None:
    with opened(kind) as (transport, peer, server):
        for number in range(20):
            peer.frames(b'a["%d"]\n' % number, is_last=True)
        assert received(transport, 20) == [str(number) for number in range(20)]
        assert len({request.path for request in server.requests}) == 1


def test_an_answer_that_may_not_be_followed_on_its_connection_is_followed_on_another() -> None:
    with opened("polling") as (transport, peer, server):
        server.headers = ["Connection: close"]
        for number in range(5):
            request = peer.asking()
            request.answer("200 OK", b'a["%d"]\n' % number, "Connection: close")
            assert received(transport, 1) == [str(number)]
        assert len({id(request.sock) for request in asks(server)}) >= 5


def test_heartbeats_are_answered_while_streaming_only() -> None:
    with opened("streaming") as (transport, peer, _):
        reading = in_thread(received, transport, 1)
        peer.frames(b"h\n")
        request = peer.sent.get(timeout=PATIENCE)
        assert request is not None
        assert request.body() == b"[]"
        request.answer("204 No Content")
        request.is_answered.set()
        peer.send("x")
        assert reading.result(PATIENCE) == ["x"]
    with opened("polling") as (transport, peer, _):
        reading = in_thread(received, transport, 1)
        peer.frames(b"h\n")
        peer.send("x")
        assert reading.result(PATIENCE) == ["x"]
        assert peer.sent.empty()


@KINDS
def test_answers_in_vain_are_asked_for_ever_more_slowly(kind: str) -> None:
    clock = FakeClock()
    with opened(kind, clock) as (transport, peer, server):
        reading = in_thread(received, transport, 1)
        peer.frames(b'a["first"]\n', is_last=True)
        assert reading.result(PATIENCE) == ["first"]
        reading = in_thread(received, transport, 1)
        count = 3 if kind == "polling" else 2
        eventually(lambda: len(asks(server)) == count)
        # The first is followed at once, the others after a pause that doubles.
        for number, pause in enumerate((None, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0), count):
            peer.frames(b"hh\n", is_last=True)
            if pause is not None:
                clock.wait_until_waiting(1)
                clock.advance(pause * 0.99)
                assert len(asks(server)) == number
                clock.advance(pause * 0.02)
            eventually(lambda wanted=number + 1: len(asks(server)) == wanted)  # type: ignore[misc]
        # A message makes it as quick as before.
        peer.frames(b'a["x"]\n', is_last=True)
        assert reading.result(PATIENCE) == ["x"]
        eventually(lambda: len(asks(server)) == count + 11)


def test_a_poll_that_was_held_is_followed_at_once() -> None:
    clock = FakeClock()
    with opened("polling", clock) as (_, peer, server):
        for count in range(2, 8):
            eventually(lambda before=count: len(asks(server)) == before)  # type: ignore[misc]
            clock.advance(25.0)
            peer.frames(b"h\n")


# Ends


@KINDS
def test_behind_a_close_frame_nothing_is_asked_for(kind: str) -> None:
    with opened(kind) as (transport, peer, server):
        count = 2 if kind == "polling" else 1  # the opening, and the poll that brings the last
        peer.frames(b'a["last"]\nc[3000,"Go away!"]\n', is_last=True)
        assert received(transport, 1) == ["last"]
        error = end_of(transport)
        assert isinstance(error, ConnectionClosed)
        assert (error.code, error.reason) == (3000, "Go away!")
        transport.dispose()
        assert len(asks(server)) == count


@contextlib.contextmanager
def opened_with(opening: bytes, kind: str) -> Iterator[tuple[Transport, SockjsPeer, SockjsServer]]:
    """Open with more behind the opening frame, in its chunk; in the end nothing was asked for again."""
    with SockjsServer(f"xhr-{kind}+http") as server:
        server.opening = opening
        transport = EndpointDialer().dial(make_dial(server.target))
        try:
            yield transport, server.accept(), server
            for thread in threading.enumerate():
                if thread.name.startswith("connman-receive-"):
                    thread.join(PATIENCE)
            assert len(asks(server)) == 1
        finally:
            transport.dispose()


@KINDS
def test_behind_a_close_frame_in_the_chunk_of_the_opening_nothing_is_asked_for(kind: str) -> None:
    with opened_with(b'o\nc[3000,"Go away!"]\n', kind) as (transport, peer, _):
        if kind == "streaming":
            peer.asking().sock.sendall(b"0\r\n\r\n")
        assert isinstance(end_of(transport), ConnectionClosed)


@pytest.mark.parametrize("place", [1, 4, 18])
def test_a_close_frame_may_begin_in_the_chunk_of_the_opening(place: int) -> None:
    close = b'c[3000,"Go away!"]\n'
    with opened_with(b"o\n" + close[:place], "streaming") as (transport, peer, _):
        peer.frames(close[place:], is_last=True)
        assert isinstance(end_of(transport), ConnectionClosed)


def test_an_answer_that_ends_within_a_frame_behind_the_opening_is_a_loss() -> None:
    with opened_with(b'o\na["x', "polling") as (transport, _, _server):
        error = end_of(transport)
        assert isinstance(error, ConnectionLost)
        assert "within a frame" in str(error)


@KINDS
def test_a_second_receiver_is_told_by_the_server(kind: str) -> None:
    with opened(kind) as (transport, peer, _):
        peer.frames(b'c[2010,"Another connection still open"]\n', is_last=True)
        error = end_of(transport)
        assert isinstance(error, ConnectionClosed)
        assert error.code == 2010


@KINDS
def test_another_session_in_its_place_is_a_loss(kind: str) -> None:
    with opened(kind) as (transport, peer, _):
        peer.frames(b"o\n", is_last=True)
        assert isinstance(end_of(transport), SessionLost)


@KINDS
@pytest.mark.parametrize("status", [404, 500, 302, 204])
def test_a_refused_request_for_more_is_a_lost_session(kind: str, status: int) -> None:
    with opened(kind) as (transport, peer, server):
        eventually(lambda: len(asks(server)) == (2 if kind == "polling" else 1))
        server.refusing = f"{status} Whatever"
        peer.frames(b'a["x"]\n', is_last=True)
        received(transport, 1)
        error = end_of(transport)
        assert isinstance(error, SessionLost)
        assert error.status == status
        assert str(status) in str(error)


def test_a_refused_send_is_a_lost_session() -> None:
    with opened("streaming") as (transport, _, server):
        server.refusing = "404 Not Found"
        reading = in_thread(end_of, transport)
        transport.send(["x"], PATIENCE)
        error = reading.result(PATIENCE)
        assert isinstance(error, SessionLost)
        assert error.status == 404


def test_senders_that_wait_are_told_of_a_lost_session_with_its_status() -> None:
    with opened("streaming") as (transport, _, server):
        server.refusing = "500 Oops"
        sending = in_thread(transport.send, ["x", "y" * 20_000_000], PATIENCE)
        error = sending.exception(PATIENCE)
        assert isinstance(error, SessionLost)
        assert (error.status, error.sent) == (500, 1)
        assert isinstance(end_of(transport), SessionLost)


def test_a_close_frame_counts_more_than_a_send_that_was_refused_meanwhile() -> None:
    clock = FakeClock()  # on which the grace for it does not pass
    with opened("streaming", clock) as (transport, peer, server):
        server.refusing = "404 Not Found"
        reading = in_thread(end_of, transport)
        transport.send(["x"], PATIENCE)
        eventually(lambda: any(request.what == "xhr_send" for request in server.requests))
        peer.frames(b'c[4200,"come back"]\n', is_last=True)
        error = reading.result(PATIENCE)
        assert isinstance(error, ConnectionClosed)
        assert error.code == 4200


@pytest.mark.parametrize("rest", [b'a["x', b"a"])
def test_an_answer_that_ends_within_a_frame_is_a_loss(rest: bytes) -> None:
    for kind in ("streaming", "polling"):
        with opened(kind) as (transport, peer, _):
            peer.frames(b'a["before"]\n' + rest, is_last=True)
            assert received(transport, 1) == ["before"]
            assert isinstance(end_of(transport), ConnectionLost)


@KINDS
def test_an_answer_that_is_cut_is_a_loss(kind: str) -> None:
    # What was on its way is gone, and nobody would notice if the session went on.
    with opened(kind) as (transport, peer, _):
        peer.send("before")
        assert received(transport, 1) == ["before"]
        request = peer.asking()
        if kind == "polling":
            request.sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\na[]\n")
        peer.drop()
        assert isinstance(end_of(transport), ConnectionLost)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"SSH-2.0\r\n", ProtocolError),
        (GARBAGE, ProtocolError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nx\n", ProtocolError),
    ],
)
def test_an_answer_that_makes_no_sense_is_a_protocol_error(answer: bytes, kind: type[ConnmanError]) -> None:
    with opened("polling") as (transport, peer, _):
        peer.asking().sock.sendall(answer)
        assert isinstance(end_of(transport), kind)


# Sending


def test_what_is_sent_while_a_request_is_under_way_goes_into_the_next() -> None:
    with opened("streaming") as (transport, peer, server):
        transport.send(["first"], PATIENCE)
        request = peer.sent.get(timeout=PATIENCE)
        assert request is not None
        for number in range(1000):
            transport.send([str(number)], PATIENCE)
        assert request.body() == b'["first"]'
        request.answer("204 No Content")
        request.is_answered.set()
        assert [peer.recv() for _ in range(1000)] == [b"%d" % number for number in range(1000)]
        assert len([request for request in server.requests if request.what == "xhr_send"]) == 2


def test_a_request_that_is_not_answered_in_time_ends_it() -> None:
    with opened("streaming", send_timeout=0.05) as (transport, _, _server):
        reading = in_thread(end_of, transport)
        transport.send(["x"], PATIENCE)
        error = reading.result(PATIENCE)
        assert isinstance(error, ConnectionLost)
        assert not isinstance(error, SendTimeout)
        assert "0.05 s" in str(error)


def test_a_request_that_is_answered_before_all_of_it_was_taken_ends_it() -> None:
    with opened("streaming") as (transport, peer, _):
        sending = in_thread(transport.send, ["x" * 20_000_000], PATIENCE)
        request = peer.sent.get(timeout=PATIENCE)
        assert request is not None
        request.answer("204 No Content")
        request.sock.shutdown(socket.SHUT_WR)
        # With what was not read: the system tells the client that nothing more is taken.
        request.sock.close()
        request.is_answered.set()
        assert isinstance(sending.exception(PATIENCE), ConnectionLost)
        error = end_of(transport)
        assert isinstance(error, ConnectionLost)
        assert "before it took all" in str(error)


@pytest.mark.parametrize(
    ("status", "is_taken"), [pytest.param("200 OK", True, marks=pytest.mark.slow), ("500 Oops", False)]
)
def test_an_answer_whose_body_does_not_end_holds_nothing_up(status: str, is_taken: bool) -> None:
    with opened("streaming") as (transport, peer, _):
        transport.send(["x"], PATIENCE)
        request = peer.sent.get(timeout=PATIENCE)
        assert request is not None
        request.body()
        request.sock.sendall(f"HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\n".encode())
        if is_taken:
            transport.send(["y"], PATIENCE)
            assert peer.recv() == b"y"
        else:
            assert isinstance(end_of(transport), SessionLost)
        request.is_answered.set()


def test_binary_messages_are_refused_and_nothing_happens() -> None:
    with opened("streaming") as (transport, peer, _):
        with pytest.raises(TypeError, match="SockJS carries text only"):
            transport.send(["x", b"y"], PATIENCE)
        transport.send(["z"], PATIENCE)
        assert peer.recv() == b"z"


def test_an_idle_sender_leaves_and_another_one_comes() -> None:
    clock = FakeClock()
    with opened("streaming", clock) as (transport, peer, _):
        for text in ("x", "y"):
            transport.send([text], PATIENCE)
            assert peer.recv() == text.encode()
            clock.wait_until_waiting(1)
            clock.advance(2.0)
            eventually(lambda: not [t for t in threading.enumerate() if t.name.startswith("connman-send-")])


# Half-open


@KINDS
def test_a_server_that_answers_no_ping_is_a_lost_connection(kind: str) -> None:
    with SockjsServer(f"xhr-{kind}+http") as server:
        resets: list[connman.Reset] = []
        with connman.connect(
            server.target,
            ping_interval=0.1,
            ping_timeout=0.1,
            reconnect=False,
            proxy=None,
            on_reset=lambda _, reset: resets.append(reset),
        ):
            server.accept()  # which nobody makes read
            eventually(lambda: resets)
        assert isinstance(resets[0].error, PingTimeout)


@KINDS
def test_a_session_that_the_server_has_forgotten_is_found_by_a_ping(kind: str) -> None:
    with SockjsServer(f"xhr-{kind}+http") as server:
        resets: list[connman.Reset] = []
        with connman.connect(
            server.target,
            ping_interval=0.05,
            reconnect=False,
            proxy=None,
            on_reset=lambda _, reset: resets.append(reset),
        ):
            # A ping that comes before it is forgotten is answered: else there would be no next one.
            peer = server.accept()
            answering = in_thread(read_out, peer)
            server.forget()
            eventually(lambda: resets)
            peer.drop()
        assert isinstance(resets[0].error, SessionLost)
        assert answering.result(PATIENCE) == []


def test_the_prelude_is_no_message_and_no_content() -> None:
    with opened("streaming") as (transport, peer, _):
        peer.frames(PRELUDE + b'a["x"]\n')
        assert received(transport, 1) == ["x"]
