"""Batch encoder of the ledger's store: computes new MACs and returns the parameters of `sql/write_batch.sql`."""

from collections.abc import Sequence
from typing import Any

from fundledger.ledger.model import clock
from fundledger.ledger.model.account import SubAccount
from fundledger.ledger.model.batch import Batch, Entry
from fundledger.ledger.model.refusal import encode_refusal
from fundledger.ledger.model.voucher import Record
from fundledger.security import canonical


def parameters(
    batch: Batch,
    shard: int,
    vouchers: Sequence[Record],
    sub_accounts: Sequence[SubAccount],
    entries: Sequence[Entry],
    early: bool = False,
) -> list[Any]:
    """Return the parameters of the query that writes the vouchers, sub-accounts and entries of a batch in one shard.

    `early`: True if the commit does not wait for the disk. Each sub-account is added to `batch.standing`, with its new
    version and MAC.
    """
    # Vouchers are written in one global order, so that two batches with the same new ids cannot deadlock.
    decided, vouchers = vouchers, sorted(vouchers, key=_by_id)
    places: dict[tuple[str | None, Any], int] = {(record.module, record.id): k for k, record in enumerate(vouchers, 1)}
    order = [] if vouchers == decided else [places[record.key] for record in decided]
    columns = [
        shard,
        batch.number,
        batch.accounting_date,
        clock.moment(batch.posted_at_us),
        batch.posted_at_us,
        batch.key.version,
    ]
    entry_columns, summed = _entries(entries, places)
    columns += _vouchers(batch, vouchers, [id_ for _, id_ in places])
    modules = {module: i for i, module in enumerate(dict.fromkeys(module for module, _ in places), 1)}
    balances, stored = _sub_accounts(batch, sub_accounts)
    return [
        *columns,
        *balances,
        *entry_columns,
        *stored,
        "off" if early else "on",
        _slots(batch, sub_accounts),
        *summed,
        _policies(batch, sub_accounts),
        order,
        *_counts(batch, shard),
        list(modules),
        [modules[module] for module, _ in places] if len(modules) > 1 else [],
    ]


def _by_id(record: Record) -> tuple[bytes, str]:
    return record.id.bytes, record.module


def _vouchers(batch: Batch, vouchers: Sequence[Record], ids: list[Any]) -> list[Any]:
    key = batch.key
    types: dict[str, int] = {}
    which, ends, lines, macs, refusals = [], [], [], [], []
    for record in vouchers:
        own = [x for account, amount in record.lines for x in (account.number, amount)]
        lines += own
        ends.append(len(lines))
        which.append(types.setdefault(record.type, len(types) + 1))
        refusal = None if record.refusal is None else encode_refusal(record.refusal).decode()
        refusals.append(refusal)
        message = canonical.voucher_2(
            record.id.bytes,
            record.module,
            record.type,
            record.digest,
            batch.date_ordinal,
            batch.posted_at_us,
            batch.number,
            own,
            record.reference,
            record.metadata,
            record.hold,
            None if record.reverses is None else record.reverses.bytes,
            refusal,
            False,
            key.version,
        )
        macs.append(key.tag(message))
    return [
        len(vouchers),
        ids,
        list(types),
        which if len(types) > 1 else [],
        b"".join([record.digest for record in vouchers]),
        lines,
        ends if len(lines) != 4 * len(vouchers) or ends != list(range(4, len(lines) + 1, 4)) else [],
        b"".join(macs),
        _sparse([record.reference for record in vouchers]),
        _sparse([record.metadata for record in vouchers]),
        _sparse([record.hold for record in vouchers]),
        _sparse([record.reverses for record in vouchers]),
        _sparse(refusals),
    ]


def _sparse(column: list[Any]) -> list[Any]:
    return column if any(column) else []


