"""One of the two processes that call each other through the relay: ``provider`` or ``caller``.

It calls until its input ends, finishes what is under way, and says how much it has done.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import sys
import threading
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

from connman.errors import CallTimeout, NoSuchPeer, PeerGone
from connman.rpc import Peer, provide, reach
from connman.rpc.answered import Asker, Key
from tests.rigs.chaos.ledger import Lines, now

NAME = "chaos"
PLANTS = ("wrong", "twice", "again")
"""Bugs to plant: now and then a wrong answer, ids of calls that nobody remembers, calls sent again though they may not."""
SAFE_TIMEOUT = 120.0
# Of calls that cannot be made just now: without a pause they would be the only ones.
PAUSE = 0.02
# So many workers may be held up by slow services that the quick ones always find another.
WORKERS = 32


class Work:
    """The service: it leaves a line before it answers, and takes its time now and then."""

    def __init__(self, lines: Lines, *, is_wrong: bool) -> None:
        self._lines = lines
        self._is_wrong = is_wrong
        self._pid = os.getpid()
        self._never = threading.Event()

    def __call__(self, key: str, number: int, milliseconds: float) -> list[object]:
        self._lines.write("ran", key, self._pid)
        if milliseconds:
            self._never.wait(milliseconds / 1000)
        return [key, number * 7 + (0 if self._is_wrong and number % 500 == 499 else 1)]


class Forgetful:
    """In the place of what knows the calls that have run: everything is run."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._askers: dict[Key, list[Asker]] = {}

    def begin(self, key: Key, asker: Asker) -> tuple[bool, str | None]:
        with self._lock:
            self._askers.setdefault(key, []).append(asker)
        return True, None

    def give_back(self, key: Key) -> list[Asker]:
        with self._lock:
            return self._askers.pop(key, [])

    def finish(self, key: Key, answer: str | None) -> None:
        for asker in self.give_back(key):
            asker.answer(answer or "")


class Driver:
    """Keeps calls in flight on one peer, and writes down what becomes of each."""

    def __init__(
        self,
        who: str,
        lines: Lines,
        in_flight: int,
        rng: random.Random,
        *,
        safe_share: float,
        sends_all_again: bool,
    ) -> None:
        self._who = who
        self._lines = lines
        self._pid = os.getpid()
        self._in_flight = in_flight
        self._slots = threading.Semaphore(in_flight)
        self._safe_share = safe_share
        self._sends_all_again = sends_all_again
        self._rng = rng
        self._numbers = itertools.count()
        self._stopping = threading.Event()
        self._trouble = threading.Event()
        self._never = threading.Event()

    def drive(self, peer: Peer) -> None:
        """Call until it is told to stop, or ``peer`` is closed."""
        while not self._stopping.is_set() and not peer.closed.done():
            if self._slots.acquire(timeout=0.1):
                self._call(peer)
            if self._trouble.is_set():
                self._trouble.clear()
                self._never.wait(PAUSE)

    def _call(self, peer: Peer) -> None:
        number = next(self._numbers)
        key = f"{self._who}.{number}"
        is_safe = self._rng.random() < self._safe_share
        wait = self._rng.choice((0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5))
        self._lines.write("called", key, self._pid, "safe" if is_safe else "once", now())
        options: dict[str, Any] = {
            "retry_safe": is_safe or self._sends_all_again,
            "timeout": SAFE_TIMEOUT if is_safe else 30.0,
        }
        future = peer.send("work", key, number, wait, **options)
        future.add_done_callback(partial(self._done, key, number))

    def _done(self, key: str, number: int, future: Future[Any]) -> None:
        error = future.exception()
        if error is None:
            outcome = "ok" if future.result() == [key, number * 7 + 1] else "wrong"
        elif isinstance(error, NoSuchPeer):
            outcome = "nobody"
        elif isinstance(error, PeerGone):
            outcome = "gone" if error.sent else "unsent"
        elif isinstance(error, CallTimeout):
            outcome = "timeout"
        else:
            outcome = type(error).__name__
        self._lines.write("ended", key, self._pid, now(), outcome)
        if outcome != "ok":
            self._trouble.set()
        self._slots.release()

    def stop(self) -> None:
        """Begin no more calls."""
        self._stopping.set()

    def finish(self, timeout: float) -> None:
        """Wait until no call is under way."""
        for _ in range(self._in_flight):
            if not self._slots.acquire(timeout=timeout):
                print("calls are still under way", file=sys.stderr)
                return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("role", choices=("provider", "caller"))
    parser.add_argument("url")
    parser.add_argument("--life", type=int, default=0, help="how often this side was started before")
    parser.add_argument("--in-flight", type=int, default=32)
    parser.add_argument("--safe-share", type=float, default=0.25)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--calls", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--plant", choices=PLANTS)
    args = parser.parse_args()
    calls, work = Lines(args.calls), Work(Lines(args.runs), is_wrong=args.plant == "wrong")
    rng = random.Random(f"{args.seed} {args.role} {args.life}")
    pairs = itertools.count()
    drivers: list[Driver] = []

    def driver(share: float) -> Driver:
        who = f"{args.role[0]}{args.life}.{next(pairs)}"
        again = args.plant == "again" and args.role == "caller"
        drivers.append(Driver(who, calls, args.in_flight, rng, safe_share=share, sends_all_again=again))
        return drivers[-1]

    if args.role == "caller":
        peer = reach(args.url, NAME, services={"work": work}, max_workers=WORKERS)
        driving = threading.Thread(target=driver(args.safe_share).drive, args=(peer,))
        driving.start()
        sys.stdin.read()
        drivers[0].stop()
        driving.join()
        drivers[0].finish(SAFE_TIMEOUT)
        peer.close()
        return

    def joined(peer: Peer) -> None:
        # Its caller is lost with it: nothing sent to it may be sent again to another.
        threading.Thread(target=driver(0.0).drive, args=(peer,), daemon=True).start()

    provider = provide(args.url, NAME, {"work": work}, max_workers=WORKERS, on_peer=joined)
    if args.plant in ("twice", "again"):
        provider.services.answered = Forgetful()  # type: ignore[assignment]  # a planted bug
    sys.stdin.read()
    for each in drivers:
        each.stop()
    for each in drivers:
        each.finish(30.0)
    provider.close()


if __name__ == "__main__":
    main()
