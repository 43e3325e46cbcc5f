"""Python client of the fund service, part: merchants, their changes and their history, fee rules, holidays."""

from collections.abc import AsyncIterator, Sequence
from datetime import date, datetime
from typing import Any, Final, Literal
from urllib.parse import quote
from uuid import UUID

import msgspec

from fundledger.client.connection import decoder, found
from fundledger.client.fund_registry import Change
from fundledger.client.pages import Pages
from fundledger.client.service import Service
from fundledger.client.types import Balance

Calendar = Literal["manual", "daily", "weekly", "monthly"]


class Fee(msgspec.Struct, frozen=True, omit_defaults=True):
    """A fee: `basis_points` of the amount, rounded half up, plus `fixed`.

    The fee is at least `minimum` and at most `maximum`, and never exceeds the amount. `tax_basis_points`: the tax on
    the fee, which `tax_mode` includes in the fee or adds to it. `returned`: whether refunds return the fee.
    """

    basis_points: int = 0
    fixed: int = 0
    minimum: int = 0
    maximum: int | None = None
    tax_basis_points: int = 0
    tax_mode: Literal["included", "added"] = "included"
    returned: Literal["proportional", "none"] = msgspec.field(default="proportional", name="return")


class FeeRule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A fee rule for one product. `channel`: the channel, None for all. `effective_at`: when the rule begins, None for
    now. The other members are those of `Fee`.
    """

    product: Literal["payment", "withdrawal", "top_up"]
    channel: str | None = None
    basis_points: int = 0
    fixed: int = 0
    minimum: int = 0
    maximum: int | None = None
    effective_at: datetime | None = None
    tax_basis_points: int = 0
    tax_mode: Literal["included", "added"] = "included"
    returned: Literal["proportional", "none"] = msgspec.field(default="proportional", name="return")


class Merchant(msgspec.Struct, frozen=True, kw_only=True):
    """A merchant.

    `accounts`: the ids of its accounts in the account service. `balances`: the balances by account id; empty in lists.
    `fees`: the fee rules, oldest first. `withdrawal_limit`: the most that can be withdrawn per day, in minor
    units. `settlement`: when the pending balance is settled automatically. `settlement_days`: the working days from a
    payment to its settlement. `rolling_basis_points`, `rolling_days`, `rolling_from`: the part of each day's credits
    that is held in reserve, for how many days, and since when. `replay`: the merchant already existed.
    """

    id: str
    name: str
    currency: str
    withdrawal_limit: int | None = None
    settlement: str = "manual"
    fees: list[FeeRule] = []
    accounts: list[str] = []
    balances: dict[str, Balance] = {}
    created_at: datetime
    state: str = "open"
    settlement_days: int | None = None
    settlement_cut: str | None = None
    settlement_region: str | None = None
    rolling_basis_points: int | None = None
    rolling_days: int | None = None
    rolling_from: date | None = None
    replay: bool = False


class MerchantEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event in the history of a merchant. `changes`: the changed members, each with its value before (`from`) and
    after (`to`). `approved_by` and `change`: of an event that needed two identities.
    """

    version: int
    what: str
    changes: dict[str, Any]
    by: str
    at: datetime
    approved_by: str | None = None
    why: str | None = None
    change: UUID | None = None


class Holiday(msgspec.Struct, frozen=True, omit_defaults=True):
    """A day of a region that differs from the rule of weekends."""

    day: date
    working: bool = False
    name: str | None = None


class Holidays(msgspec.Struct, frozen=True, kw_only=True):
    """The recorded days of a region. `weekend`: the days of the week that are no working days."""

    region: str
    days: list[Holiday]
    weekend: list[str]


_encode = msgspec.json.Encoder().encode
_merchant = decoder(Merchant)
_merchants: Final = Pages(list[Merchant], "merchants")
_events: Final = Pages(list[MerchantEvent], "history")
_change = decoder(Change)
_holidays = decoder(Holidays)


