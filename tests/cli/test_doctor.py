"""The doctor as a whole program: what it finds, what it prints, and how it ends."""

import json
import os
import re
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cli.program import Finished, Program, run, started
from tests.loopback import refusing_port
from tests.proxies import Blocks, ConnectProxy, WebSocketBlocker
from tests.servers import WebSocketProcess, raw_server, silent, ws_server
from tests.waiting import eventually


@pytest.fixture(scope="module")
def shared() -> Iterator[WebSocketProcess]:
    with ws_server() as server:
        yield server


def lines(done: Finished) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.out.splitlines()]


def test_a_way_through_is_exit_code_0(shared: WebSocketProcess) -> None:
    with ConnectProxy() as proxy:
        done = run("doctor", "--proxy", f"http://127.0.0.1:{proxy.port}", shared.url())
    assert (done.code, done.err) == (0, "")
    shape = r"ws  \S+ through http://\S+\n  tcp .*\n  proxy .*\n  upgrade .*\n  ping .*\n  open after [\d.]+ s\n\na way through: ws\n"
    assert re.fullmatch(shape, done.out)


@pytest.mark.parametrize(
    ("blocks", "kind"),
    [
        pytest.param("refuse", "forbidden", marks=pytest.mark.slow),
        pytest.param("swallow", "upgrade-timeout", marks=pytest.mark.slow),
        ("swallow frames", "frames-swallowed"),
    ],
)
def test_a_proxy_that_dislikes_websockets(shared: WebSocketProcess, blocks: Blocks, kind: str) -> None:
    with WebSocketBlocker(blocks) as proxy:
        words = ("doctor", "--json", "--open-timeout", "0.3", "--proxy", f"http://127.0.0.1:{proxy.port}")
        done = run(*words, shared.url())
        assert (proxy.blocked, done.code) == (1, 1)
    assert lines(done)[0]["kind"] == kind


def test_one_of_two_is_enough_and_json_tells_both(shared: WebSocketProcess) -> None:
    with refusing_port() as port:
        done = run(
            "doctor", "--json", "--wss", f"wss://127.0.0.1:{port}/", shared.url("/feed"), "--expect-message"
        )
    ws, wss, verdict = lines(done)
    assert done.code == 0
    assert (ws["way"], ws["is_open"], ws["kind"], ws["message"]) == ("ws", True, "open", "text, 1 bytes")
    assert (wss["way"], wss["is_open"], wss["kind"]) == ("wss", False, "refused")
    assert [step["phase"] for step in ws["steps"]][-2:] == ["upgrade", "ping"]
    assert verdict["ways"] == ["ws"]


def test_no_way_through_is_exit_code_1_without_secrets(shared: WebSocketProcess) -> None:
    url = shared.url("/http?status=401&token=s3cret").replace("//", "//user:s3cret@")
    done = run("doctor", "-vv", "-H", "X-Key: s3cret", url)
    assert done.code == 1
    assert "unauthorized: " in done.out
    assert done.out.endswith("no way through\n")
    assert "s3cret" not in done.out + done.err


def test_the_warning_of_insecure_goes_to_standard_error(shared: WebSocketProcess) -> None:
    done = run("doctor", "--insecure", "--json", shared.url())
    assert json.loads(done.err)["kind"] == "warning"
    assert lines(done)[-1]["is_open"]


def test_what_is_known_is_printed_at_once_and_ctrl_c_ends_the_rest() -> None:
    with raw_server(silent) as server, refusing_port() as port:
        words = ("doctor", f"ws://127.0.0.1:{port}/", "--wss", server.url(scheme="wss"))
        with started(*words) as program:
            program.wait_out("refused: ")
            eventually(lambda: server.accepted)
            program.signal(signal.SIGINT)
            assert program.ended() == 130
            assert "no way" not in program.out
            assert program.err == ""


def test_a_reader_that_leaves_changes_nothing_about_the_exit_code(shared: WebSocketProcess) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        with Program("doctor", shared.url(), stdout=write_end) as program:
            assert program.ended() == 0
            assert program.err == ""
    finally:
        os.close(write_end)


def test_a_full_disk_is_a_failure(shared: WebSocketProcess) -> None:
    with open("/dev/full", "wb") as full, Program("doctor", shared.url(), stdout=full) as program:
        assert program.ended() == 1
