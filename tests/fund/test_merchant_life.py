"""The life of a merchant: changes by one and by two identities, suspension, resumption, and the end."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime
from typing import Any

import msgspec
import pytest

from fundledger.fund.channels.channel import Standing
from fundledger.fund.jobs.closing import Closer
from fundledger.fund.jobs.payout_sending import Pace
from fundledger.fund.jobs.payouts import Payouts
from fundledger.fund.model.answer import OrderFault, Taken
from fundledger.fund.model.change import Change, ChangeKind
from fundledger.fund.model.change_requests import (
    CloseRequest,
    FeeRuleBody,
    FinalWithdrawal,
    Holiday,
    HolidaysRequest,
    MerchantPatch,
)
from fundledger.fund.model.merchant import CLOSING, MerchantState, refusal_in
from fundledger.fund.model.order import Kind, State
from fundledger.fund.model.refusal import Code, Refusal
from fundledger.fund.model.requests import Fee
from fundledger.fund.store import decisions
from fundledger.fund.store.macs import Tampered
from fundledger.fund.store.merchant_rows import MerchantEvent, read_events
from fundledger.fund.store.merchants import EFFECTIVE_AFTER_S
from tests.fund.bank import Scripted
from tests.fund.test_debts import charge_back, owing
from tests.support.fund_worker import CHECKER, MODULE, FundWorker
from tests.support.running import RunningService

PACE = Pace(rate=10_000, again_s=0.0, again_max_s=0.0, doubt_s=0.0)


async def history(worker: FundWorker, merchant: str) -> list[MerchantEvent]:
    events, bad, last = await read_events(worker.pool, worker.macs, merchant, 0, 100)
    assert bad == []
    assert [event.version for event in events] == list(range(1, last + 1))
    return events


async def whats(worker: FundWorker, merchant: str) -> list[str]:
    return [event.what for event in await history(worker, merchant)]


async def state_of(worker: FundWorker, merchant: str) -> MerchantState:
    found = await worker.merchants.read(merchant)
    assert found is not None
    return found.state


async def asked(worker: FundWorker, merchant: str, kind: str, number: str = "x", **members: Any) -> str:
    """Request an order. Return its state, or the code of the refusal."""
    answer = await worker.ask(kind, merchant=merchant, order_no=number, **members)
    assert not isinstance(answer, OrderFault), answer
    return str(answer.code if isinstance(answer, Refusal) else answer.order.state)


async def withdraw(worker: FundWorker, merchant: str, number: str = "w", amount: int = 5) -> str:
    return await asked(worker, merchant, "withdrawal", number, amount=amount, channel=f"c-{worker.salt}")


# --- Changes ---


async def test_one_identity_changes_the_name_and_the_calendar(worker: FundWorker) -> None:
    merchant = await worker.merchant(settlement="daily")
    patch = MerchantPatch(name="New", settlement="weekly", settlement_days=2, settlement_cut="17:00", why="contract 7")
    assert await worker.changes.patch(merchant, patch, "ann")
    found = await worker.merchants.read(merchant)
    assert found is not None
    assert (found.name, found.settlement, found.settlement_days, found.version) == ("New", "weekly", 2, 2)
    assert f"{found.settlement_cut:%H:%M}" == "17:00"
    created, changed = await history(worker, merchant)
    assert (created.what, created.by, changed.by, changed.why) == ("created", MODULE, "ann", "contract 7")
    assert msgspec.json.decode(changed.body) == {
        "name": {"from": "m", "to": "New"},
        "settlement": {"from": "daily", "to": "weekly"},
        "settlement_days": {"from": None, "to": 2},
        "settlement_cut": {"from": None, "to": "17:00"},
    }
    # A change to the present values is no event. A value can be removed.
    assert await worker.changes.patch(merchant, patch, "ann")
    assert await worker.changes.patch(merchant, MerchantPatch(settlement_days=None), "bob")
    assert [event.by for event in await history(worker, merchant)] == [MODULE, "ann", "bob"]
    assert not await worker.changes.patch("nobody", patch, "ann")


async def test_a_payment_keeps_its_due_day_when_the_calendar_changes(worker: FundWorker) -> None:
    merchant = await worker.merchant(settlement="daily")
    first = await worker.pay(merchant, "1", 100, settle="later")
    await worker.changes.patch(merchant, MerchantPatch(settlement="monthly"), "ann")
    await worker.merchants.look()
    second = await worker.pay(merchant, "2", 100, settle="later")
    assert first.settle_on is not None and second.settle_on is not None
    assert second.settle_on.day == 1
    again = await worker.pay(merchant, "1", 100, settle="later")
    assert again.settle_on == first.settle_on


async def test_two_identities_change_the_limit_and_the_fees(worker: FundWorker) -> None:
    merchant = await worker.merchant(withdrawal_limit=100)
    await worker.pay(merchant, "p", 1_000)
    assert await withdraw(worker, merchant, "a", 101) == "withdrawal-limit-exceeded"
    patch = MerchantPatch(withdrawal_limit=500, withdrawal_fee=Fee(fixed=3), name="New", why="ticket")
    change = await worker.approved(ChangeKind.MERCHANT, merchant, patch)
    # The limit of the locked row applies, and not that of the cache.
    assert await withdraw(worker, merchant, "b", 101) == "posted"
    assert await withdraw(worker, merchant, "c", 400) == "withdrawal-limit-exceeded"
    found = await worker.merchants.read(merchant)
    assert found is not None
    assert (found.name, found.withdrawal_limit, found.fee_rules[0].fixed) == ("New", 500, 3)
    assert (found.fee_rules[0].effective_at - datetime.now(UTC)).total_seconds() > EFFECTIVE_AFTER_S / 2
    told = (await history(worker, merchant))[1]
    assert (told.what, told.by, told.approved_by, told.change) == ("changed", MODULE, CHECKER, change.id)
    body = msgspec.json.decode(told.body)
    assert body["withdrawal_limit"] == {"from": 100, "to": 500}
    assert body["withdrawal_fee"]["to"] == {"fixed": 3}
    rule = FeeRuleBody(product="payment", channel="c", basis_points=60)
    await worker.approved(ChangeKind.FEE_RULE, f"{merchant} payment c", rule)
    await worker.approved(ChangeKind.MERCHANT, merchant, MerchantPatch(withdrawal_limit=None))
    assert await whats(worker, merchant) == ["created", "changed", "fee_rule", "changed"]
    assert await withdraw(worker, merchant, "d", 890) == "posted"


async def test_no_change_is_applied_by_one_identity_twice_or_for_a_merchant_that_is_gone(worker: FundWorker) -> None:
    merchant = await worker.merchant()
    made = await worker.dual.request(ChangeKind.MERCHANT, merchant, MerchantPatch(withdrawal_limit=1), "ann")
    assert isinstance(made, Change)
    alone = await worker.dual.approve(made.id, "ann")
    assert isinstance(alone, Refusal)
    assert alone.code is Code.APPROVAL_NEEDS_ANOTHER
    other = await worker.dual.request(ChangeKind.MERCHANT, merchant, MerchantPatch(withdrawal_limit=2), "bob")
    assert isinstance(other, Refusal)
    assert other.code is Code.CHANGE_WAITING
    for _ in range(2):
        applied = await worker.dual.approve(made.id, "bob")
        assert isinstance(applied, Change)
    assert await whats(worker, merchant) == ["created", "changed"]
    waits = await worker.dual.request(ChangeKind.MERCHANT, merchant, MerchantPatch(withdrawal_limit=3), "ann")
    assert isinstance(waits, Change)
    await close(worker, merchant)
    late = await worker.dual.approve(waits.id, "bob")
    assert isinstance(late, Refusal)
    assert late.code is Code.MERCHANT_CLOSED
    late_rule = FeeRuleBody(product="payment", fixed=1, effective_at=datetime.now(UTC))
    made = await worker.dual.request(ChangeKind.FEE_RULE, "nobody payment *", late_rule, "ann")
    assert isinstance(made, Change)
    unknown = await worker.dual.approve(made.id, "bob")
    assert isinstance(unknown, Refusal)
    assert unknown.code is Code.MERCHANT_NOT_FOUND


async def test_a_fee_rule_that_was_approved_too_late_takes_no_effect_in_the_past(worker: FundWorker) -> None:
    merchant = await worker.merchant()
    rule = FeeRuleBody(product="payment", fixed=1, effective_at=datetime.now(UTC))
    made = await worker.dual.request(ChangeKind.FEE_RULE, f"{merchant} payment *", rule, "ann")
    assert isinstance(made, Change)
    late = await worker.dual.approve(made.id, "bob")
    assert isinstance(late, Refusal)
    assert late.code is Code.FEE_RULE_TOO_SOON
    assert await whats(worker, merchant) == ["created"]


# --- Holidays ---


async def test_holidays_move_the_due_days_of_later_payments(worker: FundWorker) -> None:
    worker.merchants._now = worker.batcher._now = lambda: datetime(2026, 9, 29, 10, tzinfo=UTC)
    merchant = await worker.merchant(settlement="daily", settlement_days=2)
    elsewhere = await worker.merchant("e", settlement="daily", settlement_days=2, settlement_region="XX")
    before = await worker.pay(merchant, "1", 100, settle="later")
    assert before.settle_on == date(2026, 10, 1)
    # The first working day after the 30th is Saturday the 10th.
    days = [Holiday(date(2026, 10, day)) for day in range(1, 10)] + [Holiday(date(2026, 10, 10), working=True)]
    await worker.approved(ChangeKind.HOLIDAYS, "CNY", HolidaysRequest("CNY", days, why="State Council"))
    await worker.merchants.look()
    assert (await worker.pay(merchant, "2", 100, settle="later")).settle_on == date(2026, 10, 10)
    assert (await worker.pay(elsewhere, "2", 100, settle="later")).settle_on == date(2026, 10, 1)
    again = HolidaysRequest("CNY", [Holiday(date(2026, 10, 1), working=True)])
    await worker.approved(ChangeKind.HOLIDAYS, "CNY", again)
    await worker.merchants.look()
    assert (await worker.pay(merchant, "3", 100, settle="later")).settle_on == date(2026, 10, 1)


async def test_a_working_day_that_was_edited_is_none(unproved: FundWorker) -> None:
    worker = unproved
    worker.merchants._now = worker.batcher._now = lambda: datetime(2026, 10, 9, 10, tzinfo=UTC)
    merchant = await worker.merchant(settlement="daily", settlement_days=1)
    saturday = Holiday(date(2026, 10, 10), working=True)
    await worker.approved(ChangeKind.HOLIDAYS, "CNY", HolidaysRequest("CNY", [saturday]))
    await worker.merchants.look()
    assert (await worker.pay(merchant, "1", 100, settle="later")).settle_on == date(2026, 10, 10)
    await worker.value("UPDATE fund.holidays SET name = 'x', version = nextval('fund.holidays_version')")
    await worker.merchants.look()
    assert (await worker.pay(merchant, "2", 100, settle="later")).settle_on == date(2026, 10, 12)
    assert await worker.macs.write_found(worker.pool) == 1


# --- Suspension ---


@pytest.fixture
async def unproved(fund_database: str, service: RunningService) -> AsyncIterator[FundWorker]:
    async with FundWorker(fund_database, service.base_url, service.fund_token) as worker:
        yield worker


async def with_money(worker: FundWorker, name: str = "m") -> str:
    """Return a merchant with an available and a pending balance of 1,000, of the payments `p` and `later`."""
    merchant = await worker.merchant(name)
    await worker.pay(merchant, "p", 1_000)
    await worker.pay(merchant, "later", 1_000, settle="later")
    return merchant


async def test_no_money_leaves_a_suspended_merchant_and_facts_are_taken(worker: FundWorker) -> None:
    merchant, other = await with_money(worker), await with_money(worker, "o")
    # The cache of this worker has the merchant, as it was before.
    assert await worker.changes.suspend(merchant, "case 17", "ann") is True
    assert await withdraw(worker, merchant) == "merchant-suspended"
    everything = {"all": True, "channel": f"c-{worker.salt}"}
    assert await asked(worker, merchant, "withdrawal", **everything) == "merchant-suspended"
    assert await asked(worker, merchant, "refund", payment_order_no="p", amount=5) == "merchant-suspended"
    assert await asked(worker, merchant, "settlement") == "merchant-suspended"
    assert await worker.of(merchant) == (1_000, 1_000, 0)
    await worker.merchants.look()
    assert await withdraw(worker, merchant) == "merchant-suspended"
    for settle in ("now", "later"):
        await worker.pay(merchant, f"more-{settle}", 10, settle=settle)
    assert (await charge_back(worker, merchant, "p", 600)).state is State.POSTED
    for number, direction in (("up", "credit"), ("down", "debit")):
        members = {"amount": 7, "direction": direction, "reason": "r"}
        assert await asked(worker, merchant, "adjustment", number, **members) == "posted"
    of = {"of_kind": "payment", "of_order_no": "more-now", "reason": "r"}
    assert await asked(worker, merchant, "reversal", **of) == "posted"
    assert await worker.of(merchant) == (400, 1_010, 0)
    assert await withdraw(worker, other) == "posted"
    assert await worker.changes.suspend(merchant, "again", "bob") is True
    assert await worker.changes.resume(merchant, "case 17 is closed", "ann") is True
    assert await worker.changes.resume(merchant, "again", "bob") is True
    assert await withdraw(worker, merchant) == "posted"
    assert await asked(worker, merchant, "settlement") == "posted"
    told = await history(worker, merchant)
    assert [(event.what, event.by, event.why) for event in told[1:]] == [
        ("suspended", "ann", "case 17"),
        ("resumed", "ann", "case 17 is closed"),
    ]
    assert await worker.changes.suspend("nobody", "r", "ann") is False
    assert await worker.changes.resume("nobody", "r", "ann") is False


async def test_a_refused_request_is_the_same_after_the_suspension(worker: FundWorker) -> None:
    """A refusal by the state of the merchant is no order: the number stays free."""
    merchant = await with_money(worker)
    done = await worker.done("refund", merchant=merchant, order_no="before", payment_order_no="p", amount=5)
    await worker.changes.suspend(merchant, "r", "ann")
    assert await withdraw(worker, merchant, "same") == "merchant-suspended"
    again = await worker.ask("refund", merchant=merchant, order_no="before", payment_order_no="p", amount=5)
    assert isinstance(again, Taken) and again.replay and again.order.id == done.id
    await worker.changes.resume(merchant, "r", "ann")
    assert await withdraw(worker, merchant, "same") == "posted"


async def test_after_a_suspension_no_withdrawal_is_reserved_by_any_worker(
    worker: FundWorker, service: RunningService
) -> None:
    """Other workers have the merchant in their caches, and withdraw while it is suspended."""
    merchant = await with_money(worker)
    other = FundWorker(worker.dsn, service.base_url, service.fund_token, salt=worker.salt)
    async with other:
        await other.merchants.read(merchant)
        asking = [asyncio.create_task(withdraw(other, merchant, str(number), 1)) for number in range(30)]
        await worker.changes.suspend(merchant, "r", "ann")
        count = "SELECT count(*) FROM fund.orders WHERE kind = 'withdrawal' AND merchant = $1"
        reserved = await worker.value(count, merchant)
        answers = await asyncio.gather(*asking)
        assert await worker.value(count, merchant) == reserved
        assert answers.count("posted") == reserved
        assert answers.count("merchant-suspended") == 30 - reserved


async def test_one_that_trusts_its_cache_withdraws_from_a_suspended_merchant(
    worker: FundWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broken twin of the tests above: the locked row does not decide."""
    merchant = await with_money(worker)
    await worker.changes.suspend(merchant, "r", "ann")
    monkeypatch.setattr(decisions, "in_state", lambda *_: None)
    assert await withdraw(worker, merchant) == "posted"


