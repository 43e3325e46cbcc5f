"""Rules of the ledger for entries: each entry changes the balance of a sub-account and is chained to the previous one.

A line on a platform account changes the balance when the line is decided. Its entry is written at the end of the batch:
for each sub-account and module, one entry (a summary) stands for all lines and lists their vouchers. The amounts of the
single lines are in the vouchers. An entry and all voucher ids in it therefore belong to one module.
"""

from collections.abc import Sequence
from datetime import date
from typing import Any, Final

import asyncpg
from asyncpg.pgproto.pgproto import UUID

from fundledger.ledger.model import clock
from fundledger.ledger.model.account import Account, SubAccount
from fundledger.ledger.model.batch import Batch
from fundledger.ledger.model.voucher import Key
from fundledger.security import canonical


class _NoLine:
    """Line counts of a voucher that has entries but no statement lines: -1 (0 lines minus 1) for each entry."""

    def get(self, _: int) -> int:
        return -1


NO_LINE: Final = _NoLine()


def lines_of_parts(
    touched: Sequence[SubAccount], parts: Sequence[tuple[Account, int]], lines: Sequence[tuple[Account, int]]
) -> dict[int, int]:
    """Return the number of statement lines minus one for each part that is not exactly one line, by index of the part.

    `parts` are the lines of a voucher after amounts were taken from several slots. If the parts of an account are on
    several slots, all lines of the account are shown at the last part on the highest slot. The balance in the statement
    therefore never falls below the sum of the slots.
    """
    found: dict[int, int] = {}
    for number in {account.number for account, _ in parts}:
        own = [i for i, (account, _) in enumerate(parts) if account.number == number]
        count = sum(account.number == number for account, _ in lines)
        if len(own) != count or len({touched[i].slot for i in own}) > 1:
            found |= dict.fromkeys(own, -1)
            found[max(own, key=lambda i: (touched[i].slot, i))] = count - 1
    return found


def write_entries(
    batch: Batch,
    voucher: Key,
    touched: Sequence[SubAccount],
    lines: Sequence[tuple[Account, int]],
    counts: dict[int, int] | _NoLine | None = None,
) -> None:
    """Write the entries of a voucher. `touched[i]` is the sub-account of `lines[i]`.

    `counts` is the result of `lines_of_parts`, or None if each entry is one statement line. If the batch writes
    summaries, a line on a platform account is added to `batch.summaries` instead.
    """
    module, voucher_id = voucher
    tag, key_version = batch.key.tag, batch.key.version
    id_bytes, date_ordinal, posted_at_us = voucher_id.bytes, batch.date_ordinal, batch.posted_at_us
    append, summarises = batch.entries.append, batch.summarises
    fixed, of_module = canonical.entry_2_fixed, canonical.module_of(module)
    for i, (account, amount) in enumerate(lines):
        s = touched[i]
        s.posted = balance = s.posted + amount
        s.written = True
        if summarises and account.type.platform:
            batch.summaries.setdefault(s, []).append((voucher, amount))
            continue
        number, slot = account.number, s.slot
        s.seq = seq = s.seq + 1
        s.last_entry_mac = mac = tag(
            fixed(
                number, slot, seq, id_bytes, amount, balance, date_ordinal, posted_at_us, s.last_entry_mac, key_version
            )
            + of_module
        )
        append((s.shard, number, slot, seq, voucher_id, amount, balance, mac, None, module))
        if counts is not None:
            more = counts.get(i)
            if more is not None:
                batch.counts.append((s.shard, number, slot, seq, more))


def write_summaries(batch: Batch) -> None:
    """Write the entries of all lines in `batch.summaries`: one entry for each sub-account and module."""
    for s, lines in batch.summaries.items():
        by_module: dict[str, list[tuple[Key, int]]] = {}
        for line in lines:
            by_module.setdefault(line[0][0], []).append(line)
        # `s.posted` already contains the amounts of all lines.
        balance = s.posted - sum(amount for _, amount in lines)
        for module, of_module in by_module.items():
            amount = sum(amount for _, amount in of_module)
            balance += amount
            write_later(batch, s, module, [key[1] for key, _ in of_module], amount, balance)
    batch.summaries = {}


def write_later(
    batch: Batch,
    s: SubAccount,
    module: str | None,
    voucher_ids: list[UUID],
    amount: int,
    balance_after: int,
    accounting_date: date | None = None,
) -> None:
    """Write one entry that stands for one line of each voucher in `voucher_ids`.

    `s.posted` already contains the amounts. The entry is a summary unless there is only one line. `module` is None for
    vouchers that were buffered before modules were recorded.
    """
    alone = len(voucher_ids) == 1
    s.seq += 1
    fields = (
        s.account.number,
        s.slot,
        s.seq,
        b"".join([id_.bytes for id_ in voucher_ids]),
        amount,
        balance_after,
        batch.date_ordinal if accounting_date is None else accounting_date.toordinal(),
        batch.posted_at_us,
        s.last_entry_mac,
        batch.key.version,
    )
    s.last_entry_mac = mac = batch.key.tag(_message(module, alone, fields))
    of = voucher_ids[0] if alone else voucher_ids
    batch.entries.append(
        (s.shard, s.account.number, s.slot, s.seq, of, amount, balance_after, mac, accounting_date, module)
    )
    if not alone:
        batch.counts.append((s.shard, s.account.number, s.slot, s.seq, len(voucher_ids) - 1))


def _message(module: str | None, alone: bool, fields: tuple[Any, ...]) -> bytes:
    if module is None:
        return (canonical.entry if alone else canonical.summary)(*fields)
    return (canonical.entry_2 if alone else canonical.summary_2)(module, *fields)


def message_of(row: asyncpg.Record, previous_mac: bytes) -> bytes:
    """Return the content that the MAC of an entry covers."""
    summed: list[UUID] | None = row["vouchers"]
    ids = row["voucher_id"].bytes if summed is None else b"".join([id_.bytes for id_ in summed])
    fields = (
        row["account_number"],
        row["slot"],
        row["seq"],
        ids,
        row["amount"],
        row["balance_after"],
        row["accounting_date"].toordinal(),
        clock.us(row["posted_at"]),
        previous_mac,
        row["key_version"],
    )
    return _message(row["module"], summed is None, fields)
