"""The model's messages and encoding, row by row, as raw frames: what another implementation sees on the wire."""

import json
import math
import struct

import pytest

from connman.errors import MessageTooBig, RemoteError
from connman.rpc import UNDEFINED, NotAllowed
from connman.testing import ScriptedDialer
from tests.rpc.rig import PATIENCE, Wired

UNDEFINED_TEXT = "$__undefined$"


# Wire messages


def test_request() -> None:
    """Request: requestId, type, serviceId, args; args always present when sent, empty when there are none."""
    with Wired() as wire:
        wire.peer.send(10)
        wire.peer.send(11, 1, "two", None, [3], {"four": 4})
        assert wire.hear() == {"requestId": 0, "type": "request", "serviceId": 10, "args": []}
        assert wire.hear() == {
            "requestId": 1, "type": "request", "serviceId": 11, "args": [1, "two", None, [3], {"four": 4}],
        }  # fmt: skip


def test_request_without_args() -> None:
    """Request: args may be absent on receipt."""
    with Wired({7: lambda *args: list(args)}) as wire:
        assert wire.ask_raw(requestId=0, serviceId=7) == {"responseId": 0, "type": "data", "data": []}


def test_ids_run_from_zero() -> None:
    """The ids are the values of requestsSentTotal: 0, 1, 2, …"""
    with Wired() as wire:
        for number in range(5):
            assert wire.peer.stats.requests_sent_total == number
            wire.peer.send(1)
            assert wire.hear()["requestId"] == number


def test_both_sides_number_independently() -> None:
    """Both sides number independently; a response's responseId is the requester's requestId."""
    with Wired({1: lambda: "mine"}) as wire:
        future = wire.peer.send(2)
        assert wire.hear()["requestId"] == 0
        assert wire.ask(1, number=0) == {"responseId": 0, "type": "data", "data": "mine"}
        wire.say({"responseId": 0, "type": "data", "data": "yours"})
        assert future.result(PATIENCE) == "yours"


def test_ids_go_on_after_a_reconnect() -> None:
    """The ids are those of the peer's whole life: no answer can be taken for another path's."""
    with Wired(script=[ScriptedDialer.OPEN] * 2, reconnect=True, wait=lambda _: 0.0) as wire:
        wire.peer.send(1)
        assert wire.hear()["requestId"] == 0
        wire.far.drop()
        wire.far = wire.dialer.next_peer()
        wire.peer.send(1, retry_safe=True)
        assert wire.hear()["requestId"] == 1


def test_response_data() -> None:
    """Response data: responseId, type, data."""
    with Wired({3: lambda a, b: {"sum": a + b}}) as wire:
        assert wire.ask(3, 1, 2, number=41) == {"responseId": 41, "type": "data", "data": {"sum": 3}}


def test_response_error() -> None:
    """Response error: responseId, type, error with name, message and code where there is one."""

    class Refused(Exception):
        code = "E-42"

    def refuse() -> None:
        raise Refused("not today")

    with Wired({3: refuse, 4: lambda: 1 / 0}) as wire:
        assert wire.ask(3, number=5) == {
            "responseId": 5, "type": "error", "error": {"name": "Refused", "message": "not today", "code": "E-42"},
        }  # fmt: skip
        assert wire.ask(4) == {
            "responseId": 0, "type": "error", "error": {"name": "ZeroDivisionError", "message": "division by zero"},
        }  # fmt: skip


def test_string_stream() -> None:
    """String stream chunk: responseId, type "stream", chunk; encoding on the first chunk only. Stream end."""
    with Wired({3: lambda: iter(["a", "b"])}) as wire:
        first = wire.ask(3, number=9)
        assert {key: first[key] for key in ("responseId", "type", "chunk")} == {
            "responseId": 9, "type": "stream", "chunk": "a",
        }  # fmt: skip
        assert first.get("encoding") in (None, "utf8")
        assert wire.hear() == {"responseId": 9, "type": "stream", "chunk": "b"}
        assert wire.hear() == {"responseId": 9, "type": "stream-end"}


