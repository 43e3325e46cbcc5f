"""Rules of the source tree: the one writer of balances, the place of SQL, the length of files."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "fundledger"
LINES_MAX = 400
TABLES_MAX = 750  # a table of cases is one subject, however long


def files(folder: Path, pattern: str) -> list[Path]:
    return sorted(path for path in folder.rglob(pattern) if "__pycache__" not in path.parts)


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


# --- SQL ------------------------------------------------------------------------------------------------------------


def sql_of(path: Path) -> str:
    """Return the SQL of a file without comments, on one line."""
    return re.sub(r"\s+", " ", re.sub(r"--.*", "", path.read_text()))


def changing(*tables: str) -> re.Pattern[str]:
    names = "|".join(tables)
    return re.compile(
        rf"\b(UPDATE|DELETE FROM|TRUNCATE( TABLE)?|MERGE INTO)\s+(ONLY\s+)?(ledger\.)?({names})\b"
        rf"|\bCOPY\s+(ledger\.)?({names})\b",
        re.IGNORECASE,
    )


def test_exactly_one_statement_changes_a_balance() -> None:
    found = {named(path) for path in files(PACKAGE, "*.sql") if changing("sub_accounts").search(sql_of(path))}
    assert found == {"fundledger/ledger/sql/write_batch.sql", "fundledger/ledger/sql/mark_suspect.sql"}
    assert assigned("fundledger/ledger/sql/mark_suspect.sql") == [["suspect"]]


def test_no_statement_changes_or_deletes_an_entry_or_a_voucher() -> None:
    """Exceptions: the module of old vouchers, which a migration sets, and MACs, which a background job renews."""
    found = {named(path) for path in files(PACKAGE, "*.sql") if changing("entries", "vouchers").search(sql_of(path))}
    assert found == {"fundledger/ledger/migrations/0012_modules.sql", "fundledger/ledger/sql/sweep_voucher.sql"}
    assert assigned("fundledger/ledger/migrations/0012_modules.sql") == [["module"]]
    assert assigned("fundledger/ledger/sql/sweep_voucher.sql") == [["layout", "key_version", "mac"]]


def assigned(name: str) -> list[list[str]]:
    """Return the columns that each UPDATE of a file sets."""
    sql = sql_of(PACKAGE.parent / name)
    return [re.findall(r"(\w+) = ", part) for part in re.findall(r"\bUPDATE \S+(?: \w+)? SET (.*?) WHERE", sql)]


def test_entries_are_written_where_balances_are() -> None:
    insert = re.compile(r"\bINSERT INTO (ledger\.)?(entries|vouchers)\b", re.IGNORECASE)
    found = {named(path) for path in files(PACKAGE, "*.sql") if insert.search(sql_of(path))}
    filling_old_tables_to_measure_new_ones = {
        "benchmarks/sql/old_entries.sql",
        "benchmarks/sql/old_vouchers.sql",
    }
    assert found - filling_old_tables_to_measure_new_ones == {"fundledger/ledger/sql/write_batch.sql"}


@pytest.mark.parametrize("statement", ["UPDATE ledger.entries SET", "DELETE FROM vouchers", "truncate  ledger.entries"])
def test_a_statement_that_changes_an_entry_is_noticed(statement: str) -> None:
    assert changing("entries", "vouchers").search(re.sub(r"\s+", " ", statement))


SQL = re.compile(
    r"\s*(SELECT\b|INSERT\s+INTO\b|UPDATE\s+\S+\s+SET\b|DELETE\s+FROM\b|TRUNCATE\b|MERGE\s+INTO\b|WITH\s+\w+\s+AS\b|"
    r"(CREATE|ALTER|DROP)\s+(TABLE|DATABASE|SCHEMA|INDEX|UNIQUE|ROLE|USER|FUNCTION|TRIGGER|EXTENSION|VIEW|TYPE)\b|"
    r"EXPLAIN\b|PREPARE\b|EXECUTE\b|COPY\s|VACUUM\b|ANALYZE\b|CHECKPOINT\b|LOCK\s+TABLE\b|LISTEN\s|NOTIFY\s|"
    r"GRANT\s|REVOKE\s|SET\s+(LOCAL|SESSION)?\s*\w+\s*(=|TO)\s|SHOW\s\w|BEGIN\b|COMMIT\b|ROLLBACK\b|SAVEPOINT\b)"
)
TRANSACTIONS = {"BEGIN", "COMMIT AND CHAIN", "ROLLBACK AND CHAIN"}
"""Statements of transactions read and write no rows, so `ledger/store/session.py` may contain them."""


def texts(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield every string of a module that is not a docstring, an f-string as its first part."""
    documents = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documents:
            yield node.lineno, node.value


