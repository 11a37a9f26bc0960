"""Whole programs: what goes in, what comes out, and when a session ends."""

import json
import math
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from connman.cli.input import SourceKind
from connman.cli.session import Settings, chosen_eof_wait
from connman.endpoint import Endpoint
from tests.cli.program import Finished, run, say_goodbye, started
from tests.loopback import PATIENCE, Server, echo, refusing_port
from tests.proxies import Blocks, WebSocketBlocker
from tests.servers import (
    BINARY,
    PING,
    TEXT,
    Frames,
    WebSocketProcess,
    close_frame,
    raw_server,
    server_frame,
    upgraded,
    ws_server,
)
from tests.transport.sockjs_servers import SockjsProcess
from tests.waiting import eventually


@pytest.fixture(scope="module")
def shared() -> Iterator[WebSocketProcess]:
    """A server that no test of this module kills."""
    with ws_server() as server:
        yield server


def states(err: str) -> list[str]:
    """The states in their order, the connecting ones left out."""
    words = [line.split()[1] for line in err.splitlines()]
    return [word for word in words if word != "connecting"]


def parsed(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


# Lines in, messages out


def test_lines_are_sent_and_the_answers_printed(shared: WebSocketProcess) -> None:
    done = run("connect", "--count", "4", shared.url(), text="one\ntwo\n\nlast")
    assert done.out == "one\ntwo\n\nlast\n"
    assert done.code == 0
    assert states(done.err) == ["open", "closed"]
    assert "as many as were asked for; received 4, sent 4" in done.err


def test_messages_come_out_as_they_come(shared: WebSocketProcess) -> None:
    with started("connect", shared.url()) as program:
        program.type("hello\n")
        program.wait_out("^hello\n")
        program.type("again\n")
        program.wait_out("^hello\nagain\n")


def test_no_answer_is_lost_when_much_is_sent(shared: WebSocketProcess) -> None:
    text = "".join(f"{number}\n" for number in range(5000))
    done = run("connect", "--count", "5000", shared.url(), text=text)
    assert done.out == text


def test_it_ends_when_there_are_enough_messages(shared: WebSocketProcess) -> None:
    with started("connect", "--count", "3", shared.url("/feed?count=5")) as program:
        assert program.ended() == 0
        assert program.out == "1\n2\n3\n"


@pytest.mark.slow
def test_too_few_messages_are_a_failure(shared: WebSocketProcess) -> None:
    done = run("connect", "--once", "--count", "9", shared.url("/burst-then-close?count=3"))
    assert (done.code, done.out) == (1, "1\n2\n3\n")


@pytest.mark.slow
def test_input_that_is_no_text_is_told_and_fails(shared: WebSocketProcess) -> None:
    with started("connect", "--eof-wait", "0.1", shared.url("/silent")) as program:
        program.type_bytes(b"a\n\xff\nb\n")
        program.end_input()
        assert program.ended() == 1
        assert "line 2 was not sent: it is not UTF-8" in program.err
        assert "received 0, sent 2, not sent 1" in program.err


@pytest.mark.slow
def test_bytes_pass_unchanged_over_tcp() -> None:
    with Server(echo) as server, started("connect", f"tcp://127.0.0.1:{server.port}") as program:
        program.type("no newline\n\nat the end")
        program.wait_out("end$")
        program.end_input()
        assert program.ended() == 0
        assert program.out == "no newline\n\nat the end"


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ([], "00ff0a\n"),
        (["--binary", "base64"], "AP8K\n"),
        pytest.param(["--binary", "hex"], "00ff0a\n", marks=pytest.mark.slow),
    ],
)
def test_binary_messages(words: list[str], shown: str) -> None:
    with raw_server(
        upgraded(lambda frames: send_then_close(frames, server_frame(BINARY, b"\0\xff\n")))
    ) as server:
        assert run("connect", "--once", *words, server.url()).out == shown


def send_then_close(frames: Frames, *sent: bytes) -> None:
    frames.send(*sent, close_frame())
    list(frames)


# The end of input


