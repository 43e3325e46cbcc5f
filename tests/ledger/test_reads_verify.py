"""Reads verify balances before they return them: a read finds an edit by SQL, and other accounts are not affected."""

from datetime import timedelta

import msgspec
import pytest

from fundledger.app.account.answers import render
from fundledger.ledger.model import clock
from fundledger.ledger.model.account import BALANCE_MAX, Account
from fundledger.ledger.model.batch import Rebalance, Resplit, SetPolicy
from fundledger.ledger.store.accounts import AccountView, balance_at, read_accounts
from fundledger.ledger.store.integrity import Tampered, record_finding
from tests.support.ledger import Ledger, posted, transfer

SOON = timedelta(seconds=60)
"""Time from now that is later than all postings of a test."""


async def scene(ledger: Ledger) -> tuple[Account, Account]:
    """Return an account with two slots, entries, a hold and buffered credits, and a neighbour. Triggers are off."""
    m, neighbour = await ledger.account("m:1", balance=100), await ledger.account("m:2", balance=100)
    bank = await ledger.account("bank", "bank")
    await ledger.post_one(Resplit(m, 2, "a test", "tests"))
    await ledger.post_one(Rebalance(m))
    assert posted(await ledger.post_one(transfer(bank, m, 7)))
    await ledger.hold("h", m, 5)
    await ledger.post_one(SetPolicy(m, True, "a test", "tests"))
    m = await remembered(ledger, m)
    assert posted((await ledger.post(transfer(bank, m, 10), transfer(bank, m, 11)))[0])
    assert await ledger.count("buffered_entries") == 2
    for table in ("entries", "buffered_entries", "vouchers"):
        await ledger.connection.execute(f"ALTER TABLE ledger.{table} DISABLE TRIGGER ALL")
    return m, neighbour


async def remembered(ledger: Ledger, account: Account) -> Account:
    """Return the account as cached by a worker that has applied the buffering policy."""
    account = msgspec.structs.replace(account, buffered=True)
    ledger.directory.remember(account)
    return account


async def shown(ledger: Ledger, account: Account) -> AccountView:
    return (await read_accounts(ledger.connection, ledger.directory, ledger.layout, [account.id]))[account.id]


async def at(ledger: Ledger, account: Account, after: timedelta = SOON) -> tuple[int, int]:
    moment = clock.moment(clock.now_us()) + after
    return await balance_at(ledger.connection, ledger.keys, account, ledger.layout, moment)


