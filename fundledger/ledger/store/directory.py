"""Account directory of the ledger's store: a cache of account records, without balances and status."""

import struct
import sys
from collections.abc import Iterable, Sequence
from typing import Protocol

import asyncpg

from fundledger.faults import RecordTampered
from fundledger.ledger.model import clock
from fundledger.ledger.model.account import Account, shard_of
from fundledger.ledger.model.chart import CHART
from fundledger.ledger.store.queries import SQL
from fundledger.security import canonical
from fundledger.security.keys import Keys

_ACCOUNT_MAC_FAULT = "the record of account {} does not match its MAC: refused until an operator has examined it"


class AccountTampered(RecordTampered):
    """The record of an account (owner, type, currency, shard, slots and other fields) does not match its MAC."""

    def __init__(self, row: asyncpg.Record) -> None:
        super().__init__(_ACCOUNT_MAC_FAULT.format(row["id"]))
        self.account_id: str = row["id"]
        self.account_number: int = row["number"]
        self.shard: int = row["shard"]


class Reader(Protocol):
    """An asyncpg pool or connection that runs queries."""

    async def fetch(self, query: str, *args: object) -> list[asyncpg.Record]: ...


class Directory:
    """A cache of at most `2 * generation` accounts, from which accounts that were not used recently are dropped.

    The cache has two generations. An account that is found in the old generation moves to the young one. When the young
    generation is full, it becomes the old one, and the previous old one is dropped. `shards` is the number of shards of
    the ledger. If `shards` is given, a row with the wrong shard never verifies, even if its MAC does not cover the
    shard.
    """

    def __init__(self, keys: Keys, generation: int = 1 << 17, shards: int | None = None) -> None:
        self.keys = keys
        self.shards = shards
        self._generation = generation
        self._young: dict[str, Account] = {}
        self._old: dict[str, Account] = {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def get(self, account_id: str) -> Account | None:
        """Return an account if the account is in the cache, otherwise None."""
        account = self._young.get(account_id)
        if account is None:
            account = self._old.pop(account_id, None)
            if account is not None:
                self.remember(account)
        return account

    async def resolve(self, reader: Reader, account_ids: Iterable[str]) -> dict[str, Account]:
        """Return the accounts that exist among these ids. Raises AccountTampered."""
        found: dict[str, Account] = {}
        missing: list[str] = []
        for account_id in account_ids:
            account = self.get(account_id)
            if account is None:
                missing.append(account_id)
            else:
                found[account_id] = account
        if missing:
            for row in await reader.fetch(SQL["accounts_by_id"], missing):
                account = self.verified(row)
                self.remember(account)
                found[account.id] = account
        return found

    async def by_number(self, reader: Reader, numbers: Sequence[int]) -> dict[int, Account]:
        """Return the accounts that exist among these internal numbers. Raises AccountTampered."""
        rows = await reader.fetch(SQL["accounts_by_number"], numbers)
        return {row["number"]: self.verified(row) for row in rows}

    def verified(self, row: asyncpg.Record) -> Account:
        """Verify an account's row and return the account. Raises AccountTampered, KeyFault."""
        if not account_verifies(row, self.keys) or (row["layout"] == 1 and not self._is_placed(row)):
            raise AccountTampered(row)
        return Account(
            row["number"],
            row["id"],
            row["shard"],
            row["slots"],
            row["currency"],
            CHART[row["type"]],
            row["buffered"],
            sys.intern(row["owner"]),
        )

    def _is_placed(self, row: asyncpg.Record) -> bool:
        """Return whether the account is in its owner's shard. A MAC of layout 1 does not cover the shard."""
        return self.shards is None or row["shard"] == shard_of(row["owner"], self.shards)

    def remember(self, account: Account) -> None:
        """Add an account to the cache. The account must be committed, and its row verified."""
        if len(self._young) >= self._generation:
            self._old = self._young
            self._young = {}
        self._young[account.id] = account


def account_verifies(row: asyncpg.Record, keys: Keys) -> bool:
    """Return whether an account's row matches its MAC. Raises KeyFault."""
    key = keys.by_version(row["key_version"])
    try:
        return row["type"] in CHART and key.matches(message_of(row), row["mac"])
    except (ValueError, TypeError, OverflowError, struct.error):
        # The row has a value that the ledger never writes, such as an infinite time.
        return False


def message_of(row: asyncpg.Record) -> bytes:
    """Return the content that the MAC of an account's row covers.

    Raises ValueError, TypeError, OverflowError or struct.error for values that the ledger never writes.
    """
    return account_message(row, row["layout"], row["slots"], row["buffered"], row["key_version"])


def account_message(row: asyncpg.Record, layout: int, slots: int, buffered: bool, key_version: int) -> bytes:
    """Return the content of an account's row that a MAC of this layout covers.

    The parameters `slots` and `buffered` replace the values in the row.
    """
    created_at_us = clock.us(row["created_at"])
    if layout == 1:
        return canonical.account(
            row["number"],
            row["id"],
            row["owner"],
            row["type"],
            row["currency"],
            created_at_us,
            row["metadata"],
            key_version,
        )
    if layout != canonical.LAYOUT:
        raise ValueError(f"there is no layout {layout}")
    return canonical.account_2(
        row["number"],
        row["id"],
        row["module"],
        row["owner"],
        row["type"],
        row["currency"],
        row["shard"],
        slots,
        buffered,
        created_at_us,
        row["metadata"],
        key_version,
    )
