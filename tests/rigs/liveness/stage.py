"""One scene: servers or proxies over ws and wss, client processes, and a way to break what lies between."""

import contextlib
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from connman.testing import FaultProxy
from tests.hostile.fleet import Serve, Tls, over_tls
from tests.promises.peers import PATIENCE, Peers, program_environment
from tests.servers import WebSocketProcess

PROGRAM = Path(__file__).with_name("client.py")


class Client:
    """A process of `client.py`, and what it says."""

    def __init__(
        self,
        who: str,
        urls: list[str],
        interval: float,
        timeout: float,
        *,
        block: float = 0,
        kind: str = "all",
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.who = who
        self._kind = kind
        self.losses: dict[str, tuple[float, str]] = {}
        self.heard: dict[str, int] = {}
        self._process = subprocess.Popen(
            [sys.executable, str(PROGRAM), who, str(interval), str(timeout), str(block), kind, *urls],
            env={**program_environment(), **environment},
            text=True,
            bufsize=1,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if who != "connman" else None,
        )
        self._out: Any = self._process.stdout
        assert select.select([self._out], [], [], 3 * PATIENCE)[0], f"{who} did not open"
        word, at = self._out.readline().split()
        assert word == "open"
        self.opened_at = float(at)
        self.still = 0
        self._listener = threading.Thread(target=self._listen)
        self._listener.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.kill()
        self._listener.join()
        self._process.communicate()

    def _listen(self) -> None:
        for line in self._out:
            word, *rest = line.rstrip("\n").split(" ", 3)
            if word == "lost":
                self.losses[rest[1]] = (float(rest[0]), rest[2])
            elif word == "heard":
                self.heard[rest[0]] = self.heard.get(rest[0], 0) + int(rest[1])
            elif word == "still":
                self.still = int(rest[0])

    @property
    def kinds(self) -> list[str]:
        """The names of its connections."""
        if self._kind != "all":
            return [self._kind]
        if self.who == "connman":
            return ["ws-own", "ws-shared", "wss-own", "wss-shared"]
        return ["ws", "wss"]

    def send(self, size: int) -> None:
        """Have it send so many bytes over all of its connections."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{size}\n")

    def stop(self) -> None:
        """Stop the process."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> float:
        """Let it go on; return when that was."""
        self._process.send_signal(signal.SIGCONT)
        return time.monotonic()

    def end(self) -> int:
        """Have it end; return how many of its connections were open."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(PATIENCE)
        self._listener.join(PATIENCE)
        self._process.stdin = None  # `communicate` would flush it
        return self.still


class Scene:
    """Servers that do as `serve`, or, without it, server processes; over ws and wss; perhaps behind proxies."""

    def __init__(self, tls: Tls, serve: Serve | None = None, *, is_proxied: bool = False) -> None:
        self._stack = contextlib.ExitStack()
        self._tls, self._serve, self._is_proxied = tls, serve, is_proxied
        self.processes: list[WebSocketProcess] = []
        self.proxies: list[FaultProxy] = []
        self.ports: list[int] = []
        self.urls: list[str] = []

    def __enter__(self) -> Self:
        with self._stack:
            for scheme in ("ws", "wss"):
                port = self._serve_on(scheme)
                if self._is_proxied:
                    self.proxies.append(self._stack.enter_context(FaultProxy("127.0.0.1", port)))
                    port = self.proxies[-1].port
                self.ports.append(port)
                self.urls.append(f"{scheme}://127.0.0.1:{port}/{'' if self._serve else 'echo'}")
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    def _serve_on(self, scheme: str) -> int:
        if self._serve is None:
            keys = (self._tls.path, self._tls.path) if scheme == "wss" else ()
            self.processes.append(self._stack.enter_context(WebSocketProcess(*keys)))
            return self.processes[-1].port
        serve = over_tls(self._tls, self._serve) if scheme == "wss" else self._serve
        return self._stack.enter_context(Peers(serve)).port

    def client(self, who: str, interval: float, timeout: float, **options: Any) -> Client:
        """Start a client of this scene; ended with it."""
        return self._stack.enter_context(Client(who, self.urls, interval, timeout, **options))
