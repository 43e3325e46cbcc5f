"""The choice of a mutation run: the mutated files, the tests of each, and the accepted mutants."""

import dataclasses
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.mutants.mutant import Mutant
from tests.mutants.python import python_mutants
from tests.mutants.sql import sql_mutants

HERE = Path(__file__).parent
PYTHON = (
    "fundledger/ledger/rules/decide.py",
    "fundledger/ledger/rules/account.py",
    "fundledger/ledger/rules/buffer.py",
    "fundledger/ledger/rules/slots.py",
    "fundledger/fund/model/flows.py",
    "fundledger/fund/model/fees.py",
    "fundledger/fund/store/mac_layouts.py",
    "fundledger/fund/store/reservations.py",
    "fundledger/fund/store/sums.py",
    "fundledger/fund/statements/matching.py",
    "fundledger/security/*.py",
    "fundledger/ratelimit/quota/gcra.py",
)
NOT_MUTATED = ("benchmarks/", "fundledger/fund/channels/sql/simulator_")
"""Files without mutants: benchmarks, and the SQL files of the simulated bank (SQLite). No money depends on them."""


@dataclasses.dataclass(frozen=True)
class Targets:
    """The contents of targets.toml.

    `areas`: `{name: (prefixes, minimum score)}`. `tests`: `[(prefix, test files and folders)]`, of which the first prefix
    that matches applies. `slow`: the same for the mutants that survive `tests`.
    """

    areas: dict[str, tuple[list[str], float]]
    tests: list[tuple[str, list[str]]]
    slow: list[tuple[str, list[str]]]

    def area_of(self, file: str) -> str:
        for name, (prefixes, _) in self.areas.items():
            for prefix in prefixes:
                if file.startswith(prefix) or (prefix.startswith("**") and file.endswith(prefix[2:])):
                    return name
        return "other"

    def tests_of(self, file: str) -> list[str]:
        return next((tests for prefix, tests in self.tests if file.startswith(prefix)), [])

    def slow_tests_of(self, file: str) -> list[str]:
        return next((tests for prefix, tests in self.slow if file.startswith(prefix)), [])


def read_targets(path: Path = HERE / "targets.toml") -> Targets:
    document = tomllib.loads(path.read_text())
    areas = {name: (area["prefixes"], area["minimum"]) for name, area in document["areas"].items()}
    found = document["targets"]
    return Targets(
        areas, [(of["prefix"], of["tests"]) for of in found], [(of["prefix"], of.get("slow", [])) for of in found]
    )


def read_accepted(path: Path = HERE / "accepted.toml") -> dict[str, str]:
    """Return `{key of a mutant: reason}`."""
    entries = tomllib.loads(path.read_text()).get("accepted", [])
    accepted = {f"{entry['file']} | {entry['operator']} | {entry['mutated']}": entry["reason"] for entry in entries}
    assert len(accepted) == len(entries), "accepted.toml names a mutant twice"
    return accepted


def files_of(root: Path, only: Iterable[str]) -> list[str]:
    """Return the names of the mutated files, relative to `root`, SQL first; with prefixes in `only`, those that match
    one.
    """
    found = [path for path in sorted(root.glob("fundledger/**/*.sql")) if path.parent.name == "sql"]
    for pattern in PYTHON:
        found += [path for path in sorted(root.glob(pattern)) if path.name != "__init__.py"]
    names = [str(path.relative_to(root)) for path in found]
    only = tuple(only)
    return [name for name in names if not name.startswith(NOT_MUTATED) and (not only or name.startswith(only))]


def mutants_of(root: Path, files: Iterable[str]) -> Iterator[Mutant]:
    for file in files:
        source = (root / file).read_text()
        yield from (sql_mutants if file.endswith(".sql") else python_mutants)(file, source)
