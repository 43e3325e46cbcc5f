"""The recipes of CONTRIBUTING agree with the code: each table of a step has every member, and each name exists."""

import ast
import builtins
import importlib
import inspect
import operator
import re
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, get_args
from unittest.mock import MagicMock

import pytest

from fundledger.app.account.answers.problems import ADVICE, REFUSALS
from fundledger.app.account.jobs.table import NAMES as ACCOUNT_NAMES
from fundledger.app.account.routes import ROUTES
from fundledger.app.fund.answers import problems as fund_problems
from fundledger.app.fund.jobs import jobs_of
from fundledger.app.fund.routes import ROUTES as FUND_ROUTES
from fundledger.app.fund.routes.kinds import KINDS
from fundledger.app.http.problems import POSTING, POSTING_ADVICE
from fundledger.app.http.routing import Route
from fundledger.client import fund_types
from fundledger.fund.model.drafts import draft_of, further_terms
from fundledger.fund.model.flows import RULES
from fundledger.fund.model.order import Kind, State
from fundledger.fund.model.refusal import Code as FundCode
from fundledger.fund.model.request_types import REQUESTS
from fundledger.fund.model.transitions import TRANSITIONS
from fundledger.fund.store import debts, reservations
from fundledger.ledger.model.batch import Command
from fundledger.ledger.model.refusal import Code
from fundledger.ledger.rules.decide import decide
from fundledger.reconciliation import checks
from fundledger.reconciliation.definitions import read_manifest
from fundledger.reconciliation.fund import checks as fund_checks
from fundledger.reconciliation.fund import guards as fund_guards
from tests.client.test_fund_requests import REQUESTED
from tests.fund.test_flows import FLOWS
from tests.jobs.test_fund_jobs import NAMES

ROOT = Path(__file__).parents[1]
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
PATH_OF_A_PAYMENT = ROOT / "docs" / "explanation" / "path-of-a-payment.md"
REFERENCE = ROOT / "docs" / "reference"
Names = Iterable[object]


# --- Reading code and documents -------------------------------------------------------------------------------------


def column(name: str, title: str, index: int = 0, text: str | None = None) -> list[str]:
    """Return the cells of a column of the table whose first column has this title, in a page of the reference."""
    lines = (text or (REFERENCE / name).read_text()).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {title} |"))
    cells = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        cells.append(line.strip("|").split(" | ")[index].strip())
    return cells


def marked(cells: Iterable[str]) -> set[str]:
    """Return the texts in code marks."""
    return set(re.findall(r"`([^`]+)`", " ".join(cells)))


def members_in(source: str, of: str = "Kind") -> set[str]:
    """Return the names of the members of an enumeration that a source names."""
    return set(re.findall(rf"\b{of}\.([A-Z_]+)\b", source))


def sources(*folders: str, pattern: str = "*.py", without: str = "") -> str:
    return "\n".join(
        path.read_text()
        for folder in folders
        for path in sorted((ROOT / folder).rglob(pattern))
        if not without or not re.search(without, str(path))
    )


def named(members: Iterable[Any]) -> set[str]:
    return {member.name for member in members}


def in_answers(routes: Iterable[Route[Any]]) -> set[str]:
    return {str(name) for each in routes for answer in each.answers.values() for name in answer.problems}


def value_of(node: ast.expr, module: ModuleType) -> Any:
    """Return the value of a literal, or of a name of the module; None for a value that is known only at run time."""
    if isinstance(node, ast.List | ast.Tuple):
        return [value_of(each, module) for each in node.elts]
    if isinstance(node, ast.Constant):
        return node.value
    try:
        return operator.attrgetter(ast.unparse(node))(module)
    except (AttributeError, TypeError):
        return None


def first_arguments(module: ModuleType, called: str, source: str | None = None) -> list[Any]:
    """Return the first argument of each call of this name."""
    tree = ast.parse(source or inspect.getsource(module))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and node.args]
    return [value_of(call.args[0], module) for call in calls if ast.unparse(call.func).split(".")[-1] == called]


