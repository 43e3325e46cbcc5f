"""Reconciliation of database definitions: compares the definition of each object with the result of the migrations.

The expected definitions are files of the release. `make definitions` prints them from a freshly migrated database, so
they do not depend on the examined server. ADR 22 has the reasons.
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
    """Definitions by kind and name of the object. `postgres`: the major version of the server that printed the
    definitions.
    """

    postgres: int
    definitions: dict[str, str]


def read_manifest(name: str) -> Manifest:
    """Return the expected definitions of a database. `name`: `ledger` or `fund`."""
    text = (files(__package__) / "expected" / f"{name}.json").read_bytes()
    return msgspec.json.decode(text, type=Manifest)


async def print_manifest(connection: Connection, schemas: Sequence[str]) -> Manifest:
    """Return the actual definitions of the objects in these schemas, as the server prints them."""
    rows = await connection.fetch(SQL["definitions"], schemas)
    return Manifest(connection.get_server_version().major, {row["object"]: row["definition"] for row in rows})


async def check_definitions(
    checks: Sequence[Check], connection: Connection, schemas: Sequence[str], expected: Manifest
) -> None:
    """Report each object that is missing, is unexpected, or has another definition than expected. `checks` has one
    element.

    Another major version of Postgres may print the same definition differently. So if the major version differs from
    the expected one, blanks, parentheses and casts are ignored.
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
    """Report each migration of this release that was not applied to the database. `checks` has one element."""
    (check,) = checks
    applied = {row["number"]: row["name"] for row in await connection.fetch(applied_statement)}
    for number, name, _ in migrations(package):
        if number not in applied:
            check.differs(f"migration {name}", "applied", "not applied: run `fundledger migrate`")


def _without_form(definition: str) -> str:
    return _FORM.sub("", definition)
