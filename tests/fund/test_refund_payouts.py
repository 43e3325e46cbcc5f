"""Refunds through channels: the payer gets each refund once. A refund of an earlier voucher format is never sent."""

import asyncio
import random
from uuid import UUID

import pytest

from fundledger.fund.channels.channel import Payout, Standing
from fundledger.fund.channels.http import HttpChannel
from fundledger.fund.jobs.payout_funds import PayoutFunds
from fundledger.fund.jobs.payout_sending import Pace, PayoutSender
from fundledger.fund.jobs.payouts import Payouts
from fundledger.fund.model.order import Kind
from fundledger.fund.store.orders import read_order
from fundledger.fund.store.queries import SQL
from tests.fund.bank import EndsInSql, Pool, RunningBank, Scripted, a_refund, a_withdrawal, here
from tests.fund.test_payout_funds import Banks, Registered
from tests.fund.test_payouts import ABSENT, AT_ONCE, AWAY, PAID, SILENT, findings, history, payouts, state_of
from tests.support.fund_ids import MACS
from tests.support.waiting import eventually


async def payment_of(pool: Pool, refund: UUID) -> UUID:
    return await pool.fetchval("SELECT of_order FROM fund.orders WHERE id = $1", refund)


# --- Selection of refunds -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "original_ref"), [("refund", None), ("refund", "IN-77"), ("split_refund", "IN-78")])
async def test_a_channel_gets_the_reference_of_the_refunded_payment(
    fund_pool: Pool, kind: str, original_ref: str | None
) -> None:
    order = await a_refund(fund_pool, original_ref=original_ref and f"{original_ref}-{here.channel}", kind=kind)
    channel = Scripted(AWAY, ABSENT, PAID)
    for _ in range(3):
        await payouts(fund_pool, channel).pay_out_some()
    assert channel.asked == ["refund", "query_refund", "refund"]
    assert channel.original_refs == [original_ref and f"{original_ref}-{here.channel}"] * 2
    assert await state_of(fund_pool, order) == "paid"
    assert await fund_pool.fetchval("SELECT kind FROM fund.payouts WHERE order_id = $1", order) == kind


async def test_refunds_of_an_earlier_format_and_those_that_end_are_never_sent(fund_pool: Pool) -> None:
    left = [
        await a_refund(fund_pool, voucher_format=1),
        await a_refund(fund_pool, voucher_format=2),
        await a_refund(fund_pool, channel=f"{here.channel}-other"),
        await a_refund(fund_pool, state="posting"),
        await a_refund(fund_pool, ending="paid"),
        await a_refund(fund_pool, state="bounced", ending="bounced"),
    ]
    order = await a_refund(fund_pool)
    channel = Scripted(PAID)
    assert await payouts(fund_pool, channel).pay_out_some() == (1, 0.0)
    assert channel.refs == [str(order)]
    assert [await history(fund_pool, other) for other in left] == [[]] * len(left)


async def test_refunds_are_sent_before_withdrawals(fund_pool: Pool) -> None:
    """A payer waits for a refund, so a long list of withdrawals does not delay it."""
    withdrawals = [str(await a_withdrawal(fund_pool)) for _ in range(3)]
    refunds = [str(await a_refund(fund_pool)) for _ in range(2)]
    channel = Scripted(*[PAID] * 5)
    await payouts(fund_pool, channel, Pace(rate=10_000, at_once=1)).pay_out_some()
    assert channel.refs == refunds + withdrawals


class WithoutRefunds(Scripted):
    """A channel that pays out, and answers no request about a refund."""

    async def _say(self, verb: str, ref: str) -> Payout:
        self.said = [AWAY if "refund" in verb else PAID]
        return await super()._say(verb, ref)


async def test_withdrawals_are_sent_while_a_channel_does_not_answer_to_refunds(fund_pool: Pool) -> None:
    """Refunds and payouts are different requests of a channel: one may fail alone, in calls and in polls."""
    refund = await a_refund(fund_pool)
    asked = []
    for _ in range(2):
        withdrawal = await a_withdrawal(fund_pool)
        channel = WithoutRefunds()
        await payouts(fund_pool, channel).pay_out_some()
        asked.append(channel.asked)
        assert await state_of(fund_pool, withdrawal) == "paid"
    assert asked == [["refund", "pay_out"], ["query_refund", "pay_out"]]
    assert await state_of(fund_pool, refund) == "sent"


# --- The payment of a refund ------------------------------------------------------------------------------------------


