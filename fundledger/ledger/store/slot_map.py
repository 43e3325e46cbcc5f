"""Slot map of the ledger's store: write new slots, numbers of slots and buffering policies, and update the workers."""

import logging
from collections.abc import Sequence

import asyncpg
import msgspec

from fundledger.ledger.model.batch import Batch
from fundledger.ledger.store.directory import AccountTampered, Directory, Reader, account_message, account_verifies
from fundledger.ledger.store.queries import SQL
from fundledger.security import canonical
from fundledger.security.keys import KeyFault, Keys

_log = logging.getLogger(__name__)


class Route(msgspec.Struct, frozen=True):
    """The row of the slot map for an account: the number of slots to which workers post, and the buffering policy.

    Each change of the row increases `epoch` by one.
    """

    account_number: int
    slots: int
    buffered: bool
    epoch: int


async def write_opened(connection: "asyncpg.Connection[asyncpg.Record]", batch: Batch) -> None:
    """Insert the new slots of a batch. The caller has locked slot 0 of each account."""
    for first in batch.resized:
        account = first.account
        new = [slot for slot in batch.opened if slot.account.number == account.number]
        await connection.execute(
            SQL["open_slots"],
            first.shard,
            account.number,
            account.type.normal,
            account.type.bounded,
            batch.key.version,
            canonical.GENESIS,
            [slot.slot for slot in new],
            [slot.stored[4] for slot in new],
            batch.posted_at_us,
        )


async def write_routes(connection: "asyncpg.Connection[asyncpg.Record]", batch: Batch, keys: Keys) -> None:
    """Write the numbers of slots that a batch has changed. The caller has locked all slots of each account.

    Raises AccountTampered, KeyFault.
    """
    for request in batch.routes:
        number, key = request.account.number, batch.key
        row = await _account(connection, number, keys)
        mac = key.tag(account_message(row, canonical.LAYOUT, request.slots, row["buffered"], key.version))
        await connection.execute(
            SQL["write_route"], number, request.slots, request.reason, request.module, key.version, mac
        )


async def write_policies(connection: "asyncpg.Connection[asyncpg.Record]", batch: Batch, keys: Keys) -> None:
    """Write the buffering policies that a batch has changed. The caller has locked slot 0 of each account.

    Raises AccountTampered, KeyFault.
    """
    for policy in batch.policies:
        number, key = policy.account.number, batch.key
        row = await _account(connection, number, keys)
        mac = key.tag(account_message(row, canonical.LAYOUT, row["slots"], policy.buffered, key.version))
        await connection.execute(
            SQL["write_policy"], number, policy.buffered, policy.reason, policy.module, key.version, mac
        )


async def _account(connection: "asyncpg.Connection[asyncpg.Record]", number: int, keys: Keys) -> asyncpg.Record:
    """Lock an account's row, verify it and return it. The caller may then write a new MAC."""
    row = await connection.fetchrow(SQL["lock_account"], number)
    assert row is not None, "an account is never deleted"
    if not account_verifies(row, keys):
        raise AccountTampered(row)
    return row


async def read_routes(reader: Reader) -> list[Route]:
    """Return the slot map: one row for each account that was ever split or whose policy ever changed."""
    rows = await reader.fetch(SQL["read_routes"])
    return [Route(row["account_number"], row["slots"], row["buffered"], row["epoch"]) for row in rows]


async def follow(reader: Reader, directory: Directory, known: dict[int, int], routes: Sequence[Route]) -> None:
    """Update a worker's directory from the slot map. `known` maps account numbers to the epochs that were applied."""
    for route in routes:
        if known.get(route.account_number) == route.epoch:
            continue
        known[route.account_number] = route.epoch
        try:
            account = (await directory.by_number(reader, [route.account_number])).get(route.account_number)
        except (AccountTampered, KeyFault) as error:
            # It is safe to skip the account, because postings to the account are refused.
            extra = {"event": "integrity_finding"}
            _log.critical("a slot map entry is not applied: %s", error, extra=extra)
            continue
        if account is not None and not account.type.platform:
            # The slot map has no MAC and only signals the change. The new values are from the account's verified row.
            directory.remember(account)
