"""Where the requests of a session go, and with what."""

import logging
import re
import threading

import pytest

from connman.errors import ConnectionLost, InvalidOption, InvalidTarget
from connman.transport.sockjs_session import Session
from tests.loopback import PATIENCE, Server, hanging_port, in_thread, make_dial, refusing_port, silent
from tests.transport.sockjs_peers import Request, SockjsServer
from tests.waiting import eventually

SECRET = "S3CR3T"


def opened(target: str, **options: object) -> Session:
    dial = make_dial(target, **options)
    dial.begin([(name, value) for name, value in dial.options.headers or ()])  # type: ignore[union-attr]
    return Session(dial)


def asked(server: SockjsServer, session: Session, count: int = 1) -> list[Request]:
    """Have the session send requests to a server that does not know it, and return them as they arrived."""
    wire = session.reconnect(None)
    for _ in range(count):
        answer = session.post(wire, "xhr_send", [b"[]"], 2)
        assert (answer.status, answer.read()) == (404, b"")
    session.drop(wire)
    return server.requests[-count:]


def test_the_place_of_a_request() -> None:
    with SockjsServer() as server:
        first, second = asked(server, opened(f"{server.target}/?protocol=7&token={SECRET}"), 2)
        assert re.fullmatch(r"/base/[0-9]{3}/[0-9a-f]{32}/xhr_send", first.path)
        assert (first.method, first.path) == ("POST", second.path)
        assert re.fullmatch(rf"protocol=7&token={SECRET}&t=[0-9]+&n=1", first.query)
        assert second.query.endswith("&n=2")
        (other,) = asked(server, opened(server.target))
        assert other.session != first.session
        assert re.fullmatch(r"t=[0-9]+&n=1", other.query)


def test_the_headers_of_a_request() -> None:
    with SockjsServer() as server:
        target = server.target.replace("//", "//user:pass@")
        (request,) = asked(server, opened(target, headers={"x-own": "1", "content-type": "text/plain"}))
        assert request.headers["host"] == f"127.0.0.1:{server.port}"
        assert request.headers["x-own"] == "1"
        assert request.headers["content-type"] == "text/plain"
        assert request.headers["authorization"] == "Basic dXNlcjpwYXNz"
        assert request.headers["user-agent"].startswith("connman/")
        (request,) = asked(server, opened(server.target))
        assert request.headers["content-type"] == "application/json; charset=utf-8"


def test_a_header_that_is_given_twice_is_sent_as_a_list() -> None:
    headers = [("X-Own", "1"), ("cookie", "a=1"), ("x-own", ""), ("X-OWN", "2"), ("Cookie", "b=2")]
    with SockjsServer() as server:
        (request,) = asked(server, opened(server.target, headers=headers))
        assert request.headers["x-own"] == "1, , 2"
        assert request.headers["cookie"] == "a=1; b=2"


@pytest.mark.parametrize("headers", [{"a b": "x"}, {"a": "x\r\ny"}])
def test_what_must_not_enter_a_request_is_refused_before_any_io(headers: dict[str, str]) -> None:
    dial = make_dial("xhr-polling+http://127.0.0.1:1/base")
    dial.begin(list(headers.items()))
    with pytest.raises(InvalidOption):
        Session(dial)


def test_a_move_leaves_credentials_and_connections_behind() -> None:
    with SockjsServer() as server:
        session = opened(
            server.target.replace("//", f"//user:{SECRET}@"),
            headers={"Cookie": SECRET, "X-Api-Key": SECRET, "Origin": "http://own", "Host": "front.example"},
        )
        wire = session.reconnect(None)
        session.post(wire, "xhr_send", [b"[]"], 2).read()
        assert session.reconnect(wire) is wire
        session.move("localhost")
        moved = session.reconnect(wire)
        assert moved is not wire
        session.post(moved, "xhr_send", [b"[]"], 2).read()
        session.drop(moved)
        before, after = server.requests
        assert (before.headers["host"], after.headers["host"]) == (
            "front.example",
            f"localhost:{server.port}",
        )
        assert before.path == after.path
        assert SECRET not in str(after.headers)
        assert after.headers["origin"] == "http://own"
        credentials = {"authorization", "cookie", "x-api-key"}
        assert credentials <= set(before.headers)
        assert not credentials & set(after.headers)


@pytest.mark.parametrize("host", ["", "a b", "a/b", "a\r\nb", "x" * 300])
def test_a_move_to_what_is_no_host_is_refused(host: str) -> None:
    session = opened("xhr-polling+http://127.0.0.1:1/base")
    with pytest.raises(InvalidTarget):
        session.move(host)


def test_cookies_stay_within_the_session() -> None:
    with SockjsServer() as server:
        server.headers = ["Set-Cookie: JSESSIONID=a1; path=/"]
        first, second = asked(server, opened(server.target, headers={"cookie": "own=1"}), 2)
        (other,) = asked(server, opened(server.target))
        assert first.headers["cookie"] == "own=1"
        assert second.headers["cookie"] == "own=1; JSESSIONID=a1"
        assert "cookie" not in other.headers


def test_a_shutdown_ends_requests_and_dials_and_allows_no_more() -> None:
    with Server(silent) as server, hanging_port() as port:
        for target in (
            f"xhr-polling+http://127.0.0.1:{server.port}/",
            f"xhr-polling+http://127.0.0.1:{port}/",
        ):
            session = opened(target)

            def act(session: Session = session) -> None:
                wire = session.reconnect(None)
                try:
                    session.post(wire, "xhr")
                finally:
                    session.drop(wire)

            asking = in_thread(act)
            eventually(lambda: threading.active_count() > 1)
            session.shutdown()
            assert isinstance(asking.exception(PATIENCE), ConnectionLost | OSError)
            with pytest.raises(ConnectionLost):
                session.reconnect(None)


def test_a_connection_that_fails_is_a_loss() -> None:
    with refusing_port() as port:
        session = opened(f"xhr-polling+http://127.0.0.1:{port}/base?{SECRET}")
        with pytest.raises(ConnectionLost, match="Connection refused") as caught:
            session.reconnect(None)
        assert SECRET not in str(caught.value)


def test_a_refusal_tells_its_status() -> None:
    session = opened("xhr-polling+http://127.0.0.1:1/base")
    assert (session.refusal(404).status, str(session.refusal(404))) == (
        404,
        "the server does not know the session (HTTP 404)",
    )
    assert (session.refusal(500).status, str(session.refusal(500))) == (
        500,
        "the server refused a request with HTTP 500",
    )


def test_traffic_is_that_of_all_connections_and_never_goes_back() -> None:
    with SockjsServer() as server:
        session = opened(server.target)
        assert session.traffic(0) is None
        wire = session.reconnect(None)
        session.post(wire, "xhr_send", [b"[" + b" " * 50_000 + b"]"], 50_002).read()
        seen = eventually(lambda: (told := session.traffic(7)) and told.acknowledged > 50_000 and told)
        assert seen.unacknowledged >= 7
        session.drop(wire)
        session.drop(wire)
        other = session.reconnect(None)
        told = session.traffic(0)
        assert told is not None
        assert told.acknowledged >= seen.acknowledged
        assert told.received >= seen.received
        session.drop(other)


def test_nothing_secret_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with SockjsServer() as server:
        (request,) = asked(server, opened(f"{server.target}?{SECRET}"))
    assert SECRET not in caplog.text
    assert request.session not in caplog.text
