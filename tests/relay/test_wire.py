"""The first messages: what they ask for, and the model's texts for what they get wrong."""

import pytest

from connman.relay.wire import (
    LONGEST_NAME,
    FirstMessageRefused,
    Group,
    Provide,
    Reach,
    close_payload,
    is_close_code,
    is_name,
    is_ready,
    parse_first,
    sendable,
)


def test_what_a_first_message_asks_for() -> None:
    assert parse_first('{"command":"provide","name":"device-42"}') == Provide("device-42")
    assert parse_first('{"command":"reach","name":"Gerät ☃","token":"t"}') == Reach("Gerät ☃", "t")
    assert parse_first('{"self":"b","other":"a","spawn":"x"}') == Group("b", "a")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "Invalid JSON"),
        ("{", "Invalid JSON"),
        ("[" * 10000, "Invalid JSON"),
        ("9" * 10000, "Invalid JSON"),
        ("null", "Received data is not an object"),
        ("5", "Received data is not an object"),
        ('"x"', "Received data is not an object"),
        ("[]", "Received data is not an object"),
        ("{}", 'Expected "self" to be a string"'),
        ('{"self":1,"other":"a"}', 'Expected "self" to be a string"'),
        ('{"self":"a"}', 'Expected "other" to be a string"'),
        ('{"self":"a","other":null}', 'Expected "other" to be a string"'),
        ('{"self":"a","other":"b","spawn":null}', 'Expected "spawn" to be undefined or a string"'),
        ('{"self":"a","other":"b","token":1}', 'Expected "token" to be a string'),
        ('{"command":"pong"}', 'Expected "command" to be "provide" or "reach"'),
        ('{"command":null}', 'Expected "command" to be "provide" or "reach"'),
        ('{"command":"reach"}', 'Expected "name" to be a string'),
        ('{"command":"provide","name":7}', 'Expected "name" to be a string'),
        ('{"command":"provide","name":""}', 'Expected "name" to have 1 to 128 printable characters'),
        ('{"command":"reach","name":"a\\u0000b"}', 'Expected "name" to have 1 to 128 printable characters'),
    ],
)
def test_what_is_wrong_is_told(text: str, reason: str) -> None:
    with pytest.raises(FirstMessageRefused) as error:
        parse_first(text)
    assert (error.value.code, error.value.reason) == (4001, reason)


def test_no_token_in_a_repr() -> None:
    for text in (
        '{"command":"reach","name":"n","token":"s3cret"}',
        '{"self":"a","other":"b","token":"s3cret"}',
    ):
        assert "s3cret" not in repr(parse_first(text))


def test_both_members_have_one_key() -> None:
    assert Group("a", "b").key == Group("b", "a").key
    assert Group("a", "b").key != Group("a", "c").key
    assert Group("x" * 10000, "y").key == Group("y", "x" * 10000).key
    # The model's own: the names are joined by a comma.
    assert Group("a,b", "c").key == Group("a", "b,c").key


@pytest.mark.parametrize(
    ("name", "good"),
    [
        ("x", True),
        ("x" * LONGEST_NAME, True),
        ("x" * (LONGEST_NAME + 1), False),
        ("", False),
        ("a b", True),
        ("名前", True),
        ("a\nb", False),
        ("a\u202eb", False),
        ("\ud800", False),
        ("a\x7fb", False),
    ],
)
def test_names(name: str, good: bool) -> None:
    assert is_name(name) is good


def test_ready() -> None:
    assert is_ready('{"command":"ready"}')
    assert is_ready(' {"command" : "ready"} ')
    for text in ("", "ready", '{"command":"ready","x":1}', '{"command":"provide","name":"x"}', "[]"):
        assert not is_ready(text)


def test_codes_that_may_be_sent() -> None:
    assert [code for code in range(5100) if is_close_code(code)] == [
        1000, 1001, 1002, 1003, *range(1007, 1015), *range(3000, 5000)
    ]  # fmt: skip
    assert sendable(4005, "bye") == (4005, "bye")
    assert sendable(1005, "") == (1000, "")
    assert sendable(1006, "") == sendable(1015, "") == (4102, "the other side was lost")


def test_a_reason_is_cut_between_characters() -> None:
    assert close_payload(1000, "") == b"\x03\xe8"
    assert close_payload(4000, "x" * 200) == (4000).to_bytes(2) + b"x" * 123
    assert close_payload(4000, "ü" * 100) == (4000).to_bytes(2) + ("ü" * 61).encode()
    assert close_payload(4000, "a" + "🎉" * 40)[2:].decode() == "a" + "🎉" * 30
