"""What stands on the stage: relays as processes, and a herd of providers and callers in this one."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

ROOT = Path(__file__).parents[3]
PATIENCE = 30.0

# Limits are not what is on show: the whole herd comes from one address, at once.
RELAY = """
import sys
from connman.relay import Limits, RedisBroker, Relay
limits = Limits(max_connections=100_000, max_per_address=100_000, max_per_name=10_000,
                attempts_per_second=1e6, burst=1_000_000, join_timeout=30)
broker = RedisBroker(sys.argv[1]) if sys.argv[1] else None
with Relay(port=int(sys.argv[2]), limits=limits, broker=broker) as relay:
    print(relay.port, flush=True)
    sys.stdin.read()
"""


class RelayProcess:
    """A relay in a process of its own, on the same port each time."""

    def __init__(self, broker: str = "") -> None:
        self._broker = broker
        self._process: subprocess.Popen[str] | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.kill()

    def start(self) -> None:
        command = [sys.executable, "-c", RELAY, self._broker, str(self.port)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    pipe.close()
            self._process.wait()
            self._process = None

    def send_signal(self, sign: signal.Signals) -> None:
        os.kill(self.pid, sign)

    @property
    def memory(self) -> int:
        """Resident bytes."""
        pages = Path(f"/proc/{self.pid}/statm").read_text(encoding="ascii").split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    @property
    def cpu(self) -> float:
        """Seconds of CPU so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Peer:
    """A client of a relay: a provider, or a caller."""

    def __init__(self, ws: ClientConnection) -> None:
        self.ws = ws

    @classmethod
    async def dial(cls, url: str) -> "Peer":
        ws = await connect(
            url, compression=None, proxy=None, open_timeout=PATIENCE, ping_interval=None, close_timeout=1
        )
        return cls(ws)

    async def say(self, **fields: Any) -> None:
        """Send; what has become of it is heard."""
        with contextlib.suppress(ConnectionClosed):
            await self.ws.send(json.dumps(fields))

    async def hear(self) -> Any:
        """Return the next message, from JSON, or the code of the close."""
        try:
            async with asyncio.timeout(PATIENCE):
                return json.loads(await self.ws.recv())
        except ConnectionClosed as closed:
            return closed.rcvd.code if closed.rcvd is not None else 1006

    async def end(self) -> int:
        """Wait for the close, and return its code."""
        while not isinstance(heard := await self.hear(), int):
            pass
        return heard

    def drop(self) -> None:
        self.ws.transport.abort()


class Provider:
    """Keeps one spare under a name: echoes what it is asked, with its own number, and keeps count of its callers."""

    def __init__(self, number: int, name: str, url: str, may_dial: asyncio.Event) -> None:
        self.number = number
        self.name = name
        self.served: list[int] = []  # each caller it was joined with
        self.closes: list[int] = []
        self._url = url
        self._may_dial = may_dial
        self.is_spare = asyncio.Event()
        self.task = asyncio.create_task(self._live())

    async def _live(self) -> None:
        while True:
            # A thousand that dial nobody again and again would keep this process from measuring anything.
            await self._may_dial.wait()
            try:
                await self._spare()
            except (OSError, TimeoutError, ConnectionClosed, EOFError):
                self.is_spare.clear()
                await asyncio.sleep(0.2)
            except Exception as error:
                if type(error).__name__ not in (
                    "InvalidMessage",
                    "InvalidStatus",
                ):  # a relay killed in mid-upgrade
                    raise
                await asyncio.sleep(0.2)

    async def _spare(self) -> None:
        peer = await Peer.dial(self._url)
        try:
            await peer.say(command="provide", name=self.name)
            if await peer.hear() != {"command": "provided"}:
                return
            self.is_spare.set()
            heard = await self._wait(peer)
            self.is_spare.clear()
            if heard != {"command": "handover"}:
                return
            await peer.say(command="ready")
            while not isinstance(asked := await self._wait(peer), int):
                if asked["is_first"]:
                    self.served.append(asked["caller"])
                await peer.say(caller=asked["caller"], provider=self.number)
            self.closes.append(asked)
        finally:
            peer.drop()

    async def _wait(self, peer: Peer) -> Any:
        """Hear something, however long it takes."""
        try:
            return json.loads(await peer.ws.recv())
        except ConnectionClosed as closed:
            return closed.rcvd.code if closed.rcvd is not None else 1006


class Caller:
    """Reaches a name, and asks who is there."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.peer: Peer | None = None
        self.provider = -1
        self.code = 0  # of the close that it got instead of a provider

    async def dial(self, url: str) -> None:
        self.peer = await Peer.dial(url)

    async def reach(self, name: str) -> bool:
        """Be joined; return whether it was."""
        assert self.peer is not None
        await self.peer.say(command="reach", name=name)
        heard = await self.peer.hear()
        if heard != {"command": "reached"}:
            self.code = heard
            return False
        return True

    async def ask(self, *, is_first: bool = True) -> bool:
        """Ask who is there; return whether the answer was for this caller."""
        assert self.peer is not None
        await self.peer.say(caller=self.number, is_first=is_first)
        heard = await self.peer.hear()
        if isinstance(heard, int):
            self.code = heard
            return False
        self.provider = heard["provider"]
        return bool(heard["caller"] == self.number)

    def drop(self) -> None:
        if self.peer is not None:
            self.peer.drop()


async def end_all(tasks: Iterable["asyncio.Task[Any]"]) -> None:
    tasks = list(tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