async def test_payouts_of_a_suspended_merchant_wait(worker: FundWorker) -> None:
    merchant, other = await with_money(worker), await with_money(worker, "o")
    channel = f"c-{worker.salt}"
    for each in (merchant, other):
        for number in range(3):
            assert await withdraw(worker, each, str(number)) == "posted"
    bank = Scripted(*[Standing.PAID] * 6)
    paying = Payouts(worker.pool, worker.batcher, {channel: bank}, PACE)
    await worker.changes.suspend(merchant, "r", "ann")
    for _ in range(3):
        await paying.pay_out_some()
    assert len(bank.refs) == 3
    assert await worker.value("SELECT count(*) FROM fund.payouts p JOIN fund.orders o ON o.id = order_id") == 3
    await worker.changes.resume(merchant, "r", "ann")
    await paying.pay_out_some()
    assert len(bank.refs) == 6


async def test_a_payout_that_was_sent_before_the_suspension_ends(worker: FundWorker) -> None:
    merchant, channel = await with_money(worker), f"c-{worker.salt}"
    assert await withdraw(worker, merchant) == "posted"
    bank = Scripted(Standing.ACCEPTED, Standing.ABSENT, Standing.ABSENT, Standing.PAID)
    paying = Payouts(worker.pool, worker.batcher, {channel: bank}, PACE)
    await paying.pay_out_some()
    await worker.changes.suspend(merchant, "r", "ann")
    for _ in range(2):
        await paying.pay_out_some()
    # The channel does not know the payout. It is asked, and is not asked to pay.
    assert bank.asked == ["pay_out", "query", "query"]
    await paying.pay_out_some()
    assert await worker.value("SELECT state FROM fund.orders WHERE kind = 'withdrawal'") == "paid"


