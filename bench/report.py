"""What a run says: the table, and bench/results.json."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.judge import Outcome, Outcomes, Row, Verdict, is_at, ratio, verdicts
from bench.rows import RAW, machine

RESULTS = Path(__file__).parent / "results.json"
WIDTH = 33


def number(value: float | None) -> str:
    """Print a figure with about three digits that mean something."""
    if value is None:
        return "-"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 1 else f"{value:.2f}"


def lines(row: Row, outcomes: Outcomes) -> Iterator[str]:
    """Yield a row of the report: a line for each client, then one for each target."""
    yield f"{row.name}: {row.title} [{row.unit}]"
    first = outcomes[row.tasks[0].label]
    for label, outcome in outcomes.items():
        line = client_line(label, outcome, ratio(first, outcome) if outcome is not first else None)
        yield f"  {line}{at_the_floor(label, outcomes)}"
    for verdict in verdicts(row, outcomes):
        yield "  " + verdict_line(verdict)


def client_line(label: str, outcome: Outcome, times: float | None) -> str:
    """Print the median, the spread and what the first client of the row is to this one."""
    if outcome.missing:
        return f"{label:{WIDTH}} not measured: {outcome.missing}"
    if outcome.error or outcome.spread is None:
        return f"{label:{WIDTH}} failed: {outcome.error}"
    low, high = map(number, outcome.spread)
    compared = f"   first / this = {times:.2f}" if times is not None else ""
    faults = f"   {'; '.join(outcome.faults)}" if outcome.faults else ""
    return f"{label:{WIDTH}} {number(outcome.median):>12}   {low} … {high:12}{compared}{faults}"


def at_the_floor(label: str, outcomes: Outcomes) -> str:
    """Warn of a figure that says more about the server than about the client: the true ratio to it is worse."""
    if RAW not in outcomes or label.startswith("floor") or not is_at(outcomes[label], outcomes[RAW]):
        return ""
    return "   AT THE FLOOR: the server was the limit"


def verdict_line(verdict: Verdict) -> str:
    """Print what was reached and what was to be."""
    times = "x" if verdict.target.against else ""
    figure = "-" if verdict.figure is None else f"{verdict.figure:.2f}{times}"
    return f"> {verdict.target.what:56} {figure:>9}   to reach {verdict.target.limit:8} {verdict.word}"


def summary(judged: list[tuple[Row, Verdict]]) -> str:
    """Say in a few lines how many targets were reached, and which were not."""
    met = sum(verdict.is_met is True for _, verdict in judged)
    text = [f"{met} of {len(judged)} targets reached"]
    for word, wanted in (("short", False), ("not measured", None)):
        names = [f"{row.name} ({v.target.what} {v.target.limit})" for row, v in judged if v.is_met is wanted]
        text += [f"{word}: {', '.join(names)}"] if names else []
    return "\n".join(text)


def results(measured: list[tuple[Row, Outcomes]], load: float) -> dict[str, Any]:
    """Return what is kept of a run: figures, versions, and what bears on them of the machine, its load before the run."""
    versions = {
        outcome.version for _, outcomes in measured for outcome in outcomes.values() if outcome.version
    }
    return {
        "measured": datetime.now(UTC).date().isoformat(),
        "machine": {**machine(), "python": platform.python_version(), "load": rounded(load)},
        "versions": dict(sorted(version.split(" ", 1) for version in versions)),
        "rows": {row.name: row_result(row, outcomes) for row, outcomes in measured},
    }


def joined(there: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Return the results that are there with the rows of a later run among them, which say when they were measured."""
    when = {"measured": new["measured"], "load": new["machine"]["load"]}
    rows = {name: {**row, "run": when} for name, row in new["rows"].items()}
    versions = dict(sorted({**there["versions"], **new["versions"]}.items()))
    return {**there, "versions": versions, "rows": {**there["rows"], **rows}}


def row_result(row: Row, outcomes: Outcomes) -> dict[str, Any]:
    """Return what is kept of one row."""
    kept: dict[str, Any] = {"title": row.title, "unit": row.unit}
    if row.curve:
        kept |= {"curve": row.curve, "x": row.x}
    kept["figures"] = {label: outcome_result(outcome) for label, outcome in outcomes.items()}
    kept["targets"] = [
        {"what": v.target.what, "limit": v.target.limit, "figure": rounded(v.figure), "verdict": v.word}
        for v in verdicts(row, outcomes)
    ]
    return kept


def outcome_result(outcome: Outcome) -> dict[str, Any]:
    """Return what is kept of one client in one row."""
    if outcome.missing or outcome.error:
        return {"missing": outcome.missing} if outcome.missing else {"error": outcome.error}
    details = {name: rounded(value) for name, value in outcome.details.items()}
    faults = {"faults": outcome.faults} if outcome.faults else {}
    runs = [rounded(value) for value in outcome.values]
    return {"median": rounded(outcome.median), "runs": runs, **details, **faults}


def rounded(value: float | None) -> float | None:
    """Cut a figure to four digits."""
    return None if value is None else float(f"{value:.4g}")


def write(kept: Mapping[str, Any]) -> None:
    """Write bench/results.json."""
    RESULTS.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read() -> dict[str, Any]:
    """Return what the last run that was kept has written."""
    return json.loads(RESULTS.read_text(encoding="utf-8"))
