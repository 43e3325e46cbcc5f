"""Log lines of the package: each has an event, and docs/reference/log-events.md has its levels and fields."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reference" / "log-events.md"
LEVELS = ["debug", "info", "warning", "error", "critical"]
METHODS = {level: level for level in LEVELS} | {"exception": "error"}
LOGS = "fundledger/app/console/logs.py"
"""The module that configures loggers. It creates log records directly, by `_record(level, message, extra)`."""
NOT_SHOWN = {"event", "once"}


class Line(NamedTuple):
    """A call that logs. `events`, `levels` and `fields` have each value that the call may use."""

    place: str
    events: frozenset[str]
    levels: frozenset[str]
    fields: frozenset[str]


# --- Reading the code -----------------------------------------------------------------------------------------------


class Scope(NamedTuple):
    """The statements of the innermost function around a call."""

    function: ast.AST
    line: int

    def value(self, node: ast.expr) -> ast.expr:
        """Return the value of a name at its last assignment before the call, and other expressions unchanged."""
        if not isinstance(node, ast.Name):
            return node
        found = [
            statement
            for statement in ast.walk(self.function)
            if isinstance(statement, ast.Assign | ast.AnnAssign) and statement.lineno < self.line
            for target in (statement.targets if isinstance(statement, ast.Assign) else [statement.target])
            if isinstance(target, ast.Name) and target.id == node.id and statement.value is not None
        ]
        values = [one.value for one in sorted(found, key=lambda one: one.lineno) if one.value is not None]
        return values[-1] if values else node

    def members(self, node: ast.expr) -> Iterator[tuple[ast.expr | None, ast.expr]]:
        """Yield keys and values of a dict display, also of those that it unpacks."""
        node = self.value(node)
        for key, value in zip(node.keys, node.values, strict=True) if isinstance(node, ast.Dict) else ():
            if key is None:
                yield from self.members(value)
            else:
                yield key, value

    def texts(self, node: ast.expr) -> frozenset[str]:
        """Return the strings and the `logging.LEVEL` of an expression, in lower case."""
        found = set()
        for one in ast.walk(self.value(node)):
            if isinstance(one, ast.Constant) and isinstance(one.value, str):
                found.add(one.value)
            elif isinstance(one, ast.Attribute) and one.attr.isupper():
                found.add(one.attr.lower())
        return frozenset(found)


def lines_of(name: str, source: str) -> Iterator[Line]:
    """Yield the calls of a module that log."""
    tree = ast.parse(source)
    for function, call in calls(tree, tree):
        scope = Scope(function, call.lineno)
        if isinstance(call.func, ast.Attribute) and is_log(call.func.value):
            extra = next((keyword.value for keyword in call.keywords if keyword.arg == "extra"), ast.Dict([], []))
            method = call.func.attr
            levels = scope.texts(call.args[0]) if method == "log" else frozenset({METHODS[method]})
        elif name == LOGS and isinstance(call.func, ast.Name) and call.func.id == "_record":
            levels, extra = scope.texts(call.args[0]), call.args[2]
        else:
            continue
        members = {key.value: value for key, value in scope.members(extra) if isinstance(key, ast.Constant)}
        events = scope.texts(members["event"]) if "event" in members else frozenset()
        yield Line(f"{name}:{call.lineno}", events, levels, frozenset(map(str, members)) - NOT_SHOWN)


def calls(node: ast.AST, function: ast.AST) -> Iterator[tuple[ast.AST, ast.Call]]:
    """Yield each call below a node, with the innermost function around it."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Call):
            yield function, child
        yield from calls(child, child if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) else function)


