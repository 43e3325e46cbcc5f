"""Check of the fund service that accounts of the platform hold what an order takes from them: bank accounts, own funds,
income, payable accounts, suspense.

The account service bounds no account of the platform. So an order that takes from one is compared with the balance when
it is requested, and again when it is approved. Approvals of such orders in a currency are serialized by a lock, and
orders without a known outcome count as posted, so that no two orders take the same amount.
"""

from collections.abc import Sequence
from typing import Final

from fundledger.fund.account_gateway import AccountGateway
from fundledger.fund.channel_check import Registry
from fundledger.fund.model import accounts
from fundledger.fund.model.drafts import Draft
from fundledger.fund.model.flows import moved, reversed_kind
from fundledger.fund.model.order import PLATFORM, Kind, Order
from fundledger.fund.model.refusal import Code, Refusal
from fundledger.fund.store.macs import OrderMacs
from fundledger.fund.store.merchants import Merchants
from fundledger.fund.store.orders import AnyConnection, order_from, read_order
from fundledger.fund.store.queries import SQL

TAKING: Final = frozenset(
    {
        *(Kind.OWN_TRANSFER, Kind.OWN_FUNDS, Kind.FEE_SWEEP, Kind.PAYABLE_PAYMENT),
        *(Kind.SUSPENSE_CLEARING, Kind.PARKED_CLEARING, Kind.ADJUSTMENT),
    }
)
"""Kinds of orders that may take from an account of the platform, and that this module bounds."""
REVERSED_BOUNDED: Final = frozenset(
    {Kind.BANK_DIFFERENCE, Kind.ADJUSTMENT, Kind.OWN_FUNDS, Kind.DISPUTE_FEE, Kind.CHANNEL_INVOICE}
)
"""Kinds of orders whose reversal may take an amount that another order has already taken. A reversal is not bounded by
the balance of a bank account: the real bank account never had the amount.
"""
_UNDERWAY: Final = sorted({*TAKING, Kind.BANK_DIFFERENCE, Kind.REVERSAL})