def checks_of(module: Any) -> set[str]:
    """Return the checks of one database: those of `proof.make` and of its statements."""
    made = {name for names in first_arguments(module, "make") for name in names or () if isinstance(name, str)}
    return made if module is fund_checks else made | {check.name for check in module.SQL_CHECKS}


def texts_in(definition: str) -> list[str]:
    """Return the texts in a definition of the fund database."""
    return re.findall(r"'(\w+)'", read_manifest("fund").definitions[definition])


def jobs_in(folder: str) -> set[str]:
    """Return the names of the jobs that a folder defines."""
    found = set()
    for path in sorted((ROOT / folder).rglob("*.py")):
        if re.search(r"\bJob\(", path.read_text()):
            module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
            found |= {*first_arguments(module, "Job")}
    return {name for name in found if isinstance(name, str)}


def fund_jobs() -> dict[str, tuple[float, float]]:
    """Return the period and bound of each job of the fund service."""
    return {job.name: (job.every_s, job.alarm_after_s) for job in jobs_of(MagicMock())}


def job_rows() -> dict[str, tuple[float, float]]:
    cells = zip(*(column("background-jobs.md", "Job", i) for i in (0, 3, 4)), strict=True)
    return {name.strip("`"): (float(every.split()[0]), float(after.split()[0])) for name, every, after in cells}


def own_members(kind: Kind) -> set[str]:
    """Return the members of a request that `draft_of` does not copy for every kind. The `day` of a settlement selects
    its payments, and is no term of the order.
    """
    return set(REQUESTS[kind].__struct_fields__) - {"merchant", "order_no", "ticket", "amount", "currency", "day"}


def kinds_of_requests(source: str) -> set[str]:
    types = {type_.__name__: kind.name for kind, type_ in REQUESTS.items()}
    return {types[name] for name in re.findall(r"requests\.(\w+)\(\)", source) if name in types}


def words(text: str) -> str:
    return text.replace("_", " ").replace("-", " ")


def numbers(folder: str) -> list[int]:
    return sorted(int(path.name[:4]) for path in (ROOT / folder / "migrations").glob("*.sql"))


# --- Recipes --------------------------------------------------------------------------------------------------------


class Step(NamedTuple):
    """A step of a recipe: each of `members` has to be among `there`. The text of the step has `names` in code marks."""

    recipe: str
    number: int
    names: str
    members: Callable[[], Names]
    there: Callable[[], Names]

    def __str__(self) -> str:
        return f"{self.recipe}, step {self.number}: {self.names}"


