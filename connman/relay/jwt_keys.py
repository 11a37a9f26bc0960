"""Keys that verify JWTs: which files hold which, and which are refused."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from connman.errors import InvalidOption

try:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, RSAPublicNumbers
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
except ModuleNotFoundError:  # an extra; HS256 does without
    RSAPublicNumbers = None  # type: ignore[assignment, misc]

ALGORITHMS = ("HS256", "RS256")
SHORTEST_SECRET = 32  # bytes: RFC 7518, 3.2
SHORTEST_RSA = 2048  # bits: RFC 7518, 3.3
MOST_KEYS = 64

_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)


@dataclass(frozen=True, slots=True)
class VerifyKey:
    """A key with the one algorithm that it is for. ``kid`` is None for a key that does not say its name."""

    algorithm: str
    material: Any = field(repr=False)
    kid: str | None = None


def keys_from(content: bytes) -> tuple[VerifyKey, ...]:
    """Return the keys in ``content``: PEM, a JWK, a set of JWKs, or else the bytes of a secret.

    A secret's last line break does not belong to it. Keys of a set that are for something else are left out.

    Raises: InvalidOption, whose text quotes nothing of it.
    Threads: any.
    """
    if b"-----BEGIN" in content:
        keys = tuple(_from_pem(content))
    elif content.lstrip()[:1] in (b"{", b"["):
        keys = tuple(_from_json(content))
    else:
        keys = (_secret(content.removesuffix(b"\n").removesuffix(b"\r")),)
    if not keys:
        raise InvalidOption("no key that verifies HS256 or RS256 in it")
    if len(keys) > MOST_KEYS:
        raise InvalidOption(f"{len(keys)} keys: {MOST_KEYS} at most, each may be tried")
    return keys


def _secret(secret: bytes, kid: str | None = None) -> VerifyKey:
    # Public keys in other clothes: as a secret, everybody would know it.
    if secret.startswith((b"ssh-", b"ecdsa-", b"\x30\x82", b"\x30\x81")):
        raise InvalidOption("this is no secret, it looks like a public key: give it as PEM")
    if len(secret) < SHORTEST_SECRET:
        raise InvalidOption(f"a secret of {len(secret)} bytes: HS256 wants at least {SHORTEST_SECRET}")
    return VerifyKey("HS256", secret, kid)


def _rsa(key: Any, kid: str | None = None) -> VerifyKey:
    if key.key_size < SHORTEST_RSA:
        raise InvalidOption(f"an RSA key of {key.key_size} bits: RS256 wants at least {SHORTEST_RSA}")
    return VerifyKey("RS256", key, kid)


def _need_cryptography() -> None:
    if RSAPublicNumbers is None:
        raise InvalidOption("RS256 needs cryptography: pip install connman[relay]")


def _from_pem(content: bytes) -> Iterator[VerifyKey]:
    _need_cryptography()
    found = list(_PEM.finditer(content))
    if not found:
        raise InvalidOption("a PEM that is cut short")
    for block in found:
        kind = block[1].decode()
        if "PRIVATE" in kind:
            raise InvalidOption("a private key: the relay needs the public one alone, keep this from it")
        if not kind.endswith("PUBLIC KEY"):
            raise InvalidOption(f"a PEM of the kind {kind.lower()}: a public key is wanted")
        try:
            key = load_pem_public_key(block[0])
        except (ValueError, UnsupportedAlgorithm):
            raise InvalidOption("a PEM that is no public key") from None
        if not isinstance(key, RSAPublicKey):
            raise InvalidOption("a public key that is not RSA, which RS256 wants")
        yield _rsa(key)


def _from_json(content: bytes) -> Iterator[VerifyKey]:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        raise InvalidOption("neither a JWK nor a set of them: not JSON") from None
    keys = found.get("keys", [found]) if isinstance(found, dict) else None
    if not isinstance(keys, list):
        raise InvalidOption('a JWK is an object, and a set of them one with "keys", a list')
    for number, jwk in enumerate(keys, start=1):
        if not isinstance(jwk, dict):
            raise InvalidOption(f"key {number}: not an object")
        try:
            yield from _from_jwk(jwk)
        except InvalidOption as error:
            raise InvalidOption(f"key {number}: {error}") from None
        except (KeyError, TypeError, ValueError):
            raise InvalidOption(f"key {number}: its numbers are missing or malformed") from None


def _from_jwk(jwk: dict[str, Any]) -> Iterator[VerifyKey]:
    """Yield the key of one JWK, or none when it is for something else (RFC 7517, 5: such keys are ignored)."""
    kid, kind, algorithm = jwk.get("kid"), jwk.get("kty"), jwk.get("alg")
    if kid is not None and not isinstance(kid, str):
        raise InvalidOption("its kid is not a text")
    if jwk.get("use", "sig") != "sig":
        return
    if kind == "oct" and algorithm in (None, "HS256"):
        yield _secret(_unpadded(jwk["k"]), kid)
    elif kind == "RSA" and algorithm in (None, "RS256"):
        if "d" in jwk:
            raise InvalidOption("a private key: the relay needs the public one alone, keep this from it")
        _need_cryptography()
        exponent, modulus = (int.from_bytes(_unpadded(jwk[name])) for name in ("e", "n"))
        yield _rsa(RSAPublicNumbers(exponent, modulus).public_key(), kid)


def _unpadded(text: object) -> bytes:
    if not isinstance(text, str):
        raise TypeError
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error:
        raise ValueError from None
