"""Positions in ledger statements: for each sub-account of an account, a verified entry and the verified next one."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import TypeAlias

import asyncpg
import msgspec

from fundledger.ledger.model.account import Account
from fundledger.ledger.store.directory import Reader
from fundledger.ledger.store.integrity import Tampered, check_entry, fetch_of
from fundledger.security import canonical
from fundledger.security.keys import Keys

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


class Position(msgspec.Struct, frozen=True):
    """A position on a sub-account, between two entries: after `entry` and before `next`.

    `entry` is None before the first entry, `next` is None after the last one.
    """

    shard: int
    slot: int
    seq: int
    entry: asyncpg.Record | None
    next: asyncpg.Record | None

    @property
    def balance(self) -> int:
        """The balance after the entry, signed, credit positive."""
        return 0 if self.entry is None else int(self.entry["balance_after"])

    @property
    def mac(self) -> bytes:
        return canonical.GENESIS if self.entry is None else self.entry["mac"]


@asynccontextmanager
async def snapshot(reader: Reader) -> AsyncIterator[Reader]:
    """Yield a reader whose queries all read one snapshot of the database (repeatable read, read only)."""
    if isinstance(reader, asyncpg.Pool):
        async with reader.acquire() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
            yield connection
    else:
        assert isinstance(reader, asyncpg.Connection)
        async with reader.transaction(isolation="repeatable_read", readonly=True):
            yield reader


async def read_positions(
    reader: Reader, keys: Keys, account: Account, sub_accounts: Sequence[asyncpg.Record], seqs: Sequence[int]
) -> list[Position]:
    """Return the position on each `sub_accounts[i]` after the entry with the seq `seqs[i]`. Raises Tampered.

    `seqs[i]` is at most the last seq of the sub-account. The entry at the position and the next entry are verified. The
    MAC of each also covers the MAC of the entry before it.
    """
    shards, slots = [row["shard"] for row in sub_accounts], [row["slot"] for row in sub_accounts]
    rows = await fetch_of(reader, account, "entries_around", shards, slots, seqs)
    found = {(row["shard"], row["slot"], row["seq"]): row for row in rows}
    positions = []
    for sub_account, seq in zip(sub_accounts, seqs, strict=True):
        shard, slot = sub_account["shard"], sub_account["slot"]

        def entry(at: int, shard: int = shard, slot: int = slot) -> asyncpg.Record:
            row = found.get((shard, slot, at))
            if row is None:
                raise Tampered(account, shard, slot, f"entry {at} of slot {slot} is missing")
            return row

        here = after = None
        if seq > 0:
            here = entry(seq)
            check_entry(keys, account, shard, here, entry(seq - 1)["mac"] if seq > 1 else canonical.GENESIS)
        if seq < sub_account["seq"]:
            after = entry(seq + 1)
            check_entry(keys, account, shard, after, canonical.GENESIS if here is None else here["mac"])
        positions.append(Position(shard, slot, seq, here, after))
    return positions


async def positions_at(
    reader: Reader, keys: Keys, account: Account, sub_accounts: Sequence[asyncpg.Record], at: datetime
) -> list[Position]:
    """Return the position on each sub-account after the last entry at or before the time `at`. Raises Tampered."""
    shards, slots = [row["shard"] for row in sub_accounts], [row["slot"] for row in sub_accounts]
    found = await fetch_of(reader, account, "seqs_at", shards, slots, at)
    seqs = [min(row["seq"], of["seq"]) for row, of in zip(found, sub_accounts, strict=True)]
    positions = await read_positions(reader, keys, account, sub_accounts, seqs)
    for position in positions:
        # The search for `seqs` has read times that were not verified. Check the verified times.
        if (position.entry is not None and position.entry["posted_at"] > at) or (
            position.next is not None and position.next["posted_at"] <= at
        ):
            raise Tampered(
                account, position.shard, position.slot, f"the entries of slot {position.slot} are out of order"
            )
    return positions
