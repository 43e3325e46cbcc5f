"""Rules of the ledger for buffered posting: store credits in a buffer, without a wait for the account's row.

A credit of a buffered account is written to `buffered_entries` in the transaction of its voucher, and counts as pending
immediately. A later transaction drains the credits into slot 0 of the account. Under the lock of slot 0, the
transaction writes an entry with the sum of the buffered rows, and deletes these rows. Each row is therefore posted
exactly once, even after a crash. A drain uses no watermark. It reads the rows that exist, so a row that is committed
late is not missed.

A transaction that buffers a credit takes FOR KEY SHARE on slot 0. This lock does not block writes of the balance. The
lock blocks a freeze, a close and a change of policy, all of which lock slot 0 FOR UPDATE.
"""

from collections.abc import Sequence
from datetime import date
from typing import Final

from fundledger.ledger.model.account import Account, Status, SubAccount
from fundledger.ledger.model.batch import Batch, BufferedCredit
from fundledger.ledger.model.voucher import Key
from fundledger.ledger.rules.entries import write_later
from fundledger.security import canonical
from fundledger.security.keys import Keys

AMOUNT_MAX: Final = 1 << 40
"""Maximum amount of a buffered credit. Larger credits are posted directly, so that draining the buffer cannot move a
balance out of the supported range."""

Lines = Sequence[tuple[Account, int]]


def defer(
    batch: Batch, voucher: Key, touched: Sequence[SubAccount], lines: Lines
) -> tuple[list[SubAccount], list[tuple[Account, int]]]:
    """Buffer the lines on accounts in `batch.deferred`. Return the other lines and their sub-accounts."""
    places: list[SubAccount] = []
    rest: list[tuple[Account, int]] = []
    for sub_account, line in zip(touched, lines, strict=True):
        if line[0].number in batch.deferred:
            batch.buffered.append((line[0].number, voucher, line[1]))
        else:
            places.append(sub_account)
            rest.append(line)
    return places, rest


def what_is_wrong(keys: Keys, account_number: int, rows: Sequence[BufferedCredit]) -> str | None:
    """Check the buffered rows of an account. Return a description of the first wrong or missing row, or None.

    `rows` are all buffered rows of the account, in order. Raises KeyFault.
    """
    before: BufferedCredit | None = None
    for row in rows:
        if not keys.by_version(row.key_version).matches(message_of(account_number, row), row.mac):
            return f"batch {row.batch}, row {row.number} of {row.of}: does not match its MAC"
        follows = before is not None and before.batch == row.batch
        whole = before is None or follows or before.number == before.of
        if not whole or row.number != (before.number + 1 if follows and before is not None else 1):
            return f"batch {row.batch}, row {row.number} of {row.of}: one before it is missing"
        before = row
    if before is not None and before.number != before.of:
        return f"batch {before.batch}, row {before.number} of {before.of}: the next one is missing"
    return None


def message_of(account_number: int, row: BufferedCredit) -> bytes:
    """Return the content that the MAC of the buffered row covers."""
    fields = (
        account_number,
        row.batch,
        row.number,
        row.of,
        row.voucher_id.bytes,
        row.amount,
        row.accounting_date.toordinal(),
        row.posted_at_us,
        row.key_version,
    )
    return canonical.buffered(*fields) if row.module is None else canonical.buffered_2(row.module, *fields)


def drain(batch: Batch) -> None:
    """Post the buffered rows in `batch.backlog`. Call it before the first command is decided.

    Writes one entry for each pair of module and accounting date among the rows.
    """
    for number, rows in batch.backlog.items():
        first = batch.sub_accounts[number << 16]
        if first.status not in (Status.OPEN, Status.FROZEN_DEBITS):
            continue
        days: dict[tuple[date, str | None], list[BufferedCredit]] = {}
        for row in sorted(rows, key=_arrival):
            days.setdefault((row.accounting_date, row.module), []).append(row)
        for (day, module), of_day in days.items():
            amount = sum(row.amount for row in of_day)
            first.posted += amount
            first.written = True
            write_later(batch, first, module, [row.voucher_id for row in of_day], amount, first.posted, day)
        batch.drained += [(number, row) for row in rows]


def _arrival(row: BufferedCredit) -> tuple[int, int, int]:
    return row.posted_at_us, row.batch, row.number
