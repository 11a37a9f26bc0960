"""Whatever size a server claims or sends, it is refused in under a second, and costs less than two messages of memory.

Each case is a process of its own, whose VmHWM tells the most memory that it has ever held.
"""

import json
import subprocess
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from connman.errors import BadUpgrade, ConnmanError, MessageTooBig, ProtocolError, UpgradeRefused
from tests.hostile.acts import Act, Bad, flood, opened, says_endlessly
from tests.hostile.peer import BadServer
from tests.hostile.streams import head, part
from tests.promises.peers import program_environment
from tests.servers import BINARY, PING, TEXT, server_frame

PROGRAM = Path(__file__).parent / "programs" / "bounded.py"
ROOT = Path(__file__).parents[2]
MOST = 16 << 20  # the default of max_message_size
SECONDS = 1.0  # of a processor
PATIENCE = 5.0  # on a busy machine; that nothing waits is what test_bad_servers.py is for

SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\n"
OOPS = b"HTTP/1.1 500 Oops\r\n"
PIECE = bytes(65536)


def flooding(first: bytes, data: bytes, **fields: Any) -> Act:
    return opened(first, lambda guest: flood(guest, data), **fields)


def bomb() -> bytes:
    """Return 1 MiB of compressed data that inflates to 1 GiB."""
    deflater = zlib.compressobj(9, wbits=-15)
    # Once it has seen zeros, each mebibyte more becomes the same bytes.
    pieces = [deflater.compress(bytes(1 << 20)) + deflater.flush(zlib.Z_SYNC_FLUSH) for _ in range(3)]
    return (pieces[0] + pieces[2] * 1023)[:-4]


BOMB = bomb()


def sending_bomb(opcode: int) -> Act:
    return opened(server_frame(opcode, BOMB, rsv=4), extension="permessage-deflate")


@dataclass(frozen=True)
class Case:
    """``act``: the server's. ``error`` and ``code``: what it has to come to."""

    act: Act
    error: type[ConnmanError] = MessageTooBig
    code: int | None = 1009
    options: dict[str, Any] = field(default_factory=dict)


SMILE = "\N{GRINNING FACE}".encode()
CASES = {
    "a frame of 1 GiB": Case(flooding(head(BINARY, 1 << 30), PIECE)),
    "256 MiB of fragments": Case(flooding(part(b"", BINARY), part(bytes(1 << 20)))),
    "a first fragment that is all there may be": Case(flooding(head(BINARY, MOST, fin=False), PIECE + part(b"x") * 1000)),
    "fragments of half of it": Case(flooding(part(bytes(MOST // 2), BINARY), part(bytes(MOST // 2)))),
    "a second fragment that is all there may be": Case(flooding(part(b"x", BINARY) + head(0, MOST - 1, fin=False), PIECE)),
    "text with a wide character": Case(flooding(part(SMILE + b"x" * (MOST - 4), TEXT), part(b"x"))),
    "4 million fragments of a byte": Case(flooding(part(b"x", TEXT), part(b"x") * 20_000)),
    "fragments of nothing": Case(flooding(part(b"", BINARY), part(b"") * 20_000)),
    "fragments of nothing among pings": Case(flooding(part(b"", TEXT), (part(b"") + server_frame(PING)) * 20_000)),
    "an endless header line": Case(says_endlessly(b"x" * 65536, SWITCHING + b"X: "), BadUpgrade, None),
    "endless headers": Case(says_endlessly(b"X: x\r\n" * 10_000, SWITCHING), BadUpgrade, None),
    "endless long headers": Case(says_endlessly(b"X: " + b"x" * 8000 + b"\r\n", SWITCHING), BadUpgrade, None),
    "an endless status line": Case(says_endlessly(b"x" * 65536, b"HTTP/1.1 101 "), BadUpgrade, None),
    "an error body of 100 GB": Case(
        says_endlessly(PIECE, OOPS + b"Content-Length: 99999999999\r\n\r\n"), UpgradeRefused, None
    ),
    "an endless error body": Case(says_endlessly(PIECE, OOPS + b"\r\n"), UpgradeRefused, None),
    "a chunk of an error body without an end": Case(
        says_endlessly(PIECE, OOPS + b"Transfer-Encoding: chunked\r\n\r\nffffffff\r\n"), UpgradeRefused, None
    ),
    "a compressed bomb of 1 MiB": Case(sending_bomb(BINARY), options={"compression": "deflate"}),
    "a compressed bomb of text": Case(sending_bomb(TEXT), options={"compression": "deflate"}),
    "a compressed message in fragments of a byte": Case(
        flooding(part(b"", BINARY, rsv=4), part(b"\0") * 20_000, extension="permessage-deflate"),
        ProtocolError,
        1007,
        {"compression": "deflate"},
    ),
    "compressed fragments of nothing": Case(
        flooding(part(b"", BINARY, rsv=4), part(b"") * 20_000, extension="permessage-deflate"),
        options={"compression": "deflate"},
    ),
}  # fmt: skip
QUICK = ("a frame of 1 GiB", "4 million fragments of a byte", "an endless header line")


def cases() -> Iterator[object]:
    for name in CASES:
        for reader in ("own", "shared"):
            is_quick = name in QUICK and reader == "own"
            marks = [] if is_quick else [pytest.mark.slow]
            yield pytest.param(name, reader, id=f"{name}, {reader} reader", marks=marks)


def run(program: Path, *arguments: str) -> dict[str, Any]:
    """Run a program in a fresh process and return what it prints."""
    done = subprocess.run(
        [sys.executable, str(program), *arguments],
        cwd=ROOT,
        env={**program_environment(), "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=50,
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.mark.parametrize(("name", "reader"), list(cases()))
def test_a_hostile_size_is_refused_soon_and_holds_little(name: str, reader: str) -> None:
    """Seen failing on websocket-client 1.9.2, which has no limit on anything and reads these for ever.

    And on ours without the limit of fragments, with fragments kept until they are whole (a peak of 2.04 messages), and
    with lines of any length.
    """
    case = CASES[name]
    bad = Bad(name=name, act=case.act, error=case.error, text="", stage="")
    with BadServer(bad, None) as server:
        answer = run(PROGRAM, f"ws://127.0.0.1:{server.port}/", reader, json.dumps(case.options))
    print(name, answer)
    assert (answer["error"], answer["code"]) == (case.error.__name__, case.code), answer
    assert answer["cpu"] < SECONDS, answer
    assert answer["seconds"] < PATIENCE, answer
    assert answer["peak"] < answer["base"] + 2 * MOST, answer