@pytest.mark.parametrize(
    "edit", ["state = 'open'", "state = 'open', version = 1", "final_channel = NULL, state = 'open'"]
)
async def test_a_suspension_that_was_removed_by_sql_stays(unproved: FundWorker, edit: str) -> None:
    worker = unproved
    merchant, channel = await with_money(worker), f"c-{unproved.salt}"
    assert await withdraw(worker, merchant, "before") == "posted"
    await worker.changes.suspend(merchant, "r", "ann")
    await worker.value("ALTER TABLE fund.merchants DISABLE TRIGGER merchants_forward")
    await worker.value(f"UPDATE fund.merchants SET {edit} WHERE id = $1", merchant)
    await worker.value("ALTER TABLE fund.merchants ENABLE ALWAYS TRIGGER merchants_forward")
    members = {"merchant": merchant, "order_no": "w", "amount": 5, "channel": channel}
    fault = await worker.ask("withdrawal", **members)
    assert isinstance(fault, OrderFault) and fault.tampered
    bank = Scripted(Standing.PAID)
    await Payouts(worker.pool, worker.batcher, {channel: bank}, PACE).pay_out_some()
    assert bank.refs == []
    for change in (worker.changes.suspend, worker.changes.resume):
        with pytest.raises(Tampered):
            await change(merchant, "r", "ann")


