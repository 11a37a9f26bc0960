"""How findings look, as text and as JSON."""

import json
from typing import Any

from connman.cli.advice import Diagnosis
from connman.cli.probe import Finding
from connman.cli.report import JsonReport, TextReport, Verdict
from connman.cli.ways import ways_to
from connman.endpoint import Endpoint
from connman.errors import ConnectError
from connman.records import Step

WAY = ways_to(Endpoint.parse("wss://u:s3cret@feed.test/ticks?k=s3cret"))[0]
STEPS = (
    Step("dns", "feed.test", 0.0123456789),
    Step("tcp", "192.0.2.1:443", 10.0, "no\x1b[2J answer"),
)
FAILED = Finding(WAY, "http://proxy:1", STEPS, 10.5, error=ConnectError("", STEPS, "no connection"))
OPEN = Finding(WAY, None, STEPS[:1], 0.02, transport="wss", message="text, 2 bytes")


def parsed(line: bytes) -> dict[str, Any]:
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    value: dict[str, Any] = json.loads(line)
    assert value.pop("time") > 1e9
    return value


def test_a_failure_as_a_table() -> None:
    text = TextReport(has_colour=False).way(FAILED, Diagnosis("dropped", "packets vanish")).decode()
    assert text.splitlines() == [
        "wss  wss://feed.test/ticks?… through http://proxy:1",
        "  dns  feed.test         0.012 s  ok",
        "  tcp  192.0.2.1:443    10.000 s  no\\x1b[2J answer",
        "  failed after 10.500 s: no connection",
        "  dropped: packets vanish",
        "",
    ]


def test_an_open_way_as_a_table() -> None:
    text = TextReport(has_colour=True).way(OPEN, Diagnosis("open", "")).decode()
    assert text.splitlines()[-2:] == [
        "  \x1b[32mopen\x1b[0m after 0.020 s; first message: text, 2 bytes",
        "",
    ]


def test_what_chose_for_itself_says_what() -> None:
    finding = Finding(WAY, None, (), 0.02, transport="xhr_polling")
    assert b"open as xhr_polling after" in TextReport(has_colour=False).way(finding, Diagnosis("open", ""))


def test_verdicts() -> None:
    report = TextReport(has_colour=False)
    assert report.verdict(Verdict(("wss", "ws"), "")) == b"a way through: wss, ws\n"
    assert report.verdict(Verdict((), "look elsewhere")) == b"no way through\nlook elsewhere\n"
    assert parsed(JsonReport().verdict(Verdict(("wss",), ""))) == {
        "type": "verdict",
        "is_open": True,
        "ways": ["wss"],
        "advice": None,
    }


def test_a_failure_as_json() -> None:
    assert parsed(JsonReport().way(FAILED, Diagnosis("dropped", "packets vanish"))) == {
        "type": "way",
        "way": "wss",
        "address": "wss://feed.test/ticks?…",
        "proxy": "http://proxy:1",
        "is_open": False,
        "seconds": 10.5,
        "transport": None,
        "message": None,
        "cause": "no connection",
        "kind": "dropped",
        "advice": "packets vanish",
        "steps": [
            {"phase": "dns", "address": "feed.test", "seconds": 0.012346, "cause": None},
            {"phase": "tcp", "address": "192.0.2.1:443", "seconds": 10.0, "cause": "no\x1b[2J answer"},
        ],
    }
