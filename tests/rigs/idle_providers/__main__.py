"""Have thousands of providers wait at one relay, and say what each costs it: memory, and CPU at rest."""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import re
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

PAGE = os.sysconf("SC_PAGE_SIZE")
TICK = os.sysconf("SC_CLK_TCK")
PING, TEXT = 0x9, 0x1
TOGETHER = 50


@dataclass(frozen=True, slots=True)
class Cost:
    """What the relay's process has taken so far."""

    resident: int
    cpu: float
    threads: int

    @classmethod
    def of(cls, pid: int) -> Cost:
        folder = Path(f"/proc/{pid}")
        stat = (folder / "stat").read_text().rpartition(")")[2].split()
        resident = int((folder / "statm").read_text().split()[1]) * PAGE
        return cls(resident, (int(stat[11]) + int(stat[12])) / TICK, int(stat[17]))


class Provider:
    """A raw WebSocket that says a name, answers pings, and does nothing else: it costs the rig itself next to nothing."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.pings = 0

    @classmethod
    async def join(cls, port: int, number: int) -> Provider:
        # From an address of its own, as a device would: the relay bounds how often one address may try.
        own = f"127.1.{number // 250}.{number % 250 + 1}"
        provider = cls(*await asyncio.open_connection("127.0.0.1", port, local_addr=(own, 0)))
        key = base64.b64encode(os.urandom(16)).decode()
        provider._writer.write(
            f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        head = await provider._reader.readuntil(b"\r\n\r\n")
        if b" 101 " not in head:
            raise SystemExit(f"the relay refuses: {head.splitlines()[0]!r}")
        provider._send(TEXT, json.dumps({"command": "provide", "name": f"device-{number}"}).encode())
        opcode, payload = await provider._frame()
        if opcode != TEXT or json.loads(payload) != {"command": "provided"}:
            raise SystemExit(f"the relay says {payload!r}")
        return provider

    def _send(self, opcode: int, payload: bytes) -> None:
        # A mask of zeros leaves the payload as it is.
        self._writer.write(bytes((0x80 | opcode, 0x80 | len(payload))) + bytes(4) + payload)

    async def _frame(self) -> tuple[int, bytes]:
        first, second = await self._reader.readexactly(2)
        length = second & 0x7F
        if length == 126:
            (length,) = struct.unpack(">H", await self._reader.readexactly(2))
        return first & 0x0F, await self._reader.readexactly(length)

    async def stay(self) -> None:
        while True:
            opcode, payload = await self._frame()
            if opcode == PING:
                self.pings += 1
                self._send(0xA, payload)
            else:
                raise SystemExit(f"the relay says {opcode}: {payload!r}")

    def leave(self) -> None:
        self._writer.close()


async def measure(pid: int, port: int, count: int, seconds: float) -> None:
    # One that comes and goes first: what the relay imports and makes for the first of all is no other's cost.
    (await Provider.join(port, 60_000)).leave()
    await asyncio.sleep(1.0)
    before = Cost.of(pid)
    providers: list[Provider] = []
    began = asyncio.get_running_loop().time()
    for start in range(0, count, TOGETHER):
        numbers = range(start, min(start + TOGETHER, count))
        providers += await asyncio.gather(*(Provider.join(port, n) for n in numbers))
    took = asyncio.get_running_loop().time() - began
    joined = Cost.of(pid)
    staying = [asyncio.ensure_future(provider.stay()) for provider in providers]
    await asyncio.sleep(2.0)
    rest = Cost.of(pid)
    await asyncio.sleep(seconds)
    after = Cost.of(pid)
    if over := [task for task in staying if task.done()]:
        over[0].result()
    each = (after.resident - before.resident) / count
    print(
        f"{count:,} providers joined in {took:.1f} s, for {(joined.cpu - before.cpu) / count * 1e6:.0f} us of CPU each"
    )
    print(
        f"memory of the relay: {before.resident / 2**20:.1f} MiB with none, {after.resident / 2**20:.1f} MiB with all:"
        f" {each / 1024:.1f} KiB each; {after.threads} threads"
    )
    pings = sum(provider.pings for provider in providers)
    share = (after.cpu - rest.cpu) / seconds
    print(
        f"CPU at rest: {share:.2%} of one core over {seconds:g} s, {pings:,} pings answered; load {os.getloadavg()[0]:.1f}"
    )
    for task in staying:
        task.cancel()
    await asyncio.gather(*staying, return_exceptions=True)
    for provider in providers:
        provider.leave()


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/rig idle-providers", description=__doc__)
    parser.add_argument("--providers", type=int, default=2000, help="default 2,000")
    parser.add_argument("--seconds", type=float, default=60.0, help="at rest, default 60")
    args = parser.parse_args()
    relay = subprocess.Popen(
        [sys.executable, "-m", "connman", "relay", "--port", "0"], stderr=subprocess.PIPE, text=True
    )
    try:
        assert relay.stderr is not None
        found = re.search(r"ws://[^:]+:(\d+)", relay.stderr.readline())
        if found is None:
            raise SystemExit("the relay does not say where it listens")
        asyncio.run(measure(relay.pid, int(found[1]), args.providers, args.seconds))
    finally:
        relay.terminate()
        relay.wait()


if __name__ == "__main__":
    main()
