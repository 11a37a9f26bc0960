"""A real WebSocket server as a program: `tests.servers.ws_server` starts it.

It prints `{"ready": true}` when it listens. Then each line on stdin is a command, `{"cmd": "stats"}`, and gets one line
of JSON as its answer. It ends when stdin ends.

| path | what it does |
|---|---|
| /echo | sends every message back |
| /feed?interval=0.01&count=100&size=0 | pushes "1", "2", … (padded to `size`), for ever without `count`; then closes |
| /login | wants `{"pass": "open sesame"}` first and answers `{"ok": true}`, then echoes; else closes with 4001 |
| /close?code=1000&reason= | closes at once |
| /burst-then-close?count=100&code=1000 | sends "1" … and closes behind them |
| /both?count=128&size=1048576&lead=16 | sends `count` messages of `size` times the byte of their number and reads as many, each when it has got rid of `lead` more than it has read; then says how many came and the sum of their bytes |
| /silent | reads, and never says anything; answers pings and closes |
| /deaf | reads nothing: no pong, no answer to a close, and the network fills up |
| /http?status=503&Retry-After=1 | refuses the upgrade with that status and those headers |
| /hang | never answers the upgrade |
"""

import argparse
import asyncio
import contextlib
import http
import itertools
import json
import logging
import ssl
import sys
from collections import Counter
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

PASS = {"pass": "open sesame"}
COUNTS = {"accepted": 0, "upgraded": 0, "open": 0, "messages": 0, "goodbyes": 0}
# How clients have left: the codes of their close frames, "none" for those that sent none.
CLOSES: Counter[str] = Counter()


class Counted(ServerConnection):
    """A connection that is counted from the moment its TCP (and TLS) is there."""

    def connection_made(self, transport: Any) -> None:
        COUNTS["accepted"] += 1
        COUNTS["open"] += 1
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        COUNTS["open"] -= 1
        COUNTS["goodbyes"] += (
            getattr(self, "protocol", None) is not None and self.protocol.close_rcvd is not None
        )
        super().connection_lost(exc)
        if self.response is not None and self.response.status_code == http.HTTPStatus.SWITCHING_PROTOCOLS:
            received = self.protocol.close_rcvd
            CLOSES["none" if received is None else str(received.code)] += 1


def query_of(path: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(path).query))


async def echo(ws: ServerConnection, _: dict[str, str]) -> None:
    async for message in ws:
        COUNTS["messages"] += 1
        await ws.send(message)


async def feed(ws: ServerConnection, query: dict[str, str]) -> None:
    count, interval = int(query.get("count", 0)), float(query.get("interval", 0))
    for number in range(1, count + 1) if count else itertools.count(1):
        await ws.send(str(number).ljust(int(query.get("size", 0))))
        if interval or number % 64 == 0:  # the others and the commands have their turn too
            await asyncio.sleep(interval)


async def login(ws: ServerConnection, query: dict[str, str]) -> None:
    try:
        is_right = json.loads(await ws.recv()) == PASS
    except ValueError:
        is_right = False
    if not is_right:
        await ws.close(4001, "wrong pass")
        return
    await ws.send(json.dumps({"ok": True}))
    await echo(ws, query)


async def close(ws: ServerConnection, query: dict[str, str]) -> None:
    await ws.close(int(query.get("code", 1000)), query.get("reason", ""))


async def burst_then_close(ws: ServerConnection, query: dict[str, str]) -> None:
    for number in range(1, int(query.get("count", 100)) + 1):
        await ws.send(str(number))
    await close(ws, query)


async def both(ws: ServerConnection, query: dict[str, str]) -> None:
    count, size, lead = int(query["count"]), int(query["size"]), int(query.get("lead", 16))
    total = 0
    for number in range(count + lead):
        if number < count:
            await ws.send(bytes([number]) * size)
        if number >= lead:
            message = await ws.recv(decode=False)
            total += sum(byte * message.count(byte) for byte in set(message[:1] + message[-1:]))
    await ws.send(f"{count} {total}")
    await ws.wait_closed()


async def silent(ws: ServerConnection, _: dict[str, str]) -> None:
    async for _message in ws:
        COUNTS["messages"] += 1


async def deaf(ws: ServerConnection, _: dict[str, str]) -> None:
    ws.transport.pause_reading()
    await asyncio.Future()


BEHAVIOURS = {
    "/echo": echo,
    "/feed": feed,
    "/login": login,
    "/close": close,
    "/burst-then-close": burst_then_close,
    "/both": both,
    "/silent": silent,
    "/deaf": deaf,
}


async def handle(ws: ServerConnection) -> None:
    COUNTS["upgraded"] += 1
    assert ws.request is not None
    with contextlib.suppress(ConnectionClosed):
        await BEHAVIOURS[urlsplit(ws.request.path).path](ws, query_of(ws.request.path))


async def before_upgrade(_: ServerConnection, request: Request) -> Response | None:
    path = urlsplit(request.path).path
    if path == "/hang":
        await asyncio.Future()
    if path != "/http" and path in BEHAVIOURS:
        return None
    fields = query_of(request.path) if path == "/http" else {"status": "404"}
    status = http.HTTPStatus(int(fields.pop("status", 503)))
    body = f"{status.phrase}\n".encode()
    headers = Headers([*fields.items(), ("Content-Length", str(len(body))), ("Connection", "close")])
    return Response(status.value, status.phrase, headers, body)


async def obey(server: Server, command: dict[str, Any]) -> dict[str, Any]:
    match command["cmd"]:
        case "stats":
            return dict(COUNTS)
        case "closes":
            return dict(CLOSES)
        case "broadcast":
            for ws in list(server.connections):
                with contextlib.suppress(ConnectionClosed):
                    await ws.send(command["data"])
        case "close_all":
            for ws in list(server.connections):
                # Not awaited: a peer that does not answer must not hold the answer to the command.
                ws.closing = asyncio.create_task(ws.close(command["code"], command["reason"]))  # type: ignore[attr-defined]
        case "drop_all":
            for ws in list(server.connections):
                ws.transport.abort()
    return {"done": command["cmd"]}


def say(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)


async def stdin_lines() -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    return reader


async def main(port: int, tls: ssl.SSLContext | None) -> None:
    async with serve(
        handle, "127.0.0.1", port, ssl=tls, process_request=before_upgrade, create_connection=Counted,
        compression=None, max_size=None, ping_interval=None, open_timeout=None, close_timeout=10, backlog=4096,
    ) as server:  # fmt: skip
        lines = await stdin_lines()
        say({"ready": True})
        while line := await lines.readline():
            say(await obey(server, json.loads(line)))
        server.close(close_connections=False)
        for ws in list(server.connections):
            ws.transport.abort()


def tls_context(certfile: str, keyfile: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certfile, keyfile)
    return context


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--certfile")
    parser.add_argument("--keyfile")
    args = parser.parse_args()
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # not each send to a client that has gone
    asyncio.run(main(args.port, tls_context(args.certfile, args.keyfile) if args.certfile else None))
