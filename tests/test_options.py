"""Options: every bad value is refused when it is given, and never later."""

import ssl
from collections import UserDict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connman import length_prefixed, lines
from connman.errors import ConnmanError, InvalidOption
from connman.options import Options, checked_headers, make_options

SECONDS = [
    "open_timeout", "handshake_timeout", "close_timeout", "send_timeout", "ping_timeout", "ping_interval",
    "stable_after",
]  # fmt: skip
INJECTIONS = ["\r\nX: y", "\n", "\r", "\0", "\x0b", "\x1b", "\x7f", "a\r\n b", "\n\n{}"]


def test_the_defaults_are_the_documented_ones() -> None:
    options = make_options({})
    assert (options.reconnect, options.stable_after, options.dispatch) == (True, 1.0, "reader")
    assert (options.open_timeout, options.handshake_timeout, options.close_timeout) == (10.0, 10.0, 5.0)
    assert (options.send_timeout, options.ping_interval, options.ping_timeout) == (30.0, 20.0, 20.0)
    assert options.max_message_size == 16 * 1024 * 1024
    assert options.proxy is ...


@pytest.mark.parametrize("name", SECONDS)
@pytest.mark.parametrize(
    "value", [-1, -0.001, float("nan"), float("inf"), -float("inf"), 10**400, 1e10, True, "1", b"1", [], {}]
)
def test_a_time_that_cannot_work_is_refused(name: str, value: Any) -> None:
    with pytest.raises(InvalidOption, match=name):
        make_options({name: value})


@pytest.mark.parametrize("name", SECONDS)
def test_zero_and_none_are_times_only_where_they_mean_something(name: str) -> None:
    if name == "stable_after":
        assert make_options({name: 0}).stable_after == 0
    else:
        with pytest.raises(InvalidOption, match=name):
            make_options({name: 0})
    if name == "ping_interval":
        assert make_options({name: None}).ping_interval is None
    else:
        with pytest.raises(InvalidOption, match=name):
            make_options({name: None})


@pytest.mark.parametrize("name", SECONDS)
@pytest.mark.parametrize("value", [1, 0.001, 3600 * 24 * 365])
def test_a_time_that_works_is_taken(name: str, value: float) -> None:
    assert getattr(make_options({name: value}), name) == value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("reconnect", "no"),
        ("reconnect", None),
        ("reconnect", 1),
        ("wait", 5),
        ("stop", "never"),
        ("retry_if", True),
        ("max_message_size", 0),
        ("max_message_size", -1),
        ("max_message_size", 1.5),
        ("max_message_size", True),
        ("max_message_size", None),
        ("dispatch", "process"),
        ("dispatch", None),
        ("dispatch", []),
        ("compression", "gzip"),
        ("compression", True),
        ("compression", ["deflate"]),
        ("ssl_context", True),
        ("ssl_context", {"verify": False}),
        ("framing", "lines"),
        ("framing", lines),
        ("proxy", 8080),
        ("proxy", ("h", 1)),
        ("proxy", False),
        ("subprotocols", "chat"),
        ("subprotocols", b"chat"),
        ("subprotocols", 5),
        ("subprotocols", None),
        ("subprotocols", ["a b"]),
        ("subprotocols", [""]),
        ("subprotocols", ["a,b"]),
        ("subprotocols", ["ü"]),
        ("subprotocols", [b"chat"]),
        ("subprotocols", ["chat", "chat"]),
        ("headers", 5),
        ("headers", "k: v"),
        ("headers", ["kv"]),
        ("headers", ["k: v"]),
        ("headers", [("a", "b", "c")]),
        ("headers", [("a",)]),
        ("headers", {"a": 1}),
        ("headers", {"a": None}),
        ("headers", {"a": b"b"}),
        ("headers", {"a": ["b"]}),
        ("headers", {b"a": "b"}),
        ("headers", {"": "b"}),
        ("headers", {"a b": "c"}),
        ("headers", {"a:": "c"}),
        ("headers", {"ü": "c"}),
        ("headers", {"a": "€"}),
    ],
)
def test_a_value_that_cannot_work_is_refused(name: str, value: Any) -> None:
    with pytest.raises(InvalidOption) as caught:
        make_options({name: value})
    assert isinstance(caught.value, ConnmanError)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("reconnect", False),
        ("wait", lambda state: 1.0),
        ("stop", lambda state: False),
        ("retry_if", lambda error: None),
        ("max_message_size", 1),
        ("dispatch", "thread"),
        ("ssl_context", ssl.create_default_context()),
        ("framing", lines()),
        ("framing", length_prefixed()),
        ("compression", "deflate"),
        ("compression", None),
        ("proxy", None),
        ("proxy", "http://proxy:3128"),
        ("headers", None),
        ("headers", dict),
    ],
)
def test_a_value_that_works_is_taken(name: str, value: Any) -> None:
    assert getattr(make_options({name: value}), name) is value


