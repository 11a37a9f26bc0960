"""`connman provide`: its words, and functions of a module behind a real relay."""

import operator
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from connman.cli.arguments import parse
from connman.cli.commands import UsageError
from connman.cli.provide import Offer
from connman.relay import Relay, TokenFile
from connman.rpc import reach
from tests.cli.program import started

RELAY = "ws://127.0.0.1:1/"


@pytest.fixture
def relay() -> Iterator[str]:
    with Relay(port=0) as relay:
        yield relay.url


def offer(*words: str) -> Offer:
    found = parse(["provide", *words])[0]
    assert isinstance(found, Offer)
    return found


def test_the_words_of_an_offer() -> None:
    found = offer("operator:add", RELAY, "device", "--spares", "3", "--max-peers", "9", "--max-workers", "4")
    assert found.services.get("add") is operator.add
    assert (found.url, found.name) == (RELAY, "device")
    assert found.options == {"headers": [], "token": None, "spares": 3, "max_peers": 9}


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["surely_missing", RELAY, "device"], "there is no module surely_missing"),
        (["operator:add", "tcp://relay:1", "device"], "ws:// or wss://"),
        (["operator:add", RELAY, ""], "1 to 128 printable"),
        (["operator:add", RELAY, "device", "--spares", "0"], "whole number from 1"),
        (["operator:add", RELAY], "NAME"),
        (["operator:add", RELAY, "device", "s3cret"], "words behind NAME that mean nothing"),
    ],
)
def test_mistakes_are_told_without_secrets(words: list[str], text: str) -> None:
    with pytest.raises(UsageError) as error:
        parse(["provide", *words])
    assert text in str(error.value)
    assert "s3cret" not in str(error.value)


def test_a_refusal_for_good_is_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("right-token-right-token provide=* reach=*\n")
    token = tmp_path / "token"
    token.write_text("wrong-token-wrong-token\n")
    with Relay(port=0, tokens=TokenFile(tokens)) as relay:
        assert offer("operator:add", relay.url, "device", "--token-file", str(token)).run() == 1
    said = capfd.readouterr()
    assert "HTTP 401" in said.err
    assert "wrong-token" not in said.out + said.err


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM])
def test_a_provider_as_a_program_serves_until_a_signal(relay: str, number: int) -> None:
    with started("provide", "operator", relay, "device") as program:
        program.wait_err("device is provided")
        peer = reach(relay, "device")
        try:
            assert peer.call("add", 2, 3) == 5
            program.wait_err("a caller is joined")
            program.signal(number)
            assert program.ended() == 128 + number
        finally:
            peer.close()
        assert "callers joined: 1" in program.err
        assert program.out == ""
