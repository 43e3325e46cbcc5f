"""Reservations of orders on payments, daily limits and reversed orders, compared with a simple model."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import msgspec
import pytest

from fundledger.fund.model.answer import OrderFault
from fundledger.fund.model.drafts import Draft, draft_of
from fundledger.fund.model.merchant import Merchant
from fundledger.fund.model.order import PLATFORM, Kind, Order, State
from fundledger.fund.model.refusal import Code, Refusal
from fundledger.fund.model.request_types import REQUESTS
from fundledger.fund.model.transitions import FIRST
from fundledger.fund.store import orders
from fundledger.fund.store import reservations as reserve
from fundledger.fund.store.mac_layouts import MERCHANT, PAYMENT, Progress, merchant_fields
from fundledger.fund.store.queries import SQL
from tests.fund.bank import Pool, an_order
from tests.support.fund_ids import IDS, MACS, order_id
from tests.support.length import unless_long
from tests.support.waiting import eventually

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
CASES = unless_long(60, 2_000)
Connection = asyncpg.Connection
APPROVE = "UPDATE fund.orders SET state = 'posting', approved_by = 'checker', mac = $2 WHERE id = $1"


class World:
    """A merchant of one test, its payments, and batches of orders, each of which is one transaction."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.name = f"m-{uuid4().hex[:12]}"
        self.numbers = 0

    def merchant(self, limit: int | None = None, name: str | None = None) -> Merchant:
        return Merchant(name or self.name, "m", "CNY", limit, "manual", AT, b"", [])

    def number(self) -> str:
        self.numbers += 1
        return str(self.numbers)

    async def payment(
        self, amount: int, fee: int = 0, *, settled: int | None = None, state: str = "posted", **columns: Any
    ) -> str:
        """Insert a payment. Return its number.

        `settled`: the payment has the settlement `later`, and this part of the amount has been settled, with the
        corresponding part of the fee.
        """
        number = self.number()
        members = {
            "merchant": self.name,
            "order_no": number,
            "fee": fee,
            "settle": "now" if settled is None else "later",
            "channel": "bank",
            **columns,
        }
        id_ = order_id(Kind.PAYMENT, self.name, number)
        await an_order(self.connection, "payment", amount, state, id=id_, **members)
        if settled is not None:
            charged, tax = fee * settled // amount, columns.get("tax", 0)
            progress = Progress(id_, self.name, self.numbers, amount, fee, settled, charged, tax=tax)
            await self.connection.execute(
                "INSERT INTO fund.payments (order_id, merchant, seq, amount, fee, settled, fee_settled, tax, mac_key, mac)"
                " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
                *(*msgspec.structs.astuple(progress)[:7], progress.tax),
                *MACS.rows.tag(PAYMENT, progress.fields()),
            )
        return number

    def draft(self, kind: Kind, *, limit: int | None = None, at: datetime = AT, **members: Any) -> Draft:
        if kind is not Kind.CHANNEL_COST:
            members = {"merchant": self.name, **members}
        request = REQUESTS[kind](order_no=self.number(), **members)
        merchant = None if request.whose == PLATFORM else self.merchant(limit, request.whose)
        draft = draft_of(request, merchant, "dev", at, 0.0, IDS)
        assert isinstance(draft, Draft), draft
        return draft

    def refund(self, of: str, amount: int) -> Draft:
        return self.draft(Kind.REFUND, payment_order_no=of, amount=amount)

    def charge_back(self, of: str, amount: int) -> Draft:
        return self.draft(Kind.CHARGEBACK, payment_order_no=of, amount=amount)

    def reverse(self, of: str, kind: str = "payment", **more: Any) -> Draft:
        draft = self.draft(Kind.REVERSAL, of_kind=kind, of_order_no=of, reason="r", **more)
        draft.order.state = State.POSTING
        return draft

    def withdraw(self, amount: int, limit: int | None = None, at: datetime = AT, **more: Any) -> Draft:
        return self.draft(Kind.WITHDRAWAL, amount=amount, channel="bank", limit=limit, at=at, **more)

    async def take(self, *drafts: Draft) -> list[Refusal | OrderFault | None]:
        """Reserve the amounts of a batch and insert its orders, in one transaction."""
        async with self.connection.transaction():
            locked = await reserve.lock(self.connection, drafts, MACS)
            answers = await reserve.reserve(self.connection, drafts, locked, MACS)
            accepted = [draft.order for draft, no in zip(drafts, answers, strict=True) if no is None]
            for order in accepted:
                MACS.seal(order)
            if accepted:
                await self.insert(accepted)
        return answers

    async def insert(self, accepted: Sequence[Order]) -> None:
        for order in (approved := [order for order in accepted if FIRST[order.kind] is State.CREATED]):
            order.state = State.CREATED
        await orders.write_ahead(self.connection, accepted, [])
        for order in approved:
            order.state, order.approved_by = State.POSTING, "checker"
            MACS.seal(order)
            await self.connection.execute(APPROVE, order.id, order.mac)

    async def codes(self, *drafts: Draft) -> list[Code | None]:
        answers = await self.take(*drafts)
        assert not any(isinstance(no, OrderFault) for no in answers), answers
        return [None if no is None else no.code for no in answers]

    async def row(self, number: str) -> tuple[Any, ...]:
        """Return the sums of a payment.

        They are: refunded, unsettled part of the refunds, fee waived, fee returned, charged back, unsettled part of the
        chargebacks, reversed.
        """
        columns = (
            "refunded, refunded_unsettled, fee_waived, fee_returned, charged_back, charged_back_unsettled, reversed"
        )
        statement = f"SELECT {columns} FROM fund.payments WHERE order_id = $1"
        row = await self.connection.fetchrow(statement, order_id(Kind.PAYMENT, self.name, number))
        return (0, 0, 0, 0, 0, 0, False) if row is None else tuple(row)

    def id_of(self, number: str) -> UUID:
        return order_id(Kind.PAYMENT, self.name, number)

    async def settled(self, number: str) -> tuple[int, int]:
        """Return the settled amount of a payment, and the fee that was charged for it."""
        statement = "SELECT settled, fee_settled FROM fund.payments WHERE order_id = $1"
        return tuple(await self.connection.fetchrow(statement, self.id_of(number)))

    async def days(self) -> dict[tuple[str, int], int]:
        """Return the withdrawn amounts, by merchant and day of the month."""
        rows = await self.connection.fetch(
            "SELECT merchant, day, amount FROM fund.withdrawal_days WHERE merchant LIKE $1", self.name + "%"
        )
        return {(row["merchant"], row["day"].day): row["amount"] for row in rows}

    async def reversed_by(self, id_: UUID) -> UUID | None:
        return await self.connection.fetchval("SELECT reversed_by FROM fund.orders WHERE id = $1", id_)


