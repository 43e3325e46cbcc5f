"""Store of the fund service: merchants and their fee rules, with a cache of a few seconds in each worker."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import asyncpg
import msgspec

from fundledger.accounting_days import CalendarDiffers
from fundledger.fund.account_gateway import AccountGateway, Differs, GatewayFault
from fundledger.fund.model.answer import OrderFault
from fundledger.fund.model.fees import FeeRule, tiers_of
from fundledger.fund.model.merchant import Merchant, MerchantState
from fundledger.fund.model.order import PLATFORM
from fundledger.fund.model.refusal import Code, Refusal
from fundledger.fund.model.requests import Fee, MerchantRequest
from fundledger.fund.model.settlement import WEEKEND, SettlementDates
from fundledger.fund.store.holidays import holidays_of
from fundledger.fund.store.mac_layouts import FEE_RULE, MERCHANT, fee_rule_fields, merchant_fields
from fundledger.fund.store.macs import OrderMacs, Tampered
from fundledger.fund.store.merchant_rows import CHANGEABLE, MerchantEvent, merchant_of, write_event
from fundledger.fund.store.queries import SQL

LOOK_EVERY_S: Final = 0.5
FRESH_S: Final = 2.0
"""The maximum seconds for which a worker uses its cache without a check for new rules. A new rule takes effect only
after a longer time, so that all workers charge the same fee.
"""
EFFECTIVE_AFTER_S: Final = 3 * FRESH_S
LATE_COMMITS: Final = 1000
"""The number of earlier rule versions that each check for new rules reads again. A version is drawn before its
transaction commits, so a lower version may become visible after a higher version.
"""
REMEMBERED_MAX: Final = 200_000
FOREVER: Final = datetime(1970, 1, 1, tzinfo=UTC)


def encode(body: object) -> str:
    return msgspec.json.encode(body).decode()


def utc_now() -> datetime:
    return datetime.now(UTC)


class Merchants:
    """The merchants of the fund database, with the cache of one worker. `now`: the clock for new fee rules, which has
    to be the same clock as for new orders. `weekend`: days of the week that are no working days. `ensure`: called
    before a merchant is created, to record the calendar of the fund database. Methods raise what asyncpg raises.

    `dates`: the due days of payments. They use the same holidays as all workers, at most FRESH_S seconds old.
    """

    def __init__(
        self,
        pool: "asyncpg.Pool[asyncpg.Record]",
        gateway: AccountGateway,
        macs: OrderMacs,
        now: Callable[[], datetime] = utc_now,
        *,
        weekend: Collection[int] = WEEKEND,
        ensure: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.dates = SettlementDates(macs.days, weekend)
        self._ensure = ensure
        self._pool = pool
        self._macs = macs
        self._now = now
        self._gateway = gateway
        self._known: dict[str, Merchant] = {}
        self._looked_at = -FRESH_S
        self._version = self._event = 0
        self._holidays = -1
        self._for_all: set[int] = set()

    def known(self, id_: str) -> Merchant | None:
        """Return a merchant from the cache, or None if the cache is not fresh or lacks the merchant. Never waits."""
        return self._known.get(id_) if time.monotonic() - self._looked_at <= FRESH_S else None

    def remembered(self, id_: str) -> Merchant | None:
        """Return a merchant from the cache, even if the cache is not fresh. None: the cache lacks the merchant. The
        caller may use only members that never change.
        """
        return self._known.get(id_)

    async def get(self, id_: str) -> Merchant | None:
        """Return a merchant, from the cache if the cache is fresh. Return None if the merchant does not exist. Raises
        Tampered.
        """
        return self.known(id_) or await self.read(id_)

    async def watch(self) -> None:
        """Repeat until cancelled: drop the cached merchants that changed, and read holidays that changed. May be
        restarted after an exception.
        """
        while True:
            await self.look()
            await asyncio.sleep(LOOK_EVERY_S)

    async def look(self) -> None:
        """Read the new fee rules and the new events of merchants, and drop the cached merchants to which they apply.
        Read the holidays if they changed.
        """
        began = time.monotonic()
        for version, merchant in await self._pool.fetch(SQL["recent_fee_rules"], self._version - LATE_COMMITS):
            self._version = max(self._version, version)
            if merchant is None:
                if version not in self._for_all:
                    self._for_all.add(version)
                    self._known.clear()
            else:
                known = self._known.get(merchant)
                if known is not None and all(rule.version != version for rule in known.fee_rules):
                    del self._known[merchant]
        for seq, merchant, version in await self._pool.fetch(SQL["recent_merchant_events"], self._event - LATE_COMMITS):
            self._event = max(self._event, seq)
            known = self._known.get(merchant)
            if known is not None and known.version < version:
                del self._known[merchant]
        changed = await self._pool.fetchval(SQL["holidays_version"])
        if changed != self._holidays:
            self.dates.holidays = await holidays_of(self._pool, self._macs)
            self._holidays = changed
        self._looked_at = began

    async def read(self, id_: str) -> Merchant | None:
        """Read a merchant from the database into the cache, and return the merchant, or None if it does not exist.
        Raises Tampered if the row of the merchant or of one of its rules does not match its MAC.
        """
        async with self._pool.acquire() as connection:
            row = await connection.fetchrow(SQL["read_merchants"], [id_])
            if row is None:
                return None
            rows = await connection.fetch(SQL["read_fee_rules"], id_)
        if not self._macs.agrees(MERCHANT, "merchant", id_, merchant_fields, row):
            self._known.pop(id_, None)
            raise Tampered("merchant", id_)
        merchant = merchant_of(row, [self._rule(rule) for rule in rows])
        if len(self._known) >= REMEMBERED_MAX:
            self._known.clear()
        self._known[id_] = merchant
        return merchant

    def _rule(self, row: asyncpg.Record) -> FeeRule:
        """Return the fee rule of a row. Raises Tampered if the row does not match its MAC."""
        if not self._macs.agrees(FEE_RULE, "fee_rule", row["version"], fee_rule_fields, row):
            raise Tampered("fee rule", row["version"])
        return fee_rule(row)

    async def create(self, request: MerchantRequest, module: str) -> tuple[Merchant, bool] | Refusal | OrderFault:
        """Create a merchant and its accounts. Return `(merchant, True)`, or `(merchant, False)` if the merchant exists
        with the same content. Return a refusal if it exists with other content. Raises Tampered.
        """
        if request.id == PLATFORM:
            return Refusal(Code.MERCHANT_EXISTS, "this id is reserved for the platform", "id")
        there = await self.read(request.id)
        if there is None:
            # The accounts are opened before the merchant is inserted, so that every stored merchant has its accounts.
            try:
                if self._ensure is not None:
                    await self._ensure()
                await self._gateway.open_merchant(request.id, request.currency)
            except Differs as differs:
                if differs.owner == PLATFORM:
                    return OrderFault(f"the accounts cannot be opened: {differs}")
                return Refusal(Code.MERCHANT_EXISTS, f"accounts with these ids exist and differ: {differs}", "id")
            except (GatewayFault, CalendarDiffers) as fault:
                return OrderFault(f"the accounts cannot be opened: {fault}")
            created = await self._write(request, module)
            there = await self.read(request.id)
            assert there is not None
            if created:
                return there, True
        if there.digest != request.digest():
            return Refusal(Code.MERCHANT_EXISTS, f"merchant {request.id} exists with other content", "id")
        return there, False

    async def _write(self, request: MerchantRequest, module: str) -> bool:
        async with self._pool.acquire() as connection, connection.transaction():
            at = utc_now()
            row = {
                "id": request.id,
                "name": request.name,
                "currency": request.currency,
                "withdrawal_limit": request.withdrawal_limit,
                "digest": request.digest(),
                "settlement": request.settlement,
                "created_at": at,
                "settlement_days": request.settlement_days,
                "settlement_cut": request.settlement_cut,
                "settlement_region": request.settlement_region,
                "state": str(MerchantState.OPEN),
                "final_channel": None,
                "final_payee": None,
                "rolling_basis_points": request.rolling_basis_points,
                "rolling_days": request.rolling_days,
                "rolling_from": None if request.rolling_days is None else self._macs.days.day_of(at),
                "version": 1,
            }
            sealed = self._macs.rows.tag(MERCHANT, merchant_fields(row))
            created = await connection.fetchval(SQL["write_merchant"], *row.values(), *sealed)
            if created is None:
                return False
            for product, fee in (("payment", request.fee), ("withdrawal", request.withdrawal_fee)):
                if fee is not None:
                    await self.write_rule(connection, request.id, request.currency, product, None, fee, FOREVER, module)
            body = encode({name: {"to": row[name]} for name in CHANGEABLE if row[name] is not None})
            event = MerchantEvent(request.id, 1, "created", body, module, None, None, None, at)
            await write_event(connection, self._macs, event)
        return True

    def effect_of(self, effective_at: datetime | None) -> datetime | Refusal:
        """Return the time from which a new fee rule applies. Without `effective_at` this is as soon as all workers have
        loaded the rule. Return the refusal FEE_RULE_TOO_SOON if `effective_at` is before that.
        """
        soonest = self._now() + timedelta(seconds=EFFECTIVE_AFTER_S)
        if effective_at is not None and effective_at < soonest:
            detail = f"`effective_at` must be at least {EFFECTIVE_AFTER_S:g} s from now, so that all workers apply it"
            return Refusal(Code.FEE_RULE_TOO_SOON, detail, "effective_at")
        return effective_at or soonest

    async def write_rule(
        self,
        connection: Any,
        merchant: str | None,
        currency: str | None,
        product: str,
        channel: str | None,
        fee: Fee,
        effective_at: datetime,
        module: str,
    ) -> int:
        """Insert a fee rule, and return its version. Raises what asyncpg raises."""
        row = {
            "version": await connection.fetchval(SQL["draw_fee_rule"]),
            "merchant": merchant,
            "product": product,
            "channel": channel,
            "basis_points": fee.basis_points,
            "fixed": fee.fixed,
            "minimum": fee.minimum,
            "maximum": fee.maximum,
            "tiers": msgspec.json.encode(fee.tiers).decode(),
            "effective_at": effective_at,
            "module": module,
            "created_at": utc_now(),
        }
        later = {
            "currency": currency,
            "tax_basis_points": fee.tax_basis_points,
            "tax_mode": fee.tax_mode,
            "fee_return": fee.returned,
        }
        sealed = self._macs.rows.tag(FEE_RULE, fee_rule_fields({**row, **later}))
        await connection.execute(SQL["write_fee_rule"], *row.values(), *sealed, *later.values())
        return int(row["version"])

    async def list_ids(self, after: int, limit: int) -> list[tuple[int, str]]:
        """Return `(seq, id)` of at most `limit` merchants whose seq is greater than `after`, by seq."""
        rows = await self._pool.fetch(SQL["list_merchants"], after, limit)
        return [(row["seq"], row["id"]) for row in rows]


def fee_rule(row: Any) -> FeeRule:
    return FeeRule(
        row["version"],
        row["merchant"],
        row["product"],
        row["channel"],
        row["basis_points"],
        row["fixed"],
        row["minimum"],
        row["maximum"],
        tiers_of(row["tiers"]),
        row["effective_at"],
        row["currency"],
        row["tax_basis_points"],
        row["tax_mode"],
        row["fee_return"],
    )
