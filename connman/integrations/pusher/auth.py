"""Who signs for private and presence channels: the secret itself, or the application's server over HTTP."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from connman.errors import ConnmanError, InvalidOption

Authorise = Callable[[str, str], "str | Mapping[str, str]"]
"""``secret_auth(socket_id, channel)``: the signature, or a mapping with ``auth`` and, for presence, ``channel_data``."""

_LONGEST_ANSWER = 64 * 1024


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

        Raises: AuthError for a presence channel when there is no user.
        """
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

    ``headers``: sent along, such as a cookie or a token; a callable is asked each time. ``timeout``: in seconds, for
    each of connecting and reading. Redirects are not followed, since ``headers`` may hold a secret.

    Raises: InvalidOption without urllib3.
    Threads: any; each call opens a connection of its own, so that a fork inherits none.
    """

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | Callable[[], Mapping[str, str]] | None = None,
        timeout: float = 5.0,
    ) -> None:
        try:
            import urllib3  # lazy: an extra, and slow to import
        except ModuleNotFoundError:
            raise InvalidOption("HttpAuth needs urllib3: pip install connman[http]") from None
        self._urllib3 = urllib3
        self._url = url
        self._headers = headers
        self._timeout = timeout

    def __call__(self, socket_id: str, channel: str) -> dict[str, str]:
        """Return the endpoint's answer.

        Raises: AuthError for any but a 200 with a JSON object.
        """
        headers = self._headers() if callable(self._headers) else self._headers
        with self._urllib3.PoolManager(retries=False, timeout=self._timeout) as pool:
            try:
                answer = pool.request(
                    "POST",
                    self._url,
                    fields={"socket_id": socket_id, "channel_name": channel},
                    headers=dict(headers or {}),
                    encode_multipart=False,
                    redirect=False,
                    preload_content=False,
                )
                body = answer.read(_LONGEST_ANSWER)
            except self._urllib3.exceptions.HTTPError as error:
                # By its type alone: the text holds the URL, whose query may be a secret.
                raise AuthError(f"the endpoint was not reached: {type(error).__name__}") from None
        if answer.status != 200:
            raise AuthError(f"the endpoint answered {answer.status}", answer.status)
        try:
            parsed = json.loads(body)
        except (ValueError, RecursionError):
            parsed = None
        if not isinstance(parsed, dict):
            raise AuthError("the endpoint's answer is no JSON object", answer.status)
        return parsed