def test_stream_failure() -> None:
    """Stream failure: the text is always the same general one."""

    def fail():  # type: ignore[no-untyped-def]
        yield "a"
        raise ValueError("a secret of ours")

    with Wired({3: fail}) as wire:
        wire.ask(3, number=9)
        assert wire.hear() == {
            "responseId": 9, "type": "stream-error", "error": "Error while reading the file stream",
        }  # fmt: skip


def test_binary_frames() -> None:
    """Binary frame: 8 bytes of the request id as a double, little-endian; the rest is the chunk."""
    with Wired({3: lambda: iter([b"\x00\x01", b"more"])}) as wire:
        assert wire.ask(3, number=1) == struct.pack("<d", 1.0) + b"\x00\x01"
        assert wire.hear() == struct.pack("<d", 1.0) + b"more"
        assert wire.hear() == {"responseId": 1, "type": "stream-end"}


def test_stream_that_is_received() -> None:
    """Chunks of both kinds, as the model sends them, are the answer of a plain call."""
    with Wired() as wire:
        text, binary = wire.peer.send(1), wire.peer.send(1)
        wire.say({"responseId": 0, "type": "stream", "chunk": "one ", "encoding": "utf8"})
        wire.say(struct.pack("<d", 1.0) + b"\x00", struct.pack("<d", 1.0), struct.pack("<d", 1.0) + b"\x01")
        wire.say({"responseId": 0, "type": "stream", "chunk": "two"})
        wire.say({"responseId": 0, "type": "stream-end"}, {"responseId": 1, "type": "stream-end"})
        assert text.result(PATIENCE) == "one two"
        assert binary.result(PATIENCE) == b"\x00\x01"


def test_stream_write_error() -> None:
    """Stream write error, from the receiver of a stream to its sender: requestId, type."""
    with Wired() as wire:
        with wire.peer.stream(5, timeout=PATIENCE) as stream:
            number = wire.hear()["requestId"]
            wire.say({"responseId": number, "type": "stream", "chunk": "a", "encoding": "utf8"})
            assert next(stream) == "a"
        assert wire.hear() == {"requestId": number, "type": "write-stream-error"}


# Encoding rules


@pytest.mark.parametrize(
    ("sent", "seen"),
    [
        (UNDEFINED, UNDEFINED_TEXT),
        ([1, UNDEFINED, 3], [1, UNDEFINED_TEXT, 3]),
        ({"a": UNDEFINED, "b": None}, {"a": UNDEFINED_TEXT, "b": None}),
        ({"a": [{"b": UNDEFINED}]}, {"a": [{"b": UNDEFINED_TEXT}]}),
    ],
)
def test_undefined_is_sent(sent: object, seen: object) -> None:
    """undefined anywhere travels as a string of its own; null stays null."""
    with Wired({1: lambda: sent}) as wire:
        wire.peer.send(1, sent)
        assert wire.hear()["args"] == [seen]
        assert wire.ask(1)["data"] == seen


@pytest.mark.parametrize(
    ("sent", "seen"),
    [
        (UNDEFINED_TEXT, None),
        ([1, UNDEFINED_TEXT, None], [1, None, None]),
        ({"a": UNDEFINED_TEXT, "b": None}, {"b": None}),
        ([{"a": [UNDEFINED_TEXT], "b": {"c": UNDEFINED_TEXT}}], [{"a": [None], "b": {}}]),
    ],
)
def test_undefined_is_received(sent: object, seen: object) -> None:
    """In objects its key disappears, in lists the slot stays; a text that says so is lost."""
    with Wired({1: lambda *args: {"got": list(args)}}) as wire:
        future = wire.peer.send(1)
        wire.hear()
        wire.say({"responseId": 0, "type": "data", "data": sent})
        assert future.result(PATIENCE) == seen
        assert wire.ask(1, sent)["data"] == {"got": [seen]}


