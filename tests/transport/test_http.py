"""Requests on sockets of our own: limits, deadlines, what may be used again, and what must be in no log."""

import contextlib
import http.client
import logging
import socket
from collections.abc import Iterable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connman.clock import Deadline, SystemClock
from connman.testing import FakeClock
from connman.transport.http import Cookies, HttpAnswer, HttpWire, Limits
from connman.transport.sockets import SocketGuard
from connman.transport.upgrade import BadAnswer
from tests.loopback import PATIENCE, in_thread
from tests.transport.streams import PLACES, cut

CLOCK = SystemClock()
SECRET = "S3CR3T"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


class Server:
    """The far end: reads requests, and answers with given bytes."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.settimeout(PATIENCE)

    def read(self, until: bytes = b"\r\n\r\n") -> bytes:
        data = b""
        while until not in data:
            chunk = self.sock.recv(65536)
            assert chunk, data
            data += chunk
        return data

    def answer(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.sock.sendall(piece)


@contextlib.contextmanager
def open_wire(clock: FakeClock | None = None) -> Iterator[tuple[HttpWire, Server]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    guard = SocketGuard(ours)
    try:
        yield HttpWire(guard, clock or CLOCK), Server(theirs)
    finally:
        guard.close()
        theirs.close()


def limits(answer_within: float | None = PATIENCE, patience: float = PATIENCE) -> Limits:
    return Limits(Deadline(CLOCK, None), patience, answer_within)


def ask(wire: HttpWire, body: Iterable[bytes] = (), size: int = 0, **headers: str) -> HttpAnswer:
    return wire.ask(f"/base?token={SECRET}", {"Host": "h", **headers}, body, size, limits())


def answered(*pieces: bytes) -> tuple[HttpAnswer, bytes]:
    """Return what comes of an answer in these pieces, the last thing that is sent."""
    with open_wire() as (wire, server):
        server.answer(*pieces)
        server.sock.shutdown(socket.SHUT_WR)
        answer = ask(wire)
        return answer, b"".join(iter(answer.read, b""))


def test_a_request_and_its_answer() -> None:
    with open_wire() as (wire, server):
        server.answer(OK)
        answer = ask(wire, [b"[", b'"x"', b"]"], 5, **{"X-Own": "ü"})
        assert (answer.status, answer.headers, answer.cookies) == (200, {"content-length": "5"}, [])
        assert answer.read() == b"hello"
        assert answer.read() == answer.read() == b""
        request = server.read(b'["x"]').decode("latin-1")
        first, *headers = request.partition("\r\n\r\n")[0].split("\r\n")
        assert first == f"POST /base?token={SECRET} HTTP/1.1"
        assert sorted(headers)[:2] == ["Accept-Encoding: identity", "Content-Length: 5"]
        assert "X-Own: ü" in headers
        assert request.count("Host:") == 1


FORMS = {
    "with a length": OK,
    "in chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nT: t\r\n\r\n",
    "up to the end of file": b"HTTP/1.0 200 OK\r\n\r\nhello",
    "behind a 100": b"HTTP/1.1 100 Continue\r\nA: b\r\n\r\n" + OK,
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@given(places=PLACES)
def test_an_answer_may_be_cut_anywhere(form: bytes, places: list[int]) -> None:
    answer, body = answered(*cut(form, places))
    assert (answer.status, body) == (200, b"hello")


def test_what_is_here_of_a_body_is_not_held_back() -> None:
    with open_wire() as (wire, server):
        server.answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nsome")
        assert ask(wire).read() == b"some"  # of a chunk that is not whole


@pytest.mark.parametrize("form", [FORMS["with a length"], FORMS["in chunks"]])
def test_a_body_cut_short_is_an_error(form: bytes) -> None:
    for size in range(form.index(b"\r\n\r\n") + 4, form.index(b"o", 60) if b"chunked" in form else len(form)):
        with pytest.raises(OSError, match="cut short"):
            answered(form[:size])


@pytest.mark.parametrize(
    "garbage",
    [
        b"garbage\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 200 + b"\r\n",
        b"HTTP/1.1 200 OK\r\na: " + b"b" * 70_000,
        b"HTTP/1.1 100 Continue\r\n\r\n" * 5000,
        b"HTTP/1.1 200 OK\r\n" + b"a: bbbbbbb\r\n" * 20_000,
    ],
)
def test_what_is_no_answer_is_refused_within_limits(garbage: bytes) -> None:
    with open_wire() as (wire, server):
        sending = in_thread(server.answer, garbage)
        with pytest.raises(BadAnswer) as caught:
            ask(wire)
        wire.shutdown()
        sending.exception(PATIENCE)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


def test_an_end_without_an_answer() -> None:
    with pytest.raises(ConnectionError, match="without an answer"):
        answered()


def test_a_redirect_is_an_answer_like_any_other() -> None:
    with open_wire() as (wire, server):
        server.answer(b"HTTP/1.1 302 Found\r\nLocation: http://elsewhere/\r\nContent-Length: 0\r\n\r\n")
        answer = ask(wire)
        assert (answer.status, answer.headers["location"]) == (302, "http://elsewhere/")


def test_an_answer_is_read_up_to_its_deadline() -> None:
    with open_wire() as (wire, server):
        with pytest.raises(TimeoutError):
            wire.ask("/", {"Host": "h"}, (), 0, limits(answer_within=0.01))
        server.answer(b"HTTP/1.1 500 Oops\r\nContent-Length: 9\r\n\r\nso")
        answer = ask(wire)
        assert answer.read_all(Deadline.after(CLOCK, 0.01)) == b"so"


def test_a_body_that_nobody_takes_is_given_up() -> None:
    with open_wire() as (wire, _), pytest.raises(TimeoutError):
        wire.ask("/", {"Host": "h"}, [b"x" * 10_000_000], 10_000_000, limits(patience=0.01))


def test_a_refusal_may_come_before_the_whole_request() -> None:
    with open_wire() as (wire, server):
        server.answer(b"HTTP/1.1 413 Too much\r\nContent-Length: 0\r\n\r\n")
        server.sock.shutdown(socket.SHUT_RD)
        answer = ask(wire, [b"x" * 1_000_000], 1_000_000)
        assert (answer.status, answer.is_early) == (413, True)
        assert answer.read() == b""
        assert not wire.is_reusable


def test_a_shutdown_wakes_whoever_waits() -> None:
    for act in (ask, lambda wire: ask(wire, [b"x" * 10_000_000], 10_000_000)):
        with open_wire() as (wire, server):
            asking = in_thread(act, wire)
            server.read()
            wire.shutdown()
            assert isinstance(asking.exception(PATIENCE), OSError)


# Using a connection again


def used(wire: HttpWire, server: Server, *headers: str) -> None:
    server.answer(b"HTTP/1.1 204 OK\r\n" + "".join(f"{line}\r\n" for line in headers).encode() + b"\r\n")
    assert ask(wire).read() == b""


@pytest.mark.parametrize(
    ("header", "until"),
    [
        ("A: b", 2.0),
        ("Keep-Alive: timeout=5, max=9", 4.0),
        ("Keep-Alive: timeout=900", 15.0),
        ("Keep-Alive: timeout=1", 0.0),
    ],
)
def test_an_idle_connection_is_used_again_for_so_long(header: str, until: float) -> None:
    clock = FakeClock()
    with open_wire(clock) as (wire, server):
        used(wire, server, header)
        assert wire.idle_for == until
        assert wire.is_reusable == (until > 0)
        clock.advance(until)
        assert not wire.is_reusable


def test_what_the_server_has_closed_is_not_used_again() -> None:
    with open_wire() as (wire, server):
        assert not wire.is_reusable  # never used
        used(wire, server)
        assert wire.is_reusable
        server.sock.shutdown(socket.SHUT_WR)
        assert not wire.is_reusable
    with open_wire() as (wire, server):
        used(wire, server, "Connection: close")
        assert (wire.is_reusable, wire.idle_for) == (False, 0.0)


def test_what_is_not_over_or_is_retired_or_shut_is_not_used_again() -> None:
    with open_wire() as (wire, server):
        server.answer(OK[:-2])
        ask(wire).read()
        assert not wire.is_reusable
    for act in (HttpWire.retire, HttpWire.shutdown):
        with open_wire() as (wire, server):
            used(wire, server)
            act(wire)
            assert not wire.is_reusable


def test_several_requests_on_one_connection() -> None:
    with open_wire() as (wire, server):
        for form in [*FORMS.values(), OK]:
            server.answer(form.replace(b"HTTP/1.0 200 OK\r\n", b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n"))
            answer = ask(wire)
            assert b"".join(iter(answer.read, b"")) == b"hello"
            server.read()


# Secrets


def test_no_log_and_no_trace_holds_the_request(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(http.client.HTTPConnection, "debuglevel", 9)
    answered(OK)
    # What the server sends may be an echo.
    for line in (b"bad header line " + SECRET.encode(), b" " + SECRET.encode(), b"Content-Length: 5"):
        with pytest.raises(BadAnswer) as caught:
            answered(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n" + line + b"\r\n\r\nhello")
        assert SECRET not in str(caught.value)
    out, err = capfd.readouterr()
    assert SECRET not in caplog.text + out + err
    assert not [record for record in caplog.records if record.name.startswith("urllib3")]


# Cookies


def test_cookies_are_kept_and_replaced() -> None:
    cookies = Cookies()
    assert cookies.header() == ""
    cookies.take(["JSESSIONID=a1; Path=/; HttpOnly", "lb=b"])
    cookies.take(["lb=c; Max-Age=5"])
    assert cookies.header() == "JSESSIONID=a1; lb=c"
    assert cookies.header("own=1") == "own=1; JSESSIONID=a1; lb=c"


def test_cookies_that_cannot_be_sent_are_dropped() -> None:
    cookies = Cookies()
    cookies.take(["", "=x", "a", "b b=c", "c=d\x01", "d=ü", "e=" + "x" * 5000, "f=g,h", "ok=1"])
    assert cookies.header() == "ok=1"


def test_cookies_are_bounded() -> None:
    cookies = Cookies()
    cookies.take(f"n{number}=x" for number in range(1000))
    cookies.take(["n0=y"])
    assert cookies.header().count("=") == 32
    assert cookies.header().startswith("n0=y; ")


@given(st.lists(st.text()))
def test_any_cookies_leave_a_header_that_can_be_sent(headers: list[str]) -> None:
    cookies = Cookies()
    cookies.take(headers)
    assert cookies.header().isascii()
    assert cookies.header().isprintable()
