"""Facts about the house itself: who imports whom, what an import brings along, what no module may reach for.

Rule 1 is checked on the syntax tree, with names followed to where they were imported from: comments and docstrings may
speak of the clock, and `from time import monotonic as now` hides nothing.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest

import ropewalk

CHECKOUT = Path(__file__).resolve().parent.parent
SOURCE = CHECKOUT / "src" / "ropewalk"
MODULES = sorted(path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.py"))

# -- imports


def test_imports_run_one_way_through_the_house():
    if importlib.util.find_spec("importlinter") is None:
        pytest.skip("import-linter is not installed; it comes with ropewalk[dev]")

    python("import sys, importlinter.cli as cli; sys.exit(cli.lint_imports(no_cache=True))")


def test_importing_ropewalk_loads_no_reactor_no_web_stack_and_no_database():
    heavy = ["twisted.internet.reactor", "klein", "treq", "txredisapi", "sqlalchemy", "alembic", "jinja2", "click"]

    loaded = python(f"import sys, ropewalk; print(*[name for name in {heavy} if name in sys.modules])")

    assert [] == loaded.split()


def test_loading_the_dropins_and_the_command_line_chooses_no_reactor():
    dropins = sorted(path.stem for path in (CHECKOUT / "twisted" / "plugins").glob("ropewalk_*.py"))
    names = [f"twisted.plugins.{name}" for name in dropins] + ["ropewalk.cli"] * ("cli/__init__.py" in MODULES)

    loaded = python(
        f"import sys; [__import__(name) for name in {names}]; print('twisted.internet.reactor' in sys.modules)"
    )

    assert "False" == loaded.strip()


# -- words


def test_every_public_name_is_documented():
    said_below = {name for module in MODULES for name in names_with_a_docstring_below(tree_of(module))}

    bare = [name for name in ropewalk.__all__ if not own_docstring(getattr(ropewalk, name)) and name not in said_below]

    assert [] == bare


def test_the_examples_in_docstrings_are_true():
    names = [dotted_name(module) for module in MODULES if ">>> " in (SOURCE / module).read_text()]

    # In a process of their own: an example may define an error, and errors are known by name everywhere.
    python(
        "import doctest, importlib, sys\n"
        f"untrue = [name for name in {names} if doctest.testmod(importlib.import_module(name)).failed]\n"
        "sys.exit(f'untrue: {untrue}' if untrue else 0)"
    )


def test_the_command_the_readme_gives_for_the_tests_is_the_one_that_runs_here():
    command = "python3 -m venv .venv && .venv/bin/pip install -qe '.[test]' && .venv/bin/pytest"

    assert command in (CHECKOUT / "README.rst").read_text()
    assert command in (CHECKOUT / ".ci" / "run").read_text()


# -- rule 1: time, chance, I/O and identity are arguments

REACHED_FOR = (
    "time.time", "time.time_ns", "time.monotonic", "time.monotonic_ns", "time.perf_counter", "time.perf_counter_ns",
    "time.process_time", "time.process_time_ns", "time.sleep", "time.localtime", "time.gmtime", "time.ctime",
    "datetime.datetime.now", "datetime.datetime.utcnow", "datetime.datetime.today", "datetime.date.today",
    "uuid.uuid1", "uuid.uuid4", "uuid.uuid6", "uuid.uuid7", "uuid.getnode",
    "random.[a-z]*", "random.SystemRandom", "secrets.*", "os.urandom", "os.getrandom",
)  # fmt: skip
IMPORTED = ("threading", "threading.*", "_thread", "_thread.*", "twisted.internet.reactor")

FREE = ("runtime/", "engine/")  # the rooms whose work it is to hold the real clock, chance and reactor
GOVERNED = [module for module in MODULES if not module.startswith(FREE)]

# (module, name) -> why it may all the same. An entry that is no longer needed fails, too.
ALLOWED = {
    (
        "driver.py",
        "twisted.internet.reactor",
    ): "Driver.of, given no reactor, takes the installed one; never in an operation",
    ("reactor_loop.py", "threading"): "what a thread is in is asked of it; none is started, and nobody waits",
    ("store/commits.py", "threading.Lock"): "it has the threads of those stores that have any; a World's has none",
    ("testing/guards.py", "threading"): "it closes these ways, and must know in which thread",
    ("testing/guards.py", "time.gmtime"): "likewise: what it answers is of the simulated time",
    ("testing/waiting.py", "twisted.internet.reactor"): "waits on the real reactor, for tests of real processes",
    ("testing/systems.py", "twisted.internet.reactor"): "likewise: it is the real system, in one process or in many",
    ("testing/systems.py", "time.time"): "likewise",
}

# Whoever imports klein or txredisapi has chosen a reactor: both import the global one at their top.
IMPORTED_LATE = ("klein", "klein.*", "txredisapi", "txredisapi.*", "twisted.internet.reactor")

# module -> why it may import klein at its top all the same
ALLOWED_EARLY = {
    "http/server.py": "operations become Klein's routes; the runtime loads this once its reactor is installed",
    "http/surface.py": "likewise",
}


@pytest.mark.parametrize("module", GOVERNED)
def test_time_chance_identity_threads_and_the_reactor_are_arguments(module):
    reached = [(line, name) for line, name in reached_by(module) if (module, name) not in ALLOWED]

    assert [] == reached


@pytest.mark.parametrize("module", MODULES)
def test_what_chooses_a_reactor_is_imported_late(module):
    early = list(early_imports(tree_of(module)))
    if module in ALLOWED_EARLY or module.startswith(FREE):
        early = [(line, name) for line, name in early if name == "twisted.internet.reactor"]

    assert [] == early


def test_every_exception_is_still_needed():
    needed = {(module, name) for module in GOVERNED for _, name in reached_by(module)}
    needed_early = {module for module in GOVERNED if list(early_imports(tree_of(module)))}

    assert (set(), set()) == (set(ALLOWED) - needed, set(ALLOWED_EARLY) - needed_early)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import time\ntime.time()", [(2, "time.time")]),
        ("from time import monotonic as now\nnow()", [(2, "time.monotonic")]),
        ("from datetime import datetime\ndatetime.now()", [(2, "datetime.datetime.now")]),
        ("import datetime as d\nd.datetime.utcnow()", [(2, "datetime.datetime.utcnow")]),
        ("from uuid import UUID, uuid4\nmake = uuid4", [(2, "uuid.uuid4")]),
        ("import random\nrandom.choice([1])", [(2, "random.choice")]),
        ("import random\ndef f(random=random.Random()): pass", [(2, "random.Random()")]),
        ("from random import Random\nRandom()", [(2, "random.Random()")]),
        ("import os\nos.urandom(8)", [(2, "os.urandom")]),
        ("def f():\n    import secrets\n    return secrets.token_hex()", [(3, "secrets.token_hex")]),
        ("from threading import Lock\nLock()", [(1, "threading.Lock")]),
        ("import threading as t\nt.get_ident()", [(1, "threading")]),
        ("def f():\n    from twisted.internet import reactor", [(2, "twisted.internet.reactor")]),
        ("import twisted.internet.reactor", [(1, "twisted.internet.reactor")]),
        ("import random\ndef f(random: random.Random): return random.random()", []),
        ("import random\ndef f(self):\n    random = self.random\n    return lambda: random.random()", []),
        ("from random import Random\nRandom(7)", []),
        ("'Never time.time().'\nimport time  # time.time()", []),
        ("if TYPE_CHECKING:\n    import threading", []),
    ],
)
def test_the_check_of_rule_one_finds_what_it_should_and_nothing_else(code, expected):
    assert expected == list(reaches(ast.parse(code)))


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("from klein import Klein", [(1, "klein.Klein")]),
        ("from twisted.internet import defer, reactor", [(1, "twisted.internet.reactor")]),
        ("try:\n    import txredisapi\nexcept ImportError: pass", [(2, "txredisapi")]),
        ("class A:\n    import klein", [(2, "klein")]),
        ("def f():\n    import klein", []),
        ("import typing\nif typing.TYPE_CHECKING:\n    from klein import Klein", []),
    ],
)
def test_an_import_is_early_unless_a_function_or_a_type_checker_makes_it(code, expected):
    assert expected == list(early_imports(ast.parse(code)))


# -- how it is found out

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


def python(code: str) -> str:
    """What `code` prints in a fresh interpreter, where a warning is an error."""
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert 0 == done.returncode, done.stdout + done.stderr
    return done.stdout


def dotted_name(module: str) -> str:
    return ".".join(["ropewalk", *module.removesuffix(".py").split("/")]).removesuffix(".__init__")


def own_docstring(thing: object) -> str | None:
    """The docstring said of this class or function; None for what has only that of its base, or of its type."""
    return thing.__dict__.get("__doc__") if inspect.isclass(thing) else inspect.isroutine(thing) and thing.__doc__


def names_with_a_docstring_below(tree: ast.Module) -> Iterator[str]:
    """The names that are assigned at the top of a module and followed by a string that says what they are."""
    for statement, below in pairwise(tree.body):
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) and isinstance(below.value.value, str):
            targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
            yield from (target.id for target in targets if isinstance(target, ast.Name))


def tree_of(module: str) -> ast.Module:
    return ast.parse((SOURCE / module).read_text(), module)


def matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def children(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes right below `node` that are there when the program runs: nothing that stands under TYPE_CHECKING."""
    if isinstance(node, ast.If) and ast.unparse(node.test).removeprefix("typing.") == "TYPE_CHECKING":
        yield from node.orelse
    else:
        yield from ast.iter_child_nodes(node)