def sql_in(source: str) -> list[int]:
    """Return the lines with a string that begins like an SQL statement, in capitals."""
    return [line for line, text in texts(ast.parse(source)) if SQL.match(text) and text not in TRANSACTIONS]


def test_no_module_has_sql_in_its_text() -> None:
    found = {named(path): sql_in(path.read_text()) for path in files(PACKAGE, "*.py")}
    assert {name: lines for name, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ('x = "SELECT 1"', [1]),
        ('x = f"INSERT INTO {table} VALUES (1)"', [1]),
        ('x = """\n  UPDATE t SET a = 1"""', [1]),
        ('x = "SET LOCAL a = 1"', [1]),
        ('x = "Select a file", "UPDATE 1", "COMMIT AND CHAIN", "WITH care"', []),
        ('"""SELECT in a docstring"""', []),
    ],
)
def test_sql_in_a_module_is_noticed(source: str, lines: list[int]) -> None:
    assert sql_in(source) == lines


# --- Files ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("folder", "lines_max"), [("fundledger", LINES_MAX), ("tests", TABLES_MAX)])
def test_no_file_is_too_long_to_read_at_a_sitting(folder: str, lines_max: int) -> None:
    lengths = {named(path): len(path.read_text().splitlines()) for path in files(ROOT / folder, "*.py")}
    lengths |= {named(path): len(path.read_text().splitlines()) for path in files(ROOT / folder, "*.sql")}
    assert {name: length for name, length in lengths.items() if length > lines_max} == {}


FORBIDDEN_WORDS = {"data", "info", "manager", "helper", "helpers", "util", "utils", "core", "common", "base", "impl"}


def test_no_module_is_named_for_nothing() -> None:
    found = [named(path) for path in files(PACKAGE, "*.py") if FORBIDDEN_WORDS & set(path.stem.split("_"))]
    assert found == []


# --- Tests ----------------------------------------------------------------------------------------------------------


def sleeps(source: str) -> list[int]:
    """Return the lines that wait for time to pass; `asyncio.sleep(0)` only yields to other tasks."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        yields = len(node.args) == 1 and isinstance(node.args[0], ast.Constant) and node.args[0].value == 0
        if name == "sleep" and not yields:
            found.append(node.lineno)
    return found


# Files whose subject is time: the one loop that polls, links and servers that are slow on purpose, random moments.
SLEEPS = {
    "tests/support/waiting.py",
    "tests/adversity/proxy.py",
    "tests/adversity/test_cancel.py",
    "tests/adversity/broken/sitecustomize.py",
    "tests/benchmarks/test_drivers.py",
}


def test_no_test_sleeps_to_wait_for_something() -> None:
    found = {named(path): sleeps(path.read_text()) for path in files(ROOT / "tests", "*.py")}
    assert {name for name, lines in found.items() if lines} == SLEEPS


@pytest.mark.parametrize("source", ["time.sleep(1)", "await asyncio.sleep(0.1)", "sleep(x)"])
def test_a_sleep_is_noticed(source: str) -> None:
    assert sleeps(source) == [1]
    assert sleeps("await asyncio.sleep(0)") == []


SHARED = re.compile(r"\bpool=[\w.]*connection\b")


def test_no_pool_of_a_test_is_one_connection_that_the_test_uses_too() -> None:
    """Two concurrent statements on one connection are an error, which occurs when the machine is slow."""
    here = Path(__file__)
    found = [named(path) for path in files(ROOT / "tests", "*.py") if path != here and SHARED.search(path.read_text())]
    assert found == []
    assert SHARED.search("SimpleNamespace(pool=ledger.connection)")


# --- Lint -----------------------------------------------------------------------------------------------------------


def ignores(pyproject: str) -> list[str]:
    """Return the lines of ruff's `ignore` list, and those of `per-file-ignores`."""
    found: list[str] = []
    inside = False
    for line in pyproject.splitlines():
        if line.startswith(("ignore = [", "[tool.ruff.lint.per-file-ignores]")):
            inside = True
        elif inside and (line.startswith(("]", "[")) or not line.strip()):
            inside = False
        elif inside:
            found.append(line)
    return found


def test_every_ignored_rule_has_its_reason() -> None:
    found = ignores((ROOT / "pyproject.toml").read_text())
    assert len(found) > 5
    assert [line for line in found if not re.search(r"# \S", line)] == []
