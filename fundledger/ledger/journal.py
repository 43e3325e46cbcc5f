"""Reading the journal: the statement of an account, page by page.

A cursor holds, for each sub-account, the seq up to which it was read. So a page costs the same however deep it is, and
an entry that commits late on one slot is never skipped because a later one of another slot was seen already. Within
what is shown the order is (posted_at, slot, seq), and the running balance is the account's.
"""

import base64
import binascii
from datetime import UTC, date, datetime

import msgspec
from asyncpg.pgproto.pgproto import UUID

from fundledger.ledger import clock
from fundledger.ledger.account import Account
from fundledger.ledger.accounts import Layout
from fundledger.ledger.directory import Reader
from fundledger.ledger.statements import SQL

LIMIT_DEFAULT, LIMIT_MAX = 100, 1000
US_MIN = clock.us(datetime(1, 1, 1, tzinfo=UTC))
US_MAX = clock.us(datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC))


class BadCursor(Exception):
    """The cursor is not one of ours, or was made for another account or period."""


class StatementEntry(msgspec.Struct):
    """`amount` is positive on its `side`; `balance_after` is the account's, in its normal direction."""

    seq: int
    slot: int
    voucher_id: UUID
    type: str
    side: str
    amount: int
    balance_after: int
    posted_at: datetime
    accounting_date: date


class _Cursor(msgspec.Struct, array_like=True):
    account_number: int
    from_us: int | None
    to_us: int | None
    after: list[int]


async def read_statement(
    reader: Reader,
    account: Account,
    layout: Layout,
    limit: int,
    cursor: str | None,
    from_: datetime | None,
    to: datetime | None,
) -> tuple[list[StatementEntry], str | None]:
    """A page of at most `limit` entries, oldest first, and the cursor of the next one, None on the last page.

    `from_` and `to` are inclusive bounds of `posted_at`. Raises BadCursor.
    """
    places = await reader.fetch(SQL["read_slots"], account.number, list(account.shards(layout.shards)))
    shards, slots = [row["shard"] for row in places], [row["slot"] for row in places]
    position = None if cursor is None else _decode(cursor)
    if position is not None:
        _check(position, account, len(slots), from_, to)
        from_, to = (None if us is None else clock.moment(us) for us in (position.from_us, position.to_us))
    bounds = await reader.fetch(SQL["statement_bounds"], account.number, shards, slots, from_, to)
    after = [row["after"] for row in bounds]
    if position is not None:
        # Slots that were opened since the cursor was made are read from where the period begins.
        after = position.after + after[len(position.after) :]
    until = [row["until"] for row in bounds]
    rows = await reader.fetch(SQL["read_statement"], account.number, shards, slots, after, until, limit + 1)
    opening = await reader.fetch(SQL["statement_opening"], account.number, shards, slots, after)
    balance = opening[0]["posted"]
    read = dict(zip(slots, after, strict=True))
    entries = []
    for row in rows[:limit]:
        balance += row["amount"]
        read[row["slot"]] = row["seq"]
        entries.append(
            StatementEntry(
                row["seq"],
                row["slot"],
                row["voucher_id"],
                row["type"],
                "credit" if row["amount"] > 0 else "debit",
                abs(row["amount"]),
                balance * account.type.normal,
                row["posted_at"],
                row["accounting_date"],
            )
        )
    if len(rows) <= limit:
        return entries, None
    from_us, to_us = (None if bound is None else clock.us(bound) for bound in (from_, to))
    return entries, _encode(_Cursor(account.number, from_us, to_us, [read[slot] for slot in slots]))


def _encode(cursor: _Cursor) -> str:
    return base64.urlsafe_b64encode(msgspec.msgpack.encode(cursor)).decode().rstrip("=")


def _decode(cursor: str) -> _Cursor:
    try:
        packed = base64.b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        return msgspec.msgpack.decode(packed, type=_Cursor)
    except (ValueError, binascii.Error, msgspec.DecodeError):
        raise BadCursor("this is not a cursor of ours") from None


def _check(cursor: _Cursor, account: Account, sub_accounts: int, from_: datetime | None, to: datetime | None) -> None:
    asked = ((from_, cursor.from_us), (to, cursor.to_us))
    if cursor.account_number != account.number or len(cursor.after) > sub_accounts:
        raise BadCursor("this cursor was made for another account")
    if any(bound is not None and clock.us(bound) != us for bound, us in asked):
        raise BadCursor("this cursor was made for another period")
    if not all(0 <= seq < 1 << 62 for seq in cursor.after):
        raise BadCursor("this is not a cursor of ours")
    if not all(us is None or US_MIN <= us <= US_MAX for _, us in asked):
        raise BadCursor("this is not a cursor of ours")
