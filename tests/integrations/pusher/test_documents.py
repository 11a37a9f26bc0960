"""The programs of README.md and docs/pusher.md run, and what is said there of numbers is so."""

import contextlib
import inspect
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from connman.integrations.pusher import Pusher, SecretAuth
from connman.integrations.pusher.link import OPEN_TIMEOUT
from tests.pusher_server import KEY, SECRET, PusherServer
from tests.recipes.blocks import ROOT, recipe
from tests.servers import raw_server, read_until
from tests.waiting import eventually

START = 40.0  # seconds that a whole interpreter may take to start on a busy machine
TEXT = (ROOT / "docs" / "pusher.md").read_text(encoding="utf-8")


@contextlib.contextmanager
def run(program: str) -> "Iterator[subprocess.Popen[str]]":
    env = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    command = [sys.executable, "-W", "error", "-c", program]
    with subprocess.Popen(
        command,
        env=env | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()  # nothing, if it has ended


def here(file: str, port: int, **replaced: str) -> str:
    """Return a program with this machine's server instead of Pusher's."""
    text = recipe(file).text
    for before, after in {'cluster="eu"': f'host="127.0.0.1", port={port}, tls=False', **replaced}.items():
        assert before in text
        text = text.replace(before, after)
    return text


@pytest.mark.slow
def test_the_recipe_survives_a_reconnect() -> None:
    server = PusherServer()
    with server.listening() as raw, run(here("orders.py", raw.port)) as program:
        for number in (1, 2):
            guest = server.wait_guest(number, START)
            eventually(lambda guest=guest: "private-orders" in guest.channels)
            server.trigger("private-orders", "placed", {"id": number})
            if number == 1:
                guest.line.drop()
        server.trigger("private-orders", "shop-closed", {})
        assert program.communicate(timeout=30) == ("1\n2\n", "")
        assert program.returncode == 0


def test_the_room() -> None:
    server = PusherServer()
    sign = SecretAuth(KEY, SECRET, user={"user_id": "7"})

    def endpoint(sock: socket.socket, _n: int) -> None:
        head, _, body = read_until(sock, b"presence-room").partition(b"\r\n\r\n")
        asked = parse_qs(body.decode())
        answer = json.dumps(sign(asked["socket_id"][0], asked["channel_name"][0]))
        sock.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {len(answer)}\r\n\r\n{answer}".encode())
        assert head.startswith(b"POST /pusher/auth ")

    with server.listening() as raw, raw_server(endpoint) as auth:
        replaced = {"https://app.example.com": auth.url("", "http")}
        with run(here("room.py", raw.port, **replaced)) as program:
            guest = server.wait_guest(1, START)
            eventually(lambda: "presence-room" in guest.channels)
            guest.send("pusher_internal:member_added", {"user_id": "8"}, "presence-room")
            assert guest.wait_event("client-welcome") == {"to": "8"}
            guest.send("pusher_internal:member_removed", {"user_id": "8"}, "presence-room")
            out, errors = program.communicate(timeout=30)
        assert errors == ""
        assert out.splitlines() == [
            "initialized to connecting", "connecting to connected", "here: ['7']", "connected to disconnected",
        ]  # fmt: skip


def test_every_argument_is_described() -> None:
    named = [
        name
        for name, parameter in inspect.signature(Pusher).parameters.items()
        if parameter.kind.name != "VAR_KEYWORD"
    ]
    for name in set(named) - {"name", "clock", "manager"}:
        assert f"`{name}`" in TEXT
    defaults = inspect.signature(Pusher).parameters
    for name in ("activity_timeout", "pong_timeout", "unavailable_timeout"):
        assert f"| `{name}` | {defaults[name].default:g} s |" in TEXT
    assert f"| `open_timeout` | {OPEN_TIMEOUT:g} s |" in TEXT
    assert Path(ROOT / "docs" / "strategies.md").exists()
