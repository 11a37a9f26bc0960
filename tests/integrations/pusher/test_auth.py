"""Who signs for private and presence channels."""

import contextlib
import json
import socket
import sys
import threading
import traceback
from typing import Any

import pytest

from connman.errors import InvalidOption
from connman.integrations.pusher.auth import AuthError, HttpAuth, SecretAuth, checked_signature, user_id_of
from tests.loopback import refusing_port
from tests.servers import RawServer, raw_server, read_until

USER = {"user_id": "10", "user_info": {"name": "Mr. Pusher"}}


def test_the_documented_signatures() -> None:
    """The worked examples of Pusher's documentation of channel authentication."""
    auth = SecretAuth("278d425bdf160c739803", "7ad3773142a6692b25b8", user=lambda: USER)
    assert auth("1234.1234", "private-foobar") == {
        "auth": "278d425bdf160c739803:58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4"
    }
    found = auth("1234.1234", "presence-foobar")
    assert json.loads(found["channel_data"]) == USER


def test_a_presence_channel_takes_a_user() -> None:
    with pytest.raises(AuthError):
        SecretAuth("k", "s")("1.2", "presence-x")


@pytest.mark.parametrize(
    "socket_id", ["", "1", "1.2:private-y", "1.2\n", "POST\n/apps/1/events\nx", "\u0661.2"]
)
def test_only_socket_ids_are_signed(socket_id: str) -> None:
    """The server chooses it, and the same secret signs requests that publish events."""
    with pytest.raises(AuthError):
        SecretAuth("k", "s3cret")(socket_id, "private-x")


def test_the_secret_is_in_no_repr() -> None:
    assert "s3cret" not in repr(SecretAuth("k", "s3cret"))
    assert "s3cret" not in repr(checked_signature("s3cret", "private-x"))


@pytest.mark.parametrize(
    "answer",
    [
        None,
        1,
        "",
        {},
        {"auth": 1},
        {"auth": "a", "channel_data": {}},
        ["a"],
        b"a",
        "\ud800",
        {"auth": "a", "channel_data": "\ud800"},
    ],
)
def test_what_is_no_signature(answer: Any) -> None:
    with pytest.raises(AuthError):
        checked_signature(answer, "private-x")


@pytest.mark.parametrize("data", [None, "", "x", "[]", "{}", '{"user_id": null}', '{"user_id": ""}', "1"])
def test_presence_wants_to_know_the_user(data: str | None) -> None:
    with pytest.raises(AuthError):
        checked_signature({"auth": "a", "channel_data": data}, "presence-x")
    assert user_id_of(data) is None


def test_a_text_or_a_mapping() -> None:
    assert checked_signature("a", "private-x").auth == "a"
    found = checked_signature({"auth": "a", "channel_data": '{"user_id": 7}'}, "presence-x")
    assert user_id_of(found.channel_data) == "7"


# Over HTTP


def endpoint(status: int, body: str, requests: list[bytes]) -> RawServer:
    def handler(sock: socket.socket, _n: int) -> None:
        head = read_until(sock, b"\r\n\r\n")
        requests.append(head if b"socket_id" in head else head + sock.recv(65536))
        answer = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\nLocation: /other\r\nConnection: close\r\n\r\n{body}"
        sock.sendall(answer.encode())

    return raw_server(handler)


def test_an_endpoint_is_asked_as_pusher_js_does() -> None:
    requests: list[bytes] = []
    with endpoint(200, '{"auth": "k:sig"}', requests) as server:
        auth = HttpAuth(server.url("/auth", "http"), headers=lambda: {"X-Token": "t"})
        assert auth("1.2", "private-x") == {"auth": "k:sig"}
    head, _, body = requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /auth HTTP/1.1")
    assert b"x-token: t" in head.lower()
    assert b"application/x-www-form-urlencoded" in head.lower()
    assert body == b"socket_id=1.2&channel_name=private-x"


@pytest.mark.parametrize(
    ("status", "body"), [(403, "{}"), (302, "{}"), (500, ""), (200, "no json"), (200, "[]")]
)
def test_an_endpoint_that_does_not_sign(status: int, body: str) -> None:
    requests: list[bytes] = []
    with endpoint(status, body, requests) as server, pytest.raises(AuthError) as caught:
        HttpAuth(server.url("/auth?token=s3cret", "http"))("1.2", "private-x")
    assert caught.value.status == status
    assert len(requests) == 1  # no redirect is followed, nothing tried again
    assert "s3cret" not in str(caught.value)


def test_an_endpoint_that_is_not_there() -> None:
    with refusing_port() as port, pytest.raises(AuthError) as caught:
        HttpAuth(f"http://127.0.0.1:{port}/auth?token=s3cret")("1.2", "private-x")
    assert caught.value.status is None
    assert caught.value.__cause__ is None
    assert "s3cret" not in str(caught.value)


def test_fields_and_headers_of_the_applications_own() -> None:
    requests: list[bytes] = []
    with endpoint(200, '{"auth": "k:sig"}', requests) as server:
        HttpAuth(server.url("/auth", "http"), params={"room": "é&", "socket_id": "9.9"})(
            "1.2", "private-\U0001f600"
        )
        HttpAuth(server.url("/auth", "http"), params=lambda: {"room": "7"})("1.2", "private-x")
    assert requests[0].endswith(b"room=%C3%A9%26&socket_id=1.2&channel_name=private-%F0%9F%98%80")
    assert requests[1].endswith(b"room=7&socket_id=1.2&channel_name=private-x")


@pytest.mark.parametrize(
    "headers", [{"Authorization": "Bearer s3cret\n"}, {"X-é": "s3cret"}, {"X": "s3cret\u20ac"}]
)
def test_a_header_that_cannot_be_sent_is_not_told(headers: dict[str, str]) -> None:
    """A token that was read from a file with its line's end came into the log, with the error of the HTTP client."""
    with endpoint(200, "{}", []) as server, pytest.raises(AuthError) as caught:
        HttpAuth(server.url("/auth", "http"), headers=headers)("1.2", "private-x")
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))


def test_an_endpoint_that_drips() -> None:
    gone = threading.Event()

    def drip(sock: socket.socket, _n: int) -> None:
        read_until(sock, b"\r\n\r\n")
        sock.sendall(b"HTTP/1.1 200 X\r\nContent-Length: 60000\r\n\r\n")
        with contextlib.suppress(OSError):
            while not gone.wait(0.01):
                sock.sendall(b" ")

    with raw_server(drip) as server, pytest.raises(AuthError, match="too long"):
        try:
            HttpAuth(server.url("/auth", "http"), timeout=0.2)("1.2", "private-x")
        finally:
            gone.set()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "h/auth",
        "ftp://h/",
        "http://",
        "http://h:0/",
        "http://h:99999/",
        "http://[::1",
        "https://u:s3cret@h/",
        None,
        b"http://h/",
    ],
)
def test_urls_that_cannot_be_asked(url: Any) -> None:
    with pytest.raises(InvalidOption) as caught:
        HttpAuth(url)
    assert "s3cret" not in str(caught.value)
    with pytest.raises(InvalidOption):
        HttpAuth("http://h/", timeout=0)


def test_without_urllib3_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "urllib3", None)
    with pytest.raises(InvalidOption, match=r"pip install connman\[http\]"):
        HttpAuth("http://127.0.0.1/")
