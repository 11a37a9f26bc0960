"""How a diagnosis looks: a table a way for people, or JSON, one object a line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from connman.cli.advice import Diagnosis
from connman.cli.probe import Finding
from connman.cli.render import cause_of, json_line, step_fields
from connman.errors import printable
from connman.records import Step

_GREEN, _RED = 32, 31
_TREE = "all of them in turn, as connman.strategy.pusher_default() has it"
# What of /info is told. The rest is for browsers, and a random number.
_INFO = ("websocket", "cookie_needed")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What all findings together mean. ``ways``: the names of what opened, the best first."""

    ways: tuple[str, ...]
    advice: str

    @property
    def is_good(self) -> bool:
        """Whether any way through exists."""
        return bool(self.ways)


class Report(Protocol):
    """Turn what was found into the bytes of whole lines."""

    def way(self, finding: Finding, diagnosis: Diagnosis) -> bytes:
        """Return what is printed of one dial.

        Threads: any; pure.
        """

    def verdict(self, verdict: Verdict) -> bytes:
        """Return what is printed at the end.

        Threads: any; pure.
        """


class TextReport:
    """A table for each way, its phases one below the other. A `Report`."""

    def __init__(self, *, has_colour: bool) -> None:
        self._has_colour = has_colour

    def way(self, finding: Finding, diagnosis: Diagnosis) -> bytes:
        """Return the table of one dial; see `Report`.

        Threads: any; pure.
        """
        via = f" through {finding.proxy}" if finding.proxy else ""
        lines = [f"{finding.way.name}  {finding.way.address or _TREE}{via}"]
        lines += _table(finding.steps)
        if finding.info is not None:
            said = ", ".join(
                f"{name} {'yes' if is_so else 'no'}" for name, is_so in _told(finding.info).items()
            )
            lines.append(f"  it {self._word('says', _GREEN)}: {said or 'nothing that matters'}")
            lines += [f"  {diagnosis.kind}: {diagnosis.advice}"] if diagnosis.advice else []
        elif finding.error is None:
            chosen = f" as {finding.transport}" if finding.transport != finding.way.name else ""
            message = f"; first message: {finding.message}" if finding.message else ""
            lines.append(f"  {self._word('open', _GREEN)}{chosen} after {finding.seconds:.3f} s{message}")
        else:
            cause = cause_of(finding.error, in_full=False)
            lines.append(f"  {self._word('failed', _RED)} after {finding.seconds:.3f} s: {_one_line(cause)}")
            lines.append(f"  {diagnosis.kind}: {diagnosis.advice}")
        return _encoded([*lines, ""])

    def verdict(self, verdict: Verdict) -> bytes:
        """Return the last lines; see `Report`.

        Threads: any; pure.
        """
        good = self._word("a way through", _GREEN) + ": " + ", ".join(verdict.ways)
        lines = [good if verdict.is_good else self._word("no way through", _RED)]
        return _encoded(lines + ([verdict.advice] if verdict.advice else []))

    def _word(self, word: str, colour: int) -> str:
        return f"\x1b[{colour}m{word}\x1b[0m" if self._has_colour else word


class JsonReport:
    """One JSON object a line: ``way``, ``info`` or ``tree`` for each dial, ``verdict`` at the end. A `Report`."""

    def way(self, finding: Finding, diagnosis: Diagnosis) -> bytes:
        """Return the object of one dial; see `Report`.

        Threads: any; pure.
        """
        fields: dict[str, Any] = {
            "way": finding.way.name,
            "address": finding.way.address or None,
            "proxy": finding.proxy,
        }
        if finding.way.kind == "info":
            fields |= {"is_answered": finding.error is None, "says": _told(finding.info or {})}
        else:
            names = {
                "is_open": finding.error is None,
                "transport": finding.transport,
                "message": finding.message,
            }
            fields |= names
        fields |= {
            "seconds": round(finding.seconds, 6),
            "cause": None if finding.error is None else cause_of(finding.error, in_full=False),
            "kind": diagnosis.kind,
            "advice": diagnosis.advice or None,
            "steps": [step_fields(step) for step in finding.steps],
        }
        return json_line(finding.way.kind, fields)

    def verdict(self, verdict: Verdict) -> bytes:
        """Return the last object; see `Report`.

        Threads: any; pure.
        """
        fields = {"is_open": verdict.is_good, "ways": verdict.ways, "advice": verdict.advice or None}
        return json_line("verdict", fields)


def _told(info: Mapping[str, object]) -> dict[str, bool]:
    return {name: told for name in _INFO if isinstance(told := info.get(name), bool)}


def _table(steps: Sequence[Step]) -> list[str]:
    if any(step.leaf for step in steps):
        leaves = [
            f"{step.leaf or '':<{_widest(step.leaf for step in steps)}}  +{step.start:.3f} s  "
            for step in steps
        ]
    else:
        leaves = [""] * len(steps)
    phases = _widest(step.phase for step in steps)
    addresses = _widest(_one_line(step.address) for step in steps)
    return [
        f"  {leaf}{step.phase:<{phases}}  {_one_line(step.address):<{addresses}}  {step.seconds:>8.3f} s  "
        f"{_one_line(step.cause or 'ok')}"
        for leaf, step in zip(leaves, steps, strict=True)
    ]


def _widest(texts: Iterable[str]) -> int:
    return max(map(len, texts), default=0)


def _one_line(text: str) -> str:
    return printable(text, limit=300)


def _encoded(lines: Sequence[str]) -> bytes:
    return ("\n".join(lines) + "\n").encode(errors="backslashreplace")
