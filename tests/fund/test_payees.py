"""Payees: two identities register one, withdrawals to it wait for the cooling time, and money leaves to it only."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from fundledger.fund.channels.channel import ChannelAway, Standing
from fundledger.fund.jobs.payout_payees import PayoutPayees
from fundledger.fund.jobs.payout_sending import Pace
from fundledger.fund.jobs.payouts import Payouts
from fundledger.fund.model.answer import OrderFault, Taken
from fundledger.fund.model.bank_account import BankAccount
from fundledger.fund.model.change import Change, ChangeKind
from fundledger.fund.model.order import Order, State
from fundledger.fund.model.payee import PAYEES_MAX, PayeeRequest
from fundledger.fund.model.refusal import Code, Refusal
from fundledger.fund.store.macs import OrderMacs, Tampered
from tests.fund.bank import Scripted
from tests.support.fund_payees import a_payee, changes_of, iban, payees_of
from tests.support.fund_worker import CHECKER, MODULE, FundWorker
from tests.support.running import RunningService

PACE = Pace(rate=10_000, again_s=0.0, again_max_s=0.0, doubt_s=0.0)


@pytest.fixture
async def tampered(fund_database: str, service: RunningService) -> AsyncIterator[FundWorker]:
    """Return a worker whose books are not proved at the end: the tests edit rows."""
    async with FundWorker(fund_database, service.base_url, service.fund_token) as worker:
        yield worker


async def withdraw(worker: FundWorker, merchant: str, order_no: str, payee: UUID | None, amount: int = 10) -> Any:
    members = {"merchant": merchant, "order_no": order_no, "amount": amount, "channel": f"c-{worker.salt}"}
    return await worker.ask("withdrawal", payee=payee, **members)


def refused(answer: Any, code: Code) -> Refusal:
    assert isinstance(answer, Refusal), answer
    assert answer.code is code
    return answer


async def paid_out(worker: FundWorker, *said: Any) -> Scripted:
    """Run the payout job once for the channel of the worker."""
    bank = Scripted(*said)
    await Payouts(worker.pool, worker.batcher, {f"c-{worker.salt}": bank}, PACE).pay_out_some()
    return bank


async def state_of(worker: FundWorker, order: Order) -> str:
    return str(await worker.value("SELECT state FROM fund.orders WHERE id = $1", order.id))


async def a_shop(worker: FundWorker, name: str = "m", amount: int = 1_000, currency: str = "CNY") -> str:
    merchant = await worker.merchant(name, currency)
    await worker.pay(merchant, "p", amount, currency=currency)
    return merchant


# --- Registration ---------------------------------------------------------------------------------------------------


async def test_a_payee_is_registered_by_two_identities_and_has_the_id_of_its_change(worker: FundWorker) -> None:
    merchant = await a_shop(worker)
    payees = payees_of(worker, 24.0)
    changes = changes_of(worker, payees)
    request = PayeeRequest("Tea House", "CNY", iban=" de89 3704 0044 0532 0130 00")
    made = await changes.request(ChangeKind.PAYEE, payees.subject(merchant, request), request, MODULE)
    assert isinstance(made, Change)
    assert "DE89370400440532013000" not in made.subject
    assert await payees.read(merchant, made.id) is None
    refused(await changes.approve(made.id, MODULE), Code.APPROVAL_NEEDS_ANOTHER)
    await changes.approve(made.id, CHECKER)
    payee = await payees.read(merchant, made.id)
    assert payee is not None
    assert (payee.id, payee.iban, payee.registered_by) == (made.id, "DE89370400440532013000", MODULE)
    assert payee.usable_from - payee.created_at == timedelta(hours=24)
    assert await payees.read("other", made.id) is None


async def test_the_same_request_is_the_same_change_and_one_account_is_one_payee(worker: FundWorker) -> None:
    merchant = await a_shop(worker)
    payees = payees_of(worker)
    changes = changes_of(worker, payees)
    request = PayeeRequest("A", "CNY", account="6222021001", bank_code="102100099996")
    subject = payees.subject(merchant, request)
    first, again = [await changes.request(ChangeKind.PAYEE, subject, request, MODULE) for _ in range(2)]
    assert isinstance(first, Change)
    assert isinstance(again, Change)
    assert first.id == again.id
    other = PayeeRequest("B", "CNY", account="6222021001", bank_code="102100099996")
    assert payees.subject(merchant, other) == subject
    refused(await changes.request(ChangeKind.PAYEE, subject, other, MODULE), Code.CHANGE_WAITING)
    assert isinstance(await changes.approve(first.id, CHECKER), Change)
    refused(await payees.refusal_of(worker.pool, merchant, other), Code.PAYEE_EXISTS)
    late = await changes.request(ChangeKind.PAYEE, subject, other, MODULE)
    assert isinstance(late, Change)
    refused(await changes.approve(late.id, CHECKER), Code.PAYEE_EXISTS)
    assert await worker.value("SELECT state FROM fund.changes WHERE id = $1", late.id) == "waiting"
    assert (
        await payees.refusal_of(worker.pool, merchant, PayeeRequest("B", "CNY", account="6222021001", bank_code="x-1"))
        is None
    )


async def test_two_approvals_of_one_account_at_one_time_make_one_payee(worker: FundWorker) -> None:
    merchant = await a_shop(worker)
    payees = payees_of(worker)
    changes = changes_of(worker, payees)
    request = PayeeRequest("A", "CNY", iban=iban())
    made = [await changes.request(ChangeKind.PAYEE, f"{merchant} {n}", request, MODULE) for n in range(5)]
    answers = await asyncio.gather(*(changes.approve(one.id, CHECKER) for one in made))  # type: ignore[union-attr]
    assert [isinstance(answer, Change) for answer in answers].count(True) == 1
    assert await worker.value("SELECT count(*) FROM fund.payees") == 1


async def test_a_payee_that_replaces_another_one_disables_it(worker: FundWorker) -> None:
    merchant = await a_shop(worker)
    first, payees = await a_payee(worker, merchant), payees_of(worker)
    second = await a_payee(worker, merchant, 1, replaces=first)
    old = await payees.read(merchant, first)
    assert old is not None
    assert (old.state, old.disabled_by, old.disabled_why) == ("disabled", MODULE, f"replaced by {second}")
    refused(await withdraw(worker, merchant, "w", first), Code.PAYEE_NOT_FOUND)
    assert isinstance(await withdraw(worker, merchant, "w", second), Taken)
    third = PayeeRequest("C", "CNY", iban=iban(2), replaces=first)
    assert refused(await payees.refusal_of(worker.pool, merchant, third), Code.PAYEE_NOT_FOUND).field == "replaces"


async def test_a_merchant_has_a_bounded_number_of_active_payees(worker: FundWorker) -> None:
    merchant = await a_shop(worker)
    first, payees = await a_payee(worker, merchant), payees_of(worker)
    for number in range(1, PAYEES_MAX):
        await a_payee(worker, merchant, number)
    more = PayeeRequest("A", "CNY", iban=iban(PAYEES_MAX))
    refused(await payees.refusal_of(worker.pool, merchant, more), Code.TOO_MANY_PAYEES)
    await payees.disable(merchant, first, "anyone", "not needed")
    assert await payees.refusal_of(worker.pool, merchant, more) is None


@pytest.mark.parametrize(
    ("members", "told"),
    [
        ({"iban": "DE88370400440532013000"}, "iban is not valid"),
        ({"iban": "DE8937040044053201300"}, "iban is not valid"),
        ({"iban": "ZZ89370400440532013000"}, "iban is not valid"),
        ({}, "iban is missing"),
        ({"iban": iban(), "account": "123456", "bank_code": "b-1"}, "account must be omitted"),
        ({"account": "123456"}, "bank_code is missing"),
        ({"iban": iban(), "bank_code": "12345"}, "must be a BIC"),
    ],
)
def test_a_bank_account_that_cannot_exist_is_refused(members: dict[str, str], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        PayeeRequest("A", "CNY", **members)


# --- Withdrawals ----------------------------------------------------------------------------------------------------


async def test_a_merchant_without_payees_withdraws_as_before_and_one_with_payees_names_one(worker: FundWorker) -> None:
    merchant = await a_shop(worker)
    before = await withdraw(worker, merchant, "before", None)
    assert isinstance(before, Taken)
    payee = await a_payee(worker, merchant)
    no = refused(await withdraw(worker, merchant, "w", None), Code.PAYEE_REQUIRED)
    assert no.field == "payee"
    named = await withdraw(worker, merchant, "w", payee)
    assert (named.order.state, named.order.payee) == (State.POSTED, payee)
    replayed = await withdraw(worker, merchant, "before", None)
    assert (replayed.replay, replayed.order.id) == (True, before.order.id)
    await payees_of(worker).disable(merchant, payee, "anyone", None)
    refused(await withdraw(worker, merchant, "w2", None), Code.PAYEE_REQUIRED)
    assert (await withdraw(worker, merchant, "w", payee)).replay
    refused(await withdraw(worker, merchant, "w", None), Code.ORDER_NO_REUSED)


async def test_an_unknown_a_disabled_and_another_merchants_payee_are_not_found(worker: FundWorker) -> None:
    merchant, other = await a_shop(worker), await a_shop(worker, "other")
    dollars = await a_shop(worker, "dollars", currency="USD")
    own, foreign = await a_payee(worker, merchant), await a_payee(worker, other)
    in_dollars = await a_payee(worker, dollars, currency="USD")
    await payees_of(worker).disable(merchant, own, "anyone", None)
    for payee in (uuid4(), own, foreign, in_dollars):
        refused(await withdraw(worker, merchant, "w", payee), Code.PAYEE_NOT_FOUND)
    refused(await withdraw(worker, dollars, "w", foreign), Code.PAYEE_NOT_FOUND)
    assert await worker.of(merchant) == (1_000, 0, 0)


async def test_a_withdrawal_waits_for_the_cooling_time(worker: FundWorker) -> None:
    merchant = await a_shop(worker)
    payee = await a_payee(worker, merchant, cooling_h=24.0)
    refused(await withdraw(worker, merchant, "w", payee), Code.PAYEE_COOLING)
    worker.days_back = -1
    taken = await withdraw(worker, merchant, "w", payee)
    assert taken.order.state is State.POSTED
    worker.days_back = 0


async def test_many_withdrawals_in_one_batch_are_decided_each_by_its_own_payee(worker: FundWorker) -> None:
    merchant = await a_shop(worker)
    good, cooling = await a_payee(worker, merchant), await a_payee(worker, merchant, 1, cooling_h=1.0)
    named = [good, None, cooling, uuid4(), good]
    answers = await asyncio.gather(
        *(withdraw(worker, merchant, f"w{number}", payee) for number, payee in enumerate(named))
    )
    codes = [answer.code if isinstance(answer, Refusal) else answer.order.state for answer in answers]
    wanted = [State.POSTED, Code.PAYEE_REQUIRED, Code.PAYEE_COOLING, Code.PAYEE_NOT_FOUND, State.POSTED]
    assert codes == wanted
    assert await worker.of(merchant) == (980, 0, 0)


# --- Payouts --------------------------------------------------------------------------------------------------------


async def test_the_channel_gets_the_payee_of_the_order(worker: FundWorker) -> None:
    merchant = await a_shop(worker)
    await withdraw(worker, merchant, "old", None)
    payee = await a_payee(worker, merchant, account="6222021001", bank_code="102100099996", holder="Tea House")
    await withdraw(worker, merchant, "new", payee)
    bank = await paid_out(worker, Standing.PAID, Standing.PAID)
    assert bank.payees == [None, BankAccount("Tea House", None, "6222021001", "102100099996")]


async def test_a_payout_that_is_sent_again_goes_to_the_same_payee(worker: FundWorker) -> None:
    merchant = await a_shop(worker)
    await withdraw(worker, merchant, "w", await a_payee(worker, merchant))
    bank = Scripted(ChannelAway("cut"), Standing.ABSENT, Standing.PAID)
    paying = Payouts(worker.pool, worker.batcher, {f"c-{worker.salt}": bank}, PACE)
    for _ in range(3):
        await paying.pay_out_some()
    assert bank.asked == ["pay_out", "query", "pay_out"]
    assert bank.payees == [BankAccount("Holder 0", iban())] * 2


async def test_a_withdrawal_to_a_disabled_payee_is_returned_and_not_sent(worker: FundWorker) -> None:
    merchant = await a_shop(worker)
    payee = await a_payee(worker, merchant)
    order = (await withdraw(worker, merchant, "w", payee, 100)).order
    assert await worker.of(merchant) == (900, 0, 0)
    await payees_of(worker).disable(merchant, payee, "anyone", "fraud")
    bank = await paid_out(worker)
    assert bank.refs == []
    assert await state_of(worker, order) == "bounced"
    assert "is disabled" in await worker.value("SELECT reason FROM fund.orders WHERE id = $1", order.id)
    assert await worker.of(merchant) == (1_000, 0, 0)


async def test_a_payee_that_is_disabled_after_the_payout_was_recorded_gets_nothing_and_an_operator_decides(
    worker: FundWorker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    merchant = await a_shop(worker)
    payee = await a_payee(worker, merchant)
    order = (await withdraw(worker, merchant, "w", payee, 100)).order
    why = PayoutPayees.why_unusable

    async def disabled_meanwhile(self: PayoutPayees, of: Order) -> Any:
        found = await why(self, of)
        await payees_of(worker).disable(merchant, payee, "anyone", "fraud")
        return found

    bank = Scripted(Standing.ABSENT, Standing.ABSENT)
    paying = Payouts(worker.pool, worker.batcher, {f"c-{worker.salt}": bank}, PACE)
    with monkeypatch.context() as late:
        late.setattr(PayoutPayees, "why_unusable", disabled_meanwhile)
        await paying.pay_out_some()
    assert (bank.asked, await state_of(worker, order)) == ([], "sent")
    for _ in range(2):
        await paying.pay_out_some()
    assert (bank.asked, await state_of(worker, order)) == (["query", "query"], "sent")
    events = [getattr(record, "event", "") for record in caplog.records]
    assert events.count("payout_payee_disabled") == 1
    assert isinstance(await worker.batcher.end(order.id, "bounced", None, "disabled payee", "operator"), Taken)
    assert await worker.of(merchant) == (1_000, 0, 0)
    bank.said = [Standing.ABSENT]
    await paying.pay_out_some()
    assert await worker.value("SELECT outcome FROM fund.payouts WHERE order_id = $1", order.id) == "absent"


async def test_a_withdrawal_that_another_run_has_sent_is_not_returned(worker: FundWorker) -> None:
    """The payee is read as disabled, but the payout was recorded as sent before."""
    merchant = await a_shop(worker)
    payee = await a_payee(worker, merchant)
    order = (await withdraw(worker, merchant, "w", payee)).order
    await paid_out(worker, Standing.ACCEPTED)
    answer = await worker.batcher.end(order.id, "bounced", None, "r", "m", unsent=True)
    refused(answer, Code.WITHDRAWAL_NOT_POSTED)
    assert await state_of(worker, order) == "sent"


# --- Attackers ------------------------------------------------------------------------------------------------------


SWAPPED = (
    """UPDATE fund.payees p SET (holder, iban) = (SELECT o.holder, o.iban FROM fund.payees o WHERE o.id <> p.id)"""
)
EDITS = [
    SWAPPED,
    "UPDATE fund.payees SET iban = 'DE02120300000000202051'",
    "UPDATE fund.payees SET account = iban, iban = NULL, bank_code = 'x'",
    "UPDATE fund.payees SET holder = 'Thief'",
    "UPDATE fund.payees SET merchant = 'other'",
    "UPDATE fund.payees SET currency = 'USD'",
    "UPDATE fund.payees SET bank_code = 'DEUTDEFF'",
    "UPDATE fund.payees SET usable_from = created_at + interval '1 s'",
    "UPDATE fund.payees SET mac = 'x'",
    "UPDATE fund.payees SET mac_key = 7",
]


async def edit(worker: FundWorker, statement: str) -> None:
    async with worker.pool.acquire() as connection, connection.transaction():
        await connection.execute(
            "ALTER TABLE fund.payees DISABLE TRIGGER ALL; DROP INDEX IF EXISTS fund.payees_active_once"
        )
        await connection.execute(statement)
        for trigger in ("forward", "no_delete", "no_truncate"):
            await connection.execute(f"ALTER TABLE fund.payees ENABLE ALWAYS TRIGGER payees_{trigger}")


@pytest.mark.parametrize("statement", EDITS)
async def test_money_does_not_leave_to_a_payee_that_was_edited_by_sql(tampered: FundWorker, statement: str) -> None:
    worker, merchant = tampered, await a_shop(tampered)
    payee, _ = await a_payee(worker, merchant), await a_payee(worker, merchant, 1)
    order = (await withdraw(worker, merchant, "w", payee, 100)).order
    with pytest.raises(asyncpg.CheckViolationError):
        await worker.pool.execute(statement)
    await edit(worker, statement)
    answer = await withdraw(worker, merchant, "w2", payee)
    assert isinstance(answer, OrderFault), answer
    assert answer.tampered
    bank = await paid_out(worker)
    assert bank.refs == []
    assert await state_of(worker, order) == "stuck"
    with pytest.raises(Tampered):
        await payees_of(worker).read(merchant, payee)
    with pytest.raises(Tampered):
        await payees_of(worker).disable(merchant, payee, "anyone", None)
    assert await worker.of(merchant) == (900, 0, 0)


async def test_an_edit_of_a_payee_during_its_cooling_time_ends_no_cooling(tampered: FundWorker) -> None:
    worker, merchant = tampered, await a_shop(tampered)
    payee = await a_payee(worker, merchant, cooling_h=24.0)
    early = "UPDATE fund.payees SET usable_from = created_at"
    with pytest.raises(asyncpg.CheckViolationError):
        await worker.pool.execute(early)
    refused(await withdraw(worker, merchant, "w", payee), Code.PAYEE_COOLING)
    await edit(worker, early)
    answer = await withdraw(worker, merchant, "w", payee)
    assert isinstance(answer, OrderFault)
    assert answer.tampered


async def test_another_payee_in_the_row_of_an_order_gets_nothing(tampered: FundWorker) -> None:
    worker, merchant = tampered, await a_shop(tampered)
    payee, other = await a_payee(worker, merchant), await a_payee(worker, merchant, 1)
    order = (await withdraw(worker, merchant, "w", payee)).order
    for value in (other, None):
        await worker.value("UPDATE fund.orders SET payee = $2 WHERE id = $1", order.id, value)
        bank = await paid_out(worker)
        assert bank.refs == []
    assert await state_of(worker, order) == "stuck"
    await worker.value("UPDATE fund.orders SET payee = $2 WHERE id = $1", order.id, payee)
    assert isinstance(await worker.batcher.retry(order.id, "operator", "restored"), Taken)
    bank = await paid_out(worker, Standing.PAID)
    assert bank.payees == [BankAccount("Holder 0", iban())]


async def test_a_payee_that_is_gone_is_not_forgotten(tampered: FundWorker) -> None:
    worker, merchant = tampered, await a_shop(tampered)
    payee = await a_payee(worker, merchant)
    order = (await withdraw(worker, merchant, "w", payee)).order
    with pytest.raises(asyncpg.IntegrityConstraintViolationError):
        await worker.pool.execute("DELETE FROM fund.payees")
    await edit(worker, "DELETE FROM fund.payees")
    bank = await paid_out(worker)
    assert (bank.refs, await state_of(worker, order)) == ([], "stuck")


async def test_one_that_verifies_no_payee_pays_the_thief(tampered: FundWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    """The broken twin of the tests above: no row is verified."""
    worker, merchant = tampered, await a_shop(tampered)
    payee, _ = await a_payee(worker, merchant), await a_payee(worker, merchant, 1)
    await withdraw(worker, merchant, "w", payee)
    await edit(worker, SWAPPED)
    monkeypatch.setattr(OrderMacs, "agrees", lambda *_: True)
    bank = await paid_out(worker, Standing.PAID)
    assert bank.payees == [BankAccount("Holder 1", iban(1))]