@pytest.mark.parametrize(
    ("kind", "given", "chosen"),
    [
        ("finite", {}, 1.0),
        ("none", {}, math.inf),
        ("finite", {"count": 1}, math.inf),
        ("none", {"eof_wait": 2.0}, 2.0),
    ],
)
def test_what_the_end_of_input_means(kind: SourceKind, given: dict[str, Any], chosen: float) -> None:
    settings = Settings(endpoint=Endpoint.parse("ws://h/"), options={}, **given)
    assert chosen_eof_wait(settings, kind) == chosen


def test_all_input_is_sent_before_it_ends(shared: WebSocketProcess) -> None:
    before = shared.stats()["messages"]
    done = run("connect", "--eof-wait", "0", shared.url("/silent"), text="a\n" * 1000)
    assert done.code == 0
    assert "end of input; received 0, sent 1000" in done.err
    eventually(lambda: shared.stats()["messages"] == before + 1000)


@pytest.mark.slow
def test_it_waits_for_the_number_of_answers_that_was_asked_for() -> None:
    def answer_late(frames: Frames) -> None:
        question = next(iter(frames))
        frames.sock.settimeout(1.2)  # longer than a pipe's end is waited for
        with pytest.raises(TimeoutError):
            frames.sock.recv(1)
        frames.sock.settimeout(None)
        frames.send(server_frame(TEXT, question.payload))
        say_goodbye(frames)

    with raw_server(upgraded(answer_late)) as server:
        done = run("connect", "--count", "1", server.url(), text="question\n")
    assert (done.code, done.out) == (0, "question\n")


@pytest.mark.slow
def test_a_stream_goes_on_while_messages_come(shared: WebSocketProcess) -> None:
    done = run("connect", "--once", "--eof-wait", "1", shared.url("/feed?interval=0.01&count=150"), text="")
    assert done.out.splitlines() == [str(number) for number in range(1, 151)]
    assert "the peer: closed with code 1000" in done.err


def test_without_input_it_listens_until_it_is_told_to_end(shared: WebSocketProcess) -> None:
    for mode in ("rb", "wb"):  # "wb" is what nohup leaves
        with open(os.devnull, mode) as null, started("connect", shared.url("/silent"), stdin=null) as program:
            program.wait_err(" open ")
            shared.broadcast("news")
            program.wait_out("news\n")
            program.signal(signal.SIGTERM)
            assert program.ended() == 143


@pytest.mark.slow
def test_an_explicit_wait_holds_for_no_input_too(shared: WebSocketProcess) -> None:
    with (
        open(os.devnull, "rb") as null,
        started("connect", "--eof-wait", "0", shared.url(), stdin=null) as program,
    ):
        assert program.ended() == 0
        assert states(program.err) == ["open", "closed"]


# The life of the connection


@pytest.fixture
def mortal() -> Iterator[WebSocketProcess]:
    with ws_server() as server:
        yield server


def test_it_comes_back_and_what_was_typed_meanwhile_is_sent(mortal: WebSocketProcess) -> None:
    with started("connect", "--eof-wait", "0.3", mortal.url()) as program:
        program.wait_err(" open ")
        mortal.kill()
        program.wait_err(
            r"waiting +lost: .*; retry 1 in \d+\.\d\d s\n.*connecting +retry 1\n.*waiting +attempt failed: .*refused"
        )
        program.type("while away\n")
        mortal.start()
        program.wait_out("^while away\n")
        program.end_input()
        assert program.ended() == 0
        assert [states(program.err)[i] for i in (0, 1, -2, -1)] == ["open", "waiting", "open", "closed"]


@pytest.mark.slow
def test_what_could_not_be_sent_is_told(mortal: WebSocketProcess) -> None:
    with started("connect", mortal.url()) as program:
        program.wait_err(" open ")
        mortal.kill()
        program.wait_err("waiting")
        program.type("one\ntwo\n")
        program.wait_err("retry 3")
        program.signal(signal.SIGINT)
        assert program.ended() == 130
        assert "interrupted; received 0, sent 0, not sent 2" in program.err


