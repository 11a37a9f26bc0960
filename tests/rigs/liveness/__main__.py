"""How long a dead connection goes unnoticed in each shape, and what is wrongly called dead, beside websocket-client."""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.hostile.fleet import SLACK, Tls, partly
from tests.hostile.netns.namespace import (
    OUTSIDE,
    ROOT,
    SBIN,
    Firewall,
    current,
    is_inside,
    raise_loopback,
    way_in,
)
from tests.promises.peers import accept, frame, serve_ws
from tests.rigs.liveness.stage import Client, Scene

INTERVAL, TIMEOUT = 2.0, 1.0
BOUND = INTERVAL + TIMEOUT + SLACK
GIVE_UP = 15.0  # seconds after which a loss counts as never noticed
WHO = ("connman", "websocket-client")
COLUMNS = [("connman", kind) for kind in ("ws-own", "ws-shared", "wss-own", "wss-shared")]
COLUMNS += [("websocket-client", kind) for kind in ("ws", "wss")]
# 64 KiB/s, with room for 0.4 s.
SLOW_LINK = "tc qdisc add dev lo root tbf rate 512kbit burst 4kb limit 24kb"

Row = dict[tuple[str, str], str]
pace = threading.Event()


def dripping(sock: Any) -> None:
    """Send a frame of 1 MiB a byte each 0.2 s."""
    accept(sock).send(b"\x82\x7f" + (1 << 20).to_bytes(8))
    while True:
        sock.sendall(b"x")
        pace.wait(0.2)


def big_message(size: int) -> Callable[[Any], None]:
    """Make a server that sends one message of `size` bytes and is silent then, but for pongs."""

    def serve(sock: Any) -> None:
        accept(sock)
        sock.sendall(frame(bytes(size)))
        while sock.recv(65536):
            pass

    return serve


def heard_message(sock: Any) -> None:
    """Answer pings, and each message with a short one."""
    serve_ws(sock, lambda _: sock.sendall(frame("heard")))


