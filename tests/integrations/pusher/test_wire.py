"""The words of the protocol."""

import json
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connman.errors import ConnectionClosed, ConnectionLost, HandshakeFailed, PingTimeout, ProtocolError
from connman.integrations.pusher.wire import (
    Action,
    Event,
    PusherError,
    PusherRefused,
    action_of,
    decode,
    encode,
    error_of,
    read_greeting,
)

GREETING = {"socket_id": "1.2", "activity_timeout": 30}


def nested(levels: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(levels):
        found = [found]
    return found


def greeting(**changes: Any) -> str:
    """Return a greeting whose data is a text, as it comes; a change to None leaves the field out."""
    data = {key: value for key, value in (GREETING | changes).items() if value is not None}
    return json.dumps({"event": "pusher:connection_established", "data": json.dumps(data)})


def test_data_comes_encoded_twice_or_once() -> None:
    assert decode('{"event":"e","data":"{\\"a\\":1}","channel":"c"}') == Event("e", {"a": 1}, "c")
    assert decode('{"event":"e","data":{"a":1},"channel":"c","user_id":"u"}') == Event(
        "e", {"a": 1}, "c", "u"
    )
    assert decode('{"event":"e","data":"no json"}') == Event("e", "no json")
    assert decode(b'{"event":"e"}') == Event("e")


@pytest.mark.parametrize("frame", ["", "x", "[]", "1", "{}", '{"event":1}', b"\xff", "[" * 100_000])
def test_what_is_no_event_is_a_protocol_error_that_quotes_nothing(frame: Any) -> None:
    with pytest.raises(ProtocolError) as caught:
        decode(frame)
    assert caught.value.__cause__ is None
    assert len(str(caught.value)) < 80


@given(st.text() | st.binary())
def test_no_frame_raises_anything_else(frame: str | bytes) -> None:
    for read in (decode, read_greeting):
        try:
            read(frame)
        except (ProtocolError, PusherError):
            pass


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_what_is_encoded_is_decoded(data: Any) -> None:
    if not isinstance(data, str):  # a text may be JSON itself
        assert decode(encode("client-e", data, "c")) == Event("client-e", data, "c")


@pytest.mark.parametrize("data", [float("nan"), object(), {1, 2}])
def test_data_that_json_cannot_hold(data: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        encode("client-e", data)


@pytest.mark.parametrize("value", ["\ud800", {"\udfff": 1}, nested(100_000)], ids=["text", "key", "deep"])
def test_what_no_frame_can_carry(value: Any) -> None:
    """It is told to whoever sends it; the frame, which may hold a signature, is not in the error."""
    with pytest.raises(ValueError) as caught:
        encode("e", value)
    assert type(caught.value) is ValueError
    with pytest.raises(ValueError):
        encode("e\ud800", None)


def test_who_sent_it_may_be_a_number() -> None:
    assert decode('{"event":"e","user_id":7}').user_id == "7"
    assert decode('{"event":"e","user_id":[7]}').user_id is None


def test_a_greeting() -> None:
    found = read_greeting(greeting())
    assert (found.socket_id, found.activity_timeout) == ("1.2", 30.0)
    assert "1.2" not in repr(found)
    assert read_greeting(greeting(activity_timeout=0.01)).activity_timeout == 1.0


@pytest.mark.parametrize(
    "frame",
    [
        "garbage",
        '{"event":"pusher:pong"}',
        '{"event":"pusher:connection_established"}',
        '{"event":"pusher:connection_established","data":"text"}',
        *(greeting(activity_timeout=bad) for bad in (None, 0, -1, True, "30", float("nan"), float("inf"))),
        *(greeting(socket_id=bad) for bad in (None, "", 7)),
    ],
)  # fmt: skip
def test_anything_but_a_whole_greeting_is_a_protocol_error(frame: str) -> None:
    with pytest.raises(ProtocolError):
        read_greeting(frame)


@pytest.mark.parametrize(
    ("code", "action"),
    [
        (1000, Action.NONE), (1001, Action.NONE), (1005, Action.NONE), (1006, Action.NONE), (1011, Action.NONE),
        (1002, Action.BACKOFF), (1003, Action.BACKOFF), (1004, Action.BACKOFF), (3999, Action.NONE),
        (4000, Action.TLS_ONLY), (4001, Action.REFUSED), (4099, Action.REFUSED), (4100, Action.BACKOFF),
        (4199, Action.BACKOFF), (4200, Action.RETRY), (4299, Action.RETRY), (4300, Action.REFUSED),
        (4999, Action.REFUSED),
    ],
)  # fmt: skip
def test_the_bands(code: int, action: Action) -> None:
    assert action_of(ConnectionClosed(code)) is action
    assert action_of(PusherError(code)) is action
    failed = HandshakeFailed("e")
    failed.__cause__ = ConnectionClosed(code)
    assert action_of(failed) is action


def test_errors_without_a_code() -> None:
    assert action_of(PusherError(None)) is Action.REFUSED
    assert action_of(ConnectionClosed(None)) is Action.NONE
    assert action_of(ConnectionLost()) is Action.NONE
    assert action_of(PingTimeout()) is Action.RETRY
    assert action_of(HandshakeFailed("e")) is Action.NONE


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("4201", 4201),
        (4201.0, 4201),
        ("x", None),
        ("", None),
        (4201.5, None),
        (float("inf"), None),
        ("9" * 6, None),
        ("\u0664", None),
    ],
)
def test_codes_as_pushers_own_clients_read_them(said: object, code: int | None) -> None:
    assert error_of(Event("pusher:error", {"code": said})).code == code


def test_an_error_event() -> None:
    found = error_of(Event("pusher:error", {"code": 4001, "message": "key s3cret"}))
    assert isinstance(found, PusherRefused)
    assert (found.code, found.message) == (4001, "key s3cret")
    assert "s3cret" not in str(found)
    assert type(error_of(Event("pusher:error", {"code": 4200}))) is PusherError
    assert error_of(Event("pusher:error", "text")).code is None
    assert error_of(Event("pusher:error", {"code": True})).code is None


@pytest.mark.parametrize("kind", [PusherError, PusherRefused])
def test_errors_are_picklable(kind: type[PusherError]) -> None:
    twin = pickle.loads(pickle.dumps(kind(4001, "no")))
    assert (type(twin), twin.code, twin.message) == (kind, 4001, "no")
