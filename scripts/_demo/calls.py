"""Calls to a device behind a relay, from several threads: each one's answer is checked, and how it ended written down."""

from __future__ import annotations

import itertools
import threading
import time
from typing import Self

import pace
from calls_server import DEVICE
from leaks import LeakGuard

from connman import rpc
from connman.errors import ConnmanError, NoSuchPeer, PeerGone

now = time.monotonic


class Calls:
    """Two kinds of callers on one peer: those that may not run again, and those with ``retry_safe``; a with-block.

    Threads: each caller has one of its own; every method from any thread.
    """

    def __init__(self, url: str, guard: LeakGuard) -> None:
        self._guard = guard
        self._numbers = itertools.count(1)
        self._is_over = threading.Event()
        self._condition = threading.Condition()
        # Guarded by _condition: all of these.
        self.answered = self.called_back = self.wrong = self.lost = self.cut = 0
        self._broke_at = float("inf")
        self.slowest_end = 0.0
        self._last_good: dict[bool, float] = {True: -float("inf"), False: -float("inf")}
        self._peer = rpc.reach(
            url,
            DEVICE,
            token=guard.secret,
            services={"fee": self._fee},
            call_timeout=pace.CALL_TIMEOUT,
            wait=pace.call_wait(),
        )
        self._threads = [
            threading.Thread(target=self._call_loop, args=(number % 2 == 0,), name=f"demo-calls-{number}", daemon=True)
            for number in range(pace.CALL_THREADS)
        ]  # fmt: skip

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join(pace.CALL_TIMEOUT)
        self._peer.close()

    def note_break(self) -> None:
        """Take note that the path breaks now: calls that fail are to end soon."""
        with self._condition:
            self._broke_at = now()

    def seconds_until_both_kinds_go_on(self, began: float, timeout: float) -> float:
        """Wait until a call of each kind that was begun after ``began`` has its answer; return how long it took, or inf."""
        with self._condition:
            is_done = self._condition.wait_for(lambda: min(self._last_good.values()) > began, timeout)
            return now() - began if is_done else float("inf")

    def _fee(self, price: int) -> int:
        with self._condition:
            self.called_back += 1
        return price % 7

    def _call_loop(self, is_safe: bool) -> None:
        while not self._is_over.is_set():
            began = now()
            try:
                is_right = self._call(next(self._numbers), is_safe)
            except ConnmanError as error:
                self._guard.look(f"{error!r} {error}")
                self._failed(began, error, is_safe)
                self._is_over.wait(pace.CALL_TAKES)
            else:
                self._succeeded(began, is_safe, is_right)

    def _call(self, number: int, is_safe: bool) -> bool:
        if is_safe:
            return bool(self._peer.call("square", number, retry_safe=True) == number * number)
        return bool(self._peer.call("charge", number) == number + number % 7)

    def _succeeded(self, began: float, is_safe: bool, is_right: bool) -> None:
        with self._condition:
            self.answered += 1
            self.wrong += not is_right
            self._last_good[is_safe] = max(self._last_good[is_safe], began)
            self._condition.notify_all()

    def _failed(self, began: float, error: ConnmanError, is_safe: bool) -> None:
        with self._condition:
            if is_safe or not isinstance(error, PeerGone | NoSuchPeer):
                self.lost += 1
                return
            self.cut += 1
            self.slowest_end = max(self.slowest_end, now() - max(began, self._broke_at))
