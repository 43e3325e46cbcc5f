"""The fund service: merchants and their orders."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final, Literal
from urllib.parse import quote
from uuid import UUID

import msgspec

from fundledger.client.batches import in_batches
from fundledger.client.connection import Answer, converted, decoder, found
from fundledger.client.faults import ContractBroken, Fault, OutcomeUnknown, Refused
from fundledger.client.fund_types import (
    PATHS,
    DeadEvent,
    Fee,
    FeeRule,
    Kind,
    Merchant,
    Order,
    OrderRefused,
    Payment,
    PaymentResult,
    StatementLine,
    Step,
    Webhook,
)
from fundledger.client.service import Service

Calendar = Literal["manual", "daily", "weekly", "monthly"]
POLL_S: Final = 0.05
POLL_S_MAX: Final = 1.0


class _Results(msgspec.Struct):
    results: list[PaymentResult]


class _Orders(msgspec.Struct):
    orders: list[Order]
    next_cursor: str | None = None


class _Merchants(msgspec.Struct):
    merchants: list[Merchant]
    next_cursor: str | None = None


class _Webhooks(msgspec.Struct):
    webhooks: list[Webhook]


class _Dead(msgspec.Struct):
    dead: list[DeadEvent]
    next: int | None = None


class _Redelivered(msgspec.Struct):
    redelivered: int


class _History(msgspec.Struct):
    history: list[Step]


_encode = msgspec.json.Encoder().encode
_order = decoder(Order)
_orders = decoder(_Orders)
_results = decoder(_Results)
_merchant = decoder(Merchant)
_merchants = decoder(_Merchants)
_history = decoder(_History)
_webhook = decoder(Webhook)
_webhooks = decoder(_Webhooks)
_dead = decoder(_Dead)
_redelivered = decoder(_Redelivered)
_report = decoder(dict[str, Any])
_anything = decoder(msgspec.Raw)


class FundService(Service):
    """A connection to the fund service: `async with FundService(base_url, token) as fund`.

    An order is named by its kind, merchant and `order_no`, for ever: the same again is answered with the order as it
    stands, with `replay`. Every call raises the faults of `fundledger.client.faults`; Refused, when there is no order
    of it and its number stays free; OrderRefused, when there is, and nothing moved by it. Each call takes at most
    `timeout_s` and may be repeated. A call that is cancelled may have been served.
    """

    async def create_merchant(
        self,
        id_: str,
        name: str,
        currency: str,
        fee: Fee | None = None,
        withdrawal_fee: Fee | None = None,
        withdrawal_limit: int | None = None,
        settlement: Calendar | None = None,
    ) -> Merchant:
        """Opens the accounts, too. The same again is a replay; `withdrawal_limit` is for a day (UTC). `settlement`:
        when what is pending is settled by itself; without it, never.
        """
        more = {"fee": fee, "withdrawal_fee": withdrawal_fee, "withdrawal_limit": withdrawal_limit}
        members = {"id": id_, "name": name, "currency": currency, "settlement": settlement, **more}
        answer = await self._post("/v1/merchants", **members)
        merchant = _merchant(answer)
        return msgspec.structs.replace(merchant, replay=True) if answer.status == 200 else merchant

    async def merchant(self, id_: str) -> Merchant | None:
        return found(await self._to.ask("GET", f"/v1/merchants/{quote(id_, safe='')}"), _merchant)

    async def merchants(self, limit: int = 100) -> AsyncIterator[Merchant]:
        """All of them, over all pages; `limit` is for one of them."""
        query = {"limit": str(limit)}
        while True:
            page = _merchants(await self._to.ask("GET", "/v1/merchants", query=query))
            for merchant in page.merchants:
                yield merchant
            if page.next_cursor is None:
                return
            query["cursor"] = page.next_cursor

    async def add_fee_rule(self, merchant: str, rule: FeeRule) -> None:
        """What was charged before stays; the last rule that applies is the one that is charged."""
        path = f"/v1/merchants/{quote(merchant, safe='')}/fees"
        _anything(await self._to.ask("POST", path, _encode(rule)))

    async def create_webhook(self, merchant: str, url: str, events: Sequence[str] | None = None) -> Webhook:
        """With its `secret`. Asked for twice, there are two. Refused: `merchant-not-found`, `too-many-webhooks`."""
        return _webhook(await self._post("/v1/webhooks", merchant=merchant, url=url, events=events))

    async def webhooks(self, merchant: str | None = None) -> list[Webhook]:
        """A merchant's, or all; also the disabled ones. The oldest first, at most 1,000."""
        query = None if merchant is None else {"merchant": merchant}
        return _webhooks(await self._to.ask("GET", "/v1/webhooks", query=query)).webhooks

    async def disable_webhook(self, id_: UUID, reason: str | None = None) -> Webhook:
        """Nothing is sent there any more. Refused: `not-found`."""
        return _webhook(await self._post(f"/v1/webhooks/{id_}/disable", reason=reason))

    async def dead_webhook_events(self, id_: UUID, limit: int = 100) -> AsyncIterator[DeadEvent]:
        """What was given up, in order, over all pages; `limit` is for one of them. Refused: `not-found`."""
        query = {"limit": str(limit)}
        while True:
            page = _dead(await self._to.ask("GET", f"/v1/webhooks/{id_}/dead", query=query))
            for event in page.dead:
                yield event
            if page.next is None:
                return
            query["after"] = str(page.next)

    async def redeliver(self, id_: UUID, seqs: Sequence[int] | None = None) -> int:
        """Begin again with what was given up, all of it without `seqs` (of which there are 1,000 at most); how many."""
        return _redelivered(await self._post(f"/v1/webhooks/{id_}/redeliver", seqs=seqs)).redelivered

    async def pay(
        self,
        merchant: str,
        order_no: str,
        amount: int,
        currency: str,
        channel: str,
        channel_ref: str | None = None,
        settle: Literal["now", "later"] = "now",
        ticket: str | None = None,
    ) -> Order:
        """A payment that its channel has confirmed."""
        payment = Payment(merchant, order_no, amount, currency, channel, channel_ref, settle, ticket)
        return _told(await self._to.ask("POST", PATHS["payment"], _encode(payment)))

    async def pay_many(self, payments: Sequence[Payment]) -> list[PaymentResult]:
        """`results[i]` answers `payments[i]`; a refusal is a result. After a fault all of them may be sent again.

        More than 5,000 go in several requests, one after the other.
        """
        return await in_batches(payments, lambda batch: _encode({"payments": batch}), self._pay_batch)

    async def _pay_batch(self, payments: Sequence[Payment], body: bytes) -> list[PaymentResult]:
        results = _results(await self._to.ask("POST", f"{PATHS['payment']}/batch", body)).results
        if [result.order_no for result in results] != [payment.order_no for payment in payments]:
            raise ContractBroken("the results are not those of the payments")
        return results

    async def refund(
        self, merchant: str, order_no: str, payment_order_no: str, amount: int, ticket: str | None = None
    ) -> Order:
        """Of a posted payment, in whole or in part. Refused: `refund-exceeds-payment`."""
        members = {"payment_order_no": payment_order_no, "amount": amount, "ticket": ticket}
        return await self._order("refund", merchant=merchant, order_no=order_no, **members)

    async def settle(self, merchant: str, order_no: str, amount: int | None = None, ticket: str | None = None) -> Order:
        """Of payments that are settled later, the oldest first; without an amount, of all of them."""
        return await self._order("settlement", merchant=merchant, order_no=order_no, amount=amount, ticket=ticket)

    async def withdraw(
        self, merchant: str, order_no: str, amount: int, channel: str, ticket: str | None = None
    ) -> Order:
        """The money is set aside when it is `posted`; whether it arrived is told by `paid` or `bounced`, later."""
        members = {"amount": amount, "channel": channel, "ticket": ticket}
        return await self._order("withdrawal", merchant=merchant, order_no=order_no, **members)

    async def withdrawal_paid(self, id_: UUID, channel_ref: str) -> Order:
        """The bank has paid it out. Refused: `withdrawal-bounced`."""
        return _told(await self._post(f"{PATHS['withdrawal']}/{id_}/paid", channel_ref=channel_ref))

    async def withdrawal_bounced(self, id_: UUID, reason: str) -> Order:
        """The bank has sent it back: the merchant has it again. Refused: `withdrawal-paid`."""
        return _told(await self._post(f"{PATHS['withdrawal']}/{id_}/bounced", reason=reason))

    async def charge_back(
        self,
        merchant: str,
        order_no: str,
        payment_order_no: str,
        amount: int,
        channel_ref: str | None = None,
        ticket: str | None = None,
    ) -> Order:
        """The payer's bank took a payment back. What the merchant has not, he owes."""
        members = {"payment_order_no": payment_order_no, "amount": amount, "channel_ref": channel_ref}
        return await self._order("chargeback", merchant=merchant, order_no=order_no, ticket=ticket, **members)

    async def recover(self, merchant: str, order_no: str, amount: int, ticket: str | None = None) -> Order:
        """The merchant pays what he owes from what he has."""
        return await self._order("recovery", merchant=merchant, order_no=order_no, amount=amount, ticket=ticket)

    async def write_off(
        self, merchant: str, order_no: str, amount: int, reason: str, ticket: str | None = None
    ) -> Order:
        """What the merchant owes is given up, at the platform's loss."""
        members = {"amount": amount, "reason": reason, "ticket": ticket}
        return await self._order("write_off", merchant=merchant, order_no=order_no, **members)

    async def adjust(
        self,
        merchant: str,
        order_no: str,
        amount: int,
        direction: Literal["credit", "debit"],
        reason: str,
        person: str | None = None,
        ticket: str | None = None,
    ) -> Order:
        """A correction of what the merchant has: `created`, until another module or named person has approved it."""
        members = {"amount": amount, "direction": direction, "reason": reason, "person": person, "ticket": ticket}
        return await self._order("adjustment", merchant=merchant, order_no=order_no, **members)

    async def approve(self, id_: UUID, person: str | None = None) -> Order:
        """Of an adjustment, which is posted then. Refused: `approval-needs-another`."""
        return _told(await self._post(f"{PATHS['adjustment']}/{id_}/approve", person=person))

    async def retry(self, order: Order, reason: str | None = None) -> Order:
        """A stuck order, taken a step further after the cause in its `problem` was removed. Any other order is returned
        as it stands.
        """
        return _told(await self._post(f"{PATHS[_kind(order)]}/{order.id}/retry", reason=reason))

    async def channel_cost(
        self, order_no: str, channel: str, amount: int, currency: str, ticket: str | None = None
    ) -> Order:
        """What a channel charges the platform."""
        members = {"channel": channel, "amount": amount, "currency": currency, "ticket": ticket}
        return await self._order("channel_cost", order_no=order_no, **members)

    async def bank_difference(
        self,
        order_no: str,
        channel: str,
        amount: int,
        currency: str,
        direction: Literal["more", "less"],
        reason: str,
        ticket: str | None = None,
    ) -> Order:
        """The bank has more, or less, than the books."""
        members = {"channel": channel, "amount": amount, "currency": currency, "direction": direction}
        return await self._order("bank_difference", order_no=order_no, reason=reason, ticket=ticket, **members)

    async def reverse(
        self,
        order_no: str,
        of_kind: Literal["payment", "channel_cost", "adjustment", "bank_difference"],
        of_order_no: str,
        reason: str,
        merchant: str | None = None,
        ticket: str | None = None,
    ) -> Order:
        """The opposite of an order, once. `merchant` is left out where the order is no merchant's."""
        members = {"of_kind": of_kind, "of_order_no": of_order_no, "reason": reason, "ticket": ticket}
        return await self._order("reversal", order_no=order_no, merchant=merchant, **members)

    async def import_statement(
        self, channel: str, statement_no: str, currency: str, lines: Sequence[StatementLine]
    ) -> dict[str, Any]:
        """Hold a bank's statement against the orders of its channel; differences are booked to suspense, each once. The
        report: `counts` by outcome, `lines`, `in_transit`, sums.
        """
        members = {"channel": channel, "statement_no": statement_no, "currency": currency, "lines": lines}
        return _report(await self._to.ask("POST", "/v1/bank-statements", _encode(members)))

    async def order(self, kind: Kind, id_: UUID) -> Order | None:
        """As it stands."""
        return found(await self._to.ask("GET", f"{PATHS[kind]}/{id_}"), _order)

    async def find_order(self, kind: Kind, merchant: str, order_no: str) -> Order | None:
        """By its names. None: nothing has arrived under this number yet."""
        query = {"merchant": merchant, "order_no": order_no}
        return found(await self._to.ask("GET", PATHS[kind], query=query), _order)

    async def orders(
        self, kind: Kind, merchant: str, state: str | None = None, limit: int = 500
    ) -> AsyncIterator[Order]:
        """A merchant's, in the order in which they were taken, over all pages; `limit` is for one of them."""
        query = {"merchant": merchant, "limit": str(limit)}
        if state is not None:
            query["state"] = state
        while True:
            page = _orders(await self._to.ask("GET", PATHS[kind], query=query))
            for order in page.orders:
                yield order
            if page.next_cursor is None:
                return
            query["cursor"] = page.next_cursor

    async def history(self, kind: Kind, id_: UUID) -> list[Step]:
        """The states that an order went through, the first one first. Refused: `not-found`."""
        return _history(await self._to.ask("GET", f"{PATHS[kind]}/{id_}/history")).history

    async def wait_until_settled(self, order: Order, timeout_s: float = 60.0) -> Order:
        """The order, once it is no longer `posting`: it ends by itself, so this only looks. One that was refused comes
        back as it stands. Cancelling does no harm.

        Raises OutcomeUnknown when it still is after this time; faults on the way are lived through until then.
        """
        deadline = time.monotonic() + timeout_s
        wait_s = POLL_S
        path = f"{PATHS[_kind(order)]}/{order.id}"
        while not order.is_certain:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise OutcomeUnknown(f"order {order.id} is {order.state} after {timeout_s:g} s")
            await asyncio.sleep(min(wait_s, left_s))
            wait_s = min(wait_s * 2, POLL_S_MAX)
            try:
                answer = await self._to.ask("GET", path, timeout_s=min(self._to.timeout_s, max(left_s, POLL_S_MAX)))
                order = _order(answer)
            except Fault as fault:
                if not fault.retry_is_safe:
                    raise
                wait_s = max(wait_s, min(fault.retry_after_s or 0.0, left_s))
        return order

    async def _order(self, kind: Kind, **members: object) -> Order:
        return _told(await self._post(PATHS[kind], **members))

    async def _post(self, path: str, **members: object) -> Answer:
        given = {name: value for name, value in members.items() if value is not None}
        return await self._to.ask("POST", path, _encode(given))


def _kind(order: Order) -> Kind:
    """Raises ContractBroken for one that this version does not know."""
    if order.kind not in PATHS:
        raise ContractBroken(f"orders of kind {order.kind} are not known here")
    return order.kind


def _told(answer: Answer) -> Order:
    try:
        order = _order(answer)
    except Refused as refused:
        kept = refused.problem.members.get("order")
        if kept is None:
            raise
        raise OrderRefused(refused.problem, converted(kept, Order)) from None
    if order.state == "refused" and order.problem is not None:
        # A repeat shows the order; its sender hears the same as the first time.
        raise OrderRefused(order.problem, msgspec.structs.replace(order, replay=True))
    return msgspec.structs.replace(order, replay=True) if answer.is_replay else order
