"""The evidence side of a verification: every row against its MAC, every chain, every balance against its journal."""

from collections.abc import AsyncIterator, Awaitable, Callable

import asyncpg
from asyncpg.pgproto.pgproto import UUID

from fundledger.ledger import clock
from fundledger.ledger.accounts import Layout
from fundledger.ledger.batch import Unfolded
from fundledger.ledger.buffer import what_is_wrong
from fundledger.ledger.buffer_rows import unfolded
from fundledger.ledger.chart import CHART
from fundledger.ledger.directory import account_message
from fundledger.ledger.records import hold_message, voucher_message
from fundledger.ledger.voucher import digest_of
from fundledger.reconciliation.report import Check
from fundledger.security import canonical
from fundledger.security.keys import Keys

Rows = AsyncIterator[asyncpg.Record]
Names = Callable[[list[int]], Awaitable[dict[int, tuple[str, str]]]]


class _Journal:
    """The entries of one sub-account as they pass by: what its row must say in the end."""

    __slots__ = ("balance", "mac", "posted_at_us", "seq")

    def __init__(self) -> None:
        self.seq = 0
        self.balance = 0
        self.mac = canonical.GENESIS
        self.posted_at_us = 0


async def check_journal(sub_accounts: Rows, entries: Rows, keys: Keys) -> list[Check]:
    """Both in the order of (shard, account, slot), entries by seq after that; read once, side by side."""
    linked, chained = Check("entries_linked"), Check("chain_verifies")
    equal, macs, floor = Check("balance_equals_entries"), Check("mac_verifies_sub_accounts"), Check("sub_account_floor")
    entry = await anext(entries, None)
    async for row in sub_accounts:
        place = (row["shard"], row["account_number"], row["slot"])
        while entry is not None and (entry[0], entry[1], entry[2]) < place:
            linked.differs(_entry(entry), "a sub-account", "none")
            entry = await anext(entries, None)
        journal = _Journal()
        while entry is not None and (entry[0], entry[1], entry[2]) == place:
            linked.rows += 1
            chained.rows += 1
            _follow(journal, entry, keys, linked, chained)
            entry = await anext(entries, None)
        equal.rows += 1
        _compare(row, journal, equal)
        macs.rows += 1
        if not _sub_account_verifies(row, keys):
            macs.differs(_sub_account(row), "its MAC", "another content")
        floor.rows += 1
        _check_floor(row, floor)
    while entry is not None:
        linked.differs(_entry(entry), "a sub-account", "none")
        entry = await anext(entries, None)
    return [linked, chained, equal, macs, floor]


def _follow(journal: _Journal, entry: asyncpg.Record, keys: Keys, linked: Check, chained: Check) -> None:
    _, number, slot, seq, voucher_id, amount, after, date, posted_at, key_version, mac, summed = entry
    posted_at_us = clock.us(posted_at)
    if seq != journal.seq + 1:
        linked.differs(_entry(entry), f"seq {journal.seq + 1}", f"seq {seq}")
    if after != journal.balance + amount:
        linked.differs(_entry(entry), f"balance after {journal.balance + amount}", after)
    if posted_at_us < journal.posted_at_us:
        linked.differs(_entry(entry), "a time not before the previous entry's", posted_at)
    key = keys.by_version(key_version)
    of = voucher_id.bytes if summed is None else b"".join([id_.bytes for id_ in summed])
    canonical_message = canonical.entry if summed is None else canonical.summary
    message = canonical_message(
        number, slot, seq, of, amount, after, date.toordinal(), posted_at_us, journal.mac, key_version
    )
    if key.tag(message) != mac:
        chained.differs(_entry(entry), "its MAC, chained to the previous entry", "another content")
    journal.seq, journal.balance, journal.mac, journal.posted_at_us = seq, after, mac, posted_at_us


def _compare(row: asyncpg.Record, journal: _Journal, check: Check) -> None:
    expected = (journal.balance, journal.seq, journal.mac.hex())
    actual = (row["posted"], row["seq"], row["last_entry_mac"].hex())
    if expected != actual:
        check.differs(_sub_account(row), f"posted, seq, last MAC {expected}", actual)


def _sub_account_verifies(row: asyncpg.Record, keys: Keys) -> bool:
    if row["currency"] is None:
        return False
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
    return bool(
        keys.by_version(row["key_version"]).tag(canonical.first_of(row["slots"], row["buffered"], message))
        == row["mac"]
    )


