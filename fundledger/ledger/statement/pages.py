"""Pages of ledger statements, read from the journal.

A statement has one line for each line of a voucher on the account, even if the amount was taken from several slots.
A voucher that only moves amounts between slots of the account has no line. The lines are ordered by (posted_at, slot,
seq of the entry), and this order does not change after a line was shown (see `settled`). The `seq` of a line is its
number in the statement, and its `balance_after` is the balance of the whole account.

The level `entries` shows the stored entries instead of lines. The stored entries are ordinary entries, the parts of a
line that was taken from several slots, moves between slots, and summaries.

Each entry is verified before it is shown:

- the entry matches its MAC, which covers the MAC of the previous entry; no entry between the two is missing
- the lines of a summary add up to the amount of the summary
- when all entries with the same time were read, the sum of their lines equals the sum of the entries
"""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Final

import asyncpg
import msgspec
from asyncpg.pgproto.pgproto import UUID

from fundledger.ledger.model import clock
from fundledger.ledger.model.account import Account
from fundledger.ledger.statement import cursors
from fundledger.ledger.statement.cursors import BadCursor, Cursor
from fundledger.ledger.statement.positions import Position, positions_at, read_positions
from fundledger.ledger.statement.settled import AHEAD_MAX_US, settle
from fundledger.ledger.statement.sources import Source, read_sources
from fundledger.ledger.store.accounts import Layout, read_verified
from fundledger.ledger.store.directory import Directory, Reader
from fundledger.ledger.store.integrity import Tampered, check_entry, fetch_of
from fundledger.ledger.store.records import Name
from fundledger.security.keys import Keys

LIMIT_DEFAULT, LIMIT_MAX = 100, 1000
CHUNK_MIN: Final = 16
LOOKED_MAX: Final = 5000
"""Maximum number of entries read for a page. If most entries only move amounts between slots, the page is short."""
LINES, ENTRIES = "vouchers", "entries"
US_MIN = clock.us(datetime(1, 1, 1, tzinfo=UTC))
_MICROSECOND: Final = timedelta(microseconds=1)

__all__ = ["BadCursor", "StatementEntry", "read_statement"]


