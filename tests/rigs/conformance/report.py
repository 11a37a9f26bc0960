"""What a run of the suite says: a table, what is not OK, which targets are missed, and all of it as JSON."""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import websocket

import connman
from tests.rigs.conformance.runs import Result
from tests.rigs.conformance.suite import REQUIREMENT

MOST_NON_STRICT = 2
GOOD = ("OK", "NON-STRICT", "INFORMATIONAL")
HEAD = "| cases | in all | OK | NON-STRICT | INFORMATIONAL | FAILED | wrong close | seconds |"
RULE = "|---|---|---|---|---|---|---|---|"


def is_failed(case: dict[str, Any]) -> bool:
    """Whether the suite found it wrong, or it did not come to a verdict (UNIMPLEMENTED, MISSING)."""
    return case["behavior"] not in GOOD


def is_wrong_close(case: dict[str, Any]) -> bool:
    """Whether the closing handshake was not as it should be."""
    return case["behaviorClose"] not in ("OK", "INFORMATIONAL")


def counts(cases: Sequence[dict[str, Any]]) -> list[int]:
    """Count: in all, OK, NON-STRICT, INFORMATIONAL, FAILED, wrong close."""
    kinds = Counter(case["behavior"] for case in cases)
    failed, wrong = sum(map(is_failed, cases)), sum(map(is_wrong_close, cases))
    return [len(cases), *(kinds[kind] for kind in GOOD), failed, wrong]


def row(title: str, cases: Sequence[dict[str, Any]]) -> str:
    """Return a row of the table."""
    seconds = sum(case.get("seconds", 0.0) for case in cases)
    return f"| {' | '.join([title, *map(str, counts(cases)), f'{seconds:.1f}'])} |"


def chapters(result: Result) -> dict[str, list[dict[str, Any]]]:
    """Sort the cases by their first number."""
    found: dict[str, list[dict[str, Any]]] = {}
    for name, case in result.cases.items():
        found.setdefault(name.partition(".")[0], []).append(case)
    return dict(sorted(found.items(), key=lambda item: int(item[0])))


def table(results: Sequence[Result], *, in_chapters: bool = False) -> list[str]:
    """Return the table as Markdown: a row for each run, and each of its chapters if wanted."""
    lines = [HEAD, RULE]
    for result in results:
        lines.append(row(result.run.title, list(result.cases.values())))
        if in_chapters:
            lines += [row(f"… {number}", cases) for number, cases in chapters(result).items()]
    return lines


def not_ok(result: Result) -> Iterator[str]:
    """Name every case that is anything but OK, and what there was to see."""
    for name, case in result.cases.items():
        if case["behavior"] != "OK" or is_wrong_close(case):
            said = f"{case.get('result', '')} {case.get('resultClose', '')}".strip()
            yield (
                f"{result.run.name} {name}: {case['behavior']}, close {case['behaviorClose']} "
                f"{case['remoteCloseCode'] or 'without a code'}; {said} Seen: {case.get('received', '-')}; "
                f"the client: {case.get('end', '-')}"
            )


def missed(result: Result) -> Iterator[str]:
    """Name the targets that a run has missed."""
    name = result.run.name
    _, _, non_strict, _, failed, wrong = counts(list(result.cases.values()))
    if failed:
        yield f"{name}: {failed} FAILED"
    if wrong:
        yield f"{name}: {wrong} wrong close"
    if non_strict > MOST_NON_STRICT:
        yield f"{name}: {non_strict} NON-STRICT, more than {MOST_NON_STRICT}"
    if result.complaint:
        yield f"{name}: the client complained:\n{result.complaint}"


def notes(result: Result) -> Iterator[str]:
    """Say of a run with a goal for its time how it did; another load on the machine makes it nobody's fault."""
    if result.run.goal is not None:
        used = f"{result.cpu:.1f} s of it processor time of the client"
        yield f"{result.run.name}: {result.seconds:.1f} s, {used}; the goal is {result.run.goal:g} s"


def as_json(client: str, results: Sequence[Result]) -> dict[str, Any]:
    """Return everything for a file."""
    return {
        "client": client,
        "version": {"connman": connman.__version__, "websocket-client": websocket.__version__}[client],
        "python": platform.python_version(),
        "suite": REQUIREMENT,
        "missed": [text for result in results for text in missed(result)],
        "runs": {result.run.name: result.cases for result in results},
    }


def write(path: Path, client: str, results: Sequence[Result]) -> None:
    """Write everything to a file."""
    path.write_text(json.dumps(as_json(client, results), indent=1) + "\n", encoding="utf-8")
