"""The words about a relay: where the token comes from, and that it is shown nowhere."""

from pathlib import Path
from typing import Any

import pytest

from connman.cli.commands import Parser, UsageError
from connman.cli.relaying import VARIABLE, add_relay_options, relay_options
from connman.errors import InvalidOption


def options(*words: str) -> dict[str, Any]:
    parser = Parser()
    add_relay_options(parser)
    return relay_options(parser.parse_args(words))


@pytest.fixture(autouse=True)
def no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


def test_without_a_token_there_is_none() -> None:
    assert options() == {"headers": [], "token": None}


def test_the_token_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "s3cret")
    assert options()["token"] == "s3cret"


def test_the_token_of_a_file_is_read_anew_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "the other")
    file = tmp_path / "token"
    file.write_text("first\n")
    token = options("--token-file", str(file))["token"]
    assert token() == "first"
    file.write_text("second\n")
    assert token() == "second"
    file.unlink()
    with pytest.raises(InvalidOption, match="No such file"):
        token()


@pytest.mark.parametrize("content", [None, "gehe\u00efm"])
def test_a_file_that_cannot_be_read_is_told_at_once(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_text(content)
    with pytest.raises(UsageError, match="cannot be read") as error:
        options("--token-file", str(file))
    assert "gehe" not in str(error.value)


def test_a_certificate_that_is_not_verified_is_warned_of(capfd: pytest.CaptureFixture[str]) -> None:
    assert "ssl_context" in options("--insecure")
    assert "NOT VERIFIED" in capfd.readouterr().err