def descendants(node: ast.AST) -> Iterator[ast.AST]:
    for child in children(node):
        yield child
        yield from descendants(child)


def imports(node: ast.AST) -> Iterator[tuple[str, str, str]]:
    """(what is imported, the name it gets here, what that name stands for) by an import statement; else nothing."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            top = alias.name.partition(".")[0]
            yield (alias.name, alias.asname, alias.name) if alias.asname else (alias.name, top, top)
    elif isinstance(node, ast.ImportFrom) and not node.level:
        for alias in node.names:
            name = f"{node.module}.{alias.name}"
            yield name, alias.asname or alias.name, name


def early_imports(node: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, name) of every import listed in IMPORTED_LATE that runs when the module is imported."""
    for child in children(node):
        if not isinstance(child, FUNCTIONS):
            yield from ((child.lineno, name) for name, _, _ in imports(child) if matches(name, IMPORTED_LATE))
            yield from early_imports(child)


@cache
def reached_by(module: str) -> list[tuple[int, str]]:
    """What `reaches` finds in it."""
    return list(reaches(tree_of(module)))


def reaches(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, name) wherever the module imports what IMPORTED lists or says what REACHED_FOR lists."""
    meaning = {here: origin for node in descendants(tree) for _, here, origin in imports(node)}

    def origin(node: ast.AST, hidden: frozenset[str]) -> str | None:
        if isinstance(node, ast.Name) and node.id not in hidden:
            return meaning.get(node.id)
        if isinstance(node, ast.Attribute) and (owner := origin(node.value, hidden)):
            return f"{owner}.{node.attr}"
        return None

    def visit(node: ast.AST, hidden: frozenset[str]) -> Iterator[tuple[int, str]]:
        yield from ((node.lineno, name) for name, _, _ in imports(node) if matches(name, IMPORTED))
        name = origin(node, hidden)
        if name and matches(name, REACHED_FOR):
            yield node.lineno, name
        if isinstance(node, ast.Call) and not node.args and origin(node.func, hidden) == "random.Random":
            yield node.lineno, "random.Random()"  # without a seed it asks the operating system for one
        for child in children(node):
            yield from visit(child, hidden | own_names(node) if child in body_of(node) else hidden)

    return visit(tree, frozenset())


def body_of(node: ast.AST) -> list[ast.AST]:
    """What runs when the function is called; nothing for another node, or for its defaults and decorators."""
    return ([node.body] if isinstance(node, ast.Lambda) else list(node.body)) if isinstance(node, FUNCTIONS) else []


def own_names(function: ast.AST) -> frozenset[str]:
    """The names a function gives a meaning of its own: its parameters and what it assigns."""
    return frozenset(
        node.arg if isinstance(node, ast.arg) else node.id
        for node in descendants(function)
        if isinstance(node, ast.arg) or (isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store))
    )
