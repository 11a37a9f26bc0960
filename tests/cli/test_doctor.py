"""The doctor as a whole program: what it finds, what it prints, and how it ends."""

import json
import os
import re
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from connman.testing import FaultProxy
from tests.cli.program import Finished, Program, run, started
from tests.loopback import refusing_port
from tests.proxies import Blocks, ConnectProxy, WebSocketBlocker
from tests.servers import WebSocketProcess, raw_server, silent, ws_server
from tests.transport.sockjs_servers import SockjsProcess
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
        pytest.param("swallow frames", "frames-swallowed", marks=pytest.mark.slow),
    ],
)
def test_a_proxy_that_dislikes_websockets(shared: WebSocketProcess, blocks: Blocks, kind: str) -> None:
    with WebSocketBlocker(blocks) as proxy:
        words = ("doctor", "--json", "--open-timeout", "1", "--proxy", f"http://127.0.0.1:{proxy.port}")
        done = run(*words, shared.url())
        assert (proxy.blocked, done.code) == (1, 1)
    assert lines(done)[0]["kind"] == kind


def test_one_of_two_is_enough_and_json_tells_both(shared: WebSocketProcess) -> None:
    with refusing_port() as port:
        done = run(
            "doctor", "--json", "--wss", f"wss://127.0.0.1:{port}/", shared.url("/feed"), "--expect-message"
        )
    ws, wss, tree, verdict = lines(done)
    assert done.code == 0
    assert (tree["type"], tree["is_open"], tree["transport"], tree["message"]) == (
        "tree",
        True,
        "ws",
        "text, 1 bytes",
    )
    assert {(step["leaf"], step["phase"]) for step in tree["steps"]} >= {("ws", "tcp"), ("ws", "upgrade")}
    assert (ws["way"], ws["is_open"], ws["kind"], ws["message"]) == ("ws", True, "open", "text, 1 bytes")
    assert (wss["way"], wss["is_open"], wss["kind"]) == ("wss", False, "refused")
    assert [step["phase"] for step in ws["steps"]][-2:] == ["upgrade", "ping"]
    assert verdict["ways"] == ["ws"]


@pytest.fixture(scope="module")
def sockjs() -> Iterator[SockjsProcess]:
    with SockjsProcess("aiohttp") as server:
        yield server


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "blocks", "kind"),
    [("aiohttp", "refuse", "forbidden"), ("node", "swallow", "upgrade-timeout"), ("aiohttp", None, "open")],
)
def test_where_no_websocket_gets_through_the_tree_does(name: str, blocks: Blocks | None, kind: str) -> None:
    with SockjsProcess(name) as server, WebSocketBlocker(blocks) as proxy:
        base = f"127.0.0.1:{server.port}/echo"
        words = ["doctor", "--json", "--proxy", f"http://127.0.0.1:{proxy.port}", "--open-timeout", "4"]
        words += ["--http", f"http://{base}", f"ws://{base}/websocket"]
        done = run(*words)
        assert (done.code, done.err) == (0, "")
        assert proxy.blocked == 2 * (blocks is not None)
    ws, streaming, polling, info, tree, verdict = lines(done)
    assert [row["type"] for row in (ws, info, tree, verdict)] == ["way", "info", "tree", "verdict"]
    assert ws["kind"] == kind
    assert streaming["is_open"]
    assert polling["is_open"]
    assert info["says"]["websocket"] is True
    assert tree["is_open"]
    assert tree["transport"] == ("ws" if blocks is None else "xhr_streaming")
    assert {step["leaf"] for step in tree["steps"]} >= {"ws", tree["transport"], None}
    assert verdict["is_open"]
    assert ("no websocket gets through" in (verdict["advice"] or "")) == (blocks is not None)