# --- The end ---


def closer(worker: FundWorker) -> Closer:
    return Closer(worker.pool, worker.batcher, worker.merchants, worker.changes, again_s=0.0)


async def close(worker: FundWorker, merchant: str, channel: str | None = None, by: str = "ann") -> Refusal | bool:
    final = None if channel is None else FinalWithdrawal(channel)
    answer = await worker.changes.close(merchant, CloseRequest("contract has ended", final), by)
    await closer(worker).close_some()
    return answer


async def statuses(worker: FundWorker, merchant: str) -> set[str]:
    found = [
        await worker.accounts.account(f"merchant:{merchant}:{name}") for name in ("available", "pending", "receivable")
    ]
    return {each.status for each in found if each is not None}


async def test_an_empty_merchant_is_closed_and_facts_about_it_are_parked(worker: FundWorker) -> None:
    merchant = await worker.merchant()
    await worker.pay(merchant, "p", 100)
    assert await withdraw(worker, merchant, "w", 100) == "posted"
    order = await worker.value("SELECT id FROM fund.orders WHERE kind = 'withdrawal'")
    no = await close(worker, merchant)
    assert isinstance(no, Refusal)
    assert (no.code, no.detail) == (Code.MERCHANT_NOT_EMPTY, f"merchant {merchant} is not empty: open orders: 1")
    assert await state_of(worker, merchant) is MerchantState.OPEN
    await worker.batcher.end(order, "paid", "ref", None, "bank")
    assert await close(worker, merchant) is True
    assert await state_of(worker, merchant) is MerchantState.CLOSED
    assert await statuses(worker, merchant) == {"closed"}
    assert await close(worker, merchant, by="again") is True
    assert (await worker.pay(merchant, "late", 10)).state is State.PARKED
    assert (await worker.pay(merchant, "later", 10, settle="later")).state is State.PARKED
    assert (await charge_back(worker, merchant, "p", 100)).state is State.PARKED
    assert await withdraw(worker, merchant, "more") == "merchant-closed"
    assert await asked(worker, merchant, "refund", payment_order_no="p", amount=5) == "merchant-closed"
    assert await asked(worker, merchant, "settlement") == "merchant-closed"
    adjustment = {"amount": 7, "direction": "credit", "reason": "r"}
    assert await asked(worker, merchant, "adjustment", **adjustment) == "merchant-closed"
    for change in (worker.changes.suspend, worker.changes.resume):
        answer = await change(merchant, "r", "ann")
        assert isinstance(answer, Refusal)
        assert answer.code is Code.MERCHANT_CLOSED
    assert await whats(worker, merchant) == ["created", "closing", "closed"]
    told = await history(worker, merchant)
    assert [(event.by, event.why) for event in told[1:]] == [("ann", "contract has ended"), (CLOSING, None)]
    assert await worker.changes.close("nobody", CloseRequest("r"), "ann") is False


