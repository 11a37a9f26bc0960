"""README.md and docs/: every block of code runs, and what they say of options, numbers and files is so."""

import configparser
import contextlib
import inspect
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from ast import literal_eval
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from xml.etree import ElementTree

import pytest

import connman
import connman.strategy
from connman import rpc
from connman.connection.backoff import FIRST_DELAY, LONGEST_DELAY
from connman.connection.fork import EXIT_TIMEOUT
from connman.connection.queue import MAX_ITEMS
from connman.options import Options
from connman.records import Step
from connman.relay import Limits, RelayCollector, TokenFile, wire
from connman.relay.counts import Counts
from connman.rpc.answered import MOST_ANSWERS, MOST_BYTES, MOST_SECONDS
from connman.rpc.outbox import FULL
from connman.rpc.receiving import WINDOW
from connman.rpc.streams_out import MAX_STREAMS
from connman.rpc.wire import MOST_ERROR_TEXT
from docs import make_strategy_svg
from tests.recipes.blocks import DOCUMENTS, ELSEWHERE_RELAY, ROOT, Block, Site, blocks, recipe, site
from tests.recipes.programs import Program

README = (ROOT / "README.md").read_text(encoding="utf-8")
OPTIONS = (ROOT / "docs" / "options.md").read_text(encoding="utf-8")
RELAY = (ROOT / "docs" / "relay.md").read_text(encoding="utf-8")
STRATEGIES = (ROOT / "docs" / "strategies.md").read_text(encoding="utf-8")
# What a tree is made of; the rest of connman.strategy is for those who write a strategy.
TREE_PARTS = {
    "BestConnected",
    "Cached",
    "Delayed",
    "FirstConnected",
    "If",
    "Sequential",
    "Transport",
    "TransportManager",
    "pusher_default",
    "pusher_tree",
}

# What each program prints, found by a line that only it has.
PRINTED = {
    "def log_in(channel):": "hello\n",
    "def on_reset(conn, reset):": "subscribe EURUSD\nended; closed with code 1000; None\n",
    "connman.Pool(": "ping\n",
    "enumerate(conn)": "".join(f"{number}\n" for number in range(1, 11)),
    "ScriptedDialer": "",
    "def fresh_token():": "",
    "tree = FirstConnected(": blocks("text")[0].text,
    "tree = pusher_default(": blocks("text")[1].text,
    "class Table:": "direct alive\n",
    "xhr-streaming+https": "hello\n",
    "class RoundRobin(Strategy):": "a\nb\na\n",
    'peer.call("read", timeout=5)': "21.5\n",
    "futures = [peer.send(": "5\n[1, 2, 3]\n",
    "peer.stream(": "0: 21.5\n1: 21.5\n2: 21.5\n0: 21.5\n{'name': 'backup.tar', 'size': 6}\n",
    "current_peer() is peer": "3\nTrue\n1000\n",
    "Limits(max_per_name=8)": "21.5 1\n",
    "class Customers:": "7\n",
}
# What a command prints that does not say so itself, behind a "#"; by the words in front of its options.
TOLD = {"call device-42 history 2": "0: 21.5\n1: 21.5\n"}
# These run in their frameworks, in tests/test_recipes.py, or with servers of their own.
RECIPES = {
    "orders.py",
    "room.py",
    "conn.py",
    "flask_app.py",
    "views.py",
    "gunicorn.conf.py",
    "gevent.conf.py",
    "tasks.py",
    "uwsgi.ini",
}
# These run as processes of their own, for those who call them.
PROVIDERS = {"device.py", "sensors.py"}

PROGRAMS = [block for block in blocks("python") if not block.file]
COMMANDS = [(block.place, line) for block in blocks("sh") for line in block.text.splitlines() if line.strip()]


@pytest.fixture(name="site", scope="module")
def fixture_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(tmp_path_factory.mktemp("site")) as found:
        yield found


