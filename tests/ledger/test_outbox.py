"""The outbox row of a batch: it lists each voucher once, also refused ones, in the order of the decisions."""

from asyncpg.pgproto.pgproto import UUID

from fundledger.ledger.model.account import Status
from tests.support.ledger import Ledger, codes, new_id, transfer


async def told(ledger: Ledger) -> list[list[UUID]]:
    rows = await ledger.connection.fetch("SELECT vouchers FROM ledger.outbox ORDER BY seq")
    return [row["vouchers"] for row in rows]


async def test_a_batch_is_one_outbox_row_in_the_order_of_its_decisions(ledger: Ledger) -> None:
    a, b = await ledger.account("m:1", balance=100), await ledger.account("m:2")
    before = await told(ledger)
    ids = sorted((new_id() for _ in range(4)), reverse=True)
    vouchers = [transfer(a, b, amount, id_) for amount, id_ in zip((10, 200, 20, 30), ids, strict=True)]
    assert codes(await ledger.post(*vouchers)) == ["posted", "insufficient-funds", "posted", "posted"]
    assert await told(ledger) == [*before, [voucher.id for voucher in vouchers]]


async def test_a_replay_and_a_change_of_balances_alone_add_no_row(ledger: Ledger) -> None:
    a, b = await ledger.account("m:1", balance=100), await ledger.account("m:2")
    voucher = transfer(a, b, 10)
    await ledger.post(voucher)
    before = await told(ledger)
    await ledger.post(voucher)
    await ledger.hold("h", a, 5)
    await ledger.freeze(b, Status.FROZEN_ALL)
    assert await told(ledger) == before


async def test_a_batch_that_is_decided_without_locks_is_in_the_outbox_like_any_other(ledger: Ledger) -> None:
    a, b = await ledger.account("m:1", balance=100), await ledger.account("m:2")
    ids = []
    for lock in (False, True):
        if lock:
            ledger.lock_always()
        for _ in range(3):
            voucher = transfer(a, b, 1)
            ids.append([voucher.id])
            await ledger.post(voucher)
    assert (await told(ledger))[-6:] == ids
