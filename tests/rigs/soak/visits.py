"""One cycle of the soak: a connection is opened, used, dropped, and everything it told is looked at."""

from __future__ import annotations

import contextlib
import random
import threading
from dataclasses import dataclass, field
from typing import Any

from connman import Connection, ConnmanError, Pool, Reset, State, Stats
from connman.connection.sharing import SharedReaders
from connman.errors import ConnectionClosed
from tests.connection.table import is_legal

BOUND = 10.0  # seconds within which anything has happened, or never will
MESSAGES = ("a", "b" * 200, "c" * 70_000)


class Broken(Exception):
    """A promise that did not hold."""


class Tally:
    """How much has happened, so that a soak in which nothing opens does not pass for a good one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Guarded by _lock: the numbers.
        self.opens = self.losses = self.failures = self.messages = 0

    def add(self, stats: Stats) -> None:
        with self._lock:
            self.opens += stats.opens
            self.losses += stats.losses
            self.failures += stats.failed_attempts
            self.messages += stats.messages_in

    def __str__(self) -> str:
        return f"{self.opens} opens, {self.losses} losses, {self.failures} failed attempts, {self.messages} messages"


@dataclass(frozen=True)
class Town:
    """Where the visits go: a port for each kind of server, and the threads that read for those without one."""

    ports: dict[str, int]
    shared: SharedReaders
    tally: Tally = field(default_factory=Tally)

    def url(self, kind: str) -> str:
        return f"ws://127.0.0.1:{self.ports[kind]}/"


class Visit:
    """A connection to one server, and all that its user is told."""

    def __init__(self, town: Town, kind: str, chance: random.Random, *, is_shared: bool) -> None:
        self.kind = kind
        self._tally = town.tally
        self.events: list[str] = []
        self.states: list[State] = []
        self._has_news = threading.Condition()
        self.conn = Connection(
            town.url(kind),
            on_open=self._on_open,
            on_data=self._on_data,
            on_reset=self._on_reset,
            **options(kind, chance),
        )
        self.conn.watch(lambda _, state: self.states.append(state))
        if is_shared:
            self.conn.read_by(town.shared)

    # Told

    def _on_open(self, _: Connection) -> None:
        self._note("open")

    def _on_data(self, _: Connection, message: Any) -> None:
        self._note(f"={message}")

    def _on_reset(self, _: Connection, reset: Reset) -> None:
        self._note("lost" if reset.opened else "failed")

    def _note(self, event: str) -> None:
        with self._has_news:
            self.events.append(event)
            self._has_news.notify_all()

    def _wait(self, *wanted: str) -> bool:
        with self._has_news:
            return self._has_news.wait_for(lambda: any(event in wanted for event in self.events), BOUND)

    # Done

    def go(self, *, is_hasty: bool) -> None:
        """Open, use (if not ended at once, while it opens), drop, check."""
        future = self.conn.get_connected()
        if not is_hasty:
            self._use()
        self.conn.disconnect(timeout=0.2)
        if not self.conn.wait_gone(BOUND):
            raise Broken("its threads outlive it")
        if not isinstance(self.conn.get_connected().exception(0), ConnectionClosed):
            raise Broken("asking for it after the end gave no ConnectionClosed")
        error = future.exception(0)
        if error is not None and not isinstance(error, ConnmanError):
            raise Broken(f"its Future failed with {error!r}")
        self._check()

    def _use(self) -> None:
        if self.kind != "echo":
            if not self._wait("failed", "lost"):
                raise Broken(f"nothing was told in {BOUND:g} s")
            return
        # Whatever the proxy does to it: one of the attempts opens.
        if not self._wait("open", "failed"):
            raise Broken(f"nothing was told in {BOUND:g} s")
        with contextlib.suppress(ConnmanError):
            self.conn.send_many(MESSAGES)
            self._wait(f"={MESSAGES[-1]}", "lost", "failed")

    def _check(self) -> None:
        conn, stats = self.conn, self.conn.stats
        if conn.state is not State.CLOSED or self.states[-1:] == [] or not is_legal(self.states):
            raise Broken(f"went through {[state.value for state in self.states]}")
        if stats.opens != conn.generation or stats.losses > stats.opens or stats.callback_errors:
            raise Broken(f"counted {stats}")
        self._tally.add(stats)
        is_open, heard = False, 0
        for event in self.events:
            if event == "open":
                right, is_open, heard = not is_open, True, 0
            elif event in ("lost", "failed"):
                right, is_open = is_open == (event == "lost"), False
            else:
                # The echo of what was sent, in order, from the first on; the other kinds say something else.
                right = is_open and (self.kind != "echo" or event == f"={MESSAGES[heard]}")
                heard += 1
            if not right:
                raise Broken(f"told {[event[:10] for event in self.events]}")


def options(kind: str, chance: random.Random) -> dict[str, Any]:
    """Choose what users choose."""
    return {
        "wait": lambda _: 0.005,
        "stable_after": chance.choice([0.0, 1.0]),
        "open_timeout": 0.1 if kind == "hole" else 0.5,
        "close_timeout": 0.1,
        "send_timeout": 0.5,
        "ping_interval": chance.choice([None, 0.02]),
        "ping_timeout": 0.3,
        "dispatch": chance.choice(["reader", "thread"]),
        "compression": chance.choice([None, "deflate"]),
        "retry_if": lambda _: True,
        "proxy": None,
    }


def visit_with_a_pool(town: Town, kind: str, chance: random.Random) -> None:
    """Lend connections of a pool, and end it."""
    with Pool(url=town.url(kind), size=2, readers=chance.choice([None, 1]), **options(kind, chance)) as pool:
        for _ in range(2):
            with contextlib.suppress(ConnmanError), pool.connection(timeout=0.05) as conn:
                conn.send(MESSAGES[0])
        pool.disconnect(timeout=0.2)
        if not pool.wait_gone(BOUND):
            raise Broken("threads outlive their pool")
        if pool.stats.leased or pool.get_connections():
            raise Broken(f"the pool still has something: {pool.stats}")


def visit(town: Town, kind: str, chance: random.Random) -> None:
    """Make one cycle. Raises: Broken."""
    if chance.random() < 0.1:
        visit_with_a_pool(town, kind, chance)
    else:
        Visit(town, kind, chance, is_shared=chance.random() < 0.5).go(is_hasty=chance.random() < 0.1)


def visit_alone(town: Town) -> None:
    """Have the shared readers dial once more: they remember the threads that dialled last, which are many or few."""
    Visit(town, "busy", random.Random(0), is_shared=True).go(is_hasty=False)