REFUSAL, FUND_REFUSAL, COMMAND, KIND, STATE, JOB, MIGRATION, GUARD, CHECK = (
    f"How to add {what}"
    for what in (
        "a refusal",
        "a refusal of the fund service",
        "a command",
        "a kind of order",
        "an order state",
        "a background job",
        "a migration",
        "a guard",
        "a check",
    )
)
RULES_OF_LEDGER = "fundledger/ledger", "fundledger/app/account"
RULES_OF_FUND = "fundledger/fund", "fundledger/app/fund"
NO_RULES = r"/refusal\.py|/problems\.py|/openapi/|/routes/|/kinds\.py"
ALL_CHECKS = lambda: checks_of(checks) | checks_of(fund_checks)  # noqa: E731
STEPS = [
    Step(
        REFUSAL,
        2,
        "decide.py",
        lambda: named(Code),
        lambda: members_in(sources(*RULES_OF_LEDGER, without=NO_RULES), "Code"),
    ),
    Step(
        REFUSAL,
        2,
        "test_rules.py",
        lambda: named(Code),
        lambda: members_in((ROOT / "tests/ledger/test_rules.py").read_text(), "Code"),
    ),
    Step(REFUSAL, 3, "REFUSALS", lambda: Code, lambda: REFUSALS),
    Step(REFUSAL, 3, "ADVICE", lambda: Code, lambda: ADVICE),
    Step(REFUSAL, 3, "POSTING_ADVICE", lambda: POSTING, lambda: POSTING_ADVICE),
    # `batch-aborted` is a result within a batch, never a response.
    Step(REFUSAL, 4, "routes/", lambda: set(Code) - {Code.BATCH_ABORTED}, lambda: in_answers(ROUTES)),
    Step(REFUSAL, 5, "refusals.md", lambda: Code, lambda: marked(column("refusals.md", "Code"))),
    Step(
        FUND_REFUSAL,
        2,
        "decide",
        lambda: named(FundCode),
        lambda: members_in(sources(*RULES_OF_FUND, without=NO_RULES), "Code"),
    ),
    Step(
        FUND_REFUSAL,
        2,
        "tests/fund/",
        lambda: FundCode,
        lambda: re.findall(
            "|".join(map(re.escape, sorted(FundCode, key=len, reverse=True))),
            re.sub(
                r"\bCode\.([A-Z_]+)", lambda m: m[1].lower().replace("_", "-"), sources("tests/fund", "tests/app/fund")
            ),
        ),
    ),
    Step(FUND_REFUSAL, 3, "REFUSALS", lambda: FundCode, lambda: fund_problems.REFUSALS),
    Step(FUND_REFUSAL, 3, "ADVICE", lambda: FundCode, lambda: fund_problems.ADVICE),
    Step(FUND_REFUSAL, 4, "routes/", lambda: FundCode, lambda: in_answers(FUND_ROUTES)),
    Step(
        FUND_REFUSAL,
        5,
        "refusals.md",
        lambda: FundCode,
        lambda: marked(column("refusals.md", "Code of the fund service")),
    ),
    Step(
        COMMAND,
        3,
        "decide",
        lambda: {type_.__name__ for type_ in get_args(Command)},
        lambda: re.findall(r"type\(command\) is (\w+)", inspect.getsource(decide)),
    ),
    Step(KIND, 1, "Request", lambda: Kind, lambda: REQUESTS),
    Step(KIND, 2, "RULES", lambda: Kind, lambda: RULES),
    Step(KIND, 2, "FLOWS", lambda: Kind, lambda: {order.kind for order, _, _ in FLOWS}),
    Step(
        KIND,
        3,
        "draft_of",
        lambda: {kind.name for kind in Kind if own_members(kind)},
        lambda: kinds_of_requests(inspect.getsource(draft_of) + inspect.getsource(further_terms)),
    ),
    Step(
        KIND,
        4,
        "decide",
        lambda: named(reservations.RESERVING),
        lambda: members_in(inspect.getsource(reservations.decide)),
    ),
    Step(
        KIND,
        4,
        "release",
        lambda: named(reservations.RESERVING),
        lambda: members_in(inspect.getsource(reservations.release)) | named(debts.REPAYING),
    ),
    Step(
        KIND,
        4,
        "RESERVING",
        lambda: members_in(inspect.getsource(reservations.release)),
        lambda: named(reservations.RESERVING),
    ),
    Step(KIND, 5, "KINDS", lambda: Kind, lambda: KINDS),
    Step(
        KIND,
        5,
        "KINDS",
        lambda: {f"/v1/{kind.collection}" for kind in KINDS.values()},
        lambda: {route.template for route in FUND_ROUTES if route.method == "POST"},
    ),
    Step(KIND, 6, "Kind", lambda: Kind, lambda: get_args(fund_types.Kind)),
    Step(KIND, 6, "PATHS", lambda: Kind, lambda: fund_types.PATHS),
    Step(
        KIND,
        6,
        "PATHS",
        lambda: {f"/v1/{kind.collection}" for kind in KINDS.values()},
        fund_types.PATHS.values,
    ),
    Step(KIND, 6, "REQUESTED", lambda: Kind, lambda: {row[0] for row in REQUESTED}),
    Step(
        KIND,
        7,
        "fund.md",
        lambda: {f"POST /v1/{kind.collection}" for kind in KINDS.values()},
        lambda: marked(column("fund.md", "Request")),
    ),
    Step(
        KIND,
        7,
        "fund.md",
        lambda: {words(kind) for kind in Kind},
        lambda: re.findall("|".join(map(words, Kind)), words(" ".join(column("fund.md", "Event")))),
    ),
    Step(STATE, 1, "TRANSITIONS", lambda: State, lambda: {state for _, *pair in TRANSITIONS for state in pair}),
    Step(STATE, 2, "orders_state", lambda: State, lambda: texts_in("constraint fund.orders.orders_state")),
    Step(STATE, 2, "may_become", lambda: State, lambda: texts_in("function fund.may_become(text,text,text)")),
    Step(STATE, 4, "fund.md#order-states", lambda: State, lambda: marked(column("fund.md", "State"))),
    Step(JOB, 2, "jobs_of", lambda: jobs_in("fundledger/app/fund"), fund_jobs),
    Step(
        JOB,
        2,
        "NAMES",
        lambda: jobs_in("fundledger/app/account") | jobs_in("fundledger/hotspot"),
        lambda: ACCOUNT_NAMES,
    ),
    Step(JOB, 3, "background-jobs.md", lambda: jobs_in("fundledger"), job_rows),
    Step(JOB, 3, "background-jobs.md", job_rows, lambda: jobs_in("fundledger")),
    Step(JOB, 3, "background-jobs.md", lambda: fund_jobs().items(), lambda: job_rows().items()),
    Step(JOB, 4, "NAMES", fund_jobs, lambda: NAMES),
    Step(
        MIGRATION,
        1,
        "fundledger/ledger/migrations/NNNN_name.sql",
        lambda: range(1, len(numbers("fundledger/ledger")) + 1),
        lambda: numbers("fundledger/ledger"),
    ),
    Step(
        MIGRATION,
        1,
        "fundledger/fund/migrations/NNNN_name.sql",
        lambda: range(1, len(numbers("fundledger/fund")) + 1),
        lambda: numbers("fundledger/fund"),
    ),
    Step(
        GUARD,
        3,
        "fundledger/reconciliation/expected/",
        lambda: checks.GUARDS | fund_guards.GUARDS,
        lambda: re.findall(r"\w+", sources("fundledger/reconciliation/expected", pattern="*.json")),
    ),
    Step(
        GUARD,
        4,
        "GUARDS",
        lambda: checks.GUARDS | fund_guards.GUARDS,
        lambda: marked([(REFERENCE / "invariants.md").read_text()]),
    ),
    Step(
        CHECK,
        1,
        "SQL_CHECKS",
        lambda: {check.name for check in (*checks.SQL_CHECKS, *fund_checks.SQL_CHECKS)},
        lambda: {
            path.stem
            for path in (ROOT / "fundledger/reconciliation").rglob("sql/*.sql")
            if re.search(r"\btotal\b", path.read_text())
        },
    ),
    Step(CHECK, 2, "invariants.md", ALL_CHECKS, lambda: marked([(REFERENCE / "invariants.md").read_text()])),
    Step(
        CHECK,
        3,
        "tests/reconciliation/",
        lambda: {check.name for check in (*checks.SQL_CHECKS, *fund_checks.SQL_CHECKS)},
        lambda: re.findall(r"\w+", sources("tests/reconciliation") + sources("tests/reconciliation", pattern="*.txt")),
    ),
]


