"""Holds and reversals on a real Postgres: an amount is set aside once, and returned once."""

import pytest

from fundledger.ledger.model import clock
from fundledger.ledger.model.hold import HoldStatus, PlaceHold
from tests.support.halfway import overtaken
from tests.support.ledger import (
    Ledger,
    accounts_by_shard,
    capture,
    code,
    codes,
    expire,
    posted,
    release,
    reversal,
    together,
    transfer,
    voucher,
)


async def test_a_hold_sets_money_aside_until_it_ends(ledger: Ledger) -> None:
    a, b = await ledger.account("m:1", balance=100), await ledger.account("m:2")
    one, two = await ledger.hold("h:1", a, 60), await ledger.hold("h:2", a, 30)
    view = await ledger.view(a)
    assert (view.posted, view.held, view.available) == (100, 90, 10)
    assert code(await ledger.post_one(transfer(a, b, 11))) == "insufficient-funds"
    assert posted(await ledger.post_one(capture(one, b, 50)))
    assert (await ledger.post_one(release(two))).hold.status == HoldStatus.RELEASED
    view = await ledger.view(a)
    assert (view.posted, view.held) == (50, 0)
    assert (await ledger.read_hold("h:1")).captured == 50
    await ledger.prove()


async def test_a_hold_expires_once_its_time_is_up(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = await ledger.account("m:1", balance=100), await ledger.account("m:2")
    start = clock.now_us()
    hold = await ledger.hold("h", a, 60, expires_at_us=start + 60_000_000)
    await ledger.post(expire(hold))
    assert (await ledger.view(a)).held == 60
    monkeypatch.setattr(clock, "now_us", lambda: start + 60_000_000)
    assert code(await ledger.post_one(capture(hold, b, 1))) == "hold-expired"
    await ledger.post(expire(hold), expire(hold))
    assert (await ledger.view(a)).held == 0
    assert (await ledger.read_hold("h")).status == HoldStatus.EXPIRED
    await ledger.prove()


async def test_a_refused_hold_is_recorded_and_stays_refused(ledger: Ledger) -> None:
    a = await ledger.account("m:1", balance=5)
    assert code(await ledger.post_one(PlaceHold("h", a, 10, 0, "dev"))) == "insufficient-funds"
    await ledger.account("m:2", balance=1)
    bank = (await ledger.open("bank:funding:CNY", "bank")).view.account
    await ledger.post(transfer(bank, a, 50))
    again = await ledger.post_one(PlaceHold("h", a, 10, 0, "dev"))
    assert (code(again), again.replay) == ("insufficient-funds", True)
    assert (await ledger.view(a)).held == 0
    await ledger.prove()


async def test_a_hold_id_that_another_account_is_about_to_use_is_decided_again(ledger: Ledger) -> None:
    a, b = await ledger.account("m:1", balance=100), await ledger.account("m:2", balance=100)
    other = await ledger.worker(1)
    async with overtaken(ledger, PlaceHold("h", a, 10, 0, "dev"), other, PlaceHold("h", b, 10, 0, "dev")) as outcomes:
        assert codes(outcomes) == ["posted" if o.refusal is None else o.refusal.code for o in outcomes]
        assert outcomes[0].refusal is None
        assert code(outcomes[1]) == "hold-id-reused"
    assert [(await ledger.view(x)).held for x in (a, b)] == [10, 0]
    await ledger.prove()


async def test_a_concurrent_capture_and_release_end_a_hold_once(ledger: Ledger) -> None:
    a, b = await ledger.account("m:1", balance=100), await ledger.account("m:2")
    other = await ledger.worker(1)
    for i in range(10):
        hold = await ledger.hold(f"h:{i}", a, 5)
        captured, released = await together(ledger.post_one(capture(hold, b, 5)), other.post_one(release(hold)))
        assert {code(captured), released.refusal and code(released)} in (
            {"posted", "hold-captured"},
            {"hold-released", None},
        )
    assert (await ledger.view(a)).held == 0
    await ledger.prove()


@pytest.mark.layout(shards=4, platform_slots=2)
async def test_a_capture_pays_into_another_shard(ledger: Ledger) -> None:
    by_shard = await accounts_by_shard(ledger, balance=100)
    a, b = by_shard[3][0], by_shard[1][0]
    hold = await ledger.hold("h", a, 60)
    payment = voucher((b, 50), (a, -50), hold=hold)
    assert payment.shard == 1
    assert posted(await ledger.post_one(payment))
    view = await ledger.view(a)
    assert (view.posted, view.held) == (50, 0)
    await ledger.prove()


async def test_a_tampered_hold_is_refused_alone(ledger: Ledger) -> None:
    a, b = await ledger.account("m:1", balance=100), await ledger.account("m:2")
    hold = await ledger.hold("h", a, 10)
    await ledger.tamper("UPDATE ledger.holds SET amount = 90 WHERE id = 'h'")
    outcomes = await ledger.post(transfer(a, b, 1), capture(hold, b, 80), release(hold), transfer(a, b, 1))
    assert codes(outcomes) == ["posted", "account-frozen", "account-frozen", "posted"]
    assert await ledger.posted(b) == 2


# --- Reversals ---------------------------------------------------------------------------------------------------------


async def test_a_reversal_gives_everything_back_once(ledger: Ledger) -> None:
    a, b = await ledger.account("m:1", balance=100), await ledger.account("m:2")
    bank = (await ledger.open("bank:funding:CNY", "bank")).view.account
    payment = voucher((a, -30), (b, 20), (bank, 10))
    await ledger.post(payment)
    first = reversal(payment)
    assert posted(await ledger.post_one(first))
    assert (await ledger.posted(a), await ledger.posted(b)) == (100, 0)
    assert code(await ledger.post_one(reversal(payment))) == "voucher-already-reversed"
    assert (await ledger.post_one(reversal(payment, id_=first.id))).replay
    await ledger.prove()


async def test_a_second_reversal_is_refused_also_when_both_are_concurrent(ledger: Ledger) -> None:
    """Two workers use different slots of platform accounts, so only the index on the reversed voucher prevents this."""
    bank, fees = await ledger.account("bank", "bank"), await ledger.account("fees", "fee_income")
    payment = transfer(bank, fees, 30)
    await ledger.post(payment)
    other = await ledger.worker(1)
    async with overtaken(ledger, reversal(payment), other, reversal(payment)) as outcomes:
        assert codes(outcomes) == ["posted", "voucher-already-reversed"]
    assert await ledger.posted(fees) == 0
    await ledger.prove()