async def is_kept_from_a_changed_payment(pool: Pool) -> None:
    order = await a_refund(pool, original_ref=f"right-{here.channel}")
    payment = await payment_of(pool, order)
    await pool.execute("UPDATE fund.orders SET channel_ref = $2 WHERE id = $1", payment, f"wrong-{here.channel}")
    channel = Scripted(PAID)
    await payouts(pool, channel).pay_out_some()
    assert channel.asked == []
    assert await state_of(pool, order) == "stuck"
    assert await findings(pool) == [("stuck", "voucher")]
    # After the payment is restored and the order is retried, the channel is asked first.
    await pool.execute("UPDATE fund.orders SET channel_ref = $2 WHERE id = $1", payment, f"right-{here.channel}")
    back = "UPDATE fund.orders SET state = 'sent', stuck_from = NULL, problem = NULL WHERE id = $1 RETURNING *"
    await pool.fetchrow(back, order)
    await sealed(pool, order)
    channel = Scripted(ABSENT, PAID)
    await payouts(pool, channel).pay_out_some()
    assert (channel.asked, channel.original_refs) == (["query_refund", "refund"], [f"right-{here.channel}"])


async def sealed(pool: Pool, order: UUID) -> None:
    """Set the MAC of an order as it is now."""
    found = await read_order(pool, order)
    assert found is not None
    MACS.seal(found)
    await pool.execute("UPDATE fund.orders SET mac = $2 WHERE id = $1", order, found.mac)


async def test_a_refund_of_a_payment_that_was_edited_is_not_sent(fund_pool: Pool) -> None:
    await is_kept_from_a_changed_payment(fund_pool)


