"""Who signs for private and presence channels: the secret itself, or the application's server over HTTP."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from connman.errors import ConnmanError, InvalidOption
from connman.integrations.pusher.wire import is_text
from connman.options import check_seconds

Authorise = Callable[[str, str], "str | Mapping[str, str]"]
"""``secret_auth(socket_id, channel)``: the signature, or a mapping with ``auth`` and, for presence, ``channel_data``."""

_LONGEST_ANSWER = 64 * 1024
_SOCKET_ID = re.compile(r"[0-9]+\.[0-9]+")


class AuthError(ConnmanError):
    """A channel could not be signed for; ``status`` is the HTTP status of the endpoint, None where there was none."""

    def __init__(self, message: str = "no signature", status: int | None = None) -> None:
        self.status = status
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Signature:
    """What goes out with a subscription. It is a secret, hence in no ``repr``."""

    auth: str = field(repr=False)
    channel_data: str | None = field(default=None, repr=False)


def user_id_of(channel_data: str | None) -> str | None:
    """Return the user id in what was signed for a presence channel, None when there is none.

    Threads: any; pure.
    """
    try:
        user_id = json.loads(channel_data or "{}").get("user_id")
    except (ValueError, AttributeError, RecursionError):
        return None
    return None if user_id in (None, "") else str(user_id)


def checked_signature(answer: object, channel: str) -> Signature:
    """Return what a ``secret_auth`` has answered, checked.

    Raises: AuthError when it is no signature, or has no user in it for a presence channel.
    Threads: any; pure.
    """
    parts: Mapping[Any, Any] = {"auth": answer} if isinstance(answer, str) else {}
    if isinstance(answer, Mapping):
        parts = answer
    auth, channel_data = parts.get("auth"), parts.get("channel_data")
    if not isinstance(auth, str) or not auth:
        raise AuthError("secret_auth returned no signature: a text, or a mapping with 'auth'")
    if not isinstance(channel_data, str | None):
        raise AuthError("channel_data is the JSON text that was signed")
    if not is_text(auth) or not is_text(channel_data or ""):
        raise AuthError("secret_auth returned half a character: a surrogate, which no frame can carry")
    if channel.startswith("presence-") and user_id_of(channel_data) is None:
        raise AuthError("a presence channel takes a mapping with 'channel_data', which holds a 'user_id'")
    return Signature(auth, channel_data)


class SecretAuth:
    """Sign with the application's secret: for programs that may hold it, such as the application's own server.

    ``user``: who joins presence channels, such as ``{"user_id": "7", "user_info": {…}}``; a callable is asked each time.

    Threads: any; it holds no state.
    """

    def __init__(
        self,
        key: str,
        secret: str,
        *,
        user: Mapping[str, object] | Callable[[], Mapping[str, object]] | None = None,
    ) -> None:
        self._key = key
        self._secret = secret.encode()
        self._user = user

    def __call__(self, socket_id: str, channel: str) -> dict[str, str]:
        """Return the signature for ``channel``, and the user who was signed for.

        Raises: AuthError for a presence channel when there is no user, and for what is no socket id.
        """
        # The server chooses it. The same secret signs requests that publish events, of which this must not be one.
        if not _SOCKET_ID.fullmatch(socket_id):
            raise AuthError("the server's socket id is not two numbers with a dot between")
        if not channel.startswith("presence-"):
            return {"auth": self._sign(f"{socket_id}:{channel}")}
        user = self._user() if callable(self._user) else self._user
        if user is None:
            raise AuthError("a presence channel takes a user=")
        channel_data = json.dumps(dict(user))
        return {
            "auth": self._sign(f"{socket_id}:{channel}:{channel_data}"),
            "channel_data": channel_data,
        }

    def _sign(self, text: str) -> str:
        return f"{self._key}:{hmac.new(self._secret, text.encode(), hashlib.sha256).hexdigest()}"


class HttpAuth:
    """Have the application's server sign: an HTTP endpoint as Pusher's own clients ask it (needs ``connman[http]``).

    ``headers``: sent along, such as a cookie or a token; ``params``: fields sent beside ``socket_id`` and
    ``channel_name``; a callable is asked each time. ``timeout``: in seconds, for connecting, for the answer to begin, and
    for the rest of it. Redirects are not followed, since ``headers`` may hold a secret. No proxy is used.

    Raises: InvalidOption for a URL that is none of HTTP or holds a password, and without urllib3.
    Threads: any; each call opens a connection of its own, so that a fork inherits none.
    """

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | Callable[[], Mapping[str, str]] | None = None,
        params: Mapping[str, str] | Callable[[], Mapping[str, str]] | None = None,
        timeout: float = 5.0,
    ) -> None:
        try:
            import urllib3  # lazy: an extra, and slow to import
        except ModuleNotFoundError:
            raise InvalidOption("HttpAuth needs urllib3: pip install connman[http]") from None
        check_seconds("timeout", timeout)
        _check_url(url)
        self._urllib3 = urllib3
        self._url = url
        self._headers = headers
        self._params = params
        self._timeout = timeout

    def __call__(self, socket_id: str, channel: str) -> dict[str, str]:
        """Return the endpoint's answer.

        Raises: AuthError for any but a 200 with a JSON object.
        """
        headers = self._headers() if callable(self._headers) else self._headers
        params = self._params() if callable(self._params) else self._params
        fields = {**(params or {}), "socket_id": socket_id, "channel_name": channel}
        status, body = self._ask(fields, dict(headers or {}))
        if status != 200:
            raise AuthError(f"the endpoint answered {status}", status)
        try:
            parsed = json.loads(body)
        except (ValueError, RecursionError):
            parsed = None
        if not isinstance(parsed, dict):
            raise AuthError("the endpoint's answer is no JSON object", status)
        return parsed

    def _ask(self, fields: dict[str, str], headers: dict[str, str]) -> tuple[int, bytes]:
        with self._urllib3.PoolManager(retries=False, timeout=self._timeout) as pool:
            try:
                answer = pool.request(
                    "POST",
                    self._url,
                    fields=fields,
                    headers=headers,
                    encode_multipart=False,
                    redirect=False,
                    preload_content=False,
                )
                body, until = b"", time.monotonic() + self._timeout
                while len(body) < _LONGEST_ANSWER and (piece := answer.read1(_LONGEST_ANSWER)):
                    body += piece
                    # By the piece: a server that drips would never let a timeout between two of them pass.
                    if time.monotonic() > until:
                        raise AuthError("the endpoint's answer took too long", answer.status)
            except (self._urllib3.exceptions.HTTPError, ValueError, TypeError) as error:
                # By its type alone: the text may hold the URL, whose query may be a secret, or a header that cannot be sent.
                raise AuthError(f"the endpoint was not reached: {type(error).__name__}") from None
        return int(answer.status), body


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        is_right = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        has_user = parts.username is not None
    except (ValueError, AttributeError):
        is_right = has_user = False
    # Nothing quoted: it may hold a token.
    if not is_right:
        raise InvalidOption("the endpoint of HttpAuth is an http:// or https:// URL")
    if has_user:
        raise InvalidOption("the URL of HttpAuth holds no user and no password: send them in headers=")