OF_SLOTS = {
    "shard": "UPDATE ledger.sub_accounts SET shard = 7 WHERE account_number = $1 AND slot = 1",
    "slot": "UPDATE ledger.sub_accounts SET slot = 2 WHERE account_number = $1 AND slot = 1",
    "posted": "UPDATE ledger.sub_accounts SET posted = posted + 5000000 WHERE account_number = $1 AND slot = 1",
    "held": "UPDATE ledger.sub_accounts SET held = 0 WHERE account_number = $1 AND held > 0",
    "version": "UPDATE ledger.sub_accounts SET version = version + 1 WHERE account_number = $1 AND slot = 0",
    "seq": "UPDATE ledger.sub_accounts SET seq = seq - 1 WHERE account_number = $1 AND slot = 0",
    "posted_at_us": "UPDATE ledger.sub_accounts SET posted_at_us = 1 WHERE account_number = $1 AND slot = 0",
    "normal": "UPDATE ledger.sub_accounts SET bounded = false, normal = -1 WHERE account_number = $1 AND slot = 0",
    "bounded": "UPDATE ledger.sub_accounts SET bounded = false WHERE account_number = $1 AND slot = 0",
    "status": "UPDATE ledger.sub_accounts SET status = 1 WHERE account_number = $1 AND slot = 1",
    "merged": "UPDATE ledger.sub_accounts SET status = 5 WHERE account_number = $1 AND slot = 1",
    "no status": "UPDATE ledger.sub_accounts SET status = -1 WHERE account_number = $1 AND slot = 1",
    "key_version": "UPDATE ledger.sub_accounts SET key_version = 9 WHERE account_number = $1 AND slot = 0",
    "last_entry_mac": "UPDATE ledger.sub_accounts SET last_entry_mac = mac WHERE account_number = $1 AND slot = 0",
    "mac": "UPDATE ledger.sub_accounts SET mac = last_entry_mac WHERE account_number = $1 AND slot = 0",
    "slots": "UPDATE ledger.sub_accounts SET slots = 1 WHERE account_number = $1 AND slot = 0",
    "buffered": "UPDATE ledger.sub_accounts SET buffered = false WHERE account_number = $1 AND slot = 0",
    "deleted": "DELETE FROM ledger.sub_accounts WHERE account_number = $1 AND slot = 1",
    "all deleted": "DELETE FROM ledger.sub_accounts WHERE account_number = $1",
    "inserted": """INSERT INTO ledger.sub_accounts SELECT shard, account_number, 2, 5000000, 0, version, seq, posted_at_us, normal,
        bounded, status, key_version, last_entry_mac, mac FROM ledger.sub_accounts WHERE account_number = $1 AND slot = 0""",
    "inserted elsewhere": """INSERT INTO ledger.sub_accounts SELECT 9, account_number, slot, posted, held, version, seq,
        posted_at_us, normal, bounded, status, key_version, last_entry_mac, mac, slots, buffered
        FROM ledger.sub_accounts WHERE account_number = $1 AND slot = 0""",
    "the last entry is gone": """DELETE FROM ledger.entries e USING ledger.sub_accounts s WHERE s.account_number = $1
        AND e.account_number = $1 AND e.slot = s.slot AND e.seq = s.seq""",
    "the record": "UPDATE ledger.accounts SET owner = 'm:2' WHERE number = $1",
}
OF_BUFFER = {
    "batch": "UPDATE ledger.buffered_entries SET batch = batch + 1 WHERE account_number = $1",
    "number": "UPDATE ledger.buffered_entries SET of = 9, number = number + 5 WHERE account_number = $1",
    "of": "UPDATE ledger.buffered_entries SET of = 3 WHERE account_number = $1",
    "voucher_id": "UPDATE ledger.buffered_entries SET voucher_id = gen_random_uuid() WHERE account_number = $1",
    "amount": "UPDATE ledger.buffered_entries SET amount = 1000 WHERE account_number = $1 AND number = 1",
    "accounting_date": "UPDATE ledger.buffered_entries SET accounting_date = '0001-01-01 BC' WHERE account_number = $1",
    "posted_at": "UPDATE ledger.buffered_entries SET posted_at = posted_at + interval '1 s' WHERE account_number = $1",
    "key_version": "UPDATE ledger.buffered_entries SET key_version = 9 WHERE account_number = $1",
    "mac": "UPDATE ledger.buffered_entries SET mac = '' WHERE account_number = $1",
    "deleted": "DELETE FROM ledger.buffered_entries WHERE account_number = $1 AND number = 2",
    "inserted": """INSERT INTO ledger.buffered_entries SELECT account_number, batch, 3, of + 1, voucher_id, amount,
        accounting_date, posted_at, key_version, mac FROM ledger.buffered_entries WHERE account_number = $1 AND number = 2""",
}


