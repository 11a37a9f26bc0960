"""Whole programs: exit codes, signals, streams that are closed or full, and what the server gets to see."""

import fcntl
import os
import re
import signal
import socket
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from connman.version import __version__
from tests.cli.program import ENVIRONMENT, Program, Terminal, command, run, say_goodbye, started
from tests.loopback import PATIENCE, refusing_port
from tests.proxies import ConnectProxy
from tests.servers import (
    CLOSE,
    Frame,
    Frames,
    UpgradeRequest,
    WebSocketProcess,
    never_close_reply,
    pause,
    raw_server,
    read_upgrade,
    upgrade_answer,
    upgraded,
    ws_server,
)
from tests.waiting import eventually


@pytest.fixture(scope="module")
def shared() -> Iterator[WebSocketProcess]:
    with ws_server() as server:
        yield server


# Usage


def test_version() -> None:
    done = run("--version")
    assert (done.code, done.out, done.err) == (0, f"connman {__version__}\n", "")


def test_help_names_every_exit_code() -> None:
    done = run("connect", "--help")
    assert done.code == 0
    for code in ("0 ", "1 ", "2 ", "130"):
        assert re.search(rf"^  {code}", done.out, re.MULTILINE)


@pytest.mark.parametrize(
    "words",
    [
        (),
        pytest.param(("connect",), marks=pytest.mark.slow),
        ("connect", "nonsense"),
        pytest.param(("connect", "ws://h/", "-s", "a b"), marks=pytest.mark.slow),
    ],
)
def test_a_mistake_is_one_line_and_code_2(words: tuple[str, ...]) -> None:
    done = run(*words)
    assert (done.code, done.out) == (2, "")
    assert re.fullmatch(r"connman: [^\n]+\n", done.err)


# What the server gets to see


@pytest.mark.slow
def test_headers_and_subprotocols_go_out_and_the_chosen_one_is_told() -> None:
    seen: list[UpgradeRequest] = []

    def accept(sock: socket.socket, _n: int) -> None:
        seen.append(read_upgrade(sock))
        sock.sendall(upgrade_answer(seen[0], "Sec-WebSocket-Protocol: two"))
        say_goodbye(Frames(sock))

    words = (
        "--eof-wait",
        "0",
        "-H",
        "Authorization: Bearer s3cret",
        "-H",
        "X-One: 1",
        "-s",
        "one",
        "-s",
        "two",
    )
    with raw_server(accept) as server:
        done = run("connect", *words, server.url("/p?k=s3cret").replace("//", "//user:s3cret@"))
    assert done.code == 0
    assert "subprotocol two" in done.err
    assert seen[0].path == "/p?k=s3cret"
    assert seen[0].headers["x-one"] == "1"
    assert seen[0].headers["authorization"] == "Bearer s3cret"
    assert seen[0].headers["sec-websocket-protocol"].replace(" ", "") == "one,two"


def test_secrets_are_never_printed(shared: WebSocketProcess) -> None:
    url = shared.url("/http?status=401&token=s3cret").replace("//", "//user:s3cret@")
    done = run("connect", "-vv", "-H", "X-Key: s3cret", url)
    assert done.code == 1
    assert "s3cret" not in done.out + done.err


@pytest.mark.slow
def test_verbose_tells_every_step_and_twice_the_log() -> None:
    with refusing_port() as port:
        words = ("connect", "--once", f"ws://127.0.0.1:{port}/")
        assert "[tcp" not in run(*words).err
        assert f"[tcp 127.0.0.1:{port}" in run(*words, "-v").err
        assert "connman.connection: " in run(*words, "-vv").err


# TLS and proxies


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def secure(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebSocketProcess]:
    file = tmp_path_factory.mktemp("tls") / "server.pem"
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(file)
    with ws_server(file, file) as server:
        yield server


def test_a_certificate_that_nobody_vouches_for_is_refused_at_once(secure: WebSocketProcess) -> None:
    before = secure.stats()["messages"]
    done = run("connect", secure.url(), text="secret\n")
    assert done.code == 1
    assert "certificate" in done.err
    assert secure.stats()["messages"] == before


