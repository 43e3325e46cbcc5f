"""Trial balance of the ledger: the balance of every account at one time, in debit and credit columns, page by page.

Over all accounts of a currency, the debits equal the credits. Each page adds its sums to those of the pages before it,
which the cursor contains, so the last page has the totals at no additional cost.
"""

from collections.abc import Mapping
from datetime import UTC, datetime

import asyncpg
import msgspec

from fundledger.ledger.model import clock
from fundledger.ledger.model.account import Account
from fundledger.ledger.statement.cursors import BadCursor, TrialCursor, decode_trial, encode_trial
from fundledger.ledger.statement.positions import positions_at, snapshot
from fundledger.ledger.statement.settled import settle
from fundledger.ledger.store.accounts import AccountFilter, Layout, list_account_ids, read_verified
from fundledger.ledger.store.directory import AccountTampered, Directory, Reader
from fundledger.ledger.store.integrity import UNREADABLE, Tampered
from fundledger.ledger.store.queries import SQL


class Row(msgspec.Struct, frozen=True):
    """An account of the trial balance. One of `debit` and `credit` is 0, the other is the balance, in minor units."""

    account: Account
    debit: int
    credit: int


class Sums(msgspec.Struct):
    """The sums of the two columns over accounts of one currency, in minor units."""

    debit: int = 0
    credit: int = 0


class TrialPage(msgspec.Struct):
    """A page of the trial balance at the time `at`. `totals`: the sums by currency over all pages until now.
    `unverified`: the ids of accounts whose rows do not match their MACs; they are in no sum. `cursor`: None on the last
    page.
    """

    at: datetime
    rows: list[Row]
    totals: dict[str, Sums]
    unverified: list[str]
    cursor: str | None


async def read_trial_balance(
    reader: Reader, directory: Directory, layout: Layout, at: datetime | None, cursor: str | None, limit: int
) -> TrialPage:
    """Return a page of at most `limit` accounts, ordered by id. A time after now, or None, means now.

    All pages have the time of the first page. No entry of this time or an earlier time is written later, so the pages
    fit together. The cost of a page grows with the number of slots of its accounts, not with the number of entries.
    Raises BadCursor, Unavailable; a retry is safe. No writer waits for this function, but a batch that is being written
    during the first page may be decided again with a later time.
    """
    asked_us = None if at is None else clock.us(at)
    if cursor is None:
        now_us = clock.now_us()
        begun = TrialCursor(asked_us, now_us if asked_us is None else min(asked_us, now_us), "", [])
        await settle(reader, begun.at_us)
    else:
        begun = decode_trial(directory.keys, cursor)
        if begun.asked_us != asked_us:
            raise BadCursor("this cursor was issued for another `at`")
    page = TrialPage(clock.moment(begun.at_us), [], _unpacked(begun), [], None)
    async with snapshot(reader) as frozen:
        ids, following = await list_account_ids(frozen, AccountFilter(), begun.after, limit)
        for id_ in ids:
            try:
                row = await _row(frozen, directory, layout, id_, page.at)
            except (AccountTampered, Tampered, *UNREADABLE) as error:
                if isinstance(error, asyncpg.InterfaceError):
                    raise
                page.unverified.append(id_)
                continue
            if row is not None:
                page.rows.append(row)
                sums = page.totals.setdefault(row.account.currency, Sums())
                sums.debit, sums.credit = sums.debit + row.debit, sums.credit + row.credit
    if following is not None:
        end = TrialCursor(asked_us, begun.at_us, following, _packed(page.totals))
        page.cursor = encode_trial(directory.keys, end)
    return page


async def _row(reader: Reader, directory: Directory, layout: Layout, id_: str, at: datetime) -> Row | None:
    """Return the row of an account, or None if the account was opened after the time `at`. Raises AccountTampered,
    Tampered.
    """
    found = (await reader.fetch(SQL["accounts_by_id"], [id_]))[0]
    account = directory.verified(found)
    if found["created_at"].astimezone(UTC) > at:
        return None
    sub_accounts = (await read_verified(reader, directory.keys, account, layout)).sub_accounts
    balance = sum(each.balance for each in await positions_at(reader, directory.keys, account, sub_accounts, at))
    return Row(account, max(0, -balance), max(0, balance))


def _packed(totals: Mapping[str, Sums]) -> list[tuple[str, bytes, bytes]]:
    return [(currency, _bytes(sums.debit), _bytes(sums.credit)) for currency, sums in totals.items()]


def _unpacked(cursor: TrialCursor) -> dict[str, Sums]:
    return {currency: Sums(int.from_bytes(debit), int.from_bytes(credit)) for currency, debit, credit in cursor.totals}


def _bytes(amount: int) -> bytes:
    return amount.to_bytes((amount.bit_length() + 7) // 8)
