"""What the migrations make of a database, object by object, and whether that is what is there.

The expected definitions are files of the release, printed from a database that was only migrated (`make definitions`):
the server that is under suspicion has no say in them. ADR 22 says why.
"""

import re
from collections.abc import Sequence
from importlib.resources import files
from typing import Final

import msgspec

from fundledger.database.migrations import migrations
from fundledger.reconciliation.reading import SQL, Connection
from fundledger.reconciliation.report import Check

LEDGER: Final = ("ledger", "daemons")
FUND: Final = ("fund", "outbox", "daemons")
_FORM: Final = re.compile(r"[\s()]|::(?:[a-z_]+(?: with(?:out)? time zone| varying| precision)?)(?:\[\])?")


class Manifest(msgspec.Struct):
    """`definitions` are by kind and name of an object, as `postgres`, a major version, prints them."""

    postgres: int
    definitions: dict[str, str]


def read_manifest(name: str) -> Manifest:
    """That of `ledger` or `fund`."""
    text = (files(__package__) / "expected" / f"{name}.json").read_bytes()
    return msgspec.json.decode(text, type=Manifest)


async def print_manifest(connection: Connection, schemas: Sequence[str]) -> Manifest:
    """The objects of a database as they are."""
    rows = await connection.fetch(SQL["definitions"], schemas)
    return Manifest(connection.get_server_version().major, {row["object"]: row["definition"] for row in rows})


async def check_definitions(
    checks: Sequence[Check], connection: Connection, schemas: Sequence[str], expected: Manifest
) -> None:
    """Report each object that is missing, that is not expected, or that has another definition. `checks` is one.

    Another major version of Postgres may print a definition in another form: blanks, parentheses and casts do not count
    there.
    """
    (check,) = checks
    actual = await print_manifest(connection, schemas)
    form = str if actual.postgres == expected.postgres else _without_form
    check.rows += len(expected.definitions)
    for name in sorted(expected.definitions.keys() | actual.definitions.keys()):
        wanted, there = expected.definitions.get(name, "nothing"), actual.definitions.get(name, "missing")
        if form(wanted) != form(there):
            check.differs(name, wanted, there)


async def check_migrations(
    checks: Sequence[Check], connection: Connection, package: str, applied_statement: str
) -> None:
    """Report migrations of this release that were not applied to the database. `checks` is one."""
    (check,) = checks
    applied = {row["number"]: row["name"] for row in await connection.fetch(applied_statement)}
    for number, name, _ in migrations(package):
        if number not in applied:
            check.differs(f"migration {name}", "applied", "not applied: run `fundledger migrate`")


def _without_form(definition: str) -> str:
    return _FORM.sub("", definition)