@pytest.fixture
async def world(fund_pool: Pool) -> AsyncIterator[World]:
    async with fund_pool.acquire() as connection:
        yield World(connection)


# --- Payments -------------------------------------------------------------------------------------------------------


class Paid:
    """The model of a payment: a pending and a settled part, each with its part of the fee."""

    def __init__(self, amount: int, fee: int, settled: int | None) -> None:
        self.amount = amount
        part = amount if settled is None else settled
        charged = fee if settled is None else fee * settled // amount
        self.pending, self.settled = [amount - part, fee - charged], [part, charged]
        self.back = 0
        self.later = settled is not None
        self.refunded = self.of_pending = self.waived = self.returned = self.charged_back = self.from_pending = 0
        self.reversed = False

    def refund(self, amount: int) -> Code | None:
        if self.reversed:
            return Code.ORDER_ALREADY_REVERSED
        if amount > self.amount - self.back:
            return Code.REFUND_EXCEEDS_PAYMENT
        first = min(amount, self.pending[0])
        waived, returned = self._out_of(self.pending, first), self._out_of(self.settled, amount - first)
        self.back += amount
        self.refunded += amount
        self.of_pending += first
        self.waived += waived
        self.returned += returned
        self.last = (first, waived, returned)
        return None

    @staticmethod
    def _out_of(purse: list[int], amount: int) -> int:
        fee = purse[1] * amount // purse[0] if amount else 0
        purse[0] -= amount
        purse[1] -= fee
        return fee

    def charge_back(self, amount: int) -> Code | None:
        if self.reversed:
            return Code.ORDER_ALREADY_REVERSED
        if amount > self.amount - self.back:
            return Code.CHARGEBACK_EXCEEDS_PAYMENT
        first = min(amount, self.pending[0])
        waived = self._out_of(self.pending, first)
        self.back += amount
        self.waived += waived
        self.charged_back += amount
        self.from_pending += first
        self.last = (first, waived, 0)
        return None

    def reverse(self) -> Code | None:
        if self.reversed:
            return Code.ORDER_ALREADY_REVERSED
        if self.back or (self.later and self.settled[0]):
            return Code.ORDER_NOT_REVERSIBLE
        self.reversed = True
        return None

    def row(self) -> tuple[Any, ...]:
        back = self.refunded, self.of_pending, self.waived, self.returned, self.charged_back, self.from_pending
        return *back, self.reversed