@pytest.fixture(name="provided", scope="module")
def fixture_provided(site: Site) -> Iterator[None]:
    """What the documents provide is provided, and the files are there that they name."""
    (site.folder / "tokens.txt").write_text(blocks("tokens")[0].text)
    command = ("-m", "connman", "relay", "--port", "0", "--cert", "chain.pem", "--key", "key.pem")
    with contextlib.ExitStack() as stack:
        relay = stack.enter_context(Program(site, sys.executable, *command, code=128 + signal.SIGTERM))
        relay.wait_logged("listening on ", 1)
        site.relay = relay.log().split()[-1]
        site.write(*PROVIDERS)
        for file in PROVIDERS:
            stack.enter_context(Program(site, sys.executable, file, end_by=signal.SIGKILL))
        for name in re.findall(r'"(device-\d+)"', "".join(recipe(file).text for file in PROVIDERS)):
            site.python("-c", f"from connman import rpc\nwith rpc.reach({site.relay!r}, {name!r}): pass")
        yield


# Blocks


def test_no_block_is_forgotten() -> None:
    assert sum(document.read_text(encoding="utf-8").count("```") for document in DOCUMENTS) == 2 * len(
        blocks()
    )
    assert {block.kind for block in blocks()} == {"python", "sh", "ini", "text", "tokens", "json"}
    assert len(blocks("text")) == 2  # what the trees of docs/strategies.md print
    assert {block.file for block in blocks("python") if block.file} | {"uwsgi.ini"} == RECIPES | PROVIDERS
    assert [len(blocks(kind)) for kind in ("ini", "tokens", "json")] == [1, 1, 1]


@pytest.mark.parametrize(
    "block",
    [
        pytest.param(
            block, id=block.place, marks=() if block.place.startswith("README") else pytest.mark.slow
        )
        for block in PROGRAMS
    ],
)
def test_a_program_prints_what_it_should(block: Block, site: Site, request: pytest.FixtureRequest) -> None:
    if ELSEWHERE_RELAY in block.text:
        request.getfixturevalue("provided")
    expected = [printed for line, printed in PRINTED.items() if line in block.text]
    assert len(expected) == 1, "PRINTED does not tell what this one prints"
    assert site.python("-c", site.local(block.text)) == site.local(expected[0])


def test_the_example_is_short() -> None:
    lines = [line for line in PROGRAMS[0].text.splitlines() if line.strip()]
    assert len(lines) <= 12


def test_the_example_of_calls_is_short() -> None:
    found = [
        block.text for block in blocks("python") if block.place.startswith("README") and "rpc." in block.text
    ]
    assert len(found) == 2
    assert sum(len(text.strip().splitlines()) for text in found) <= 15


@pytest.mark.slow
@pytest.mark.parametrize(("place", "line"), COMMANDS, ids=[place for place, _ in COMMANDS])
def test_a_command_is_there(place: str, line: str, site: Site, request: pytest.FixtureRequest) -> None:
    words = shlex.split(line, comments=True)
    match words:
        case [script] if script.startswith("scripts/"):
            assert os.access(ROOT / script, os.X_OK)
            subprocess.run(["bash", "-n", ROOT / script], check=True)
        case ["python", "-m", "connman", "relay" | "provide" as command, *_]:
            request.getfixturevalue("provided")
            # The ports that the documents name may be taken here.
            line = line if command == "relay" else site.local(line)
            words = ["0" if word in ("8765", "9100") else word for word in shlex.split(line)[1:]]
            with Program(site, sys.executable, *words, code=128 + signal.SIGTERM) as program:
                program.wait_logged("is provided" if command == "provide" else r"listening on wss?://", 1)
        case ["python", "-m", "connman", "call", *_]:
            request.getfixturevalue("provided")
            told = [text for start, text in TOLD.items() if shlex.join(words[3:]).startswith(start)]
            _, is_told, comment = line.partition("  # ")
            assert site.python(*map(site.local, words[1:])) == (f"{comment}\n" if is_told else told[0])
        case ["python", *arguments]:
            assert site.python(*map(site.local, arguments), stdin="hello\n") == "hello\n"
        case ["pip", "install", target]:
            extras = re.fullmatch(r"\.(?:\[(.*)\])?", target)
            assert extras is not None
            assert set(filter(None, (extras[1] or "").split(","))) <= set(
                metadata()["options.extras_require"]
            )
        case _:
            pytest.fail(f"{place}: no test knows how to run {words}")


