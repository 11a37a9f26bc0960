"""Random trees of leaves that do anything: one winner, nothing left behind, and an abort ends everything."""

import json
import random

import pytest

from connman.strategy import BestConnected, Cached, Delayed, FirstConnected, If, Opened, Sequential, Strategy
from tests.strategy.rig import HANG, Leaf, No, Ok, Outcome, Rig

MOST_DEPTH = 4
LONG = 100_000  # milliseconds


class Grower:
    """A seeded tree, and what its leaves will do."""

    def __init__(self, rig: Rig, rng: random.Random) -> None:
        self.rig = rig
        self.rng = rng
        self.leaves: list[Leaf] = []

    def grow(self, depth: int = 0) -> Strategy:
        kinds = [self.leaf] if depth == MOST_DEPTH else [self.leaf, *self.composites(depth)]
        return self.rng.choice(kinds)()

    def composites(self, depth: int) -> list:
        def some() -> list[Strategy]:
            return [self.grow(depth + 1) for _ in range(self.rng.randint(0 if depth else 1, 3))]

        rng = self.rng
        return [
            lambda: BestConnected(*some()),
            lambda: FirstConnected(self.grow(depth + 1)),
            lambda: Delayed(self.grow(depth + 1), rng.choice([0, 0.05, 3])),
            lambda: If(lambda: rng.random() < 0.5, self.grow(depth + 1), self.grow(depth + 1)),
            lambda: Sequential(
                *some(),
                loop=rng.random() < 0.3,
                timeout=rng.choice([None, 0, 0.05, 2]),
                timeout_limit=rng.choice([None, 0.05, 10]),
                fail_fast=rng.random() < 0.5,
            ),
            lambda: self.cached(self.grow(depth + 1)),
        ]

    def cached(self, child: Strategy) -> Strategy:
        """Have a leaf of the child's in the cache, one that is not there, or nothing."""
        rng = self.rng
        names = [None, "nobody", *(leaf.name for leaf in child.leaves())]
        store: dict[str, str] = {}
        if (name := rng.choice(names)) is not None:
            latency = rng.choice([0, 0.01, 1])
            record = {"timestamp": 0, "transport": name, "latency": latency, "skips": rng.randint(0, 5)}
            store["key"] = json.dumps(record)
        return Cached(child, store, ttl=rng.choice([10, 1000]), key="key", now=self.rig.clock.now)

    def leaf(self) -> Leaf:
        leaf = self.rig.leaf(
            f"leaf {len(self.leaves)}",
            *(self.outcome() for _ in range(self.rng.randint(1, 3))),
            priority=self.rng.randint(0, 4),
            supported=self.rng.random() < 0.8,
            obeys=self.rng.random() < 0.7,
        )
        self.leaves.append(leaf)
        return leaf

    def outcome(self) -> Outcome:
        after = self.rng.choice([None, 0, 10, 50, 1000, 5000])
        return self.rng.choice([Ok(after), No(after), No(after), HANG])


def check(seed: int) -> None:
    rng, rig = random.Random(seed), Rig()
    grower = Grower(rig, rng)
    is_first = rng.random() < 0.7
    tree = grower.grow()
    runner = rig.connect(FirstConnected(tree) if is_first else tree, rng.choice([0, 0, 1, 3]))
    for _ in range(rng.randint(0, 6)):
        rig.advance(rng.choice([0, 1, 10, 50, 3000, 20_000]))
        action = rng.random()
        if action < 0.2:
            runner.force_min_priority(rng.randint(0, 4))
        elif action < 0.5 and grower.leaves:
            disturb(rng, rng.choice(grower.leaves))
    rig.advance(0)  # what came within connect() is told now
    opened = [result for result in rig.results if isinstance(result, Opened)]
    if is_first:
        assert len(rig.results) <= 1
        assert len(rig.open_pipes) == len(opened)
    assert len(rig.results) - len(opened) <= 1
    if is_first and opened:
        check_ended(rig, grower.leaves)
    runner.abort()
    check_ended(rig, grower.leaves)
    count, pipes = len(rig.results), len(rig.open_pipes)
    rig.took()
    rig.advance(LONG)
    for leaf in grower.leaves:
        for attempt in leaf.attempts:
            attempt.settle(Ok())
            attempt.settle(No())
    rig.advance(LONG)
    assert len(rig.results) == count
    assert len(rig.open_pipes) == pipes == len(opened)
    assert rig.clock.pending == 0
    assert not [what for _, what in rig.journal if "started" in what]
    assert all(pipe.disposals <= 1 for pipe in rig.pipes)


def check_ended(rig: Rig, leaves: list[Leaf]) -> None:
    """Find no leaf that was not ended, or was twice, and no timer but those of leaves that do not obey."""
    attempts = [attempt for leaf in leaves for attempt in leaf.attempts]
    assert not [attempt for attempt in attempts if attempt.is_running]
    assert all(attempt.aborts <= 1 for attempt in attempts)
    assert not [attempt for leaf in leaves if leaf.obeys for attempt in leaf.attempts if attempt.is_ticking]
    assert rig.clock.pending == sum(attempt.is_ticking for attempt in attempts)


def disturb(rng: random.Random, leaf: Leaf) -> None:
    """Have an attempt report out of turn, as a leaf of the user's may."""
    if leaf.attempts and not leaf.obeys:
        rng.choice(leaf.attempts).settle(rng.choice([Ok(), No()]))


def test_some(seed: int) -> None:
    check_many(seed, 300)


def test_one_whose_child_has_failed_for_its_parent_and_ran_on() -> None:
    """It had opened with a priority that was too low by the time it was told: what else of it ran was nobody's to end."""
    check(1785226728)


@pytest.mark.slow
def test_many(seed: int) -> None:
    check_many(seed, 10_000)


def check_many(seed: int, count: int) -> None:
    for number in range(count):
        try:
            check(seed + number)
        except AssertionError as error:
            raise AssertionError(f"CONNMAN_SEED={seed + number}: {error}") from error