async def test_refunds_chargebacks_and_reversals_take_what_a_payment_has_and_no_more(world: World) -> None:
    pick = random.Random(6)
    said: Counter[str] = Counter()
    for _ in range(CASES):
        paid: dict[str, Paid] = {}
        for _ in range(pick.randint(1, 3)):
            amount = pick.randint(1, 20)
            fee = pick.choice((0, pick.randint(0, amount)))
            settled = pick.choice((None, 0, pick.randint(0, amount)))
            paid[await world.payment(amount, fee, settled=settled)] = Paid(amount, fee, settled)
        for _ in range(3):
            drafts, expected = [], []
            for _ in range(pick.randint(1, 4)):
                number = pick.choice(list(paid))
                how = pick.choice(("refund", "refund", "charge_back", "reverse"))
                amount = pick.randint(1, pick.choice((3, 21)))
                drafts.append(world.reverse(number) if how == "reverse" else getattr(world, how)(number, amount))
                of = paid[number]
                code = of.reverse() if how == "reverse" else getattr(of, how)(amount)
                expected.append((code, of.last if how != "reverse" and code is None else (0, 0, 0)))
                said[f"{how} {code}"] += 1
            codes = await world.codes(*drafts)
            taken = [
                (draft.order.from_pending, draft.order.fee_waived, draft.order.fee)
                if code is None and draft.order.kind is not Kind.REVERSAL
                else (0, 0, 0)
                for draft, code in zip(drafts, codes, strict=True)
            ]
            assert list(zip(codes, taken, strict=True)) == expected
            assert {number: await world.row(number) for number in paid} == {n: of.row() for n, of in paid.items()}
    assert len(said) == 9, said


async def test_the_reservations_of_a_refused_order_are_released(world: World) -> None:
    first, second = await world.payment(10, 3, settled=4), await world.payment(10)
    kept, given, owed, reversal = (
        world.refund(first, 3),
        world.refund(first, 5),
        world.charge_back(first, 1),
        world.reverse(second),
    )
    assert await world.codes(kept) == [None]
    before = await world.row(first), await world.row(second)
    withdrawals = [world.withdraw(7), world.withdraw(8)]
    assert await world.codes(*withdrawals, given, owed, reversal) == [None] * 5
    assert (await world.row(first), await world.row(second)) != before
    refused = [draft.order for draft in (given, owed, reversal, withdrawals[0])]
    await reserve.release(world.connection, MACS, refused)
    assert (await world.row(first), await world.row(second)) == before
    assert await world.reversed_by(order_id(Kind.PAYMENT, world.name, second)) is None
    assert await world.days() == {(world.name, 1): 8}


async def test_a_release_locks_in_the_order_in_which_a_batch_reserves(world: World, fund_pool: Pool) -> None:
    number = await world.payment(10, settled=0)
    refund, withdrawal = world.refund(number, 3), world.withdraw(5)
    assert await world.codes(refund, withdrawal) == [None, None]
    async with fund_pool.acquire() as other:
        async with other.transaction():
            await other.execute("SELECT FROM fund.payments WHERE order_id = $1 FOR UPDATE", world.id_of(number))

            async def waits() -> bool:
                return await other.fetchval("SELECT cardinality(pg_blocking_pids($1)) > 0", pid)

            async def release() -> None:
                async with world.connection.transaction():
                    await reserve.release(world.connection, MACS, [refund.order, withdrawal.order])

            pid = world.connection.get_server_pid()
            released = asyncio.ensure_future(release())
            await eventually(waits, "the release waits for the payment")
            # A batch locks the payment before the day. If the release locked the day first, they would deadlock.
            statement = "SELECT amount FROM fund.withdrawal_days WHERE merchant = $1 FOR UPDATE NOWAIT"
            assert await other.fetchval(statement, world.name) == 5
        await released
    assert (await world.row(number))[0] == 0
    assert await world.days() == {(world.name, 1): 0}