def _check_floor(row: asyncpg.Record, check: Check) -> None:
    kind = CHART.get(row["type"])
    if kind is None:
        check.differs(_sub_account(row), "an account of the chart", row["type"])
        return
    if (row["normal"], row["bounded"]) != (kind.normal, kind.bounded):
        check.differs(_sub_account(row), f"{kind.name}: {kind.normal}, {kind.bounded}", (row["normal"], row["bounded"]))
    available = kind.normal * row["posted"] - row["held"]
    if row["held"] < 0 or (kind.bounded and available < 0):
        check.differs(_sub_account(row), "available >= 0, held >= 0", f"available {available}, held {row['held']}")


async def check_accounts(accounts: Rows, keys: Keys, layout: Layout) -> list[Check]:
    macs, complete = Check("mac_verifies_accounts"), Check("sub_accounts_complete")
    async for row in accounts:
        macs.rows += 1
        if keys.by_version(row["key_version"]).tag(account_message(row)) != row["mac"]:
            macs.differs(f"account {row['id']}", "its MAC", "another content")
        complete.rows += 1
        kind = CHART.get(row["type"])
        expected = row["slots"] * layout.shards if kind is not None and kind.platform else row["existing"]
        if row["sub_accounts"] != expected:
            complete.differs(f"account {row['id']}", f"{expected} sub-accounts", row["sub_accounts"])
    return [macs, complete]


async def check_vouchers(vouchers: Rows, names: Names, keys: Keys) -> list[Check]:
    """MAC, digest against the stored content, and lines that sum to zero in one currency."""
    macs, digests, sums = Check("mac_verifies_vouchers"), Check("voucher_matches_digest"), Check("voucher_sums_to_zero")
    chunk: list[asyncpg.Record] = []
    async for row in vouchers:
        chunk.append(row)
        if len(chunk) == 5000:
            await _check_chunk(chunk, names, keys, (macs, digests, sums))
            chunk = []
    await _check_chunk(chunk, names, keys, (macs, digests, sums))
    return [macs, digests, sums]


async def _check_chunk(
    chunk: list[asyncpg.Record], names: Names, keys: Keys, checks: tuple[Check, Check, Check]
) -> None:
    accounts = await names(list({number for row in chunk for number in row["lines"][::2]}))
    macs, digests, sums = checks
    for check in checks:
        check.rows += len(chunk)
    for row in chunk:
        lines = row["lines"]
        if keys.by_version(row["key_version"]).tag(voucher_message(row)) != row["mac"]:
            macs.differs(_voucher(row["id"]), "its MAC", "another content")
        named = [accounts.get(number, ("?", "?")) for number in lines[::2]]
        asked = [(name, amount) for (name, _), amount in zip(named, lines[1::2], strict=True)]
        digest = digest_of(row["type"], asked, row["reference"], row["metadata"], row["hold"], row["reverses"])
        if digest != row["digest"]:
            digests.differs(_voucher(row["id"]), "the content that was asked for", "another")
        currencies = {currency for _, currency in named}
        if sum(lines[1::2]) != 0 or (row["refusal"] is None and len(currencies) != 1):
            sums.differs(_voucher(row["id"]), "0 in one currency", f"{sum(lines[1::2])} in {sorted(currencies)}")


async def check_holds(holds: Rows, keys: Keys) -> list[Check]:
    check = Check("mac_verifies_holds")
    async for row in holds:
        check.rows += 1
        if keys.by_version(row["key_version"]).tag(hold_message(row)) != row["mac"]:
            check.differs(f"hold {row['id']}", "its MAC", "another content")
    return [check]


async def check_buffer(buffered: Rows, keys: Keys) -> Check:
    """Each row against its MAC, and whether an account has all rows of a batch. In order."""
    check = Check("mac_verifies_buffered")
    number, waiting = 0, list[Unfolded]()
    async for row in buffered:
        check.rows += 1
        if row["account_number"] != number or (len(waiting) >= 5000 and row["number"] == 1):
            _compare_buffer(check, number, waiting, keys)
            number, waiting = row["account_number"], []
        waiting.append(unfolded(row))
    _compare_buffer(check, number, waiting, keys)
    return check


def _compare_buffer(check: Check, number: int, waiting: list[Unfolded], keys: Keys) -> None:
    wrong = what_is_wrong(keys, number, waiting)
    if wrong is not None:
        check.differs(f"account number {number}", "all rows, each with its MAC", wrong)


def _entry(row: asyncpg.Record) -> str:
    return f"account number {row['account_number']} slot {row['slot']} seq {row['seq']}"


def _sub_account(row: asyncpg.Record) -> str:
    return f"account {row['id']} (number {row['account_number']}) slot {row['slot']}"


def _voucher(id_: UUID) -> str:
    return f"voucher {id_}"
