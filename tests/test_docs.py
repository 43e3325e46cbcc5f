"""The documents agree with the code: links, tables, commands, and the session of the README."""

import argparse
import re
import shlex
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import pytest

from fundledger.app.account.answers.problems import ADVICE
from fundledger.app.account.exposition import render
from fundledger.app.account.metrics import Snapshot
from fundledger.app.account.openapi.document import problems
from fundledger.app.commands import cli
from fundledger.app.fund import exposition as fund_exposition
from fundledger.app.fund.answers import problems as fund_problems
from fundledger.app.fund.metrics import FundSnapshot
from fundledger.app.fund.routes import ROUTES as FUND_ROUTES
from fundledger.app.fund.routes.kinds import KINDS
from fundledger.app.http.metrics.exposition import replacements
from fundledger.fund.model.flows import END_VOUCHER_TYPES
from fundledger.fund.model.order import FACTS, Kind
from fundledger.fund.model.transitions import DUAL_CONTROL, FIRST, SENDING, TRANSITIONS
from fundledger.fund.store.queries import SQL as FUND_SQL
from fundledger.ledger.model.refusal import Code
from fundledger.ledger.store.queries import SQL
from fundledger.ratelimit.classes import RANKS
from fundledger.ratelimit.quota import policies
from fundledger.reconciliation.checks import GUARDS
from fundledger.reconciliation.fund.checks import CHECKS as FUND_CHECKS
from fundledger.reconciliation.fund.guards import GUARDS as FUND_GUARDS
from fundledger.settings import PREFIX, Settings
from tests.support import flow_table
from tests.support.client import Answer, Client
from tests.support.running import RunningService, run

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
TUTORIAL = ROOT / "docs" / "tutorial" / "vouchers.md"
DOCS = ROOT / "docs"
REFERENCE = DOCS / "reference"
DOCUMENTS = [README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"
VARIES = re.compile(
    TIME + r'|"accounting_date":"[^"]*"|"version":\d+|^(?:Date|RateLimit|Request-Id): .*'
    r'|"request_id":"[^"]*"'
    # Ids that the fund service assigns depend on its key.
    r"|\b[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\b"
    r"|[\d,]+ (?=vouchers|entries|accounts)|; \d+\.\d+ s$",
    re.MULTILINE,
)
"""The size of the books varies because other tests post to them."""


def named(document: Path) -> str:
    return str(document.relative_to(ROOT))


def without_code(text: str) -> str:
    return re.sub(r"```.*?```", "", text, flags=re.DOTALL)


def anchors(document: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", without_code(document.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def table(document: Path, first_column: str) -> list[list[str]]:
    """Return the cells of the rows below the header that begins with this name."""
    lines = document.read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {first_column} |"))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split(" | ")])
    return rows


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_every_relative_link_leads_somewhere(document: Path):
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(document.read_text())):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        linked = (document.parent / path).resolve() if path else document
        assert linked.exists(), target
        assert linked.is_relative_to(ROOT), target
        if anchor:
            assert anchor in anchors(linked), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_every_path_in_code_marks_exists(document: Path):
    text = without_code(document.read_text())
    for path in re.findall(r"`((?:fundledger|tests|docs)/[\w./-]+)`", text):
        if "NNNN" not in path:
            assert (ROOT / path).exists(), path


def test_the_sixty_second_table_answers_each_question_with_something_that_is_there():
    rows = table(README, "Question")
    assert len(rows) >= 9
    for question, answer in rows:
        assert re.search(r"`(fundledger|tests|docs)/|`make ", answer), question


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_every_make_command_that_is_mentioned_is_a_target(document: Path):
    code = " ".join(re.findall(r"```.*?```|`[^`]*`", document.read_text(), re.DOTALL))
    assert set(re.findall(r"\bmake ([a-z]+)", code)) <= make_targets()


def test_contributing_names_every_make_target():
    assert {cells[0] for cells in table(ROOT / "CONTRIBUTING.md", "Target")} == {f"`make {t}`" for t in make_targets()}


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_every_command_that_is_mentioned_exists(document: Path):
    parser = cli._parser()
    commands = next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction)).choices
    mentioned = re.findall(r"[`/ ]fundledger ([a-z]+)\b(?=[`\s\[]| \[)", document.read_text())
    spoken = {"lane"}  # part of the name of a database session
    assert set(mentioned) - spoken <= set(commands)