async def test_one_that_does_not_check_the_payment_is_noticed(fund_pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    async def unchecked(*_: object) -> None:
        return None

    monkeypatch.setattr(PayoutSender, "_original_ref", unchecked)
    with pytest.raises(AssertionError):
        await is_kept_from_a_changed_payment(fund_pool)


async def test_a_refund_without_a_payment_is_not_sent(fund_pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    order = await a_refund(fund_pool)
    monkeypatch.setitem(SQL, "payouts_original", SQL["payouts_original"] + " AND false")
    channel = Scripted(PAID)
    await payouts(fund_pool, channel).pay_out_some()
    assert (channel.asked, await state_of(fund_pool, order)) == ([], "stuck")


async def test_a_payout_whose_kind_was_edited_is_neither_sent_nor_polled(fund_pool: Pool) -> None:
    """Otherwise the channel would be asked for a payout that it does not have, and would send the money once more."""
    order = await a_refund(fund_pool)
    channel = Scripted(SILENT, ABSENT, PAID)
    await payouts(fund_pool, channel).pay_out_some()
    await fund_pool.execute("UPDATE fund.payouts SET kind = 'withdrawal' WHERE order_id = $1", order)
    await payouts(fund_pool, channel).pay_out_some()
    assert channel.asked == ["refund"]
    assert await state_of(fund_pool, order) == "stuck"


# --- Funds and methods of a channel -----------------------------------------------------------------------------------


def funded(pool: Pool, channel: object, balance: int, **terms: object) -> Payouts:
    funds = PayoutFunds(pool, Banks({"bank:CNY": balance}), Registered(**terms))  # type: ignore[arg-type]
    return Payouts(pool, EndsInSql(pool), {here.channel: channel}, AT_ONCE, funds)  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("payout", "refund", "sent"),
    [
        ("http", "payout", ["pay_out", "refund"]),
        ("http", "http", ["pay_out", "refund"]),
        ("http", "manual", ["pay_out"]),
        ("http", "file", ["pay_out"]),
        ("manual", "payout", []),
        ("manual", "http", ["refund"]),
        ("file", "payout", []),
    ],
)
async def test_a_refund_that_a_person_makes_waits_as_posted(
    fund_pool: Pool, payout: str, refund: str, sent: list[str]
) -> None:
    orders = {"pay_out": await a_withdrawal(fund_pool), "refund": await a_refund(fund_pool)}
    channel = Scripted(PAID, PAID)
    await funded(fund_pool, channel, 1_000, payout=payout, refund=refund).pay_out_some()
    assert sorted(channel.asked) == sent
    assert {call: await state_of(fund_pool, order) for call, order in orders.items()} == {
        call: "paid" if call in sent else "posted" for call in orders
    }


async def test_refunds_and_withdrawals_share_what_the_bank_account_holds(fund_pool: Pool) -> None:
    refund, withdrawal = await a_refund(fund_pool, 60), await a_withdrawal(fund_pool, 60)
    paying = funded(fund_pool, Scripted(Standing.ACCEPTED), 100)
    await paying.pay_out_some()
    assert (await state_of(fund_pool, refund), await state_of(fund_pool, withdrawal)) == ("sent", "posted")


async def test_a_refund_that_exceeds_the_bank_account_waits(fund_pool: Pool) -> None:
    order, channel = await a_refund(fund_pool, 101), Scripted(PAID)
    await funded(fund_pool, channel, 100).pay_out_some()
    assert await state_of(fund_pool, order) == "posted"
    await funded(fund_pool, channel, 100, overdraft=1).pay_out_some()
    assert await state_of(fund_pool, order) == "paid"


async def test_a_refund_is_not_sent_again_after_its_channel_was_given_to_a_person(fund_pool: Pool) -> None:
    order, channel = await a_refund(fund_pool, 60), Scripted(AWAY, ABSENT, ABSENT, PAID)
    await funded(fund_pool, channel, 100).pay_out_some()
    await funded(fund_pool, channel, 100, refund="manual").pay_out_some()
    assert (channel.asked, await state_of(fund_pool, order)) == (["refund", "query_refund"], "sent")
    await funded(fund_pool, channel, 100).pay_out_some()
    assert channel.asked == ["refund", "query_refund", "query_refund", "refund"]


async def test_a_refund_that_waits_is_lag_unless_a_person_makes_it(fund_pool: Pool) -> None:
    order = await a_refund(fund_pool, 60)
    _, lag_s = await funded(fund_pool, Scripted(), 10).pay_out_some()
    assert lag_s > 0
    insert = (
        "INSERT INTO fund.channels (name, currency, bank_account, payout, refund, references_unique, state,"
        " registered_by, created_at, mac_key, mac) VALUES ($1, 'CNY', 'bank', 'http', 'manual', false, 'open', 'tests',"
        " now(), 1, '\\x00')"
    )
    await fund_pool.execute(insert, here.channel)
    assert await funded(fund_pool, Scripted(), 10).pay_out_some() == (0, 0.0)
    assert await state_of(fund_pool, order) == "posted"


# --- Concurrent runs and failures -------------------------------------------------------------------------------------


async def test_two_concurrent_runs_send_each_refund_once(fund_pool: Pool, bank: RunningBank) -> None:
    orders = [await a_refund(fund_pool, amount=n) for n in range(1, 31)]
    async with HttpChannel(bank.url, token=bank.token) as channel:
        both = payouts(fund_pool, channel), payouts(fund_pool, channel)
        await asyncio.gather(*(paying.pay_out_some() for paying in both))
    assert {await state_of(fund_pool, order) for order in orders} == {"paid"}
    totals = bank.totals
    assert (totals["refunds"], totals["refunded_amount"], totals["payouts"]) == (30, sum(range(1, 31)), 0)


async def test_whatever_the_bank_does_and_whenever_we_die_each_refund_is_paid_once(
    fund_pool: Pool, bank: RunningBank
) -> None:
    chance = random.Random(6)
    await bank.behave(seed=6, error_rate=0.2, lost_answer_rate=0.2, bounce_rate=0.2, settle_after_ms=5)
    insert = {Kind.REFUND: a_refund, Kind.WITHDRAWAL: a_withdrawal}
    orders = {kind: [await insert[kind](fund_pool, amount=n) for n in range(1, 21)] for kind in insert}
    # Payouts that a cancelled run was processing are available again immediately.
    pace = Pace(rate=10_000, again_s=0.01, again_max_s=0.02, call_s=0.0001, at_once=4)
    async with HttpChannel(bank.url, token=bank.token) as channel:
        for _ in range(10):
            turn = asyncio.create_task(payouts(fund_pool, channel, pace).pay_out_some())
            for _ in range(chance.randrange(60)):
                await asyncio.sleep(0)
            turn.cancel()
            await asyncio.gather(turn, return_exceptions=True)
        paying = payouts(fund_pool, channel, pace)

        async def all_have_ended() -> bool:
            await paying.pay_out_some()
            states = [await state_of(fund_pool, order) for some in orders.values() for order in some]
            return set(states) <= {"paid", "bounced"}

        await eventually(all_have_ended, "every refund and withdrawal ends")
    paid = {
        kind: await fund_pool.fetchval(
            "SELECT coalesce(sum(amount), 0)::bigint FROM fund.orders WHERE id = ANY($1) AND state = 'paid'", some
        )
        for kind, some in orders.items()
    }
    totals = bank.totals
    assert (totals["refunds"], totals["refund_conflicts"], totals["conflicts"]) == (20, 0, 0)
    assert totals["refunded_amount"] == paid[Kind.REFUND] < sum(range(1, 21))
    assert totals["paid_amount"] == paid[Kind.WITHDRAWAL]
    assert await findings(fund_pool) == []
