"""The house rules that a machine can check, over the sources and over the public surface."""

import ast
import dataclasses
import enum
import inspect
import io
import itertools
import re
import statistics
import subprocess
import sys
import tokenize
import types
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

import connman
import connman.cli
import connman.integrations.pusher
import connman.testing
from connman import errors

ROOT = Path(__file__).parent.parent

# The lower may not import the higher. `connman` is the facade, connman/__init__.py.
FLOORS = [
    {"errors", "endpoint", "options", "clock", "records", "threads", "version"},
    {"transport"},
    {"strategy"},
    {"connection"},
    {"leases"},
    {"pool"},
    {"manager"},
    {"rpc", "relay"},
    {"connman"},
    {"integrations", "cli", "testing", "__main__"},
]
FLOOR_OF = {name: number for number, names in enumerate(FLOORS) for name in names}

# Library: the files and folders of connman that may import it.
ONLY_IN = {
    "tenacity": ("connection/backoff.py",),
    "websocket": ("transport/",),
    "urllib3": ("transport/http.py", "integrations/pusher/auth.py"),
    "ssl": ("transport/", "relay/"),
    "socket": ("transport/", "testing", "cli", "relay/"),
    "uvloop": ("relay/relay.py",),
    "jwt": ("relay/jwt_tokens.py",),
    "cryptography": ("relay/jwt_keys.py",),
    "prometheus_client": ("relay/metrics.py",),
    "websockets": ("relay/frames.py",),
    "redis": ("relay/cluster/store.py",),
}


@dataclasses.dataclass(frozen=True)
class Import:
    name: str  # the dotted module, as far as it can be told
    line: int
    in_function: bool
    for_types_only: bool


class Source:
    """One file of connman, parsed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.text = path.read_text(encoding="utf-8")
        self.lines = self.text.splitlines()
        self.inner = path.relative_to(ROOT / "connman").as_posix()  # such as transport/dial.py
        parts = path.relative_to(ROOT).with_suffix("").parts
        self.module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    def __repr__(self) -> str:
        return str(self.path.relative_to(ROOT))

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @cached_property
    def comments(self) -> dict[int, str]:
        tokens = tokenize.generate_tokens(io.StringIO(self.text).readline)
        return {token.start[0]: token.string for token in tokens if token.type == tokenize.COMMENT}

    @cached_property
    def functions(self) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
        return [n for n in ast.walk(self.tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]

    @cached_property
    def imports(self) -> list[Import]:
        return list(self._imports(self.tree, in_function=False, for_types_only=False))

    def _imports(self, node: ast.AST, *, in_function: bool, for_types_only: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                names = [alias.name for alias in child.names]
            elif isinstance(child, ast.ImportFrom):
                names = [f"{'.' * child.level}{child.module or ''}.{alias.name}" for alias in child.names]
            else:
                inside = in_function or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
                # An `else` counts as well: it is for the same reason that it exists.
                typing = isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING")
                yield from self._imports(child, in_function=inside, for_types_only=for_types_only or typing)
                continue
            for name in names:
                yield Import(name, child.lineno, in_function, for_types_only)


SOURCES = [Source(path) for path in sorted((ROOT / "connman").rglob("*.py"))]
MODULES = {source.module for source in SOURCES}


def floor_name(module: str) -> str:
    """Name the first part below connman, or connman itself."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else parts[0]


def module_of(name: str) -> str:
    """Cut `connman.errors.GaveUp` down to the module it is in."""
    while name not in MODULES and "." in name:
        name = name.rpartition(".")[0]
    return name


def is_top(name: str, top: str) -> bool:
    return name == top or name.startswith(top + ".")


def complain(offences: Iterable[str], rule: str) -> None:
    found = [offence for offence in offences if offence]
    if found:
        pytest.fail(f"{rule}:\n  " + "\n  ".join(found), pytrace=False)


# Imports