def settings_row(name: str) -> list[str]:
    field = Settings.model_fields[name]
    default = "none" if field.default is None else "empty" if field.default == "" else f"`{field.default}`"
    return [f"`{PREFIX}{name.upper()}`", default, str(field.description)]


def test_the_settings_table_is_that_of_the_code():
    assert table(REFERENCE / "settings.md", "Variable") == [settings_row(name) for name in Settings.model_fields]


def test_the_settings_of_the_readme_are_rows_of_the_whole_table():
    rows = table(README, "Variable")
    assert rows
    whole = table(REFERENCE / "settings.md", "Variable")
    assert [row for row in rows if row not in whole] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_no_document_names_a_setting_that_does_not_exist(document: Path):
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    wrong_on_purpose = {"FUNDLEDGER_WORKER"}  # an example of a misspelt name
    of_the_tests = {"FUNDLEDGER_TEST_LONG"}
    named_ = set(re.findall(rf"\b{PREFIX}[A-Z_]+\b", document.read_text()))
    assert named_ <= known | wrong_on_purpose | of_the_tests


def test_the_refusals_are_those_of_the_code_in_their_order():
    expected = [
        [f"`{p.name}`", str(p.status), "final" if p.final else "not final", p.advice]
        for p in problems()
        if p.final is not None
    ]
    assert [row[0] for row in expected] == [f"`{code}`" for code in Code]
    assert table(REFERENCE / "refusals.md", "Code") == expected


def test_every_other_problem_is_documented():
    expected = [[f"`{p.name}`", str(p.status), p.advice] for p in problems() if p.final is None]
    assert table(REFERENCE / "refusals.md", "Type") == expected


def test_the_refusals_of_the_fund_service_are_those_of_the_code_in_their_order():
    expected = [[f"`{c}`", str(s), fund_problems.ADVICE[c]] for c, (s, _) in fund_problems.REFUSALS.items()]
    assert table(REFERENCE / "refusals.md", "Code of the fund service") == expected


def test_the_requests_of_the_fund_service_are_its_routes():
    text = " ".join(cells[0] for cells in table(REFERENCE / "fund.md", "Request"))
    named_ = set()
    for methods, path in re.findall(r"`(GET|POST|PATCH) ([^`]+)`", text):
        named_ |= {(methods, path.replace("{kind}", kind.collection)) for kind in KINDS.values()}
    assert named_ == {(route.method, route.template) for route in FUND_ROUTES if route.api_class is not None}


def test_the_flows_are_those_of_the_code():
    page = flow_table.PAGE.read_text()
    assert page == flow_table.renewed(page), "run `make definitions`"
    assert {flow.kind for flow in flow_table.ROWS} == set(Kind) - {Kind.REVERSAL}
    assert {(flow.kind, flow.ending) for flow in flow_table.ROWS if flow.ending} == set(END_VOUCHER_TYPES)


def test_the_order_states_are_those_of_the_code():
    ending = {kind for kind, _ in END_VOUCHER_TYPES}
    orders = {
        "all": set(Kind),
        "orders without an end": set(Kind) - ending,
        "withdrawals, refunds": set(SENDING),
        "own transfers": {Kind.OWN_TRANSFER},
        "disputes": {Kind.DISPUTE},
        "withdrawals, refunds, own transfers": {*SENDING, Kind.OWN_TRANSFER},
        "own transfers, disputes": ending - set(SENDING),
        "facts": set(FACTS),
        "all but facts": set(Kind) - FACTS,
        "under dual control": set(DUAL_CONTROL),
    }
    rows = [
        (kind, state, re.findall(r"`(\w+)`", next_))
        for states, of, _, next_ in table(REFERENCE / "fund.md", "State")
        for state in re.findall(r"`(\w+)`", states)
        for kind in orders[of]
    ]
    assert {(kind, before, after) for kind, before, next_ in rows for after in next_} == TRANSITIONS
    documented = [(kind, state) for kind, state, _ in rows]
    assert len(documented) == len(set(documented))
    assert set(documented) == {(kind, state) for kind, *pair in TRANSITIONS for state in pair}
    (first, otherwise), *more = re.findall(
        r"^An order under \[dual control\]\(people\.md#dual-control\) is inserted as `(\w+)`, any other order as `(\w+)`\.$",
        (REFERENCE / "fund.md").read_text(),
        re.MULTILINE,
    )
    assert not more
    assert dict.fromkeys(Kind, otherwise) | dict.fromkeys(DUAL_CONTROL, first) == FIRST


