"""Reading the journal: the statement of an account, page by page.

A cursor holds, for each sub-account, the seq up to which it was read. So a page costs the same however deep it is, and
an entry that commits late on one slot is never skipped because a later one of another slot was seen already. Within
what is shown the order is (posted_at, slot, seq), and the running balance is the account's. A summary is shown as the
lines that it sums, in its place, or as it stands.
"""

import base64
import binascii
from datetime import UTC, date, datetime

import asyncpg
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
    """`amount` is positive on its `side`; `balance_after` is the account's, in its normal direction.

    A line that was journaled by a summary has that entry's `seq`, and `summary` tells of how many lines it is one. The
    summary itself has no voucher.
    """

    seq: int
    slot: int
    voucher_id: UUID | None
    type: str
    side: str
    amount: int
    balance_after: int
    posted_at: datetime
    accounting_date: date
    summary: int | None = None


class _Cursor(msgspec.Struct, array_like=True):
    """Up to which seq each slot was read. `parts`: on which slots lines of the summary behind that were read as well,
    how many, and what they come to.
    """

    account_number: int
    from_us: int | None
    to_us: int | None
    after: list[int]
    parts: list[tuple[int, int, int]] = []


async def read_statement(
    reader: Reader,
    account: Account,
    layout: Layout,
    limit: int,
    cursor: str | None,
    from_: datetime | None,
    to: datetime | None,
    *,
    detailed: bool = True,
) -> tuple[list[StatementEntry], str | None]:
    """A page of at most `limit` entries, oldest first, and the cursor of the next one, None on the last page.

    `from_` and `to` are inclusive bounds of `posted_at`. `detailed`: in place of a summary, each line that it sums is
    shown. Raises BadCursor.
    """
    places = await reader.fetch(SQL["read_slots"], account.number, list(account.shards(layout.shards)))
    shards, slots = [row["shard"] for row in places], [row["slot"] for row in places]
    position = None if cursor is None else _decode(cursor)
    if position is not None:
        _check(position, account, len(slots), from_, to)
        if position.parts and not detailed:
            raise BadCursor("this cursor was made for a statement in detail")
        from_, to = (None if us is None else clock.moment(us) for us in (position.from_us, position.to_us))
    bounds = await reader.fetch(SQL["statement_bounds"], account.number, shards, slots, from_, to)
    after = [row["after"] for row in bounds]
    if position is not None:
        # Slots that were opened since the cursor was made are read from where the period begins.
        after = position.after + after[len(position.after) :]
    until = [row["until"] for row in bounds]
    rows = await reader.fetch(SQL["read_statement"], account.number, shards, slots, after, until, limit + 1)
    opening = await reader.fetch(SQL["statement_opening"], account.number, shards, slots, after)
    parts = {} if position is None else {slot: (count, amount) for slot, count, amount in position.parts}
    page = _Page(account, limit, opening[0]["posted"], dict(zip(slots, after, strict=True)), parts)
    if detailed:
        page.detailed = True
        page.lines = await _lines(reader, account, page, rows)
    more = not all(page.add(row) for row in rows)
    if not more:
        return page.entries, None
    from_us, to_us = (None if bound is None else clock.us(bound) for bound in (from_, to))
    next_ = _Cursor(account.number, from_us, to_us, [page.read[slot] for slot in slots], page.begun_summaries())
    return page.entries, _encode(next_)


class _Page:
    """A page as it fills: `add` answers False for the row that has no room, or not for all its lines."""

    def __init__(
        self, account: Account, limit: int, balance: int, read: dict[int, int], parts: dict[int, tuple[int, int]]
    ) -> None:
        self.entries: list[StatementEntry] = []
        self.lines: dict[UUID, list[asyncpg.Record]] = {}
        self.detailed = False
        self.read = read
        self._parts = parts
        self._normal = account.type.normal
        self._limit = limit
        self._balance = balance + sum(amount for _, amount in parts.values())

    def begun(self, row: asyncpg.Record) -> int:
        """How many lines of this row earlier pages have shown."""
        slot = row["slot"]
        return self._parts[slot][0] if slot in self._parts and row["seq"] == self.read[slot] + 1 else 0

    def begun_summaries(self) -> list[tuple[int, int, int]]:
        """Slots on which a summary was shown in part, how many lines of it, and what those come to."""
        return [(slot, count, amount) for slot, (count, amount) in self._parts.items()]

    def room(self) -> int:
        return self._limit - len(self.entries)

    def add(self, row: asyncpg.Record) -> bool:
        if self.room() == 0:
            return False
        if row["vouchers"] is None or not self.detailed:
            self._show(row, row["voucher_id"], row["type"] or "summary", row["amount"], row["vouchers"])
            self.read[row["slot"]] = row["seq"]
            return True
        begun, before = self.begun(row), self._balance
        end = begun + self.room()
        nth: dict[UUID, int] = {}
        for position, id_ in enumerate(row["vouchers"][:end]):
            number = nth[id_] = nth.get(id_, -1) + 1
            if position >= begun:
                lines = self.lines.get(id_, [])
                # A voucher that is gone has no line to show any more; `verify` tells.
                type_, amount = (lines[number]["type"], lines[number]["amount"]) if number < len(lines) else ("gone", 0)
                self._show(row, id_, type_, amount, row["vouchers"])
        if end < len(row["vouchers"]):
            shown = self._parts[row["slot"]][1] if begun else 0
            self._parts[row["slot"]] = (end, shown + self._balance - before)
            return False
        self._parts.pop(row["slot"], None)
        self.read[row["slot"]] = row["seq"]
        return True

    def _show(self, row: asyncpg.Record, id_: UUID | None, type_: str, amount: int, summed: list[UUID] | None) -> None:
        self._balance += amount
        self.entries.append(
            StatementEntry(
                row["seq"],
                row["slot"],
                id_,
                type_,
                "credit" if amount > 0 else "debit",
                abs(amount),
                self._balance * self._normal,
                row["posted_at"],
                row["accounting_date"],
                None if summed is None else len(summed),
            )
        )


async def _lines(
    reader: Reader, account: Account, page: _Page, rows: list[asyncpg.Record]
) -> dict[UUID, list[asyncpg.Record]]:
    """Of the summaries among these rows, as many lines as the page has room for."""
    wanted: list[UUID] = []
    room = page.room()
    for row in rows:
        if room <= 0:
            break
        if row["vouchers"] is None:
            room -= 1
        else:
            begun = page.begun(row)
            wanted += dict.fromkeys(row["vouchers"][: begun + room])
            room -= len(row["vouchers"]) - begun
    found: dict[UUID, list[asyncpg.Record]] = {}
    if wanted:
        for line in await reader.fetch(SQL["read_lines"], account.number, wanted):
            found.setdefault(line["id"], []).append(line)
    return found


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
    if not all(-(1 << 62) < number < 1 << 62 for part in cursor.parts for number in part):
        raise BadCursor("this is not a cursor of ours")
    if not all(us is None or US_MIN <= us <= US_MAX for _, us in asked):
        raise BadCursor("this is not a cursor of ours")
