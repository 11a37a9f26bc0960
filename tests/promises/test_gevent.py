"""Where gevent has patched Python, connman's threads are greenlets: they wait without holding up the others.

"first": gevent patches, then connman is imported; "late": connman is imported and its objects are made, then gevent
patches, as in a worker of a gunicorn that preloads.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.promises.peers import PROGRAMS, program_environment
from tests.servers import (
    TEXT,
    Frames,
    RawServer,
    WebSocketProcess,
    raw_server,
    server_frame,
    upgraded,
    ws_server,
)
from tests.waiting import eventually

pytest.importorskip("gevent")

pytestmark = pytest.mark.slow

both_times = pytest.mark.parametrize("when", ["first", "late"])
both_ways = pytest.mark.parametrize(("when", "scheme"), [("first", "ws"), ("late", "wss")])


def run(
    when: str, scenario: str, server: WebSocketProcess | RawServer, **env: str
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, str(PROGRAMS / "cooperative.py"), when, scenario, server.url("")],
        check=False,
        env={**program_environment(), **env},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=50,
    )  # fmt: skip


class Servers:
    def __init__(self, plain: WebSocketProcess, secure: WebSocketProcess, authority: Path) -> None:
        self._by_scheme = {"ws": plain, "wss": secure}
        self._authority = authority

    def told(self, when: str, scenario: str, scheme: str = "ws") -> dict[str, Any]:
        """Return what a scenario told; it has ended well and in silence."""
        done = run(when, scenario, self._by_scheme[scheme], SSL_CERT_FILE=str(self._authority))
        assert (done.returncode, done.stderr) == (0, "")
        told: dict[str, Any] = json.loads(done.stdout)
        return told


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
    authority.cert_pem.write_to_path(folder / "authority.pem")
    with ws_server() as plain, ws_server(folder / "server.pem", folder / "server.pem") as secure:
        yield Servers(plain, secure, folder / "authority.pem")


@both_ways
def test_readers_callbacks_pools_and_leases_work_as_greenlets(
    servers: Servers, when: str, scheme: str
) -> None:
    """Seen failing: no connection on a shared reader ever opened, as gevent waits in spite of MSG_DONTWAIT."""
    assert servers.told(when, "talks", scheme) == {
        "echo": True,
        "shared": [True] * 3,
        "leased": [True] * 2,
        "others run": True,
        "in order": True,
        "greenlets": True,
        "left": [],
    }


def test_a_server_that_sends_without_a_pause_leaves_time_for_the_others() -> None:
    """Seen failing in every other run: a thread each took chunk after chunk, and no other greenlet ran."""
    burst = server_frame(TEXT, b"x" * 1000) * 1000

    def flood(frames: Frames) -> None:
        while True:
            frames.send(burst)

    with raw_server(upgraded(flood)) as server:
        done = run("first", "flooded", server)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == {"each": True, "shared": True}


@both_ways
def test_a_peer_that_does_not_read_blocks_nobody(servers: Servers, when: str, scheme: str) -> None:
    """Seen failing: `send_timeout` did not bound a send of which the network took nothing at all."""
    assert servers.told(when, "stuck", scheme) == {
        "timed out": True,
        "others run": True,
        "filled": "SendTimeout",
        "cut": "ConnectionLost",
        "beside": True,
        "cut too": "ConnectionLost",
    }


@both_times
def test_disconnect_in_every_phase_and_the_loss_of_a_silent_peer(servers: Servers, when: str) -> None:
    assert servers.told(when, "ended") == {
        "hanging": "closed",
        "waiting": "closed",
        "deaf": "closed",
        "silent": ["PingTimeout"],
        "back": ["1", "2", "3"] * 2,
    }


@both_times
def test_a_gevent_timeout_comes_out_of_every_wait_and_leaves_things_in_order(
    servers: Servers, when: str
) -> None:
    told = servers.told(when, "timed")
    assert told.pop("states") == ["open", "connecting", "idle"]
    assert set(told.values()) == {True}


@both_times
def test_a_killed_greenlet_ends_and_the_next_use_starts_another(servers: Servers, when: str) -> None:
    """Seen failing: `gevent.killall` waited for ever, as GreenletExit was taken for an error of the callback."""
    again = ["lost", "open", "after"]
    assert servers.told(when, "killed") == {
        "reading": [1, "idle", "open", *again],
        "calling": [1, "idle", "open", "block", *again],
        "shared": [1, "idle", "open", "block", *again],
        # Only the thread of the callbacks was killed: it comes back by itself.
        "thread": [1, "open", "open", "block", "lost for now", "open", "after"],
        "dialling": [1, "idle", "ConnectionLost"],
        "waiting": [1, "idle", "ConnectionLost"],
        "timers": 1,
        "noticed": "PingTimeout",
    }


@both_ways
def test_a_fork_copies_greenlets_which_end_in_the_child_in_silence(
    servers: Servers, when: str, scheme: str
) -> None:
    """Seen failing: the copies told the child of resets, and threading's own KeyError came from the end of each."""
    assert servers.told(when, "forked", scheme) == {
        "child": {"states": ["idle"] * 4, "echo": True, "shared": True, "heard": False, "resets": []},
        "echo": [True, True],
        "generations": [1] * 4,
        "resets": [],
    }


@both_times
def test_the_end_of_the_interpreter_is_told_to_the_server(when: str) -> None:
    with ws_server() as server:
        done = run(when, "exits", server)
        assert (done.returncode, done.stdout, done.stderr) == (7, '{"open": 3}\n', "")
        eventually(lambda: server.stats()["open"] == 0)
        assert server.closes() == {"1001": 3}


def test_an_ssl_context_that_is_older_than_the_patches_is_refused_with_the_reason(servers: Servers) -> None:
    """Seen failing: a TypeError out of Python's own ssl module, for which connman went on trying."""
    assert servers.told("first", "contexts", "wss") == {"echo": True}
    told = servers.told("late", "contexts", "wss")
    assert told["error"] == "InvalidOption"
    assert "made before gevent patched the ssl module" in told["text"]
