"""CLI commands `fundledger persons add`, `list`, `disable` and `rotate`, with or without a running service."""

import contextlib
import re
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from getpass import getuser
from typing import Final, NamedTuple

import asyncpg
import msgspec

from fundledger.app.host.postgres.databases import databases
from fundledger.app.host.postgres.identity import FUND, keys_folder
from fundledger.app.host.preflight import CannotServe
from fundledger.fund.model.person import PERSONS_MAX, Person, Role
from fundledger.fund.store.macs import OrderMacs, open_macs
from fundledger.fund.store.persons import add_person, change_person, new_token, read_persons
from fundledger.security.keys import FileKeys, KeyFault
from fundledger.settings import Settings

REFUSED: Final = 1
_AWAY: Final = (OSError, KeyFault, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError)
_is_name: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z").match


class _Fund(NamedTuple):
    connection: "asyncpg.Connection[asyncpg.Record]"
    macs: OrderMacs


async def run_add(settings: Settings, name: str, roles: Sequence[Role]) -> int:
    """Add a person and print its token, once. Return 1 if the name exists. Raises CannotServe."""
    if not _is_name(name):
        raise CannotServe(f"{name!r}: accepted is a name of 1 to 64 characters of [A-Za-z0-9_.-]")
    token = new_token(name)
    async with _opened(settings) as fund:
        added = await add_person(*fund, name, roles, getuser(), datetime.now(UTC), token)
    if not added:
        print(f"refused: the name {name} is taken, or {PERSONS_MAX} persons exist")
        return REFUSED
    print(token)
    return 0


async def run_list(settings: Settings, *, as_json: bool = False) -> int:
    """Print all persons, without tokens. Raises CannotServe."""
    async with _opened(settings) as fund:
        found = await read_persons(*fund)
    if as_json:
        print(msgspec.json.encode({"persons": [_members(person) for person in found]}).decode())
        return 0
    width = max([len(person.name) for person in found], default=0)
    for person in found:
        state = "enabled" if person.disabled_at is None else f"disabled {_at(person.disabled_at)}"
        details = f"{','.join(sorted(person.roles)):32}  created {_at(person.created_at)} by {person.created_by}"
        print(f"{person.name:{width}}  {details}  {state}")
    if not found:
        print("no persons")
    return 0


async def run_disable(settings: Settings, name: str) -> int:
    """Disable a person: running services refuse its token within two seconds. Return 1 if no enabled person has this
    name. Raises CannotServe.
    """
    async with _opened(settings) as fund:
        person = await change_person(*fund, name, datetime.now(UTC), disable=True)
    print(f"refused: there is no enabled person {name}" if person is None else f"{name}: disabled")
    return REFUSED if person is None else 0


async def run_rotate(settings: Settings, name: str) -> int:
    """Give a person a new token and print it, once. The old token is refused within two seconds. Return 1 if no enabled
    person has this name. Raises CannotServe.
    """
    token = new_token(name)
    async with _opened(settings) as fund:
        person = await change_person(*fund, name, datetime.now(UTC), token=token)
    print(f"refused: there is no enabled person {name}" if person is None else token)
    return REFUSED if person is None else 0


@contextlib.asynccontextmanager
async def _opened(settings: Settings) -> AsyncIterator[_Fund]:
    """Open the fund database with its keys, in a transaction. Raises CannotServe."""
    try:
        async with databases(settings) as dsns:
            if dsns.fund is None:
                raise CannotServe("there is no fund database: start `fundledger serve` with the fund service first")
            connection = await asyncpg.connect(
                dsns.fund, timeout=10, server_settings={"application_name": "fundledger persons"}
            )
            try:
                macs = await open_macs(connection, FileKeys(keys_folder(settings.data_dir, FUND)))
                async with connection.transaction():
                    yield _Fund(connection, macs)
                await macs.write_found(_Same(connection))
            finally:
                await connection.close()
    except asyncpg.UndefinedTableError:
        raise CannotServe("the schema is older than persons: run `fundledger migrate` first") from None
    except _AWAY as error:
        raise CannotServe(f"cannot read or write persons: {error}") from None


class _Same:
    """One connection in the form of a pool."""

    def __init__(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        self._connection = connection

    @contextlib.asynccontextmanager
    async def acquire(self) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
        yield self._connection


def _members(person: Person) -> dict[str, object]:
    times = {name: getattr(person, name) for name in ("created_at", "rotated_at", "disabled_at")}
    return {"name": person.name, "roles": sorted(person.roles), "created_by": person.created_by, **times}


def _at(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")
