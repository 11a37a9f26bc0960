"""The rig `duplex` itself: a book that could not find damage would prove nothing."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.rigs.duplex.ledger import WRITERS, Ledger, read

ROOT = Path(__file__).parent.parent


def all_said(ledger: Ledger) -> list[str]:
    """Interleave what the writers say, each in its order."""
    return [
        text
        for texts in zip(*(ledger.said(writer) for writer in range(WRITERS)), strict=True)
        for text in texts
    ]


def test_what_came_back_whole_is_whole() -> None:
    ledger = Ledger(1, 40)
    said = all_said(ledger)
    assert [ledger.hear(text) for text in said] == [False] * 39 + [True]
    assert ledger.damage == []
    assert len({len(text) for text in said}) > 3


@pytest.mark.parametrize("kind", ["lost", "twice", "swapped", "changed", "cut", "bytes", "empty"])
def test_damage_is_found(kind: str) -> None:
    ledger = Ledger(2, 40)
    said: list[object] = list(all_said(ledger))
    text = said[8]
    assert isinstance(text, str)
    match kind:
        case "lost":
            del said[8]
        case "twice":
            said.insert(8, text)
        case "swapped":
            said[8], said[12] = said[12], said[8]
        case "changed":
            said[8] = text[:-1] + ("x" if text[-1] != "x" else "y")
        case "cut":
            said[8] = text[:-1]
        case "bytes":
            said[8] = text.encode()
        case "empty":
            said[8] = ""
    for data in said:
        ledger.hear(data)
    assert ledger.damage


def test_a_message_says_who_sent_it() -> None:
    assert [read(text) for text in Ledger(3, 8).said(2)] == [(2, 0), (2, 1)]


@pytest.mark.slow
def test_the_command_holds_conversations_and_counts_them() -> None:
    command = [
        sys.executable,
        "-m",
        "tests.rigs.duplex",
        "--conversations",
        "2",
        "--messages",
        "40",
        "--tls",
        "1.3",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "own reader, TLS 1.3: 1 conversations, 40 messages, 0 dropped, 0 damaged" in done.stdout
    assert "shared reader, TLS 1.3: 1 conversations, 40 messages, 0 dropped, 0 damaged" in done.stdout
