"""Tokens in a file: its two formats, what is refused, and what changes while the relay runs."""

import hashlib
import json
import logging
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connman.errors import InvalidOption
from connman.relay.token_file import TokenFile
from connman.relay.tokens import Grant, TokenRefused

ALPHA, BETA, GAMMA = "alpha-0123456789abcdef", "beta-0123456789abcdef", "gamma-0123456789abcdef"


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "tokens"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def tokens(folder: Path, text: str | bytes, now: float = 0.0) -> TokenFile:
    return TokenFile(written(folder, text), now=lambda: now)


def refusal(known: TokenFile, token: str | None) -> str:
    with pytest.raises(TokenRefused) as refused:
        known.check(token)
    return str(refused.value)


def test_lines(tmp_path: Path) -> None:
    known = tokens(
        tmp_path,
        f"# who may do what\n\n{ALPHA} provide=device-*,gateway\r\n  {BETA}\treach=* expires=2030-01-31\n{GAMMA}\n",
    )
    assert known.check(ALPHA) == Grant(("device-*", "gateway"), ())
    assert known.check(BETA) == Grant((), ("*",), 1896048000.0)
    assert known.check(GAMMA) == Grant(("*",), ("*",))


def test_json(tmp_path: Path) -> None:
    entries = [
        {"token": ALPHA, "provide": ["device 1, the first"], "expires": 1896048000},
        {"token": BETA, "reach": ["*"], "expires": "2030-01-31T02:00:00+02:00"},
        {"token": GAMMA},
    ]
    known = tokens(tmp_path, "\ufeff" + json.dumps(entries))
    assert known.check(ALPHA) == Grant(("device 1, the first",), (), 1896048000.0)
    assert known.check(BETA) == Grant((), ("*",), 1896048000.0)
    assert known.check(GAMMA) == Grant(("*",), ("*",))


def test_a_token_may_stand_there_as_its_digest(tmp_path: Path) -> None:
    digest = hashlib.sha256(ALPHA.encode()).hexdigest()
    known = tokens(tmp_path, f"sha256:{digest.upper()} reach=a")
    assert known.check(ALPHA) == Grant((), ("a",))
    # The digest itself is no token.
    assert refusal(known, f"sha256:{digest}") == refusal(known, digest) == "the token is not known"


def test_wrong_tokens_are_refused_and_not_quoted(tmp_path: Path) -> None:
    known = tokens(tmp_path, f"{ALPHA}\n")
    assert refusal(known, None) == refusal(known, "") == "a token is needed"
    for wrong in (ALPHA[:-1], ALPHA + "x", ALPHA.upper(), "ä♥", "\ud800", "x" * 8192):
        assert refusal(known, wrong) == "the token is not known"
    assert refusal(known, "x" * 8193) == "the token is too long"


def test_a_token_ends(tmp_path: Path) -> None:
    text = f"{ALPHA} expires=2030-01-31"
    assert tokens(tmp_path, text, now=1896047999.0).check(ALPHA).expires == 1896048000.0
    assert refusal(tokens(tmp_path, text, now=1896048000.0), ALPHA) == "the token has expired"


def test_tokens_come_and_go_while_it_runs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    known = TokenFile(written(tmp_path, f"{ALPHA}\n"), interval=0.0)
    written(tmp_path, f"{BETA} reach=*\n")
    assert known.check(BETA) == Grant((), ("*",))
    assert refusal(known, ALPHA) == "the token is not known"
    # Broken, or empty as it is for a moment while it is written: what was known stays.
    for broken in (f"{ALPHA} may=all\n", "", " \n"):
        written(tmp_path, broken)
        assert known.check(BETA) == Grant((), ("*",))
    written(tmp_path, "# nobody\n")
    assert refusal(known, BETA) == "the token is not known"
    assert ALPHA not in caplog.text
    assert BETA not in caplog.text


