"""Python client of the fund service, part: split payments, and invoices of channels."""

from collections.abc import Sequence

from fundledger.client.fund_types import Kind, Order, SplitPart
from fundledger.client.service import Service


class FundSplits(Service):
    """The requests of split payments and of invoices of channels. `FundService` has the other requests."""

    async def _order(self, kind: Kind, **members: object) -> Order:
        """Request an order. `FundService` implements this method."""
        raise NotImplementedError

    async def split_pay(
        self,
        order_no: str,
        amount: int,
        currency: str,
        channel: str,
        parts: Sequence[SplitPart],
        channel_ref: str | None = None,
        merchant: str | None = None,
        ticket: str | None = None,
    ) -> Order:
        """Post a payment that its channel has confirmed, divided among 2 to 20 merchants. The parts sum to the amount.
        `merchant`: the owner of the order, such as a marketplace, None for the platform.
        """
        members = {"amount": amount, "currency": currency, "channel": channel, "channel_ref": channel_ref}
        owned = {"merchant": merchant, "order_no": order_no, "ticket": ticket}
        return await self._order("split_payment", parts=parts, **members, **owned)

    async def split_refund(
        self,
        order_no: str,
        of_order_no: str,
        amount: int | None = None,
        parts: Sequence[SplitPart] | None = None,
        merchant: str | None = None,
        ticket: str | None = None,
    ) -> Order:
        """Refund a posted split payment: `parts` has the amount of each merchant, or `amount` is divided in proportion
        to what is left of each part. Raises Refused with `refund-exceeds-payment`.
        """
        members = {"of_order_no": of_order_no, "amount": amount, "parts": parts, "ticket": ticket}
        return await self._order("split_refund", order_no=order_no, merchant=merchant, **members)

    async def split_charge_back(
        self,
        order_no: str,
        of_order_no: str,
        amount: int | None = None,
        parts: Sequence[SplitPart] | None = None,
        channel_ref: str | None = None,
        merchant: str | None = None,
        ticket: str | None = None,
    ) -> Order:
        """Post a chargeback of a split payment, divided as a split refund is. Each merchant owes the part that its
        balance does not cover.
        """
        members = {"of_order_no": of_order_no, "amount": amount, "parts": parts, "channel_ref": channel_ref}
        owned = {"merchant": merchant, "order_no": order_no, "ticket": ticket}
        return await self._order("split_chargeback", **members, **owned)

    async def channel_invoice(
        self,
        order_no: str,
        channel: str,
        amount: int,
        currency: str,
        invoice_no: str,
        period: str,
        ticket: str | None = None,
    ) -> Order:
        """Post an invoice of a channel for its fees of a month. `period`: the month, YYYY-MM. Raises Refused with
        `receipt-already-booked` if another order has the number of the invoice.
        """
        members = {"channel": channel, "amount": amount, "currency": currency, "ticket": ticket}
        return await self._order("channel_invoice", order_no=order_no, invoice_no=invoice_no, period=period, **members)

    async def pay_channel_invoice(
        self,
        order_no: str,
        of_order_no: str,
        amount: int,
        channel_ref: str | None = None,
        ticket: str | None = None,
    ) -> Order:
        """Request a payment of an invoice of a channel, in whole or in part. The order is `created` until it is
        approved. Raises Refused with `invoice-exceeded`.
        """
        members = {"of_order_no": of_order_no, "amount": amount, "channel_ref": channel_ref, "ticket": ticket}
        return await self._order("channel_invoice_payment", order_no=order_no, **members)
