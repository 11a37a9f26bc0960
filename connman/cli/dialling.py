"""The words about how a server is dialled, which several commands take, and the options that come of them."""

from __future__ import annotations

import argparse
from typing import Any

from connman.cli import words
from connman.cli.ways import TREE_TIMEOUT
from connman.transport.tls import make_context

INSECURE = (
    "--insecure: the server's certificate is NOT VERIFIED: "
    "whoever is on the way can read and change everything, passwords included"
)


def add_dial_options(parser: argparse.ArgumentParser, *, has_subprotocols: bool = True) -> None:
    """Add the words to a command's parser.

    Threads: any.
    """
    add = parser.add_argument
    add(
        "-H", dest="headers", action="append", default=[], type=words.headers, metavar="'NAME: VALUE'",
        help="send this header with the upgrade; may be repeated; @FILE reads one a line, which keeps secrets off ps",
    )  # fmt: skip
    if has_subprotocols:
        add(
            "-s",
            dest="subprotocols",
            action="append",
            default=[],
            metavar="PROTO",
            help="offer this subprotocol; may be repeated",
        )
    add(
        "--proxy",
        type=words.proxy,
        metavar="URL",
        help="http:// or socks5h:// and the like; 'none' ignores the environment's",
    )
    add(
        "--open-timeout",
        type=words.seconds,
        metavar="SECONDS",
        help="for one attempt, DNS to upgrade (default 10"
        + (f"; {TREE_TIMEOUT:g} for a whole strategy)" if has_subprotocols else ")"),
    )
    trust = parser.add_mutually_exclusive_group()
    trust.add_argument("--insecure", action="store_true", help="do not verify the server's certificate")
    trust.add_argument(
        "--ca", metavar="FILE", help="trust the authorities in this PEM file instead of the system's"
    )


def dial_options(found: argparse.Namespace) -> dict[str, Any]:
    """Return the options of a connection that the words stand for.

    Raises: InvalidOption for a file of authorities that cannot be used.
    Threads: any.
    """
    options: dict[str, Any] = {"headers": [pair for pairs in found.headers for pair in pairs]}
    if hasattr(found, "subprotocols"):
        options["subprotocols"] = found.subprotocols
    if found.proxy is not None:
        options["proxy"] = found.proxy or None
    if found.open_timeout is not None:
        options["open_timeout"] = found.open_timeout
    if found.insecure or found.ca is not None:
        options["ssl_context"] = make_context(authorities=found.ca, verify=not found.insecure)
    return options
