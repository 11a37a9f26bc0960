"""Tokens that are JWTs, signed with HS256 or RS256: what they grant stands in them."""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from typing import Any

from connman.errors import InvalidOption
from connman.relay.jwt_keys import ALGORITHMS, VerifyKey, keys_from
from connman.relay.tokens import Grant, TokenRefused, checked_length
from connman.relay.watched import WatchedFile

try:
    import jwt
except ModuleNotFoundError:  # an extra: whoever makes a JwtTokens is told
    jwt = None  # type: ignore[assignment]

MOST_PATTERNS = 256
LONGEST_PATTERN = 256
MOST_KNOWN = 4096
"""Tokens whose signature need not be verified again."""

# Times are checked here, with a clock that tests can set, and without int() of what may be infinite.
_OPTIONS: Any = {"verify_exp": False, "verify_nbf": False, "verify_iat": False}


class JwtTokens:
    """Believes JWTs that one of ``key``'s keys has signed; their claims ``provide`` and ``reach`` are lists of patterns.

    ``key``: a path, to a file that is read again within ``interval`` seconds when it has changed, or the content of such a file:
    public RSA keys as PEM (RS256), a JWK or a set of them, or a secret of at least 32 bytes (HS256). Each key knows its
    one algorithm, and a token that names another is not tried with it; ``algorithms`` may leave one of the two out.
    ``audience`` and ``issuer``: when given, the token must name them; a token that is for some audience is refused
    when none is given. ``exp`` is wanted, ``nbf`` heeded, both with ``leeway`` seconds for clocks that differ.

    Raises: InvalidOption for a key that is missing, weak, private or of the wrong kind.
    Threads: one at a time (the relay's).
    """

    def __init__(
        self,
        key: str | bytes | os.PathLike[str],
        *,
        algorithms: Collection[str] = ALGORITHMS,
        audience: str | None = None,
        issuer: str | None = None,
        leeway: float = 10.0,
        interval: float = 1.0,
        now: Callable[[], float] = time.time,
    ) -> None:
        if jwt is None:
            raise InvalidOption("tokens that are JWTs need PyJWT: pip install connman[relay]")
        if not algorithms or isinstance(algorithms, str) or not set(algorithms) <= set(ALGORITHMS):
            raise InvalidOption(f"algorithms: some of {', '.join(ALGORITHMS)}")
        if not 0 <= leeway <= 3600:
            raise InvalidOption("leeway: 0 to 3600 seconds")
        self._algorithms = frozenset(algorithms)
        self._audience, self._issuer, self._leeway, self._now = audience, issuer, leeway, now
        # What has been verified, by the token's digest, and the keys that it was verified with: a provider shows the
        # same token with each of its spares, and a signature takes 10 to 20 times as long as all the rest.
        self._known: OrderedDict[bytes, dict[str, Any]] = OrderedDict()
        self._known_by: tuple[VerifyKey, ...] = ()
        if isinstance(key, os.PathLike):
            self._keys = WatchedFile(key, self._usable, interval=interval).get
        else:
            fixed = self._usable(key.encode() if isinstance(key, str) else bytes(key))
            self._keys = lambda: fixed

    def check(self, token: str | None) -> Grant:
        """Return what ``token`` grants.

        Raises: TokenRefused.
        Threads: one at a time.
        """
        claims = self._claims(checked_length(token))
        expires = self._expiry(claims)
        return Grant(_patterns(claims, "provide"), _patterns(claims, "reach"), expires)

    def _claims(self, token: str) -> dict[str, Any]:
        keys = self._keys()
        if keys is not self._known_by:
            self._known.clear()
            self._known_by = keys
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        claims = self._known.get(digest)
        if claims is None:
            claims = self._verified(token, self._candidates(token, keys))
            self._known[digest] = claims
            if len(self._known) > MOST_KNOWN:
                self._known.popitem(last=False)
        return claims

    def _usable(self, content: bytes) -> tuple[VerifyKey, ...]:
        keys = tuple(key for key in keys_from(content) if key.algorithm in self._algorithms)
        if not keys:
            raise InvalidOption(f"no key for {' or '.join(sorted(self._algorithms))} in it")
        return keys

    def _candidates(self, token: str, keys: tuple[VerifyKey, ...]) -> list[VerifyKey]:
        """Choose the keys that may have signed it. The header only narrows the choice: it is not believed before."""
        try:
            header = jwt.get_unverified_header(token)
        # The last: JSON nested too deeply, which older PyJWT lets through.
        except (jwt.PyJWTError, ValueError, RecursionError):
            raise TokenRefused("the token is not a JWT") from None
        # Extensions that must be understood (RFC 7515, 4.1.11): none is.
        if "crit" in header or "b64" in header:
            raise TokenRefused("the token wants extensions that are not understood")
        algorithm, kid = header.get("alg"), header.get("kid")
        # It may be anything that JSON can be.
        if not isinstance(algorithm, str) or algorithm not in self._algorithms:
            raise TokenRefused("the token's algorithm is not allowed")
        fitting = [key for key in keys if key.algorithm == algorithm]
        if not fitting:
            raise TokenRefused("the token's algorithm is not that of the key")
        fitting = [key for key in fitting if kid is None or key.kid in (None, kid)]
        if not fitting:
            raise TokenRefused("the token's key is not known")
        return fitting

    def _verified(self, token: str, keys: list[VerifyKey]) -> dict[str, Any]:
        for key in keys:
            try:
                return jwt.decode(
                    token,
                    key.material,
                    algorithms=[key.algorithm],
                    options=_OPTIONS,
                    audience=self._audience,
                    issuer=self._issuer,
                )
            except jwt.InvalidSignatureError:
                continue
            except (jwt.InvalidAudienceError, jwt.InvalidIssuerError, jwt.MissingRequiredClaimError):
                raise TokenRefused("the token is not for this relay: its audience or its issuer") from None
            except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
                raise TokenRefused("the token is malformed") from None
        raise TokenRefused("the token's signature is wrong")

    def _expiry(self, claims: dict[str, Any]) -> float:
        now = self._now()
        ends, begins = _seconds(claims, "exp"), _seconds(claims, "nbf")
        if ends is None:
            raise TokenRefused("the token has no exp: it would never end")
        if begins is not None and now < begins - self._leeway:
            raise TokenRefused("the token is not valid yet")
        if now >= ends + self._leeway:
            raise TokenRefused("the token has expired")
        return ends + self._leeway


def _seconds(claims: dict[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    try:
        seconds = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    except OverflowError:  # an int of hundreds of digits
        seconds = math.nan
    if not math.isfinite(seconds):
        raise TokenRefused(f"the token's {name} is not a number of seconds")
    return seconds


def _patterns(claims: dict[str, Any], name: str) -> tuple[str, ...]:
    value = claims.get(name, [])
    # A text would be a list of its characters, "*" a grant of everything.
    if not isinstance(value, list) or len(value) > MOST_PATTERNS:
        raise TokenRefused(f"the token's {name} is not a list of at most {MOST_PATTERNS} patterns")
    if not all(isinstance(pattern, str) and 0 < len(pattern) <= LONGEST_PATTERN for pattern in value):
        raise TokenRefused(f"the token's {name} holds something other than patterns")
    return tuple(value)
