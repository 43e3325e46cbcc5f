"""Model of the fund service: a merchant with its currency, fee rules, withdrawal limit, settlement calendar and state.
Pure.
"""

from datetime import date, datetime, time
from enum import StrEnum
from typing import Final
from uuid import UUID

import msgspec

from fundledger.fund.model.fees import FeeRule
from fundledger.fund.model.order import FACTS, Kind
from fundledger.fund.model.refusal import Code, Refusal

CLOSING: Final = "job:closing"
"""The requester of the final settlement and of the final withdrawal of a merchant that closes. No module has this
name.
"""
ROLLING: Final = "job:reserves"
"""The requester of rolling reserve holds, and of all releases on a release day. No module has this name."""


class MerchantState(StrEnum):
    """The state of a merchant. In each state, facts are taken: payments and chargebacks.

    `suspended`: refunds, settlements, withdrawals and transfers are refused, and no withdrawal is sent. `closing`: the
    same, and reserve holds, but the final settlement and the final withdrawal are made. `closed`: the accounts are
    closed, so facts are parked, and every other order is refused.
    """

    OPEN = "open"
    SUSPENDED = "suspended"
    CLOSING = "closing"
    CLOSED = "closed"


_PAYING: Final = frozenset({Kind.REFUND, Kind.SPLIT_REFUND, Kind.SETTLEMENT, Kind.WITHDRAWAL, Kind.TRANSFER})
"""Kinds of orders by which money leaves a merchant, or becomes withdrawable, at the merchant's request."""


class Rolling(msgspec.Struct, frozen=True):
    """The rolling reserve of a merchant: `basis_points` (hundredths of a percent) of each day's credits are held for
    `days` days. Credits are payments with `settle: now`, settlements and parts of split payments, before fees.
    `from_day`: the first day to which the rule applies.
    """

    basis_points: int
    days: int
    from_day: date


class Merchant(msgspec.Struct, frozen=True):
    """A merchant. `withdrawal_limit`: the most that can be withdrawn per day, in minor units. `fee_rules`: the
    merchant's own rules, and the rules for all merchants. `version`: the number of events in its history.

    `settlement_days`: the working days from a payment to its settlement. None: the payment is settled on the next day
    of the calendar. `settlement_cut`: the local time of day at which a day of payments ends. None: the cut of the
    accounting calendar. `settlement_region`: whose holidays apply. None: those of the currency.
    """

    id: str
    name: str
    currency: str
    withdrawal_limit: int | None
    settlement: str
    created_at: datetime
    digest: bytes
    fee_rules: list[FeeRule]
    state: MerchantState = MerchantState.OPEN
    settlement_days: int | None = None
    settlement_cut: time | None = None
    settlement_region: str | None = None
    final_channel: str | None = None
    final_payee: UUID | None = None
    rolling: Rolling | None = None
    version: int = 0

    @property
    def region(self) -> str:
        """The region whose holidays apply to settlements."""
        return self.settlement_region or self.currency


def refusal_in(state: str, merchant: str, kind: Kind, module: str) -> Refusal | None:
    """Return why a merchant in this state gets no order of this kind from a requester, or None if it may get one."""
    if state == MerchantState.OPEN or kind in FACTS:
        return None
    if state == MerchantState.CLOSED:
        return Refusal(Code.MERCHANT_CLOSED, f"merchant {merchant} is closed", "merchant")
    if state == MerchantState.CLOSING:
        if kind not in _PAYING | {Kind.RESERVE_HOLD} or module in (CLOSING, ROLLING):
            return None
        return Refusal(Code.MERCHANT_CLOSED, f"merchant {merchant} is being closed", "merchant")
    if kind not in _PAYING:
        return None
    return Refusal(Code.MERCHANT_SUSPENDED, f"merchant {merchant} is suspended", "merchant")
