"""Have two processes call each other through a relay while the relay and one of them are killed, and judge every call."""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Self

from tests.rigs.chaos.ledger import Break, Record, complaints, flat, lateness, now
from tests.rigs.chaos.side import PLANTS

PAGE = os.sysconf("SC_PAGE_SIZE") / 2**20
STALLED = 60.0  # seconds without any call that succeeds: something hangs


class Process:
    """A process that can be killed and started again, and whose memory is looked at."""

    def __init__(self, what: str, *words: str) -> None:
        self.what = what
        self.words = list(words)
        self.memory: list[float] = []
        self.process = self._spawn()

    def _spawn(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", *self.words], stdin=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
        )

    def sample(self) -> None:
        with contextlib.suppress(OSError, IndexError):
            statm = Path(f"/proc/{self.process.pid}/statm").read_text().split()
            self.memory.append(int(statm[1]) * PAGE)

    def kill(self) -> Break:
        at = now()
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self._close()
        return Break(at, self.what, self.process.pid)

    def restart(self) -> Self:
        self.memory = []
        self.process = self._spawn()
        return self

    def finish(self) -> int:
        """End its input and wait for its end; afterwards `said` is what it has complained of."""
        stdin = self.process.stdin
        assert stdin is not None
        with contextlib.suppress(BrokenPipeError):
            stdin.close()
        code = self.process.wait(180)
        self._close()
        return code

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._close()

    def _close(self) -> None:
        for stream in (self.process.stdin, self.process.stderr):
            if stream is not None:
                stream.close()


class Talker:
    """Passes what a process says on standard error on, so that its pipe never fills."""

    def __init__(self, process: Process) -> None:
        stream = process.process.stderr
        assert stream is not None
        self.lines: list[str] = []
        self._has_line = threading.Event()
        threading.Thread(target=self._read, args=(stream,), daemon=True).start()

    def _read(self, stream: IO[bytes]) -> None:
        with contextlib.suppress(ValueError, OSError):
            for line in stream:
                if len(self.lines) < 200:
                    self.lines.append(line.decode(errors="replace").rstrip())
                self._has_line.set()

    def first(self) -> str:
        if not self._has_line.wait(30):
            raise SystemExit("the relay says nothing")
        return self.lines[0]


