"""A provider and a caller that mean well, as a program: the caller opens its pair again and again and asks five times.

`honest.py PORT TOKEN BYSTANDER`. Each line on stdin is answered with what was measured since the line before, as JSON:
seconds from dialling to the first answer, seconds of each further answer, the longest that a bystander took for an answer
meanwhile, and what went wrong. It ends when stdin does.
"""

import asyncio
import base64
import contextlib
import json
import os
import struct
import sys
import time

NAME = "honest"
SPARES = 4
PAUSE = 0.05
TICK = 0.005
TEXT, CLOSE, PING, PONG = 1, 8, 9, 10


class Lost(Exception):
    """The relay has ended the connection."""


class Link:
    """One WebSocket, with nothing but what is needed."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, port: int, token: str) -> "Link":
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        key = base64.b64encode(os.urandom(16)).decode()
        writer.write(
            f"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
        )
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            raise Lost("no answer to the upgrade") from None
        if not head.startswith(b"HTTP/1.1 101 "):
            raise Lost(head.partition(b"\r\n")[0].decode())
        return cls(reader, writer)

    def send(self, opcode: int, payload: bytes) -> None:
        # A mask of zeros: the payload stays as it is.
        size = (
            bytes([0x80 | len(payload)]) if len(payload) < 126 else b"\xfe" + struct.pack("!H", len(payload))
        )
        self._writer.write(bytes([0x80 | opcode]) + size + bytes(4) + payload)

    async def receive(self) -> str:
        """Return the next text; pings are answered. The honest never send more than 125 bytes."""
        while True:
            try:
                opcode, size = await self._reader.readexactly(2)
                payload = await self._reader.readexactly(size)
            except (asyncio.IncompleteReadError, ConnectionError) as error:
                raise Lost(f"cut: {type(error).__name__}") from None
            match opcode & 0x0F:
                case 8:
                    raise Lost(f"closed: {payload[:2].hex()} {payload[2:].decode()}")
                case 9:
                    self.send(PONG, payload)
                case 1:
                    return payload.decode()

    async def close(self) -> None:
        with contextlib.suppress(ConnectionError):
            self.send(CLOSE, struct.pack("!H", 1000))
            with contextlib.suppress(Lost):
                while True:
                    await self.receive()
            self._writer.close()
            await self._writer.wait_closed()


class Honest:
    """Both of them, and what they have measured."""

    def __init__(self, port: int, token: str, bystander: int) -> None:
        self._bystander = bystander
        self._port = port
        self._token = token
        self._tasks: set[asyncio.Task[None]] = set()
        self._forget()

    def _forget(self) -> None:
        self._opens: list[float] = []
        self._echoes: list[float] = []
        self._wrong: list[str] = []
        self._bystander_late = 0.0

    async def run(self) -> None:
        waiting = asyncio.Semaphore(SPARES)
        self._start(self._watch())
        self._start(self._answer_stdin())
        self._start(self._call())
        while True:
            await waiting.acquire()
            self._start(self._serve(waiting))

    def _start(self, work: "asyncio.Coroutine[None, None, None]") -> None:  # type: ignore[name-defined]
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, waiting: asyncio.Semaphore) -> None:
        """Wait as a spare, let another one take its place when it is called, and send everything back."""
        is_spare = True
        try:
            link = await Link.open(self._port, self._token)
            link.send(TEXT, json.dumps({"command": "provide", "name": NAME}).encode())
            assert json.loads(await link.receive()) == {"command": "provided"}
            assert json.loads(await link.receive()) == {"command": "handover"}
            link.send(TEXT, b'{"command":"ready"}')
            is_spare = False
            waiting.release()
            with contextlib.suppress(Lost):
                while True:
                    link.send(TEXT, (await link.receive()).encode())
            await link.close()
        except (Lost, OSError, AssertionError) as error:
            self._wrong.append(f"provider: {error}")
            await asyncio.sleep(0.1)
        finally:
            if is_spare:
                waiting.release()

    async def _call(self) -> None:
        # Its provider needs a moment to be there.
        await asyncio.sleep(0.3)
        while True:
            try:
                async with asyncio.timeout(5):
                    await self._call_once()
            except (Lost, OSError, AssertionError, TimeoutError) as error:
                self._wrong.append(f"caller: {error or type(error).__name__}")
            await asyncio.sleep(PAUSE)

    async def _call_once(self) -> None:
        begin = time.perf_counter()
        link = await Link.open(self._port, self._token)
        link.send(TEXT, json.dumps({"command": "reach", "name": NAME}).encode())
        assert json.loads(await link.receive()) == {"command": "reached"}
        for number in range(6):
            link.send(TEXT, f"question {number}".encode())
            assert await link.receive() == f"question {number}"
            end = time.perf_counter()
            (self._echoes if number else self._opens).append(end - begin)
            begin = end
        await link.close()

    async def _watch(self) -> None:
        """Ask a process that has nothing to do with the relay: what it is late is the machine's load, or our own."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._bystander)
        while True:
            begin = time.perf_counter()
            writer.write(b"x")
            await reader.readexactly(1)
            self._bystander_late = max(self._bystander_late, time.perf_counter() - begin)
            await asyncio.sleep(TICK)

    async def _answer_stdin(self) -> None:
        loop = asyncio.get_running_loop()
        while await loop.run_in_executor(None, sys.stdin.readline):
            told = {
                "opens": self._opens,
                "echoes": self._echoes,
                "wrong": self._wrong,
                "bystander": self._bystander_late,
            }
            print(json.dumps(told), flush=True)
            self._forget()
        os._exit(0)


if __name__ == "__main__":
    asyncio.run(Honest(int(sys.argv[1]), sys.argv[2], int(sys.argv[3])).run())
