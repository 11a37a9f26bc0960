"""The text of calls: as the model writes it, the same in every installation, strict, and never a quoted value."""

import itertools
import json
import math
import pickle
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connman.errors import ProtocolError, RpcError
from connman.rpc import codec
from connman.rpc.codec import UNDEFINED, NotAllowed, decode, encode, pack_chunk, unpack_chunk

numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
leaves = st.none() | st.booleans() | numbers | st.text()
values = st.recursive(
    leaves, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20
)
UNDEFINED_TEXT = "$__undefined$"


# Writing


def test_text_is_what_json_stringify_writes() -> None:
    message = {"requestId": 0, "type": "request", "serviceId": 5, "args": [1, "ü\u2028", None, True, 1.5]}
    assert (
        encode(message) == '{"requestId":0,"type":"request","serviceId":5,"args":[1,"ü\u2028",null,true,1.5]}'
    )


@given(values)
def test_text_is_that_of_the_standard_library(value: Any) -> None:
    assert encode(value) == json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def test_a_lone_surrogate_is_escaped_as_json_stringify_does() -> None:
    text = encode({"data": "file \udcff \ud83d"})
    assert text == '{"data":"file \\udcff \\ud83d"}'
    assert decode(text) == {"data": "file \udcff \ud83d"}


@given(st.text(st.characters(categories=("Cs", "Lu"))))
def test_any_text_can_be_sent(text: str) -> None:
    wire = encode(text)
    wire.encode()
    assert decode(wire) == text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


def test_keys_that_are_no_text_become_text() -> None:
    assert encode({False: "a", True: "b", None: "c"}) == '{"false":"a","true":"b","null":"c"}'
    assert encode({1: "a", 2.5: "b"}) == '{"1":"a","2.5":"b"}'


class Something:
    def __repr__(self) -> str:
        return "secret"


REFUSED = [
    ([1, math.nan], 'Key "1" value NaN ("number")'),
    ([math.inf], 'Key "0" value Infinity ("number")'),
    ({"data": -math.inf}, 'Key "data" value -Infinity ("number")'),
    ({"data": print}, 'Key "data" value [function] ("function")'),
    ([[{"at": lambda: 1}]], 'Key "at" value [function] ("function")'),
    ([b"secret"], 'Key "0" value [bytes] ("bytes")'),
    ([{"secret"}], 'Key "0" value [set] ("set")'),
    ([Something()], 'Key "0" value [Something] ("Something")'),
    ([{(1, 2): 3}], 'Key "tuple" value [object] ("object")'),
    ({math.nan: 1}, 'Key "float" value NaN ("number")'),
    ([10**5000], 'Key "0" value [bigint] ("bigint")'),
]


@pytest.mark.parametrize(("value", "text"), REFUSED)
def test_what_is_no_json_is_refused_with_the_texts_of_the_model(value: Any, text: str) -> None:
    with pytest.raises(NotAllowed) as caught:
        encode(value)
    assert str(caught.value).startswith(f"WSP-ESV: {text} is not allowed")
    assert caught.value.code == "WSP-ESV"
    assert isinstance(caught.value, RpcError)
    assert "secret" not in str(caught.value)


def test_the_whole_value_is_called_by_its_key() -> None:
    with pytest.raises(NotAllowed, match='Key "data" value NaN'):
        encode(math.nan, key="data")


def test_a_key_from_the_user_is_cut_and_made_printable() -> None:
    with pytest.raises(NotAllowed) as caught:
        encode({"\x1b" + "k" * 1000: math.nan})
    assert len(str(caught.value)) < 200
    assert "\x1b" not in str(caught.value)


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def circle() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize("value", [nested(100_000), circle()], ids=["deep", "circle"])
def test_what_is_nested_too_deeply_is_refused(value: Any) -> None:
    with pytest.raises(NotAllowed, match="nested too deeply"):
        encode([value])


def test_a_refusal_can_be_pickled() -> None:
    refusal = NotAllowed("0", "NaN", "number")
    again = pickle.loads(pickle.dumps(refusal))
    assert (str(again), again.key, again.code) == (str(refusal), "0", "WSP-ESV")


# Substitutes


def test_a_substitute_stands_for_what_is_no_json() -> None:
    def substitute(value: object) -> object:
        if not isinstance(value, bytes):
            raise TypeError
        return {"length": len(value)}

    assert encode([b"abc", [UNDEFINED]], substitute) == '[{"length":3},["$__undefined$"]]'
    with pytest.raises(NotAllowed, match=r'Key "1" value \[set\]'):
        encode([b"abc", set()], substitute)
    with pytest.raises(NotAllowed, match='Key "1" value NaN'):
        encode([b"abc", math.nan], substitute)


# undefined


