"""Store of the fund service: merchants and their fee rules, with a cache of a few seconds in each worker."""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import asyncpg
import msgspec

from fundledger.fund.account_gateway import AccountGateway, Differs, GatewayFault
from fundledger.fund.model.answer import OrderFault
from fundledger.fund.model.fees import FeeRule, tiers_of
from fundledger.fund.model.merchant import Merchant
from fundledger.fund.model.order import PLATFORM
from fundledger.fund.model.refusal import Code, Refusal
from fundledger.fund.model.requests import Fee, MerchantRequest
from fundledger.fund.store.mac_layouts import FEE_RULE, MERCHANT, fee_rule_fields, merchant_fields
from fundledger.fund.store.macs import OrderMacs, Tampered
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


def utc_now() -> datetime:
    return datetime.now(UTC)


class Merchants:
    """The merchants of the fund database, with the cache of one worker. `now`: the clock for new fee rules, which has
    to be the same clock as for new orders. Methods raise what asyncpg raises.
    """

    def __init__(
        self,
        pool: "asyncpg.Pool[asyncpg.Record]",
        gateway: AccountGateway,
        macs: OrderMacs,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._pool = pool
        self._macs = macs
        self._now = now
        self._gateway = gateway
        self._known: dict[str, Merchant] = {}
        self._looked_at = -FRESH_S
        self._version = 0
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
        """Repeat until cancelled: drop the cached merchants whose fee rules changed. May be restarted after an
        exception.
        """
        while True:
            await self.look()
            await asyncio.sleep(LOOK_EVERY_S)

    async def look(self) -> None:
        """Read the new fee rules, and drop the cached merchants to which a new rule applies."""
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
        rules = [self._rule(rule) for rule in rows]
        merchant = Merchant(
            row["id"],
            row["name"],
            row["currency"],
            row["withdrawal_limit"],
            row["settlement"],
            row["created_at"],
            row["digest"],
            rules,
        )
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
                await self._gateway.open_merchant(request.id, request.currency)
            except Differs as differs:
                if differs.owner == PLATFORM:
                    return OrderFault(f"the accounts cannot be opened: {differs}")
                return Refusal(Code.MERCHANT_EXISTS, f"accounts with these ids exist and differ: {differs}", "id")
            except GatewayFault as fault:
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
            row = {
                "id": request.id,
                "name": request.name,
                "currency": request.currency,
                "withdrawal_limit": request.withdrawal_limit,
                "digest": request.digest(),
                "settlement": request.settlement,
                "created_at": utc_now(),
            }
            sealed = self._macs.rows.tag(MERCHANT, merchant_fields(row))
            created = await connection.fetchval(SQL["write_merchant"], *row.values(), *sealed)
            if created is None:
                return False
            for product, fee in (("payment", request.fee), ("withdrawal", request.withdrawal_fee)):
                if fee is not None:
                    whose = request.id, request.currency
                    await self._write_rule(connection, *whose, product, None, fee, FOREVER, module)
        return True

    async def add_fee_rule(
        self, merchant: str, product: str, channel: str | None, fee: Fee, effective_at: datetime | None, module: str
    ) -> int | Refusal:
        """Insert a fee rule of a merchant and return the version of the rule. Without `effective_at` the rule takes
        effect as soon as all workers have loaded it.
        """
        found = await self.read(merchant)
        if found is None:
            return Refusal(Code.MERCHANT_NOT_FOUND, f"there is no merchant {merchant}")
        soonest = self._now() + timedelta(seconds=EFFECTIVE_AFTER_S)
        if effective_at is not None and effective_at < soonest:
            detail = f"`effective_at` must be at least {EFFECTIVE_AFTER_S:g} s from now, so that all workers apply it"
            return Refusal(Code.FEE_RULE_TOO_SOON, detail, "effective_at")
        async with self._pool.acquire() as connection:
            whose = merchant, found.currency
            return await self._write_rule(connection, *whose, product, channel, fee, effective_at or soonest, module)

    async def _write_rule(
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
