"""Model of the fund service: requests that change a merchant, its fee rules, or the holidays of a region."""

from datetime import UTC, date, datetime
from typing import Annotated, Final, Literal

import msgspec
from msgspec import UNSET, UnsetType

from fundledger.fund.model.requests import (
    Calendar,
    ChannelName,
    Fee,
    LocalTime,
    MerchantName,
    Part,
    Reason,
    Region,
    RollingBasisPoints,
    RollingDays,
    SettlementDays,
    require_both,
    require_day,
)
from fundledger.json_values import Uuid, about

HOLIDAYS_MAX: Final = 400
"""The maximum number of days in one request."""
DUAL: Final = ("withdrawal_limit", "fee", "withdrawal_fee", "rolling_basis_points", "rolling_days")
"""Members of a merchant that only two identities may change."""
ALONE: Final = ("name", "settlement", "settlement_days", "settlement_cut", "settlement_region")
"""Members of a merchant that one identity may change."""


class MerchantPatch(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A change of a merchant. Members that are omitted keep their value. With `withdrawal_limit`, `fee`,
    `withdrawal_fee` or a rolling reserve, a second identity has to approve the whole change. A new fee applies as soon
    as all workers have loaded it. A new rolling reserve applies from the day of the approval; null ends it.
    """

    name: MerchantName | UnsetType = UNSET
    settlement: Calendar | UnsetType = UNSET
    settlement_days: SettlementDays | UnsetType | None = UNSET
    settlement_cut: LocalTime | UnsetType | None = UNSET
    settlement_region: Region | UnsetType | None = UNSET
    withdrawal_limit: Part | UnsetType | None = UNSET
    fee: Fee | UnsetType = UNSET
    withdrawal_fee: Fee | UnsetType = UNSET
    rolling_basis_points: RollingBasisPoints | UnsetType | None = UNSET
    rolling_days: RollingDays | UnsetType | None = UNSET
    why: Reason | None = None

    def __post_init__(self) -> None:
        for none in (UNSET, None):
            points, days = self.rolling_basis_points, self.rolling_days
            require_both(has_points=points is not none, has_days=days is not none)

    def given(self, names: tuple[str, ...]) -> dict[str, object]:
        """Return the members among `names` that the request has."""
        return {name: value for name in names if (value := getattr(self, name)) is not UNSET}


class FeeRuleBody(Fee, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A fee rule for one channel, or for all channels if `channel` is omitted.

    The rule applies from `effective_at`. Without `effective_at`, it applies as soon as all workers have loaded it.
    """

    product: Literal["payment", "withdrawal", "top_up"]
    channel: ChannelName | None = None
    effective_at: Annotated[datetime, msgspec.Meta(tz=True)] | None = None

    def __post_init__(self) -> None:
        Fee.__post_init__(self)
        if self.effective_at is not None:
            try:
                self.effective_at.astimezone(UTC)
            except OverflowError:
                raise ValueError("effective_at must be within the years 1 to 9999 in UTC") from None

    @property
    def fee(self) -> Fee:
        """The fee of the rule."""
        return Fee(*(getattr(self, name) for name in Fee.__struct_fields__))


class Holiday(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A day that differs from the rule of weekends. `working`: the day is a working day, although it is in a weekend,
    or was no working day before.
    """

    day: date
    working: bool = False
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=100, pattern=r"^[^\x00]*\Z")] | None = None

    def __post_init__(self) -> None:
        require_day(self.day)


class HolidaysRequest(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """Holidays of a region. Days that are omitted keep what was recorded for them."""

    region: Region
    days: Annotated[list[Holiday], msgspec.Meta(min_length=1, max_length=HOLIDAYS_MAX)]
    why: Reason | None = None

    def __post_init__(self) -> None:
        if len({each.day for each in self.days}) < len(self.days):
            raise ValueError("days must not contain a day twice")


class FinalWithdrawal(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """The final withdrawal of a merchant that closes. `channel`: the channel of the payout. `payee`: required if the
    merchant has a payee.
    """

    channel: ChannelName
    payee: Annotated[Uuid, about("id of the payee")] | None = None


class CloseRequest(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """The end of a merchant. With `final`, its pending payments are settled, and its available balance is withdrawn.
    Without `final`, the merchant must have no money, no debt and no open order.
    """

    reason: Reason
    final: FinalWithdrawal | None = None
