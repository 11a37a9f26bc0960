"""Echo over one connection while others of the same pool are flooded, and print how that went as a line of JSON.

    beside.py ECHO-URL FLOOD-URL READERS DISPATCH

READERS: as of `Pool(readers=…)`; 0 for a thread each. DISPATCH: "reader" or "thread" runs the callbacks of the flooded
connections, "blocked" has them block on a thread of their own, "recv" has nobody take what comes. Prints the seconds of
each echo, how many times as long everything took because others wanted the processors too, and how much more memory was
resident at most than before the flood.
"""

import json
import os
import sys
import threading
import time

import connman
from tests.hostile.memory import forget_peak, peak
from tests.rigs.relay_hostile.town import Gauges

ECHOES, FLOODS = 60, 2
PATIENCE = 30.0


def echo_time(conn: connman.Connection) -> float:
    began = time.monotonic()
    conn.send("hello")
    assert conn.recv(PATIENCE) == "hello"
    return time.monotonic() - began


def main() -> None:
    echo_url, flood_url, readers, dispatch = sys.argv[1:5]
    over = threading.Event()

    def on_data(conn: connman.Connection, _: object) -> None:
        if dispatch == "blocked":
            over.wait()

    pool = connman.Pool("beside", readers=int(readers) or None, proxy=None, ping_interval=None)
    good = pool.add_connection(echo_url)
    good.wait_open(PATIENCE)
    echo_time(good)
    before = forget_peak()
    flooded = [
        pool.add_connection(
            flood_url,
            on_data=None if dispatch == "recv" else on_data,
            dispatch="thread" if dispatch in ("thread", "blocked") else "reader",
        )
        for _ in range(FLOODS)
    ]
    for conn in flooded:
        conn.wait_open(PATIENCE)
    # Well under way before it counts, or held back.
    seen, before_that = 0, -1
    while seen < (1 << 18) and not before_that == seen > (1 << 12):
        over.wait(0.05)
        seen, before_that = sum(conn.stats.bytes_in for conn in flooded), seen
    gauges = Gauges(os.getpid())
    spent = gauges.processor()
    times = [echo_time(good) for _ in range(ECHOES)]
    ran, waited = gauges.ran_since(spent)
    grown = peak() - before
    began = time.monotonic()
    over.set()
    pool.disconnect(0.2)
    disconnected = time.monotonic() - began
    # A thread may be in its last steps.
    while threading.active_count() > 1 and time.monotonic() - began < PATIENCE:
        threading.Event().wait(0.01)
    answer = {
        "echoes": sorted(times),
        "slower": (ran + waited) / max(ran, 1e-9),
        "memory": grown,
        "flood": sum(conn.stats.bytes_in for conn in flooded),
        "is_open": [conn.stats.losses for conn in flooded] == [0] * FLOODS,
        "disconnected": disconnected,
        "threads": threading.active_count(),
    }
    print(json.dumps(answer))


main()