def missing(step: Step, members: Names, there: Names) -> list[str]:
    """Return the members that a step's table lacks, each with the step that adds it."""
    found = set(there)
    return [f"CONTRIBUTING.md, {step}: {member} is missing" for member in members if member not in found]


def recipes(text: str) -> dict[str, dict[int, str]]:
    """Return the text of each step, by recipe and number."""
    found: dict[str, dict[int, str]] = {}
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        title, _, body = section.partition("\n")
        if title.startswith("How to add "):
            steps = re.findall(r"^(\d+)\. (.*(?:\n   .*)*)", body, re.MULTILINE)
            found[title] = {int(number): step for number, step in steps}
    return found


def unnamed(step: Step, text: str) -> list[str]:
    """Return an error unless a step exists and names its table: in code marks, or as the end of a path or link."""
    there = recipes(text).get(step.recipe, {}).get(step.number, "")
    if re.search(rf"[`/(]{re.escape(step.names)}[`)]", there):
        return []
    return [f"CONTRIBUTING.md, {step.recipe}, step {step.number} does not name {step.names}"]


@pytest.mark.parametrize("step", STEPS, ids=str)
def test_a_step_of_a_recipe_has_every_member(step: Step) -> None:
    members = list(step.members())
    assert members
    assert missing(step, members, step.there()) == []


