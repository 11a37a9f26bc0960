"""The first words on a relay: what is asked for, with which token, and what a refusal means."""

import itertools
import json
import pickle
from concurrent.futures import Future
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connman import Connection, Reset
from connman.errors import (
    ConnectError,
    ConnectionClosed,
    GaveUp,
    HandshakeFailed,
    InvalidOption,
    InvalidTarget,
    ProtocolError,
    Retry,
    retry_verdict,
)
from connman.rpc.joining import (
    Joining,
    Pause,
    RelayRefused,
    checked_name,
    command_of,
    is_no_such_peer,
    meaning_of,
)
from connman.testing import Peer, ScriptedDialer
from tests.waiting import eventually

URL = "ws://relay.example:8765/"
PATIENCE = 10.0


class Attempts:
    """Connections that join, and how their attempts ended."""

    def __init__(self, joining: Joining, **options: Any) -> None:
        self.resets: list[Reset] = []
        chosen = joining.options(options, longest_pause=1.0)
        self.conn = Connection(joining, on_reset=lambda _, reset: self.resets.append(reset), **chosen)

    def __enter__(self) -> "Attempts":
        self.conn.connect()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.conn.disconnect(timeout=0)

    def first_error(self) -> Exception:
        return eventually(lambda: self.resets, PATIENCE)[0].error


def first_words(peer: Peer) -> dict[str, object]:
    words = json.loads(peer.recv(PATIENCE))
    assert isinstance(words, dict)
    return words


# What is asked for


@pytest.mark.parametrize(("command", "answer"), [("provide", "provided"), ("reach", "reached")])
def test_the_name_is_asked_for_and_granted(command: Any, answer: str) -> None:
    dialer = ScriptedDialer(itertools.repeat(ScriptedDialer.OPEN))
    with Attempts(Joining(command, dialer, "Gerät 42")) as attempts:
        relay = dialer.next_peer()
        assert first_words(relay) == {"command": command, "name": "Gerät 42"}
        assert not attempts.conn.is_open
        relay.send(json.dumps({"command": answer}))
        attempts.conn.wait_open(PATIENCE)
        assert "Gerät 42" in attempts.conn.name


def test_what_comes_behind_the_grant_is_left_to_the_connection() -> None:
    dialer = ScriptedDialer(itertools.repeat(ScriptedDialer.OPEN))
    with Attempts(Joining("provide", dialer, "device")) as attempts:
        relay = dialer.next_peer()
        first_words(relay)
        relay.send('{"command":"provided"}')
        relay.send('{"command":"handover"}')
        assert attempts.conn.recv(PATIENCE) == '{"command":"handover"}'


def test_the_connection_is_not_found_by_the_address_of_the_relay() -> None:
    joining = Joining("provide", URL, "device")
    conn = Connection(joining, **joining.options({}, longest_pause=1.0))
    assert conn.endpoint is None
    assert str(joining.endpoint) in conn.name


@pytest.mark.parametrize("name", ["", "x" * 129, "a\nb", "\x00", "\x7f", "\ud800", "\u202e", 7, None, b"x"])
def test_a_name_that_no_relay_takes_is_refused_at_once(name: Any) -> None:
    with pytest.raises(InvalidOption, match="1 to 128 printable"):
        Joining("reach", URL, name)


@given(st.text(min_size=1, max_size=128).filter(str.isprintable))
def test_any_printable_name_goes(name: str) -> None:
    assert checked_name(name) == name


@pytest.mark.parametrize(
    "target", ["tcp://relay:1", "http://relay/", "xhr-polling+http://relay/", ("relay", 1), 7]
)
def test_an_address_that_is_no_relays_is_refused_at_once(target: Any) -> None:
    with pytest.raises(InvalidTarget):
        Joining("reach", target, "device")


@pytest.mark.parametrize("option", ["handshake", "on_data", "framing", "dispatch", "subprotocols", "name"])
def test_what_the_two_sides_have_agreed_on_cannot_be_changed(option: str) -> None:
    with pytest.raises(TypeError, match=option):
        Joining("reach", URL, "device").options({option: None}, longest_pause=1.0)


# Tokens


def test_a_token_goes_out_in_the_upgrades_headers() -> None:
    joining = Joining("reach", URL, "device", "s3cret", {"X-Trace": "1"})
    assert joining.headers() == [("X-Trace", "1"), ("Authorization", "Bearer s3cret")]


def test_a_callable_is_asked_for_a_token_for_each_attempt() -> None:
    tokens = iter(["first", "second"])
    joining = Joining("reach", URL, "device", lambda: next(tokens))
    assert [joining.headers()[-1][1] for _ in range(2)] == ["Bearer first", "Bearer second"]


def test_without_a_token_there_is_no_header() -> None:
    assert list(Joining("reach", URL, "device").headers()) == []


@pytest.mark.parametrize(
    ("url", "headers"),
    [("ws://user:password@relay/", None), (URL, {"authorization": "Basic eDp5"})],
)
def test_a_token_goes_out_in_the_first_frame_where_the_header_is_taken(url: str, headers: Any) -> None:
    joining = Joining("reach", url, "device", "s3cret", headers)
    assert "s3cret" not in repr(joining.headers())
    said: list[str] = []

    class Channel:
        def send(self, text: str) -> None:
            said.append(text)

        def recv(self) -> str:
            return '{"command":"reached"}'

    joining.greet(Channel())  # type: ignore[arg-type]  # all that it uses
    assert json.loads(said[0]) == {"command": "reach", "name": "device", "token": "s3cret"}