def test_there_is_advice_for_every_refusal():
    assert set(ADVICE) == set(Code)


def test_every_metric_is_documented():
    page = render(Snapshot()) + replacements({"worker died": 0})
    exposed = set(re.findall(r"^# TYPE (\w+)", page.decode(), re.MULTILINE))
    assert documented_metrics("Name") == exposed


def documented_metrics(first_column: str) -> set[str]:
    return {cells[0].strip("`").partition("{")[0] for cells in table(REFERENCE / "metrics.md", first_column)}


def test_every_metric_of_the_fund_service_is_documented():
    exposed = set(re.findall(r"^# TYPE (\w+)", fund_exposition.render(FundSnapshot()).decode(), re.MULTILINE))
    of_both = documented_metrics("Name")
    of_both |= {name.replace("ledger_", "ledger_fund_", 1) for name in of_both}
    assert documented_metrics("Name at the fund service") == exposed - of_both


def test_the_fields_of_a_policy_are_those_of_the_code():
    fields = [cells[0] for cells in table(REFERENCE / "limits.md", "Field")]
    assert fields == [f"`{field}`" for field in policies._PolicyBody.__struct_fields__]


def test_the_policies_that_are_shown_would_be_taken():
    examples = re.findall(r"```toml\n(.*?)```", (REFERENCE / "limits.md").read_text(), re.DOTALL)
    assert len(examples) >= 3
    for example in examples:
        assert policies.parse(f"version = 1\n{example}").all()


def test_the_classes_that_are_shown_have_the_ranks_of_the_code():
    rows = table(REFERENCE / "limits.md", "Rank")
    assert [(cells[1].strip("`"), int(cells[0].partition(",")[0])) for cells in rows] == list(RANKS.items())


def test_every_statement_that_the_path_of_a_payment_names_exists():
    statements = re.findall(r"\b(\w+)\.sql\b", (DOCS / "explanation" / "path-of-a-payment.md").read_text())
    assert statements
    assert set(statements) <= set(SQL) | set(FUND_SQL)


def test_the_guards_of_the_invariants_are_those_that_verify_watches():
    text = (REFERENCE / "invariants.md").read_text()
    guards = GUARDS | FUND_GUARDS
    assert (
        set(re.findall(r"`(\w+)`", " ".join(cells[3] for cells in table(REFERENCE / "invariants.md", "No")))) <= guards
    )
    assert [guard for guard in guards if f"`{guard}`" not in text] == []


def test_a_word_of_the_glossary_has_one_meaning():
    words = re.findall(r"^\| ([\w ,-]+) \|", (REFERENCE / "glossary.md").read_text(), re.MULTILINE)
    terms = [term.strip() for word in words if word != "Word" for term in word.split(",")]
    assert len(terms) > 30
    assert len(terms) == len(set(terms))


def test_decisions_are_numbered_and_complete():
    decisions = sorted((DOCS / "adr").glob("*.md"))
    assert [int(path.name[:4]) for path in decisions] == list(range(1, len(decisions) + 1))
    for path in decisions:
        text = path.read_text()
        assert text.startswith(f"# {int(path.name[:4])}. "), path
        parts = ("Status:", "## Context", "## Decision", "## Given up")
        assert [part for part in parts if part not in text] == [], path


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "Dockerfile", ".dockerignore"])
def test_no_package_index_is_named(name: str):
    assert not re.search(r"index-url|extra-index|/simple\b", (ROOT / name).read_text(), re.IGNORECASE)


class Step(NamedTuple):
    command: str
    shown: str


def session(text: str) -> list[Step]:
    """Return the commands of the console blocks, each with the output that is shown below it."""
    steps: list[Step] = []
    for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            lines = part.splitlines()
            count = 1
            while not is_whole("\n".join(lines[:count])):
                count += 1
            steps.append(Step("\n".join(lines[:count]), unwrapped("\n".join(lines[count:]))))
    return steps


def unwrapped(shown: str) -> str:
    """Join the lines of an answer that the page wraps: continuation lines are indented by at least two blanks."""
    return re.sub(r"\n {2,}", "", shown)


