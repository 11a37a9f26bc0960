"""Calls from the main thread, cut short by a signal handler that raises at any moment.

The arguments are the seed, and "memory" or "sockets": over these the main thread reads itself.

What a Ctrl-C may do is end the path; it may not leave anything locked, waiting, without a deadline, or answered wrongly.
"""

import random
import signal
import sys
import time

from connman.errors import CallTimeout, PeerGone
from tests.rpc.rig import Pair

SECONDS = 3.0


class Cut(BaseException):
    """What the handler raises, once for each time that it is armed."""


armed: list[bool] = []


def cut(*_: object) -> None:
    if armed:
        armed.clear()
        raise Cut


def cut_within(seconds: float, pair: Pair, number: int, kind: float) -> None:
    try:
        armed.append(True)
        signal.setitimer(signal.ITIMER_REAL, seconds)
        use(pair, number, kind)
        armed.clear()
    except Cut:
        pass


def use(pair: Pair, number: int, kind: float) -> None:
    if kind < 0.5:
        assert pair.here.call("same", number, timeout=10) == number
    elif kind < 0.9:
        assert pair.here.send("same", number, timeout=10).result(10) == number
    else:
        pair.here.notify("same", number)


def make(how: str) -> Pair:
    return Pair({"same": lambda x: x}, over_sockets=how == "sockets").__enter__()


def main(seed: int, how: str) -> None:
    rnd = random.Random(seed)
    signal.signal(signal.SIGALRM, cut)
    until, number, pair = time.monotonic() + SECONDS, 0, make(how)
    while time.monotonic() < until:
        number += 1
        try:
            try:
                cut_within(rnd.random() * 0.0003 + 0.000001, pair, number, rnd.random())
            finally:
                armed.clear()
            if number % 20 == 0:
                use(pair, number, 0.0)
                assert pair.here.stats.calls_in_flight < 100
        except (PeerGone, Cut):  # the latter between two lines of this loop
            pair.__exit__()
            pair = make(how)
        except CallTimeout:
            sys.exit(f"call {number} hung")
    pair.__exit__()
    print("done")


main(int(sys.argv[1]), sys.argv[2])
