"""What all commands share: a parser that complains instead of exiting, and lines on standard error."""

import argparse

import pytest

from connman.cli.commands import Parser, UsageError, add_command, tell


def commands() -> tuple[Parser, "argparse._SubParsersAction[Parser]"]:
    parser = Parser(exit_on_error=False)
    return parser, parser.add_subparsers(dest="command")


def test_a_wrong_line_is_a_complaint_and_no_exit() -> None:
    with pytest.raises(UsageError, match="no such"):
        Parser().error("no such thing")


def test_a_command_has_help_and_counts_its_verbosity(capsys: pytest.CaptureFixture[str]) -> None:
    parser, every = commands()
    add_command(every, "dance", "dance a little", "Dance.", "More of it.", verbose="louder")
    assert parser.parse_args(["dance", "-vv"]).verbose == 2
    with pytest.raises(SystemExit):
        parser.parse_args(["dance", "--help"])
    shown = capsys.readouterr().out
    assert "Dance." in shown
    assert "More of it." in shown
    assert "louder" in shown


def test_a_line_goes_to_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    tell("warning", "mind the\ngap")
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err.endswith("warning    mind the\\ngap\n")
