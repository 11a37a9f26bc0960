"""`connman call`: its words, and one call through a real relay."""

import argparse
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from connman.cli.arguments import parse
from connman.cli.call import Call, argument, service
from connman.cli.commands import UsageError
from connman.relay import Relay
from connman.rpc import provide
from tests.cli.program import run, started
from tests.loopback import PATIENCE

RELAY = "ws://127.0.0.1:1/"


def call(*words: str) -> Call:
    found = parse(["call", *words])[0]
    assert isinstance(found, Call)
    return found


# Words


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("5", 5),
        ("-5", -5),
        ("1.5", 1.5),
        ("true", True),
        ("null", None),
        ('"5"', "5"),
        ("[1, {}]", [1, {}]),
        ("text", "text"),
        ("{broken", "{broken"),
        ("NaN", "NaN"),
        ("-Infinity", "-Infinity"),
        ("1e999", "1e999"),
        ("[1e400]", "[1e400]"),
        ("", ""),
        ("[" * 100_000, "[" * 100_000),
    ],
)
def test_an_argument_is_json_where_it_reads_as_json(word: str, value: object) -> None:
    assert argument(word) == value


def test_a_service_is_a_number_or_a_name() -> None:
    assert service("7") == 7
    assert service("add") == "add"
    for word in ("0", ""):
        with pytest.raises(argparse.ArgumentTypeError):
            service(word)


def test_the_words_of_a_call() -> None:
    found = call("--relay", RELAY, "device", "add", "1", "-2", "two words", "--timeout", "5", "--stream")
    assert (found.name, found.service, found.arguments) == ("device", "add", (1, -2, "two words"))
    assert (found.relay, found.timeout, found.is_stream) == (RELAY, 5.0, True)


def test_an_argument_may_begin_with_a_dash() -> None:
    assert call("--relay", RELAY, "device", "add", "--", "--x").arguments == ("--x",)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["device", "add"], "--relay"),
        (["--relay", "tcp://relay:1", "device", "add"], "ws:// or wss://"),
        (["--relay", RELAY, "a\nb", "add"], "1 to 128 printable"),
        (["--relay", RELAY, "device", "0"], "whole number from 1"),
        (["--relay", RELAY, "device"], "SERVICE"),
        (["--relay", RELAY, "device", "add", "--token-file", "/nonexistent/s3cret"], "No such file"),
        (["device", "add", "--relay", RELAY, "s3cret"], "words behind ARG that mean nothing"),
    ],
)
def test_mistakes_are_told_without_secrets(words: list[str], text: str) -> None:
    with pytest.raises(UsageError) as error:
        parse(["call", *words])
    assert text in str(error.value)
    assert "s3cret" not in str(error.value)


def test_its_arguments_are_in_no_text() -> None:
    assert "s3cret" not in repr(call("--relay", RELAY, "device", "login", "s3cret", "-H", "X-Key: s3cret"))


# Calls


def fail() -> None:
    raise ValueError("no way")


def count(limit: int) -> Iterator[str]:
    yield from map(str, range(limit))


SERVICES: dict[int | str, Any] = {
    1: lambda: "one",
    "add": lambda a, b: a + b,
    "echo": lambda *args: list(args),
    "fail": fail,
    "count": count,
    "blob": lambda: iter([b"\x00\xff", b"\n"]),
    "half": lambda: "\ud800",
    "halves": lambda: iter(["\ud800", "b"]),
}


@pytest.fixture
def relay() -> Iterator[str]:
    with Relay(port=0) as relay, provide(relay.url, "device", SERVICES):
        yield relay.url


@pytest.mark.parametrize(
    ("words", "out"),
    [
        (["add", "2", "3"], "5\n"),
        (["1"], '"one"\n'),
        (["echo", "ü", "[1.5, null]"], '["ü", [1.5, null]]\n'),
        (["count", "12"], '"01234567891011"\n'),
        (["count", "12", "--stream"], "01234567891011"),
        (["blob"], b"\x00\xff\n"),
        (["blob", "--stream"], b"\x00\xff\n"),
        (["add", "2", "3", "--stream"], "5\n"),
        (["half"], '"\\ud800"\n'),
        (["halves", "--stream"], "?b"),
    ],
)
def test_a_result_is_printed(
    relay: str, capfdbinary: pytest.CaptureFixture[bytes], words: list[str], out: str | bytes
) -> None:
    assert call("--relay", relay, "device", *words).run() == 0
    said = capfdbinary.readouterr()
    assert said.out == (out if isinstance(out, bytes) else out.encode())
    assert said.err == b""


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["device", "fail"], "RemoteError: ValueError: no way"),
        (["device", "nothing"], "NoSuchService"),
        (["nobody", "add"], "NoSuchPeer"),
    ],
)
def test_a_failure_is_told(
    relay: str, capfd: pytest.CaptureFixture[str], words: list[str], text: str
) -> None:
    assert call("--relay", relay, *words).run() == 1
    said = capfd.readouterr()
    assert said.out == ""
    assert text in said.err


def test_a_relay_that_is_not_there_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    assert call("--relay", RELAY, "device", "add").run() == 1
    assert "refused" in capfd.readouterr().err


def test_a_call_as_a_program(relay: str) -> None:
    done = run("call", "device", "add", "2", "3", "--relay", relay)
    assert (done.code, done.out, done.err) == (0, "5\n", "")


def test_a_call_that_fails_as_a_program_says_so_once(relay: str) -> None:
    done = run("call", "nobody", "add", "--relay", relay)
    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
    assert "NoSuchPeer" in done.err


@pytest.mark.parametrize("words", [["hang"], pytest.param(["tick", "--stream"], marks=pytest.mark.slow)])
def test_ctrl_c_ends_a_call(words: list[str]) -> None:
    running, release = threading.Event(), threading.Event()

    def hang() -> None:
        running.set()
        release.wait(PATIENCE)

    def tick() -> Iterator[str]:
        yield "tick"
        hang()

    with Relay(port=0) as relay, provide(relay.url, "device", {"hang": hang, "tick": tick}):
        with started("call", "device", *words, "--relay", relay.url) as program:
            assert running.wait(PATIENCE)
            program.wait_out("tick" if "--stream" in words else "")
            program.signal(signal.SIGINT)
            assert program.ended() == 130
        release.set()
        assert "Traceback" not in program.err
        assert program.out == ("tick" if "--stream" in words else "")
