"""Integrity checks of reads in the ledger's store: each row matches its MAC, and no row of an account is missing.

The read of an account ends at the first row that does not verify. Reads of other accounts continue. The caller of the
read records the finding.
"""

import hashlib
import struct
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import asyncpg
import msgspec

from fundledger.faults import BooksTampered
from fundledger.ledger.model.account import Account, Status
from fundledger.ledger.model.batch import BufferedCredit
from fundledger.ledger.rules.buffer import what_is_wrong
from fundledger.ledger.rules.entries import message_of
from fundledger.ledger.store.directory import AccountTampered, Reader
from fundledger.ledger.store.evidence import Found, write_findings
from fundledger.ledger.store.queries import SQL
from fundledger.security import canonical
from fundledger.security.keys import KeyFault, Keys

UNREADABLE: Final = (KeyFault, struct.error, OverflowError, ValueError, TypeError)
"""Errors caused by an unknown key, or by a value that the ledger never writes, such as a value that is out of range."""


class Tampered(BooksTampered):
    """The rows of an account do not verify, so no amount of the account is shown. `evidence` is the finding as JSON.

    A retry does not help. Other accounts are not affected.
    """

    def __init__(
        self, account: Account | AccountTampered, shard: int, slot: int, wrong: str, row: asyncpg.Record | None = None
    ) -> None:
        self.account_id, self.account_number = _named(account)
        super().__init__(f"account {self.account_id}: {wrong}")
        self.shard = shard
        self.slot = slot
        found = {"read": wrong, "row": {} if row is None else {name: _shown(value) for name, value in row.items()}}
        self.evidence = msgspec.json.encode(found).decode()

    @classmethod
    def record(cls, found: AccountTampered) -> "Tampered":
        """Return the fault for an account whose own record does not verify."""
        return cls(found, found.shard, 0, "its record (owner, type, currency) does not match its MAC")


def _named(account: Account | AccountTampered) -> tuple[str, int]:
    return (
        (account.id, account.number) if isinstance(account, Account) else (account.account_id, account.account_number)
    )


def _shown(value: object) -> object:
    """Return a column's value in a form that JSON can represent."""
    if isinstance(value, bytes):
        return value.hex()
    return value if value is None or isinstance(value, bool | int) else str(value)


class Places(Protocol):
    """The part of a ledger's layout that determines the shards of sub-accounts."""

    @property
    def shards(self) -> int: ...


def verifies(keys: Keys, key_version: int, mac: bytes, message: Callable[[], bytes]) -> bool:
    """Return whether a row matches its MAC. A row with values that cannot be encoded does not match."""
    try:
        return keys.by_version(key_version).matches(message(), mac)
    except UNREADABLE:
        return False


def sub_account_message(account: Account, row: asyncpg.Record) -> bytes:
    """Return the content that the MAC of a sub-account's row covers."""
    message = canonical.sub_account(
        account.number,
        row["slot"],
        account.currency.encode(),
        row["posted"],
        row["held"],
        row["version"],
        row["status"],
        row["seq"],
        row["posted_at_us"],
        row["last_entry_mac"],
        row["key_version"],
    )
    return canonical.first_of(row["slots"], row["buffered"], message)


def check_sub_accounts(keys: Keys, account: Account, layout: Places, rows: Sequence[asyncpg.Record]) -> None:
    """Verify that each row belongs to the account and is unchanged, and that no sub-account is missing.

    Besides the columns of the sub-account, each row has `journal_seq` and `journal_mac`, the seq and MAC of
    its last entry in the journal. Raises Tampered.
    """
    found = {}
    for row in rows:
        where = (row["shard"], row["slot"])
        if not verifies(keys, row["key_version"], row["mac"], lambda row=row: sub_account_message(account, row)):  # type: ignore[misc]
            raise Tampered(account, *where, f"slot {row['slot']} does not match its MAC", row)
        if (row["normal"], row["bounded"]) != (account.type.normal, account.type.bounded):
            raise Tampered(account, *where, f"slot {row['slot']} is not of the account's type", row)
        if row["suspect"] or row["status"] == Status.FROZEN_INTEGRITY:
            raise Tampered(account, *where, "it is frozen because its books do not verify")
        found[where] = row
        last = (row["journal_seq"] or 0, row["journal_mac"] or canonical.GENESIS)
        if last != (row["seq"], row["last_entry_mac"]):
            raise Tampered(account, *where, f"slot {row['slot']} does not agree with its last entry", row)
    for shard, slot in _expected(account, layout, found) ^ found.keys():
        wrong = "is missing" if (shard, slot) not in found else "should not be there"
        raise Tampered(account, shard, slot, f"slot {slot} in shard {shard} {wrong}")


def _expected(account: Account, layout: Places, found: dict[tuple[int, int], asyncpg.Record]) -> set[tuple[int, int]]:
    """Return the (shard, slot) of each sub-account that the account must have.

    For a merchant's account, slot 0 records the number of slots, and the MAC of slot 0 covers that number.
    """
    if account.type.platform:
        return {(shard, slot) for shard in account.shards(layout.shards) for slot in account.slots_in(shard)}
    first = found.get((account.shard, 0))
    return {(account.shard, slot) for slot in range(1 if first is None else first["slots"])}


def check_buffered(keys: Keys, account: Account, rows: Sequence[BufferedCredit]) -> None:
    """Verify that each buffered credit matches its MAC, and that no buffered credit is missing. Raises Tampered."""
    try:
        wrong = what_is_wrong(keys, account.number, rows)
    except UNREADABLE as error:
        wrong = str(error)
    if wrong is not None:
        raise Tampered(account, account.shard, 0, f"buffered credits do not verify: {wrong}")


def check_entry(keys: Keys, account: Account, shard: int, row: asyncpg.Record, previous_mac: bytes) -> None:
    """Verify that an entry matches its MAC, which covers the MAC of the previous entry. Raises Tampered."""
    if not verifies(keys, row["key_version"], row["mac"], lambda: message_of(row, previous_mac)):
        wrong = f"entry {row['seq']} of slot {row['slot']} does not match its MAC"
        raise Tampered(account, shard, row["slot"], wrong, row)


async def fetch_of(reader: Reader, account: Account, name: str, *arguments: object) -> list[asyncpg.Record]:
    """Return the rows of a query about one account. The first parameter of the query is the number of the account.

    Raises Tampered if a row has a value that cannot be decoded.
    """
    return await fetch_readable(reader, account, name, account.number, *arguments)


async def fetch_readable(reader: Reader, account: Account, name: str, *arguments: object) -> list[asyncpg.Record]:
    """Return the rows of a query. Raises Tampered if a row has a value that cannot be decoded."""
    try:
        return await reader.fetch(SQL[name], *arguments)
    except (ValueError, OverflowError) as error:
        if isinstance(error, asyncpg.InterfaceError):
            raise
        raise Tampered(account, account.shard, 0, f"a row of {name} cannot be read: {error}") from None


async def record_finding(connection: "asyncpg.Connection[asyncpg.Record]", keys: Keys, found: Tampered) -> None:
    """Record the finding of a read, in a transaction. A finding that is recorded already is not recorded again.

    Raises ChainBroken, KeyFault.
    """
    digest = hashlib.sha256(found.evidence.encode()).hexdigest()[:32]
    subject = f"account number {found.account_number} slot {found.slot} {digest}"
    place = {"shard": found.shard, "account_number": found.account_number, "slot": found.slot}
    async with connection.transaction():
        await write_findings(connection, keys, [Found(found.evidence, "read", subject, **place)])