class FundMerchants(Service):
    """The requests about merchants. `FundService` has the other requests."""

    async def create_merchant(
        self,
        id_: str,
        name: str,
        currency: str,
        fee: Fee | None = None,
        withdrawal_fee: Fee | None = None,
        withdrawal_limit: int | None = None,
        settlement: Calendar | None = None,
        settlement_days: int | None = None,
        settlement_cut: str | None = None,
        settlement_region: str | None = None,
        rolling_basis_points: int | None = None,
        rolling_days: int | None = None,
    ) -> Merchant:
        """Create a merchant and open its accounts. A repeated request is a replay.

        `withdrawal_limit`: the most that can be withdrawn per day, in minor units. `settlement`: when the pending
        balance is settled automatically, None for never. `settlement_days`: the working days from a payment to its
        settlement. `settlement_cut` (HH:MM): when a day of payments ends. `settlement_region`: whose holidays apply.
        `rolling_basis_points` of each day's credits are held in reserve for `rolling_days` days; give both or none.
        """
        members = {
            "id": id_,
            "name": name,
            "currency": currency,
            "settlement": settlement,
            "fee": fee,
            "withdrawal_fee": withdrawal_fee,
            "withdrawal_limit": withdrawal_limit,
            "settlement_days": settlement_days,
            "settlement_cut": settlement_cut,
            "settlement_region": settlement_region,
            "rolling_basis_points": rolling_basis_points,
            "rolling_days": rolling_days,
        }
        given = {key: value for key, value in members.items() if value is not None}
        answer = await self._to.ask("POST", "/v1/merchants", _encode(given))
        merchant = _merchant(answer)
        return msgspec.structs.replace(merchant, replay=True) if answer.status == 200 else merchant

    async def merchant(self, id_: str) -> Merchant | None:
        return found(await self._to.ask("GET", _path(id_)), _merchant)

    def merchants(self, limit: int = 100) -> AsyncIterator[Merchant]:
        """Yield the merchants of all pages, oldest first. `limit`: merchants per page."""
        return _merchants.read(self._to, "/v1/merchants", {"limit": str(limit)})

    async def change_merchant(self, id_: str, **members: object) -> Merchant | Change:
        """Change a merchant. `members`: new values of `name`, `settlement`, `settlement_days`, `settlement_cut`,
        `settlement_region`, `withdrawal_limit`, `fee`, `withdrawal_fee`, or both `rolling_basis_points` and
        `rolling_days`, and the reason `why`. None for both ends the rolling reserve.

        With a limit, a fee or a rolling reserve, return a change that another identity has to approve. Otherwise return
        the merchant.
        """
        answer = await self._to.ask("PATCH", _path(id_), _encode(members))
        return _change(answer) if answer.status == 202 else _merchant(answer)

    async def add_fee_rule(self, merchant: str, rule: FeeRule) -> Change:
        """Request a fee rule of a merchant. The rule exists after another identity has approved the change. Earlier
        orders keep their fee. If two rules for the same channel apply, the later one is charged.
        """
        return _change(await self._to.ask("POST", f"{_path(merchant)}/fees", _encode(rule)))

    async def suspend_merchant(self, id_: str, reason: str) -> Merchant:
        """Refuse refunds, settlements, withdrawals and transfers of a merchant from now on, and send no payouts of its
        withdrawals.
        """
        return await self._move(id_, "suspend", reason=reason)

    async def resume_merchant(self, id_: str, reason: str) -> Merchant:
        """End the suspension of a merchant. Raises Refused with `merchant-closed`."""
        return await self._move(id_, "resume", reason=reason)

    async def close_merchant(
        self, id_: str, reason: str, channel: str | None = None, payee: UUID | None = None
    ) -> Merchant:
        """Close a merchant. With `channel`, its pending payments are settled, and its balance is withdrawn through this
        channel, to `payee` if the merchant has payees. The state of the merchant is `closing` until nothing is left,
        then `closed`. Raises Refused with `merchant-not-empty`, `payee-required` or `payee-not-found`.
        """
        final: dict[str, object] = {"channel": channel} if payee is None else {"channel": channel, "payee": payee}
        return await self._move(id_, "close", reason=reason, **({} if channel is None else {"final": final}))

    async def _move(self, id_: str, step: str, **members: object) -> Merchant:
        return _merchant(await self._to.ask("POST", f"{_path(id_)}/{step}", _encode(members)))

    def merchant_history(self, id_: str, limit: int = 500) -> AsyncIterator[MerchantEvent]:
        """Yield the events of a merchant from all pages, oldest first. `limit`: events per page."""
        return _events.read(self._to, f"{_path(id_)}/history", {"limit": str(limit)})

    async def holidays(self, region: str) -> Holidays:
        """Return the recorded days of a region."""
        return _holidays(await self._to.ask("GET", "/v1/holidays", query={"region": region}))

    async def request_holidays(self, region: str, days: Sequence[Holiday], why: str | None = None) -> Change:
        """Request holidays of a region. They are recorded after another identity has approved the change."""
        body = {"region": region, "days": days, "why": why}
        return _change(await self._to.ask("POST", "/v1/holidays", _encode(body)))


def _path(merchant: str) -> str:
    return f"/v1/merchants/{quote(merchant, safe='')}"
