"""Python client of the fund service: orders, bank statements. Its base classes have the other requests."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from datetime import date
from typing import Any, Final, Literal
from uuid import UUID

import msgspec

from fundledger.client.batches import in_batches
from fundledger.client.connection import decoder, found
from fundledger.client.faults import ContractBroken, Fault, OutcomeUnknown
from fundledger.client.fund_lists import FundLists
from fundledger.client.fund_merchants import FundMerchants
from fundledger.client.fund_money import FundMoney
from fundledger.client.fund_orders import Reversible
from fundledger.client.fund_orders import order_of as _order_of
from fundledger.client.fund_payouts import FundPayouts
from fundledger.client.fund_registry import FundRegistry
from fundledger.client.fund_splits import FundSplits
from fundledger.client.fund_types import (
    PATHS,
    ApprovalResult,
    Kind,
    Order,
    Payment,
    PaymentResult,
    StatementLine,
    Step,
)
from fundledger.client.fund_webhooks import FundWebhooks
from fundledger.client.pages import Pages

POLL_S: Final = 0.05
POLL_S_MAX: Final = 1.0


class _Results(msgspec.Struct):
    results: list[PaymentResult]


class _Approvals(msgspec.Struct):
    results: list[ApprovalResult]


class _History(msgspec.Struct):
    history: list[Step]


_encode = msgspec.json.Encoder().encode
_order = decoder(Order)
_orders = Pages(list[Order], "orders")
_results = decoder(_Results)
_approvals = decoder(_Approvals)
_history = decoder(_History)
_report = decoder(dict[str, Any])


class FundService(FundLists, FundRegistry, FundMerchants, FundMoney, FundPayouts, FundSplits, FundWebhooks):
    """Client of the fund service. Open it with `async with FundService(base_url, token) as fund`.

    Kind, merchant and `order_no` identify an order permanently: a repeated request returns the current order, with
    `replay`. Every call may raise the faults of `fundledger.client.faults`. If a call raises Refused, no order was
    stored, and the order number stays free. If a call raises OrderRefused, the order was stored as refused, and no
    money moved. A call takes at most `timeout_s` and may be repeated. The service may have carried out the request of a
    cancelled call.
    """

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
        """Post payments and return their results: `results[i]` answers `payments[i]`. A refusal is a result, not an
        exception.

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
        """Refund a posted payment, in whole or in part. In the state `posted` the money has left the merchant. The last
        state is `paid` or `bounced`. Raises Refused with `refund-exceeds-payment`.
        """
        members = {"payment_order_no": payment_order_no, "amount": amount, "ticket": ticket}
        return await self._order("refund", merchant=merchant, order_no=order_no, **members)

    async def refund_paid(self, id_: UUID, channel_ref: str) -> Order:
        """Record that the bank paid a refund out. Raises Refused with `refund-bounced`."""
        return _order_of(await self._post(f"{PATHS['refund']}/{id_}/paid", channel_ref=channel_ref))

    async def refund_bounced(self, id_: UUID, reason: str) -> Order:
        """Record that the bank returned a refund. The merchant gets its amount back, and the payment can be refunded
        again. Raises Refused with `refund-paid`.
        """
        return _order_of(await self._post(f"{PATHS['refund']}/{id_}/bounced", reason=reason))

    async def settle(
        self,
        merchant: str,
        order_no: str,
        amount: int | None = None,
        ticket: str | None = None,
        day: date | None = None,
    ) -> Order:
        """Settle pending payments of a merchant, oldest first. `amount`: None for all pending payments. `day`: settle
        only payments that are due on this day or before.
        """
        members = {"amount": amount, "day": day, "ticket": ticket}
        return await self._order("settlement", merchant=merchant, order_no=order_no, **members)

    async def withdrawal_paid(self, id_: UUID, channel_ref: str) -> Order:
        """Record that the bank paid a withdrawal out. Raises Refused with `withdrawal-bounced`."""
        return _order_of(await self._post(f"{PATHS['withdrawal']}/{id_}/paid", channel_ref=channel_ref))

    async def withdrawal_bounced(self, id_: UUID, reason: str) -> Order:
        """Record that the bank returned a withdrawal. The merchant gets its amount back. Raises Refused with
        `withdrawal-paid`.
        """
        return _order_of(await self._post(f"{PATHS['withdrawal']}/{id_}/bounced", reason=reason))

    async def return_payout(
        self,
        merchant: str,
        order_no: str,
        withdrawal_order_no: str,
        amount: int,
        channel_ref: str,
        fee: Literal["kept", "returned"] = "kept",
        ticket: str | None = None,
    ) -> Order:
        """Post a return of a payout: the payee's bank returned the money of a `paid` withdrawal, in whole or in part.
        Raises Refused with `withdrawal-not-paid`, `return-exceeds-withdrawal` or `receipt-already-booked`.
        """
        members = {"withdrawal_order_no": withdrawal_order_no, "amount": amount, "channel_ref": channel_ref, "fee": fee}
        return await self._order("payout_return", merchant=merchant, order_no=order_no, ticket=ticket, **members)

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
        """Repay an amount of a merchant's debt from its available balance."""
        return await self._order("recovery", merchant=merchant, order_no=order_no, amount=amount, ticket=ticket)

    async def write_off(
        self, merchant: str, order_no: str, amount: int, reason: str, ticket: str | None = None
    ) -> Order:
        """Request to give up an amount of a merchant's debt. The platform bears the loss. The order is `created` until
        it is approved.
        """
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
        against: Literal["over", "short"] | None = None,
    ) -> Order:
        """Request an adjustment of a merchant's balance. The order is `created` until another module or person approves
        it. `against`: the suspense account, None for the default.
        """
        members = {"amount": amount, "direction": direction, "reason": reason, "person": person, "ticket": ticket}
        members["against"] = against
        return await self._order("adjustment", merchant=merchant, order_no=order_no, **members)

    async def approve(self, order: Order | UUID, person: str | None = None) -> Order:
        """Approve an order that is `created`, which is then posted. `order`: the order, or the id of an adjustment. The
        token of this client identifies the approver; `person` is a note. Raises Refused with `approval-needs-another`.
        """
        return _order_of(await self._post(f"{_path(order)}/approve", person=person))

    async def reject(self, order: Order, reason: str) -> Order:
        """Reject an order that is `created`. Raises Refused with `order-approved` or `order-expired`."""
        return _order_of(await self._post(f"{_path(order)}/reject", reason=reason))

    async def approve_many(self, ids: Sequence[UUID]) -> list[ApprovalResult]:
        """Approve at most 1,000 orders of any kinds, each independently: `results[i]` answers `ids[i]`."""
        return _approvals(await self._post("/v1/approvals", orders=ids)).results

    async def retry(self, order: Order, reason: str | None = None) -> Order:
        """Repeat the failed step of a stuck order. Call this after the cause, named in the order's `problem`, was
        removed.

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
        """Request to post a difference between the bank and the books: an overage (`more`) or a shortage (`less`) of
        the bank. The order is `created` until it is approved.
        """
        members = {"channel": channel, "amount": amount, "currency": currency, "direction": direction}
        return await self._order("bank_difference", order_no=order_no, reason=reason, ticket=ticket, **members)

    async def reverse(
        self,
        order_no: str,
        of_kind: Reversible,
        of_order_no: str,
        reason: str,
        merchant: str | None = None,
        ticket: str | None = None,
    ) -> Order:
        """Request the reversal of an order, which can be reversed once. Omit `merchant` if the order belongs to no
        merchant. The reversal is `created` until it is approved.
        """
        members = {"of_kind": of_kind, "of_order_no": of_order_no, "reason": reason, "ticket": ticket}
        return await self._order("reversal", order_no=order_no, merchant=merchant, **members)

    async def import_statement(
        self, channel: str, statement_no: str, currency: str, lines: Sequence[StatementLine]
    ) -> dict[str, Any]:
        """Match a bank statement with the orders of its channel, and request a bank difference for each difference,
        once. Approve the bank differences with `approve_many`.

        Returns the report, with the number of lines by outcome (`counts`), the `lines`, the orders `in_transit` and the
        sums.
        """
        members = {"channel": channel, "statement_no": statement_no, "currency": currency, "lines": lines}
        return _report(await self._to.ask("POST", "/v1/bank-statements", _encode(members)))

    async def order(self, kind: Kind, id_: UUID) -> Order | None:
        """Return the order with this id in its current state, or None if the order does not exist."""
        return found(await self._to.ask("GET", f"{PATHS[kind]}/{id_}"), _order)

    async def find_order(self, kind: Kind, merchant: str, order_no: str) -> Order | None:
        """Return the order with this number, or None if no order with this number is stored."""
        query = {"merchant": merchant, "order_no": order_no}
        return found(await self._to.ask("GET", PATHS[kind], query=query), _order)

    def orders(self, kind: Kind, merchant: str, state: str | None = None, limit: int = 500) -> AsyncIterator[Order]:
        """Yield the orders of a merchant from all pages, oldest first. `limit`: orders per page."""
        query = {"merchant": merchant, "limit": str(limit), "state": state}
        return _orders.read(self._to, PATHS[kind], query)

    async def history(self, kind: Kind, id_: UUID) -> list[Step]:
        """Return the states that an order entered, oldest first. Raises Refused with `not-found`."""
        return _history(await self._to.ask("GET", f"{PATHS[kind]}/{id_}/history")).history

    async def wait_until_settled(self, order: Order, timeout_s: float = 60.0) -> Order:
        """Poll an order until its outcome is certain, and return the order. A refused order is returned, not raised.

        The order completes without this call, so cancellation is safe. Raises OutcomeUnknown if the outcome is still
        uncertain after `timeout_s`. If a poll fails, it is retried until then, unless a retry is not safe.
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


def _path(order: Order | UUID) -> str:
    """Return the path of an order. An id is that of an adjustment."""
    return f"{PATHS['adjustment']}/{order}" if isinstance(order, UUID) else f"{PATHS[_kind(order)]}/{order.id}"


def _kind(order: Order) -> Kind:
    """Return the kind of an order. Raises ContractBroken if this version does not know the kind."""
    if order.kind not in PATHS:
        raise ContractBroken(f"unknown kind of order: {order.kind}")
    return order.kind