def test_an_unknown_option_is_a_type_error_that_names_it() -> None:
    with pytest.raises(TypeError, match="'opentimeout'"):
        make_options({"opentimeout": 5})


def test_options_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Options().reconnect = False  # type: ignore[misc]


@pytest.mark.parametrize("bad", INJECTIONS)
def test_nothing_that_ends_a_line_enters_a_header(bad: str) -> None:
    for headers in (
        {"X": f"v{bad}"},
        {f"X{bad}": "v"},
        {"Cookie": bad},
        {"Host": f"h{bad}"},
        {"Origin": f"o{bad}"},
    ):
        with pytest.raises(InvalidOption):
            make_options({"headers": headers})
    with pytest.raises(InvalidOption):
        make_options({"subprotocols": [f"chat{bad}"]})


def test_a_refused_header_does_not_show_its_value() -> None:
    with pytest.raises(InvalidOption) as caught:
        make_options({"headers": {"Authorization": "Bearer S3CR3T\n"}})
    assert "S3CR3T" not in str(caught.value)
    assert "Authorization" in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        "Connection", "UPGRADE", "sec-websocket-key", "Sec-WebSocket-Version", "Sec-WebSocket-Protocol",
        "Sec-WebSocket-Extensions", "Content-Length", "Transfer-Encoding",
    ],
)  # fmt: skip
def test_what_the_upgrade_sets_itself_is_refused(name: str) -> None:
    with pytest.raises(InvalidOption, match=name):
        make_options({"headers": {name: "x"}})


@pytest.mark.parametrize(
    "headers",
    [
        {"A": "1", "B": "2"},
        [("A", "1"), ("B", "2")],
        (["A", "1"], ["B", "2"]),
        UserDict({"A": "1", "B": "2"}),
    ],
)
def test_headers_are_pairs(headers: Any) -> None:
    assert checked_headers(headers) == [("A", "1"), ("B", "2")]


def test_a_header_may_repeat_and_hold_tabs_and_latin_1() -> None:
    pairs = [("A", "1"), ("A", "ü\tx"), ("B", "")]
    assert checked_headers(pairs) == pairs


def test_headers_from_an_iterator_serve_every_attempt() -> None:
    # They were read once, by the check, and every attempt went out without them.
    options = make_options({"headers": iter([("A", "1")])})
    assert options.headers is not None
    assert not callable(options.headers)
    assert [checked_headers(options.headers) for _ in range(2)] == [[("A", "1")]] * 2


def test_headers_changed_afterwards_change_nothing() -> None:
    given_ = {"A": "1"}
    options = make_options({"headers": given_})
    given_["B"] = "bad\n"
    assert not callable(options.headers)
    assert checked_headers(options.headers or ()) == [("A", "1")]


def test_subprotocols_from_an_iterator_are_kept() -> None:
    assert make_options({"subprotocols": (name for name in ("a", "b"))}).subprotocols == ("a", "b")


def test_no_secret_is_in_the_repr() -> None:
    options = make_options({"headers": {"Authorization": "S3CR3T"}, "proxy": "http://u:S3CR3T@h"})
    assert "S3CR3T" not in repr(options)


@given(st.text(), st.text())
def test_a_header_that_is_taken_is_one_line(name: str, value: str) -> None:
    try:
        checked_headers([(name, value)])
    except InvalidOption:
        return
    line = f"{name}: {value}".encode("latin-1")
    assert not set(line) & {0, 10, 13}
    assert name.isascii()
    assert name.isprintable()
    assert not set(name) & set(" :")