@pytest.mark.parametrize(
    "edit", [*OF_SLOTS.values(), *OF_BUFFER.values()], ids=[*OF_SLOTS, *(f"buffer: {n}" for n in OF_BUFFER)]
)
async def test_a_balance_that_was_edited_is_not_shown_and_its_neighbour_is(ledger: Ledger, edit: str) -> None:
    m, neighbour = await scene(ledger)
    view = await shown(ledger, m)
    assert (view.posted, view.held, view.pending, view.sub_accounts) == (107, 5, 21, 2)
    assert await at(ledger, m) == (107, 5)
    await ledger.tamper(edit, m.number)
    with pytest.raises(Exception) as found:
        await shown(ledger, m)
    assert type(found.value).__name__ in ("Tampered", "AccountTampered")
    if "ledger.accounts" not in edit:
        with pytest.raises(Tampered, match="account m:1: ") as tampered:
            await at(ledger, m)
        await record_finding(ledger.connection, ledger.keys, tampered.value)
        await record_finding(ledger.connection, ledger.keys, tampered.value)
        assert await ledger.count("integrity_findings") == 1
    assert (await shown(ledger, neighbour)).posted == 100
    assert (await at(ledger, neighbour))[0] == 100


OF_ENTRIES = {
    "shard": "shard = 7",
    "account_number": "account_number = 999",
    "slot": "slot = 7",
    "seq": "seq = seq + 100",
    "voucher_id": "voucher_id = gen_random_uuid()",
    "vouchers": "voucher_id = NULL, vouchers = ARRAY[voucher_id, voucher_id]",
    "amount": "amount = amount + 1",
    "balance_after": "balance_after = balance_after + 1000",
    "accounting_date": "accounting_date = accounting_date - 1",
    "no accounting_date": "accounting_date = '0001-01-01 BC'",
    "posted_at": "posted_at = posted_at - interval '1 microsecond'",
    "no posted_at": "posted_at = '-infinity'",
    "key_version": "key_version = 9",
    "mac": "mac = sha256(mac)",
}


@pytest.mark.parametrize("change", OF_ENTRIES.values(), ids=OF_ENTRIES)
@pytest.mark.parametrize("seq", [1, 2, 3])
async def test_a_balance_at_a_time_is_not_shown_from_an_entry_that_was_edited(
    ledger: Ledger, change: str, seq: int
) -> None:
    m, neighbour, bank = await ledger.account("m:1"), await ledger.account("m:2"), await ledger.account("b", "bank")
    await ledger.connection.execute("ALTER TABLE ledger.entries DISABLE TRIGGER ALL")
    moments = []
    for amount in (1, 2, 3):
        outcome = await ledger.post_one(transfer(bank, m, amount))
        assert outcome.record is not None
        moments.append(clock.moment(outcome.record.posted_at_us))
    right = [await balance_at(ledger.connection, ledger.keys, m, ledger.layout, moment) for moment in moments]
    assert right == [(1, 0), (3, 0), (6, 0)]
    await ledger.tamper(f"UPDATE ledger.entries SET {change} WHERE account_number = $1 AND seq = $2", m.number, seq)
    # Each balance is either the original one or not returned. The balance at this entry is not returned.
    for i, moment in enumerate(moments):
        try:
            assert await balance_at(ledger.connection, ledger.keys, m, ledger.layout, moment) == right[i]
            assert i != seq - 1
        except Tampered:
            pass
    assert (await at(ledger, neighbour))[0] == 0


@pytest.mark.layout(shards=1, platform_slots=4)
async def test_a_sum_beyond_64_bits_is_shown_exactly(ledger: Ledger) -> None:
    """The balance of each slot is in the supported range. The sum exceeds the range of a BIGINT."""
    bank = await ledger.account("bank", "bank")
    for ordinal in range(4):
        worker = ledger if ordinal == 0 else await ledger.worker(ordinal)
        for half in range(2):
            m = await ledger.account(f"m:{ordinal}:{half}")
            assert posted(await worker.post_one(transfer(bank, m, BALANCE_MAX // 2)))
    view = await shown(ledger, bank)
    assert view.posted == view.available == 1 << 64
    assert await at(ledger, bank) == (1 << 64, 0)
    answer = msgspec.json.encode(render.account(view))
    assert msgspec.json.decode(answer)["balance"]["posted"] == 1 << 64
    assert b'"posted_text":"18446744073709551616"' in answer