@pytest.mark.parametrize("step", STEPS, ids=str)
def test_a_made_up_member_is_reported_with_its_step(step: Step) -> None:
    found = missing(step, [*step.members(), "made-up"], step.there())
    assert found == [f"CONTRIBUTING.md, {step.recipe}, step {step.number}: {step.names}: made-up is missing"]


@pytest.mark.parametrize("step", STEPS, ids=str)
def test_each_member_that_is_taken_from_a_table_is_reported(step: Step) -> None:
    members, there = list(step.members()), set(step.there())
    for member in members:
        assert missing(step, members, there - {member}) == [f"CONTRIBUTING.md, {step}: {member} is missing"]


@pytest.mark.parametrize("step", STEPS, ids=str)
def test_a_step_names_its_table(step: Step) -> None:
    assert unnamed(step, CONTRIBUTING.read_text()) == []


def test_every_recipe_is_checked() -> None:
    assert {step.recipe for step in STEPS} == set(recipes(CONTRIBUTING.read_text()))


RECIPE = "## How to add a check\n\nText.\n\n1. A line in `TABLE` of\n   `fundledger/build.py`.\n2. A row in [page](docs/page.md).\n"


@pytest.mark.parametrize(
    ("number", "names", "is_named"),
    [
        (1, "TABLE", True),
        (1, "build.py", True),
        (2, "page.md", True),
        (1, "TABL", False),
        (2, "TABLE", False),
        (3, "TABLE", False),
    ],
)
def test_a_step_that_does_not_name_its_table_is_noticed(number: int, names: str, is_named: bool) -> None:
    assert (unnamed(Step(CHECK, number, names, list, list), RECIPE) == []) is is_named


def test_what_is_read_from_sources_is_what_they_name() -> None:
    assert members_in("case Kind.REFUND: x(Kind.MADE_UP, Unkind.NO)") == {"REFUND", "MADE_UP"}
    assert kinds_of_requests("case requests.Refund(): case requests.MadeUp():") == {"REFUND"}
    made = 'proof.make(["a", GUARDS_CHECK, of.name], 1); proof.make(JOURNAL); proof.make(evidence.HOLDS)'
    assert first_arguments(checks, "make", made) == [
        ["a", checks.GUARDS_CHECK, None],
        checks.JOURNAL,
        ("mac_verifies_holds",),
    ]
    table = "| Job | Every |\n|---|---|\n| `a` | 1 s |\n| `b` | 2 s |\n\n| `c` | 3 s |"
    assert marked(column("", "Job", text=table)) == {"a", "b"}


# --- Names in documents ---------------------------------------------------------------------------------------------


@cache
def defined() -> frozenset[str]:
    """Return every name that the code defines: modules, classes, functions, parameters, variables and attributes."""
    found = set(dir(builtins))
    for path in [*(ROOT / "fundledger").rglob("*.py"), *(ROOT / "tests").rglob("*.py")]:
        found.add(path.stem)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                found.add(node.name)
            elif isinstance(node, ast.arg):
                found.add(node.arg)
            elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
                found.add(node.id if isinstance(node, ast.Name) else node.attr)
    return frozenset(found)


@cache
def spoken() -> frozenset[str]:
    """Return every word of the code: values of enumerations, columns, constraints, settings."""
    text = sources("fundledger", "tests/support") + sources("fundledger", pattern="*.sql")
    return frozenset(re.findall(r"[A-Za-z_][\w-]*\w", text))


def attribute(module: str, dotted: str) -> bool:
    """Return whether a module defines a name, or one of its classes a method or a field."""
    found: Any = importlib.import_module(module)
    for part in dotted.split("."):
        if not hasattr(found, part) and part not in getattr(found, "__annotations__", {}):
            return False
        found = getattr(found, part, None)
    return True


