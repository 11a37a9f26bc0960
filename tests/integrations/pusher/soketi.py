"""soketi, a real server of the Pusher protocol, and SockJS in front of it: processes of node on this machine."""

import contextlib
import hashlib
import hmac
import http.client
import json
import platform
import select
import signal
import socket
import subprocess
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from tests.npm import npm_packages
from tests.waiting import eventually

KEY, SECRET, APP = "app-key", "app-secret", "1001"
PATIENCE = 20.0  # seconds
START = 90.0  # seconds for a process to start: soketi reads some thousand files, on a busy machine in half a minute
# soketi names a build of uWebSockets.js outside the registry; this one is of the registry, ready made for these.
UWS = "npm:@trufflesuite/uws-js-unofficial@20.30.0-unofficial.0"


def folder() -> Path:
    """Return where soketi, sockjs and ws are installed; skips the test where they cannot be."""
    found = npm_packages(
        "soketi",
        {"@soketi/soketi": "1.6.1", "sockjs": "0.3.24", "ws": "8.18.0"},
        overrides={"uWebSockets.js": UWS},
    )
    abi = subprocess.run(
        ["node", "-p", "process.versions.modules"], capture_output=True, text=True, check=True
    ).stdout.strip()
    if not list(found.glob(f"node_modules/uWebSockets.js/*/uws_linux_*_{abi}.node")):
        pytest.skip(f"soketi's websockets are not built for this node (ABI {abi}, {platform.machine()})")
    return found


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


class Soketi:
    """A soketi of one application on a free port, bound to loopback only. Leaving the with-block kills it."""

    def __init__(self, where: Path, scratch: Path) -> None:
        self._where = where
        self._scratch = scratch
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start it and wait until it listens."""
        config = self._scratch / f"soketi-{self.port}.json"
        config.write_text(json.dumps(self._config()), encoding="utf-8")
        program = self._where / "node_modules/@soketi/soketi/bin/server.js"
        self._process = subprocess.Popen(
            ["node", str(program), "start", f"--config={config}"],
            cwd=self._scratch, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        eventually(self._is_up, START, "soketi to listen")

    def _config(self) -> dict[str, Any]:
        app = {"id": APP, "key": KEY, "secret": SECRET, "enableClientMessages": True, "webhooks": []}
        limits = (
            "maxConnections",
            "maxBackendEventsPerSecond",
            "maxClientEventsPerSecond",
            "maxReadRequestsPerSecond",
        )
        # By dotted names, since a mapping would replace all of its defaults. Without those of the cluster it shouts into
        # the network for others of its kind.
        return {
            "host": "127.0.0.1",
            "port": self.port,
            "metrics.host": "127.0.0.1",
            "metrics.port": free_port(),
            "cluster.hostname": "127.0.0.1",
            "cluster.address": "127.0.0.1",
            "cluster.unicast": "127.0.0.1",
            "cluster.port": free_port(),
            "shutdownGracePeriod": 100,
            "appManager.driver": "array",
            "appManager.array.apps": [app | dict.fromkeys(limits, -1)],
        }

    def _is_up(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, "soketi ended at its start"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1.0):
            return True
        return False

    def end(self) -> None:
        """Have it end as an operator does (SIGINT): it sends its clients away with 4200."""
        self._gone(signal.SIGINT)

    def kill(self) -> None:
        """End it without a word. Idempotent."""
        self._gone(signal.SIGKILL)

    def _gone(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(how)
            process.wait(PATIENCE)

    def trigger(self, channel: str, event: str, data: Any) -> None:
        """Have the application's server send an event, by Pusher's HTTP interface."""
        body = json.dumps({"name": event, "channels": [channel], "data": json.dumps(data)})
        query = {
            "auth_key": KEY,
            "auth_timestamp": str(int(time.time())),
            "auth_version": "1.0",
            "body_md5": hashlib.md5(body.encode()).hexdigest(),
        }
        path, asked = f"/apps/{APP}/events", urllib.parse.urlencode(sorted(query.items()))
        signature = hmac.new(SECRET.encode(), f"POST\n{path}\n{asked}".encode(), hashlib.sha256).hexdigest()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        with contextlib.closing(connection):
            connection.request(
                "POST",
                f"{path}?{asked}&auth_signature={signature}",
                body,
                {"Content-Type": "application/json"},
            )
            answer = connection.getresponse()
            assert answer.status == 200, answer.read()


@contextlib.contextmanager
def sockjs_bridge(where: Path, target: int) -> Iterator[int]:
    """Run SockJS in front of the Pusher server on port `target`; yields the port."""
    # A copy beside the packages: node looks for them from where the program is.
    program = where / "bridge.js"
    program.write_text(Path(__file__).with_name("bridge.js").read_text(encoding="utf-8"), encoding="utf-8")
    command = ["node", str(program), str(target)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert select.select([process.stdout], [], [], START)[0], "the bridge did not start"
            yield int(process.stdout.readline())
        finally:
            process.kill()
