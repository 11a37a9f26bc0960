import json
import logging
import re
from typing import Any

import pytest

from connman.cli.render import (
    Binary,
    Change,
    JsonRenderer,
    LogFormatter,
    Note,
    TextRenderer,
    cause_of,
    change_of,
)
from connman.errors import ConnectError, ConnectionClosed, UpgradeRefused
from connman.records import Reset, State, Step

REFUSED = ConnectError(
    "ws://x/", (Step("tcp", "127.0.0.1:1", 0.5, "Connection refused"),), "tcp: Connection refused"
)


def text_renderer(
    binary: Binary = "hex", *, is_terminal: bool = False, has_colour: bool = False
) -> TextRenderer:
    return TextRenderer(binary=binary, is_terminal=is_terminal, has_colour=has_colour)


def reset(error: Exception, **fields: Any) -> Reset:
    values: dict[str, Any] = {"opened": False, "code": None, "reason": "", "attempt": 2, "retry_in": 0.25}
    return Reset(error=error, generation=0, **(values | fields))


def parsed(line: bytes) -> dict[str, Any]:
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    value: dict[str, Any] = json.loads(line)
    assert value.pop("time") > 1e9
    return value


@pytest.mark.parametrize(
    ("binary", "shown"), [("hex", b"00ff\n"), ("base64", b"AP8=\n"), ("raw", b"\x00\xff")]
)
def test_bytes_in_the_form_that_was_asked_for(binary: Binary, shown: bytes) -> None:
    assert text_renderer(binary).message(b"\x00\xff") == shown


def test_a_text_passes_unchanged_to_a_file() -> None:
    assert text_renderer().message("ä\x1b[31m\r\t") == "ä\x1b[31m\r\t\n".encode()


def test_a_text_cannot_drive_a_terminal() -> None:
    assert text_renderer(is_terminal=True).message("ä\x1b[2J\x9b\t\n") == "ä\\x1b[2J\\x9b\t\n\n".encode()


def test_a_change_is_one_line_without_colour_but_on_a_terminal() -> None:
    change = Change(State.OPEN, "ws\n\x1b[2J")
    assert re.fullmatch(rb"\d\d:\d\d:\d\d open       ws\\n\\x1b\[2J\n", text_renderer().change(change))
    assert b"\x1b[32mopen" in text_renderer(has_colour=True).change(change)


def test_a_change_as_json_has_the_fields_that_apply() -> None:
    assert parsed(JsonRenderer().change(Change(State.OPEN, "ws", transport="ws"))) == {
        "type": "state",
        "state": "open",
        "text": "ws",
        "transport": "ws",
    }


def test_messages_as_json() -> None:
    assert parsed(JsonRenderer().message("a\n\u2028ä")) == {
        "type": "message",
        "format": "text",
        "data": "a\n\u2028ä",
    }
    assert parsed(JsonRenderer().message(b"\x00\xff")) == {
        "type": "message",
        "format": "base64",
        "data": "AP8=",
    }


def test_a_note_as_json() -> None:
    assert parsed(JsonRenderer().note(Note("warning", "x"))) == {
        "type": "note",
        "kind": "warning",
        "text": "x",
    }


def test_a_cause_is_short_unless_asked_for_in_full() -> None:
    assert cause_of(REFUSED, in_full=False) == "tcp: Connection refused"
    assert cause_of(UpgradeRefused(404), in_full=False) == "upgrade refused with HTTP 404"
    assert "127.0.0.1:1" in change_of(reset(REFUSED), in_full=True).text
    assert (
        change_of(reset(REFUSED), in_full=False).text
        == "attempt failed: tcp: Connection refused; retry 2 in 0.25 s"
    )


def test_a_cause_tells_why_each_leaf_of_a_strategy_has_failed() -> None:
    steps = (
        Step("tcp", "", 0.1, "refused", "ws", 0.0),
        Step("tcp", "", 0.1, None, "xhr_polling", 2.0),
        Step("upgrade", "", 0.1, "given up", "ws", 15.0),
        Step("request", "", 0.1, "HTTP 404", "xhr_polling", 2.0),
    )
    error = ConnectError("ws://x/", steps, "no connection within 20 s")
    text = "no connection within 20 s (ws upgrade: given up; xhr_polling request: HTTP 404)"
    assert cause_of(error, in_full=False) == text


def test_a_step_is_a_line() -> None:
    step = Step("upgrade", "", 0.25, "no\x1b[2J", "ws", 2.0)
    line = rb"\d\d:\d\d:\d\d step       ws \+2\.000 s upgrade \(0\.250 s\): no\\x1b\[2J\n"
    assert re.fullmatch(line, text_renderer().step(step))
    assert parsed(JsonRenderer().step(step)) == {
        "type": "step",
        "leaf": "ws",
        "start": 2.0,
        "phase": "upgrade",
        "address": None,
        "seconds": 0.25,
        "cause": "no\x1b[2J",
    }


def test_a_loss_tells_its_code() -> None:
    change = change_of(
        reset(ConnectionClosed(1012, "soon"), opened=True, code=1012, reason="soon"), in_full=False
    )
    assert change.text == "lost: closed with code 1012: soon; retry 2 in 0.25 s"
    assert (change.state, change.code, change.reason, change.attempt) == (State.WAITING, 1012, "soon", 2)


@pytest.mark.parametrize(("level", "kind"), [(10, "info"), (30, "warning"), (40, "error")])
def test_a_log_record_looks_like_a_note(level: int, kind: str) -> None:
    record = logging.LogRecord("connman.x", level, "", 0, "a\nb", (), None)
    line = LogFormatter(JsonRenderer()).format(record)
    assert parsed(line.encode() + b"\n") == {"type": "note", "kind": kind, "text": "connman.x: a\nb"}