async def test_what_a_merchant_has_is_settled_and_withdrawn_at_its_end(worker: FundWorker) -> None:
    channel = f"c-{worker.salt}"
    merchant = await worker.merchant(fee=Fee(basis_points=100), withdrawal_fee=Fee(fixed=3))
    await worker.pay(merchant, "p", 1_000)
    await worker.pay(merchant, "q", 1_000, settle="later")
    no = await close(worker, merchant)
    assert isinstance(no, Refusal)
    assert no.code is Code.MERCHANT_NOT_EMPTY
    assert await close(worker, merchant, channel) is True
    assert await state_of(worker, merchant) is MerchantState.CLOSING
    assert await worker.of(merchant) == (0, 0, 0)
    assert await withdraw(worker, merchant) == "merchant-closed"
    # A payment that is posted meanwhile is settled and withdrawn, too.
    await worker.pay(merchant, "r", 500, settle="later")
    bank = Scripted(Standing.PAID, Standing.PAID)
    paying = Payouts(worker.pool, worker.batcher, {channel: bank}, PACE)
    await paying.pay_out_some()
    for _ in range(3):
        await closer(worker).close_some()
    assert await state_of(worker, merchant) is MerchantState.CLOSING
    await paying.pay_out_some()
    await closer(worker).close_some()
    assert await state_of(worker, merchant) is MerchantState.CLOSED
    rows = await worker.pool.fetch(
        "SELECT kind, order_no, amount, fee, module FROM fund.orders WHERE order_no LIKE 'auto-close-%' ORDER BY kind, seq"
    )
    assert [tuple(row) for row in rows] == [
        ("settlement", "auto-close-1", 1_000, 10, CLOSING),
        ("settlement", "auto-close-2", 500, 5, CLOSING),
        ("withdrawal", "auto-close-1", 1_977, 3, CLOSING),
        ("withdrawal", "auto-close-2", 492, 3, CLOSING),
    ]


