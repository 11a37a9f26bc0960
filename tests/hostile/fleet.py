"""One connection of each kind to the same peer, and when each noticed that something was wrong."""

import contextlib
import os
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

import trustme

import connman
from connman.errors import ConnectionLost
from connman.testing import FaultProxy
from tests.promises.peers import PATIENCE, Peers, accept, connection, serve_ws
from tests.waiting import Stalls, eventually

# What the promise gives on top of ping_interval + ping_timeout. A run that slows everything down on purpose may ask for more.
SLACK = 0.5 * float(os.environ.get("CONNMAN_SLACK_FACTOR", "1"))
KINDS = [(scheme, is_shared) for scheme in ("ws", "wss") for is_shared in (False, True)]

Serve = Callable[[Any], object]


@dataclass(frozen=True)
class Tls:
    """Both ends' settings for a certificate of `localhost`."""

    server: ssl.SSLContext
    client: ssl.SSLContext
    path: Path

    @classmethod
    def make(cls, folder: Path) -> Self:
        authority, path = trustme.CA(), folder / "server.pem"
        authority.issue_cert("localhost", "127.0.0.1").private_key_and_cert_chain_pem.write_to_path(path)
        client, server = ssl.create_default_context(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.configure_trust(client)
        server.load_cert_chain(path)
        return cls(server, client, path)


def over_tls(tls: Tls, serve: Serve) -> Serve:
    """Have `serve` get its end of the connection with TLS around it."""

    def secure(sock: Any) -> None:
        with tls.server.wrap_socket(sock, server_side=True, suppress_ragged_eofs=True) as secured:
            serve(secured)

    return secure


class Fleet:
    """Connections over ws and wss, each with a thread of its own and with a shared one, to peers that do as `serve`.

    They do not come back: a loss is told once. With `is_proxied` each goes through a `FaultProxy` (`proxies`).
    """

    def __init__(
        self, tls: Tls, serve: Serve = serve_ws, *, is_proxied: bool = False, **options: Any
    ) -> None:
        self._stack = contextlib.ExitStack()
        self._stalls = Stalls()
        self.told: dict[str, tuple[float, connman.Reset]] = {}
        self._opened: dict[str, float] = {}
        self.conns: dict[str, connman.Connection] = {}
        self.proxies: list[FaultProxy] = []
        self.ports: list[int] = []
        self._limit = options["ping_interval"] + options["ping_timeout"] + SLACK
        self._servers = {"ws": Peers(serve), "wss": Peers(over_tls(tls, serve))}
        self._is_proxied = is_proxied
        self._options = {
            "proxy": None,
            "reconnect": False,
            "ssl_context": tls.client,
            "close_timeout": 0.2,
            **options,
        }

    def __enter__(self) -> Self:
        with self._stack:
            self._stack.enter_context(self._stalls)
            for scheme, server in self._servers.items():
                port = self._stack.enter_context(server).port
                if self._is_proxied:
                    self.proxies.append(self._stack.enter_context(FaultProxy("127.0.0.1", port)))
                    port = self.proxies[-1].port
                self.ports.append(port)
                for is_shared in (False, True):
                    self._add(f"{scheme}, {'shared' if is_shared else 'own'} reader", scheme, port, is_shared)
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        for conn in self.conns.values():
            conn.end_soon(timeout=0.2)
        self._stack.close()

    def _add(self, name: str, scheme: str, port: int, is_shared: bool) -> None:
        options = dict(self._options)
        if scheme == "ws":
            del options["ssl_context"]
        conn = connection(
            is_shared,
            f"{scheme}://127.0.0.1:{port}/",
            name=name,
            on_open=partial(self._note_open, name),
            on_reset=partial(self._note, name),
            **options,
        )
        self._stack.callback(conn.disconnect)
        self.conns[name] = conn

    def _note_open(self, name: str, _: connman.Connection) -> None:
        self._opened.setdefault(name, time.monotonic())

    def _note(self, name: str, _: connman.Connection, reset: connman.Reset) -> None:
        self.told.setdefault(name, (time.monotonic(), reset))

    def open(self) -> float:
        """Open them all; return the time before the first opened."""
        before = time.monotonic()
        for conn in self.conns.values():
            conn.connect()
        for conn in self.conns.values():
            conn.wait_open(PATIENCE)
        return before

    def wait_pinged(self) -> None:
        """Wait until each peer has answered a ping: it was alive."""
        eventually(lambda: all(conn.stats.ping_rtt is not None for conn in self.conns.values()))

    def each(self) -> Iterator[connman.Connection]:
        yield from self.conns.values()

    def assert_alive(self) -> None:
        """Fail when one was called dead."""
        assert {name: str(reset.error) for name, (_, reset) in self.told.items()} == {}
        assert all(conn.is_open and conn.generation == 1 for conn in self.each())

    def assert_noticed(self, since: float, what: str) -> None:
        """Wait for each to notice, and fail when one took more than ping_interval + ping_timeout + 0.5 s.

        That is counted from `since`, or from when it opened: before that there was nobody to judge.
        """
        eventually(lambda: len(self.told) == len(self.conns), PATIENCE, lambda: f"{what}: {list(self.told)}")
        took = {name: at - max(since, self._opened[name]) for name, (at, _) in self.told.items()}
        print(f"{what}: " + ", ".join(f"{name} {seconds:.2f} s" for name, seconds in took.items()))
        assert all(
            isinstance(reset.error, ConnectionLost) and reset.opened for _, reset in self.told.values()
        )
        assert max(took.values()) - self._stalls.so_far() <= self._limit, took


def partly(data: bytes) -> Serve:
    """Serve a client that hears the beginning of a frame, and then nothing."""

    def serve(sock: Any) -> None:
        accept(sock).send(data)
        while sock.recv(65536):
            pass

    return serve
