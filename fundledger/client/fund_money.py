"""Python client of the fund service, part: the platform's own money, suspense, disputes, and money of merchants that no
payment moves.
"""

from datetime import date
from typing import Literal
from uuid import UUID

from fundledger.client.fund_orders import FundOrders, order_of
from fundledger.client.fund_types import PATHS, Order

Parked = Literal[
    "payment",
    "payout_return",
    "chargeback",
    "top_up",
    "dispute_won",
    "dispute_fee",
    "split_payment",
    "split_chargeback",
]


class FundMoney(FundOrders):
    """The requests about own money, suspense, disputes, top-ups, transfers and reserves. Use `FundService`, which has
    these methods. An order of own money or of suspense is `created` until another module or person approves it.
    """

    async def own_transfer(
        self,
        order_no: str,
        from_channel: str,
        channel: str,
        amount: int,
        currency: str,
        from_ref: str | None = None,
        ticket: str | None = None,
    ) -> Order:
        """Request a transfer from the bank account of `from_channel` to that of `channel`. The last state is `paid` or
        `bounced`. `from_ref`: the reference at `from_channel`. Raises Refused with `channel-underfunded`.
        """
        members = {"from_channel": from_channel, "channel": channel, "amount": amount, "currency": currency}
        return await self._order("own_transfer", order_no=order_no, from_ref=from_ref, ticket=ticket, **members)

    async def own_transfer_paid(self, id_: UUID, channel_ref: str) -> Order:
        """Record that an own transfer has arrived, under the reference `channel_ref` of the receiving channel. Raises
        Refused with `order-ended` or `receipt-already-booked`.
        """
        return order_of(await self._post(f"{PATHS['own_transfer']}/{id_}/paid", channel_ref=channel_ref))

    async def own_transfer_bounced(self, id_: UUID, reason: str) -> Order:
        """Record that an own transfer has come back. Raises Refused with `order-ended`."""
        return order_of(await self._post(f"{PATHS['own_transfer']}/{id_}/bounced", reason=reason))

    async def own_funds(
        self,
        order_no: str,
        channel: str,
        amount: int,
        currency: str,
        direction: Literal["in", "out"],
        reason: str,
        channel_ref: str | None = None,
        ticket: str | None = None,
    ) -> Order:
        """Request to post own funds that came into a bank account, or that leave it. Raises Refused with
        `own-funds-exceeded` or `channel-underfunded`.
        """
        members = {"channel": channel, "amount": amount, "currency": currency, "direction": direction, "reason": reason}
        return await self._order("own_funds", order_no=order_no, channel_ref=channel_ref, ticket=ticket, **members)

    async def sweep_fees(
        self,
        order_no: str,
        channel: str,
        amount: int,
        currency: str,
        reason: str,
        channel_ref: str | None = None,
        ticket: str | None = None,
    ) -> Order:
        """Request to take income of the platform out of a bank account. Raises Refused with `sweep-exceeds-income` or
        `channel-underfunded`.
        """
        members = {"channel": channel, "amount": amount, "currency": currency, "reason": reason}
        return await self._order("fee_sweep", order_no=order_no, channel_ref=channel_ref, ticket=ticket, **members)

    async def pay_payable(
        self,
        order_no: str,
        channel: str,
        amount: int,
        currency: str,
        against: Literal["channel", "tax"] = "channel",
        invoice_order_no: str | None = None,
        channel_ref: str | None = None,
        reason: str | None = None,
        ticket: str | None = None,
    ) -> Order:
        """Request to pay what the platform owes a channel, or the tax authority (`tax`), in whole or in part, from the
        bank account of `channel`. `invoice_order_no`: the invoice of the channel that is paid. Raises Refused with
        `payable-exceeded`, `invoice-exceeded` or `channel-underfunded`.
        """
        members = {"channel": channel, "amount": amount, "currency": currency, "reason": reason}
        paid = {"against": against, "invoice_order_no": invoice_order_no, "channel_ref": channel_ref}
        return await self._order("payable_payment", order_no=order_no, **members, **paid, ticket=ticket)

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

    async def clear_suspense(
        self,
        order_no: str,
        amount: int,
        currency: str,
        direction: Literal["more", "less"],
        against: Literal["merchant", "income", "bank", "short", "loss", "channel"],
        reason: str,
        merchant: str | None = None,
        channel: str | None = None,
        ticket: str | None = None,
    ) -> Order:
        """Request to clear an explained overage (`more`) or shortage (`less`) of a bank. Raises Refused with
        `suspense-exceeded`.
        """
        members = {"amount": amount, "currency": currency, "direction": direction, "against": against}
        more = {"merchant": merchant, "channel": channel, "reason": reason, "ticket": ticket}
        return await self._order("suspense_clearing", order_no=order_no, **members, **more)

    async def clear_parked(
        self,
        order_no: str,
        of_kind: Parked,
        of_merchant: str | None,
        of_order_no: str,
        against: Literal["merchant", "income", "bank", "loss"],
        reason: str,
        merchant: str | None = None,
        ticket: str | None = None,
    ) -> Order:
        """Request to move the money of a parked order elsewhere. The parked order becomes `cleared`. `of_merchant`: the
        merchant of the parked order, None for the platform. Raises Refused with `order-not-parked`.
        """
        members = {"of_kind": of_kind, "of_merchant": of_merchant, "of_order_no": of_order_no, "against": against}
        more = {"merchant": merchant, "reason": reason, "ticket": ticket}
        return await self._order("parked_clearing", order_no=order_no, **members, **more)

    async def top_up(
        self,
        merchant: str,
        order_no: str,
        amount: int,
        currency: str,
        channel: str,
        channel_ref: str | None = None,
        ticket: str | None = None,
    ) -> Order:
        """Post a top-up that its channel has confirmed."""
        members = {"amount": amount, "currency": currency, "channel": channel, "channel_ref": channel_ref}
        return await self._order("top_up", merchant=merchant, order_no=order_no, ticket=ticket, **members)

    async def transfer(
        self,
        merchant: str,
        order_no: str,
        to_merchant: str,
        amount: int,
        reason: str | None = None,
        ticket: str | None = None,
    ) -> Order:
        """Transfer an amount to another merchant. Raises Refused with `debt-in-progress`."""
        members = {"to_merchant": to_merchant, "amount": amount, "reason": reason, "ticket": ticket}
        return await self._order("transfer", merchant=merchant, order_no=order_no, **members)

    async def hold_reserve(
        self,
        merchant: str,
        order_no: str,
        amount: int,
        reason: str | None = None,
        ticket: str | None = None,
        release_on: date | None = None,
    ) -> Order:
        """Move an amount of a merchant's available balance into its reserve. With `release_on`, the whole hold is
        released on that day.
        """
        members = {"amount": amount, "reason": reason, "release_on": release_on, "ticket": ticket}
        return await self._order("reserve_hold", merchant=merchant, order_no=order_no, **members)

    async def release_reserve(
        self,
        merchant: str,
        order_no: str,
        amount: int | None = None,
        reason: str | None = None,
        ticket: str | None = None,
        hold_order_no: str | None = None,
    ) -> Order:
        """Return an amount (minor units) of a merchant's reserve, or the whole hold `hold_order_no`, to its available
        balance. Give exactly one of the two. Raises Refused with `reserve-exceeded` if the amount exceeds the holds
        without `release_on`, or with `order-not-found`, `order-not-posted` or `reserve-hold-released` for a hold.
        """
        members = {"amount": amount, "reason": reason, "hold_order_no": hold_order_no, "ticket": ticket}
        return await self._order("reserve_release", merchant=merchant, order_no=order_no, **members)

    async def open_dispute(
        self,
        merchant: str,
        order_no: str,
        payment_order_no: str,
        amount: int,
        reason: str | None = None,
        ticket: str | None = None,
    ) -> Order:
        """Take the amount of a disputed payment from the merchant, until the dispute is won or lost. Raises Refused
        with `chargeback-exceeds-payment`.
        """
        members = {"payment_order_no": payment_order_no, "amount": amount, "reason": reason, "ticket": ticket}
        return await self._order("dispute", merchant=merchant, order_no=order_no, **members)

    async def dispute_won(self, id_: UUID) -> Order:
        """Record that an open dispute is won: the merchant gets its money again. Raises Refused with `order-ended`."""
        return order_of(await self._post(f"{PATHS['dispute']}/{id_}/won"))

    async def dispute_lost(self, id_: UUID, channel_ref: str | None = None) -> Order:
        """Record that a dispute is lost: the payer's bank has taken the money. Raises Refused with `order-ended`."""
        return order_of(await self._post(f"{PATHS['dispute']}/{id_}/lost", channel_ref=channel_ref))

    async def win_back(
        self,
        merchant: str,
        order_no: str,
        chargeback_order_no: str,
        amount: int,
        of_kind: Literal["chargeback", "dispute"] = "chargeback",
        channel_ref: str | None = None,
        ticket: str | None = None,
    ) -> Order:
        """Post the amount of a chargeback or of a lost dispute that the payer's bank returned. Raises Refused with
        `win-exceeds-chargeback`.
        """
        members = {"chargeback_order_no": chargeback_order_no, "amount": amount, "of_kind": of_kind}
        more = {"channel_ref": channel_ref, "ticket": ticket}
        return await self._order("dispute_won", merchant=merchant, order_no=order_no, **members, **more)

    async def charge_dispute_fee(
        self,
        merchant: str,
        order_no: str,
        amount: int,
        channel: str,
        against: Literal["bank", "payable"] = "bank",
        channel_ref: str | None = None,
        reason: str | None = None,
        ticket: str | None = None,
    ) -> Order:
        """Charge a merchant the fee of a channel for a dispute. `against`: whether the channel has collected the fee
        already (`bank`), or collects it later (`payable`).
        """
        members = {"amount": amount, "channel": channel, "against": against, "channel_ref": channel_ref}
        more = {"reason": reason, "ticket": ticket}
        return await self._order("dispute_fee", merchant=merchant, order_no=order_no, **members, **more)
