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
INFO, TREE = ways_to(Endpoint.parse("wss://feed.test/"), http="https://g/b?k=s3cret")[-2:]
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
            {
                "leaf": None,
                "start": 0.0,
                "phase": "dns",
                "address": "feed.test",
                "seconds": 0.012346,
                "cause": None,
            },
            {
                "leaf": None,
                "start": 0.0,
                "phase": "tcp",
                "address": "192.0.2.1:443",
                "seconds": 10.0,
                "cause": "no\x1b[2J answer",
            },
        ],
    }


def test_a_tree_tells_whose_steps_they_are() -> None:
    steps = (
        Step("tcp", "192.0.2.1:80", 0.5, "refused", "ws", 0.0),
        Step("request", "", 0.25, None, "xhr_streaming", 2.0),
        Step("ping", "", 0.125, None, "", 2.25),
    )
    finding = Finding(TREE, None, steps, 2.25, transport="xhr_streaming")
    assert TextReport(has_colour=False).way(finding, Diagnosis("open", "")).decode().splitlines() == [
        "default  all of them in turn, as connman.strategy.pusher_default() has it",
        "  ws             +0.000 s  tcp      192.0.2.1:80     0.500 s  refused",
        "  xhr_streaming  +2.000 s  request                   0.250 s  ok",
        "                 +2.250 s  ping                      0.125 s  ok",
        "  open as xhr_streaming after 2.250 s",
        "",
    ]
    told = parsed(JsonReport().way(finding, Diagnosis("open", "")))
    assert (told["type"], told["way"], told["address"], told["transport"]) == (
        "tree",
        "default",
        None,
        "xhr_streaming",
    )
    assert [(step["leaf"], step["start"]) for step in told["steps"]] == [
        ("ws", 0.0),
        ("xhr_streaming", 2.0),
        (None, 2.25),
    ]


def test_what_a_server_says_of_itself() -> None:
    said = {"websocket": False, "cookie_needed": True, "origins": ["\x1b[2J"], "entropy": 1}
    finding = Finding(INFO, None, (), 0.1, info=said)
    text = TextReport(has_colour=False).way(finding, Diagnosis("no-websocket", "only HTTP")).decode()
    assert text.splitlines() == [
        "info  https://g/b/info?…",
        "  it says: websocket no, cookie_needed yes",
        "  no-websocket: only HTTP",
        "",
    ]
    told = parsed(JsonReport().way(finding, Diagnosis("no-websocket", "only HTTP")))
    assert told["type"] == "info"
    assert told["is_answered"]
    assert told["says"] == {"websocket": False, "cookie_needed": True}


def test_a_server_that_says_nothing_we_know() -> None:
    for said in ({}, {"websocket": "\x1b[2J", "cookie_needed": None}):
        finding = Finding(INFO, None, (), 0.1, info=said)
        assert b"it says: nothing that matters\n" in TextReport(has_colour=False).way(
            finding, Diagnosis("open", "")
        )
        assert parsed(JsonReport().way(finding, Diagnosis("open", "")))["says"] == {}
