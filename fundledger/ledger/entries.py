"""Entries of a batch: each moves the balance of its sub-account, and is chained to the one before."""

from collections.abc import Sequence

from asyncpg.pgproto.pgproto import UUID

from fundledger.ledger.account import Account, SubAccount
from fundledger.ledger.batch import Batch
from fundledger.security.canonical import entry as entry_message


def write_entries(
    batch: Batch, voucher_id: UUID, touched: Sequence[SubAccount], lines: Sequence[tuple[Account, int]]
) -> None:
    """`touched[i]` is the sub-account of `lines[i]`."""
    tag, key_version = batch.key.tag, batch.key.version
    id_bytes, date, posted_at_us = voucher_id.bytes, batch.date_ordinal, batch.posted_at_us
    append = batch.entries.append
    for i, (account, amount) in enumerate(lines):
        s = touched[i]
        number, slot = account.number, s.slot
        s.posted = balance = s.posted + amount
        s.seq = seq = s.seq + 1
        s.written = True
        s.last_entry_mac = mac = tag(
            entry_message(
                number, slot, seq, id_bytes, amount, balance, date, posted_at_us, s.last_entry_mac, key_version
            )
        )
        append((s.shard, number, slot, seq, voucher_id, amount, balance, mac))
