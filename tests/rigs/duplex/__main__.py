"""Hold conversations over wss, one reader and four writers each, and say how many were dropped or damaged."""

import argparse
import itertools
import random
import ssl
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import trustme

from tests.rigs.duplex.ledger import Ledger
from tests.rigs.duplex.talking import TALKS, Outcome, take_the_lock_out
from tests.servers import ws_server

VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
CONNMAN = ["own reader", "shared reader"]


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/rig duplex", description=__doc__)
    parser.add_argument("--conversations", type=int, default=300, help="in all, default 300")
    parser.add_argument("--messages", type=int, default=4000, help="in each conversation, default 4000")
    parser.add_argument("--at-once", type=int, default=2, help="conversations at the same time, default 2")
    parser.add_argument("--tls", choices=VERSIONS, help="one version only; default: in turns")
    parser.add_argument(
        "--client", choices=TALKS, help="default: connman, its own readers and shared ones in turns"
    )
    parser.add_argument(
        "--without-lock", action="store_true", help="plant the bug: take connman's lock around TLS out"
    )
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    return parser.parse_args()


def main() -> int:
    args = parsed()
    if args.without_lock:
        take_the_lock_out()
    kinds = list(
        itertools.product(
            [args.client] if args.client else CONNMAN, [args.tls] if args.tls else list(VERSIONS)
        )
    )
    print(f"{args.conversations} conversations of {args.messages} messages, seed {args.seed}", flush=True)
    outcomes: dict[tuple[str, str], list[Outcome]] = {kind: [] for kind in kinds}
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        path, authority = Path(folder, "server.pem"), trustme.CA()
        authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(path)
        contexts = {name: client_context(authority, version) for name, version in VERSIONS.items()}
        with ws_server(path, path) as server, ThreadPoolExecutor(args.at_once) as workers:

            def hold(number: int) -> None:
                client, version = kind = kinds[number % len(kinds)]
                ledger = Ledger(args.seed + number, args.messages)
                outcomes[kind].append(TALKS[client](server.url("/echo"), contexts[version], ledger))

            list(workers.map(hold, range(args.conversations)))
    return report(outcomes, time.monotonic() - began)


def client_context(authority: trustme.CA, version: ssl.TLSVersion) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.minimum_version = context.maximum_version = version
    authority.configure_trust(context)
    return context


def report(outcomes: dict[tuple[str, str], list[Outcome]], seconds: float) -> int:
    for (client, version), some in outcomes.items():
        dropped = [outcome for outcome in some if outcome.drop is not None]
        damaged = [outcome for outcome in some if outcome.damage]
        print(
            f"{client}, TLS {version}: {len(some)} conversations, {sum(o.heard for o in some):,} messages,"
            f" {len(dropped)} dropped, {len(damaged)} damaged"
        )
        for text in sorted({o.drop or "" for o in dropped} | {o.damage[0] for o in damaged}):
            print(f"    {text[:150]}")
    everything = [outcome for some in outcomes.values() for outcome in some]
    heard = sum(outcome.heard for outcome in everything)
    print(f"{heard:,} messages in {seconds:.0f} s, {heard / seconds:,.0f}/s")
    return 0 if all(outcome.is_whole for outcome in everything) else 1


if __name__ == "__main__":
    sys.exit(main())
