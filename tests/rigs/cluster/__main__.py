"""Two relays over a real Redis: each spare claimed once, Redis and a relay killed, latencies and frames a second."""

import argparse
import asyncio
import random
import sys
import time

from tests.redis_server import RedisServer
from tests.rigs.cluster.acts import Show


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/rig cluster", description=__doc__)
    parser.add_argument("--providers", type=int, default=1000)
    parser.add_argument("--callers", type=int, default=200, help="at the same moment")
    parser.add_argument("--rounds", type=int, default=5, help="of callers at the same moment")
    parser.add_argument("--frames", type=int, default=1_000_000)
    parser.add_argument("--chaos", type=float, default=30, help="seconds of blows by chance")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    arguments = parser.parse_args()
    print(
        f"{arguments.providers} providers, {arguments.callers} callers at once, seed {arguments.seed}",
        flush=True,
    )
    with RedisServer() as redis:
        show = Show(redis, arguments)
        begin = time.perf_counter()
        asyncio.run(show.run())
    print(f"\n{time.perf_counter() - begin:.0f} s; {show.verdict()}")
    return 0 if not show.failures else 1


if __name__ == "__main__":
    sys.exit(main())
