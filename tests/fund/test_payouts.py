"""Payouts: each withdrawal or refund is paid once, whatever process fails or does not answer, and ends as the channel
reports.
"""

import asyncio
import json
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest

from fundledger.fund.channels.channel import ChannelAway, ChannelSilent, Payout, Standing
from fundledger.fund.channels.http import HttpChannel
from fundledger.fund.jobs.payout_sending import Pace, PayoutSender, Sending
from fundledger.fund.jobs.payouts import Payouts
from fundledger.fund.model import accounts
from fundledger.fund.model.answer import Answer, Taken
from fundledger.fund.store.queries import SQL
from tests.fund.bank import (
    BankProcess,
    EndsInSql,
    Pool,
    RunningBank,
    Scripted,
    a_bank_process,
    a_refund,
    a_withdrawal,
    here,
)
from tests.support.fund_worker import FundWorker
from tests.support.plans import plan_of, scanned
from tests.support.running import RunningService
from tests.support.waiting import eventually

AT_ONCE = Pace(rate=10_000, again_s=0.0, again_max_s=0.0, doubt_s=0.0)
LATE = Pace(rate=10_000, again_s=3600.0, again_max_s=3600.0)
ACCEPTED, PAID, BOUNCED, ABSENT = Standing.ACCEPTED, Standing.PAID, Standing.BOUNCED, Standing.ABSENT
DETAIL = "SELECT detail FROM fund.channel_findings WHERE order_id = $1"
AWAY, SILENT = ChannelAway("nobody there"), ChannelSilent("no answer")


def payouts(pool: Pool, channel: object, pace: Pace = AT_ONCE, batcher: EndsInSql | None = None) -> Payouts:
    return Payouts(pool, batcher or EndsInSql(pool), {here.channel: channel}, pace)


async def state_of(pool: Pool, order: UUID) -> str:
    return await pool.fetchval("SELECT state FROM fund.orders WHERE id = $1", order)


async def history(pool: Pool, order: UUID) -> list[str]:
    rows = await pool.fetch("SELECT state FROM fund.events WHERE order_id = $1 ORDER BY seq", order)
    return [row["state"] for row in rows]


async def findings(pool: Pool) -> list[tuple[str, str]]:
    rows = await pool.fetch(
        "SELECT stands, says FROM fund.channel_findings WHERE channel = $1 ORDER BY at", here.channel
    )
    return [(row["stands"], row["says"]) for row in rows]


# Functions that insert an order, and the calls of a channel, by the kind of the order
INSERT = {"withdrawal": a_withdrawal, "refund": a_refund}
CALLS = {
    "withdrawal": {"pay_out": "pay_out", "query": "query"},
    "refund": {"pay_out": "refund", "query": "query_refund"},
}
both_kinds = pytest.mark.parametrize("kind", INSERT)

# --- Answers of the channel -----------------------------------------------------------------------------------------

WAYS = {
    "paid at once": ([PAID], ["pay_out"], ["sent", "paid"]),
    "bounced at once": ([BOUNCED], ["pay_out"], ["sent", "bounced"]),
    "accepted, paid later": ([ACCEPTED, ACCEPTED, PAID], ["pay_out", "query", "query"], ["sent", "paid"]),
    "accepted, bounced later": ([ACCEPTED, BOUNCED], ["pay_out", "query"], ["sent", "bounced"]),
    "away, so nothing was sent": ([AWAY, ABSENT, PAID], ["pay_out", "query", "pay_out"], ["sent", "paid"]),
    "away, though it was sent": ([AWAY, PAID], ["pay_out", "query"], ["sent", "paid"]),
    "silent, but paid": ([SILENT, PAID], ["pay_out", "query"], ["sent", "unknown", "paid"]),
    "silent, but bounced": ([SILENT, BOUNCED], ["pay_out", "query"], ["sent", "unknown", "bounced"]),
    "silent, and absent": ([SILENT, ABSENT, PAID], ["pay_out", "query", "pay_out"], ["sent", "unknown", "paid"]),
    "silent, and nobody to ask": (
        [SILENT, AWAY, AWAY, ACCEPTED, PAID],
        ["pay_out", "query", "query", "query", "query"],
        ["sent", "unknown", "paid"],
    ),
    "silent twice": (
        [SILENT, ABSENT, SILENT, PAID],
        ["pay_out", "query", "pay_out", "query"],
        ["sent", "unknown", "paid"],
    ),
    "absent of what was just asked": ([ABSENT, ABSENT, PAID], ["pay_out", "query", "pay_out"], ["sent", "paid"]),
}


