"""Pure words and sums: what was measured, what was to be reached, and whether it was."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Task:
    """One job of one client: the path it asks of the server, and the numbers it is called with.

    ``servers``: the programs that have to run meanwhile, each of which is given the port of the one before; the client is
    given that of the last.
    """

    label: str
    client: str
    job: str
    path: str
    numbers: Mapping[str, int]
    servers: Sequence[str] = ("server",)


@dataclass(frozen=True, slots=True)
class Target:
    """What is to be reached: by ``of`` alone, or as its ratio to ``against``. One of the limits is given."""

    of: str
    against: str | None = None
    at_least: float | None = None
    at_most: float | None = None

    @property
    def limit(self) -> str:
        """The limit in print."""
        times = "x" if self.against else ""
        return f"≤ {self.at_most:g}{times}" if self.at_least is None else f"≥ {self.at_least:g}{times}"

    def reaches(self, figure: float) -> bool:
        """Say whether a figure is enough."""
        return figure >= self.at_least if self.at_least is not None else figure <= (self.at_most or 0)

    @property
    def what(self) -> str:
        """What is compared, in print."""
        return f"{self.of} / {self.against}" if self.against else self.of


@dataclass(frozen=True, slots=True)
class Row:
    """Tasks that are compared, run in turn as often as ``rounds`` says; with a ``curve``, one point ``x`` of it.

    ``placement``: see `bench.run.processors`.
    """

    name: str
    title: str
    unit: str
    tasks: Sequence[Task]
    targets: Sequence[Target] = ()
    rounds: int = 5
    curve: str | None = None
    x: int = 0
    placement: str = "free"
    floor: str | None = None
    """The label of what no library could be better than."""


@dataclass(slots=True)
class Outcome:
    """What the runs of one task gave, one value a round; None for a round that gave none."""

    values: list[float | None] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)
    version: str | None = None
    missing: str | None = None
    error: str | None = None
    faults: list[str] = field(default_factory=list)

    def add(self, result: Mapping[str, Any]) -> None:
        """Take in what a client printed."""
        rest = dict(result)
        self.missing = rest.pop("missing", self.missing)
        self.error = rest.pop("error", self.error)
        self.version = rest.pop("version", self.version)
        self.faults += rest.pop("faults", [])
        self.values.append(rest.pop("value", None))
        self.details |= rest

    @property
    def measured(self) -> list[float]:
        """The values there are."""
        return [value for value in self.values if value is not None]

    @property
    def median(self) -> float | None:
        """The middle of the values; None when there is none."""
        return statistics.median(self.measured) if self.measured else None

    @property
    def spread(self) -> tuple[float, float] | None:
        """The least and the greatest value."""
        return (min(self.measured), max(self.measured)) if self.measured else None


Outcomes = Mapping[str, Outcome]


@dataclass(frozen=True, slots=True)
class Verdict:
    """A target, what was reached, and whether it is enough: None when it could not be measured."""

    target: Target
    figure: float | None
    is_met: bool | None
    why_not: str = ""
    of_floor: float | None = None
    """What the floor of the row reached in its place."""

    @property
    def word(self) -> str:
        """The verdict in print."""
        return self.why_not or ("OK" if self.is_met else f"SHORT{self._floor}")

    @property
    def _floor(self) -> str:
        if self.of_floor is None or self.target.reaches(self.of_floor):
            return ""
        return f" (the floor itself: {self.of_floor:.2f}{'x' if self.target.against else ''})"


def ratio(one: Outcome, other: Outcome) -> float | None:
    """Return the median of the ratios of each round: what weighed on a whole round weighs on neither."""
    pairs = zip(one.values, other.values, strict=False)
    ratios = [mine / theirs for mine, theirs in pairs if mine is not None and theirs]
    return statistics.median(ratios) if ratios else None


NEAR = 0.7
"""The part of the floor from which on it is the server, or the machine, that is measured."""


def is_at(outcome: Outcome, floor: Outcome) -> bool:
    """Say whether a rate is so close to the floor's that a faster client would hardly have shown more."""
    reached = ratio(outcome, floor)
    return reached is not None and reached >= NEAR


def judge(target: Target, outcomes: Outcomes, floor: str | None = None) -> Verdict:
    """Say whether a target was reached. A run that left something behind, or failed, has not reached it."""
    taking_part = [outcomes[name] for name in (target.of, target.against) if name is not None]
    figure = ratio(*taking_part) if target.against else taking_part[0].median
    missing = next((outcome.missing for outcome in taking_part if outcome.missing), None)
    if missing:
        return Verdict(target, None, None, f"not measured: {missing}")
    broken = [outcome.error or "; ".join(outcome.faults) for outcome in taking_part]
    if any(broken) or figure is None:
        return Verdict(target, figure, False, "SHORT: " + "; ".join(filter(None, broken)))
    bare = outcomes.get(floor or "")
    of_floor = bare and (ratio(bare, outcomes[target.against]) if target.against else bare.median)
    return Verdict(target, figure, target.reaches(figure), of_floor=of_floor)


def verdicts(row: Row, outcomes: Outcomes) -> list[Verdict]:
    """Judge every target of a row."""
    return [judge(target, outcomes, row.floor) for target in row.targets]


def exit_status(judged: Sequence[Verdict]) -> int:
    """Return 1 when a target was missed. What could not be measured, and was said to be so, misses none."""
    return int(any(verdict.is_met is False for verdict in judged))
