"""Store of the fund service: persons, with the cache of each worker that authenticates their bearer tokens.

A worker reads all persons every LOOK_EVERY_S seconds, so a request reads nothing from the database. A row that does not
match its MAC authenticates no person.
"""

import asyncio
import hashlib
import secrets
import time
from collections.abc import Collection
from datetime import datetime
from typing import Any, Final

import msgspec

from fundledger.faults import Unavailable
from fundledger.fund.model.person import PERSONS_MAX, Person, Role
from fundledger.fund.store.mac_layouts import PERSON, person_fields
from fundledger.fund.store.macs import OrderMacs
from fundledger.fund.store.orders import AnyConnection
from fundledger.fund.store.queries import SQL
from fundledger.security.tokens import digest_of

LOOK_EVERY_S: Final = 0.5
FRESH_S: Final = 2.0
"""The maximum age of the cache, in seconds. With an older cache no person is authenticated, because the person may have
been disabled since.
"""


class Persons:
    """The persons of the fund database, with the cache of one worker."""

    def __init__(self, pool: Any, macs: OrderMacs) -> None:
        self._pool = pool
        self._macs = macs
        self._by_digest: dict[bytes, Person] = {}
        self._roles: dict[str, frozenset[Role]] = {}
        self._looked_at = -FRESH_S

    def identity(self, authorization: str | None) -> str | None:
        """Return the identity (`person:NAME`) to which the token in an `Authorization` header belongs. None: the token
        belongs to no person, or the person is disabled. Never waits. Raises Unavailable if the cache is too old.
        """
        digest = digest_of(authorization)
        person = None if digest is None else self._by_digest.get(digest)
        if person is None:
            return None
        if time.monotonic() - self._looked_at > FRESH_S:
            raise Unavailable("persons cannot be authenticated now, because the fund database does not answer")
        return person.identity

    def has_role(self, identity: str, role: str) -> bool:
        """Return whether a person, named by its identity, has a role."""
        return role in self._roles.get(identity, ())

    async def watch(self) -> None:
        """Repeat until cancelled: read all persons. May be restarted after an exception."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_EVERY_S)

    async def look(self) -> None:
        """Read all persons into the cache. Raises what asyncpg raises."""
        began = time.monotonic()
        found = [person for person in await read_persons(self._pool, self._macs) if person.disabled_at is None]
        if began < self._looked_at:
            # A read that began later has ended already. This one may lack a person, or have one since disabled.
            return
        self._by_digest = {person.token_digest: person for person in found}
        self._roles = {person.identity: person.roles for person in found}
        self._looked_at = began


async def read_persons(connection: AnyConnection, macs: OrderMacs) -> list[Person]:
    """Return the persons whose rows match their MACs, by name. Other rows are reported. Raises what asyncpg raises."""
    rows = await connection.fetch(SQL["read_persons"], PERSONS_MAX)
    return [_person(row) for row in rows if macs.agrees(PERSON, "person", row["name"], person_fields, row)]


async def add_person(
    connection: AnyConnection, macs: OrderMacs, name: str, roles: Collection[Role], by: str, at: datetime, token: str
) -> bool:
    """Insert a person. Return False if a person with this name exists. The comparison of names ignores case. Raises
    what asyncpg raises.
    """
    person = Person(name, frozenset(roles), _digest(token), by, at)
    columns = name, sorted(person.roles), person.token_digest, by, at
    row = await connection.fetchrow(SQL["write_person"], *columns, *_seal(macs, person), PERSONS_MAX)
    return row is not None


async def change_person(
    connection: AnyConnection,
    macs: OrderMacs,
    name: str,
    at: datetime,
    *,
    token: str | None = None,
    disable: bool = False,
) -> Person | None:
    """Give a person a new token, or disable the person. Return the person, or None if no enabled person has this name.
    Raises what asyncpg raises.
    """
    found = {person.name: person for person in await read_persons(connection, macs)}
    person = found.get(name)
    if person is None or person.disabled_at is not None:
        return None
    if token is not None:
        # The database refuses a time before that of the last token, which a clock that was set back would give.
        rotated_at = max(at, person.rotated_at or person.created_at)
        person = msgspec.structs.replace(person, token_digest=_digest(token), rotated_at=rotated_at)
    if disable:
        person = msgspec.structs.replace(person, disabled_at=at)
    changed = person.token_digest, person.rotated_at, person.disabled_at
    await connection.execute(SQL["change_person"], name, *changed, *_seal(macs, person))
    return person


def new_token(name: str) -> str:
    """Return a new bearer token. The name makes it recognisable; only the rest is secret."""
    return f"{name}_" + secrets.token_urlsafe(32)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _seal(macs: OrderMacs, person: Person) -> tuple[int, bytes]:
    return macs.rows.tag(PERSON, person_fields({**msgspec.structs.asdict(person), "roles": sorted(person.roles)}))


def _person(row: Any) -> Person:
    return Person(
        row["name"],
        frozenset(map(Role, row["roles"])),
        row["token_digest"],
        row["created_by"],
        row["created_at"],
        row["rotated_at"],
        row["disabled_at"],
    )
