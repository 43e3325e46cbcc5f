"""The accounts of a merchant and of the platform: their ids, owners and types in the account service."""

from typing import Final, NamedTuple

from fundledger.fund.order import PLATFORM

HOME_CURRENCY: Final = "CNY"
"""The platform's accounts in this currency have the plain names; those in another one have it as their last part."""


class AccountName(NamedTuple):
    """`id`, `owner` and `type` as the account service knows them."""

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
    ]


def of_channel(channel: str, currency: str) -> list[AccountName]:
    return [
        AccountName(bank(channel, currency), PLATFORM, "bank"),
        AccountName(payout_transit(channel, currency), PLATFORM, "payout_transit"),
    ]


def _in(id_: str, currency: str) -> str:
    return id_ if currency == HOME_CURRENCY else f"{id_}:{currency}"
