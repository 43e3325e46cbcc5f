"""Reconciliation of the ledger's evidence: checks accounts, vouchers, holds and buffered credits against their MACs.

Each function adds findings to `checks`. For each function, a tuple has the names of its checks, in the same sequence:
ACCOUNTS for `check_accounts`.
"""

from collections.abc import Sequence
from typing import Any, Final

import asyncpg

from fundledger.ledger.model.chart import CHART
from fundledger.ledger.model.voucher import digest_of
from fundledger.ledger.rules.buffer import message_of
from fundledger.ledger.store.accounts import Layout
from fundledger.ledger.store.buffer_rows import buffered_credit
from fundledger.ledger.store.directory import account_message
from fundledger.ledger.store.records import hold_message, voucher_message
from fundledger.reconciliation.reading import Names, Rows
from fundledger.reconciliation.report import Check, Difference
from fundledger.security.keys import Keys

ACCOUNTS: Final = ("mac_verifies_accounts", "sub_accounts_complete")
VOUCHERS: Final = ("mac_verifies_vouchers", "voucher_matches_digest", "voucher_sums_to_zero")
HOLDS: Final = ("mac_verifies_holds",)
BUFFER: Final = ("mac_verifies_buffered",)
CHUNK: Final = 5000

Accounts = dict[int, tuple[str, str]]
"""Ids and currencies of accounts by account number: `{number: (id, currency)}`."""


async def check_accounts(checks: Sequence[Check], accounts: Rows, keys: Keys, layout: Layout) -> None:
    """Check that each account matches its MAC and has all its sub-accounts."""
    macs, complete = checks
    async for row in accounts:
        macs.examine(row, _account, _account_verifies, keys)
        complete.examine(row, _account, _all_sub_accounts, layout)


def _account_verifies(row: asyncpg.Record, keys: Keys) -> Difference:
    message = account_message(row, row["layout"], row["slots"], row["buffered"], row["key_version"])
    if not keys.by_version(row["key_version"]).matches(message, row["mac"]):
        yield "its MAC", "different content"


def _all_sub_accounts(row: asyncpg.Record, layout: Layout) -> Difference:
    kind = CHART.get(row["type"])
    expected = row["slots"] * layout.shards if kind is not None and kind.platform else row["existing"]
    if row["sub_accounts"] != expected:
        yield f"{expected} sub-accounts", row["sub_accounts"]
    if kind is not None and not kind.platform and not 1 <= row["slots"] <= row["existing"]:
        yield f"postings to 1 to {row['existing']} slots", f"slots {row['slots']}"
    if row["buffered"] != row["first_buffered"] and row["first_buffered"] is not None:
        yield f"buffered {row['first_buffered']}, as its first slot", row["buffered"]


async def check_vouchers(checks: Sequence[Check], vouchers: Rows, names: Names, keys: Keys) -> None:
    """Check that each voucher matches its MAC, that its digest matches its content, and that its lines add up to zero
    in one currency.
    """
    chunk: list[asyncpg.Record] = []
    async for row in vouchers:
        chunk.append(row)
        if len(chunk) == CHUNK:
            await _check_chunk(chunk, names, keys, checks)
            chunk = []
    await _check_chunk(chunk, names, keys, checks)


async def _check_chunk(chunk: list[asyncpg.Record], names: Names, keys: Keys, checks: Sequence[Check]) -> None:
    macs, digests, sums = checks
    accounts = await names(numbers_in(chunk))
    for row in chunk:
        macs.examine(row, _voucher, _voucher_verifies, keys)
        digests.examine(row, _voucher, _voucher_digest, accounts)
        sums.examine(row, _voucher, _voucher_sums, accounts)


def numbers_in(rows: Sequence[Any]) -> list[int]:
    """Return the account numbers that the lines of vouchers contain. Malformed values are left out."""
    lines = [row["lines"] for row in rows]
    return list({number for of in lines if of is not None for number in of[::2] if isinstance(number, int)})