class PlatformCheck:
    """The check of one worker. Methods raise Tampered, GatewayFault, and what asyncpg raises."""

    def __init__(self, channels: Registry, merchants: Merchants, gateway: AccountGateway, macs: OrderMacs) -> None:
        self._channels = channels
        self._merchants = merchants
        self._gateway = gateway
        self._macs = macs

    async def refusal_of_draft(self, connection: AnyConnection, draft: Draft) -> Refusal | None:
        """Return why a new order is refused because of a second merchant or of an account of the platform, or None. In
        that case the accounts that only some kinds of orders need are open.
        """
        order = draft.order
        for field in ("to_merchant", "of_merchant"):
            other = getattr(draft.request, field, None)
            # An order of the platform can be cleared. Nothing else names the platform as a merchant.
            if other is None or (other == PLATFORM and field == "of_merchant"):
                continue
            merchant = await self._merchants.get(other)
            if merchant is None:
                return Refusal(Code.MERCHANT_NOT_FOUND, f"there is no merchant {other}", field)
            # The currency of a clearing that belongs to the platform is that of the merchant of the parked order.
            order.currency = order.currency or merchant.currency
            if merchant.currency != order.currency:
                detail = f"the currency of merchant {other} is {merchant.currency}"
                return Refusal(Code.CURRENCY_MISMATCH, detail, field)
        if order.kind is Kind.PARKED_CLEARING and not order.currency and order.of_order is not None:
            # A clearing of a parked order of the platform has the currency of that order.
            parked = await read_order(connection, order.of_order)
            if parked is None:
                return Refusal(Code.ORDER_NOT_FOUND, "the order to clear does not exist", "of_order_no")
            order.currency = parked.currency
        await self._gateway.open_further(order)
        return await self.refusal_of(connection, order)

    async def lock(self, connection: AnyConnection, order: Order) -> None:
        """Exclude concurrent approvals of orders that take from accounts of the platform, until the transaction
        ends.
        """
        await connection.execute(SQL["lock_platform"], order.currency)

    async def refusal_of(self, connection: AnyConnection, order: Order) -> Refusal | None:
        """Return why an order takes more than an account of the platform holds, or None. The answer holds until the
        transaction ends if `lock` was called in it, and the order is not posted yet.
        """
        if not may_take(order) or order.amount == 0:
            # The amount of a parked clearing or a reversal is known when it is inserted.
            return None
        no = await self._beyond_own_money(connection, order)
        if no is not None:
            return no
        taken = moved(order)
        if not any(_bound(account, order) for account in taken):
            return None
        # The orders are read before the balances. So an order that is posted meanwhile is in both, and never in
        # neither.
        rows = await connection.fetch(SQL["platform_underway"], order.currency, _UNDERWAY)
        # An order that does not match its MAC is not posted.
        underway = [each for each in map(order_from, rows) if each.id != order.id and self._macs.verifies(each)]
        for account, amount in taken.items():
            code = _bound(account, order)
            if code is None:
                continue
            taken_from = _takes(account, amount, code)
            left = None if taken_from <= 0 else await self._left(connection, account, order, code, underway)
            if left is not None and taken_from > left:
                detail = f"account {account} holds {max(0, left)} for this order"
                return Refusal(code, detail, _field(order))
        return None

    async def _left(
        self, connection: AnyConnection, account: str, order: Order, code: Code, underway: Sequence[Order]
    ) -> int | None:
        """Return the amount that an order may take from an account, None for any amount."""
        waiting = sum(max(0, _takes(account, moved(each).get(account, 0), code)) for each in underway)
        if code is Code.CHANNEL_UNDERFUNDED:
            return await self._left_at_bank(connection, account, order, waiting)
        balance = await self._posted(account)
        # A shortage is a debit of its suspense account.
        return (-balance if account == accounts.suspense_short(order.currency) else balance) - waiting

    async def _left_at_bank(self, connection: AnyConnection, account: str, order: Order, waiting: int) -> int | None:
        names = {order.channel, order.counterparty} - {None}
        name = next(name for name in names if name and accounts.bank(name, order.currency) == account)
        channel = await self._channels.get(name, order.currency)
        if channel is None:
            return 0
        if channel.overdraft is None:
            return None
        lost = int(await connection.fetchval(SQL["lost_disputes"], name, order.currency))
        return await self._gateway.left_for_payouts(name, order.currency) + channel.overdraft - waiting - lost

    async def _beyond_own_money(self, connection: AnyConnection, order: Order) -> Refusal | None:
        """Return why the platform has not as much own money as an order takes out, or None. Raises Tampered if an order
        that counts does not match its MAC.
        """
        is_sweep = order.kind is Kind.FEE_SWEEP
        is_out = order.kind is Kind.OWN_FUNDS and order.direction == "out"
        if order.kind is Kind.REVERSAL:
            is_out = reversed_kind(order) is Kind.OWN_FUNDS and order.direction == "in"
        if not is_sweep and not is_out:
            return None
        put_in = taken_out = swept = 0
        for row in await connection.fetch(SQL["own_money"], order.currency):
            each = order_from(row)
            self._macs.check(each)
            if each.kind is Kind.FEE_SWEEP:
                swept += each.amount
            elif each.direction == "in":
                put_in += each.amount
            else:
                taken_out += each.amount
        if is_sweep:
            earned = [accounts.fee_income(order.currency), accounts.other_income(order.currency)]
            spent = [accounts.channel_cost(order.currency), accounts.loss(order.currency)]
            found = await self._gateway.balances([*earned, *spent])
            posted = {id_: account.balance.posted for id_, account in found.items()}
            income = sum(posted.get(id_, 0) for id_ in earned) - sum(posted.get(id_, 0) for id_ in spent)
            left = income - swept
            detail = f"{max(0, left)} of the income less the expenses is not swept"
            return Refusal(Code.SWEEP_EXCEEDS_INCOME, detail, "amount") if order.amount > left else None
        left = put_in - taken_out
        detail = f"{max(0, left)} of the own funds that came in has not left"
        return Refusal(Code.OWN_FUNDS_EXCEEDED, detail, _field(order)) if order.amount > left else None

    async def _posted(self, account: str) -> int:
        found = (await self._gateway.balances([account])).get(account)
        return 0 if found is None else found.balance.posted


def may_take(order: Order) -> bool:
    """Return whether an order may take from a bounded account of the platform. An adjustment that names no suspense
    account opens an item there.
    """
    if order.kind is Kind.REVERSAL:
        return reversed_kind(order) in REVERSED_BOUNDED
    return order.kind in TAKING and (order.kind is not Kind.ADJUSTMENT or order.against is not None)


def _bound(account: str, order: Order) -> Code | None:
    """Return the refusal of an order that takes too much from an account, or None if the account is not bounded."""
    currency = order.currency
    if account in (accounts.suspense_over(currency), accounts.suspense_short(currency)):
        return Code.SUSPENSE_EXCEEDED
    payable = [accounts.tax_output(currency)]
    if order.channel is not None:
        payable.append(accounts.payable(order.channel, currency))
    if order.kind in (Kind.PAYABLE_PAYMENT, Kind.REVERSAL) and account in payable:
        return Code.PAYABLE_EXCEEDED
    names = () if order.kind is Kind.REVERSAL else (order.channel, order.counterparty)
    if any(name is not None and account == accounts.bank(name, currency) for name in names):
        return Code.CHANNEL_UNDERFUNDED
    return None


def _takes(account: str, amount: int, code: Code) -> int:
    """Return what a credit (positive) or debit (negative) takes from a bounded account."""
    is_asset = code is Code.CHANNEL_UNDERFUNDED or account.startswith("suspense:short")
    return amount if is_asset else -amount


def _field(order: Order) -> str:
    """Return the member of a request that takes too much."""
    return "of_order_no" if order.kind is Kind.REVERSAL else "amount"