def _sub_accounts(batch: Batch, sub_accounts: Sequence[SubAccount]) -> tuple[list[Any], list[Any]]:
    """Return the columns of the new values, and those of the old values for comparison, in lock order."""
    key = batch.key
    rows = []
    for s in sorted(sub_accounts, key=_order):
        account = s.account
        version = s.version + 1
        message = canonical.sub_account(
            account.number,
            s.slot,
            account.currency.encode(),
            s.posted,
            s.held,
            version,
            s.status,
            s.seq,
            batch.posted_at_us,
            s.last_entry_mac,
            key.version,
        )
        mac = key.tag(canonical.first_of(s.slots, s.buffered, message))
        batch.standing.append((s, version, mac))
        rows.append(
            (account.number, s.slot, s.posted, s.held, version, s.seq, s.status, s.last_entry_mac, mac, *s.stored)
        )
    numbers, slots, posted, held, versions, seqs, statuses, last_macs, macs, *stored = _columns(rows, 14)
    head = [len(rows), numbers, slots, posted, held, versions, seqs, statuses]
    return [*head, b"".join(last_macs), b"".join(macs)], [*stored[:4], b"".join(stored[4])]


def _slots(batch: Batch, sub_accounts: Sequence[SubAccount]) -> list[int]:
    """Return the number of slots for each sub-account, in lock order. The list is empty if no slots are opened."""
    return [s.slots for s in sorted(sub_accounts, key=_order)] if batch.resized else []


def _policies(batch: Batch, sub_accounts: Sequence[SubAccount]) -> list[bool]:
    """Return the buffering policy of each sub-account, in lock order. The list is empty if no policy changes."""
    return [s.buffered for s in sorted(sub_accounts, key=_order)] if batch.policies else []


def _order(sub_account: SubAccount) -> tuple[int, int]:
    return sub_account.account.number, sub_account.slot


def _entries(entries: Sequence[Entry], places: dict[tuple[str | None, Any], int]) -> tuple[list[Any], list[Any]]:
    """Return the columns of all entries, with the summaries first, and three further columns.

    `places` maps each voucher to its index in the parameter of voucher ids, from 1. A voucher of another shard that has
    an entry in this shard is appended to `places`. The further columns are: the indexes of the vouchers of all
    summaries, the end of each summary in that column, and the accounting dates of all entries.
    """
    summaries = [entry for entry in entries if type(entry[4]) is list]
    if summaries:
        entries = [*summaries, *[entry for entry in entries if type(entry[4]) is not list]]
    _, numbers, slots, seqs, voucher_ids, amounts, balances, macs, dates, modules = _columns(entries, 10)
    which, summed, ends = [], [], []
    for id_, module in zip(voucher_ids, modules, strict=True):
        if type(id_) is list:
            which.append(0)
            keys = [(module, each) for each in id_]
            summed += [places.get(each) or places.setdefault(each, len(places) + 1) for each in keys]
            ends.append(len(summed))
        else:
            key = module, id_
            which.append(places.get(key) or places.setdefault(key, len(places) + 1))
    columns = [len(entries), numbers, slots if any(slots) else [], seqs, which, amounts, balances, b"".join(macs)]
    return columns, [summed, ends, _sparse(list(dates))]


def _counts(batch: Batch, shard: int) -> list[Any]:
    """Return the columns of the entries that are not exactly one statement line.

    The last column is the number of lines minus the number of entries, summed over this entry and the previous ones of
    this batch on the same slot.
    """
    if not batch.counts:
        return [(), (), (), ()]
    sums: dict[tuple[int, int], int] = {}
    rows = []
    for of, number, slot, seq, more in batch.counts:
        if of == shard:
            sums[number, slot] = total = sums.get((number, slot), 0) + more
            rows.append((number, slot, seq, total))
    return _columns(rows, 4)


def _columns(rows: Sequence[tuple[Any, ...]], width: int) -> list[Any]:
    return list(zip(*rows, strict=True)) if rows else [()] * width