def test_a_line_that_is_still_being_written_grants_nothing(tmp_path: Path) -> None:
    known = TokenFile(written(tmp_path, f"{ALPHA} provide=a\n"), interval=0.0)
    written(tmp_path, f"{ALPHA} provide=a\n{BETA}")  # " reach=one expires=2030-01-31" is to come
    assert refusal(known, BETA) == "the token is not known"
    written(tmp_path, f"{ALPHA} provide=a\n{BETA} reach=one\n")
    assert known.check(BETA) == Grant((), ("one",))
    # Who never ends the last line is heard as well, when nothing more has come.
    written(tmp_path, f"{ALPHA} provide=a\n{BETA} reach=two")
    assert known.check(BETA) == Grant((), ("one",))
    age = time.time() - 60
    os.utime(tmp_path / "tokens", (age, age))
    assert known.check(BETA) == Grant((), ("two",))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "empty"),
        (b"\xff\xfe", "not UTF-8"),
        (f"{ALPHA}\n{BETA} may=all", "line 2: behind a token stand"),
        (f"{ALPHA} provide", "line 1: behind a token stand"),
        (f"{ALPHA} provide=a provide=b", "line 1: behind a token stand"),
        (f"{ALPHA} expires=tomorrow", "line 1: expires is"),
        (f"{ALPHA} expires=", "line 1: expires is"),
        (f"{ALPHA}\n{ALPHA}", "line 2: the token stands there twice"),
        (f"{ALPHA}\nsha256:{hashlib.sha256(ALPHA.encode()).hexdigest()}", "line 2: the token stands there twice"),
        ("sha256:abc", "line 1: behind sha256:"),
        ("[", "not JSON at line 1"),
        ("[" * 100_000, "not JSON"),
        ("{}", "a list of objects"),
        ("[1]", "entry 1: an object"),
        ('[{"token": ""}]', "entry 1: an object"),
        ('[{"token": 1}]', "entry 1: an object"),
        (f'[{{"token": "{ALPHA}", "admin": true}}]', "entry 1: 1 unknown keys"),
        (f'[{{"token": "{ALPHA}", "reach": "*"}}]', "entry 1: provide and reach are lists"),
        (f'[{{"token": "{ALPHA}", "reach": 1}}]', "entry 1: provide and reach are lists"),
        (f'[{{"token": "{ALPHA}", "reach": [1]}}]', "entry 1: a pattern is a text"),
        (f'[{{"token": "{ALPHA}", "reach": [""]}}]', "entry 1: a pattern is a text"),
        (f'[{{"token": "{ALPHA}", "expires": true}}]', "entry 1: expires is"),
        (f'[{{"token": "{ALPHA}", "expires": NaN}}]', "entry 1: expires is"),
        (f'[{{"token": "{ALPHA}", "expires": 1{"0" * 400}}}]', "entry 1: expires is"),
    ],
)  # fmt: skip
def test_a_malformed_file_is_refused_and_no_token_quoted(
    tmp_path: Path, text: str | bytes, complaint: str
) -> None:
    with pytest.raises(InvalidOption, match="tokens: ") as refused:
        tokens(tmp_path, text)
    assert complaint in str(refused.value)
    assert ALPHA not in str(refused.value)
    assert refused.value.__cause__ is None


def test_a_short_token_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tokens(tmp_path, f"{ALPHA}\nhunter2\n")
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "line 2" in caplog.text
    assert "hunter2" not in caplog.text


def test_no_token_in_clear_in_memory_or_repr(tmp_path: Path) -> None:
    known = tokens(tmp_path, f"{ALPHA} reach=a\n")
    assert ALPHA not in repr(known) + repr(vars(known))


@given(st.binary(max_size=200))
def test_whatever_is_in_the_file_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    folder = tmp_path_factory.getbasetemp()
    try:
        known = tokens(folder, content)
    except InvalidOption:
        return
    with pytest.raises(TokenRefused):
        known.check("not one of them, surely")