def test_insecure_passes_with_a_loud_warning(secure: WebSocketProcess) -> None:
    done = run("connect", "--count", "1", "--insecure", secure.url(), text="hi\n")
    assert (done.code, done.out) == (0, "hi\n")
    assert re.search("warning .*NOT VERIFIED", done.err)


@pytest.mark.slow
def test_an_authority_of_ones_own(secure: WebSocketProcess, authority: trustme.CA, tmp_path: Path) -> None:
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    done = run("connect", "--count", "1", "--ca", str(tmp_path / "ca.pem"), secure.url(), text="hi\n")
    assert (done.code, done.out) == (0, "hi\n")
    assert "warning" not in done.err


@pytest.mark.slow
def test_proxies(shared: WebSocketProcess) -> None:
    with ConnectProxy() as proxy, refusing_port() as nobody:
        words = ("connect", "--once", "--count", "1", shared.url("/feed"))
        assert run(*words, "--proxy", f"http://127.0.0.1:{proxy.port}").out == "1\n"
        assert len(proxy.heads) == 1
        environment = {"http_proxy": f"http://127.0.0.1:{nobody}"}
        assert run(*words, env=environment).code == 1
        assert run(*words, "--proxy", "none", env=environment).out == "1\n"


# Signals


def test_ctrl_c_says_goodbye_and_leaves_no_traceback() -> None:
    got: list[Frame] = []
    recorder = upgraded(lambda frames: got.extend(say_goodbye(frames)))
    with raw_server(recorder) as server, started("connect", server.url()) as program:
        program.wait_err(" open ")
        program.signal(signal.SIGINT)
        assert program.ended() == 130
        assert "Traceback" not in program.err
        assert "interrupted" in program.err
    assert [frame.opcode for frame in got] == [CLOSE]


@pytest.mark.parametrize(
    ("words", "path"),
    [
        ([], "/hang"),
        pytest.param([], "/http?status=503", marks=pytest.mark.slow),
        (["--strategy=default"], "/hang"),
    ],
)
def test_ctrl_c_while_it_dials_or_waits(shared: WebSocketProcess, words: list[str], path: str) -> None:
    with started("connect", *words, shared.url(path)) as program:
        program.wait_err("connecting" if path == "/hang" else "retry 3")
        program.signal(signal.SIGINT)
        assert program.ended() == 130
        assert "Traceback" not in program.err


@pytest.mark.slow
def test_a_second_ctrl_c_does_not_wait_for_the_peer() -> None:
    asked = threading.Event()

    def hear_close(frames: Frames) -> None:
        for frame in frames:
            if frame.opcode == CLOSE:
                asked.set()
                pause(frames.sock, None)

    with raw_server(upgraded(hear_close)) as server, started("connect", server.url()) as program:
        program.wait_err(" open ")
        program.signal(signal.SIGINT)
        assert asked.wait(PATIENCE)
        program.signal(signal.SIGINT)
        assert program.ended() == 130
        assert "Traceback" not in program.err


@pytest.mark.slow
def test_a_ctrl_c_while_it_exits_changes_nothing(shared: WebSocketProcess) -> None:
    with started("connect", shared.url()) as program:
        program.wait_err(" open ")
        program.signal(signal.SIGINT)
        program.wait_err(" closed ")
        program.signal(signal.SIGINT)
        assert program.ended() == 130
        assert "Traceback" not in program.err


@pytest.mark.slow
def test_a_peer_that_never_answers_the_close_does_not_hold_it() -> None:
    with raw_server(upgraded(never_close_reply)) as server, started("connect", server.url()) as program:
        program.wait_err(" open ")
        program.signal(signal.SIGTERM)
        assert program.ended() == 143