class Rig:
    """What each row needs: certificates, the firewall, and how long to take."""

    def __init__(self, tls: Tls, firewall: Firewall, *, is_full: bool) -> None:
        self.tls, self.firewall, self.is_full = tls, firewall, is_full
        self.dice = random.Random(4)

    # Half-open: noticed within ping_interval + ping_timeout + 0.5 s.

    def noticed(
        self, serve: Any, break_: Callable[[Scene, list[Client]], float | None], **options: Any
    ) -> Row:
        with Scene(self.tls, serve, **options) as scene:
            clients = [scene.client(who, INTERVAL, TIMEOUT) for who in WHO]
            since = break_(scene, clients)
            until = time.monotonic() + GIVE_UP
            while time.monotonic() < until and any(len(c.losses) < len(c.kinds) for c in clients):
                pace.wait(0.05)
            self.firewall.heal()
            for process in scene.processes:
                process.cont()
            return self._times(clients, since)

    def _times(self, clients: list[Client], since: float | None) -> Row:
        row = {}
        for client in clients:
            # A peer that is silent from the start is so since the connection opened.
            begin = client.opened_at if since is None else since
            for kind in client.kinds:
                at = client.losses.get(kind)
                row[client.who, kind] = f"{at[0] - begin:.1f} s" if at else f"not in {GIVE_UP:g} s"
        return row

    def dropped_idle(self) -> Row:
        return self.noticed(serve_ws, lambda scene, _: self._drop(scene))

    def dropped_unsent(self) -> Row:
        def break_(scene: Scene, clients: list[Client]) -> float:
            since = self._drop(scene)
            for client in clients:
                client.send(30_000)
            return since

        return self.noticed(serve_ws, break_)

    def frozen(self) -> Row:
        def break_(scene: Scene, _: list[Client]) -> float:
            pace.wait(0.5)
            for process in scene.processes:
                process.stop()
            return time.monotonic()

        return self.noticed(None, break_)

    def _drop(self, scene: Scene, percent: int = 100) -> float:
        pace.wait(0.5)
        for port in scene.ports:
            self.firewall.drop(port, percent=percent)
        return time.monotonic()

    # False alarms.

    def alive(
        self,
        disturb: Callable[[Scene, list[Client]], object],
        serve: Any = serve_ws,
        *,
        timeout: float = TIMEOUT,
        is_proxied: bool = False,
        block: float = 0,
    ) -> Row:
        with Scene(self.tls, serve, is_proxied=is_proxied) as scene:
            # websocket-client wants the interval longer than the timeout.
            interval = max(INTERVAL, timeout + 1)
            clients = [scene.client(who, interval, timeout, block=block) for who in WHO]
            since = time.monotonic()
            disturb(scene, clients)
            self.firewall.heal()
            row = {}
            for client in clients:
                for kind in client.kinds:
                    at = client.losses.get(kind)
                    row[client.who, kind] = f"LOST at {at[0] - since:.0f} s" if at else "alive"
            return row

    def loss(self, timeout: float) -> Row:
        def disturb(scene: Scene, _: list[Client]) -> None:
            self._drop(scene, percent=10)
            pace.wait(120 if self.is_full else 20)

        return self.alive(disturb, timeout=timeout)

    def blips(self) -> Row:
        def disturb(scene: Scene, _: list[Client]) -> None:
            for _ in range(20):
                for proxy in scene.proxies:
                    proxy.deaf()
                pace.wait(self.dice.uniform(0.3, 0.9))
                for proxy in scene.proxies:
                    proxy.deaf(False)
                pace.wait(self.dice.uniform(0.1, 1.0))

        return self.alive(disturb, is_proxied=True)

    def download(self) -> Row:
        size = 1 << (20 if self.is_full else 18)

        def disturb(scene: Scene, clients: list[Client]) -> None:
            until = time.monotonic() + size / 65536 + 5
            while time.monotonic() < until and any(
                sum(client.heard.values()) < size * len(client.kinds) for client in clients
            ):
                pace.wait(0.1)

        # A connection that is lost has not heard; the rate is set before anything flows.
        with Scene(self.tls, big_message(size), is_proxied=True) as scene:
            for proxy in scene.proxies:
                proxy.rate = 65536
            clients = [scene.client(who, INTERVAL, TIMEOUT) for who in WHO]
            since = time.monotonic()
            disturb(scene, clients)
            return self._whole(clients, since, size)

    def upload(self) -> Row:
        size, row = 1 << (20 if self.is_full else 18), {}
        with Scene(self.tls, heard_message) as scene:
            subprocess.run(["ip", "link", "set", "lo", "mtu", "1500"], check=True)
            subprocess.run(SLOW_LINK.split(), check=True)
            # One after the other: each has the link for itself.
            for who, kind in COLUMNS:
                client = scene.client(who, INTERVAL, TIMEOUT, kind=kind)
                since = time.monotonic()
                client.send(size)
                until = since + 2 * size / 65536 + 5
                while time.monotonic() < until and not (client.heard or client.losses):
                    pace.wait(0.1)
                row.update(self._whole([client], since, len("heard")))
                client.end()
            subprocess.run(["tc", "qdisc", "del", "dev", "lo", "root"], check=True)
        return row

    def _whole(self, clients: list[Client], since: float, size: int) -> Row:
        row = {}
        for client in clients:
            for kind in client.kinds:
                at = client.losses.get(kind)
                is_whole = client.heard.get(kind, 0) >= size
                row[client.who, kind] = (
                    "alive" if is_whole else f"LOST at {at[0] - since:.0f} s" if at else "no message"
                )
        return row

    def blocked(self) -> Row:
        def disturb(_: Scene, clients: list[Client]) -> None:
            for client in clients:
                client.send(10)
            pace.wait(3 * (INTERVAL + TIMEOUT) + 4)

        return self.alive(disturb, heard_message, block=3 * (INTERVAL + TIMEOUT))

    def suspended(self) -> Row:
        def disturb(_: Scene, clients: list[Client]) -> None:
            for seconds in (4.0, 10.0):
                pace.wait(self.dice.uniform(0, 2))
                for client in clients:
                    client.stop()
                pace.wait(seconds)
                for client in clients:
                    client.go_on()
                pace.wait(4)

        return self.alive(disturb)

    def rows(self) -> Iterator[tuple[str, bool, Callable[[], Row]]]:
        """Name each row, whether it is about noticing, and how it is run."""
        yield "dropped while idle", True, self.dropped_idle
        yield "dropped with unsent data", True, self.dropped_unsent
        yield "frozen peer (SIGSTOP)", True, self.frozen
        for name, serve in (
            ("no pongs", partly(b"")),
            ("one header byte", partly(b"\x81")),
            ("half a payload", partly(b"\x81\x7e\x10\x00" + bytes(100))),
            ("a byte each 0.2 s", dripping),
        ):
            yield name, True, lambda serve=serve: self.noticed(serve, lambda *_: None)
        seconds = 120 if self.is_full else 20
        yield f"{seconds} s of 10 % loss, ping_interval 9 s, ping_timeout 8 s", False, lambda: self.loss(8.0)
        yield f"{seconds} s of 10 % loss, ping_timeout 1 s", False, lambda: self.loss(TIMEOUT)
        yield "20 blips of 0.3 to 0.9 s", False, self.blips
        size = "1 MiB" if self.is_full else "256 KiB"
        yield f"{size} arriving at 64 KiB/s", False, self.download
        yield f"{size} to send at 64 KiB/s", False, self.upload
        yield "a callback that blocks for 9 s", False, self.blocked
        yield "stopped for 4 s and for 10 s", False, self.suspended


