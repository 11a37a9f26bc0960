"""connman, a reader thread for each connection: what `connman.connect` gives."""

from __future__ import annotations

import os
import socket
import stat
import threading
import time
from collections.abc import Callable
from typing import Any

import connman
from bench import wire
from bench.clients.crowd import Gathering
from bench.clients.meter import PATIENCE, Meter, Result, time_echoes, time_sends

VERSION_OF = "connman"
BATCH = 128
"""Messages that one send_many() takes."""
SETTLE = 0.5
"""Seconds for the system to take back threads that have ended and sockets that were closed."""


def receive(url: str, size: int, count: int) -> Result:
    """Messages a second through on_data."""
    meter = Meter(count)
    connman.connect(url, on_data=meter.callback())
    meter.wait()
    return meter.rate()


def send(url: str, size: int, count: int, threads: int = 1) -> Result:
    """Messages a second, one send() each."""
    conn, wait = sink(url)
    seconds = time_sends(conn.send, wire.text(size), count, wait, threads=threads)
    return {"value": count / seconds}


def send_many(url: str, size: int, count: int) -> Result:
    """Messages a second, many in each send_many()."""
    conn, wait = sink(url)
    messages = [wire.text(size)] * BATCH
    return {"value": count / time_sends(conn.send_many, messages, count // BATCH, wait)}


def sink(url: str) -> tuple[connman.Connection, Callable[[], object]]:
    """Return an open connection and what waits for the server to have everything."""
    done = threading.Event()
    conn = connman.connect(url, on_data=lambda conn, data: done.set())
    conn.wait_open(PATIENCE)

    def wait() -> None:
        if not done.wait(PATIENCE):
            raise TimeoutError("the server did not get all messages")

    return conn, wait


def echo_callback(url: str, size: int, count: int) -> Result:
    """Microseconds a round trip when on_data sends the next message."""
    message, meter = wire.text(size), Meter(count)
    mark = meter.callback()

    def on_data(conn: connman.Connection, data: object) -> None:
        mark(conn, data)
        conn.send(message)

    connman.connect(url, on_data=on_data, on_open=lambda conn: conn.send(message))
    meter.wait()
    return meter.round_trip()


def echo(url: str, size: int, count: int) -> Result:
    """Microseconds a round trip of send() and recv()."""
    conn = connman.connect(url).wait_open(PATIENCE)
    return time_echoes(conn.send, conn.recv, wire.text(size), count)


def open_many(url: str, count: int, on_message: Callable[[Any, Any], object] | None) -> object:
    """Open so many connections."""
    everyone = Gathering(count)
    options: Any = {"on_data": on_message} if on_message else {}
    kept = [connman.connect(url, on_open=everyone.one_more, **options) for _ in range(count)]
    everyone.wait()
    return kept


def disconnect_all(url: str, count: int, stuck: int) -> Result:
    """Seconds to end so many open connections and those that are in the middle of opening."""
    base = url.rpartition("/")[0]
    threads, sockets = threading.active_count(), open_sockets()
    kept = [connman.connect(f"{base}/never", open_timeout=PATIENCE) for _ in range(stuck)]
    kept.append(open_many(url, count, None))
    wait_for_stuck(base, stuck)
    begin = time.perf_counter()
    connman.disconnect_all()
    seconds = time.perf_counter() - begin
    return {"value": seconds, "faults": left_over(threads, sockets)}


def wait_for_stuck(base: str, stuck: int) -> None:
    """Return when the server has the requests of so many that it will not answer."""
    port = int(base.rpartition(":")[2])
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        with socket.create_connection((wire.HOST, port)) as sock, sock.makefile("rb") as answer:
            sock.sendall(b"GET /never_seen HTTP/1.1\r\n\r\n")
            seen = int(answer.read().rpartition(b"\n")[2])
        if seen >= stuck:
            return
        time.sleep(0.02)
    raise TimeoutError("the connections did not come to the middle of opening")


def left_over(threads: int, sockets: int) -> list[str]:
    """Return what is left of threads and sockets beyond these numbers, in words."""
    until = time.monotonic() + SETTLE
    while time.monotonic() < until and (threading.active_count() > threads or open_sockets() > sockets):
        time.sleep(0.01)
    left = {"threads": threading.active_count() - threads, "sockets": open_sockets() - sockets}
    return [f"{number} {what} left" for what, number in left.items() if number > 0]


def open_sockets() -> int:
    """Return how many sockets this process has open."""
    found = 0
    for number in map(int, os.listdir("/proc/self/fd")):
        try:
            found += stat.S_ISSOCK(os.fstat(number).st_mode)
        except OSError:
            pass  # the one that listdir() itself used
    return found
