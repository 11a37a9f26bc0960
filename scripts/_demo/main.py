"""connman's main job on real input: a pool of connections whose server is killed, deaf, frozen and back again.

Shows a live timeline, then holds what was measured against what connman promises. Exit code 0: every promise was kept;
1: one was not, or the server did not start; 130: Ctrl-C.
"""

from __future__ import annotations

import argparse
import logging
import secrets
import signal
import sys
from types import FrameType
from typing import TextIO

from acts import Show
from feed_process import FeedFailed, FeedProcess
from leaks import LeakGuard
from pace import QUICK, Pace, described
from promises import judge
from timeline import LEGEND

import connman


def main(arguments: list[str] | None = None) -> int:
    """Run the demo as the command line asks; return the exit code."""
    parser = argparse.ArgumentParser(prog="scripts/demo", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="the same acts in less time")
    seconds = QUICK if parser.parse_args(arguments).quick else Pace()
    signal.signal(signal.SIGTERM, _end)
    try:
        return play(seconds, sys.stdout)
    except KeyboardInterrupt:
        print("\nended by Ctrl-C", file=sys.stderr)
        return 130
    except FeedFailed as error:
        print(f"\nscripts/demo: {error}", file=sys.stderr)
        return 1
    finally:
        connman.disconnect_all(timeout=1.0)


def play(seconds: Pace, out: TextIO) -> int:
    """Run all acts and write the summary to ``out``; return 0 when every promise was kept, else 1.

    The server process is gone when this returns or raises.
    """
    guard = LeakGuard(secrets.token_urlsafe())
    logger = logging.getLogger("connman")
    level = logger.level
    logger.addHandler(guard)
    logger.setLevel(logging.DEBUG)
    try:
        with FeedProcess(guard.secret) as feed:
            show = Show(feed, seconds, guard, out)
            show.timeline.write(f"options: {described()}")
            show.timeline.write(f"states:  {LEGEND}")
            promises = judge(show.run())
        show.timeline.summary(promises)
    finally:
        logger.setLevel(level)
        logger.removeHandler(guard)
    return int(not all(promise.is_kept for promise in promises))


def _end(number: int, frame: FrameType | None) -> None:
    """End as Ctrl-C does: with the server process gone."""
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
