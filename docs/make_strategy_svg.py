"""Make the picture in docs/strategies.md: python -m docs.make_strategy_svg > docs/strategies.svg, from the checkout's root.

It opens the default tree to a real SockJS server, through a proxy that treats websockets in one way after the other, and draws what
`Connection.attempts` tells of it. Nothing is invented: a phase that took less than a few pixels gets as many.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

import connman
from connman.clock import SystemClock
from connman.records import Step
from tests.promises.networks import default_tree
from tests.proxies import Blocks, WebSocketBlocker
from tests.transport.sockjs_servers import SockjsProcess

# As docs/make_demo_svg.py has them, so that the pictures look alike.
WIDTH, FONT_SIZE, LINE_HEIGHT, PADDING = 971, 12, 17, 16
COLUMN_WIDTH = 0.6021 * FONT_SIZE

LABELS = 15  # columns for the names of the leaves
SECONDS = 8  # on the axis
LEAST = 3.0  # pixels that a phase gets
BAR = 13
GIVEN_UP = "given up"  # of a dial that was ended because another way had won, or its time was over
PHASES = {  # what each phase of a dial is drawn as
    "tcp": "connect", "proxy": "connect", "tls": "connect",
    "upgrade": "ask", "request": "ask", "open": "wait", "handshake": "login",
}  # fmt: skip
LEGEND = {
    "connect": "tcp, proxy, tls",
    "ask": "upgrade or request",
    "wait": "opening frame",
    "login": "login",
    "won": "open",
}
STYLE = """
text { font: 12px ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; fill: #c9d1d9; white-space: pre }
.bold { fill: #ffffff; font-weight: bold } .dim { fill: #8b949e } .good { fill: #56d364 } .inside { fill: #0d1117 }
line { stroke: #21262d }
rect.connect { fill: #58a6ff } rect.ask { fill: #e3b341 } rect.wait { fill: #d2a8ff } rect.login { fill: #ffa198 }
rect.won { fill: #56d364 }
"""


# A run


@dataclass(frozen=True)
class Act:
    """What a network does with websockets, and what came of it: how long opening took, over what, step by step."""

    title: str
    seconds: float
    way: str
    steps: tuple[Step, ...]


NETWORKS: list[tuple[str, Blocks | None, bool]] = [
    ("Upgrades are answered with 403", "refuse", False),
    ("Upgrades are never answered", "swallow", False),
    ("Upgrades pass, and no frame behind them does", "swallow frames", False),
    ("Upgrades are never answered, and streams are held back", "swallow", True),
    ("Everything passes again", None, False),
    ("Upgrades are never answered, and the websocket worked last time: it is tried alone first", "swallow", False),
    ("The same again, and HTTP worked last time: it is tried alone, since it was passed over four times", "swallow", False),
]  # fmt: skip


def play() -> Iterator[Act]:
    """Open the tree in one network after the other, with one file for what is remembered."""
    clock = SystemClock()
    with (
        SockjsProcess("aiohttp") as server,
        WebSocketBlocker(None) as proxy,
        tempfile.TemporaryDirectory() as folder,
    ):
        tree = default_tree(server.port, server.port, store=Path(folder) / "transports.json")
        for title, blocks, holds_streams in NETWORKS:
            proxy.blocks, proxy.holds_streams = blocks, holds_streams
            began = clock.now()
            with connman.Connection(tree, proxy=f"http://127.0.0.1:{proxy.port}", handshake=log_in) as conn:
                yield Act(title, clock.now() - began, str(conn.transport_name), conn.attempts)


def log_in(channel: connman.Channel) -> None:
    """Have the server send something back, as a login does."""
    channel.send("let me in")
    channel.recv()


# What is drawn of it


@dataclass(frozen=True)
class Bar:
    """A phase of one dial of a leaf; `end`: how the dial ended with it, None when it went on."""

    phase: str
    start: float
    stop: float
    end: str | None


def bars(steps: Iterable[Step], leaf: str) -> Iterator[Bar]:
    """Yield the phases of a leaf in order; one in which it was ended began where the one before had."""
    stop = 0.0
    for step in sorted(
        (step for step in steps if step.leaf == leaf), key=lambda step: step.start + step.seconds
    ):
        if step.phase == "cache":
            continue
        # A dial that was given up is told from its start, whatever it was about.
        start = max(step.start, stop) if step.cause == GIVEN_UP else step.start
        stop = step.start + step.seconds
        yield Bar(step.phase, start, stop, step.cause)


class Picture:
    """The picture of some acts, drawn line by line."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._top = PADDING

    def draw(self, acts: Iterable[Act]) -> str:
        """Return all of it."""
        for act in acts:
            self._act(act)
        bottom = self._axis()
        self._legend()
        height = self._top + PADDING
        lines = (
            f'<line x1="{place(second)}" x2="{place(second)}" y1="{PADDING}" y2="{bottom}"/>'
            for second in range(SECONDS + 1)
        )
        return "\n".join(
            (
                f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}">',
                f"<style>{STYLE}</style>",
                f'<rect width="{WIDTH}" height="{height}" rx="8" fill="#0d1117"/>',
                *lines,
                *self._parts,
                "</svg>",
                "",
            )
        )

    def _act(self, act: Act) -> None:
        self._text(PADDING, act.title, "bold")
        self._top += LINE_HEIGHT
        for leaf in dict.fromkeys(step.leaf for step in sorted(act.steps, key=lambda step: step.start)):
            self._text(PADDING, leaf, "dim")
            self._lane(act, leaf)
            self._top += LINE_HEIGHT
        self._top += LINE_HEIGHT // 2

    def _lane(self, act: Act, leaf: str) -> None:
        """Draw what a leaf did, and the connection behind it when it has won."""
        x = 0.0
        for bar in bars(act.steps, leaf):
            left, right = max(place(bar.start), x), place(bar.stop)
            x = max(right, left + LEAST)
            self._bar(left, x, PHASES.get(bar.phase, "wait"), "no answer" if bar.end == GIVEN_UP else "")
            if bar.end is not None and bar.end != GIVEN_UP:
                self._text(x + 6, bar.end, "dim")
        if leaf == act.way:
            self._bar(x, place(SECONDS), "won", f"open after {_told(act.seconds)}")

    def _bar(self, left: float, right: float, kind: str, inside: str) -> None:
        top = self._top + 1.5
        self._parts.append(
            f'<rect class="{kind}" x="{left:.1f}" y="{top}" width="{right - left:.1f}" height="{BAR}"/>'
        )
        if inside and len(inside) * COLUMN_WIDTH + 8 < right - left:
            self._text(left + 4, inside, "inside")

    def _axis(self) -> int:
        bottom = self._top
        for second in range(SECONDS):
            self._text(place(second) - COLUMN_WIDTH / 2, f"{second} s" if second else "0", "dim")
        self._top += LINE_HEIGHT + LINE_HEIGHT // 2
        return bottom

    def _legend(self) -> None:
        x = place(0)
        for kind, words in LEGEND.items():
            self._bar(x, x + BAR, kind, "")
            self._text(x + BAR + 5, words, "dim")
            x += BAR + 5 + (len(words) + 3) * COLUMN_WIDTH
        self._top += LINE_HEIGHT

    def _text(self, x: float, text: str, kind: str) -> None:
        y = self._top + FONT_SIZE
        self._parts.append(
            f'<text class="{kind}" x="{x:.1f}" y="{y}" xml:space="preserve">{escape(text)}</text>'
        )


def _told(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 0.1 else f"{seconds * 1000:.0f} ms"


def place(second: float) -> float:
    """Return where on the axis that is, in pixels."""
    left = PADDING + LABELS * COLUMN_WIDTH
    return round(left + second * (WIDTH - PADDING - left) / SECONDS, 1)


if __name__ == "__main__":
    sys.stdout.write(Picture().draw(play()))