async def test_a_final_withdrawal_that_bounces_is_repeated_when_a_person_asks_again(worker: FundWorker) -> None:
    merchant, channel = await with_money(worker), f"c-{worker.salt}"
    bank = Scripted(Standing.BOUNCED, Standing.PAID)
    paying = Payouts(worker.pool, worker.batcher, {channel: bank}, PACE)
    await close(worker, merchant, channel)
    await paying.pay_out_some()
    for _ in range(3):
        await closer(worker).close_some()
        await paying.pay_out_some()
    assert (await worker.of(merchant), len(bank.refs)) == ((2_000, 0, 0), 1)
    assert await close(worker, merchant, channel, by="bob") is True
    await paying.pay_out_some()
    await closer(worker).close_some()
    assert await state_of(worker, merchant) is MerchantState.CLOSED
    assert await whats(worker, merchant) == ["created", "closing", "closing", "closed"]


async def test_a_merchant_that_owes_is_closed_after_its_debt_is_written_off(worker: FundWorker) -> None:
    merchant = await owing(worker, 300)
    order = await worker.value("SELECT id FROM fund.orders WHERE kind = 'withdrawal'")
    await worker.batcher.end(order, "paid", "ref", None, "bank")
    no = await close(worker, merchant)
    assert isinstance(no, Refusal)
    assert no.code is Code.MERCHANT_NOT_EMPTY
    assert await close(worker, merchant, f"c-{worker.salt}") is True
    assert await state_of(worker, merchant) is MerchantState.CLOSING
    assert await asked(worker, merchant, "write_off", amount=300, reason="gone") == "posted"
    await closer(worker).close_some()
    assert await state_of(worker, merchant) is MerchantState.CLOSED


async def test_a_merchant_that_is_being_closed_can_be_resumed(worker: FundWorker) -> None:
    merchant = await with_money(worker)
    await worker.changes.close(merchant, CloseRequest("r", FinalWithdrawal(f"c-{worker.salt}")), "ann")
    answer = await worker.changes.suspend(merchant, "r", "ann")
    assert isinstance(answer, Refusal)
    assert await worker.changes.resume(merchant, "a mistake", "bob") is True
    found = await worker.merchants.read(merchant)
    assert found is not None
    assert (found.state, found.final_channel) == (MerchantState.OPEN, None)
    await closer(worker).close_some()
    assert await worker.of(merchant) == (1_000, 1_000, 0)
    assert await withdraw(worker, merchant) == "posted"