@pytest.mark.parametrize("way", ["refunds", "a settlement", "a release", "a sweep"])
async def test_every_transaction_locks_payments_from_the_oldest_on(world: World, fund_pool: Pool, way: str) -> None:
    """Two transactions that locked payments in different sequences would wait for each other."""
    old, new = await world.payment(10, settled=0), await world.payment(10, settled=0)
    while world.id_of(old) < world.id_of(new):
        old, new = new, await world.payment(10, settled=0)
    released = [world.reverse(new), world.refund(old, 1)]
    if way == "a release":
        assert await world.codes(*released) == [None, None]
    if way == "a sweep":
        await world.connection.execute(
            "UPDATE fund.payments SET mac_key = 0, mac = '' WHERE order_id = ANY ($1::uuid[])",
            [*map(world.id_of, (old, new))],
        )

    async def lock() -> None:
        async with world.connection.transaction():
            if way == "refunds":
                await reserve.lock(world.connection, [world.refund(new, 1), world.refund(old, 1)], MACS)
            elif way == "a settlement":
                await world.take(world.draft(Kind.SETTLEMENT))
            elif way == "a release":
                await reserve.release(world.connection, MACS, [draft.order for draft in released])
            else:
                await world.connection.fetch(SQL["payments_to_sweep"], UUID(int=0), 1_000_000)

    pid = world.connection.get_server_pid()
    row = "SELECT FROM fund.payments WHERE order_id = $1 FOR UPDATE"
    async with fund_pool.acquire() as other:
        async with other.transaction():
            await other.execute(row, world.id_of(new))
            locking = asyncio.ensure_future(lock())

            async def waits() -> bool:
                return await other.fetchval("SELECT cardinality(pg_blocking_pids($1)) > 0", pid)

            await eventually(waits, "it waits for the newer payment")
            with pytest.raises(asyncpg.LockNotAvailableError):
                async with other.transaction():
                    await other.execute(f"{row} NOWAIT", world.id_of(old))
        await locking


async def test_a_payment_that_was_reversed_is_not_reversed_again_where_its_order_does_not_name_the_reversal(
    world: World,
) -> None:
    """Otherwise the account service would refuse the second reversal, the reservation of the first would be released,
    and the payment could be refunded as well.
    """
    number = await world.payment(10, settled=0)
    assert await world.codes(world.reverse(number)) == [None]
    order = (await orders.read_orders(world.connection, [world.id_of(number)]))[world.id_of(number)]
    order.reversed_by = None
    MACS.seal(order)
    edit = "UPDATE fund.orders SET reversed_by = NULL, mac = $2 WHERE id = $1"
    await world.connection.execute(edit, order.id, order.mac)
    again, refund = world.reverse(number), world.refund(number, 1)
    assert await world.codes(again, refund) == [Code.ORDER_ALREADY_REVERSED] * 2
    assert (await world.row(number))[-1] is True


async def test_what_a_refused_settlement_took_is_pending_again(world: World) -> None:
    number = await world.payment(10, 3, settled=0)
    settlement = world.draft(Kind.SETTLEMENT, amount=4)
    settlement.order.merchant = world.name
    assert await world.codes(settlement) == [None]
    assert await world.settled(number) == (4, 1)
    await reserve.release(world.connection, MACS, [settlement.order])
    assert await world.settled(number) == (0, 0)


async def test_the_release_of_nothing_changes_nothing(world: World) -> None:
    number = await world.payment(10)
    assert await world.codes(world.refund(number, 3), world.withdraw(5)) == [None, None]
    before = await world.row(number), await world.days()
    await reserve.release(world.connection, MACS, [])
    assert (await world.row(number), await world.days()) == before


# --- Payments of other states and merchants -------------------------------------------------------------------------

PROBLEM = '{"type":"x"}'
STATES: dict[str, dict[str, Any]] = {
    "posting": {"posted_at": None},
    "refused": {"posted_at": None, "problem": PROBLEM},
    "stuck": {"posted_at": None, "problem": PROBLEM, "stuck_from": "posting"},
}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("how", ["refund", "charge_back"])
async def test_nothing_comes_back_of_a_payment_that_was_not_posted(world: World, how: str, state: str) -> None:
    number = await world.payment(10, state=state, **STATES[state])
    (refusal,) = await world.take(getattr(world, how)(number, 1))
    assert (refusal.code, refusal.field) == (Code.PAYMENT_NOT_POSTED, "payment_order_no")
    assert refusal.detail == f"payment {number} is {state}"


@pytest.mark.parametrize("how", ["refund", "charge_back"])
async def test_nothing_comes_back_of_a_payment_that_is_not_the_merchants(world: World, how: str) -> None:
    other = World(world.connection)
    number = await other.payment(10)
    (refusal,) = await world.take(getattr(world, how)(number, 1))
    assert (refusal.code, refusal.field) == (Code.PAYMENT_NOT_FOUND, "payment_order_no")
    assert refusal.detail == f"merchant {world.name} has no payment {number}"