def main() -> int:
    """Run the rows, inside a namespace, and print the table; 1 when connman missed a bound."""
    parser = argparse.ArgumentParser(prog="scripts/rig liveness", description=__doc__)
    parser.add_argument("--full", action="store_true", help="two minutes of loss, and whole MiB")
    parser.add_argument("--only", default="", help="rows whose name holds this")
    arguments = parser.parse_args()
    if not is_inside():
        environment = {**os.environ, OUTSIDE: current(), "PATH": SBIN}
        command = [*way_in(), sys.executable, "-m", "tests.rigs.liveness", *sys.argv[1:]]
        return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode
    raise_loopback()
    with tempfile.TemporaryDirectory() as folder:
        rig = Rig(Tls.make(Path(folder)), Firewall(), is_full=arguments.full)
        return run(rig, arguments.only)


def run(rig: Rig, only: str) -> int:
    """Run the rows whose name holds `only`; return how many connman missed, at most 1."""
    print(f"ping_interval {INTERVAL:g} s, ping_timeout {TIMEOUT:g} s: to be noticed within {BOUND:g} s\n")
    print("| shape | " + " | ".join(f"{who} {kind}" for who, kind in COLUMNS) + " |")
    print("|---" * (len(COLUMNS) + 1) + "|")
    is_missed = False
    for name, is_noticing, measure in rig.rows():
        if only not in name:
            continue
        row = measure()
        print(f"| {name} | " + " | ".join(row[column] for column in COLUMNS) + " |", flush=True)
        ours = [text for (who, _), text in row.items() if who == "connman"]
        # What 10 % loss does to a timeout of a second is chance, see docs/reliability.md.
        is_bound = "loss, ping_timeout 1 s" not in name
        is_missed |= is_bound and any(is_late(text) if is_noticing else text != "alive" for text in ours)
    return int(is_missed)


def is_late(text: str) -> bool:
    return not text.endswith(" s") or text.startswith("not") or float(text.removesuffix(" s")) > BOUND


if __name__ == "__main__":
    sys.exit(main())