@pytest.mark.slow
def test_input_that_ends_waits_for_a_server_that_comes_later(mortal: WebSocketProcess) -> None:
    mortal.kill()
    with started("connect", "--count", "1", mortal.url()) as program:
        program.type("early\n")
        program.end_input()
        program.wait_err("retry 2")
        mortal.start()
        assert program.ended() == 0
        assert program.out == "early\n"


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/close?code=1000", 0),
        pytest.param("/close?code=1001", 0, marks=pytest.mark.slow),
        ("/close?code=1011", 1),
        pytest.param("/http?status=503", 1, marks=pytest.mark.slow),
        pytest.param("/burst-then-close?count=3", 0, marks=pytest.mark.slow),
    ],
)
def test_once_ends_with_the_connection(shared: WebSocketProcess, path: str, code: int) -> None:
    with started("connect", "--once", shared.url(path)) as program:
        assert program.ended() == code
        assert states(program.err)[-1] == "closed"
        assert "waiting" not in program.err


def test_once_fails_when_nobody_listens() -> None:
    with refusing_port() as port:
        done = run("connect", "--once", f"ws://127.0.0.1:{port}/", text="lost\n")
    assert done.code == 1
    assert "refused; no retry; received 0, sent 0, not sent 1" in done.err


@pytest.mark.slow
def test_once_fails_when_the_peer_leaves_in_order_but_not_all_was_sent() -> None:
    def close_when_told(frames: Frames) -> None:
        assert next(iter(frames)).payload == b"second"
        send_then_close(frames)

    words = ("connect", "--once")
    with raw_server(upgraded(close_when_told)) as server, started(*words, server.url()) as program:
        program.type_bytes(b"\xff\nsecond\n")
        assert program.ended() == 1
        assert "the peer: closed with code 1000; received 0, sent 1, not sent 1" in program.err


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/http?status=404", "/close?code=4001", "/http?status=401"])
def test_a_fatal_end_is_the_end_also_without_once(shared: WebSocketProcess, path: str) -> None:
    with started("connect", shared.url(path)) as program:
        assert program.ended() == 1
        assert "no retry" in program.err


NO_READER = """
import sys, threading
from connman.cli import main

start = threading.Thread.start

def start_but_the_reader(thread):
    if "reader" in thread.name:
        raise RuntimeError("can't start new thread")
    start(thread)

threading.Thread.start = start_but_the_reader
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_a_connection_that_cannot_even_begin_is_a_failure() -> None:
    words = [sys.executable, "-c", NO_READER, "connect", "ws://127.0.0.1:1/"]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE, check=False)
    assert done.returncode == 1
    assert b"can't start new thread" in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.slow
def test_pings_are_sent_as_often_as_asked() -> None:
    def close_at_ping(frames: Frames) -> None:
        assert next(iter(frames)).opcode == PING
        send_then_close(frames, server_frame(TEXT, b"pinged"))

    with raw_server(upgraded(close_at_ping)) as server:
        done = run("connect", "--once", "--ping-interval", "0.05", "--eof-wait", "inf", server.url())
    assert done.out == "pinged\n"


@pytest.mark.slow
def test_an_attempt_has_its_time(shared: WebSocketProcess) -> None:
    done = run("connect", "--once", "--open-timeout", "0.2", shared.url("/hang"))
    assert done.code == 1
    assert "0.2 s" in done.err


# Several ways


@pytest.fixture
def cache(tmp_path: Path) -> dict[str, str]:
    """The environment of a user whose cache folder is empty."""
    return {"XDG_CACHE_HOME": str(tmp_path), "HOME": str(tmp_path)}


@pytest.mark.slow
def test_a_strategy_tells_which_way_has_won(shared: WebSocketProcess, cache: dict[str, str]) -> None:
    with refusing_port() as port:
        words = ["--strategy", "default", "--wss", f"wss://127.0.0.1:{port}/", "--count", "1", shared.url()]
        done = run("connect", *words, text="hi\n", env=cache)
    assert (done.code, done.out) == (0, "hi\n")
    assert re.search(r"connecting ws://\S+, strategy default\n.* open +ws\n", done.err)
    assert " step " not in done.err


@pytest.mark.parametrize("words", [[], pytest.param(["--json"], marks=pytest.mark.slow)])
def test_a_way_that_cannot_be_remembered_is_told_once(words: list[str], shared: WebSocketProcess) -> None:
    words = [
        "connect",
        *words,
        "--strategy=default",
        "--http=http://127.0.0.1:1/",
        "--eof-wait=0",
        shared.url(),
    ]
    done = run(*words, env={"XDG_CACHE_HOME": "/dev/null"})
    assert done.code == 0
    assert done.err.count("no cache of transports") == 1
    assert re.search("warning.*/dev/null/connman/transports.json", done.err)


@pytest.mark.slow
def test_a_strategy_that_fails_tells_why_each_way_did(cache: dict[str, str]) -> None:
    with refusing_port() as port:
        words = ["connect", "--once", "--strategy=default", "--open-timeout", "1"]
        words += ["--http", f"http://u:s3cret@127.0.0.1:{port}/?k=s3cret", f"ws://127.0.0.1:{port}/?k=s3cret"]
        short, told = run(*words, env=cache), run(*words, "--json", "-v", env=cache)
    assert (short.code, told.code) == (1, 1)
    assert "failed: no connection within 1 s (ws tcp: Connection refused); no retry" in short.err
    steps = [event for event in parsed(told.err) if event["type"] == "step"]
    assert [(step["leaf"], step["phase"], step["cause"]) for step in steps] == [
        ("ws", "tcp", "Connection refused")
    ]
    assert "s3cret" not in short.err + told.err


@pytest.mark.slow
@pytest.mark.parametrize("blocks", ["refuse", "swallow"])
def test_where_websockets_are_blocked_a_strategy_goes_over_http(
    blocks: Blocks, cache: dict[str, str]
) -> None:
    with SockjsProcess("aiohttp") as server, WebSocketBlocker(blocks) as proxy:
        base = f"127.0.0.1:{server.port}/echo"
        words = ["connect", "-v", "--count", "1", "--proxy", f"http://127.0.0.1:{proxy.port}"]
        words += ["--strategy", "default", "--http", f"http://{base}", f"ws://{base}/websocket"]
        done = run(*words, text="through\n", env=cache)
        assert (done.code, done.out) == (0, "through\n")
        assert proxy.blocked == 1
        refusal = "HTTP 403" if blocks == "refuse" else "given up"
        assert re.search(rf"step +ws \+\d+\.\d+ s upgrade .*{refusal}\n", done.err)
        assert re.search(
            r"step +xhr_streaming \+\d+\.\d+ s open .*: ok\n(.* step .*\n)*.* open +xhr_streaming\n", done.err
        )
    assert '"xhr_streaming"' in (Path(cache["XDG_CACHE_HOME"]) / "connman" / "transports.json").read_text()


NO_URLLIB3 = """
import sys
sys.modules["urllib3"] = None
from connman.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("words", [["connect", "--strategy=default"], ["doctor"]])
def test_what_is_missing_for_http_is_told(words: list[str]) -> None:
    command = [sys.executable, "-c", NO_URLLIB3, *words, "--http", "https://h/b", "wss://h/"]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 2
    assert done.stderr == b"connman: HTTP transports need: pip install connman[http]\n"


