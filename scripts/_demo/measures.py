"""What the demo measures of its own process, and the ports and crowds it needs for that."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sized

from feed_process import HOST, reserve_port

from connman import Connection

ANSWER_TIMEOUT = 10.0
SETTLE = 1.0
"""Seconds for a thread that was told to end to be gone, and for the system to take back its sockets."""


def ask_together(conn: Connection, count: int) -> tuple[int, int]:
    """Have ``count`` threads ask for ``conn`` at once; return how many Futures they got, and how many were served."""
    barrier = threading.Barrier(count)
    lock = threading.Lock()
    # Guarded by lock: both. The Futures themselves, because the id of one that is gone may be used again.
    futures: set[object] = set()
    served: list[Connection] = []

    def ask() -> None:
        barrier.wait(ANSWER_TIMEOUT)
        future = conn.get_connected()
        with lock:
            futures.add(future)
        answer = future.result(ANSWER_TIMEOUT)
        with lock:
            served.append(answer)

    threads = [
        threading.Thread(target=ask, name=f"demo-caller-{number}", daemon=True) for number in range(count)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * ANSWER_TIMEOUT)
    return len(futures), sum(answer is conn for answer in served)


@contextlib.contextmanager
def stuck_ports() -> Iterator[tuple[int, int]]:
    """Hold two ports inside the block: one accepts a few connections and never answers, one refuses."""
    with socket.create_server((HOST, 0), backlog=1) as silent, reserve_port() as refusing:
        # Nobody calls accept(): two connections fit the backlog on Linux, the SYN of every further one is dropped.
        yield silent.getsockname()[1], refusing.getsockname()[1]


def own_threads() -> list[threading.Thread]:
    """Return the threads of connman that are alive."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("connman-")]


def open_sockets() -> set[tuple[int, int]]:
    """Return this process's sockets as descriptor and inode."""
    found = set()
    for number in map(int, os.listdir("/dev/fd")):
        # Closed meanwhile: such as the one listdir() itself used.
        with contextlib.suppress(OSError):
            status = os.fstat(number)
            if stat.S_ISSOCK(status.st_mode):
                found.add((number, status.st_ino))
    return found


def left_after(seconds: float, things: Callable[[], Sized]) -> int:
    """Return how many things are left once there are none, or after ``seconds``."""
    until = time.monotonic() + seconds
    pause = threading.Event()
    while (count := len(things())) and time.monotonic() < until:
        pause.wait(0.01)
    return count