async def ends_as_it_says(
    pool: Pool, way: str, sender: type[PayoutSender] = PayoutSender, kind: str = "withdrawal"
) -> None:
    said, asked, states = WAYS[way]
    order = await INSERT[kind](pool)
    channel = Scripted(*said)
    paying = payouts(pool, channel)
    of_channel = paying._by_channel[here.channel]
    of_channel.sender = sender(pool, EndsInSql(pool), here.channel, channel, AT_ONCE)
    for _ in said:
        await paying.pay_out_some()
    assert channel.asked == [CALLS[kind][call] for call in asked]
    assert set(channel.refs) == {str(order)}
    assert await history(pool, order) == states
    assert await state_of(pool, order) == states[-1]
    assert await paying.pay_out_some() == (0, 0.0)
    assert await findings(pool) == []


@both_kinds
@pytest.mark.parametrize("way", WAYS)
async def test_an_order_ends_as_its_channel_says_and_is_sent_again_only_if_it_is_absent(
    fund_pool: Pool, way: str, kind: str
):
    await ends_as_it_says(fund_pool, way, kind=kind)


class SendsBlindly(PayoutSender):
    """A broken twin: sends a payout again without polling the channel first."""

    async def poll(self, sending: Sending) -> bool:
        return await self.send(sending)


@pytest.mark.parametrize("way", ["silent, but paid", "away, though it was sent", "accepted, paid later"])
async def test_one_that_sends_again_without_asking_is_noticed(fund_pool: Pool, way: str):
    with pytest.raises(AssertionError):
        await ends_as_it_says(fund_pool, way, SendsBlindly)


async def is_marked_before_the_call(pool: Pool, kind: str = "withdrawal") -> None:
    order = await INSERT[kind](pool)
    channel = Scripted(PAID)
    seen = []

    async def look(_: str) -> None:
        seen.append((await state_of(pool, order), await history(pool, order)))

    channel.during = look
    await payouts(pool, channel).pay_out_some()
    assert seen == [("sent", ["sent"])]


@both_kinds
async def test_an_order_is_marked_sent_before_the_call_goes_out(fund_pool: Pool, kind: str):
    await is_marked_before_the_call(fund_pool, kind)


async def test_one_that_is_not_marked_before_the_call_is_noticed(fund_pool: Pool, monkeypatch: pytest.MonkeyPatch):
    without = (
        "SELECT o.id AS order_id, o.kind, o.amount, o.currency, 0 AS asked, NULL AS channel_ref FROM fund.orders o"
        " WHERE o.state = 'posted' AND o.channel = $1::text AND o.id = ANY($2::uuid[])"
        " AND $3::bigint[] <> '{}' AND $4::text[] <> '{}' AND $5::bytea[] <> '{}' AND $6::bytea[] <> '{}'"
        " AND $7::bytea[] <> '{}' AND $8::smallint > 0 AND $9::interval > '0'"
    )
    monkeypatch.setitem(SQL, "payouts_claim", without)
    with pytest.raises(AssertionError):
        await is_marked_before_the_call(fund_pool)