def test_imports_point_down() -> None:
    def offences() -> Iterator[str]:
        for source in SOURCES:
            floor = floor_name(source.module)
            if floor not in FLOOR_OF:
                yield f"{source}: `{floor}` has no floor yet, see FLOORS"
                continue
            for imported in source.imports:
                if imported.name.startswith("."):
                    yield f"{source}:{imported.line}: relative import"
                elif is_top(imported.name, "connman"):
                    other = floor_name(module_of(imported.name))
                    if FLOOR_OF.get(other, 0) > FLOOR_OF[floor]:
                        yield f"{source}:{imported.line}: {floor} imports {imported.name}, which is above it"

    complain(offences(), "imports point down only")


def test_no_import_cycle() -> None:
    graph = {
        source.module: {
            module_of(i.name) for i in source.imports if is_top(i.name, "connman") and not i.for_types_only
        }
        for source in SOURCES
    }
    # Take away what imports nothing that is left, until nothing can be taken: a cycle stays, and what imports it.
    while free := {m for m, others in graph.items() if not (others & graph.keys()) - {m}}:
        graph = {m: others for m, others in graph.items() if m not in free}
    complain(sorted(graph), "modules in an import cycle, or importing one")


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_library_is_imported_in_its_place_only(library: str) -> None:
    complain(
        (
            f"{source}:{imported.line}: imports {imported.name}"
            for source in SOURCES
            for imported in source.imports
            if is_top(imported.name, library) and not imported.for_types_only
            if not source.inner.startswith(ONLY_IN[library])
        ),
        f"{library} may be imported in {', '.join(ONLY_IN[library])} only",
    )


def test_a_function_imports_only_with_a_reason() -> None:
    complain(
        (
            f"{source}:{imported.line}: {imported.name}"
            for source in SOURCES
            for imported in source.imports
            if imported.in_function and "lazy:" not in source.comments.get(imported.line, "")
        ),
        "an import inside a function needs a comment on its line, `# lazy: …`",
    )


# What importing connman does

IMPORT_QUIETLY = """
import importlib, pkgutil, sys, threading

offences = []

def watched(make):
    def wrapper(*args, **kwargs):
        frame = sys._getframe(1)
        while frame and frame.f_code.co_name != "<module>":
            frame = frame.f_back
        # The innermost module being imported; a library's own lock has that library here.
        name = frame.f_globals.get("__name__", "") if frame else ""
        if name.split(".")[0] == "connman":
            offences.append(f"{name}:{frame.f_lineno} makes a lock, an event or a thread")
        return make(*args, **kwargs)
    return wrapper

def audit(event, args):
    if event == "socket.__new__" and not is_other:
        offences.append("a socket is made")

# Events, conditions, queues, futures and threads are made of these two.
threading.Lock, threading.RLock = watched(threading.Lock), watched(threading.RLock)
is_other = False
sys.addaudithook(audit)
import connman
if "urllib3" in sys.modules:
    offences.append("connman imports urllib3 by itself")
# It tries whether there is IPv6, with a socket, when it is imported: only whoever names an HTTP transport imports it.
is_other = True
try:
    import urllib3
except ModuleNotFoundError:
    pass
is_other = False
everything = [m.name for m in pkgutil.walk_packages(connman.__path__, "connman.") if "__main__" not in m.name]
for name in everything:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name.split(".")[0] == "connman":
            raise
if threading.active_count() != 1:
    offences.append(f"threads: {threading.enumerate()}")
print(*offences, sep="\\n")
"""

# CPU time: what others do on the machine meanwhile is not the import's.
TIMED_IMPORT = "import time; begin = time.process_time(); import connman; print(time.process_time() - begin)"


def python(program: str) -> str:
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, text=True, capture_output=True, check=False
    )
    if run.returncode:
        pytest.fail(run.stderr, pytrace=False)
    return run.stdout


def test_import_makes_no_thread_lock_or_socket() -> None:
    complain(python(IMPORT_QUIETLY).split("\n"), "connman is inert at import")


def test_import_is_quick() -> None:
    # The one time in this suite that is asserted: the packaging promise gives the number.
    # The best of several, and no further ones behind a good one.
    times: list[float] = []
    while len(times) < 5 and min(times, default=1.0) >= 0.2:
        times.append(float(python(TIMED_IMPORT)))
    print("import connman, in seconds:", times)
    assert min(times) < 0.2


# Sizes


