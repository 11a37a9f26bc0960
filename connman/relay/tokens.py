"""Who may provide and who may reach which names: what a token grants, and the seam to whatever knows tokens."""

from __future__ import annotations

import logging
import re
import traceback
from dataclasses import dataclass
from fnmatch import translate
from functools import lru_cache
from typing import Protocol

from connman.errors import ConnmanError

logger = logging.getLogger("connman.relay")

LONGEST_TOKEN = 8192
"""Characters of a token: more is refused before anything is computed of it."""


class TokenRefused(ConnmanError):
    """The token is missing, unknown, expired or wrong. The text says which of these, without the token.

    It may be told to the client: it names nothing that the client could not know.
    """


@dataclass(frozen=True, slots=True)
class Grant:
    """What a token allows: names that may be provided and reached, as glob patterns such as ``"device-*"``.

    A pattern covers a whole name and tells upper from lower case; ``*``, ``?`` and ``[…]`` have the meaning they have
    in file names. ``expires``: Unix seconds (``time.time()``) at which it ends, None for never.
    """

    provide: tuple[str, ...] = ()
    reach: tuple[str, ...] = ()
    expires: float | None = None

    def may_provide(self, name: str) -> bool:
        """Return whether ``name`` may be provided.

        Threads: any.
        """
        return covers(self.provide, name)

    def may_reach(self, name: str) -> bool:
        """Return whether ``name`` may be reached.

        Threads: any.
        """
        return covers(self.reach, name)

    def is_expired(self, now: float) -> bool:
        """Return whether it has ended at ``now``, in Unix seconds.

        Threads: any.
        """
        return self.expires is not None and now >= self.expires


EVERYTHING = Grant(("*",), ("*",))
"""Allows every name, for ever."""


class Tokens(Protocol):
    """Knows what a token grants: `NoTokens`, `TokenFile`, `JwtTokens`, or something of your own."""

    def check(self, token: str | None) -> Grant:
        """Return what ``token`` grants; None when the client has shown none. It is called on the relay's loop: be quick.

        Raises: TokenRefused, whose text does not hold the token. Anything else is logged without its text, and the client
            is told to come back.
        Threads: the relay's.
        """


class TokensFailed(ConnmanError):
    """Whatever knows the tokens has raised something of its own: nobody can say what this one grants."""


def granted(tokens: Tokens, token: str | None) -> Grant:
    """Return what ``token`` grants, by somebody's own `Tokens`.

    Raises: TokenRefused, TokensFailed.
    Threads: the relay's.
    """
    try:
        grant = tokens.check(token)
        if isinstance(grant, Grant):
            return grant
        what = f"returned {type(grant).__name__}"
    except TokenRefused:
        raise
    except Exception as error:  # user code
        # Neither its text nor its source lines: a KeyError's text is the token.
        *_, place = traceback.extract_tb(error.__traceback__)
        what = f"raised {type(error).__name__} in line {place.lineno} of {place.filename}"
    logger.error("no token can be checked: %s.check has %s", type(tokens).__name__, what)
    raise TokensFailed("the token could not be checked") from None


class NoTokens:
    """Lets everybody do everything: for a relay on loopback.

    Threads: `check` from any.
    """

    def check(self, token: str | None) -> Grant:
        """Return a grant of everything, whatever ``token`` is.

        Threads: any.
        """
        del token
        return EVERYTHING


def checked_length(token: str | None) -> str:
    """Return ``token`` when there is one of a sane length.

    Raises: TokenRefused.
    Threads: any.
    """
    if not token:
        raise TokenRefused("a token is needed")
    if len(token) > LONGEST_TOKEN:
        raise TokenRefused("the token is too long")
    return token


def covers(patterns: tuple[str, ...], name: str) -> bool:
    """Return whether one of ``patterns`` covers the whole of ``name``.

    Threads: any.
    """
    return any(pattern == "*" or _compiled(pattern).fullmatch(name) is not None for pattern in patterns)


# Not fnmatch.fnmatchcase, whose own cache is as large as 32,768: patterns come out of tokens.
@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(translate(pattern))
