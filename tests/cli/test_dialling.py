"""The words about dialling that several commands take."""

import ssl
from typing import Any

import pytest

from connman.cli.commands import Parser
from connman.cli.dialling import add_dial_options, dial_options


def options(*words: str, **kinds: Any) -> dict[str, Any]:
    parser = Parser()
    add_dial_options(parser, **kinds)
    return dial_options(parser.parse_args(words))


def test_what_is_not_said_is_not_set() -> None:
    assert options() == {"headers": [], "subprotocols": []}
    assert options(has_subprotocols=False) == {"headers": []}


def test_what_is_said_is_set() -> None:
    found = options(
        "-H", "X-A: 1", "-H", "X-B: 2", "-s", "v1", "--proxy", "none", "--open-timeout", "3", "--insecure"
    )
    context = found.pop("ssl_context")
    assert isinstance(context, ssl.SSLContext)
    assert context.verify_mode is ssl.CERT_NONE
    assert found == {
        "headers": [("X-A", "1"), ("X-B", "2")],
        "subprotocols": ["v1"],
        "proxy": None,
        "open_timeout": 3.0,
    }


def test_only_those_commands_take_a_subprotocol_that_offer_one(capsys: pytest.CaptureFixture[str]) -> None:
    parser = Parser()
    add_dial_options(parser, has_subprotocols=False)
    assert "-s PROTO" not in parser.format_help()
