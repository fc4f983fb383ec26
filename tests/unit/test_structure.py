"""The house's own rules, read from its source: who may import whom, what is pure, what is small."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import Iterator

import pytest

import rango_gevent

PACKAGE = Path(str(rango_gevent.__file__)).parent
SCRIPTS = PACKAGE.parent / "scripts"
BENCH = "bench"  # a room outside of the package: nobody in there may know it


def base(module: str) -> Path:
    """Return the directory that a module's name begins in."""
    return SCRIPTS if room(module) == BENCH else PACKAGE


def room(module: str) -> str:
    """Return the room that a module is in."""
    return module.split(".")[0]


MODULES = sorted(
    ".".join(path.relative_to(root).with_suffix("").parts)
    for root, top in ((PACKAGE, PACKAGE), (SCRIPTS, SCRIPTS / BENCH))
    for path in top.rglob("*.py")
)
modules = pytest.mark.parametrize("module", MODULES)

# Room (a folder, or a module of its own) to the rooms that it may import: downwards only.
MAY_IMPORT: dict[str, set[str]] = {
    "__init__": set(),
    "__main__": {"cli"},
    BENCH: {
        "commands", "environment", "settings", "auth", "publisher", "urls", "errors", "__init__",
    },
    "cli": {"commands", "environment", "errors", "__init__"},
    "gunicorn_hooks": {"server", "environment", "logs", "settings", "errors"},
    "commands": {
        "server", "access", "bounds", "gateway", "client", "publisher", "demo", "marketdata", "remote",
        "source", "broker", "parsers", "environment", "settings", "logs", "auth", "protocol", "turns",
        "urls", "errors", "alerts", "kafka_source", "__init__",
    },
    "wsgi": {"gateway", "server", "environment", "logs", "errors"},
    "gateway": {
        "access", "admin", "bounds", "dialects", "kafka_source", "delivery", "source", "urls", "metrics",
        "throttle", "scrape", "server", "settings",
        "hub", "auth", "protocol", "errors", "alerts", "incidents", "__init__",
    },
    "bounds": {"admin", "delivery", "hub", "source", "kafka_url", "settings", "protocol"},
    "kafka_source": {"bounds", "settings", "source", "errors"},
    "kafka_url": {"parsers"},
    "alerts": {"settings", "logs", "incidents", "urls", "errors"},
    "access": {
        "server", "delivery", "remote", "settings", "throttle", "auth", "protocol", "metrics",
    },
    # it is handed a gateway, as the server is
    "admin": {"delivery", "hub", "auth", "protocol", "model", "throttle", "turns", "errors"},
    "dialects": {
        "access", "viabtc", "rpc", "remote", "delivery", "hub", "auth", "settings", "errors",
    },
    # imported only where they are switched on
    "viabtc": {
        "rpc", "remote", "delivery", "hub", "auth", "protocol", "model", "throttle", "turns",
        "errors",
    },
    "rpc": {"remote", "source", "broker", "backoff", "throttle", "urls", "errors"},
    "remote": {"auth", "throttle", "errors"},
    # it is handed a gateway, and never knows how one is built
    "server": {
        "environment", "scrape", "logs", "throttle", "auth", "delivery", "protocol", "turns",
        "alerts", "incidents", "errors",
    },
    "environment": {"settings", "auth", "errors"},
    # delivery and source do not know each other, and nobody down here reads settings
    "delivery": {"hub", "auth", "protocol", "model", "turns", "errors"},
    "source": {"backoff", "broker", "incidents", "kafka_url", "model", "protocol", "throttle", "turns", "urls"},
    "marketdata": {"publisher", "source", "throttle", "urls", "errors"},
    "demo": {"marketdata"},
    "client": {"backoff", "protocol", "errors"},
    "publisher": {"backoff", "broker", "throttle", "protocol", "urls", "errors"},
    "settings": {"auth", "kafka_url", "parsers", "urls", "errors"},
    "hub": {"protocol", "model", "errors"},
    "auth": {"errors"},
    "protocol": {"errors"},
    "metrics": set(),
    "scrape": set(),
    "logs": set(),
    "incidents": set(),
    "turns": set(),
    "model": set(),
    "throttle": set(),
    "backoff": set(),
    "broker": set(),
    "parsers": set(),
    "urls": set(),
    "errors": set(),
}  # fmt: skip