def documentation_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    first = function.body[0]
    return (first.end_lineno or 0) - first.lineno + 1 if ast.get_docstring(function) else 0


def test_files_are_short() -> None:
    complain(
        (f"{source}: {len(source.lines)}" for source in SOURCES if len(source.lines) > 350),
        "files over 350 lines",
    )


def test_functions_are_short() -> None:
    def offences() -> Iterator[str]:
        for source in SOURCES:
            for function in source.functions:
                size = (function.end_lineno or 0) - function.lineno + 1 - documentation_lines(function)
                if size > 60:
                    yield f"{source}:{function.lineno}: {function.name}: {size}"

    complain(offences(), "functions over 60 lines")


def test_most_functions_are_very_short() -> None:
    bodies = [
        (function.end_lineno or 0) - function.body[0].lineno + 1 - documentation_lines(function)
        for source in SOURCES
        for function in source.functions
    ]
    assert not bodies or statistics.median(bodies) <= 8


# What is never written


def test_every_module_says_what_it_is() -> None:
    complain(
        (f"{source}" for source in SOURCES if not ast.get_docstring(source.tree)), "modules without docstring"
    )


def test_no_drawer_for_everything() -> None:
    drawers = {"utils", "util", "helpers", "helper", "common", "misc"}
    complain(
        (f"{source}" for source in SOURCES if drawers & set(source.module.split("."))),
        "name it by what it does",
    )


def test_nothing_sleeps() -> None:
    complain(
        (
            f"{path.relative_to(ROOT)}:{node.lineno}"
            for path in itertools.chain((ROOT / "connman").rglob("*.py"), (ROOT / "tests").rglob("*.py"))
            if "sleep" in (text := path.read_text(encoding="utf-8"))  # few do: parsing takes long
            for node in ast.walk(ast.parse(text))
            if (
                isinstance(node, ast.Attribute) and node.attr == "sleep" and ast.unparse(node) == "time.sleep"
            )
            or (
                isinstance(node, ast.ImportFrom)
                and node.module == "time"
                and "sleep" in [a.name for a in node.names]
            )
        ),
        "wait for a condition or for closing, never for time",
    )


def test_only_the_command_line_prints() -> None:
    complain(
        (
            f"{source}:{node.lineno}"
            for source in SOURCES
            if not source.inner.startswith(("cli/", "__main__"))
            for node in ast.walk(source.tree)
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "print"
        ),
        "print outside the cli",
    )


def catches_everything(handler: ast.ExceptHandler) -> bool:
    caught = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(kind is None or ast.unparse(kind) in ("Exception", "BaseException") for kind in caught)


def test_a_broad_except_says_why() -> None:
    reason = re.compile(r"top of a thread|user callback|user code|user's callback|user's code")
    complain(
        (
            f"{source}:{node.lineno}"
            for source in SOURCES
            for node in ast.walk(source.tree)
            if isinstance(node, ast.ExceptHandler) and catches_everything(node)
            if not any(
                reason.search(source.comments.get(line, "")) for line in (node.lineno - 1, node.lineno)
            )
        ),
        'a broad except needs a comment on its line or the one before: "top of a thread", "user callback", "user code"',
    )


# Tests and tracked files


def test_every_file_has_a_test_file_of_its_name() -> None:
    def offences() -> Iterator[str]:
        for source in SOURCES:
            path = source.path.relative_to(ROOT / "connman")
            name = path.stem.lstrip("_")
            if path.stem == "__main__" or (path.stem == "__init__" and not source.functions):
                continue  # nothing of its own to test
            test = Path("tests") / path.parent / f"test_{name.rstrip('_')}.py"
            if not (ROOT / test).exists():
                yield f"{source}: no {test}"

    complain(offences(), "tests/ mirrors connman/")


def test_no_file_names_a_path_of_a_machine() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    # In pieces, so that this file does not match itself.
    path = re.compile("/(wo" + "rk|fa" + r"rm)/|/ro" + r"ot\b|/\.pye" + "nv/versions")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.split(
        "\0"
    )
    texts = (
        (n, (ROOT / n).read_text(encoding="utf-8", errors="replace")) for n in names if (ROOT / n).is_file()
    )
    complain(
        (f"{name}: {found[0]}" for name, text in texts if (found := path.search(text))),
        "paths of one machine",
    )


