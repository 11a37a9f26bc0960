"""Try every bad behaviour on connman and on bare websocket-client, and print what each does.

    python -m tests.rigs.hostile [--client connman|websocket-client|both] [--write] [PART OF A NAME...]

The suite has the same rows as tests (tests/hostile/test_bad_servers.py); this shows them side by side. `--write` keeps
what websocket-client does in tests/hostile/websocket_client.json.
"""

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import websocket

import connman
from tests.hostile.acts import MOST, OPEN_TIMEOUT, PING, Bad
from tests.hostile.library import BEHAVIOURS, MEASURED
from tests.hostile.memory import forget_peak, peak
from tests.hostile.peer import BadServer, Secure
from tests.waiting import eventually

PROGRAM = Path(__file__).with_name("websocket_client.py")
ROOT = Path(__file__).parents[3]
# Beyond every timeout that the client was given: it would wait for ever.
PATIENCE = 4.0


@dataclasses.dataclass(frozen=True)
class Outcome:
    text: str
    seconds: float
    memory: int

    def __str__(self) -> str:
        return f"{self.text} ({self.seconds:.2f} s, +{self.memory / (1 << 20):.1f} MiB)"


def try_connman(bad: Bad, secure: Secure) -> Outcome:
    resets: list[connman.Reset] = []
    with BadServer(bad, secure) as server:
        target, options = server.target()
        conn = connman.Connection(
            target,
            reconnect=False,
            max_message_size=MOST,
            on_data=lambda *_: None,
            on_reset=lambda _, reset: resets.append(reset),
            **options,
        )
        before, began = forget_peak(), time.monotonic()
        conn.connect()
        eventually(lambda: resets, PATIENCE)
        seconds, memory = time.monotonic() - began, peak() - before
        conn.disconnect()
        eventually(server.is_over.is_set)
    error = resets[0].error
    return Outcome(f"{type(error).__name__}: {error}", seconds, memory)


def try_websocket_client(bad: Bad, secure: Secure, ca: Path) -> Outcome:
    with BadServer(bad, secure) as server:
        target, options = server.target()
        given = {
            "url": target,
            "through": options["proxy"],
            "subprotocols": options.get("subprotocols", []),
            "ca": str(ca) if bad.scheme == "wss" else "",
            "timeout": OPEN_TIMEOUT if bad.stage != "open" else PING + PING,
            "is_open": bad.stage == "open",
        }
        command = [sys.executable, str(PROGRAM), json.dumps(given)]
        # It begins by itself to run, and has no end of its own if the client has none.
        process = subprocess.Popen(
            command, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        base = json.loads(process.stdout.readline())["base"]
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            memory = resident(process.pid)
            process.kill()
            process.communicate()
            return Outcome("blocks", PATIENCE, memory - base)
        answer = json.loads(process.stdout.read())
        process.communicate()
    return Outcome(answer["outcome"], answer["seconds"], answer["memory"])


def resident(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def kind(outcome: str) -> str:
    """Name the kind of what websocket-client did."""
    for word, name in (
        ("blocks", "blocks for ever"),
        ("foreign", "raises what is not its own"),
        ("opens", "accepts it"),
        ("accepts", "accepts it"),
        ("delivers", "accepts it"),
        ("returns", "returns '' as for an empty text"),
    ):
        if outcome.startswith(word):
            return name
    return "raises an error of its own"


def chosen(parts: list[str]) -> Iterator[Bad]:
    for bad in BEHAVIOURS.values():
        if not parts or any(part in bad.name for part in parts):
            yield bad


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="scripts/rig hostile", description="Try every bad behaviour on a client."
    )
    parser.add_argument("names", nargs="*", help="only those whose name holds one of these")
    parser.add_argument("--client", choices=["connman", "websocket-client", "both"], default="both")
    parser.add_argument("--write", action="store_true", help="keep what websocket-client does")
    given = parser.parse_args()
    secure, kinds, outcomes = Secure.fresh(), Counter[str](), {}
    with tempfile.NamedTemporaryFile(suffix=".pem") as ca:
        ca.write(secure.authority)
        ca.flush()
        for bad in chosen(given.names):
            print(bad.name, flush=True)
            if given.client != "websocket-client":
                print(f"  connman           {try_connman(bad, secure)}", flush=True)
            if given.client != "connman":
                outcome = try_websocket_client(bad, secure, Path(ca.name))
                outcomes[bad.name] = outcome.text
                kinds[kind(outcome.text)] += 1
                print(f"  websocket-client  {outcome}", flush=True)
    if outcomes:
        print(f"\nwebsocket-client {websocket.__version__}, {len(outcomes)} behaviours:")
        for name, count in kinds.most_common():
            print(f"  {count:4d}  {name}")
    if given.write:
        kept = {"websocket-client": websocket.__version__, "outcomes": outcomes}
        MEASURED.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


main()
