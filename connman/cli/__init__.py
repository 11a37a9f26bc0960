"""The command line: ``connman connect URL``, also as ``python -m connman``."""

from connman.cli.command import main

__all__ = ["main"]
