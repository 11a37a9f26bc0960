"""The entry point: words in, exit code out."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

from connman.cli.arguments import parse
from connman.cli.call import Call
from connman.cli.commands import UsageError, plain_renderer
from connman.cli.doctor import Checkup, Doctor, make_report
from connman.cli.interrupt import Interrupted, interruptible
from connman.cli.output import OutputFailed, Writer, fill_standard_descriptors
from connman.cli.render import JsonRenderer, LogFormatter, Note, Renderer
from connman.cli.session import Session, Settings, make_renderer
from connman.errors import ConnmanError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; ``connman connect --help`` lists them.

    For a process that ends next: the library's log goes to standard error, and SIGINT and SIGTERM are ignored then.
    ``arguments``: the words behind the program's name, None for those of the process.

    Raises: SystemExit after --help and --version.
    Threads: the main one.
    """
    fill_standard_descriptors()
    with interruptible():
        try:
            return _run(sys.argv[1:] if arguments is None else arguments)
        except UsageError as error:
            _complain(f"connman: {error}\n".encode(errors="backslashreplace"))
            return 2
        except Interrupted as interrupt:
            return 128 + interrupt.signum


def _run(arguments: Sequence[str]) -> int:
    settings, verbosity = parse(arguments)
    level = logging.DEBUG if verbosity > 1 else logging.ERROR
    if isinstance(settings, Checkup):
        return _run_doctor(settings, level)
    if not isinstance(settings, Settings):
        # What runs for long tells by the log what it meets; a single call says it as its error.
        least = logging.ERROR if isinstance(settings, Call) else logging.WARNING
        _show_log(plain_renderer(), min(level, logging.INFO if verbosity else least))
        return settings.run()
    renderer = make_renderer(settings)
    try:
        session = Session(settings, renderer)
    except ConnmanError as error:
        # What only the connection can tell, such as options that do not go with the target.
        raise UsageError(str(error)) from None
    _show_log(renderer, level)
    return session.run()


def _run_doctor(checkup: Checkup, level: int) -> int:
    text = plain_renderer()
    renderer: Renderer = JsonRenderer() if checkup.is_json else text
    _show_log(renderer, level)
    for warning in checkup.warnings:
        _complain(renderer.note(Note("warning", warning)))
    return Doctor(checkup, make_report(checkup)).run()


def _show_log(renderer: Renderer, level: int) -> None:
    """Let the library's log appear on standard error, from ``level`` on."""
    handler = logging.StreamHandler()
    handler.setFormatter(LogFormatter(renderer))
    logger = logging.getLogger("connman")
    logger.addHandler(handler)
    logger.setLevel(level)
    # Of a way that cannot be remembered nothing but the log tells.
    logging.getLogger("connman.strategy").setLevel(min(level, logging.WARNING))
    # Where the root logger has a handler as well, each line would come twice.
    logger.propagate = False


def _complain(text: bytes) -> None:
    writer = Writer(2)
    try:
        writer.write(text)
        writer.flush()
    except OutputFailed:
        pass  # nobody listens; the exit code says it