def is_log(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id == "_log"


def other_uses(source: str) -> list[int]:
    """Return the lines that log otherwise than by a method of the module's `_log`, or define `_log` without need."""
    nodes = list(ast.walk(ast.parse(source)))
    made = [node.value for node in nodes if isinstance(node, ast.Assign) and is_log(node.targets[0])]
    methods = [node.func for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]
    called = [method.value for method in methods if is_log(method.value)]
    loads = [node for node in nodes if isinstance(node, ast.Name) and is_log(node) and isinstance(node.ctx, ast.Load)]
    gets = [method for method in methods if method.attr == "getLogger"]
    of_logging = [method for method in methods if method.attr in METHODS and ast.unparse(method.value) == "logging"]
    found: list[ast.expr] = [*of_logging, *(node for node in loads if node not in called)]
    found += [method for method in gets if not any(isinstance(one, ast.Call) and one.func is method for one in made)]
    return [node.lineno for node in (found if called or not made else [*found, *made])]


def modules() -> dict[str, str]:
    return {str(path.relative_to(ROOT)): path.read_text() for path in sorted((ROOT / "fundledger").rglob("*.py"))}


LINES = [line for name, source in modules().items() for line in lines_of(name, source)]


# --- The page -------------------------------------------------------------------------------------------------------


def rows(first_column: str) -> list[list[str]]:
    """Return the cells of all tables of the page whose header begins with this name."""
    found: list[list[str]] = []
    inside = False
    for line in PAGE.read_text().splitlines():
        inside = line.startswith("|") and (inside or line.startswith(f"| {first_column} |"))
        if inside and line.startswith("| `"):
            found.append([cell.strip() for cell in line.strip("|").split(" | ")])
    return found


# --- Tests ----------------------------------------------------------------------------------------------------------


def test_every_log_line_has_an_event() -> None:
    assert len(LINES) > 90
    assert [line.place for line in LINES if not line.events or not line.levels] == []


def test_every_line_is_logged_by_the_logger_of_its_module() -> None:
    found = {name: other_uses(source) for name, source in modules().items() if name != LOGS}
    assert {name: lines for name, lines in found.items() if lines} == {}


def test_every_event_is_on_the_page_with_its_levels() -> None:
    levels: dict[str, set[str]] = {}
    for line in LINES:
        for event in line.events:
            levels.setdefault(event, set()).update(line.levels)
    expected = {f"`{event}`": ", ".join(sorted(of, key=LEVELS.index)) for event, of in levels.items()}
    assert {event: level for event, level, _, _ in rows("Event")} == expected
    assert len(rows("Event")) == len(expected)


def test_every_field_is_on_the_page() -> None:
    documented = {field for cells in rows("Field of an event") for field in re.findall(r"`(\w+)`", cells[0])}
    assert documented == {field for line in LINES for field in line.fields}


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ('_log.info("a")', (set(), {"info"}, set())),
        ('_log.exception("a", extra={"event": "x", "once": 1, "order": 2})', ({"x"}, {"error"}, {"order"})),
        ('def f():\n extra = {"event": "x"}\n _log.error("a", extra=extra)', ({"x"}, {"error"}, set())),
        (
            'def f():\n e = "x" if a else "y"\n b = {"order": 1}\n _log.debug("a", extra={"event": e, **b})',
            ({"x", "y"}, {"debug"}, {"order"}),
        ),
        (
            'l = logging.INFO if a else logging.WARNING\n_log.log(l, "a", extra={"event": "x"})',
            ({"x"}, {"info", "warning"}, set()),
        ),
        ('_record(logging.ERROR, "a", {})', (set(), {"error"}, set())),
    ],
)
def test_events_levels_and_fields_of_a_line_are_read(source: str, found: tuple[set[str], set[str], set[str]]) -> None:
    assert [tuple(map(set, line[1:])) for line in lines_of(LOGS, source)] == [found]


@pytest.mark.parametrize(
    "source",
    [
        "_log = logging.getLogger(__name__)",
        "logging.getLogger().error('a')",
        "logging.error('a')",
        "f(_log)",
    ],
)
def test_a_line_of_another_logger_is_noticed(source: str) -> None:
    assert other_uses(source) == [1]
    assert other_uses("_log = logging.getLogger(__name__)\n_log.info('a')") == []