# The public surface


def public() -> Iterator[tuple[str, Any]]:
    """Walk `connman.__all__`, that of every public module in it, and what is imported by a name of its own."""
    modules = [connman, connman.testing, connman.cli, connman.integrations.pusher]
    for module in modules:  # grows
        for name in getattr(module, "__all__", ()):
            thing = getattr(module, name)
            if inspect.ismodule(thing):
                modules.append(thing)
            else:
                yield f"{module.__name__}.{name}", thing


def is_value(kind: type) -> bool:
    """Values hold no state that two threads could change: errors, enums, tuples, frozen records, protocols."""
    parameters = getattr(kind, "__dataclass_params__", None)
    return (
        issubclass(kind, BaseException | enum.Enum | tuple)
        or (parameters is not None and parameters.frozen)
        or getattr(kind, "_is_protocol", False)
    )


def methods(kind: type) -> Iterator[tuple[str, Any]]:
    ours = (base for base in kind.__mro__ if base.__module__.split(".")[0] == "connman")
    for name in {name for base in ours for name in vars(base) if not name.startswith("_")}:
        member = inspect.getattr_static(kind, name)
        if isinstance(member, staticmethod | classmethod):
            member = member.__func__
        if isinstance(member, types.FunctionType | property):
            yield name, member


def docstring_faults(thing: Any, *, imperative: bool, threads: bool) -> Iterator[str]:
    text = inspect.getdoc(thing)
    if not text:
        yield "no docstring"
        return
    first = text.split(maxsplit=1)[0]
    third_person = re.fullmatch(r"[A-Z][a-z]+s", first) and not first.endswith("ss")
    if imperative and (
        third_person or first.endswith("ing") or not first[:1].isupper() or first in NOT_VERBS
    ):
        yield f"does not begin with an imperative: {first}"
    if threads and not re.search(r"^\s*Threads: \S", text, re.MULTILINE):
        yield "no line that begins with `Threads:`"


NOT_VERBS = {"A", "An", "The", "This", "That", "It", "If", "When", "Whether", "True", "None", "Same", "Alias"}


def test_every_public_callable_is_documented() -> None:
    def offences() -> Iterator[str]:
        for name, thing in public():
            if inspect.isclass(thing):
                shared = not is_value(thing)
                yield from (f"{name}: {f}" for f in docstring_faults(thing, imperative=False, threads=shared))
                for method, member in sorted(methods(thing), key=lambda item: item[0]):
                    verb = not isinstance(member, property)
                    faults = docstring_faults(member, imperative=verb, threads=verb and shared)
                    yield from (f"{name}.{method}: {fault}" for fault in faults)
            elif inspect.isfunction(thing):
                yield from (f"{name}: {f}" for f in docstring_faults(thing, imperative=True, threads=True))

    complain(offences(), "docstrings that do not say what they owe")


def test_the_public_surface_is_named() -> None:
    missing = [name for name in connman.__all__ if not hasattr(connman, name)]
    assert len(connman.__all__) == len(set(connman.__all__))
    assert not missing


def test_every_public_name_is_used_where_types_are_checked() -> None:
    tree = ast.parse((ROOT / "tests" / "typed" / "public_surface.py").read_text(encoding="utf-8"))
    used = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    wanted = {
        f"{module}.{name}"
        for module, names in (
            ("connman", connman.__all__),
            ("errors", errors.__all__),
            ("testing", connman.testing.__all__),
            ("pusher", connman.integrations.pusher.__all__),
            ("connman.rpc", connman.rpc.__all__),
            ("connman.relay", connman.relay.__all__),
        )
        for name in names
        if name != "errors"
    }
    complain(sorted(wanted - used), "names that tests/typed/public_surface.py does not use")


def test_every_error_is_named() -> None:
    kinds = {
        name
        for name, thing in vars(errors).items()
        if inspect.isclass(thing) and thing.__module__ == errors.__name__
    }
    assert {name for name in kinds if not name.startswith("_")} <= set(errors.__all__)
