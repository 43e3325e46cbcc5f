"""Model of the fund service: a merchant with its currency, fee rules, withdrawal limit and settlement calendar."""

from datetime import datetime

import msgspec

from fundledger.fund.model.fees import FeeRule


class Merchant(msgspec.Struct, frozen=True):
    """A merchant. `withdrawal_limit`: the most that can be withdrawn per day (UTC), in minor units. `fee_rules`: the
    merchant's own rules, and the rules for all merchants.
    """

    id: str
    name: str
    currency: str
    withdrawal_limit: int | None
    settlement: str
    created_at: datetime
    digest: bytes
    fee_rules: list[FeeRule]