class Tail:
    """Counts the calls that have succeeded, in a file that grows."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._rest = b""
        self.count = 0

    def read(self) -> int:
        while chunk := self._file.read(1 << 20):
            lines = (self._rest + chunk).split(b"\n")
            self._rest = lines.pop()
            self.count += sum(line.endswith(b" ok") for line in lines)
        return self.count

    def close(self) -> None:
        self._file.close()


class Chaos:
    """The whole of it: the relay, the two sides, and who is killed when."""

    def __init__(self, args: argparse.Namespace, folder: Path) -> None:
        self._args = args
        self._rng = random.Random(args.seed)
        self._paths = folder / "calls", folder / "runs"
        for path in self._paths:
            path.touch()
        self._tail = Tail(self._paths[0])
        self.breaks: list[Break] = []
        self._talkers: list[Talker] = []
        self.relay = Process("relay", "connman", "relay", "--port", "0")
        url = re.search(r"ws://\S+", self._listen(self.relay).first())
        if url is None:
            raise SystemExit(f"the relay says: {self._talkers[0].lines}")
        self.url = url[0]
        port = re.search(r":(\d+)", self.url.partition("//")[2])
        assert port is not None
        self.relay.words = ["connman", "relay", "--port", port[1]]
        self.sides = {role: self._side(role) for role in ("provider", "caller")}
        self.lives = Counter(dict.fromkeys(self.sides, 0))

    def _listen(self, process: Process) -> Talker:
        self._talkers.append(Talker(process))
        return self._talkers[-1]

    def _words(self, role: str, life: int) -> list[str]:
        args = self._args
        words = ["tests.rigs.chaos.side", role, self.url, "--life", str(life), "--seed", str(args.seed)]
        words += ["--in-flight", str(args.in_flight // 2), "--safe-share", str(args.safe_share)]
        words += ["--plant", args.plant] if args.plant else []
        return [*words, "--calls", str(self._paths[0]), "--runs", str(self._paths[1])]

    def _side(self, role: str) -> Process:
        process = Process(role, *self._words(role, 0))
        self._listen(process)
        return process

    def run(self) -> Record:
        args = self._args
        kills = ["relay"] * args.relay_kills + ["side"] * args.side_kills
        self._rng.shuffle(kills)
        try:
            self._wait(1)
            for process in (self.relay, *self.sides.values()):
                process.memory = []  # of what is at work
            for number, what in enumerate(kills, 1):
                self._wait(number * args.calls // (len(kills) + 1))
                self._kill(what)
            self._wait(args.calls)
            # The caller first: what may be sent again needs somebody to run it.
            for role in ("caller", "provider"):
                code = self.sides[role].finish()
                print(f"{role} ended with {code}", flush=True)
        finally:
            for process in (self.relay, *self.sides.values()):
                process.stop()
            self._tail.close()
        return Record.read(*self._paths)

    def _wait(self, count: int) -> None:
        """Wait until so many calls have succeeded."""
        pause = threading.Event()
        last, since = -1, now()
        while (done := self._tail.read()) < count:
            if done != last:
                last, since = done, now()
            elif now() - since > STALLED:
                self._tell_talkers()
                raise SystemExit(f"nothing has succeeded for {STALLED:g} s, {done} calls so far")
            for process in (self.relay, *self.sides.values()):
                process.sample()
            pause.wait(0.25)

    def _kill(self, what: str) -> None:
        side = self._args.kill_side
        role = self._rng.choice(list(self.sides)) if side == "either" else side
        process = self.relay if what == "relay" else self.sides[role]
        self.breaks.append(process.kill())
        pause = self._rng.uniform(0, 0.5)
        threading.Event().wait(pause)
        if what == "side":
            self.lives[role] += 1
            process.words = self._words(role, self.lives[role])
        self._listen(process.restart())
        before = self._tail.read()
        began = now()
        self._wait(before + 1)
        process.memory = []
        print(
            f"{process.what} killed behind {before:,} calls, started again {pause:.2f} s later,"
            f" the next call succeeded {now() - began:.2f} s behind that",
            flush=True,
        )

    def _tell_talkers(self) -> None:
        for talker in self._talkers:
            for line in talker.lines[-5:]:
                print("   ", line)

    def memory(self) -> Iterator[tuple[str, list[float]]]:
        for process in (self.relay, *self.sides.values()):
            yield process.what, process.memory


def report(record: Record, chaos: Chaos, seconds: float) -> int:
    calls = list(record.calls.values())
    outcomes = Counter(call.outcome or "under way when it was killed" for call in calls)
    told = ", ".join(f"{count:,} {outcome}" for outcome, count in outcomes.most_common())
    print(f"{len(calls):,} calls in {seconds:.0f} s, {outcomes['ok'] / seconds:,.0f} good ones/s: {told}")
    safe = [call for call in calls if call.is_safe]
    again = Counter(key for key, _ in record.runs)
    met = sum(any(call.start < each.at < (call.end or 0.0) for each in chaos.breaks) for call in safe)
    twice = sum(count > 1 for count in again.values())
    print(
        f"{len(safe):,} of them may be sent again: {met} met a break, {twice} ran in more than one life of a side"
    )
    once = [call for call in calls if not call.is_safe and call.end is not None]
    cut = [lateness(call, chaos.breaks) for call in once if call.outcome != "ok"]
    if cut:
        print(
            f"{len(cut)} calls failed: median {statistics.median(cut) * 1000:.0f} ms,"
            f" at most {max(cut) * 1000:.0f} ms behind the break or their start"
        )
    found = complaints(record, chaos.breaks)
    for what, series in chaos.memory():
        if series:
            print(
                f"memory of the {what}: {min(series):.1f} to {max(series):.1f} MiB in {len(series)} samples"
            )
        if (growth := flat(series)) is not None:
            found.append(f"the memory of the {what} grew: {growth}")
    kinds: dict[str, list[str]] = {}
    for text in found:
        kinds.setdefault(re.sub(r"\d+", "N", text.partition(" ")[2]), []).append(text)
    for alike in kinds.values():
        print(f"    {len(alike)} such as: {alike[0]}")
    print(f"{len(found)} complaints; load {os.getloadavg()[0]:.1f}")
    return 1 if found else 0


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/rig chaos", description=__doc__)
    parser.add_argument("--calls", type=int, default=100_000, help="that succeed, in all, default 100,000")
    parser.add_argument("--in-flight", type=int, default=64, help="of both sides together, default 64")
    parser.add_argument("--relay-kills", type=int, default=5)
    parser.add_argument("--side-kills", type=int, default=5)
    parser.add_argument("--kill-side", choices=("provider", "caller", "either"), default="provider")
    parser.add_argument("--safe-share", type=float, default=0.25, help="of the caller's calls, default 0.25")
    parser.add_argument("--plant", choices=PLANTS, help="plant a bug, which has to be found")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    return parser.parse_args()


def main() -> int:
    args = parsed()
    print(f"{args.calls:,} calls, {args.in_flight} in flight, seed {args.seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        began = now()
        chaos = Chaos(args, Path(folder))
        record = chaos.run()
        return report(record, chaos, now() - began)


if __name__ == "__main__":
    sys.exit(main())