def test_undefined_is_one_value() -> None:
    assert repr(UNDEFINED) == "UNDEFINED"
    assert not UNDEFINED
    assert pickle.loads(pickle.dumps(UNDEFINED)) is UNDEFINED


def test_undefined_travels_as_the_string_of_the_model() -> None:
    assert encode(UNDEFINED) == '"$__undefined$"'
    assert encode({"a": UNDEFINED, "b": [UNDEFINED, None]}) == (
        '{"a":"$__undefined$","b":["$__undefined$",null]}'
    )


@pytest.mark.parametrize("word", [UNDEFINED_TEXT, "\\u0024__undefined$", "$__\\u0075ndefined\\u0024"])
def test_undefined_drops_a_key_and_is_none_elsewhere(word: str) -> None:
    """Row `undefined` of the rules of encoding: the key goes, the slot of a list stays."""
    assert decode(f'"{word}"') is None
    text = f'{{"a":"{word}","b":["{word}",null,1],"c":{{"d":"{word}","e":null}}}}'
    assert decode(text) == {"b": [None, None, 1], "c": {"e": None}}


def test_a_key_of_that_name_stays() -> None:
    assert decode('{"$__undefined$":1}') == {UNDEFINED_TEXT: 1}


@given(values)
def test_what_is_read_is_what_was_written(value: Any) -> None:
    assert decode(encode([value])) == [value]


# Reading

BAD = [
    "", "{", "nul", "NaN", "[NaN]", "Infinity", "-Infinity", "{}x", "1 2", "01", "[1,]", "{'a':1}", '"\t"', '"\\x"', "\ufeff{}",
    '"secret', "1" * 5000, "[" * 100_000, '{"a":' * 100_000,
]  # fmt: skip


@pytest.mark.parametrize("text", BAD, ids=range(len(BAD)))
def test_what_is_no_json_is_refused_without_a_quote(text: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        decode(text)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_white_space_around_is_allowed() -> None:
    assert decode(' \r\n\t{"a": 1 } ') == {"a": 1}


@pytest.mark.parametrize("text", ["18446744073709551616", "-9223372036854775809", "9" * 4000])
def test_an_integer_of_any_size_stays_exact(text: str) -> None:
    assert decode(text) == int(text)


# The codecs

TEXTS = st.one_of(
    st.text(max_size=30),
    values.map(json.dumps),
    values.map(lambda value: json.dumps(value, ensure_ascii=False, indent=1)),
    st.text(st.sampled_from('{}[],:"\\u0d8e+-. tfalsn\ud800\n'), max_size=30),
)


def outcome(read: Any, text: str) -> object:
    try:
        return repr(read(text))
    except ProtocolError as error:
        return str(error)


@given(TEXTS)
def test_msgspec_reads_what_the_standard_library_reads(text: str) -> None:
    pytest.importorskip("msgspec")
    assert outcome(decode, text) == outcome(codec.decode_by_standard, text)


PROGRAM = """
import sys
sys.modules["msgspec"] = None
from connman.rpc.codec import decode, encode
print(ascii(decode('{"a":[1,2.5,"$__undefined$"]}')), encode({"a": [1e16, 1e-7]}))
"""


def test_msgspec_is_not_needed() -> None:
    run = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "{'a': [1, 2.5, None]} " + encode({"a": [1e16, 1e-7]})


# Binary frames


def test_an_id_travels_as_a_double() -> None:
    assert pack_chunk(1, b"xy") == b"\x00\x00\x00\x00\x00\x00\xf0?xy"
    assert unpack_chunk(b"\x00\x00\x00\x00\x00\x00\xf0?xy") == (1, b"xy")
    assert unpack_chunk(pack_chunk(7, memoryview(b""))) == (7, b"")


@given(st.integers(0, codec.LARGEST_ID - 1), st.binary())
def test_chunks_come_back(number: int, chunk: bytes) -> None:
    assert unpack_chunk(pack_chunk(number, chunk)) == (number, chunk)


@pytest.mark.parametrize("frame", [b"", b"1234567"])
def test_a_frame_without_an_id_is_refused(frame: bytes) -> None:
    with pytest.raises(ProtocolError, match="without an id"):
        unpack_chunk(frame)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, -1.0, 0.5, 2.0**53, 1e300])
def test_an_impossible_id_is_refused(number: float) -> None:
    with pytest.raises(ProtocolError, match="impossible id"):
        unpack_chunk(codec.pack_chunk(number, b"x"))  # type: ignore[arg-type]


def test_parts_of_a_message_are_written_alike() -> None:
    parts = [encode(part) for part in (1, "a", [1, None])]
    assert "[" + ",".join(parts) + "]" == encode([1, "a", [1, None]])
    assert all(itertools.starmap(lambda a, b: a == decode(b), zip((1, "a", [1, None]), parts, strict=True)))