async def test_no_refund_is_taken_while_a_settlement_of_the_payment_is_on_its_way(world: World) -> None:
    """It is not certain whether the fee was charged, which a refund would return.

    Other payments may be refunded. A chargeback is accepted, because it returns no fee.
    """
    number, free = await world.payment(10, 3, settled=0), await world.payment(10, settled=0)
    settlement = world.draft(Kind.SETTLEMENT, amount=4)
    assert await world.codes(settlement) == [None]
    refund, charge_back = world.refund(number, 1), world.charge_back(number, 1)
    assert await world.codes(refund, charge_back, world.refund(free, 1)) == [Code.PAYMENT_BEING_SETTLED, None, None]
    await world.connection.execute(
        "UPDATE fund.orders SET state = 'posted', posted_at = created_at, due_at = NULL WHERE id = $1",
        settlement.order.id,
    )
    assert await world.codes(world.refund(number, 1)) == [None]


async def test_an_order_has_the_channel_and_currency_of_its_payment(world: World) -> None:
    number = await world.payment(10, channel="their-bank", currency="USD")
    drafts = world.refund(number, 2), world.charge_back(number, 2), world.refund(number, 9)
    assert await world.codes(*drafts) == [None, None, Code.REFUND_EXCEEDS_PAYMENT]
    assert {(draft.order.channel, draft.order.currency) for draft in drafts[:2]} == {("their-bank", "USD")}


async def test_a_refusal_says_how_much_there_is(world: World) -> None:
    number = await world.payment(10)
    answers = await world.take(world.refund(number, 4), world.refund(number, 7), world.charge_back(number, 8))
    assert [(no.detail, no.field) for no in answers[1:]] == [
        ("6 of the payment's 10 can be refunded", "amount"),
        ("6 of the payment's 10 can be charged back or disputed", "amount"),
    ]


async def test_a_payment_under_a_former_id_is_found_and_a_new_one_goes_its_own_way(world: World) -> None:
    number = await world.payment(10)
    former = uuid4()
    await an_order(world.connection, "payment", 20, "posted", id=former, merchant=world.name, settle="now")
    new, old, newest = world.refund(number, 1), world.refund("of-before", 20), world.refund(number, 2)
    new.former_of, old.former_of, newest.former_of = uuid4(), former, None
    assert await world.codes(new, old, newest) == [None, None, None]
    assert (new.order.of_order, old.order.of_order) == (order_id(Kind.PAYMENT, world.name, number), former)


# --- Reversals ------------------------------------------------------------------------------------------------------


async def test_a_reversal_is_the_opposite_of_its_order(world: World) -> None:
    number = await world.payment(10, 3, channel="their-bank", currency="USD")
    draft = world.reverse(number)
    assert await world.codes(draft) == [None]
    original = order_id(Kind.PAYMENT, world.name, number)
    order = draft.order
    assert (order.amount, order.fee, order.currency, order.channel, order.settle) == (10, 3, "USD", "their-bank", "now")
    voucher = await world.connection.fetchval("SELECT voucher_id FROM fund.orders WHERE id = $1", original)
    assert order.of_voucher == voucher
    assert await world.reversed_by(original) == order.id
    assert await world.row(number) == (0, 0, 0, 0, 0, 0, True)


async def test_an_order_of_the_platform_is_reversed_once_and_no_payment_has_to_do_with_it(world: World) -> None:
    members = {"merchant": PLATFORM, "direction": "more", "channel": "their-bank"}
    first, second = uuid4().hex, uuid4().hex
    for number in (first, second):
        id_ = order_id(Kind.BANK_DIFFERENCE, PLATFORM, number)
        await an_order(world.connection, "bank_difference", 5, "posted", id=id_, order_no=number, **members)
    drafts = [world.reverse(number, "bank_difference", merchant=PLATFORM) for number in (first, first, second)]
    assert await world.codes(*drafts) == [None, Code.ORDER_ALREADY_REVERSED, None]
    order = drafts[0].order
    assert (order.amount, order.direction, order.channel) == (5, "more", "their-bank")
    ids = [order_id(Kind.BANK_DIFFERENCE, PLATFORM, number) for number in (first, second)]
    assert [await world.reversed_by(id_) for id_ in ids] == [drafts[0].order.id, drafts[2].order.id]
    assert await world.codes(world.reverse(first, "bank_difference", merchant=PLATFORM)) == [
        Code.ORDER_ALREADY_REVERSED
    ]
    assert await world.connection.fetchval("SELECT count(*) FROM fund.payments WHERE order_id = ANY ($1)", ids) == 0


