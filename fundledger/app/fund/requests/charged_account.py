"""Requests of the fund service: the merchant account to which the rate limits of an order are charged."""

import msgspec

from fundledger.fund.model import accounts


class ChargedAccount(msgspec.Struct, frozen=True):
    """Id and owner of the account that rate limits are charged to."""

    id: str
    owner: str


def charged_account(merchant: str) -> ChargedAccount:
    """Return the merchant's available account, with the id and owner that the account has in the account service."""
    return ChargedAccount(accounts.available(merchant), f"merchant:{merchant}")