async def test_the_accounts_are_closed_by_a_later_run_if_a_run_was_cut_off(
    worker: FundWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    merchant = await worker.merchant()
    close_account, closed = worker.gateway.close_account, []

    async def cut(id_: str, reason: str) -> None:
        if len(closed) == 2:
            raise RuntimeError("killed")
        closed.append(id_)
        await close_account(id_, reason)

    await worker.changes.close(merchant, CloseRequest("r"), "ann")
    with monkeypatch.context() as killed:
        killed.setattr(worker.gateway, "close_account", cut)
        with pytest.raises(RuntimeError, match="killed"):
            await closer(worker).close_some()
    assert await state_of(worker, merchant) is MerchantState.CLOSING
    # An account is closed permanently, so the merchant cannot be resumed any more.
    answer = await worker.changes.resume(merchant, "a mistake", "ann")
    assert isinstance(answer, Refusal)
    assert answer.code is Code.MERCHANT_CLOSED
    # A payment that is parked meanwhile waits permanently, and does not delay the end.
    assert (await worker.pay(merchant, "late", 10)).state is State.PARKED
    await asyncio.gather(*(closer(worker).close_some() for _ in range(4)))
    assert await state_of(worker, merchant) is MerchantState.CLOSED
    assert await whats(worker, merchant) == ["created", "closing", "closed"]


async def test_money_that_arrives_between_the_look_and_the_end_is_not_lost(
    worker: FundWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    merchant, channel = await worker.merchant(), f"c-{worker.salt}"
    end = worker.changes.end

    async def late(id_: str) -> str | None:
        if await worker.value("SELECT count(*) FROM fund.orders WHERE merchant = $1", merchant) == 0:
            await worker.pay(merchant, "late", 10)
        return await end(id_)

    monkeypatch.setattr(worker.changes, "end", late)
    assert await close(worker, merchant, channel) is True
    assert await state_of(worker, merchant) is MerchantState.CLOSING
    assert await statuses(worker, merchant) == {"open"}
    await closer(worker).close_some()
    bank = Scripted(Standing.PAID)
    await Payouts(worker.pool, worker.batcher, {channel: bank}, PACE).pay_out_some()
    await closer(worker).close_some()
    assert await state_of(worker, merchant) is MerchantState.CLOSED


async def test_several_merchants_are_closed_although_one_cannot_be(worker: FundWorker) -> None:
    names = [await worker.merchant(name) for name in ("a", "b", "c")]
    for merchant in names:
        await worker.changes.close(merchant, CloseRequest("r"), "ann")
    await worker.pay(names[1], "p", 10)
    await closer(worker).close_some()
    found = [await state_of(worker, merchant) for merchant in names]
    assert found == [MerchantState.CLOSED, MerchantState.CLOSING, MerchantState.CLOSED]


# --- Rules ---

PAYING = {Kind.REFUND, Kind.SPLIT_REFUND, Kind.SETTLEMENT, Kind.WITHDRAWAL, Kind.TRANSFER}
FACTS = {
    *(Kind.PAYMENT, Kind.SPLIT_PAYMENT, Kind.TOP_UP, Kind.PAYOUT_RETURN, Kind.DISPUTE_WON),
    *(Kind.CHARGEBACK, Kind.SPLIT_CHARGEBACK, Kind.DISPUTE_FEE),
}


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("state", MerchantState)
def test_the_state_of_a_merchant_decides_which_orders_it_gets(state: MerchantState, kind: Kind) -> None:
    refused = {
        MerchantState.OPEN: set(),
        MerchantState.SUSPENDED: PAYING,
        MerchantState.CLOSING: PAYING | {Kind.RESERVE_HOLD},
        MerchantState.CLOSED: set(Kind) - FACTS,
    }
    for module in ("shop", CLOSING):
        is_final = state is MerchantState.CLOSING and module == CLOSING
        no = refusal_in(state, "m", kind, module)
        assert (no is not None) == (kind in refused[state] and not is_final)
        if no is not None:
            expected = Code.MERCHANT_SUSPENDED if state is MerchantState.SUSPENDED else Code.MERCHANT_CLOSED
            assert no.code is expected