# Pure: what they need of clock, sockets, environment and randomness comes in as arguments.
PURE = re.compile(
    r"(protocol|auth|hub|demo)(\..*)?|admin\.(merging|rates|requests|tape)|alerts\.(letter|tally)|kafka_url|model|settings(\..*)?|errors|parsers|urls|backoff"
    r"|bench\.(messages|report|scenarios)|commands\.(findings|ladder|load_figures|rates)|source\.(base|bindings|kafka\.keys)|source\.amqp\.(topology|decoder|chain)"
    r"|source\.amqp\.standby"
    r"|client\.(asking|buffers|coming_back|core|held|limiter|link|matching|model|moving|orderbook|plan|pool)"
    r"|marketdata\.(announcer|candles|desk|market|memory|periods|queries|trades|views)"
    r"|client\.(renewal|sinks|wanted|wire)|delivery\.(admission|bundle|encoding|login|outbox|outlet|resuming|session)"
    r"|publisher\.(body|frames)|rpc\.errors|server\.(paths|handshake)"
    r"|viabtc\.(depth|feeds|methods|names|shapes|userfeeds|views|words)"
)
IMPURE_IMPORTS = {
    "_socket", "amqp", "asyncio", "datetime", "fcntl", "gc", "gevent", "geventwebsocket", "gunicorn",
    "http", "io", "kombu", "logging", "multiprocessing", "os", "pathlib", "prometheus_client",
    "queue", "random", "secrets", "select", "selectors", "shutil", "signal", "socket", "ssl",
    "subprocess", "sys", "tempfile", "threading", "time", "uuid",
}  # fmt: skip
IMPURE_CALLS = {"open", "print", "input", "breakpoint", "exec", "eval", "__import__"}
ALLOWED_IN_PURE = {
    # values that describe what is declared, and an error's class
    # for its type: the caller makes one
    **{
        module: {"random": {"Random"}}
        for module in ("backoff", "bench.messages", "client.core", "client.link", "client.renewal")
    },
    # a form for a time that it is given
    "alerts.letter": {"time": {"gmtime", "strftime"}},
    "source.amqp.topology": {"kombu.entity": {"Exchange", "Queue"}},
    "source.amqp.decoder": {"amqp.exceptions": {"UnexpectedFrame"}},
    # a generator of numbers that its caller has seeded, and a form for numbers that it made
    **{
        module: {"random": {"Random"}, "uuid": {"UUID"}}
        for module in MODULES
        if module.startswith("demo.")
    },
}

MAX_FUNCTION_LINES = 60
MAX_MODULE_LINES = 450
# Longer than a head can hold at once, each for one reason; the number is what it may not pass.
LONG_MODULES = {
    "settings.table": 1000,  # one table with a row for each setting
    "bench.scenarios": 520,  # one table with a row for each scenario
}


@cache
def source(module: str) -> str:
    """Return a module's text."""
    return base(module).joinpath(*module.split(".")).with_suffix(".py").read_text("utf-8")


@cache
def tree(module: str) -> ast.Module:
    """Return a module's tree, read as the oldest Python reads it that must run it."""
    return ast.parse(source(module), feature_version=(3, 9))


def is_for_types_only(node: ast.AST) -> bool:
    """Tell whether this is a block that never runs."""
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def walk(node: ast.AST) -> Iterator[ast.AST]:
    """Yield all nodes that can run."""
    for child in ast.iter_child_nodes(node):
        if is_for_types_only(child):
            continue
        yield child
        yield from walk(child)


