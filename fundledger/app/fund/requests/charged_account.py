"""The merchant account to which the fund service charges the rate limits of an order."""

import msgspec

from fundledger.fund.model import accounts


class ChargedAccount(msgspec.Struct, frozen=True):
    """Id and owner of the account that rate limits are charged to."""

    id: str
    owner: str


def charged_account(merchant: str) -> ChargedAccount:
    """Return the merchant's available account, with id and owner as the account service names them."""
    return ChargedAccount(accounts.available(merchant), f"merchant:{merchant}")
