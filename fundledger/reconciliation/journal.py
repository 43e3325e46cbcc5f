"""Reconciliation of the ledger's journal: checks that entries match their MACs and each other, and that balances match
the entries.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Final

import asyncpg

from fundledger.ledger.model import clock
from fundledger.ledger.model.chart import CHART
from fundledger.ledger.rules.entries import message_of
from fundledger.reconciliation.reading import Names, Rows
from fundledger.reconciliation.report import FINDINGS_MAX, READABLE, Check, Difference
from fundledger.security import canonical
from fundledger.security.keys import Keys

Place = tuple[int, int, int]

JOURNAL: Final = (
    "entries_linked",
    "chain_verifies",
    "balance_equals_entries",
    "mac_verifies_sub_accounts",
    "sub_account_floor",
)


class _Journal:
    """State of a sub-account after the entries that were read so far. After the last entry, the row of the sub-account
    must match this state.
    """

    __slots__ = ("account", "balance", "mac", "posted_at_us", "seq")

    def __init__(self, account: str) -> None:
        self.account = account
        self.seq = 0
        self.balance = 0
        self.mac = canonical.GENESIS
        self.posted_at_us = 0


async def check_journal(checks: Sequence[Check], sub_accounts: Rows, entries: Rows, names: Names, keys: Keys) -> None:
    """Compare the sub-accounts against the entries, in one merge pass. `checks[i]` has the name `JOURNAL[i]`.

    `sub_accounts` has to be ordered by (shard, account, slot), and `entries` by (shard, account, slot, seq).
    """
    linked, chained, equal, macs, floor = checks
    placed = _placed(entries, linked, _entry)
    entry = await anext(placed, None)

    async def orphan(of: tuple[Place, asyncpg.Record]) -> None:
        linked.rows += 1
        linked.differs(_entry(of[1], await _named(linked, names, of[0][1])), "a sub-account", "none")

    async for place, row in _placed(sub_accounts, equal, _sub_account):
        while entry is not None and entry[0] < place:
            await orphan(entry)
            entry = await anext(placed, None)
        journal = _Journal(_account(row))
        while entry is not None and entry[0] == place:
            _follow(journal, entry[1], keys, linked, chained)
            entry = await anext(placed, None)
        equal.examine(row, _sub_account, _against_journal, journal)
        macs.examine(row, _sub_account, _against_mac, keys)
        floor.examine(row, _sub_account, _against_floor)
    while entry is not None:
        await orphan(entry)
        entry = await anext(placed, None)


async def _placed(
    rows: Rows, check: Check, named: Callable[[asyncpg.Record], str]
) -> AsyncIterator[tuple[Place, asyncpg.Record]]:
    """Yield each row with the shard, account number and slot of its sub-account. A row in which one of these is NULL
    cannot be merged, so it is reported and skipped.
    """
    async for row in rows:
        place = (row["shard"], row["account_number"], row["slot"])
        if None in place:
            check.rows += 1
            check.differs(named(row), READABLE, "a shard, account number or slot that is NULL")
        else:
            yield place, row


async def _named(check: Check, names: Names, number: int) -> str | None:
    """Return the name of an account, or None if the account is unknown, or if the list of findings is full."""
    if len(check.findings) >= FINDINGS_MAX:
        return None
    found = (await names([number])).get(number)
    return None if found is None else f"account {found[0]} (number {number})"


def _follow(journal: _Journal, entry: asyncpg.Record, keys: Keys, linked: Check, chained: Check) -> None:
    """Compare an entry with the previous entry. Then continue from the stored values of this entry, so that one edit
    causes findings only where it was made.
    """
    linked.rows += 1
    chained.rows += 1
    seq, amount, after = entry["seq"], entry["amount"], entry["balance_after"]
    if seq != journal.seq + 1:
        linked.differs(_entry(entry, journal.account), f"seq {journal.seq + 1}", f"seq {seq}")
    if amount is None or after != journal.balance + amount:
        linked.differs(_entry(entry, journal.account), f"balance after {journal.balance + (amount or 0)}", after)
    try:
        posted_at_us = clock.us(entry["posted_at"])
        if posted_at_us < journal.posted_at_us:
            linked.differs(_entry(entry, journal.account), "a time not before the previous entry's", entry["posted_at"])
        journal.posted_at_us = posted_at_us
        key = keys.by_version(entry["key_version"])
        if not key.matches(message_of(entry, journal.mac), entry["mac"]):
            chained.differs(
                _entry(entry, journal.account), "its MAC, chained to the previous entry", "different content"
            )
    except Exception as error:
        chained.unreadable(_entry(entry, journal.account), error)
    journal.seq = journal.seq + 1 if seq is None else seq
    journal.balance = journal.balance if after is None else after
    journal.mac = entry["mac"] or b""


def _against_journal(row: asyncpg.Record, journal: _Journal) -> Difference:
    expected = (journal.balance, journal.seq, journal.mac.hex())
    actual = (row["posted"], row["seq"], row["last_entry_mac"].hex())
    if expected != actual:
        yield f"posted, seq, last MAC {expected}", actual


def _against_mac(row: asyncpg.Record, keys: Keys) -> Difference:
    if row["currency"] is None:
        yield "an account", f"account number {row['account_number']}, which does not exist"
        return
    message = canonical.sub_account(
        row["account_number"],
        row["slot"],
        row["currency"].encode(),
        row["posted"],
        row["held"],
        row["version"],
        row["status"],
        row["seq"],
        row["posted_at_us"],
        row["last_entry_mac"],
        row["key_version"],
    )
    whole = canonical.first_of(row["slots"], row["buffered"], message)
    if not keys.by_version(row["key_version"]).matches(whole, row["mac"]):
        yield "its MAC", "different content"


def _against_floor(row: asyncpg.Record) -> Difference:
    kind = CHART.get(row["type"])
    if kind is None:
        yield "an account type of the chart", row["type"]
        return
    if (row["normal"], row["bounded"]) != (kind.normal, kind.bounded):
        yield f"{kind.name}: {kind.normal}, {kind.bounded}", (row["normal"], row["bounded"])
    available = kind.normal * row["posted"] - row["held"]
    if row["held"] < 0 or (kind.bounded and available < 0):
        yield "available >= 0, held >= 0", f"available {available}, held {row['held']}"


def _entry(row: asyncpg.Record, account: str | None = None) -> str:
    name = account or f"account number {row['account_number']}"
    return f"{name} slot {row['slot']} seq {row['seq']}"


def _sub_account(row: asyncpg.Record) -> str:
    return f"{_account(row)} slot {row['slot']}"


def _account(row: Any) -> str:
    """Return the name of an account: its id, or its internal number if the account has no row."""
    number = row["account_number"]
    return f"account number {number}" if row["id"] is None else f"account {row['id']} (number {number})"
