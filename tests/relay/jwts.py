"""Keys and tokens made for tests: the right ones, and those that a forger would make."""

import base64
import hashlib
import hmac
import json
from functools import lru_cache
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

NOW = 1_800_000_000.0
SECRET = b"a secret of 32 bytes, and then so"
OTHER_SECRET = b"another secret of 32 bytes, or more"


@lru_cache
def rsa_key(number: int = 0, bits: int = 2048) -> rsa.RSAPrivateKey:
    """Return the same key for the same `number`: making one takes long."""
    del number
    return rsa.generate_private_key(65537, bits)


def public_pem(key: rsa.RSAPrivateKey) -> bytes:
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def private_pem(key: rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def jwk(key: rsa.RSAPrivateKey | bytes, **more: Any) -> dict[str, Any]:
    if isinstance(key, bytes):
        return {"kty": "oct", "k": unpadded(key)} | more
    numbers = key.public_key().public_numbers()
    modulus, exponent = (n.to_bytes((n.bit_length() + 7) // 8) for n in (numbers.n, numbers.e))
    return {"kty": "RSA", "n": unpadded(modulus), "e": unpadded(exponent)} | more


def jwks(*keys: dict[str, Any]) -> bytes:
    return json.dumps({"keys": keys}).encode()


def signed(
    key: rsa.RSAPrivateKey | bytes = SECRET, *, headers: dict[str, Any] | None = None, **claims: Any
) -> str:
    """Make a token that a well-behaved issuer would make; a claim that is None is left out."""
    claims = {"provide": ["device-*"], "reach": ["*"], "exp": NOW + 60} | claims
    claims = {name: value for name, value in claims.items() if value is not None}
    algorithm = "HS256" if isinstance(key, bytes) else "RS256"
    return jwt.encode(claims, key, algorithm, headers=headers)


def forged(header: Any, claims: Any, secret: bytes | None = None) -> str:
    """Put a token together by hand; signed with HMAC when a `secret` is given, whatever its header says."""
    parts = [part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, claims)]
    body = ".".join(map(unpadded, parts))
    signature = b"" if secret is None else hmac.new(secret, body.encode(), hashlib.sha256).digest()
    return f"{body}.{unpadded(signature)}"


def unpadded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
