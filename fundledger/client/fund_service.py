"""Python client of the fund service: merchants, orders, bank statements, webhooks."""

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
from fundledger.client.pages import Pages
from fundledger.client.service import Service

Calendar = Literal["manual", "daily", "weekly", "monthly"]
POLL_S: Final = 0.05
POLL_S_MAX: Final = 1.0


class _Results(msgspec.Struct):
    results: list[PaymentResult]


class _Webhooks(msgspec.Struct):
    webhooks: list[Webhook]


class _Redelivered(msgspec.Struct):
    redelivered: int


class _History(msgspec.Struct):
    history: list[Step]


_encode = msgspec.json.Encoder().encode
_order = decoder(Order)
_orders = Pages(list[Order], "orders")
_results = decoder(_Results)
_merchant = decoder(Merchant)
_merchants = Pages(list[Merchant], "merchants")
_history = decoder(_History)
_webhook = decoder(Webhook)
_webhooks = decoder(_Webhooks)
_dead = Pages(list[DeadEvent], "dead", "next", "after")
_redelivered = decoder(_Redelivered)
_report = decoder(dict[str, Any])
_anything = decoder(msgspec.Raw)


class FundService(Service):
    """Client of the fund service: `async with FundService(base_url, token) as fund`.

    Kind, merchant and `order_no` identify an order permanently: a repeated request returns the current order, with
    `replay`. Every call may raise the faults of `fundledger.client.faults`. Refused: no order was stored and the number
    stays free. OrderRefused: the order was stored as refused, and no money moved. A call takes at most `timeout_s` and
    may be repeated. The request of a cancelled call may have been carried out.
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
        """Create a merchant and open its accounts. A repeated request is a replay.

        `withdrawal_limit`: per day (UTC). `settlement`: when the pending balance is settled automatically; never if
        None.
        """
        more = {"fee": fee, "withdrawal_fee": withdrawal_fee, "withdrawal_limit": withdrawal_limit}
        members = {"id": id_, "name": name, "currency": currency, "settlement": settlement, **more}
        answer = await self._post("/v1/merchants", **members)
        merchant = _merchant(answer)
        return msgspec.structs.replace(merchant, replay=True) if answer.status == 200 else merchant

    async def merchant(self, id_: str) -> Merchant | None:
        return found(await self._to.ask("GET", f"/v1/merchants/{quote(id_, safe='')}"), _merchant)

    def merchants(self, limit: int = 100) -> AsyncIterator[Merchant]:
        """Yield all merchants over all pages, oldest first. `limit`: merchants per page."""
        return _merchants.read(self._to, "/v1/merchants", {"limit": str(limit)})

    async def add_fee_rule(self, merchant: str, rule: FeeRule) -> None:
        """Add a fee rule. Earlier orders keep their fee; the latest rule that applies is charged. Not idempotent."""
        path = f"/v1/merchants/{quote(merchant, safe='')}/fees"
        _anything(await self._to.ask("POST", path, _encode(rule)))

    async def create_webhook(self, merchant: str, url: str, events: Sequence[str] | None = None) -> Webhook:
        """Create an endpoint and return it with its `secret`. Not idempotent.

        Refused: `merchant-not-found`, `too-many-webhooks`.
        """
        return _webhook(await self._post("/v1/webhooks", merchant=merchant, url=url, events=events))

    async def webhooks(self, merchant: str | None = None) -> list[Webhook]:
        """Return the endpoints of a merchant, or all, including disabled ones: oldest first, at most 1,000."""
        query = None if merchant is None else {"merchant": merchant}
        return _webhooks(await self._to.ask("GET", "/v1/webhooks", query=query)).webhooks

    async def disable_webhook(self, id_: UUID, reason: str | None = None) -> Webhook:
        """Stop deliveries to an endpoint permanently. Refused: `not-found`."""
        return _webhook(await self._post(f"/v1/webhooks/{id_}/disable", reason=reason))

    def dead_webhook_events(self, id_: UUID, limit: int = 100) -> AsyncIterator[DeadEvent]:
        """Yield the events whose delivery was given up, in order. `limit`: events per page. Refused: `not-found`."""
        return _dead.read(self._to, f"/v1/webhooks/{id_}/dead", {"limit": str(limit)})

    async def redeliver(self, id_: UUID, seqs: Sequence[int] | None = None) -> int:
        """Restart the delivery of events that were given up, and return their number.

        `seqs`: at most 1,000; all events if None.
        """
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
        """Post a payment that its channel has confirmed."""
        payment = Payment(merchant, order_no, amount, currency, channel, channel_ref, settle, ticket)
        return _order_of(await self._to.ask("POST", PATHS["payment"], _encode(payment)))

    async def pay_many(self, payments: Sequence[Payment]) -> list[PaymentResult]:
        """Post payments: `results[i]` answers `payments[i]`, and a refusal is a result.

        More than 5,000 payments are sent in several requests, one after the other. After a fault, all payments may be
        sent again.
        """
        return await in_batches(payments, lambda batch: _encode({"payments": batch}), self._pay_batch)

    async def _pay_batch(self, payments: Sequence[Payment], body: bytes) -> list[PaymentResult]:
        results = _results(await self._to.ask("POST", f"{PATHS['payment']}/batch", body)).results
        if [result.order_no for result in results] != [payment.order_no for payment in payments]:
            raise ContractBroken("the order numbers of the results differ from those of the payments")
        return results

    async def refund(
        self, merchant: str, order_no: str, payment_order_no: str, amount: int, ticket: str | None = None
    ) -> Order:
        """Refund a posted payment, in whole or in part. Refused: `refund-exceeds-payment`."""
        members = {"payment_order_no": payment_order_no, "amount": amount, "ticket": ticket}
        return await self._order("refund", merchant=merchant, order_no=order_no, **members)

    async def settle(self, merchant: str, order_no: str, amount: int | None = None, ticket: str | None = None) -> Order:
        """Settle pending payments, oldest first; without an amount, all of them."""
        return await self._order("settlement", merchant=merchant, order_no=order_no, amount=amount, ticket=ticket)

    async def withdraw(
        self, merchant: str, order_no: str, amount: int, channel: str, ticket: str | None = None
    ) -> Order:
        """Withdraw an amount. In state `posted` the money is reserved. The last state is `paid` or `bounced`."""
        members = {"amount": amount, "channel": channel, "ticket": ticket}
        return await self._order("withdrawal", merchant=merchant, order_no=order_no, **members)

    async def withdrawal_paid(self, id_: UUID, channel_ref: str) -> Order:
        """Record that the bank paid a withdrawal out. Refused: `withdrawal-bounced`."""
        return _order_of(await self._post(f"{PATHS['withdrawal']}/{id_}/paid", channel_ref=channel_ref))

    async def withdrawal_bounced(self, id_: UUID, reason: str) -> Order:
        """Record that the bank returned a withdrawal. The merchant gets the amount back. Refused: `withdrawal-paid`."""
        return _order_of(await self._post(f"{PATHS['withdrawal']}/{id_}/bounced", reason=reason))

    async def charge_back(
        self,
        merchant: str,
        order_no: str,
        payment_order_no: str,
        amount: int,
        channel_ref: str | None = None,
        ticket: str | None = None,
    ) -> Order:
        """Post a chargeback of a payment. The merchant owes the part that its balance does not cover."""
        members = {"payment_order_no": payment_order_no, "amount": amount, "channel_ref": channel_ref}
        return await self._order("chargeback", merchant=merchant, order_no=order_no, ticket=ticket, **members)

    async def recover(self, merchant: str, order_no: str, amount: int, ticket: str | None = None) -> Order:
        """Set off a merchant's debt against its balance."""
        return await self._order("recovery", merchant=merchant, order_no=order_no, amount=amount, ticket=ticket)

    async def write_off(
        self, merchant: str, order_no: str, amount: int, reason: str, ticket: str | None = None
    ) -> Order:
        """Write off a merchant's debt at the platform's loss."""
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
        """Request an adjustment of a merchant's balance. It is `created` until another module or person approves it."""
        members = {"amount": amount, "direction": direction, "reason": reason, "person": person, "ticket": ticket}
        return await self._order("adjustment", merchant=merchant, order_no=order_no, **members)

    async def approve(self, id_: UUID, person: str | None = None) -> Order:
        """Approve an adjustment, which is then posted. Refused: `approval-needs-another`."""
        return _order_of(await self._post(f"{PATHS['adjustment']}/{id_}/approve", person=person))

    async def retry(self, order: Order, reason: str | None = None) -> Order:
        """Repeat the failed step of a stuck order after the cause in its `problem` was removed.

        An order that is not stuck is returned unchanged.
        """
        return _order_of(await self._post(f"{PATHS[_kind(order)]}/{order.id}/retry", reason=reason))

    async def channel_cost(
        self, order_no: str, channel: str, amount: int, currency: str, ticket: str | None = None
    ) -> Order:
        """Post a cost that a channel charges the platform."""
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
        """Post a bank overage (`more`) or shortage (`less`) against the books."""
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
        """Reverse an order, once. Omit `merchant` if the order belongs to no merchant."""
        members = {"of_kind": of_kind, "of_order_no": of_order_no, "reason": reason, "ticket": ticket}
        return await self._order("reversal", order_no=order_no, merchant=merchant, **members)

    async def import_statement(
        self, channel: str, statement_no: str, currency: str, lines: Sequence[StatementLine]
    ) -> dict[str, Any]:
        """Match a bank statement with the orders of its channel, and post each difference to suspense once.

        Return the report: `counts` by outcome, `lines`, `in_transit`, sums.
        """
        members = {"channel": channel, "statement_no": statement_no, "currency": currency, "lines": lines}
        return _report(await self._to.ask("POST", "/v1/bank-statements", _encode(members)))

    async def order(self, kind: Kind, id_: UUID) -> Order | None:
        """Return the current order, or None if it does not exist."""
        return found(await self._to.ask("GET", f"{PATHS[kind]}/{id_}"), _order)

    async def find_order(self, kind: Kind, merchant: str, order_no: str) -> Order | None:
        """Return the order with this number. None: no request with this number has arrived yet."""
        query = {"merchant": merchant, "order_no": order_no}
        return found(await self._to.ask("GET", PATHS[kind], query=query), _order)

    def orders(self, kind: Kind, merchant: str, state: str | None = None, limit: int = 500) -> AsyncIterator[Order]:
        """Yield a merchant's orders over all pages, oldest first. `limit`: orders per page."""
        query = {"merchant": merchant, "limit": str(limit), "state": state}
        return _orders.read(self._to, PATHS[kind], query)

    async def history(self, kind: Kind, id_: UUID) -> list[Step]:
        """Return the states that an order entered, oldest first. Refused: `not-found`."""
        return _history(await self._to.ask("GET", f"{PATHS[kind]}/{id_}/history")).history

    async def wait_until_settled(self, order: Order, timeout_s: float = 60.0) -> Order:
        """Poll an order until its outcome is certain, and return it; a refused order is returned, not raised.

        The order completes without this call, so cancellation is safe. Raises OutcomeUnknown if the outcome is still
        uncertain after `timeout_s`. Faults are retried until then, unless a retry is not safe.
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
        return _order_of(await self._post(PATHS[kind], **members))

    async def _post(self, path: str, **members: object) -> Answer:
        given = {name: value for name, value in members.items() if value is not None}
        return await self._to.ask("POST", path, _encode(given))


def _kind(order: Order) -> Kind:
    """Return the kind of an order. Raises ContractBroken for a kind unknown to this version."""
    if order.kind not in PATHS:
        raise ContractBroken(f"unknown kind of order: {order.kind}")
    return order.kind


def _order_of(answer: Answer) -> Order:
    try:
        order = _order(answer)
    except Refused as refused:
        kept = refused.problem.members.get("order")
        if kept is None:
            raise
        raise OrderRefused(refused.problem, converted(kept, Order)) from None
    if order.state == "refused" and order.problem is not None:
        # A replay returns the order; raise the same exception as for the first request.
        raise OrderRefused(order.problem, msgspec.structs.replace(order, replay=True))
    return msgspec.structs.replace(order, replay=True) if answer.is_replay else order
