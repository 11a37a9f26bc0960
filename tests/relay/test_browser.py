"""The page in a real browser, without a window: with its script and without, in both colour schemes, narrow and wide."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

pytest.importorskip("prometheus_client", reason="needs connman[relay]")
from connman.relay import Relay
from connman.relay.admin import Admin
from connman.relay.counts import Rate, RelaySeen, Snapshot
from connman.relay.page import NameLine
from tests.relay.rig import pair
from tests.waiting import eventually

webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
CHROMEDRIVER = shutil.which("chromedriver")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and CHROMEDRIVER), reason="needs chromium and chromedriver"),
]

NAMES = [NameLine("device-<b>42</b>", 2, 1), NameLine("x" * 128, 1, 0)]


class Shown:
    """What the relay would say; a test changes it."""

    def __init__(self) -> None:
        self.taken = Snapshot(
            uptime=93784.0,
            pairs=1870,
            spares=4096,
            names=2048,
            connections=12_345,
            refused={"rate": 3021, "token": 12},
            closes={1000: 55_123, 4104: 88},
            rates=tuple(
                Rate(float(i), 50_000.0 + i % 17 * 1000, 9e6 + i % 23 * 1e5, i % 3) for i in range(120)
            ),
            relays=(RelaySeen("relay-7f3a", "10.1.2.3:8765", 0.4),),
            broker="up",
        )

    def __call__(self) -> Snapshot:
        return self.taken


@pytest.fixture
def shown() -> Shown:
    return Shown()


@pytest.fixture
def admin(shown: Shown) -> Iterator[Admin]:
    admin = Admin(shown, names=lambda: NAMES)
    admin.start()
    yield admin
    admin.stop()


Open = Callable[..., Any]


@pytest.fixture
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Open]:
    """Return a function that starts a browser; each is ended at the end."""
    with ExitStack() as stack:

        def open_(*, script: bool = True) -> Any:
            return stack.enter_context(started(str(tmp_path_factory.mktemp("profile")), script=script))

        yield open_


@contextmanager
def started(profile: str, *, script: bool) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    # Containers give it neither a sandbox nor much shared memory.
    for flag in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-proxy-server",
    ):
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={profile}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    if not script:
        setting = {"profile.managed_default_content_settings.javascript": 2}
        options.add_experimental_option("prefs", setting)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(CHROMEDRIVER))
    try:
        driver.set_page_load_timeout(20)
        yield driver
    finally:
        driver.quit()


def look(driver: Any, *, width: int = 1200, scheme: str = "light") -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def text_of(driver: Any, selector: str) -> str:
    # In one step: the page may renew itself between finding and reading.
    text = driver.execute_script("return document.querySelector(arguments[0]).innerText", selector)
    return " ".join(text.split())


def test_it_shows_the_numbers_and_keeps_them_fresh(browser: Open, admin: Admin, shown: Shown) -> None:
    driver = browser()
    driver.get(admin.url)
    assert text_of(driver, "h1") == "connman relay"
    assert text_of(driver, "#pairs") == "1,870"
    assert driver.title == "1,870 pairs, running – connman relay"
    assert "device-<b>42</b>" in text_of(driver, "main")
    assert not driver.find_elements("css selector", "b")
    # By its own script: the page is not loaded again, so what a test puts there stays.
    driver.execute_script("window.mark = 1")
    shown.taken = Snapshot(pairs=7, broker="lost")
    eventually(lambda: text_of(driver, "#pairs") == "7", 15.0)
    assert driver.execute_script("return window.mark") == 1
    assert text_of(driver, ".state") == "broker lost"
    assert driver.title == "7 pairs, broker lost – connman relay"
    assert [entry for entry in driver.get_log("browser") if "favicon" not in entry["message"]] == []


def test_it_says_when_the_relay_does_not_answer_any_more(browser: Open, shown: Shown) -> None:
    driver = browser()
    admin = Admin(shown)
    admin.start()
    try:
        driver.get(admin.url)
        assert not driver.find_element("id", "stale").is_displayed()
        port = admin.port
    finally:
        admin.stop()
    eventually(lambda: driver.find_element("id", "stale").is_displayed(), 15.0)
    shown.taken = Snapshot(pairs=9)
    again = Admin(shown, port=port)
    again.start()
    try:
        eventually(lambda: text_of(driver, "#pairs") == "9", 15.0)
        assert not driver.find_element("id", "stale").is_displayed()
    finally:
        again.stop()


def test_it_is_readable_and_fresh_without_a_script(browser: Open, admin: Admin, shown: Shown) -> None:
    driver = browser(script=False)
    driver.get(admin.url)
    assert text_of(driver, "#pairs") == "1,870"
    assert "relay-7f3a" in text_of(driver, "main")
    shown.taken = Snapshot(pairs=7)
    # The page is loaded anew meanwhile, and what was found is gone then.
    eventually(lambda: "7 pairs" in driver.title, 15.0)


def luminance(colour: list[int]) -> float:
    parts = [c / 255 for c in colour[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


CONTRASTS = """
const rgb = (c) => c.match(/\\d+/g).map(Number);
const under = (e) => { for (; e; e = e.parentElement) {
  const c = getComputedStyle(e).backgroundColor; if (c !== "rgba(0, 0, 0, 0)") return c; } };
return ["h1", "header p", ".state", ".few h2", ".number", ".dim", "th", "td", ".rate svg"].map((s) => {
  const e = document.querySelector(s); return [s, rgb(getComputedStyle(e).color), rgb(under(e))]; });
"""


def test_it_can_be_read_in_every_colour_and_width(browser: Open, admin: Admin) -> None:
    """WCAG 2.2: a contrast of 4.5 to 1 for text (1.4.3), and nothing to scroll sideways at 320 (1.4.10)."""
    driver = browser()
    for scheme in ("light", "dark"):
        look(driver, scheme=scheme)
        driver.get(admin.url)
        for selector, ink, page in driver.execute_script(CONTRASTS):
            lighter, darker = sorted((luminance(ink), luminance(page)), reverse=True)
            assert (lighter + 0.05) / (darker + 0.05) >= 4.5, (scheme, selector)
            assert (luminance(page) < 0.5) is (scheme == "dark"), selector
    for width in (320, 768, 1600):
        look(driver, width=width)
        driver.get(admin.url)
        assert driver.execute_script("return document.documentElement.scrollWidth") <= width


def test_it_shows_a_relay_at_work(browser: Open) -> None:
    with Relay(port=0, admin=("127.0.0.1", 0), admin_names=True) as relay:
        assert relay.admin_url is not None
        driver = browser()
        driver.get(relay.admin_url)
        assert text_of(driver, "#pairs") == "0"
        near, far = pair(relay, "gerät-42")
        with near, far:
            eventually(lambda: text_of(driver, "#pairs") == "1", 15.0)
            assert "gerät-42 0 1" in text_of(driver, "main")
            near.say("hello")
            assert far.hear() == "hello"
            eventually(lambda: "frames forwarded 1" in text_of(driver, "main"), 15.0)
        # Both are gone, each without a goodbye.
        eventually(lambda: text_of(driver, "#connections") == "0", 15.0)
        assert "4102 other side lost 1" in text_of(driver, "main")
