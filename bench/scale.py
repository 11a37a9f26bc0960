"""How much of everything is measured."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scale:
    """How much of everything: ``amount`` scales the counts of messages, not those of connections."""

    rounds: int
    rounds_of_crowds: int
    amount: float
    seconds: int
    has_curves: bool


FULL = Scale(rounds=5, rounds_of_crowds=3, amount=1.0, seconds=3, has_curves=True)
QUICK = Scale(rounds=2, rounds_of_crowds=1, amount=0.25, seconds=1, has_curves=False)
