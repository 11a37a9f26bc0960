"""The way that worked last time first."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from connman.options import check_seconds
from connman.records import Step
from connman.strategy.base import Opened, Report, Result, Run, Runner, Strategy, checked
from connman.strategy.leaf import HTTP_PRIORITY, PRIORITY
from connman.strategy.sequential import Sequential
from connman.strategy.store import Slot, Store, store_for

# What the attempt with the cached leaf gets beyond twice the time it took when it was stored.
_MARGIN = 1.0
# So many starts pass a cached leaf of HTTP over, in case that websockets work by now.
_SKIPS = 3
# No leaf took longer than a day: such a record is damaged.
_MOST_LATENCY = 86400.0
_MOST = 1e15


class Cached(Strategy):
    """Try the leaf that won last time alone, and ``child`` at once when that fails, or takes twice as long and 1 s more.

    ``store``: any mapping of texts, the path of a JSON file that processes may share, or None for such a file in the
    user's cache folder, for which connman[http] is needed. It is read by who starts the tree, so a mapping behind a
    network wants a timeout of its own; it is written on a thread. One that fails is none, of which one warning tells.
    ``ttl``: seconds for which it counts; every success renews it. ``key``: what it is stored under; None for one made
    of the leaves' hosts, and whether all of them speak TLS. ``now``: the time of the day that all who share it have.

    A leaf of priority 1 (HTTP) is passed over, and ``child`` started, until that has been so four times: the better
    ways get their chance. A failure of either forgets what is stored. Leaves are told apart by name: the first one counts.

    Raises: InvalidOption.
    Threads: every method from any thread, but for `start`.
    """

    def __init__(
        self,
        child: Strategy,
        store: Store | str | os.PathLike[str] | None = None,
        ttl: float = 1800.0,
        *,
        key: str | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.children = checked(child)
        check_seconds("ttl", ttl, zero=True)
        self.ttl = ttl
        self.now = now
        self.key = _key(child) if key is None else key
        found = store_for(store)
        self._slot = None if found is None else Slot(found, self.key)

    @property
    def label(self) -> str:
        """What it says of itself in `describe`."""
        return f"Cached: {self.ttl:g} s" + ("" if self._slot else ", without a store")

    def start(self, run: Run, report: Report, min_priority: int) -> Runner:
        """Start the cached leaf or the child; see `Strategy.start`.

        Threads: within an event of ``run``; blocks as long as the store takes to be read.
        """
        if self._slot is None:
            return run.start(self.children[0], report, min_priority)
        runner = _Remembering(self, self._slot, run, report, min_priority)
        runner.begin()
        return runner

    def is_fresh(self, timestamp: float) -> bool:
        """Return whether what was stored at ``timestamp`` counts.

        Threads: any.
        """
        now = self.now()
        # From the future, since a clock was set back: it must not count for ever.
        return timestamp - self.ttl <= now <= timestamp + self.ttl

    def leaf(self, name: str) -> Strategy | None:
        """Return the first leaf of that name, None without one.

        Threads: any.
        """
        return next((leaf for leaf in self.leaves() if leaf.name == name), None)


@dataclass(frozen=True, slots=True)
class _Record:
    """What is stored: which leaf won when, after how many seconds, and how often it has been passed over."""

    timestamp: float
    transport: str
    latency: float
    skips: int = 0

    def text(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def parse(cls, text: str) -> _Record | None:
        try:
            record: Any = cls(**json.loads(text))  # of whatever types the text has
        except (TypeError, ValueError, RecursionError):
            return None
        is_whole = (
            isinstance(record.transport, str)
            and _is_number(record.timestamp)
            and _is_number(record.latency)
            and 0 <= record.latency <= _MOST_LATENCY
            and _is_number(record.skips)
            and record.skips >= 0
        )
        return record if is_whole else None


def _is_number(value: Any) -> bool:
    # Neither NaN nor anything that a float could not hold: JSON has numbers of any size.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _MOST


def _key(tree: Strategy) -> str:
    """Return a key that other servers, and the same ones without TLS, do not have."""
    endpoints = [getattr(leaf, "endpoint", None) for leaf in tree.leaves()]
    is_tls = all(endpoint is not None and endpoint.is_secure for endpoint in endpoints)
    hosts = {endpoint.authority if endpoint.host else str(endpoint) for endpoint in endpoints if endpoint}
    return f"connman:{'tls' if is_tls else 'plain'}:{','.join(sorted(hosts))}"


class _Remembering:
    """A `Cached` under way. Threads: the run's events."""

    def __init__(self, plan: Cached, slot: Slot, run: Run, report: Report, min_priority: int) -> None:
        self._plan = plan
        self._slot = slot
        self._run = run
        self._report = report
        self._min_priority = min_priority
        self._began = 0.0
        self._skips = 0
        self._is_stored = False
        self._is_cached = False  # whether the leaf is tried alone
        self._child: Runner | None = None

    def begin(self) -> None:
        text = self._slot.read()
        self._is_stored = text is not None
        record = None if text is None else _Record.parse(text)
        if record is None:
            self._forget()
        else:
            self._skips = record.skips
            leaf = self._plan.leaf(record.transport) if self._plan.is_fresh(record.timestamp) else None
            if leaf is not None and self._is_wanted(leaf):
                self._is_cached = True
                self._run.note(
                    Step("cache", "", 0.0, None, leaf.name, self._run.clock.now() - self._run.dial.began)
                )
                return self._try(Sequential(leaf, timeout=2 * record.latency + _MARGIN, fail_fast=True))
        self._try(self._plan.children[0])

    def _is_wanted(self, leaf: Strategy) -> bool:
        if getattr(leaf, "priority", PRIORITY) > HTTP_PRIORITY or self._skips > _SKIPS:
            return True
        # Kept by the next success, whichever leaf that is.
        self._skips += 1
        return False

    def _try(self, strategy: Strategy) -> None:
        self._began = self._run.clock.now()
        self._child = self._run.start(strategy, self._settled, self._min_priority)

    def _settled(self, result: Result) -> None:
        if isinstance(result, Opened):
            self._is_cached = False
            # Also when the peer does not let us in: the way to it works.
            latency = self._run.clock.now() - self._began
            record = _Record(self._plan.now(), result.name, round(latency, 6), self._skips)
            self._slot.write(record.text())
            self._report(result)
            return
        self._forget()
        if self._is_cached:
            self._is_cached = False
            self._try(self._plan.children[0])
        else:
            self._report(result)

    def _forget(self) -> None:
        # What was not there when this began may be there by now, from somebody who has just got through.
        if self._is_stored:
            self._is_stored = False
            self._slot.write(None)

    def abort(self) -> None:
        deadline = self._run.deadline
        # Else a leaf whose time is longer than that of the whole tree would be tried alone again and again.
        if self._is_cached and deadline is not None and deadline.expired:
            self._forget()
        if self._child is not None:
            self._child.abort()

    def force_min_priority(self, priority: int) -> None:
        self._min_priority = priority
        if self._child is not None:
            self._child.force_min_priority(priority)
