"""Print how a herd of clients comes back: a table of cases, and the histogram of one."""

import argparse
from collections import Counter
from collections.abc import Mapping
from typing import Any

from tests.rigs.herd.simulation import (
    NoJitter,
    Server,
    answer,
    ask_for_date,
    away,
    most_attempts,
    simulate,
)

CASES: list[tuple[str, float, Server, Mapping[str, Any]]] = [
    ("away for 1 s", 1, away(1), {}),
    ("away for 3 s", 3, away(3), {}),
    ("away for 10 s", 10, away(10), {}),
    ("away for 60 s", 60, away(60), {}),
    ("away for 600 s", 600, away(600), {}),
    ("60 s of 503, Retry-After: 5", 60, away(60, answer(503, retry_after="5")), {}),
    ("60 s of 503, Retry-After: 30", 60, away(60, answer(503, retry_after="30")), {}),
    ("60 s of 429, Retry-After: date in 30 s", 60, away(60, ask_for_date(30, 429)), {}),
    ("60 s, a fixed delay of 5 s", 60, away(60), {"options": {"wait": lambda _: 5.0}}),
    ("60 s, jitter taken out", 60, away(60), {"chance": NoJitter}),
    (
        "60 s of 503, Retry-After: 30, jitter taken out",
        60,
        away(60, answer(503, retry_after="30")),
        {"chance": NoJitter},
    ),
]


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/rig herd", description=__doc__)
    parser.add_argument("--clients", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    print(
        f"{arguments.clients} clients, seed {arguments.seed}; the fullest 100 ms hold at most 5 % in a good case\n"
    )
    print("| the server | fullest 100 ms | back within | attempts of a client: mean, most | formula |")
    print("|---|---|---|---|---|")
    for name, seconds, server, more in CASES:
        herd = simulate(arguments.clients, server, seed=arguments.seed, **more)
        mean = sum(herd.attempts.values()) / arguments.clients
        most = max(herd.attempts.values())
        print(
            f"| {name} | {herd.peak:.2%} | {max(herd.back) - seconds:.1f} s | {mean:.1f}, {most} | {most_attempts(seconds)} |"
        )
    print("\naway for 60 s: how many came back in which two seconds behind its return")
    herd = simulate(arguments.clients, away(60), seed=arguments.seed)
    counts = Counter(int(when - 60) // 2 * 2 for when in herd.back)
    longest = max(counts.values())
    for second in range(0, max(counts) + 1, 2):
        print(f"{second:4} s {counts[second]:6} {'#' * round(60 * counts[second] / longest)}")


if __name__ == "__main__":
    main()
