import math
import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme

from connman.cli.arguments import UsageError, parse
from connman.cli.doctor import Checkup
from connman.cli.session import Settings
from connman.cli.ways import TREE_TIMEOUT
from connman.version import __version__

URL = "wss://feed.example.com/ticks"


def settings(*words: str) -> Settings:
    found = parse(["connect", URL, *words])[0]
    assert isinstance(found, Settings)
    return found


def checkup(*words: str) -> Checkup:
    found = parse(["doctor", *words])[0]
    assert isinstance(found, Checkup)
    return found


def option(name: str, *words: str) -> Any:
    return settings(*words).options.get(name, "not given")


def complaint(*words: str) -> str:
    with pytest.raises(UsageError) as error:
        parse(words)
    text = str(error.value)
    assert "\n" not in text
    return text


def test_plain() -> None:
    plain = settings()
    assert str(plain.endpoint) == "wss://feed.example.com/ticks"
    assert plain.options == {"reconnect": True, "headers": [], "subprotocols": []}
    assert (plain.is_json, plain.is_verbose, plain.count, plain.eof_wait, plain.warnings) == (
        False,
        False,
        None,
        None,
        (),
    )


def test_words_of_the_session() -> None:
    found = settings("--json", "--count", "3", "--eof-wait", "0.5", "--binary", "raw", "-v")
    assert (found.is_json, found.count, found.eof_wait, found.binary) == (True, 3, 0.5, "raw")
    assert found.is_verbose
    assert settings("--eof-wait", "inf").eof_wait == math.inf
    assert parse(["connect", "-vv", URL])[1] == 2


def test_words_of_the_connection() -> None:
    assert option("reconnect", "--once") is False
    assert option("subprotocols", "-s", "a", "-s", "b") == ["a", "b"]
    assert option("headers", "-H", "A: b", "-H", "C:d: e ") == [("A", "b"), ("C", "d: e")]
    assert option("open_timeout", "--open-timeout", "2") == 2.0
    assert option("ping_interval", "--ping-interval", "2.5") == 2.5
    assert option("ping_interval", "--ping-interval", "0") is None


def test_words_of_the_doctor() -> None:
    found = checkup(
        "ws://h:1/", "--wss", "wss://h:2/", "--http", "https://h:3/b", "--expect-message", "--json"
    )
    names = ["ws", "wss", "xhr_streaming", "xhr_polling", "info", "default"]
    assert [way.name for way in found.ways] == names
    assert (found.expects_message, found.is_json, found.warnings) == (True, True, ())
    assert checkup(URL, "--insecure").warnings


def test_words_of_the_strategy() -> None:
    words = ("--strategy", "default", "--http", "https://u:s3cret@h:3/b?k=s3cret")
    found = settings(*words)
    assert found.strategy is not None
    assert [leaf.name for leaf in found.strategy.leaves()] == ["wss", "xhr_streaming", "xhr_polling"]
    assert found.options["open_timeout"] == TREE_TIMEOUT
    assert option("open_timeout", *words, "--open-timeout", "2") == 2.0
    assert "s3cret" not in repr(found) + found.strategy.describe()
    assert settings().strategy is None

    plain = parse(["connect", "ws://h:8000/a", "--strategy=default", "--wss=wss://h:8001/a"])[0]
    assert isinstance(plain, Settings)
    assert plain.strategy is not None
    assert [leaf.name for leaf in plain.strategy.leaves()] == ["ws", "wss"]


def test_proxies() -> None:
    assert option("proxy") == "not given"
    assert option("proxy", "--proxy", "http://p:1") == "http://p:1"
    assert option("proxy", "--proxy", "none") is None


def test_headers_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "headers"
    file.write_text("Authorization: Bearer s3cret\n\nX-Two: 2\n")
    assert option("headers", "-H", f"@{file}", "-H", "X: 3") == [
        ("Authorization", "Bearer s3cret"),
        ("X-Two", "2"),
        ("X", "3"),
    ]


def test_insecure_verifies_nothing_and_says_so() -> None:
    found = settings("--insecure")
    context = found.options["ssl_context"]
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_NONE, False)
    assert "NOT VERIFIED" in found.warnings[0]


