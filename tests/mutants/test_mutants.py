"""The mutation tool: the mutants that it makes, and how it distinguishes killed mutants from survivors."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutants.mutant import Mutant
from tests.mutants.python import python_mutants
from tests.mutants.report import report_of
from tests.mutants.run import Result
from tests.mutants.selection import files_of, mutants_of, read_accepted, read_targets
from tests.mutants.sql import sql_mutants
from tests.support.row_cases import read_cases

pytestmark = pytest.mark.drill

ROOT = Path(__file__).parents[2]


def shown(mutants: list[Mutant]) -> list[str]:
    return [f"{mutant.operator}: {mutant.mutated}" for mutant in mutants]


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        (
            "SELECT a FROM t WHERE a = $1 AND b IS NULL",
            [
                "conjunct dropped: SELECT a FROM t WHERE (a = $1 OR true) AND b IS NULL",
                "comparison: SELECT a FROM t WHERE a <> $1 AND b IS NULL",
                "connective: SELECT a FROM t WHERE a = $1 OR b IS NULL",
                "conjunct dropped: SELECT a FROM t WHERE a = $1 AND (b IS NULL OR true)",
                "is null: SELECT a FROM t WHERE a = $1 AND b IS NOT NULL",
            ],
        ),
        (
            "UPDATE s.t x SET a = x.a + $1, b = 'a AND b = 1' -- WHERE c < 1",
            [
                "set item dropped: UPDATE s.t x SET a = CASE WHEN true THEN x.a ELSE x.a + $1 END, b = 'a AND b = 1' -- WHERE c < 1",
                "arithmetic: UPDATE s.t x SET a = x.a - $1, b = 'a AND b = 1' -- WHERE c < 1",
                "set item dropped: UPDATE s.t x SET a = x.a + $1, b = CASE WHEN true THEN x.b ELSE 'a AND b = 1' END -- WHERE c < 1",
            ],
        ),
        (
            "INSERT INTO t (a) VALUES (1) ON CONFLICT (a) DO UPDATE SET a = 2",
            [
                "set item dropped: INSERT INTO t (a) VALUES (1) ON CONFLICT (a) DO UPDATE SET a = CASE WHEN true THEN t.a ELSE 2 END"
            ],
        ),
        (
            "SELECT a FROM t ORDER BY a LIMIT 1 FOR UPDATE SKIP LOCKED",
            [
                "order dropped: SELECT a FROM t LIMIT 1 FOR UPDATE SKIP LOCKED",
                "order: SELECT a FROM t ORDER BY a DESC LIMIT 1 FOR UPDATE SKIP LOCKED",
                "limit dropped: SELECT a FROM t ORDER BY a LIMIT CASE WHEN false THEN (1)::bigint END FOR UPDATE SKIP LOCKED",
                "lock dropped: SELECT a FROM t ORDER BY a LIMIT 1",
                "skip locked dropped: SELECT a FROM t ORDER BY a LIMIT 1 FOR UPDATE",
            ],
        ),
        (
            "SELECT coalesce(sum(a), 0) FROM t FULL JOIN u USING (a)",
            [
                "coalesce: SELECT (sum(a)) FROM t FULL JOIN u USING (a)",
                "function: SELECT coalesce(max(a), 0) FROM t FULL JOIN u USING (a)",
                "join: SELECT coalesce(sum(a), 0) FROM t LEFT JOIN u USING (a)",
                "join: SELECT coalesce(sum(a), 0) FROM t RIGHT JOIN u USING (a)",
            ],
        ),
        (
            "SELECT 1 FROM t WHERE NOT EXISTS (SELECT FROM u WHERE u.a BETWEEN 1 AND 2)",
            [
                "conjunct dropped: SELECT 1 FROM t WHERE (NOT EXISTS (SELECT FROM u WHERE u.a BETWEEN 1 AND 2) OR true)",
                "not dropped: SELECT 1 FROM t WHERE EXISTS (SELECT FROM u WHERE u.a BETWEEN 1 AND 2)",
                "conjunct dropped: SELECT 1 FROM t WHERE NOT EXISTS (SELECT FROM u WHERE (u.a BETWEEN 1 AND 2 OR true))",
            ],
        ),
        (
            "SELECT DISTINCT a IS DISTINCT FROM b FROM t",
            [
                "distinct: SELECT a IS DISTINCT FROM b FROM t",
                "distinct: SELECT DISTINCT a IS NOT DISTINCT FROM b FROM t",
            ],
        ),
        (
            "SELECT 1 FROM t WHERE (a OR b) AND CASE WHEN c THEN d END",
            [
                "conjunct dropped: SELECT 1 FROM t WHERE ((a OR b) OR true) AND CASE WHEN c THEN d END",
                "alternative dropped: SELECT 1 FROM t WHERE (((a) AND false) OR b) AND CASE WHEN c THEN d END",
                "connective: SELECT 1 FROM t WHERE (a AND b) AND CASE WHEN c THEN d END",
                "alternative dropped: SELECT 1 FROM t WHERE (a OR ((b) AND false)) AND CASE WHEN c THEN d END",
                "connective: SELECT 1 FROM t WHERE (a OR b) OR CASE WHEN c THEN d END",
                "conjunct dropped: SELECT 1 FROM t WHERE (a OR b) AND (CASE WHEN c THEN d END OR true)",
                "conjunct dropped: SELECT 1 FROM t WHERE (a OR b) AND CASE WHEN (c OR true) THEN d END",
            ],
        ),
    ],
)
def test_a_statement_has_these_mutants(statement: str, expected: list[str]) -> None:
    assert sorted(shown(sql_mutants("a.sql", statement))) == sorted(expected)


def test_a_module_has_these_mutants() -> None:
    source = "LIMIT = 3\n\n\ndef f(a: int, b: int) -> bool:\n    assert a < 9\n    a += b\n    if not b:\n        return a < b and b is not None\n    return a\n"
    assert sorted(shown(python_mutants("a.py", source))) == sorted(
        [
            "constant: LIMIT = 4",
            "constant: LIMIT = 2",
            "constant x 10: LIMIT = 30",
            "statement dropped: pass",
            "condition: if True:",
            "condition: if False:",
            "not dropped: if b:",
            "return: return (not (a < b and b is not None))",
            "connective: return (a < b or b is not None)",
            "operand dropped: return (b is not None)",
            "operand dropped: return (a < b)",
            "comparison: return (a <= b) and b is not None",
            "comparison: return a < b and (b is None)",
            "return: return None",
        ]
    )


def test_what_is_no_statement_is_said() -> None:
    with pytest.raises(ValueError, match="brackets"):
        sql_mutants("a.sql", "SELECT (1")


def test_every_file_has_keys_of_its_own_and_an_area_and_tests() -> None:
    targets = read_targets()
    files = files_of(ROOT, [])
    keys = [mutant.key for mutant in mutants_of(ROOT, files)]
    assert len(keys) == len(set(keys)) > 2000
    assert {targets.area_of(file) for file in files} == set(targets.areas)
    assert [file for file in files if not targets.tests_of(file)] == []
    named = {test for _, tests in targets.tests for test in tests}
    assert {test for test in named if not (ROOT / test).exists()} == set()


def test_every_accepted_mutant_exists_and_has_its_reason() -> None:
    accepted = read_accepted()
    keys = {mutant.key for mutant in mutants_of(ROOT, {key.partition(" | ")[0] for key in accepted})}
    assert [key for key in accepted if key not in keys] == []
    assert all(len(reason) > 20 for reason in accepted.values())


def test_a_low_score_and_an_accepted_mutant_that_is_gone_are_problems() -> None:
    targets = read_targets()
    mutants = python_mutants("fundledger/fund/model/fees.py", "A = 1\n")
    keys = [mutant.key for mutant in mutants]
    assert len(keys) == 3
    killed, survived = Result("killed", "t"), Result("survived", "1 test")
    assert report_of(mutants, dict.fromkeys(keys, killed), {}, targets).problems == []
    assert report_of(mutants, {keys[0]: killed, keys[1]: survived}, {keys[1]: "why"}, targets).problems == []
    assert (
        "fund/fees: a score of 50.0%, less than 90%"
        in report_of(mutants, {keys[0]: killed, keys[1]: survived}, {}, targets).problems
    )
    gone = {"fundledger/fund/model/fees.py | constant | B = 2": "why"}
    assert "does not exist" in report_of(mutants, dict.fromkeys(keys, killed), gone, targets).problems[0]


LAID_OVER = {
    "fundledger/security/sql/larger.sql": (
        "-- Numbers that are larger. $1 a number.\n"
        "SELECT n FROM generate_series(1, 3) AS n WHERE n > $1::integer ORDER BY n\n"
    ),
    "fundledger/security/small.py": "def sign(a):\n    return 1 if a >= 0 else 2\n",
    "tests/security/test_small.py": (
        "import asyncpg\n\n"
        "from fundledger.database.statements import load\n"
        "from fundledger.security.small import sign\n\n"
        "SQL = load('fundledger.security')\n\n\n"
        "async def test_larger(fund_database):\n"
        "    connection = await asyncpg.connect(fund_database)\n"
        "    assert {row[0] for row in await connection.fetch(SQL['larger'], 2)} == {3}\n"
        "    await connection.close()\n\n\n"
        "def test_sign():\n"
        "    assert sign(5) == 1\n"
        "    assert sign(-5) == 2\n"
    ),
    "tests/mutants/targets.toml": (
        "[areas.all]\nprefixes = ['fundledger/']\nminimum = 0.90\n"
        "[[targets]]\nprefix = 'fundledger/'\ntests = ['tests/security/test_small.py']\n"
    ),
    "tests/mutants/accepted.toml": "",
}
"""Additions to a copy of the project: an SQL file without a test of the order, and a rule without a test of zero."""


def test_a_killed_mutant_is_distinguished_from_a_survivor(tmp_path: Path) -> None:
    for name in ("fundledger", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for name, text in LAID_OVER.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    run = subprocess.run(
        [sys.executable, "-m", "tests.mutants", "--json", "results.json", "--only", *list(LAID_OVER)[:2]],
        check=False,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    rows = json.loads((tmp_path / "results.json").read_text())
    found = {key.split(" | ")[2]: row["status"] for key, row in rows.items()}
    numbers = "SELECT n FROM generate_series(1, 3) AS n WHERE"
    assert found == {
        f"{numbers} n >= $1::integer ORDER BY n": "killed",
        f"{numbers} (n > $1::integer OR true) ORDER BY n": "killed",
        f"{numbers} n > $1::integer": "survived",
        f"{numbers} n > $1::integer ORDER BY n DESC": "survived",
        "return 1 if (a > 0) else 2": "survived",
        "return 1 if a >= 1 else 2": "survived",
        "return 1 if a >= -1 else 2": "survived",
        "return 1 if True else 2": "killed",
        "return 1 if False else 2": "killed",
        "return 2 if a >= 0 else 2": "killed",
        "return 0 if a >= 0 else 2": "killed",
        "return 1 if a >= 0 else 3": "killed",
        "return 1 if a >= 0 else 1": "killed",
        "return None": "killed",
    }, run.stdout + run.stderr
    assert run.returncode == 1
    assert "all: a score of 64.3%, less than 90%" in run.stdout


def test_each_statement_with_a_condition_has_rows() -> None:
    """Each SQL file has a case in a file of rows, or is listed here with a reason."""
    cases = [ROOT / name for name in ROWS]
    with_rows = {block.statement for path in cases for block in read_cases(path)[1]}
    found = {
        Path(mutant.file).stem
        for mutant in mutants_of(ROOT, files_of(ROOT, ["fundledger/"]))
        if mutant.file.endswith(".sql")
    }
    assert found - with_rows == set(WITHOUT_ROWS)


ROWS = (
    "tests/fund/test_statement_rows.txt",
    "tests/ledger/test_statement_rows.txt",
    "tests/outbox/test_statement_rows.txt",
    "tests/reconciliation/test_statement_rows.txt",
    "tests/reconciliation/test_fund_statement_rows.txt",
)
WITHOUT_ROWS = {
    "write_holiday": "a sequence draws the version of each row: tests/fund/test_merchant_life.py changes a holiday",
    "definitions": "it reads the catalog: tests/reconciliation/test_definitions.py changes that",
    "entry_writers": "it reads the locks of other transactions",
    "running": "it reads other transactions",
    "running_transactions": "it reads other transactions",
    "prepared": "it reads prepared transactions",
    "durability": "it reads the settings of the server",
    "little_memory": "a setting",
    "settled": "it reads the snapshot and the log",
    "statement_mark": "it reads a sequence that no transaction rolls back",
    "migration_table": "it makes a table",
    "migrations_applied": "its rows are the migrations themselves",
}