@pytest.mark.parametrize("state", STATES)
async def test_an_order_that_was_not_posted_is_not_reversed(world: World, state: str) -> None:
    number = await world.payment(10, state=state, **STATES[state])
    (refusal,) = await world.take(world.reverse(number))
    assert (refusal.code, refusal.field, refusal.detail) == (
        Code.ORDER_NOT_REVERSIBLE,
        "of_order_no",
        f"the order is {state}",
    )
    assert await world.reversed_by(order_id(Kind.PAYMENT, world.name, number)) is None


async def test_what_is_not_there_is_not_reversed(world: World) -> None:
    (refusal,) = await world.take(world.reverse("none"))
    assert (refusal.code, refusal.field) == (Code.ORDER_NOT_FOUND, "of_order_no")


# --- Withdrawals ----------------------------------------------------------------------------------------------------


async def test_withdrawals_count_against_the_limit_of_their_merchant_and_their_day(world: World) -> None:
    """Each day and each merchant has the same withdrawals: the first 10 are accepted, and the next is not."""
    other = f"{world.name}-other"
    day, next_day = AT, AT + timedelta(days=1)
    asked = [
        (world.withdraw(6, 10, day), None),
        (world.withdraw(6, 10, next_day), None),
        (world.withdraw(6, 10, day, merchant=other), None),
        (world.withdraw(5, 10, day), Code.WITHDRAWAL_LIMIT_EXCEEDED),
        (world.withdraw(4, 10, day), None),
        (world.withdraw(1, 10, day), Code.WITHDRAWAL_LIMIT_EXCEEDED),
    ]
    assert await world.codes(*[draft for draft, _ in asked]) == [code for _, code in asked]
    assert await world.days() == {(world.name, 1): 10, (world.name, 2): 6, (other, 1): 6}
    later = [
        world.withdraw(5, 10, next_day),
        world.withdraw(4, 10, next_day),
        world.withdraw(1, 10, day),
        world.withdraw(3, 10, day, merchant=other),
    ]
    refused = Code.WITHDRAWAL_LIMIT_EXCEEDED
    assert await world.codes(*later) == [refused, None, refused, None]
    assert await world.days() == {(world.name, 1): 10, (world.name, 2): 10, (other, 1): 9}
    (refusal,) = await world.take(world.withdraw(1, 10, day))
    assert (refusal.detail, refusal.field) == ("10 of the daily limit of 10 are already withdrawn", "amount")


async def test_what_is_withdrawn_without_a_limit_counts_when_there_is_one(world: World) -> None:
    assert await world.codes(world.withdraw(100), world.withdraw(50)) == [None, None]
    assert await world.days() == {(world.name, 1): 150}
    assert await world.codes(world.withdraw(1, 150), world.withdraw(1, 151)) == [
        Code.WITHDRAWAL_LIMIT_EXCEEDED,
        None,
    ]
    assert await world.days() == {(world.name, 1): 151}


# --- Settlements ----------------------------------------------------------------------------------------------------


async def test_a_settlement_takes_what_is_pending_and_says_how_much_there_is(world: World) -> None:
    nothing = world.draft(Kind.SETTLEMENT)
    (refusal,) = await world.take(nothing)
    assert (refusal.code, refusal.detail) == (
        Code.NOTHING_TO_SETTLE,
        f"merchant {world.name} has no pending amount",
    )
    await world.payment(10, 3, settled=0)
    await world.payment(10, 3, settled=5)
    (refusal,) = await world.take(world.draft(Kind.SETTLEMENT, amount=16))
    assert (refusal.code, refusal.detail, refusal.field) == (
        Code.SETTLEMENT_EXCEEDS_PENDING,
        "the pending amount is 15",
        "amount",
    )
    part, more, rest = [world.draft(Kind.SETTLEMENT, amount=amount) for amount in (4, 8, None)]
    for settlement in (part, more, rest):
        assert await world.codes(settlement) == [None]
    assert [(each.order.amount, each.order.fee) for each in (part, more, rest)] == [(4, 1), (8, 2), (3, 2)]


async def test_a_settlement_charges_no_fee_that_a_refund_has_waived(world: World) -> None:
    number = await world.payment(10, 4, settled=0)
    refund, settlement = world.refund(number, 5), world.draft(Kind.SETTLEMENT)
    assert await world.codes(refund) == [None]
    assert await world.codes(settlement) == [None]
    assert (refund.order.fee_waived, settlement.order.amount, settlement.order.fee) == (2, 5, 2)
    assert await world.settled(number) == (5, 2)


# --- Rows that do not verify ----------------------------------------------------------------------------------------