@pytest.mark.slow
def test_where_frames_are_swallowed_a_message_that_is_expected_finds_the_way(sockjs: SockjsProcess) -> None:
    with WebSocketBlocker("swallow frames") as proxy:
        base = f"127.0.0.1:{sockjs.port}/greet"
        words = ["doctor", "--proxy", f"http://127.0.0.1:{proxy.port}", "--open-timeout", "4"]
        words += ["--expect-message", "--http", f"http://{base}", f"ws://{base}/websocket"]
        done = run(*words)
    assert done.code == 0
    rows = done.out.split("\n\n")
    assert rows[0].startswith("ws  ")
    assert "frames-swallowed: " in rows[0]
    assert rows[4].startswith("default  all of them")
    assert "open as xhr_streaming after " in rows[4]
    assert "a handshake= that hears the server" in rows[5]


@pytest.mark.slow
def test_a_network_that_loses_upgrades_between_us_and_the_server(sockjs: SockjsProcess) -> None:
    with FaultProxy("127.0.0.1", sockjs.port) as relay:
        relay.websockets = "swallow"
        words = [
            "--open-timeout",
            "3",
            "--http",
            relay.url("http", "/echo"),
            relay.url("ws", "/echo/websocket"),
        ]
        done = run("doctor", *words)
    assert done.code == 0
    assert "upgrade-timeout: the request is swallowed" in done.out
    assert "it says: websocket yes, cookie_needed yes\n" in done.out
    assert "open as xhr_streaming after " in done.out
    assert done.out.splitlines()[-2:] == [
        "a way through: xhr_streaming, xhr_polling",
        "no websocket gets through: use connman.strategy.pusher_default() with http=, or connect --strategy default --http",
    ]


@pytest.mark.slow
def test_ctrl_c_ends_a_tree_that_takes_its_turns(sockjs: SockjsProcess) -> None:
    with refusing_port() as port:
        words = ("--http", f"http://127.0.0.1:{sockjs.port}/echo", f"ws://127.0.0.1:{port}/")
        with started("doctor", *words) as program:
            program.wait_out("it says: ")  # the last row before the tree, whose HTTP begins 2 s later
            program.signal(signal.SIGINT)
            assert program.ended() == 130
            assert "a way through" not in program.out
            assert program.err == ""


@pytest.mark.slow
def test_a_tree_that_gets_too_little_time_is_told_and_is_no_failure(sockjs: SockjsProcess) -> None:
    with refusing_port() as port:
        words = ["--http", f"http://127.0.0.1:{sockjs.port}/echo", f"ws://127.0.0.1:{port}/"]
        done = run("doctor", "--open-timeout", "1.7", *words)
    assert done.code == 0
    assert "\n  failed after 1." in done.out
    assert "tree-timeout: ways open alone" in done.out


@pytest.mark.slow
def test_where_nothing_opens_by_itself_the_tree_is_not_waited_for(shared: WebSocketProcess) -> None:
    with refusing_port() as port:
        words = ["--http", f"http://127.0.0.1:{port}/b?k=s3cret", f"ws://u:s3cret@127.0.0.1:{port}/"]
        done = run("doctor", "-vv", *words)
    assert done.code == 1
    assert "default" not in done.out
    assert done.out.endswith("no way through\n" + done.out.splitlines()[-1] + "\n")
    assert "nobody listens" in done.out.splitlines()[-1]
    assert "s3cret" not in done.out + done.err


def test_no_way_through_is_exit_code_1_without_secrets(shared: WebSocketProcess) -> None:
    url = shared.url("/http?status=401&token=s3cret").replace("//", "//user:s3cret@")
    done = run("doctor", "-vv", "-H", "X-Key: s3cret", url)
    assert done.code == 1
    assert "unauthorized: " in done.out
    assert done.out.endswith("no way through\n")
    assert "s3cret" not in done.out + done.err


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_reader_that_leaves_changes_nothing_about_the_exit_code(shared: WebSocketProcess) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        with Program("doctor", shared.url(), stdout=write_end) as program:
            assert program.ended() == 0
            assert program.err == ""
    finally:
        os.close(write_end)


@pytest.mark.slow
def test_a_full_disk_is_a_failure(shared: WebSocketProcess) -> None:
    with open("/dev/full", "wb") as full, Program("doctor", shared.url(), stdout=full) as program:
        assert program.ended() == 1