@pytest.mark.slow
def test_pip_installs_it(site: Site, tmp_path: Path) -> None:
    """Without its dependencies, so that nothing but the build system is looked up."""
    source = tmp_path / "source"
    source.mkdir()
    for name in ("connman", "setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*pip, "--target", tmp_path / "installed", source], check=True, stdin=subprocess.DEVNULL)
    assert (tmp_path / "installed" / "connman" / "py.typed").exists()
    assert (tmp_path / "installed" / "bin" / "connman").exists()


def test_the_uwsgi_settings_name_what_is_there() -> None:
    settings = configparser.ConfigParser()
    settings.read_string(blocks("ini")[0].text)
    assert settings.sections() == ["uwsgi"]
    assert set(settings["uwsgi"]) == {"module", "master", "processes", "enable-threads", "die-on-term"}
    module, _, name = settings["uwsgi"]["module"].partition(":")
    assert any(block.file == f"{module}.py" and f"\n{name} = " in block.text for block in blocks("python"))


@pytest.mark.parametrize("kind", ["tokens", "json"])
def test_the_files_of_tokens_are_taken(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text(blocks(kind)[0].text)
    grant = TokenFile(file).check("4f1c0d1f0c9e4e0b9a")
    assert grant.may_provide("device-7" if kind == "tokens" else "device 1, the first")
    assert not grant.may_reach("device-7")


# What is said


def metadata() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def test_it_needs_what_the_readme_says() -> None:
    options = metadata()["options"]
    needed = re.findall(r"^[\w-]+", options["install_requires"], re.MULTILINE)
    assert f"needs {' and '.join(needed)}, no other" in README
    assert f"Python {options['python_requires'].removeprefix('>=')} or newer" in README


def test_links_lead_somewhere() -> None:
    for document in DOCUMENTS:
        targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8"))
        for target in targets:
            assert "://" in target or (document.parent / target).exists(), f"{document.name}: {target}"


def test_links_to_a_heading_lead_to_one() -> None:
    for document in DOCUMENTS:
        for target, anchor in re.findall(r"\]\(([\w./-]*)#([^)]+)\)", document.read_text(encoding="utf-8")):
            file = document.parent / target if target else document
            headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in slugs, f"{document.name}: {target}#{anchor}"


def test_numbers_of_the_promises() -> None:
    assert f"{FIRST_DELAY:g} s doubling to {LONGEST_DELAY:g} s, half of" in README
    assert f"honoured up to {LONGEST_DELAY:g} s" in README
    assert f"{MAX_ITEMS:,} messages" in README
    found = re.search(r"hold up the end of the interpreter for at most (\d+) s", README)
    assert found is not None
    assert int(found[1]) >= EXIT_TIMEOUT
    assert f"{FIRST_DELAY:g} s doubling to {LONGEST_DELAY:g} s, half of" in OPTIONS


def test_options_that_the_readme_names_exist() -> None:
    named = set(re.findall(r"`(\w+_(?:timeout|after|interval|size))`", README))
    assert len(named) >= 5
    assert named <= {name for name, _, _ in option_rows()}


def test_the_command_line_has_what_the_readme_names(site: Site) -> None:
    section = README.partition("## On the command line")[2].partition("\n## ")[0]
    told = set(re.findall(r"`(--?[a-zA-Z-]+)", section))
    commands = ("connect", "doctor", "relay", "provide", "call")
    helps = {command: site.python("-m", "connman", command, "--help") for command in commands}
    text = "".join(helps.values())
    assert told - set(re.findall(r"(?<![\w-])--?[a-zA-Z][a-z-]*", text)) == set()
    for code in re.findall(r"(\d+) (?:clean|failed|wrong usage|Ctrl-C)", section):
        assert re.search(rf"^  {code} ", helps["connect"], re.MULTILINE)


# The relay


def test_every_limit_of_a_relay_is_documented_with_its_default() -> None:
    section = RELAY.partition("\n## Limits\n")[2].partition("\n## ")[0]
    told = {}
    for names, values in re.findall(r"^\| (`.*?) \| ([^|]+) \|", section, re.MULTILINE):
        told |= dict(zip(re.findall(r"`(\w+)`", names), map(number_of, values.split(", ")), strict=True))
    assert told == {field.name: field.default for field in fields(Limits)}


def number_of(text: str) -> float:
    """Return what "16 MiB", "1,000" and "5 s" stand for."""
    amount, _, unit = text.partition(" ")
    return float(amount.replace(",", "")) * {"MiB": 2**20, "KiB": 2**10}.get(unit, 1)


def test_the_limits_of_calls_are_those_of_the_code() -> None:
    text = (ROOT / "docs" / "rpc.md").read_text(encoding="utf-8").partition("\n## Limits\n")[2]
    rows = dict(re.findall(r"^\| (.+?) \| (.+?) \|", text.partition("\n## ")[0], re.MULTILINE))
    defaults = {
        name: parameter.default
        for function in (rpc.Services, rpc.provide)
        for name, parameter in inspect.signature(function).parameters.items()
    }
    assert rows["threads for services, of a peer or of all that share a `Services`"] == (
        f"`max_workers`, {defaults['max_workers']}"
    )
    assert rows["calls that wait for such a thread"] == f"{defaults['max_waiting']:,}"
    assert rows["callers and spares of a provider"] == f"`max_peers`, {defaults['max_peers']}"
    assert rows["what waits to go out"] == f"{FULL >> 20} MiB"
    assert rows["what a stream has under way"] == f"{WINDOW >> 10} KiB"
    assert rows["streams that one side sends at a time"] == f"{MAX_STREAMS:,}"
    assert rows["the text of an error"] == f"{MOST_ERROR_TEXT:,} letters"
    assert rows["kept answers of `retry_safe` calls"] == (
        f"{MOST_ANSWERS:,}, {MOST_BYTES >> 20} MiB, {MOST_SECONDS / 60:g} minutes, {MOST_BYTES >> 22} MiB each"
    )


def test_every_close_code_of_the_relay_is_documented() -> None:
    told = {
        int(code) for row in re.findall(r"^\| (\d{4}.*?) \|", RELAY, re.MULTILINE) for code in row.split(", ")
    }
    ours = {value for name, value in vars(wire).items() if name.isupper() and value in range(1000, 5000)}
    assert told == (ours - {wire.LONGEST_NAME, wire.LONGEST_FIRST}) | {1002, 1007}


def test_every_metric_of_the_relay_is_documented() -> None:
    section = RELAY.partition("| metric | |")[2].partition("\n\n")[0]
    told = set(re.findall(r"`(?:connman_relay)?_(\w+)", section))
    taken = Counts(0.0).snapshot(0.0, broker="up")
    families = list(RelayCollector(lambda: taken).collect())
    kinds = {"counter": "_total", "gauge": ""}
    assert told == {family.name.removeprefix("connman_relay_") + kinds[family.type] for family in families}


# Options


def option_rows() -> list[tuple[str, str, str]]:
    return re.findall(r"^\| `(\w+)` \| `([^`]+)` \| (\w*) ?\|", OPTIONS, re.MULTILINE)


def unit_of(annotation: object) -> str:
    kind = str(annotation)
    return "seconds" if kind.startswith("float") else "bytes" if kind.startswith("int") else ""


def test_every_option_is_documented_with_its_default_and_unit() -> None:
    expected = {}
    for name, parameter in inspect.signature(connman.Connection).parameters.items():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            expected[name] = (parameter.default, unit_of(parameter.annotation))
    rows = option_rows()
    assert {name: (literal_eval(default), unit) for name, default, unit in rows} == expected
    assert len(rows) == len(expected)
    assert len(rows) == OPTIONS.count("\n| `")


def test_the_parts_of_a_tree_are_documented_with_their_signatures() -> None:
    told = re.findall(r"^### `(\w+)(\(.*\))`$", STRATEGIES, re.MULTILINE)
    assert {name for name, _ in told} == TREE_PARTS
    for name, text in told:
        signature = inspect.signature(getattr(connman.strategy, name))
        bare = [
            parameter.replace(annotation=inspect.Parameter.empty)
            for parameter in signature.parameters.values()
        ]
        expected = str(signature.replace(parameters=bare, return_annotation=inspect.Signature.empty))
        assert text == expected.replace("<built-in function time>", "time.time"), name


def test_every_health_is_documented() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", STRATEGIES, re.MULTILINE)
    assert rows == [str(health) for health in connman.strategy.Health]


def test_durations_are_the_options_named_after_time() -> None:
    """Because the docstring of Options says: durations are float seconds."""
    seconds = {name for name, _, unit in option_rows() if unit == "seconds"}
    assert seconds == {
        field.name for field in fields(Options) if field.name.endswith(("_timeout", "_after", "_interval"))
    }


# The picture


def picture_of(text: str) -> str:
    run = subprocess.run(
        [sys.executable, "docs/make_demo_svg.py"], cwd=ROOT, input=text, capture_output=True, text=True, check=True
    )  # fmt: skip
    return run.stdout


def shown_in(svg: str) -> list[str]:
    texts = ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")
    return ["".join(text.itertext()) for text in texts]


def test_the_picture_shows_a_run_that_kept_every_promise() -> None:
    lines = shown_in((ROOT / "docs" / "demo.svg").read_text(encoding="utf-8"))
    verdicts = [found[0] for line in lines if (found := re.search(r"(OK|BROKEN)$", line))]
    assert len(verdicts) > 10
    assert set(verdicts) == {"OK"}


def test_a_picture_leaves_repeated_lines_out_and_invents_none() -> None:
    output = (
        "options: ping_interval=1\nstates:  . idle\n\n== An <act>\n  0.10  OW     5 msg/s  1 x open; try 1, next in 0.1 s\n"
        "  0.20  OO Cx     7 msg/s  2 x open; try 2, next in 0.2 s\n\nkept  1  1  OK\n"
    )
    lines = shown_in(picture_of(output))
    assert lines == [
        line for line in output.splitlines() if line and not line.startswith(("options", "  0.20"))
    ]


@pytest.mark.slow
def test_the_picture_of_the_default_tree_shows_what_is_promised() -> None:
    picture = ElementTree.parse(ROOT / "docs" / "strategies.svg")
    lines = shown_in(ElementTree.tostring(picture.getroot(), encoding="unicode"))
    titles = [title for title, _, _ in make_strategy_svg.NETWORKS]
    assert [line for line in lines if line in titles] == titles
    opened = [float(found[1]) for line in lines if (found := re.fullmatch(r"open after ([\d.]+) s", line))]
    assert [seconds < 2.5 for seconds in opened] == [True, True, True, False, False]
    assert len([line for line in lines if re.fullmatch(r"open after \d+ ms", line)]) == len(titles) - 5


@pytest.mark.slow
def test_a_picture_of_a_tree_shows_each_step_and_invents_none() -> None:
    steps = (
        Step("cache", "", 0.0, None, "ws", 0.0),
        Step("tcp", "h:1", 0.5, None, "ws", 0.0),
        Step("upgrade", "h:1", 2.0, "given up", "ws", 0.0),
        Step("tcp", "h:1", 0.5, "<refused>", "ws", 2.0),
        Step("request", "", 1.0, None, "http", 3.0),
    )
    picture = make_strategy_svg.Picture().draw([make_strategy_svg.Act("A network", 4.0, "http", steps)])
    assert shown_in(picture)[:6] == ["A network", "ws", "no answer", "<refused>", "http", "open after 4.00 s"]
    rows = ElementTree.fromstring(picture).findall("{http://www.w3.org/2000/svg}rect[@class]")
    second = (make_strategy_svg.place(8) - make_strategy_svg.place(0)) / 8
    told = [
        (row.get("class"), *(round(float(row.get(name, "")) / second, 1) for name in ("x", "width")))
        for row in rows[:5]
    ]
    left = make_strategy_svg.place(0) / second
    expected = [
        ("connect", 0.0, 0.5),
        ("ask", 0.5, 1.5),
        ("connect", 2.0, 0.5),
        ("ask", 3.0, 1.0),
        ("won", 4.0, 4.0),
    ]
    assert told == [(kind, round(left + start, 1), width) for kind, start, width in expected]


@pytest.mark.slow
def test_a_run_gives_the_picture_of_the_default_tree_again() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "docs.make_strategy_svg"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    file = (ROOT / "docs" / "strategies.svg").read_text(encoding="utf-8")
    told, expected = (
        [re.sub("after .*", "", line) for line in shown_in(text)] for text in (run.stdout, file)
    )
    assert told == expected