def test_an_authority_of_ones_own(tmp_path: Path) -> None:
    trustme.CA().cert_pem.write_to_path(tmp_path / "ca.pem")
    context = option("ssl_context", "--ca", str(tmp_path / "ca.pem"))
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert len(context.get_ca_certs()) == 1


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], "arguments are required"),
        (["connect"], "URL"),
        ([URL], "connman connect URL"),
        (["doctor"], "URL"),
        (["doctor", "--once", URL], "no option --once"),
        (["doctor", "--wss", "wss://s3cret/", URL], "goes with a ws:// one"),
        (["doctor", "--wss", "ws://s3cret/", "ws://h/"], "takes a wss:// URL"),
        (["doctor", "--http", "s3cret", URL], "takes an http:// or https:// URL"),
        (["doctor", "--http", "http://h/", "tcp://h:1"], "goes with a ws:// or wss:// one"),
        (["doctor", "--http", "http://u:s3cret@", URL], "host is missing"),
        (["connect", "--http", "http://s3cret/", URL], "go with --strategy default"),
        (["connect", "--wss", "wss://s3cret/", "ws://h/"], "go with --strategy default"),
        (["connect", "--strategy", "s3cret", URL], "argument --strategy: there is one strategy: default"),
        (["connect", "--strategy", "default", "tcp://h:1"], "takes a ws:// or wss:// URL"),
        (["connect", "--strategy=default", "--http", "ftp://u:s3cret@h", URL], "takes an http:// or https:// URL"),
        (["connect", "--strategy=default", "--http", "http://u:s3cret@", URL], "host is missing"),
        (["connect", "--strategy=default", "--wss", "wss://u:s3cret@h", URL], "goes with a ws:// one"),
        (["konnect", URL], "connman connect URL"),
        (["connect", URL, URL], "words behind URL"),
        (["connect", "http://s3cret/"], "unsupported scheme"),
        (["connect", "s3cret"], "'://' is missing"),
        (["connect", "ws://u:s3cret@"], "host is missing"),
        (["connect", "ws://u:s3cret@h:99999/"], "port"),
        (["connect", "ws://h/?s3cret#f"], "fragment"),
        (["connect", "--frob=s3cret", URL], "no option --frob"),
        (["connect", "--on", URL], "no option --on"),
        (["connect", "--on\ns3cret", URL], "words behind URL"),
        (["connect", "-H", "s3cret", URL], "argument -H: a header is 'NAME: VALUE'"),
        (["connect", "-H", "A: s3cret\r\nB: c", URL], "argument -H: header A: the value holds CR, LF"),
        (["connect", "-H", "s3 cret: b", URL], "argument -H: a header's name is not a token"),
        (["connect", "-H", "Upgrade: s3cret", URL], "set by the upgrade itself"),
        (["connect", "-H", "@/nonexistent/s3cret", URL], "cannot be read: No such file"),
        (["connect", "-s", "a,b", URL], "subprotocol is not a token"),
        (["connect", "--count", "0", URL], "argument --count: a whole number from 1"),
        (["connect", "--eof-wait", "-1", URL], "argument --eof-wait"),
        (["connect", "--eof-wait", "nan", URL], "a number of seconds from 0"),
        (["connect", "--open-timeout", "0", URL], "more than 0"),
        (["connect", "--ping-interval", "inf", URL], "finite"),
        (["connect", "--proxy", "http://u:s3cret@", URL], "argument --proxy: the host is missing"),
        (["connect", "--ca", "/nonexistent/ca", URL], "No such file"),
        (["connect", "--ca", "/dev/null", URL], "authorities"),
        (["connect", "--ca", "x", "--insecure", URL], "not allowed with"),
        (["connect", "--ca", "a\0b", URL], "null byte"),
        (["connect", "--binary", "octal", URL], "argument --binary"),
        # argparse quotes these two.
        (["connect", "--binary", "s3cret", URL], "one of hex, base64, raw"),
        (["connect", "--json=s3cret", URL], "argument --json: ignored explicit argument"),
    ],
)  # fmt: skip
def test_mistakes_are_told_in_one_line_without_secrets(words: list[str], text: str) -> None:
    told = complaint(*words)
    assert text in told
    assert "s3cret" not in told


def test_a_header_file_must_be_text(tmp_path: Path) -> None:
    (tmp_path / "headers").write_bytes(b"A: \xff")
    assert "not UTF-8" in complaint("connect", "-H", f"@{tmp_path / 'headers'}", URL)


def test_secrets_stay_out_of_the_repr_of_settings() -> None:
    found, _ = parse(
        ["connect", "ws://u:s3cret@h/?k=s3cret", "-H", "A: s3cret", "--proxy", "http://u:s3cret@p"]
    )
    assert "s3cret" not in repr(found)
    secret = "https://u:s3cret@h/?k=s3cret"
    assert "s3cret" not in repr(checkup("wss://h/?k=s3cret", "-H", "A: s3cret", "--http", secret))


@pytest.mark.parametrize(
    ("words", "text"), [(["--version"], __version__), (["connect", "--help"], "exit codes")]
)
def test_words_that_only_print(words: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        parse(words)
    assert end.value.code == 0
    assert text in capsys.readouterr().out