@pytest.mark.slow
def test_ctrl_c_while_nobody_reads_the_output(shared: WebSocketProcess) -> None:
    with Program("connect", shared.url("/feed?size=1000")) as program:  # its output is not collected
        assert program.process.stdout is not None
        # How much makes the pipe full depends on how it is written: pages that a write does not fit into stay half empty.
        full = fcntl.fcntl(program.process.stdout, fcntl.F_GETPIPE_SZ) // 4
        looks = [-1]

        def is_stuck() -> bool:
            looks.append(unread(program))
            return looks[-1] >= full and looks[-1] == looks[-2]

        eventually(is_stuck)
        program.signal(signal.SIGINT)
        assert program.ended() == 130


def unread(program: Program) -> int:
    assert program.process.stdout is not None
    return int.from_bytes(fcntl.ioctl(program.process.stdout, termios.FIONREAD, bytes(4)), sys.byteorder)


# Streams


@pytest.mark.parametrize("path", [pytest.param("/feed?interval=0.01", marks=pytest.mark.slow), "/feed"])
def test_a_broken_pipe_ends_it_quietly(shared: WebSocketProcess, path: str) -> None:
    with Program("connect", shared.url(path)) as program:
        assert program.process.stdout is not None
        assert program.process.stdout.read(2) == b"1\n"
        program.process.stdout.close()
        assert program.ended() == 0
        assert "Traceback" not in program.err
        assert "Errno" not in program.err


def test_a_broken_pipe_is_noticed_before_anything_is_written(shared: WebSocketProcess) -> None:
    with Program("connect", shared.url("/silent")) as program:
        program.wait_err(" open ")
        assert program.process.stdout is not None
        program.process.stdout.close()
        assert program.ended() == 0


@pytest.mark.slow
def test_messages_go_on_when_nobody_reads_the_events(shared: WebSocketProcess) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        with started("connect", shared.url(), stderr=write_end) as program:
            program.type("hi\n")
            program.wait_out("^hi\n")
            program.end_input()
            assert program.ended() == 0
    finally:
        os.close(write_end)


@pytest.mark.slow
def test_a_full_disk_is_a_failure(shared: WebSocketProcess) -> None:
    with open("/dev/full", "wb") as full, started("connect", shared.url("/feed"), stdout=full) as program:
        assert program.ended() == 1
        assert "No space left" in program.err


def test_what_is_printed_never_reaches_the_peer_when_the_streams_are_closed() -> None:
    got: list[int] = []

    def record(frames: Frames) -> None:
        frames.send(b"\x81\x02hi")
        got.extend(frame.opcode for frame in say_goodbye(frames))

    shell = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"]
    with raw_server(upgraded(record)) as server:
        words = command("connect", "--count", "1", server.url())
        done = subprocess.run([*shell, *words], timeout=PATIENCE, env=ENVIRONMENT, check=False)
    assert (done.returncode, got) == (0, [CLOSE])


# A terminal


@pytest.mark.slow
def test_ctrl_d_at_a_terminal_ends_it(shared: WebSocketProcess) -> None:
    with Terminal(shared.url()) as terminal:
        terminal.wait(b"\x1b\\[32mopen")  # in colour
        terminal.type(b"hello\n")
        terminal.wait(b"hello\r\nhello\r\n")  # what was typed, and the answer
        terminal.type(b"\x04")
        assert terminal.process.wait(PATIENCE) == 0


def test_a_peer_cannot_drive_the_terminal() -> None:
    evil = b"\x81\x05\x1b[2Ja"
    with (
        raw_server(upgraded(lambda f: (f.send(evil), list(f)))) as server,
        Terminal(server.url()) as terminal,
    ):
        terminal.wait(rb"\\x1b\[2Ja")
        assert b"\x1b[2J" not in terminal.shown


def test_who_types_while_it_is_not_connected_is_told() -> None:
    with refusing_port() as port, Terminal(f"ws://127.0.0.1:{port}/") as terminal:
        terminal.wait(b"retry 1")
        terminal.type(b"hello\n")
        terminal.wait(b"not connected: what you type is sent as soon as it is open")
