"""Every scheme has its opener; that each works is shown by the conformance suite."""

import subprocess
import sys

import pytest

import connman
from connman.endpoint import Endpoint
from connman.errors import ConnectError, InvalidOption, InvalidTarget
from connman.transport.openers import EndpointDialer
from tests.loopback import Aborted, make_dial, refusing_port


@pytest.mark.parametrize("scheme", ["tcp", "tls", "ws", "wss", "xhr-streaming+http", "xhr-polling+https"])
def test_a_refused_dial_is_a_connect_error(scheme: str) -> None:
    with refusing_port() as port, pytest.raises(ConnectError, match="Connection refused") as caught:
        EndpointDialer().dial(make_dial(f"{scheme}://127.0.0.1:{port}"))
    assert not isinstance(caught.value, OSError)
    assert caught.value.endpoint.startswith(f"{scheme}://127.0.0.1:")


def test_nobody_at_a_local_name_is_a_connect_error(tmp_path: object) -> None:
    for target in (f"unix://{tmp_path}/none", f"unix://{tmp_path}/{'x' * 200}", "memory://nobody"):
        with pytest.raises(ConnectError):
            EndpointDialer().dial(make_dial(target))


@pytest.mark.parametrize(
    "target",
    [
        "tcp://127.0.0.1:1",
        "tls://127.0.0.1:1",
        "ws://127.0.0.1:1",
        "wss://127.0.0.1:1",
        "unix:///none",
        "memory://none",
    ],
)
def test_an_aborted_dial_raises_what_it_was_aborted_with(target: str) -> None:
    dial = make_dial(target)
    dial.abort(Aborted("enough"))
    with pytest.raises(Aborted):
        EndpointDialer().dial(dial)


def test_every_scheme_that_parses_can_be_dialled() -> None:
    with pytest.raises(InvalidTarget) as caught:
        Endpoint.parse("gopher://h:1")
    named = str(caught.value).partition("one of ")[2].split(", ")
    for scheme in named:
        dial = make_dial(f"{scheme}:///x" if scheme == "unix" else f"{scheme}://127.0.0.1:1")
        dial.abort(Aborted("enough"))
        with pytest.raises(Aborted):
            EndpointDialer().dial(dial)
    assert len(named) == 10


HTTP = [f"xhr-{kind}+{scheme}" for kind in ("streaming", "polling") for scheme in ("http", "https")]


@pytest.mark.parametrize("scheme", HTTP)
def test_over_http_needs_a_package_and_says_so_before_any_dial(
    monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    for name in [name for name in sys.modules if name.startswith(("connman.transport.sockjs", "urllib3"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "connman.transport.http", raising=False)
    monkeypatch.setitem(sys.modules, "urllib3", None)
    with pytest.raises(InvalidOption, match=r"pip install connman\[http\]"):
        connman.Connection(f"{scheme}://127.0.0.1:1/base")
    with pytest.raises(InvalidOption, match=r"pip install connman\[http\]"):
        EndpointDialer().dial(make_dial(f"{scheme}://127.0.0.1:1/base"))
    connman.Connection("ws://127.0.0.1:1/base")


def test_what_is_imported_for_http_is_imported_before_the_first_dial() -> None:
    program = (
        "import sys, connman\n"
        "connman.Connection('ws://h/')\n"
        "before = 'urllib3' in sys.modules\n"
        "connman.Connection('xhr-polling+http://h/base')\n"
        "print(before, 'urllib3' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "True"]