EDITS = {
    "sums": "UPDATE fund.payments SET fee_returned = 1 WHERE order_id = $1",
    "sums are gone": "UPDATE fund.payments SET order_id = gen_random_uuid() WHERE order_id = $1",
    "order": "UPDATE fund.orders SET amount = amount + 5 WHERE id = $1",
}


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("how", ["refund", "charge_back", "reverse"])
async def test_nothing_is_taken_of_a_payment_that_was_edited(
    world: World, how: str, edit: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Orders on other payments in the same batch are accepted."""
    number, other = await world.payment(10, 5, settled=10), await world.payment(10)
    id_ = order_id(Kind.PAYMENT, world.name, number)
    await world.connection.execute(EDITS[edit], id_)
    before = await world.row(number)
    draft = world.reverse(number) if how == "reverse" else getattr(world, how)(number, 1)
    away, none = await world.take(draft, world.refund(other, 1))
    assert isinstance(away, OrderFault)
    assert (away.tampered, none) == (True, None)
    assert str(id_) in away.detail
    assert any(record.levelname == "CRITICAL" and str(id_) in record.getMessage() for record in caplog.records)
    assert away.detail.endswith("is missing" if edit == "sums are gone" else "does not match its MAC")
    assert (await world.row(number), await world.reversed_by(id_)) == (before, None)


async def test_nothing_is_kept_of_a_payment_whose_order_was_edited(world: World) -> None:
    """The payment has no sums yet. New sums would be computed from the edited order, and get a MAC that verifies."""
    number = await world.payment(10)
    await world.connection.execute(EDITS["order"], world.id_of(number))
    (away,) = await world.take(world.refund(number, 11))
    assert isinstance(away, OrderFault)
    statement = "SELECT count(*) FROM fund.payments WHERE order_id = $1"
    assert await world.connection.fetchval(statement, world.id_of(number)) == 0


async def test_a_day_that_was_edited_takes_no_withdrawal_and_gives_none_back(world: World) -> None:
    first, other = world.withdraw(5), world.withdraw(5, at=AT + timedelta(days=1))
    assert await world.codes(first, other) == [None, None]
    edit = "UPDATE fund.withdrawal_days SET amount = 1 WHERE merchant = $1 AND day = $2"
    await world.connection.execute(edit, world.name, AT.date())
    away, none = await world.take(world.withdraw(1), world.withdraw(1, at=AT + timedelta(days=1)))
    assert isinstance(away, OrderFault)
    assert (away.tampered, none) == (True, None)
    await reserve.release(world.connection, MACS, [first.order, other.order])
    assert await world.days() == {(world.name, 1): 1, (world.name, 2): 1}


async def test_a_merchant_that_was_edited_neither_withdraws_nor_refunds_nor_settles(world: World) -> None:
    other = world.merchant(name=f"{world.name}-other")
    for name in (world.name, other.id):
        await world.connection.execute(
            "INSERT INTO fund.merchants (id, name, currency, digest, mac_key, mac)"
            " VALUES ($1, 'm', 'CNY', '', 1, decode(repeat('00', 32), 'hex'))",
            name,
        )
    row = await world.connection.fetchrow("SELECT * FROM fund.merchants WHERE id = $1", other.id)
    _, mac = MACS.rows.tag(MERCHANT, merchant_fields(row))
    await world.connection.execute("UPDATE fund.merchants SET mac = $2 WHERE id = $1", other.id, mac)
    number = await world.payment(10, settled=0)
    answers = await world.take(world.withdraw(1), world.withdraw(1, merchant=other.id), world.refund(number, 1))
    assert [isinstance(away, OrderFault) and away.tampered for away in answers] == [True, False, True]
    assert answers[1] is None
    (away,) = await world.take(world.draft(Kind.SETTLEMENT))
    assert isinstance(away, OrderFault)
    assert await world.days() == {(other.id, 1): 1}


async def test_a_settlement_leaves_out_a_payment_that_was_edited(world: World) -> None:
    edited, whole = await world.payment(10, 2, settled=0), await world.payment(10, 4, settled=0)
    await world.connection.execute(EDITS["sums"].replace("fee_returned = 1", "amount = 11"), world.id_of(edited))
    (away,) = await world.take(world.draft(Kind.SETTLEMENT, amount=11))
    assert isinstance(away, OrderFault)
    assert away.tampered
    assert away.detail == f"1 rows of fund.payments do not match their MACs: {world.id_of(edited)}"
    part, all_ = world.draft(Kind.SETTLEMENT, amount=4), world.draft(Kind.SETTLEMENT)
    assert await world.codes(part) == [None]
    assert await world.codes(all_) == [None]
    assert [(d.order.amount, d.order.fee) for d in (part, all_)] == [(4, 1), (6, 3)]
    (away,) = await world.take(world.draft(Kind.SETTLEMENT))
    assert isinstance(away, OrderFault)
    assert await world.settled(whole) == (10, 4)


async def test_nothing_is_released_to_a_payment_that_was_edited(world: World) -> None:
    numbers = [await world.payment(10, settled=settled) for settled in (5, 5, 0, 0)]
    drafts = [world.refund(numbers[0], 7), world.charge_back(numbers[1], 7), world.reverse(numbers[2])]
    assert await world.codes(*drafts) == [None] * 3
    settlement = world.draft(Kind.SETTLEMENT, amount=4)
    assert await world.codes(settlement) == [None]
    drafts.append(settlement)
    for number in numbers:
        await world.connection.execute(
            "UPDATE fund.payments SET mac = decode(repeat('00', 32), 'hex') WHERE order_id = $1", world.id_of(number)
        )
    before = [(await world.row(number), await world.settled(number)) for number in numbers]
    await reserve.release(world.connection, MACS, [draft.order for draft in drafts])
    assert [(await world.row(number), await world.settled(number)) for number in numbers] == before


async def test_a_reversal_frees_only_what_is_reversed_by_it_and_verifies(world: World) -> None:
    numbers = [await world.payment(10) for _ in range(3)]
    reversals = [world.reverse(number) for number in numbers]
    assert await world.codes(*reversals) == [None] * 3
    another = world.reverse(numbers[0])
    edit = "UPDATE fund.orders SET amount = 11 WHERE id = $1"
    await world.connection.execute(edit, world.id_of(numbers[1]))
    released = [another.order, reversals[1].order, reversals[2].order]
    await reserve.release(world.connection, MACS, released)
    stands = [reversals[0].order.id, reversals[1].order.id, None]
    assert [await world.reversed_by(world.id_of(number)) for number in numbers] == stands
    assert [(await world.row(number))[-1] for number in numbers] == [True, True, False]
    assert await world.codes(world.reverse(numbers[2])) == [None]


async def test_a_settlement_whose_parts_are_not_its_sum_gives_nothing_back(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    number = await world.payment(10, 3, settled=0)
    settlement = world.draft(Kind.SETTLEMENT, amount=4)
    assert await world.codes(settlement) == [None]
    for amount, fee in ((5, 1), (4, 2)):
        edited = msgspec.structs.replace(settlement.order, amount=amount, fee=fee)
        await reserve.release(world.connection, MACS, [edited])
        assert await world.settled(number) == (4, 1)
    assert f"settlement {settlement.order.id} (parts) does not match" in caplog.text


# --- Locks ----------------------------------------------------------------------------------------------------------


async def locked_in(pool: Pool, drafts: Sequence[Draft], statement: str, id_: object) -> bool:
    """Return whether the reservations of these drafts lock a row, so that another transaction cannot."""
    async with pool.acquire() as first, pool.acquire() as second, first.transaction():
        await reserve.lock(first, drafts, MACS)
        try:
            await second.fetchval(f"{statement} FOR UPDATE NOWAIT", id_)
        except asyncpg.LockNotAvailableError:
            return True
    return False


async def test_what_an_order_takes_of_is_locked_before_it_is_read(world: World, fund_pool: Pool) -> None:
    now, later = await world.payment(10), await world.payment(10, settled=0)
    payment = "SELECT 1 FROM fund.payments WHERE order_id = $1"
    order = "SELECT 1 FROM fund.orders WHERE id = $1"
    id_ = order_id(Kind.PAYMENT, world.name, later)
    for draft in (world.refund(later, 1), world.charge_back(later, 1), world.reverse(later)):
        assert await locked_in(fund_pool, [draft], payment, id_), draft.order.kind
    assert await locked_in(fund_pool, [world.reverse(now)], order, order_id(Kind.PAYMENT, world.name, now))
    assert not await locked_in(fund_pool, [world.refund(now, 1)], payment, id_)


async def test_the_merchant_of_a_withdrawal_or_settlement_is_locked(world: World, fund_pool: Pool) -> None:
    insert = "INSERT INTO fund.merchants (id, name, currency, digest, mac_key, mac) VALUES ($1, 'm', 'CNY', '', 1, 'x')"
    await fund_pool.execute(insert, world.name)
    merchant = "SELECT 1 FROM fund.merchants WHERE id = $1"
    number = await world.payment(10)
    assert await locked_in(fund_pool, [world.withdraw(1)], merchant, world.name)
    assert await locked_in(fund_pool, [world.draft(Kind.SETTLEMENT)], merchant, world.name)
    assert not await locked_in(fund_pool, [world.refund(number, 1)], merchant, world.name)