def is_whole(command: str) -> bool:
    try:
        shlex.split(command)
    except ValueError:
        return False
    return not command.endswith("\\")


class Shell:
    """The part of a shell, and of curl, that the README's session needs."""

    def __init__(self, running: RunningService, accounts: Client, fund: Client) -> None:
        self._running = running
        self._clients = {running.base_url: accounts, running.fund_url: fund}
        self._places = {"BASE": running.base_url, "FUND": running.fund_url}
        self._variables: dict[str, str] = {}

    async def run(self, command: str) -> str:
        command = command.replace("$(cat data/dev-token)", self._running.token).replace("\\\n", " ")
        words = [re.sub(r"\$([A-Z]+)", lambda m: self._variables[m[1]], word) for word in shlex.split(command)]
        name, is_assignment, value = words[0].partition("=")
        if is_assignment:
            self._variables[name] = self._places.get(name, value)
            return ""
        if words[0] == "curl":
            return await self._curl(words[1:])
        assert words[0].endswith("/fundledger"), command
        done = await run(words[1], env=self._running.environment, cwd=self._running.folder)
        assert words[2:] in ([], ["|", "tail", "-1"]), command
        return done.stdout.splitlines()[-1] if words[2:] else done.stdout

    async def _curl(self, words: list[str]) -> str:
        headers, body, url, with_head = {}, None, "", False
        while words:
            word = words.pop(0)
            if word == "-H":
                name, _, value = words.pop(0).partition(": ")
                headers[name] = value
            elif word == "-d":
                body = words.pop(0).encode()
            elif word.startswith("-"):
                with_head = "i" in word
            else:
                url = word
        place, client = next(each for each in self._clients.items() if url.startswith(f"{each[0]}/"))
        answer = await client.request("GET" if body is None else "POST", url.removeprefix(place), body, headers)
        return shown_with_head(answer) if with_head else answer.body.decode()


def shown_with_head(answer: Answer) -> str:
    names = {200: "OK", 201: "Created", 422: "Unprocessable Entity"}
    head = [f"HTTP/1.1 {answer.status} {names[answer.status]}", *(f"{k}: {v}" for k, v in answer.headers.items())]
    return "\n".join([*head, "", answer.body.decode()])


def comparable(output: str) -> list[str]:
    """Remove the parts that differ from run to run; the order of headers has no meaning."""
    head, blank, body = VARIES.sub("...", output.strip()).partition("\n\n")
    return [*sorted(head.splitlines()), blank, body]


@pytest.fixture
async def newcomer() -> AsyncIterator[RunningService]:
    """Start new services for the README's session, with a long time limit, so that a busy machine answers the same."""
    async with RunningService(fund=True, env={"FUNDLEDGER_FUND_WAIT_MS": "60000"}) as platform:
        yield platform


@pytest.mark.parametrize(("page", "at_least"), [(README, 15), (TUTORIAL, 9)], ids=["readme", "tutorial"])
async def test_the_session_of_a_page_answers_as_shown(newcomer: RunningService, page: Path, at_least: int):
    steps = session(page.read_text())
    assert len(steps) >= at_least
    urls = newcomer.base_url, newcomer.fund_url
    async with Client(urls[0], token=None) as accounts, Client(urls[1], token=None) as fund:
        shell = Shell(newcomer, accounts, fund)
        for step in steps:
            assert comparable(await shell.run(step.command)) == comparable(step.shown), step.command


async def test_the_examples_of_bad_settings_answer_as_shown(tmp_path: Path):
    for step in session((REFERENCE / "settings.md").read_text()):
        assignment, _, command = step.command.partition(" ")
        name, _, value = assignment.partition("=")
        done = await run(*command.split()[1:], env={name: value}, cwd=tmp_path)
        assert done.returncode == 2
        assert done.stderr.strip() == step.shown.strip()


async def test_the_checks_of_the_invariants_are_those_of_verify(platform: RunningService):
    report = await platform.verify()
    text = " ".join(cells[4] for cells in table(REFERENCE / "invariants.md", "No"))
    proving = {check["name"] for check in report["checks"]}
    assert set(FUND_CHECKS) <= proving
    assert set(re.findall(r"`(\w+)`", text)) == proving - {"guards_in_force"}
