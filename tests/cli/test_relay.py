"""`connman relay`: its words, and a relay that runs until a signal."""

import json
import re
import signal
import socket
import ssl
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from connman.cli.arguments import parse
from connman.cli.commands import UsageError
from connman.cli.relay import Serving
from connman.errors import InvalidOption
from tests.authorities import AUTHORITY
from tests.cli.program import Program, run, started
from tests.relay.rig import CLOSE, PROVIDED, Client, Raw, provider, upgrade


def serving(*words: str) -> Serving:
    found = parse(["relay", *words])[0]
    assert isinstance(found, Serving)
    return found


def test_the_words_of_a_relay(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("right-token-right-token provide=* reach=*\n")
    words = ["--host", "0.0.0.0", "--port", "0", "--tokens", str(tokens), "--origin", "https://a.example"]
    words += ["--trust-proxy", "10.0.0.0/8", "--max-per-name", "3", "--ping-interval", "0", "--grace", "1.5"]
    found = serving(*words)
    assert repr(found.relay) == "<Relay 0.0.0.0:0>"
    assert found.grace == 1.5


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--host", "0.0.0.0"], "without tokens"),
        (["--port", "70000"], "a port, 0 to 65535"),
        (["--admin", "x"], "a port, 0 to 65535"),
        (["--cert", "x"], "--cert and --key go together"),
        (["--jwt-issuer", "x"], "go with --jwt-key"),
        (["--admin-names"], "goes with --admin"),
        (["--max-connections", "0"], "a whole number from 1"),
        (["--grace", "inf"], "finite"),
        (["--tokens", "/surely/missing"], "No such file"),
        (["--cert", "/surely/missing", "--key", "/surely/missing"], "No such file"),
        (["--trust-proxy", "s3cret"], "not an address"),
        (["--broker", "@/surely/missing"], "cannot be read"),
        (["--max-message-size", "5"], "at least 125"),
        (["s3cret"], "words behind the options that mean nothing"),
        (["--tokens", "a", "--jwt-key", "b"], "not allowed with"),
    ],
)
def test_mistakes_are_told(words: list[str], text: str) -> None:
    with pytest.raises((UsageError, InvalidOption), match=re.escape(text)):
        parse(["relay", *words])


def test_a_key_that_is_missing() -> None:
    pytest.importorskip("jwt")
    with pytest.raises(UsageError, match="No such file"):
        parse(["relay", "--jwt-key", "/surely/missing"])


def test_a_mistake_ends_with_2() -> None:
    done = run("relay", "--host", "0.0.0.0")
    assert (done.code, done.out) == (2, "")
    assert done.err == "connman: without tokens a relay listens on a loopback address only\n"


def listening(program: Program) -> Any:
    """Return what a client wants to know of the relay that a program runs: its port."""
    program.wait_err(r"listening on wss?://\S+:\d+/")
    found = re.search(r"listening on wss?://\S+:(\d+)/", program.err)
    assert found is not None
    return SimpleNamespace(port=int(found[1]))


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)]
)
def test_it_runs_until_a_signal_and_says_goodbye(number: int, code: int) -> None:
    with started("relay", "--port", "0") as program:
        relay = listening(program)
        with provider(relay) as spare:
            program.signal(number)
            assert spare.closed() == (1001, "the relay is stopping")
        assert program.ended() == code
        assert "0 pairs to end" in program.err


@pytest.mark.slow
def test_a_second_signal_ends_the_grace() -> None:
    with started("relay", "--port", "0", "--grace", "600") as program:
        relay = listening(program)
        one = Client(relay, {"self": "a", "other": "b"})
        two = Client(relay, {"self": "b", "other": "a"})
        with one, two:
            one.told(), two.told()
            program.signal(signal.SIGTERM)
            program.wait_err("1 pairs to end")
            with Raw(relay) as raw:
                raw.write(upgrade())
                assert raw.answer()[0] == 503
            program.signal(signal.SIGTERM)
            assert one.frame()[0] == CLOSE
            one.sock.close()
            two.sock.close()
            assert program.ended() == 143


def test_a_port_that_is_taken_ends_with_1() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = run("relay", "--port", str(taken.getsockname()[1]))
    assert done.code == 1
    assert "cannot listen on 127.0.0.1" in done.err


def test_tokens_tls_and_an_admin_port(tmp_path: Path) -> None:
    pytest.importorskip("prometheus_client")
    tokens, chain, key = tmp_path / "tokens", tmp_path / "chain", tmp_path / "key"
    tokens.write_text("right-token-right-token provide=device\n")
    leaf = AUTHORITY.issue_cert("127.0.0.1")
    leaf.private_key_pem.write_to_path(key)
    leaf.cert_chain_pems[0].write_to_path(chain)
    words = ["--port", "0", "--tokens", str(tokens), "--cert", str(chain), "--key", str(key), "--admin", "0"]
    with started("relay", *words) as program:
        relay = listening(program)
        program.wait_err(r"admin on http://127\.0\.0\.1:\d+/")
        context = ssl.create_default_context()
        AUTHORITY.configure_trust(context)
        with Client(relay, context=context, authorization="Bearer right-token-right-token") as far:
            far.say(json.dumps({"command": "provide", "name": "device"}))
            assert far.told() == PROVIDED
        program.signal(signal.SIGTERM)
        assert program.ended() == 143
        assert "right-token" not in program.err