def test_two_logins_are_one_too_many() -> None:
    joining = Joining("reach", URL, "device", "s3cret", lambda: {"Authorization": "Basic eDp5"})
    with pytest.raises(InvalidOption, match="one of the two"):
        joining.headers()


@pytest.mark.parametrize("token", ["", "two words", "käse", "a\r\nb", 7, b"x"])
def test_a_token_that_cannot_be_sent_is_refused_without_being_shown(token: Any) -> None:
    with pytest.raises(InvalidOption, match="visible ASCII") as refused:
        Joining("reach", URL, "device", token)
    assert repr(token) not in str(refused.value)
    with pytest.raises(InvalidOption, match="visible ASCII"):
        Joining("reach", URL, "device", lambda: token).headers()


def test_a_token_is_in_no_text() -> None:
    joining = Joining("reach", "ws://relay/?key=s3cret", "device", "s3cret")
    conn = Connection(joining, **joining.options({}, longest_pause=1.0))
    assert "s3cret" not in f"{joining!r} {conn!r} {conn.name} {joining.options({}, longest_pause=1.0)!r}"


# Refusals


@pytest.mark.parametrize(
    ("code", "verdict"),
    [
        (1001, Retry.AGAIN),
        (3000, Retry.ONCE),
        (3003, Retry.ONCE),
        (4000, Retry.NEVER),
        (4001, Retry.NEVER),
        (4102, Retry.AGAIN),
        (4104, Retry.AGAIN),
        (4108, Retry.AGAIN),
        (4110, Retry.AGAIN),
        (4113, Retry.AGAIN),
        (4129, Retry.AGAIN),
    ],
)
def test_a_refusal_is_judged_by_its_code_and_told_in_words(code: int, verdict: Retry) -> None:
    dialer = ScriptedDialer(itertools.repeat(ScriptedDialer.OPEN))
    with Attempts(Joining("reach", dialer, "device")) as attempts:
        relay = dialer.next_peer()
        first_words(relay)
        relay.close(code, "the reason")
        error = attempts.first_error()
    assert isinstance(error, HandshakeFailed)
    assert isinstance(error.__cause__, RelayRefused)
    assert (error.__cause__.code, error.__cause__.reason) == (code, "the reason")
    assert retry_verdict(error) is verdict
    assert meaning_of(code) in str(error)
    assert is_no_such_peer(error) is (code == 4104)


@pytest.mark.parametrize(
    "answer", ["hello", '{"command":"reached","name"', "[]", '{"command":"provided"}', b"\x00"]
)
def test_what_is_no_relay_is_said_to_be_none(answer: Any) -> None:
    dialer = ScriptedDialer(itertools.repeat(ScriptedDialer.OPEN))
    with Attempts(Joining("reach", dialer, "device")) as attempts:
        relay = dialer.next_peer()
        first_words(relay)
        relay.send(answer)
        error = attempts.first_error()
    assert isinstance(error.__cause__, ProtocolError)
    assert "no relay" in str(error)


def test_no_such_peer_is_seen_behind_what_retrying_ended_with() -> None:
    failed = HandshakeFailed("relay", (), "handshake")
    failed.__cause__ = RelayRefused(4104)
    gave_up = GaveUp("relay", (), "gave up")
    gave_up.__cause__ = failed
    assert is_no_such_peer(gave_up)
    assert not is_no_such_peer(ConnectError("relay", (), "refused"))
    assert not is_no_such_peer(None)
    assert is_no_such_peer(ConnectionClosed(4104))


def test_a_refusal_survives_pickling() -> None:
    again = pickle.loads(pickle.dumps(RelayRefused(4129, "why")))
    assert (type(again), again.code, again.reason) == (RelayRefused, 4129, "why")
    assert "too many" in str(again)
    assert "why" not in str(again)


# Words


@pytest.mark.parametrize(
    "message",
    [
        b'{"command":"handover"}',
        "",
        "null",
        "[1]",
        '{"command":7}',
        "{" * 500,
        "[" * 1024,
        '{"command":"x"}' + " " * 1024,
    ],
)
def test_what_is_no_word_of_a_relay_has_no_command(message: Any) -> None:
    assert command_of(message) is None


def test_a_word_of_a_relay_has_its_command() -> None:
    assert command_of('{"command":"handover","more":1}') == "handover"


# Delays


class State:
    """Of tenacity's what is looked at."""

    def __init__(self, number: int, error: Exception | None = None, seconds: float = 0.0) -> None:
        self.attempt_number = number
        self.seconds_since_start = seconds
        self.outcome: Future[None] = Future()
        self.outcome.set_exception(error or ConnectError("relay", (), "refused"))


@given(st.integers(1, 10_000))
def test_the_delays_double_up_to_the_longest_and_are_half_random(number: int) -> None:
    full = min(0.1 * 2.0 ** min(number - 1, 32), 8.0)
    assert full / 2 <= Pause(8.0)(State(number)) <= full


@pytest.mark.parametrize("code", [4102, 4104, 4110])
def test_a_relay_that_answers_is_asked_again_within_a_tenth_of_the_time_that_it_lasts(code: int) -> None:
    error = HandshakeFailed("relay", (), "handshake")
    error.__cause__ = RelayRefused(code)
    for seconds, full in ((5.0, 1.0), (30.0, 3.0), (60.0, 6.0), (3600.0, 8.0)):
        assert full / 2 <= Pause(8.0)(State(30, error, seconds)) <= full
    assert Pause(8.0)(State(1, error, 3600.0)) <= 0.1
