"""Model of the fund service: ids, owners and types of the accounts of merchants, of the platform and of channels."""

from typing import Final, NamedTuple

from fundledger.fund.model.order import PLATFORM, Kind, Order

HOME_CURRENCY: Final = "CNY"
"""The currency of platform accounts whose ids name no currency. In any other currency the id ends with the currency."""


class AccountName(NamedTuple):
    """The `id`, `owner` and `type` with which an account is opened in the account service."""

    id: str
    owner: str
    type: str


def pending(merchant: str) -> str:
    return f"merchant:{merchant}:pending"


def available(merchant: str) -> str:
    return f"merchant:{merchant}:available"


def receivable(merchant: str) -> str:
    return f"merchant:{merchant}:receivable"


def bank(channel: str, currency: str) -> str:
    return _in(f"bank:{channel}", currency)


def payout_transit(channel: str, currency: str) -> str:
    return _in(f"transit:payout:{channel}", currency)


def refund_transit(channel: str, currency: str) -> str:
    return _in(f"transit:refund:{channel}", currency)


def fee_income(currency: str) -> str:
    return _in("income:fee", currency)


def channel_cost(currency: str) -> str:
    return _in("expense:channel", currency)


def loss(currency: str) -> str:
    return _in("expense:loss", currency)


def tax_output(currency: str) -> str:
    return _in("tax:output", currency)


def suspense_over(currency: str) -> str:
    return _in("suspense:over", currency)


def suspense_short(currency: str) -> str:
    return _in("suspense:short", currency)


def suspense_parked(currency: str) -> str:
    return _in("suspense:parked", currency)


def reserve(merchant: str) -> str:
    return f"merchant:{merchant}:reserve"


def disputed(merchant: str) -> str:
    return f"merchant:{merchant}:disputed"


def own_transit(currency: str) -> str:
    return _in("transit:bank", currency)


def own_funds(currency: str) -> str:
    return _in("equity:own", currency)


def other_income(currency: str) -> str:
    return _in("income:other", currency)


def payable(channel: str, currency: str) -> str:
    return _in(f"payable:{channel}", currency)


def of_merchant(merchant: str) -> list[AccountName]:
    owner = f"merchant:{merchant}"
    return [
        AccountName(available(merchant), owner, "merchant_available"),
        AccountName(pending(merchant), owner, "merchant_pending"),
        AccountName(receivable(merchant), owner, "receivable"),
    ]


def of_platform(currency: str) -> list[AccountName]:
    return [
        AccountName(fee_income(currency), PLATFORM, "fee_income"),
        AccountName(channel_cost(currency), PLATFORM, "channel_expense"),
        AccountName(loss(currency), PLATFORM, "channel_expense"),
        AccountName(suspense_over(currency), PLATFORM, "suspense"),
        AccountName(suspense_short(currency), PLATFORM, "suspense"),
        AccountName(suspense_parked(currency), PLATFORM, "suspense"),
        AccountName(tax_output(currency), PLATFORM, "tax_payable"),
    ]


def of_channel(channel: str, currency: str) -> list[AccountName]:
    return [
        AccountName(bank(channel, currency), PLATFORM, "bank"),
        AccountName(payout_transit(channel, currency), PLATFORM, "payout_transit"),
        AccountName(refund_transit(channel, currency), PLATFORM, "payout_transit"),
    ]


def further(order: Order) -> list[AccountName]:
    """Return the accounts that the voucher of an order may need and that are opened only when an order needs them."""
    owner, own = f"merchant:{order.merchant}", PLATFORM
    match order.kind:
        case Kind.OWN_TRANSFER:
            return [AccountName(own_transit(order.currency), own, "own_transit")]
        case Kind.OWN_FUNDS | Kind.FEE_SWEEP:
            return [AccountName(own_funds(order.currency), own, "equity")]
        case Kind.SUSPENSE_CLEARING | Kind.PARKED_CLEARING:
            return [AccountName(other_income(order.currency), own, "other_income")]
        case Kind.RESERVE_HOLD | Kind.RESERVE_RELEASE:
            return [AccountName(reserve(order.merchant), owner, "merchant_reserve")]
        case Kind.DISPUTE:
            return [AccountName(disputed(order.merchant), owner, "merchant_reserve")]
        case Kind.DISPUTE_FEE | Kind.PAYABLE_PAYMENT | Kind.CHANNEL_INVOICE:
            assert order.channel is not None, order.id
            return [AccountName(payable(order.channel, order.currency), own, "channel_payable")]
    return []


def _in(id_: str, currency: str) -> str:
    return id_ if currency == HOME_CURRENCY else f"{id_}:{currency}"
