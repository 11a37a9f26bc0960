"""Everything bad that clients can do to a relay, while an honest pair must get its answers within 100 ms.

The relay and the honest pair are processes of their own; the pair is opened again and again, and asked five times. A
bystander that has nothing to do with either shows how busy the machine is. Memory is judged while each attack runs,
descriptors and memory at the end. Exit status 1 when a promise was broken.
"""

import argparse
import os
import random
import sys
import time
from collections.abc import Sequence

from tests.rigs.relay_hostile.attacks import ATTACKS, Target
from tests.rigs.relay_hostile.town import Town, town
from tests.waiting import eventually

GROWTH = 48.0
"""MiB that the relay may have over its base while it is attacked."""
REST = 16.0
"""MiB that may stay: what the allocator keeps."""


def attack(town: Town, target: Target, name: str, bound: float) -> list[str]:
    """Run one attack, print its row, and return what was broken."""
    town.gauges.forget_peak()
    base, spent, begin = town.gauges.memory(), town.gauges.processor(), time.perf_counter()
    town.measured()
    found = ATTACKS[name].run(target)
    seconds = time.perf_counter() - begin
    # A pair that is opened every 100 ms or so needs a moment to be opened at all.
    while time.perf_counter() - begin < 1.0:
        eventually(lambda: time.perf_counter() - begin >= 1.0, 2.0)
    measured = town.measured()
    grown = town.gauges.peak() - base
    ran, waited = town.gauges.ran_since(spent)
    # On a machine with more to do than it has processors for, whatever the relay does takes that much longer.
    slower = max(1.0, (ran + waited) / max(ran, 1e-3))
    complaints = ATTACKS[name].complaints(found) + measured.complaints(bound * slower)
    if grown > GROWTH:
        complaints.append(f"memory grew by {grown:.0f} MiB")
    came = ", ".join(f"{count} {outcome}" for outcome, count in found.most_common())
    print(
        f"{name:14} {seconds:5.1f} {measured}  {grown:6.1f} {town.gauges.descriptors():5} {ran / max(seconds, 1.0):5.0%} {slower:5.1f}  {came}",
        flush=True,
    )
    for complaint in complaints:
        print(f"  BROKEN: {complaint}")
    return [f"{name}: {complaint}" for complaint in complaints]


def calm(town: Town, base: tuple[float, int]) -> list[str]:
    """Wait until the relay is as it was before; say what is not."""
    memory, descriptors = base
    # The honest pair's own sockets come and go.
    try:
        eventually(lambda: town.gauges.descriptors() <= descriptors + 4, 10.0)
    except AssertionError:
        return [f"{town.gauges.descriptors()} descriptors, {descriptors} before"]
    left = town.gauges.memory() - memory
    return [f"{left:.0f} MiB of memory are left over"] if left > REST else []


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/rig relay-hostile",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "names", nargs="*", metavar="ATTACK", help=f"some of {', '.join(ATTACKS)} (default: all)"
    )
    parser.add_argument("--size", type=float, default=1.0, help="of each attack (default: 1)")
    parser.add_argument("--seed", type=int, default=random.randrange(2**31))
    parser.add_argument("--bound", type=float, default=0.1, help="seconds for an answer (default: 0.1)")
    options = parser.parse_args(argv)
    if unknown := set(options.names) - ATTACKS.keys():
        parser.error(f"no attack {', '.join(sorted(unknown))}")
    print(
        f"seed {options.seed}, size {options.size:g}, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors"
    )
    broken: list[str] = []
    with town() as built:
        target = Target(built.port, built.admin, options.size, random.Random(options.seed))
        begin = time.perf_counter()
        eventually(lambda: time.perf_counter() - begin > 2.0)
        base = built.gauges.memory(), built.gauges.descriptors()
        print("                    honest: pairs opened (ms)  answers (ms)   by-      relay:")
        print(
            "attack             s   how many, mid   worst     mid  worst  stander    MiB  desc  busy slower  what came back"
        )
        print(f"{'(none)':14} {2.0:5.1f} {built.measured()}  {0:6.1f} {base[1]:5}")
        for name in options.names or ATTACKS:
            broken += attack(built, target, name, options.bound)
        broken += calm(built, base)
        print(
            f"in the end {built.gauges.memory():.0f} MiB and {built.gauges.descriptors()} descriptors, {base[0]:.0f} MiB and {base[1]} before"
        )
    print(f"load {os.getloadavg()[0]:.1f}")
    for complaint in broken:
        print(f"BROKEN: {complaint}")
    print("broken" if broken else "all promises were kept")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