def exists(name: str) -> bool:
    """Return whether a dotted name is in the code: a name in a module, or a member of a class."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        module = ".".join(["fundledger", *parts[:length]])
        if (ROOT / Path(*module.split("."))).with_suffix(".py").is_file() or (ROOT / Path(*module.split("."))).is_dir():
            return length == len(parts) or attribute(module, ".".join(parts[length:]))
    if len(parts) > 1:
        return has_member(parts[0], parts[1])
    # A name with a capital is a symbol; any other word may also be a value or a column.
    return name in defined() or (name.islower() and name in spoken())


def has_member(class_: str, member: str) -> bool:
    """Return whether a class of the package has this member."""
    return any(
        attribute(".".join(path.relative_to(ROOT).with_suffix("").parts), f"{class_}.{member}")
        for path in (ROOT / "fundledger").rglob("*.py")
        if re.search(rf"^class {class_}\b", path.read_text(), re.MULTILINE)
    )


def names_in(text: str) -> set[str]:
    """Return the names in code marks, and dotted names in the first block of code; no paths, commands, SQL or shell."""
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    found = {name for name in re.findall(r"`([^`]+)`", prose) if re.fullmatch(r"[A-Za-z_][\w.-]*", name)}
    for block in re.findall(r"```\n(.*?)```", text, re.DOTALL):
        if "v1/" in block:  # a picture of calls, not a plan of Postgres
            found |= set(re.findall(r"\b(?:app|fund|hotspot|ledger)(?:\.\w+)+", block))
    return {name for name in found if not re.search(r"\.(py|sql|md|txt|toml|json)$", name)}


def misplaced(text: str) -> list[str]:
    """Return the names that a page places `in` or `of` a file that does not define them."""
    wrong = []
    for names, path in re.findall(
        r"((?:`\w+`(?:, | and |\s)?)+) ?(?:in|of)\s+`((?:fundledger|tests)/[\w/]+\.py)`", text
    ):
        module = path.removesuffix(".py").replace("/", ".")
        wrong += [f"{name} of {path}" for name in re.findall(r"`(\w+)`", names) if not attribute(module, name)]
    return wrong


PAGES = pytest.mark.parametrize("page", [CONTRIBUTING, PATH_OF_A_PAYMENT], ids=lambda page: page.name)
OF_TOOLS = {"numeric", "promtool", "drill"}
"""Names of Postgres, of Prometheus, and the marker of tests/conftest.py."""
EXAMPLES = {"test_debit_beyond_available_is_refused_and_writes_nothing", "age_ms_max"}


@PAGES
def test_every_name_of_a_page_is_in_the_code(page: Path) -> None:
    names = names_in(page.read_text()) - OF_TOOLS - EXAMPLES
    assert len(names) > 10
    assert sorted(name for name in names if not exists(name)) == []


@PAGES
def test_every_name_is_in_the_file_that_the_page_names(page: Path) -> None:
    assert misplaced(page.read_text()) == []


@pytest.mark.parametrize(
    ("name", "is_there"),
    [
        ("Kind", True),
        ("ledger.rules.decide", True),
        ("ledger.posting.post_vouchers", True),
        ("hotspot.lane.Lane.post", True),
        ("app.http.admission", True),
        ("Lease.hold", True),
        ("vouchers_id_once", True),
        ("outcome-unknown", True),
        ("MadeUp", False),
        ("made_up_of_nothing", False),
        ("ledger.rules.made_up", False),
        ("ledger.posting.made_up", False),
        ("hotspot.lane.Lane.made_up", False),
        ("app.made_up", False),
        ("Lease.made_up", False),
        ("MadeUp.hold", False),
    ],
)
def test_a_name_that_is_not_in_the_code_is_noticed(name: str, is_there: bool) -> None:
    assert exists(name) is is_there


def test_names_are_read_from_code_marks_and_pictures() -> None:
    page = "`Kind`, `a.B`, `x.py`, `make test`, `docs/x`\n```\nPOST /v1/x\nledger.rules.decide   app.fund\n```\n```\nledger.x\n```"
    assert names_in(page) == {"Kind", "a.B", "ledger.rules.decide", "app.fund"}


def test_a_name_that_is_in_another_file_is_noticed() -> None:
    page = "`Kind` and `MadeUp` of `fundledger/fund/model/order.py`; `Kind` in `fundledger/build.py`"
    assert misplaced(page) == ["MadeUp of fundledger/fund/model/order.py", "Kind of fundledger/build.py"]