@cache
def imports(module: str) -> list[tuple[str, set[str]]]:
    """Return what a module imports at run time: modules, and the names taken from each."""
    found: list[tuple[str, set[str]]] = []
    for node in walk(tree(module)):
        if isinstance(node, ast.Import):
            found += [(alias.name, set()) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports are absolute"
            found.append((node.module or "", {alias.name for alias in node.names}))
    return found


@cache
def own_imports(module: str) -> set[str]:
    """Return the modules of this project that a module imports at run time."""
    found: set[str] = set()
    for name, taken in imports(module):
        if room(name) not in ("rango_gevent", BENCH):
            continue
        inside = name if room(name) == BENCH else name.partition(".")[2]
        for word in taken or {""}:
            full = ".".join(part for part in (inside, word) if part)
            found.add(full if full in MODULES else inside or "__init__")
    return {name if name in MODULES else f"{name}.__init__" for name in found}


# -- who imports whom -----------------------------------------------------------------------------


def test_every_room_is_in_the_table() -> None:
    """A new room needs a place in the order, and one that is gone needs none."""
    assert {room(module) for module in MODULES} == set(MAY_IMPORT)


def test_the_table_leads_downwards() -> None:
    """Taken by itself it has no way back to where one came from."""
    left = {name: set(below) for name, below in MAY_IMPORT.items()}
    while left:
        lowest = {name for name, below in left.items() if not below & left.keys()}
        assert lowest, f"a circle among {sorted(left)}"
        left = {name: below for name, below in left.items() if name not in lowest}


def test_the_table_has_no_edge_that_is_not_used() -> None:
    """It tells what is, not what might be one day."""
    used: dict[str, set[str]] = {name: {name} for name in MAY_IMPORT}
    for module in MODULES:
        used[room(module)] |= {room(name) for name in own_imports(module)}
    unused = {name: below - used[name] for name, below in MAY_IMPORT.items()}
    assert not {name: below for name, below in unused.items() if below}


@modules
def test_a_module_imports_what_its_room_may(module: str) -> None:
    """Downwards, or within the room."""
    allowed = MAY_IMPORT[room(module)] | {room(module)}
    assert {room(name) for name in own_imports(module)} <= allowed


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Nor do modules of one room; a reader can begin at the bottom."""
    left = {module: own_imports(module) - {module} for module in MODULES}
    while left:
        lowest = {name for name, below in left.items() if not below & left.keys()}
        assert lowest, f"a circle among {sorted(left)}"
        left = {name: below for name, below in left.items() if name not in lowest}


def test_what_only_some_may_know() -> None:
    """Settings are read at the top, metrics and logs set up there; rooms get plain values."""
    below = {
        "delivery",
        "source",
        "hub",
        "auth",
        "protocol",
        "client",
        "publisher",
        "demo",
        "marketdata",
    }
    for module in MODULES:
        if room(module) in below:
            known = {room(name) for name in own_imports(module)}
            assert not known & {"settings", "environment", "gateway", "metrics", "scrape", "logs"}


# -- what is pure ---------------------------------------------------------------------------------

pure_modules = pytest.mark.parametrize(
    "module", [module for module in MODULES if PURE.fullmatch(module)]
)


@modules
def test_what_is_said_to_be_pure_is_looked_at(module: str) -> None:
    """A docstring's word is worth something only where the tests below hold it."""
    said = ast.get_docstring(tree(module)) or ""
    assert not re.search(r"\bPure[.,:]", said) or PURE.fullmatch(module)


@pure_modules
def test_a_pure_module_imports_nothing_that_acts(module: str) -> None:
    """No sockets, no clock, no environment, no randomness; but for a few named values."""
    allowed = ALLOWED_IN_PURE.get(module, {})
    for name, taken in imports(module):
        if name.split(".")[0] not in IMPURE_IMPORTS:
            continue
        used = taken or attributes_of(module, name)
        assert used <= allowed.get(name, set()), f"{module} takes {sorted(used)} from {name}"


def attributes_of(module: str, name: str) -> set[str]:
    """Return what a module uses of another that it imports as a whole."""
    used = {
        node.attr
        for node in walk(tree(module))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == name
    }
    return used or {"*"}


@pure_modules
def test_a_pure_module_calls_nothing_that_acts(module: str) -> None:
    """Nor the few functions that need no import."""
    called = {
        node.func.id
        for node in walk(tree(module))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not called & IMPURE_CALLS


@pure_modules
def test_a_pure_module_stays_among_its_like(module: str) -> None:
    """What it imports of this package is pure as well."""
    assert all(PURE.fullmatch(name) for name in own_imports(module))


# -- the map --------------------------------------------------------------------------------------

ROOT = PACKAGE.parent
ROOMS = sorted(set(MAY_IMPORT) - {"__init__", BENCH})


def file_of(name: str) -> str:
    """Return a room as people call it: a folder, or a module."""
    return f"{name}/" if (PACKAGE / name).is_dir() else f"{name}.py"


def purity(name: str) -> str:
    """Return what docs/ARCHITECTURE.md has to say of a room."""
    inside = [module for module in MODULES if room(module) == name and "__init__" not in module]
    pure = sum(PURE.fullmatch(module) is not None for module in inside)
    return "yes" if pure == len(inside) else "in part" if pure else "no"


@pytest.mark.parametrize("name", ROOMS)
def test_the_map_has_every_room(name: str) -> None:
    """docs/ARCHITECTURE.md says of each what lives there and whether it is pure."""
    text = ROOT.joinpath("docs", "ARCHITECTURE.md").read_text()
    row = re.search(rf"^\| ([^|]*`{re.escape(file_of(name))}`[^|]*) \| ([^|]*) \|", text, re.M)
    assert row is not None
    rooms, said = row[1].split(", "), row[2].split(", ")
    told = dict(zip(rooms, said if len(said) > 1 else said * len(rooms)))
    assert told[f"`{file_of(name)}`"] == purity(name)


@pytest.mark.parametrize("name", [name for name in ROOMS if name != "__main__"])
def test_the_readme_has_every_room(name: str) -> None:
    """Its section Inside is the same map at a glance."""
    inside = ROOT.joinpath("README.md").read_text().partition("\n## Inside\n")[2]
    assert re.search(rf"  {re.escape(file_of(name))} ", inside.partition("\n## ")[0])


# -- what is readable -----------------------------------------------------------------------------


@modules
def test_a_module_says_what_lives_there(module: str) -> None:
    """In a docstring that is the first thing in it."""
    assert ast.get_docstring(tree(module)), "a docstring comes first"


@modules
def test_annotations_are_never_evaluated(module: str) -> None:
    """They are written in newer forms than the oldest Python that runs them could take."""
    annotated = any(
        isinstance(node, (ast.FunctionDef, ast.AnnAssign, ast.ClassDef))
        for node in walk(tree(module))
    )
    names = {name for line, taken in imports(module) if line == "__future__" for name in taken}
    assert not annotated or "annotations" in names


@modules
def test_functions_are_short(module: str) -> None:
    """Mostly under ten lines, and never past a screen."""
    for node in ast.walk(tree(module)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            lines = (node.end_lineno or 0) - node.lineno + 1
            assert lines <= MAX_FUNCTION_LINES, f"{node.name} has {lines} lines"


@modules
def test_modules_fit_in_a_head(module: str) -> None:
    """But for a few, each for its reason."""
    lines = source(module).count("\n")
    assert lines <= LONG_MODULES.get(module, MAX_MODULE_LINES)


@pytest.mark.parametrize("module", LONG_MODULES)
def test_a_long_module_is_still_long(module: str) -> None:
    """One that was split needs its exception no more."""
    assert source(module).count("\n") > MAX_MODULE_LINES
