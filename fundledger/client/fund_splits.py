"""Python client of the fund service, part: split payments."""

from collections.abc import Sequence
from uuid import UUID

from fundledger.client.fund_orders import FundOrders, order_of
from fundledger.client.fund_types import PATHS, Order, SplitPart


class FundSplits(FundOrders):
    """The requests about split payments. Use `FundService`, which has these methods."""

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

    async def split_refund_paid(self, id_: UUID, channel_ref: str) -> Order:
        """Record that the bank paid a split refund out. Raises Refused with `refund-bounced`."""
        return order_of(await self._post(f"{PATHS['split_refund']}/{id_}/paid", channel_ref=channel_ref))

    async def split_refund_bounced(self, id_: UUID, reason: str) -> Order:
        """Record that the bank returned a split refund. Each merchant gets its part back, and the payment can be
        refunded again. Raises Refused with `refund-paid`.
        """
        return order_of(await self._post(f"{PATHS['split_refund']}/{id_}/bounced", reason=reason))

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
