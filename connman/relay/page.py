"""The page that shows a relay to whoever runs it: one pure function of a snapshot.

It needs no script to be read; with one it keeps itself fresh without flicker, without one it is loaded anew.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape

from connman.relay.counts import OTHER_CODE, Rate, Snapshot

REFRESH = 2
"""Seconds between two looks."""

MOST_NAMES = 200
"""Names on the page: a relay may have a hundred thousand."""


@dataclass(frozen=True, slots=True)
class NameLine:
    """A name, and how many spares and pairs it has: shown only where names may be seen."""

    name: str
    spares: int
    pairs: int


_CODES = {
    1000: "normal",
    1001: "going away",
    1002: "protocol error",
    1003: "wrong kind of data",
    1006: "lost",
    1007: "not UTF-8",
    1008: "policy",
    1009: "message too big",
    1011: "error",
    1012: "restart",
    1013: "try again later",
    3000: "bad or expired token",
    3003: "not allowed for that name",
    4000: "first message not text",
    4001: "first message malformed",
    4002: "partner left",
    4102: "other side lost",
    4104: "no provider of that name",
    4108: "no first message in time",
    4110: "provider not ready in time",
    4113: "broker lost",
    4129: "too many",
    OTHER_CODE: "all others",
}

_STYLE = """
:root{color-scheme:light dark;--page:#f6f7f9;--card:#fff;--ink:#1b1f24;--dim:#5b6470;--line:#dfe3e8;--data:#2563c9;
--good:#1a7f4b;--bad:#b3261e}
@media(prefers-color-scheme:dark){:root{--page:#14171b;--card:#1d2126;--ink:#e7eaee;--dim:#9aa4b0;--line:#31373f;
--data:#6ea8ff;--good:#58c48b;--bad:#ff8a80}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.45 system-ui,sans-serif}
main,#stale{max-width:66rem;margin:0 auto;padding:1rem}
header{display:flex;flex-wrap:wrap;align-items:center;gap:.25rem 1rem;margin-bottom:1rem}
h1{font-size:1.25rem;margin:0}
h2{font-size:1rem;margin:0 0 .5rem}
header p{margin:0;color:var(--dim)}
.state{border:1px solid;border-radius:1rem;padding:.05rem .75rem;font-weight:600}
.good{color:var(--good)}.bad{color:var(--bad)}
section{background:var(--card);border:1px solid var(--line);border-radius:.5rem;padding:1rem;min-width:0}
.grid{display:grid;gap:1rem;margin-bottom:1rem}
.few{grid-template-columns:repeat(auto-fit,minmax(8rem,1fr))}
.many{grid-template-columns:repeat(auto-fit,minmax(min(18rem,100%),1fr))}
.tables{align-items:start}
.few h2,.rate h2{font-weight:400;color:var(--dim);margin:0}
.number{font-size:1.75rem;font-weight:600;margin:0;font-variant-numeric:tabular-nums}
.dim{color:var(--dim);margin:0;font-size:.875rem}
svg{display:block;width:100%;height:3.5rem;margin-top:.5rem;color:var(--data);overflow:visible}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:.25rem .75rem .25rem 0;border-top:1px solid var(--line)}
th{white-space:nowrap;font-weight:400;color:var(--dim);border-top:0}
.w{overflow-wrap:anywhere}
.n{text-align:right;padding-right:0;font-variant-numeric:tabular-nums;white-space:nowrap}
#stale{display:none;color:var(--bad);font-weight:600;padding-bottom:0}
.stale #stale{display:block}.stale main{opacity:.5}
"""

# A relay that does not answer is said to, and what is shown then looks old. A page that nobody looks at asks nothing.
_SCRIPT = """
"use strict";
const look = async () => {
  if (!document.hidden) {
    try {
      const answer = await fetch(location.pathname, {cache: "no-store", signal: AbortSignal.timeout(10000)});
      if (!answer.ok) throw new Error(answer.status);
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      document.querySelector("main").replaceWith(fresh.querySelector("main"));
      document.title = fresh.title;
      document.body.classList.remove("stale");
    } catch {
      document.body.classList.add("stale");
    }
  }
  setTimeout(look, REFRESH);
};
setTimeout(look, REFRESH);
""".replace("REFRESH", str(1000 * REFRESH))


def _hash_of(text: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


# Nothing but this page's own style and script, told by their digests, and requests to where it comes from.
POLICY = "; ".join(
    (
        "default-src 'none'",
        f"style-src {_hash_of(_STYLE)}",
        f"script-src {_hash_of(_SCRIPT)}",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)


def render(taken: Snapshot, names: Sequence[NameLine] | None = None) -> str:
    """Return the page as HTML. Names are on it only when ``names`` is given.

    Threads: any.
    """
    state, kind = _state(taken)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{taken.pairs:,} pairs, {state} – connman relay</title>
<noscript><meta http-equiv="refresh" content="{REFRESH}"></noscript>
<style>{_STYLE}</style>
</head>
<body>
<p id="stale" role="status">The relay does not answer: these numbers are old.</p>
<main>
<header><h1>connman relay</h1><span class="state {kind}">{state}</span><p>up for {duration(taken.uptime)}</p></header>
<div class="grid few">{_numbers(taken)}</div>
<div class="grid many">{_rates(taken.rates)}</div>
<div class="grid many tables">{_tables(taken, names)}</div>
</main>
<script>{_SCRIPT}</script>
</body>
</html>
"""


def _state(taken: Snapshot) -> tuple[str, str]:
    if taken.is_stopping:
        return "stopping", "bad"
    return ("broker lost", "bad") if taken.broker == "lost" else ("running", "good")


def _numbers(taken: Snapshot) -> str:
    shown = [
        ("pairs", taken.pairs),
        ("spares", taken.spares),
        ("names", taken.names),
        ("connections", taken.connections),
    ]
    if taken.groups:
        shown.append(("groups", taken.groups))
    return "".join(
        f'<section><h2>{title}</h2><p class="number" id="{title}">{number:,}</p></section>'
        for title, number in shown
    )


def _rates(rates: tuple[Rate, ...]) -> str:
    return (
        _rate("frames a second", [rate.frames for rate in rates], amount)
        + _rate("bytes a second", [rate.bytes for rate in rates], size)
        + _rate("new pairs a second", [rate.pairs for rate in rates], amount)
    )


def _rate(title: str, values: list[float], tell: Callable[[float], str]) -> str:
    now, most = (values[-1], max(values)) if values else (0.0, 0.0)
    return (
        f'<section class="rate"><h2>{title}</h2><p class="number">{tell(now)}</p>'
        f"{sparkline(values, f'{title}: now {tell(now)}, at most {tell(most)}')}"
        f'<p class="dim">at most {tell(most)} in the last {max(1, len(values))} s</p></section>'
    )


def sparkline(values: Sequence[float], label: str) -> str:
    """Return a small picture of ``values``, oldest first, from 0 to the largest of them; ``label`` says it in words.

    Threads: any.
    """
    most = max(values, default=0.0) or 1.0
    step = 240 / max(1, len(values) - 1)
    points = " ".join(
        f"{i * step:.1f},{48 - 46 * max(0.0, value) / most:.1f}" for i, value in enumerate(values)
    )
    line = ""
    if len(values) > 1:
        line = (
            f'<polygon points="0,48 {points} 240,48" fill="currentColor" fill-opacity=".12"/>'
            f'<polyline points="{points}" fill="none" stroke="currentColor" stroke-width="2" '
            'stroke-linejoin="round" vector-effect="non-scaling-stroke"/>'
        )
    return (
        f'<svg viewBox="0 0 240 48" preserveAspectRatio="none" role="img" aria-label="{escape(label)}">{line}'
        '<line x1="0" y1="48" x2="240" y2="48" stroke="currentColor" stroke-opacity=".35" vector-effect="non-scaling-stroke"/>'
        "</svg>"
    )


def _tables(taken: Snapshot, names: Sequence[NameLine] | None) -> str:
    parts = []
    if taken.broker != "none":
        rows = [(relay.id, relay.address, f"{relay.age:.1f} s ago") for relay in taken.relays]
        parts.append(_table("relays", ("relay", "address", "heard of"), rows))
    totals = [
        ("connections", taken.connections_total),
        ("pairs", taken.pairs_total),
        ("frames forwarded", taken.frames_total),
        ("bytes forwarded", size(taken.bytes_total)),
        ("handovers failed", taken.handovers_failed),
    ]
    parts.append(_table("since the start", ("what", "how many"), totals))
    refused = sorted(taken.refused.items(), key=lambda item: -item[1])
    parts.append(_table("refused", ("reason", "how many"), refused))
    closes = sorted(taken.closes.items(), key=lambda item: -item[1])
    told = [(code or "other", _CODES.get(code, ""), count) for code, count in closes]
    parts.append(_table("closed", ("code", "meaning", "how many"), told))
    if names is not None:
        busiest = sorted(names, key=lambda line: (-line.pairs, -line.spares, line.name))[:MOST_NAMES]
        title = "names" if len(busiest) == len(names) else f"the {MOST_NAMES} busiest of {len(names):,} names"
        lines = [(line.name, line.spares, line.pairs) for line in busiest]
        parts.append(_table(title, ("name", "spares", "pairs"), lines))
    return "".join(parts)


def _table(title: str, heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    body = "".join(f"<tr>{_cells('td', row)}</tr>" for row in rows)
    if not body:
        return f'<section><h2>{title}</h2><p class="dim">none</p></section>'
    return (
        f'<section><h2>{title}</h2><div class="scroll"><table><thead><tr>{_cells("th", heads)}</tr></thead>'
        f"<tbody>{body}</tbody></table></div></section>"
    )


def _cells(tag: str, row: Sequence[object]) -> str:
    """Return one row: numbers at the right, with what is at the end of it, and long words broken where they must be."""
    cells = []
    for i, cell in enumerate(row):
        text = f"{cell:,}" if isinstance(cell, int) and i else escape(str(cell))
        kind = "n" if (isinstance(cell, int) and i) or i == len(row) - 1 else "w" if len(text) > 20 else ""
        if tag == "th":
            kind = "n" if i == len(row) - 1 else ""
        cells.append(f"<{tag}{kind and f' class={kind}'}>{text}</{tag}>")
    return "".join(cells)


def duration(seconds: float) -> str:
    """Return a length of time for people: its two largest units.

    Threads: any.
    """
    whole = int(max(0.0, seconds))
    parts = [
        (number, unit)
        for number, unit in (
            (whole // 86400, "d"),
            (whole // 3600 % 24, "h"),
            (whole // 60 % 60, "min"),
            (whole % 60, "s"),
        )
    ]
    first = next((i for i, (number, _) in enumerate(parts) if number), len(parts) - 1)
    return " ".join(f"{number} {unit}" for number, unit in parts[first : first + 2])


def size(number: float) -> str:
    """Return a number of bytes for people.

    Threads: any.
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{number:.0f} {unit}" if unit == "B" or number >= 100 else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:,.1f} TiB"


def amount(number: float) -> str:
    """Return a number of things a second for people.

    Threads: any.
    """
    return f"{number:,.0f}" if number >= 10 or number == int(number) else f"{number:.1f}"