def pairs(lines: Any) -> list[tuple[int, int]]:
    """Return `(account number, signed amount)` for each line of a voucher. Raises ValueError for a malformed array."""
    if lines is None or len(lines) % 2 or not all(isinstance(item, int) for item in lines):
        raise ValueError(f"lines {lines} are not pairs of account number and amount")
    return list(zip(lines[::2], lines[1::2], strict=True))


def _voucher_verifies(row: asyncpg.Record, keys: Keys) -> Difference:
    pairs(row["lines"])
    message = voucher_message(row, row["layout"], row["key_version"])
    if not keys.by_version(row["key_version"]).matches(message, row["mac"]):
        yield "its MAC", "different content"


def _voucher_digest(row: asyncpg.Record, accounts: Accounts) -> Difference:
    lines = pairs(row["lines"])
    unknown = sorted({number for number, _ in lines if number not in accounts})
    if unknown:
        yield "accounts", ", ".join(f"account number {number}, which does not exist" for number in unknown)
        return
    asked = [(accounts[number][0], amount) for number, amount in lines]
    digest = digest_of(row["type"], asked, row["reference"], row["metadata"], row["hold"], row["reverses"])
    if digest != row["digest"]:
        yield "the requested content, by its digest", "different content"


def _voucher_sums(row: asyncpg.Record, accounts: Accounts) -> Difference:
    lines = pairs(row["lines"])
    total = sum(amount for _, amount in lines)
    currencies = {accounts.get(number, ("?", "?"))[1] for number, _ in lines}
    if total != 0 or (row["refusal"] is None and len(currencies) != 1):
        yield "0 in one currency", f"{total} in {sorted(currencies)}"


async def check_holds(checks: Sequence[Check], holds: Rows, keys: Keys) -> None:
    """Check that each hold matches its MAC."""
    (macs,) = checks
    async for row in holds:
        macs.examine(row, _hold, _hold_verifies, keys)


def _hold_verifies(row: asyncpg.Record, keys: Keys) -> Difference:
    message = hold_message(row, row["layout"], row["key_version"])
    if not keys.by_version(row["key_version"]).matches(message, row["mac"]):
        yield "its MAC", "different content"


async def check_buffer(checks: Sequence[Check], buffered: Rows, keys: Keys) -> None:
    """Check that each buffered credit matches its MAC, and that no credit of a batch is missing.

    `buffered` is ordered by account, batch and number.
    """
    (check,) = checks
    before: asyncpg.Record | None = None
    async for row in buffered:
        if before is not None and _batch(before) != _batch(row):
            _ends(check, before)
            before = None
        check.examine(row, _buffered, _buffered_verifies, before, keys)
        before = row
    if before is not None:
        _ends(check, before)


def _buffered_verifies(row: asyncpg.Record, before: asyncpg.Record | None, keys: Keys) -> Difference:
    if row["number"] != (1 if before is None else before["number"] + 1):
        yield "the previous row", "none"
    # The last column is the account's id, which only findings contain.
    message = message_of(row["account_number"], buffered_credit(row[:-1]))
    if not keys.by_version(row["key_version"]).matches(message, row["mac"]):
        yield "its MAC", "different content"


def _batch(row: asyncpg.Record) -> tuple[int, int]:
    return row["account_number"], row["batch"]


def _ends(check: Check, last: asyncpg.Record) -> None:
    if last["number"] != last["of"]:
        check.differs(_buffered(last), "the next row", "none")


def _account(row: asyncpg.Record) -> str:
    return f"account {row['id']}"


def _voucher(row: asyncpg.Record) -> str:
    return f"voucher {row['id']}"


def _hold(row: asyncpg.Record) -> str:
    return f"hold {row['id']}"


def _buffered(row: asyncpg.Record) -> str:
    name = f"account number {row['account_number']}" if row["id"] is None else f"account {row['id']}"
    return f"{name}: buffered credit {row['number']} of {row['of']}, batch {row['batch']}"
