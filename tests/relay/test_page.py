"""The page, as text: what is on it, what is not, and that nothing of it can become markup."""

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connman.relay.counts import Rate, RelaySeen, Snapshot
from connman.relay.page import POLICY, NameLine, amount, duration, render, size, sparkline

VOID = {"meta", "line", "polygon", "polyline"}


class Text(HTMLParser):
    """Collects the text of a page, and checks that each element ends where it should."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self.open) and data.strip():
            self.text.append(data.strip())


def test_it_reads_without_a_script() -> None:
    page = Text(
        render(
            Snapshot(
                uptime=93784.0,
                pairs=1870,
                spares=4096,
                refused={"rate": 3021, "token": 12},
                closes={1000: 55123, 4104: 88, 4999: 1, 0: 3},
                relays=(RelaySeen("relay-1", "10.1.2.3:8765", 0.44),),
                broker="up",
                rates=(Rate(1.0, 10.0, 2048.0, 0.0), Rate(2.0, 5.0, 1024.0, 0.5)),
            )
        )
    )
    text = " ".join(page.text)
    for expected in (
        "running up for 1 d 2 h",
        "pairs 1,870",
        "spares 4,096",
        "relay-1 10.1.2.3:8765 0.4 s ago",
        "rate 3,021 token 12",
        "1000 normal 55,123 4104 no provider of that name 88",
        "other all others 3",
        "frames a second 5 at most 10 in the last 2 s",
        "bytes a second 1.0 KiB at most 2.0 KiB",
        "new pairs a second 0.5",
    ):
        assert expected in text
    assert ("meta", {"http-equiv": "refresh", "content": "2"}) in page.tags
    assert "groups" not in text


def test_names_are_shown_when_they_may_be_seen_alone() -> None:
    assert "device-42" not in render(Snapshot(names=1))
    assert "names device-42 2 1" in " ".join(
        Text(render(Snapshot(), [NameLine("device-42", 2, 1)])).text
    ).replace("name spares pairs ", "")
    assert "<h2>names</h2>" in render(Snapshot(), [])


def test_of_many_names_the_busiest_are_shown() -> None:
    lines = [NameLine(f"device-{number}", number % 7, number % 1000) for number in range(5000)]
    page = render(Snapshot(), lines)
    assert "the 200 busiest of 5,000 names" in page
    assert page.count(">device-") == 200
    assert ">device-4999<" in page
    assert ">device-4000<" not in page


@pytest.mark.parametrize(
    ("taken", "state"),
    [
        (Snapshot(), "running"),
        (Snapshot(broker="lost"), "broker lost"),
        (Snapshot(broker="lost", is_stopping=True), "stopping"),
    ],
)
def test_the_state_is_told(taken: Snapshot, state: str) -> None:
    page = render(taken)
    assert f">{state}</span>" in page
    assert f"{state} – connman relay</title>" in page


@given(st.text(max_size=40))
def test_nothing_that_is_shown_becomes_markup(text: str) -> None:
    nasty = f"<script>alert(1)</script>\"'&</td>{text}"
    page = render(
        Snapshot(refused={nasty: 1}, relays=(RelaySeen(nasty, nasty, 0.0),), broker="up"),
        [NameLine(nasty, 1, 1)],
    )
    parsed = Text(page)
    assert [tag for tag, _ in parsed.tags if tag == "script"] == ["script"]


def test_the_policy_allows_what_is_on_the_page_and_nothing_else() -> None:
    page = render(Snapshot(), [NameLine("a", 1, 1)])
    for tag, directive in (("style", "style-src"), ("script", "script-src")):
        (content,) = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}'" in POLICY
    assert not re.search(r"\s(style|on\w+|src|href)=", page)
    assert "unsafe" not in POLICY
    assert POLICY.startswith("default-src 'none'; ")


def test_a_sparkline_stays_in_its_frame() -> None:
    picture = sparkline([0.0, 5.0, 10.0], "so & so")
    assert 'points="0.0,48.0 120.0,25.0 240.0,2.0"' in picture
    assert 'aria-label="so &amp; so"' in picture
    assert "polyline" not in sparkline([], "") + sparkline([1.0], "")
    assert "nan" not in sparkline([0.0, 0.0], "")


def test_numbers_for_people() -> None:
    assert [duration(s) for s in (-1, 0, 59.9, 60, 3661, 90061)] == [
        "0 s", "0 s", "59 s", "1 min 0 s", "1 h 1 min", "1 d 1 h",
    ]  # fmt: skip
    assert [size(n) for n in (0, 1023, 1024, 150 * 1024, 5 * 1024**2, 2 * 1024**5)] == [
        "0 B", "1023 B", "1.0 KiB", "150 KiB", "5.0 MiB", "2,048.0 TiB",
    ]  # fmt: skip
    assert [amount(n) for n in (0.0, 0.25, 3.0, 9.96, 12345.6)] == ["0", "0.2", "3", "10.0", "12,346"]