async def is_not_sent_once_it_was_ended(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    orders = [await a_withdrawal(pool) for _ in range(2)]
    paced = PayoutSender._wait_for_rate

    async def ended_meanwhile(sender: PayoutSender) -> None:
        await pool.execute("UPDATE fund.orders SET ending = 'bounced' WHERE id = $1", orders[0])
        await paced(sender)

    monkeypatch.setattr(PayoutSender, "_wait_for_rate", ended_meanwhile)
    channel = Scripted(PAID, PAID)
    await payouts(pool, channel, LATE).pay_out_some()
    assert channel.refs == [str(orders[1])]


async def test_what_was_ended_while_it_waited_to_be_sent_is_not_sent(fund_pool: Pool, monkeypatch: pytest.MonkeyPatch):
    await is_not_sent_once_it_was_ended(fund_pool, monkeypatch)


async def test_one_that_does_not_look_again_before_it_sends_is_noticed(
    fund_pool: Pool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(SQL, "payouts_open", "SELECT $1::uuid")
    with pytest.raises(AssertionError):
        await is_not_sent_once_it_was_ended(fund_pool, monkeypatch)


class Fails(Scripted):
    """A channel whose `query` always raises the same exception."""

    def __init__(self, failure: Exception) -> None:
        super().__init__(ACCEPTED)
        self.failure = failure

    async def query(self, ref: str) -> Payout:
        raise self.failure


@pytest.mark.parametrize(
    ("failure", "level"), [(SILENT, "WARNING"), (AWAY, "WARNING"), (ValueError("not a number"), "ERROR")]
)
async def test_a_poll_that_fails_is_logged_once_and_repeated_later(
    fund_pool: Pool, caplog: pytest.LogCaptureFixture, failure: Exception, level: str
):
    order = await a_withdrawal(fund_pool)
    paying = payouts(fund_pool, Fails(failure))
    with caplog.at_level("INFO"):
        for _ in range(2):
            await paying.pay_out_some()
    (line,) = [record for record in caplog.records if getattr(record, "event", "") == "payout_poll_failed"]
    assert (line.levelname, line.order, bool(line.exc_info)) == (level, str(order), level == "ERROR")  # type: ignore[attr-defined]
    assert await fund_pool.fetchval("SELECT outcome IS NULL FROM fund.payouts WHERE order_id = $1", order)


# --- Selection of payouts -------------------------------------------------------------------------------------------


async def test_only_posted_withdrawals_of_configured_channels_are_sent(fund_pool: Pool):
    left = [
        await a_withdrawal(fund_pool, channel=f"{here.channel}-other"),
        await a_withdrawal(fund_pool, state="posting"),
        await a_withdrawal(fund_pool, ending="paid"),
        await a_withdrawal(fund_pool, state="bounced", ending="bounced"),
    ]
    order = await a_withdrawal(fund_pool)
    channel = Scripted(PAID)
    await payouts(fund_pool, channel).pay_out_some()
    assert channel.refs == [str(order)]
    assert [await history(fund_pool, other) for other in left] == [[], [], [], []]


async def test_the_oldest_go_first_and_a_turn_is_bounded(fund_pool: Pool):
    orders = [str(await a_withdrawal(fund_pool)) for _ in range(5)]
    channel = Scripted(*[PAID] * 5)
    paying = payouts(fund_pool, channel, Pace(rate=10_000, at_once=1, turn_max=3))
    done, lag_s = await paying.pay_out_some()
    assert (done, channel.refs) == (3, orders[:3])
    assert lag_s > 0
    assert (await paying.pay_out_some(), channel.refs) == ((2, 0.0), orders)


async def test_a_channel_that_is_away_has_few_orders_marked_and_does_not_hold_up_another(fund_pool: Pool):
    far = [await a_withdrawal(fund_pool) for _ in range(10)]
    near = await a_withdrawal(fund_pool, channel=f"{here.channel}-near")
    channels = {here.channel: Scripted(*[AWAY] * 2), f"{here.channel}-near": Scripted(PAID)}
    paying = Payouts(fund_pool, EndsInSql(fund_pool), channels, Pace(rate=10_000, at_once=2, again_s=3600))
    await paying.pay_out_some()
    assert [await state_of(fund_pool, order) for order in far] == ["sent"] * 2 + ["posted"] * 8
    assert await state_of(fund_pool, near) == "paid"


async def test_it_is_asked_again_after_longer_and_longer(fund_pool: Pool):
    order = await a_withdrawal(fund_pool)
    paying = payouts(fund_pool, Scripted(*[ACCEPTED] * 9), Pace(rate=10_000, again_s=100, again_max_s=500))
    waits = []
    for _ in range(5):
        assert (await paying.pay_out_some())[0] == 1
        assert (await paying.pay_out_some())[0] == 0
        waits.append(
            await fund_pool.fetchval("SELECT due_at - clock_timestamp() FROM fund.payouts WHERE order_id = $1", order)
        )
        await fund_pool.execute("UPDATE fund.payouts SET due_at = clock_timestamp() WHERE order_id = $1", order)
    assert [round(wait.total_seconds(), -1) for wait in waits] == [100, 200, 400, 500, 500]


async def test_calls_are_paced(fund_pool: Pool):
    for _ in range(4):
        await a_withdrawal(fund_pool)
    channel = Scripted(*[PAID] * 4)
    paying = payouts(fund_pool, channel, Pace(rate=0.5, at_once=4))
    turn = asyncio.create_task(paying.pay_out_some())
    await eventually(lambda: channel.asked, "the first one is sent")
    assert not paying._by_channel[here.channel].sender._limiter.has_capacity()
    assert len(channel.asked) == 1
    turn.cancel()
    await asyncio.gather(turn, return_exceptions=True)


async def test_what_waits_for_too_long_is_lag(fund_pool: Pool):
    long_ago = datetime.now(UTC) - timedelta(hours=1)
    order = await a_withdrawal(fund_pool, posted_at=long_ago)
    paying = payouts(fund_pool, Scripted(ACCEPTED), LATE)
    assert await paying.pay_out_some() == (1, 0.0)
    await fund_pool.execute("UPDATE fund.payouts SET sent_at = $1 WHERE order_id = $2", long_ago, order)
    done, lag_s = await paying.pay_out_some()
    assert (done, round(lag_s, -2), paying.late) == (0, 3600 - LATE.late_s, 1)


async def test_a_withdrawal_that_another_run_holds_is_skipped(fund_pool: Pool):
    held, free = await a_withdrawal(fund_pool), await a_withdrawal(fund_pool)
    channel = Scripted(PAID, PAID)
    paying = payouts(fund_pool, channel)
    async with fund_pool.acquire() as connection, connection.transaction():
        await connection.execute("SELECT FROM fund.orders WHERE id = $1 FOR UPDATE", held)
        await asyncio.wait_for(paying.pay_out_some(), 60)
        assert channel.refs == [str(free)]
    await paying.pay_out_some()
    assert channel.refs == [str(free), str(held)]


async def test_one_whose_lease_has_ended_sends_nothing_and_the_next_one_asks_first(fund_pool: Pool):
    order = await a_withdrawal(fund_pool)
    channel = Scripted(ABSENT, PAID)

    def lost() -> None:
        raise TimeoutError("the lease has ended")

    pace = Pace(rate=10_000, call_s=0.0, again_s=0.0)
    with pytest.raises(TimeoutError):
        await payouts(fund_pool, channel, pace).pay_out_some(lost)
    assert channel.asked == []

    async def is_paid() -> bool:
        await payouts(fund_pool, channel, pace).pay_out_some(lambda: None)
        return await state_of(fund_pool, order) == "paid"

    await eventually(is_paid, "the next one pays it out")
    assert channel.asked == ["query", "pay_out"]


async def test_two_concurrent_runs_send_each_withdrawal_once(fund_pool: Pool, bank: RunningBank):
    orders = [await a_withdrawal(fund_pool, amount=n) for n in range(1, 41)]
    async with HttpChannel(bank.url, token=bank.token) as channel:
        both = payouts(fund_pool, channel), payouts(fund_pool, channel)
        await asyncio.gather(*(paying.pay_out_some() for paying in both))
    assert {await state_of(fund_pool, order) for order in orders} == {"paid"}
    assert bank.totals["asked"] == len(orders)
    assert bank.totals["paid_amount"] == sum(range(1, 41))


# --- Ends by other callers ------------------------------------------------------------------------------------------


async def ended_meanwhile(pool: Pool, kind: str, by_others: str, *said: Standing | Exception) -> tuple[UUID, Scripted]:
    order = await INSERT[kind](pool)
    batcher, channel = EndsInSql(pool), Scripted(*said)

    async def somebody_ends_it(verb: str) -> None:
        if verb == CALLS[kind]["pay_out"]:
            assert isinstance(await batcher.end(order, by_others, "other", None, "front"), Taken)

    channel.during = somebody_ends_it
    paying = payouts(pool, channel)
    for _ in said:
        await paying.pay_out_some()
    assert await state_of(pool, order) == by_others
    assert await paying.pay_out_some() == (0, 0.0)
    return order, channel


@both_kinds
@pytest.mark.parametrize("stands", ["paid", "bounced"])
@pytest.mark.parametrize("before", [[], [ACCEPTED], [SILENT], [AWAY, ACCEPTED]])
@pytest.mark.parametrize("says", [PAID, BOUNCED])
async def test_an_end_that_stands_is_not_flipped_and_a_channel_that_says_otherwise_is_a_finding(
    fund_pool: Pool, caplog: pytest.LogCaptureFixture, kind: str, stands: str, before: list, says: Standing
):
    order, _ = await ended_meanwhile(fund_pool, kind, stands, *before, says)
    assert await history(fund_pool, order) == ["sent", stands]
    agrees = says == stands
    assert await findings(fund_pool) == ([] if agrees else [(stands, says)])
    assert any(record.levelname == "CRITICAL" for record in caplog.records) is not agrees


@both_kinds
@pytest.mark.parametrize(("stands", "found"), [("bounced", []), ("paid", [("paid", "absent")])])
async def test_what_was_ended_by_others_is_never_sent_again(fund_pool: Pool, kind: str, stands: str, found: list):
    _, channel = await ended_meanwhile(fund_pool, kind, stands, SILENT, ABSENT)
    assert channel.asked == [CALLS[kind]["pay_out"], CALLS[kind]["query"]]
    assert await findings(fund_pool) == found


async def test_an_absence_of_what_was_ended_is_not_believed_while_it_may_be_under_way(fund_pool: Pool):
    order = await a_withdrawal(fund_pool)
    channel = Scripted(SILENT, ABSENT, ABSENT, PAID)
    paying = payouts(fund_pool, channel, Pace(rate=10_000, again_s=0.0, again_max_s=0.0, doubt_s=3600))
    await paying.pay_out_some()
    await EndsInSql(fund_pool).end(order, "bounced", None, "by hand", "front")
    for _ in range(3):
        await paying.pay_out_some()
    assert channel.asked == ["pay_out", "query", "query", "query"]
    assert await findings(fund_pool) == [("bounced", "paid")]


async def test_what_was_sent_again_just_now_may_be_under_way_however_long_ago_it_was_sent_first(fund_pool: Pool):
    order = await a_withdrawal(fund_pool)
    channel = Scripted(AWAY, ABSENT, SILENT, ABSENT, PAID)
    paying = payouts(fund_pool, channel, Pace(rate=10_000, again_s=0.0, again_max_s=0.0, doubt_s=600))
    await paying.pay_out_some()
    long_ago = (
        "UPDATE fund.payouts SET sent_at = sent_at - $2::interval, called_at = called_at - $2 WHERE order_id = $1"
    )
    await fund_pool.execute(long_ago, order, timedelta(hours=1))
    await paying.pay_out_some()
    await EndsInSql(fund_pool).end(order, "bounced", None, "by hand", "front")
    for _ in range(2):
        await paying.pay_out_some()
    assert channel.asked == ["pay_out", "query", "pay_out", "query", "query"]
    assert await findings(fund_pool) == [("bounced", "paid")]


async def test_an_end_that_was_inserted_keeps_a_payout_from_being_sent_again(fund_pool: Pool):
    order = await a_withdrawal(fund_pool)
    channel = Scripted(SILENT, ABSENT)
    paying = payouts(fund_pool, channel)
    await paying.pay_out_some()
    await fund_pool.execute("UPDATE fund.orders SET ending = 'bounced' WHERE id = $1", order)
    await paying.pay_out_some()
    assert channel.asked == ["pay_out", "query"]


async def test_another_amount_at_the_channel_ends_nothing_and_is_a_finding(fund_pool: Pool):
    order = await a_withdrawal(fund_pool, amount=100)
    channel = Scripted(Payout(PAID, amount=101), Payout(PAID, amount=100, currency="EUR"), Payout(PAID, amount=100))
    paying = payouts(fund_pool, channel)
    for expected in ("sent", "sent", "paid"):
        await paying.pay_out_some()
        assert await state_of(fund_pool, order) == expected
    assert await findings(fund_pool) == [("sent", "amount")]
    assert json.loads(await fund_pool.fetchval(DETAIL, order))["amount"] == 101


async def test_an_end_that_could_not_be_recorded_is_polled_again(fund_pool: Pool):
    order = await a_withdrawal(fund_pool)
    batcher, channel = EndsInSql(fund_pool), Scripted(PAID, PAID)
    paying = payouts(fund_pool, channel, batcher=batcher)
    batcher.away = True
    await paying.pay_out_some()
    assert await state_of(fund_pool, order) == "sent"
    batcher.away = False
    await paying.pay_out_some()
    assert channel.asked == ["pay_out", "query"]
    assert batcher.asked == [(order, "paid", f"channel/{here.channel}")] * 2
    assert await state_of(fund_pool, order) == "paid"


# --- All faults together --------------------------------------------------------------------------------------------


async def until_all_have_ended(pool: Pool, paying: Payouts) -> None:
    async def all_have() -> bool:
        await paying.pay_out_some()
        return not await pool.fetchval(
            "SELECT count(*) FROM fund.orders WHERE channel = $1 AND state NOT IN ('paid', 'bounced')", here.channel
        )

    await eventually(all_have, "every withdrawal ends")


async def paid_here(pool: Pool) -> int:
    return await pool.fetchval(
        "SELECT coalesce(sum(amount), 0)::bigint FROM fund.orders WHERE channel = $1 AND state = 'paid'", here.channel
    )


async def test_whatever_the_bank_does_and_whenever_we_die_each_is_paid_once(fund_pool: Pool, bank: RunningBank):
    chance = random.Random(5)
    await bank.behave(seed=5, error_rate=0.2, lost_answer_rate=0.2, bounce_rate=0.2, settle_after_ms=5)
    orders = [await a_withdrawal(fund_pool, amount=n) for n in range(1, 41)]
    # Payouts that a cancelled run was processing are available again immediately.
    pace = Pace(rate=10_000, again_s=0.01, again_max_s=0.02, call_s=0.0001, at_once=4)
    async with HttpChannel(bank.url, token=bank.token) as channel:
        for _ in range(10):
            turn = asyncio.create_task(payouts(fund_pool, channel, pace).pay_out_some())
            for _ in range(chance.randrange(60)):
                await asyncio.sleep(0)
            turn.cancel()
            await asyncio.gather(turn, return_exceptions=True)
        await until_all_have_ended(fund_pool, payouts(fund_pool, channel, pace))
    totals = bank.totals
    assert (totals["payouts"], totals["conflicts"], totals["accepted"]) == (len(orders), 0, 0)
    assert totals["paid_amount"] == await paid_here(fund_pool)
    assert totals["bounced"] > 0
    assert await findings(fund_pool) == []


class KilledMeanwhile(EndsInSql):
    """An order batcher that kills the bank after some payouts have ended, while others are being sent."""

    def __init__(self, pool: Pool, bank: BankProcess) -> None:
        super().__init__(pool)
        self._bank: BankProcess | None = bank

    async def end(self, order_id: UUID, *said: str | None) -> Answer:
        if len(self.asked) == 5 and self._bank is not None:
            bank, self._bank = self._bank, None
            await bank.kill()
        return await super().end(order_id, *said)


async def test_a_bank_that_is_killed_pays_each_once(fund_pool: Pool, tmp_path: Path):
    orders = [await a_withdrawal(fund_pool, amount=n) for n in range(1, 31)]
    pace = Pace(rate=10_000, again_s=0.01, again_max_s=0.05, at_once=4)
    async with a_bank_process(tmp_path) as bank, HttpChannel(bank.url, token=bank.token) as channel:
        batcher = KilledMeanwhile(fund_pool, bank)
        paying = payouts(fund_pool, channel, pace, batcher)
        await paying.pay_out_some()
        assert 5 < paying.ended < len(orders)
        await bank.start()
        await until_all_have_ended(fund_pool, paying)
        assert (await bank.totals())["paid_amount"] == await paid_here(fund_pool) == sum(range(1, 31))


# --- Statements -----------------------------------------------------------------------------------------------------


async def test_no_statement_of_payouts_reads_all_orders(fund_pool: Pool):
    async with fund_pool.acquire() as connection, connection.transaction():
        await connection.execute("SET LOCAL enable_seqscan = off")
        for name in sorted(SQL):
            if name.startswith("payouts_"):
                plan = await plan_of(connection, SQL[name], like_a_lane=False)
                assert scanned(plan) == [], name


async def test_a_payout_is_never_deleted(fund_pool: Pool):
    await a_withdrawal(fund_pool)
    await payouts(fund_pool, Scripted(PAID)).pay_out_some()
    with pytest.raises(asyncpg.IntegrityConstraintViolationError):
        await fund_pool.execute("DELETE FROM fund.payouts WHERE channel = $1", here.channel)


# --- With the order batcher -----------------------------------------------------------------------------------------


async def test_front_ends_that_end_what_is_on_its_way_leave_books_that_are_the_bank_but_for_the_findings(
    fund_database: str, service: RunningService, bank: RunningBank
):
    async with FundWorker(fund_database, service.base_url, service.fund_token) as worker:
        merchant, name = await worker.merchant(), f"c-{worker.salt}"
        await worker.pay(merchant, "1", 100_000)
        asked = [
            worker.done("withdrawal", merchant=merchant, order_no=str(n), amount=100 + n, channel=name)
            for n in range(30)
        ]
        orders = [order.id for order in await asyncio.gather(*asked)]
        await bank.behave(seed=1, error_rate=0.1, lost_answer_rate=0.1, bounce_rate=0.3, settle_after_ms=10)
        pace = Pace(rate=10_000, again_s=0.01, again_max_s=0.02, doubt_s=0.0, at_once=4)
        async with HttpChannel(bank.url, token=bank.token) as channel:
            paying = Payouts(worker.pool, worker.batcher, {name: channel}, pace)
            turn = asyncio.create_task(paying.pay_out_some())
            ends = [worker.batcher.end(order, "bounced", None, "by hand", "front") for order in orders[1::3]]
            await asyncio.gather(turn, *ends)

            async def all_is_said() -> bool:
                await paying.pay_out_some()
                await worker.recoverer.recover_some()
                open_ = "SELECT count(*) FROM fund.payouts WHERE outcome IS NULL"
                ended = "SELECT count(*) FROM fund.orders WHERE kind = 'withdrawal' AND state IN ('paid', 'bounced')"
                return await worker.value(open_) == 0 and await worker.value(ended) == len(orders)

            await eventually(all_is_said, "every payout has its final word")
        paid = "SELECT coalesce(sum(amount), 0)::bigint FROM fund.orders WHERE kind = 'withdrawal' AND state = 'paid'"
        paid_there_only = (
            "SELECT coalesce(sum(o.amount), 0)::bigint FROM fund.channel_findings f"
            " JOIN fund.orders o ON o.id = f.order_id WHERE f.says = 'paid' AND f.stands = 'bounced'"
        )
        assert bank.totals["paid_amount"] == await worker.value(paid) + await worker.value(paid_there_only)
        assert await worker.value("SELECT count(*) FROM fund.channel_findings WHERE says <> 'paid'") == 0
        assert await worker.balance(accounts.payout_transit(name, "CNY")) == 0
        assert await worker.balance(accounts.bank(name, "CNY")) == 100_000 - await worker.value(paid)
