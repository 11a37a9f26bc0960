"""The messages that are written without a codec, and what a frame must hold to be one."""

import json
import math
from typing import Any

import pytest

from connman.rpc import wire


def told(tail: str) -> Any:
    return json.loads('{"responseId":0,' + tail)


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (0, 0),
        (5, 5),
        (-1, -1),
        (2.0, 2),
        (2.5, None),
        (True, None),
        ("1", None),
        (None, None),
        (math.inf, None),
        (math.nan, None),
        ([], None),
    ],
)
def test_whole(value: object, number: int | None) -> None:
    found = wire.whole(value)
    assert (found, type(found)) == (number, type(number))


@pytest.mark.parametrize(
    ("value", "found"), [(1, 1), (0, 0), (3.0, 3), ("x", "x"), ("", None), (True, None), ({}, None)]
)
def test_service_id_on_receipt(value: object, found: object) -> None:
    assert wire.service_id(value) == found


@pytest.mark.parametrize("value", [0, -1, 1.0, "", True, None, [1]])
def test_service_id_of_ours(value: object) -> None:
    with pytest.raises(ValueError, match="WSP-SN3"):
        wire.checked_service_id(value)


def test_a_refused_id_is_not_quoted() -> None:
    """It may be what somebody has mistaken for one: an argument."""
    with pytest.raises(ValueError, match="not bytes") as caught:
        wire.checked_service_id(b"S3CR3T")
    assert "S3CR3T" not in str(caught.value)


def test_request() -> None:
    assert told(wire.request(7, "[1]")) == {"responseId": 0, "type": "request", "serviceId": 7, "args": [1]}
    assert told(wire.request('a"b', "[]", ',"notice":true'))["serviceId"] == 'a"b'


def test_failures() -> None:
    class WithCode(Exception):
        code: Any = "E1"

    assert told(wire.failure_of(WithCode("x")))["error"] == {"name": "WithCode", "message": "x", "code": "E1"}
    for code in (None, 1.5, [], True, object()):
        error = WithCode()
        error.code = code
        assert "code" not in told(wire.failure_of(error))["error"]
    error = WithCode()
    error.code = 2**60  # JavaScript could not tell it from its neighbours
    assert told(wire.failure_of(error))["error"]["code"] == str(2**60)


def test_spread() -> None:
    assert wire.spread([1]) == [1]
    assert wire.spread("ab") == ["a", "b"]
    for value in (None, {}, 1, 1.0, False):
        with pytest.raises(TypeError, match="not a list but"):
            wire.spread(value)