class StatementEntry(msgspec.Struct):
    """A line of a statement.

    - `amount`: positive; `side` says whether it is a credit or a debit
    - `balance_after`: the balance of the account, in the account's normal direction
    - `slot`: the slot of the line's entry; if the line was taken from several slots, the last of them
    - `summary`: the number of lines of the summary to which the line belongs; None if the entry is no summary

    At the level `entries`, `seq` is the seq of the entry on its slot, and a summary has no voucher.
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
    summary: int | None
    source: Source | None


async def read_statement(
    reader: Reader,
    directory: Directory,
    account: Account,
    layout: Layout,
    limit: int,
    cursor: str | None,
    from_: datetime | None,
    to: datetime | None,
    *,
    level: str = LINES,
) -> tuple[list[StatementEntry], str | None]:
    """Return a page of at most `limit` lines, oldest first, and the cursor of the next page.

    The cursor is None on the last page. A page may be short or empty although more pages follow. `from_` and `to` are
    inclusive bounds of `posted_at`. Raises BadCursor, Tampered, Unavailable; a retry is safe. No writer waits for this
    function.
    """
    keys = directory.keys
    position = None if cursor is None else cursors.decode(keys, account, cursor)
    if position is not None:
        _check(position, level, from_, to)
        from_, to = (None if us is None else clock.moment(us) for us in (position.from_us, position.to_us))
    sub_accounts, upto = await _complete(reader, keys, account, layout, to)
    until = [row["seq"] for row in sub_accounts]
    if upto is not None:
        until = [each.seq for each in await positions_at(reader, keys, account, sub_accounts, upto)]
    starts = await _starts(reader, keys, account, sub_accounts, position, from_)
    extras = await fetch_of(
        reader, account, "line_counts_at", [start.slot for start in starts], [start.seq for start in starts]
    )
    until = [max(end, start.seq) for end, start in zip(until, starts, strict=True)]
    page = _Page(account, limit, level, starts, [row["extra"] for row in extras], position)
    more = await _fill(reader, directory, page, sub_accounts, until)
    if not more:
        return page.entries, None
    # Tampered is raised unless the next entries exist and verify: no entry was removed at the end of the page.
    await read_positions(reader, keys, account, sub_accounts, page.after())
    bounds = [None if bound is None else clock.us(bound) for bound in (from_, to)]
    return page.entries, cursors.encode(keys, account, page.cursor(*bounds))


async def _complete(
    reader: Reader, keys: Keys, account: Account, layout: Layout, to: datetime | None
) -> tuple[list[asyncpg.Record], datetime | None]:
    """Return the verified sub-accounts, and the time up to which entries are shown (None: all entries).

    For an account with several slots, the time is at most AHEAD_MAX_US from now.
    """
    sub_accounts = (await read_verified(reader, keys, account, layout)).sub_accounts
    if len(sub_accounts) == 1:
        return sub_accounts, to
    upto_us = min(max(row["posted_at_us"] for row in sub_accounts), clock.now_us() + AHEAD_MAX_US)
    if to is not None:
        upto_us = min(upto_us, clock.us(to))
    await settle(reader, upto_us)
    return (await read_verified(reader, keys, account, layout)).sub_accounts, clock.moment(upto_us)


async def _starts(
    reader: Reader,
    keys: Keys,
    account: Account,
    sub_accounts: Sequence[asyncpg.Record],
    position: Cursor | None,
    from_: datetime | None,
) -> list[Position]:
    """Return the start of the page on each sub-account: for a newly opened slot, the start of the period."""
    bound = from_ is not None and clock.us(from_) > US_MIN
    if bound:
        assert from_ is not None
        starts = await positions_at(reader, keys, account, sub_accounts, from_ - _MICROSECOND)
    if position is None:
        return starts if bound else await read_positions(reader, keys, account, sub_accounts, [0] * len(sub_accounts))
    after = position.after
    if len(after) > len(sub_accounts) or any(seq > row["seq"] for seq, row in zip(after, sub_accounts, strict=False)):
        raise BadCursor("this cursor is newer than the ledger, which was restored from a backup")
    opened = [start.seq for start in starts[len(after) :]] if bound else [0] * (len(sub_accounts) - len(after))
    return await read_positions(reader, keys, account, sub_accounts, [*after, *opened])


async def _fill(
    reader: Reader,
    directory: Directory,
    page: "_Page",
    sub_accounts: Sequence[asyncpg.Record],
    until: Sequence[int],
) -> bool:
    """Read entries until the page is full. Return whether more entries follow."""
    shards, slots = [row["shard"] for row in sub_accounts], [row["slot"] for row in sub_accounts]
    chunk, looked = min(page.limit + 1, CHUNK_MIN), 0
    account = page.account
    while True:
        rows = await fetch_of(reader, account, "read_statement", shards, slots, page.after(), until, chunk)
        page.verify(directory.keys, rows)
        page.sources = await read_sources(reader, directory, account, page.wanted(rows))
        for row in rows:
            if not page.add(row):
                return True
        if len(rows) < chunk:
            page.ends(until)
            return False
        looked += chunk
        if looked >= LOOKED_MAX:
            return True
        chunk = min(2 * chunk, 2 * LIMIT_MAX)


class _Page:
    """A page that is being filled, row by row. `add` returns False if not all lines of a row fit on the page."""

    def __init__(
        self,
        account: Account,
        limit: int,
        level: str,
        starts: Sequence[Position],
        extras: Sequence[int],
        position: Cursor | None,
    ) -> None:
        self.account = account
        self.limit = limit
        self.entries: list[StatementEntry] = []
        self.sources: dict[Name, Source] = {}
        self._level = level
        self._shards = {start.slot: start.shard for start in starts}
        self._read = {start.slot: start.seq for start in starts}
        self._macs = {start.slot: start.mac for start in starts}
        self._balances = {start.slot: start.balance for start in starts}
        self._extras = {start.slot: extra for start, extra in zip(starts, extras, strict=True)}
        self._verified = dict(self._read)
        self._parts = {} if position is None else {slot: (count, amount) for slot, count, amount in position.parts}
        self._ahead = 0 if position is None else position.ahead
        self._stored = sum(start.balance for start in starts)
        self._shown = sum(start.seq for start in starts) + sum(extras) + sum(n for n, _ in self._parts.values())
        self._time: datetime | None = None

    def after(self) -> list[int]:
        """Return the last seq that was read on each slot, in the order of slots."""
        return list(self._read.values())

    def cursor(self, from_us: int | None, to_us: int | None) -> Cursor:
        parts = [(slot, count, amount) for slot, (count, amount) in self._parts.items()]
        return Cursor(from_us, to_us, self._level, self.after(), parts, self._ahead)

    def verify(self, keys: Keys, rows: Sequence[asyncpg.Record]) -> None:
        """Verify the MAC of each entry, and that the entry follows the previous entry of its slot. Raises Tampered."""
        self._verified, macs, balances = dict(self._read), dict(self._macs), dict(self._balances)
        for row in rows:
            slot, seq = row["slot"], row["seq"]
            if seq != self._verified[slot] + 1:
                raise self._tampered(row, f"entry {self._verified[slot] + 1} of slot {slot} is missing")
            check_entry(keys, self.account, row["shard"], row, macs[slot])
            if row["balance_after"] != balances[slot] + row["amount"]:
                raise self._tampered(row, f"entry {seq} of slot {slot} does not add up")
            self._verified[slot], macs[slot], balances[slot] = seq, row["mac"], row["balance_after"]

    def ends(self, until: Sequence[int]) -> None:
        """Verify that all entries up to `until` were read. Raises Tampered."""
        for (slot, seq), last in zip(self._read.items(), until, strict=True):
            if seq != last:
                raise Tampered(self.account, self._shards[slot], slot, f"entry {seq + 1} of slot {slot} is missing")
        self._adds_up()

    def wanted(self, rows: Sequence[asyncpg.Record]) -> list[Name]:
        """Return the names of the vouchers whose lines still fit on the page."""
        room = self.limit - len(self.entries)
        names: dict[Name, None] = {}
        for row in rows:
            if room <= 0:
                break
            if row["vouchers"] is None:
                names[row["module"], row["voucher_id"]] = None
                room -= 0 if self._level == LINES and row["extra"] is not None else 1
            elif self._level == LINES:
                begun = self._begun(row)
                names |= dict.fromkeys([(row["module"], id_) for id_ in row["vouchers"][: begun + room]])
                room -= len(row["vouchers"]) - begun
            else:
                room -= 1
        return list(names)

    def add(self, row: asyncpg.Record) -> bool:
        if self._time is not None and row["posted_at"] != self._time:
            self._adds_up()
        extra = self._extras[row["slot"]] if row["extra"] is None else row["extra"]
        lines = 1 + extra - self._extras[row["slot"]]
        if self._level == ENTRIES:
            done = self._add_entry(row)
        elif row["vouchers"] is not None:
            done = self._add_summary(row, lines)
        elif row["extra"] is None:
            done = self._add_line(row)
        elif lines == 0:
            done = self._hide(row)
        else:
            done = self._add_spread(row, lines)
        if done:
            slot = row["slot"]
            self._time = row["posted_at"]
            self._read[slot], self._macs[slot], self._balances[slot] = row["seq"], row["mac"], row["balance_after"]
            self._extras[slot] = extra
        return done

    def _add_entry(self, row: asyncpg.Record) -> bool:
        if self._room() == 0:
            return False
        source = None if row["voucher_id"] is None else self._source(row, row["voucher_id"])
        self._stored += row["amount"]
        summed = None if row["vouchers"] is None else len(row["vouchers"])
        self._show(row, row["seq"], source, row["amount"], summed)
        return True

    def _add_line(self, row: asyncpg.Record) -> bool:
        if self._room() == 0:
            return False
        source = self._source(row, row["voucher_id"])
        if row["amount"] not in source.amounts:
            raise self._tampered(row, f"entry {row['seq']} of slot {row['slot']} is not a line of its voucher")
        self._stored += row["amount"]
        self._line(row, source, row["amount"], None)
        return True

    def _hide(self, row: asyncpg.Record) -> bool:
        """Skip an entry without lines: it moves an amount between slots, or its line is shown at another entry."""
        self._stored += row["amount"]
        self._ahead -= row["amount"]
        return True

    def _add_spread(self, row: asyncpg.Record, lines: int) -> bool:
        """Show all lines of a voucher on this account. `row` is the last entry into which the lines were split."""
        if self._room() == 0:
            return False
        source = self._source(row, row["voucher_id"])
        if lines != len(source.amounts):
            raise self._tampered(row, f"entry {row['seq']} of slot {row['slot']} is not {lines} lines")
        begun, _ = self._parts.get(row["slot"], (0, 0))
        for amount in source.amounts[begun:]:
            if self._room() == 0:
                self._parts[row["slot"]] = (begun, 0)
                return False
            self._ahead += amount
            self._line(row, source, amount, None)
            begun += 1
        self._parts.pop(row["slot"], None)
        self._stored += row["amount"]
        self._ahead -= row["amount"]
        return True

    def _add_summary(self, row: asyncpg.Record, lines: int) -> bool:
        summed = row["vouchers"]
        if lines != len(summed):
            raise self._tampered(row, f"entry {row['seq']} of slot {row['slot']} is not {lines} lines")
        begun, total = self._parts.get(row["slot"], (0, 0))
        end = min(len(summed), begun + self._room())
        nth: dict[UUID, int] = {}
        for place, id_ in enumerate(summed[:end]):
            number = nth[id_] = nth.get(id_, -1) + 1
            if place >= begun:
                source = self._source(row, id_)
                if number >= len(source.amounts):
                    raise self._tampered(row, f"voucher {id_} has fewer lines than its summary")
                total += source.amounts[number]
                self._ahead += source.amounts[number]
                self._line(row, source, source.amounts[number], len(summed))
        if end < len(summed):
            if end > 0:
                self._parts[row["slot"]] = (end, total)
            return False
        if total != row["amount"]:
            raise self._tampered(row, f"the lines of entry {row['seq']} of slot {row['slot']} add up to {total}")
        self._parts.pop(row["slot"], None)
        self._stored += row["amount"]
        self._ahead -= row["amount"]
        return True

    def _begun(self, row: asyncpg.Record) -> int:
        """Return how many lines of this row were shown on earlier pages."""
        slot = row["slot"]
        return self._parts[slot][0] if slot in self._parts and row["seq"] == self._read[slot] + 1 else 0

    def _room(self) -> int:
        return self.limit - len(self.entries)

    def _line(self, row: asyncpg.Record, source: Source, amount: int, summed: int | None) -> None:
        self._shown += 1
        self._show(row, self._shown, source, amount, summed)

    def _show(self, row: asyncpg.Record, seq: int, source: Source | None, amount: int, summed: int | None) -> None:
        self.entries.append(
            StatementEntry(
                seq,
                row["slot"],
                None if source is None else source.id,
                "summary" if source is None else source.type,
                "credit" if amount > 0 else "debit",
                abs(amount),
                (self._stored + self._ahead) * self.account.type.normal,
                row["posted_at"],
                row["accounting_date"],
                summed,
                source,
            )
        )

    def _source(self, row: asyncpg.Record, id_: UUID) -> Source:
        source = self.sources.get((row["module"], id_))
        if source is None:
            raise self._tampered(row, f"voucher {id_} is missing")
        return source

    def _adds_up(self) -> None:
        """Verify that the lines add up to the entries. Call it after the last entry of each time. Raises Tampered."""
        if self._ahead != 0:
            wrong = f"the lines differ from the slots by {self._ahead}"
            raise Tampered(self.account, next(iter(self._shards.values())), 0, wrong)

    def _tampered(self, row: asyncpg.Record, wrong: str) -> Tampered:
        return Tampered(self.account, row["shard"], row["slot"], wrong, row)


def _check(cursor: Cursor, level: str, from_: datetime | None, to: datetime | None) -> None:
    if cursor.level != level:
        raise BadCursor("this cursor was issued for another level")
    asked = ((from_, cursor.from_us), (to, cursor.to_us))
    if any(bound is not None and clock.us(bound) != us for bound, us in asked):
        raise BadCursor("this cursor was issued for another period")