@pytest.mark.parametrize(
    ("value", "key", "shown", "kind"),
    [
        (math.nan, "0", "NaN", "number"),
        ({"deep": [math.inf]}, "0", "Infinity", "number"),
        (-math.inf, "0", "-Infinity", "number"),
        (len, "0", "[function]", "function"),
    ],
)
def test_what_is_not_allowed_is_not_sent(value: object, key: str, shown: str, kind: str) -> None:
    """NaN, infinities, functions: send() rejects, nothing is sent, the counter is unchanged, nothing is pending."""
    with Wired() as wire:
        with pytest.raises(NotAllowed) as caught:
            wire.peer.send(1, value)
        assert caught.value.code == "WSP-ESV"
        assert str(caught.value).startswith(f'WSP-ESV: Key "{key}" value {shown} ("{kind}") is not allowed')
        stats = wire.peer.stats
        assert (stats.requests_sent_total, stats.calls_in_flight) == (0, 0)
        wire.peer.send(2)
        assert wire.hear()["requestId"] == 0


def test_the_key_of_an_argument_is_its_index() -> None:
    """For arguments the key is the index as text, for properties their name."""
    with Wired() as wire:
        with pytest.raises(NotAllowed, match='Key "2"'):
            wire.peer.send(1, "a", "b", math.nan)
        with pytest.raises(NotAllowed, match='Key "x"'):
            wire.peer.send(1, {"x": math.nan})


def test_what_is_not_allowed_as_an_answer() -> None:
    """On the side of the service: the caller gets an error whose code is WSP-ESV."""
    with Wired({1: lambda: {"x": math.nan}}) as wire:
        answer = wire.ask(1)
        assert answer["type"] == "error"
        assert answer["error"]["code"] == "WSP-ESV"
        assert answer["error"]["message"] == 'WSP-ESV: Key "x" value NaN ("number") is not allowed'


def test_other_values_that_cannot_travel() -> None:
    """Other values that cannot be serialised are refused as well, before anything is sent."""
    with Wired() as wire:
        with pytest.raises(NotAllowed):
            wire.peer.send(1, 10**5000)
        with pytest.raises(NotAllowed):
            wire.peer.send(1, {1, 2})
        assert wire.peer.stats.requests_sent_total == 0


def test_too_large_a_request_is_not_sent() -> None:
    """What the other side would end the connection for is refused here."""
    with Wired(max_message_size=1000) as wire:
        with pytest.raises(MessageTooBig):
            wire.peer.send(1, "x" * 1000)
        future = wire.peer.send(1, "x" * 500)
        assert wire.hear()["requestId"] == 0
        assert not future.done()


def test_too_large_an_answer_is_an_error() -> None:
    """So is an answer, of which the caller is told."""
    with Wired({1: lambda: "ü" * 500}, max_message_size=1000) as wire:
        assert wire.ask(1)["error"]["code"] == "TOO-BIG"


def test_letters_travel_as_they_are() -> None:
    """JSON as JSON.stringify writes it: no blanks, letters beyond ASCII raw."""
    with Wired() as wire:
        wire.peer.send(1, "ü€😀", {"a": [1, 2]})
        frame = wire.far.recv(PATIENCE)
        assert frame == '{"requestId":0,"type":"request","serviceId":1,"args":["ü€😀",{"a":[1,2]}]}'
        assert json.loads(frame)["args"][0] == "ü€😀"


def test_half_a_character_travels() -> None:
    """A lone surrogate is escaped, as JSON.stringify does, and ends nothing."""
    with Wired({1: lambda: "\ud800"}) as wire:
        wire.peer.send(1, "\ud800")
        assert wire.far.recv(PATIENCE).endswith('"args":["\\ud800"]}')
        assert wire.ask(1)["data"] == "\ud800"


def test_remote_error_of_the_model() -> None:
    """The error at the caller has the remote name, message and code; one that is missing is None."""
    with Wired() as wire:
        futures = [wire.peer.send(1) for _ in range(3)]
        wire.say({"responseId": 0, "type": "error", "error": {"name": "N", "message": "m", "code": "C"}})
        wire.say({"responseId": 1, "type": "error", "error": {}})
        wire.say({"responseId": 2, "type": "error"})
        errors = [future.exception(PATIENCE) for future in futures]
        assert all(isinstance(error, RemoteError) for error in errors)
        assert [(e.name, e.message, e.code) for e in errors] == [
            ("N", "m", "C"),
            ("Error", "", None),
            ("Error", "", None),
        ]  # type: ignore[union-attr]
