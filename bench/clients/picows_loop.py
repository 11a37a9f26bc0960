"""picows on asyncio's own event loop, or on uvloop; `typed` asks each frame what it is, as most programs must."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import picows
import uvloop as fast_loop

from bench import wire
from bench.clients.meter import PATIENCE, Meter, Result

VERSION_OF = "picows"


def run(work: Coroutine[Any, Any, Result], uvloop: int) -> Result:
    """Run on the loop that was asked for."""
    with asyncio.Runner(loop_factory=fast_loop.new_event_loop if uvloop else None) as runner:
        return runner.run(asyncio.wait_for(work, PATIENCE))


def receive(url: str, size: int, count: int, uvloop: int = 0, typed: int = 0) -> Result:
    """Messages a second through on_ws_frame."""
    meter = Meter(count)
    # Counted in on_ws_frame itself, as Meter.callback does: a call more for each message would be unfair.
    seen, marked, mark = 0, 1, meter.mark

    class Counter(picows.WSListener):
        def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
            nonlocal seen, marked
            frame.get_payload_as_utf8_text()
            seen += 1
            if seen == marked:
                marked = mark()
                if seen == count:
                    transport.disconnect()

    class TypedCounter(Counter):
        def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
            nonlocal seen, marked
            if frame.msg_type is picows.WSMsgType.TEXT:
                frame.get_payload_as_utf8_text()
                seen += 1
                if seen == marked:
                    marked = mark()
                    if seen == count:
                        transport.disconnect()

    async def work() -> Result:
        transport, _ = await picows.ws_connect(TypedCounter if typed else Counter, url)
        await transport.wait_disconnected()
        return meter.rate()

    return run(work(), uvloop)


def send(url: str, size: int, count: int, uvloop: int = 0) -> Result:
    """Messages a second, one send() each; it buffers what the system does not take, so it lets the loop turn."""
    message, done = wire.text(size).encode(), asyncio.Event()

    class Sink(picows.WSListener):
        def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
            done.set()

    async def work() -> Result:
        transport, _ = await picows.ws_connect(Sink, url)
        loop = asyncio.get_running_loop()
        begin = loop.time()
        for number in range(count):
            transport.send(picows.WSMsgType.TEXT, message)
            if number % 256 == 0:
                await asyncio.sleep(0)
        await done.wait()
        return {"value": count / (loop.time() - begin)}

    return run(work(), uvloop)


def echo(url: str, size: int, count: int, uvloop: int = 0) -> Result:
    """Microseconds a round trip when on_ws_frame sends the next message."""
    message, meter = wire.text(size).encode(), Meter(count)
    on_message = meter.callback()
    seen = 0

    class Echo(picows.WSListener):
        def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
            nonlocal seen
            on_message(transport, frame.get_payload_as_utf8_text())
            seen += 1
            if seen == count:
                transport.disconnect()
            else:
                transport.send(picows.WSMsgType.TEXT, message)

    async def work() -> Result:
        transport, _ = await picows.ws_connect(Echo, url)
        transport.send(picows.WSMsgType.TEXT, message)
        await transport.wait_disconnected()
        return meter.round_trip()

    return run(work(), uvloop)


def open_many(url: str, count: int, on_message: Callable[[Any, Any], object] | None) -> object:
    """Open so many connections on one loop in a thread of its own."""

    class Listener(picows.WSListener):
        def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
            if on_message:
                on_message(transport, frame.get_payload_as_utf8_text())

    async def dial() -> list[object]:
        return [await picows.ws_connect(Listener, url) for _ in range(count)]

    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    return asyncio.run_coroutine_threadsafe(dial(), loop).result(PATIENCE)
