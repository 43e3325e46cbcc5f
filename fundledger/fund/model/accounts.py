"""Model of the fund service: ids, owners and types of the accounts of merchants, of the platform and of channels."""

from typing import Final, NamedTuple

from fundledger.fund.model.order import PLATFORM

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


def suspense_over(currency: str) -> str:
    return _in("suspense:over", currency)


def suspense_short(currency: str) -> str:
    return _in("suspense:short", currency)


def suspense_parked(currency: str) -> str:
    return _in("suspense:parked", currency)


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
    ]


def of_channel(channel: str, currency: str) -> list[AccountName]:
    return [
        AccountName(bank(channel, currency), PLATFORM, "bank"),
        AccountName(payout_transit(channel, currency), PLATFORM, "payout_transit"),
        AccountName(refund_transit(channel, currency), PLATFORM, "payout_transit"),
    ]


def _in(id_: str, currency: str) -> str:
    return id_ if currency == HOME_CURRENCY else f"{id_}:{currency}"
