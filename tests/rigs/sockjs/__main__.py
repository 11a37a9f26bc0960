"""Print how long messages take through SockJS over HTTP, beside a plain HTTP request to the same server.

All are medians, on loopback: of a machine that does nothing else they tell the most.
"""

import argparse
import statistics
import threading
import time
from collections.abc import Callable, Iterator

import urllib3

import connman
from tests.transport.sockjs_servers import NAMES, SockjsProcess

# What is to be reached: the first message within so many plain requests, and an echo within so many seconds.
MOST_REQUESTS, MOST_ECHO = 3.0, 0.003


def seconds(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def plain(server: SockjsProcess) -> None:
    """Make one request on a connection of its own."""
    with urllib3.HTTPConnectionPool("127.0.0.1", server.port) as pool:
        assert pool.request("GET", "/echo/info").status == 200


def opened(url: str) -> connman.Connection:
    return connman.connect(url, proxy=None).wait_open(10)


def first(url: str, *, is_asked_for: bool) -> float:
    """Return the seconds from nothing to the first message, which the server sends by itself, or when asked to."""

    def act() -> None:
        conns.append(opened(url))
        if is_asked_for:
            conns[0].send("x")
        conns[0].recv(10)

    conns: list[connman.Connection] = []
    taken = seconds(act)
    conns[0].disconnect()
    return taken


def echoes(url: str, count: int) -> Iterator[float]:
    with opened(url) as conn:
        for _ in range(count):
            yield seconds(lambda: (conn.send("x" * 32), conn.recv(10)))


def many(url: str, count: int) -> tuple[float, float]:
    """Return messages a second, each sent one by one and echoed, and this process's CPU seconds for one, both ways."""
    is_done, left = threading.Event(), iter(range(count - 1, -1, -1))
    with connman.connect(url, proxy=None, on_data=lambda _, message: next(left) or is_done.set()) as conn:

        def act() -> None:
            for _ in range(count):
                conn.send("x" * 32)
            assert is_done.wait(60)

        used = time.process_time()
        taken = seconds(act)
        return count / taken, (time.process_time() - used) / count


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/rig sockjs", description=__doc__)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--messages", type=int, default=10_000)
    arguments = parser.parse_args()
    is_missed = False
    print(
        "| server | transport | plain request | first message | first echo | echo | messages each way | CPU of each |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name in NAMES:
        with SockjsProcess(name) as server:
            for kind in ("streaming", "polling"):
                url = server.url(kind)
                for _ in range(20):  # node compiles what is called often
                    plain(server)
                    first(url, is_asked_for=True)
                samples = [
                    (
                        seconds(lambda: plain(server)),
                        first(server.url(kind, "/greet"), is_asked_for=False),
                        first(url, is_asked_for=True),
                    )
                    for _ in range(arguments.runs)
                ]
                request, message, asked = (statistics.median(column) for column in zip(*samples, strict=True))
                echo = statistics.median(echoes(url, 4 * arguments.runs))
                rate, cpu = statistics.median_low(many(url, arguments.messages) for _ in range(5))
                is_missed |= kind == "streaming" and (message > MOST_REQUESTS * request or echo > MOST_ECHO)
                print(
                    f"| {name} | xhr_{kind} | {request * 1000:.2f} ms | {message / request:.1f} requests "
                    f"| {asked / request:.1f} requests | {echo * 1000:.2f} ms "
                    f"| {rate:,.0f}/s | {cpu * 1e6:.0f} µs |",
                    flush=True,
                )
    print(f"\nto reach, streaming: first message {MOST_REQUESTS:g} requests, echo {MOST_ECHO * 1000:g} ms")
    return is_missed


if __name__ == "__main__":
    raise SystemExit(main())