# JSON


def json_run(*words: str, text: str = "") -> tuple[Finished, list[dict[str, Any]], list[dict[str, Any]]]:
    done = run("connect", "--json", *words, text=text)
    return done, parsed(done.out), parsed(done.err)


def test_json_on_both_outputs(shared: WebSocketProcess) -> None:
    done, messages, events = json_run("--count", "1", shared.url(), text="ä\n")
    assert done.code == 0
    assert [(m["type"], m["format"], m["data"]) for m in messages] == [("message", "text", "ä")]
    assert [(e["type"], e["state"]) for e in events] == [
        ("state", s) for s in ("connecting", "open", "closed")
    ]


@pytest.mark.slow
def test_json_of_a_loss(shared: WebSocketProcess) -> None:
    with started("connect", "--json", shared.url("/close?code=1012&reason=soon")) as program:
        program.wait_err('"waiting"[^\n]*\n.*"waiting"[^\n]*\n')
        program.signal(signal.SIGINT)
        assert program.ended() == 130
        lost = next(event for event in parsed(program.err) if event["state"] == "waiting")
    assert (lost["code"], lost["reason"], lost["attempt"]) == (1012, "soon", 1)
    assert lost["retry_in"] > 0
    assert lost["cause"] == "closed with code 1012: soon"


@pytest.mark.slow
def test_json_of_binary() -> None:
    with raw_server(
        upgraded(lambda frames: send_then_close(frames, server_frame(BINARY, b"\0\xff")))
    ) as server:
        _, messages, _ = json_run("--once", server.url())
    assert [(m["format"], m["data"]) for m in messages] == [("base64", "AP8=")]
