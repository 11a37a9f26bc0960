"""The entry point: words in, exit code out."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

from connman.cli.arguments import UsageError, parse
from connman.cli.interrupt import Interrupted, interruptible
from connman.cli.output import OutputFailed, Writer, fill_standard_descriptors
from connman.cli.render import LogFormatter, Renderer
from connman.cli.session import Session, make_renderer
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
            _complain(f"connman: {error}\n")
            return 2
        except Interrupted as interrupt:
            return 128 + interrupt.signum


def _run(arguments: Sequence[str]) -> int:
    settings, verbosity = parse(arguments)
    renderer = make_renderer(settings)
    try:
        session = Session(settings, renderer)
    except ConnmanError as error:
        # What only the connection can tell, such as options that do not go with the target.
        raise UsageError(str(error)) from None
    _show_log(renderer, logging.DEBUG if verbosity > 1 else logging.ERROR)
    return session.run()


def _show_log(renderer: Renderer, level: int) -> None:
    """Let the library's log appear on standard error, from ``level`` on."""
    handler = logging.StreamHandler()
    handler.setFormatter(LogFormatter(renderer))
    logger = logging.getLogger("connman")
    logger.addHandler(handler)
    logger.setLevel(level)
    # Where the root logger has a handler as well, each line would come twice.
    logger.propagate = False


def _complain(text: str) -> None:
    writer = Writer(2)
    try:
        writer.write(text.encode(errors="backslashreplace"))
        writer.flush()
    except OutputFailed:
        pass  # nobody listens; the exit code says it
