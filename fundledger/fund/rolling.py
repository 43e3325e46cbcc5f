"""Rolling reserves of the fund service: post the holds that the days of a merchant lack.

A hold is an order, so a repeated call, or another process, posts each hold once. Holds are posted in two cases: before
a withdrawal or a transfer of the merchant, also for the current day; and by the background job `reserves`, for the days
that have ended.

A credit that is posted while a withdrawal is being prepared is held before the next withdrawal.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from datetime import date, datetime
from typing import Final

from fundledger.fund.account_gateway import AccountGateway
from fundledger.fund.model import accounts
from fundledger.fund.model.answer import Answer, OrderFault
from fundledger.fund.model.merchant import ROLLING, Merchant, Rolling
from fundledger.fund.model.merchant_requests import ReserveHold
from fundledger.fund.model.order import State
from fundledger.fund.model.refusal import Code, Refusal
from fundledger.fund.model.requests import AMOUNT_MAX, Request
from fundledger.fund.model.rolling import days_of, number_of_hold, part_of_day, release_day
from fundledger.fund.store.macs import OrderMacs
from fundledger.fund.store.orders import Pool
from fundledger.fund.store.reserves import HoldsOfDay, closed_days, credits_of, holds_of

ATTEMPTS_MAX: Final = 8
"""The maximum number of times that the holds of a merchant are read, while other processes post holds."""
PAUSE_S: Final = 0.01
"""The first pause before they are read again, in seconds. Each is twice as long as the one before."""
KNOWN_MAX: Final = 100_000
"""The maximum number of sums of closed days in memory. A reversal after the first read is not seen: the hold stays as
it is.
"""


class _Again(Exception):
    """Another process has posted a hold, or the balance fell, since the holds were read."""


class RollingReserves:
    """The rolling reserves of one process. `ask`: posts an order for a requester. `now`: the clock of orders."""

    def __init__(
        self,
        pool: Pool,
        macs: OrderMacs,
        gateway: AccountGateway,
        ask: Callable[[Request, str], Awaitable[Answer]],
        now: Callable[[], datetime],
    ) -> None:
        self._pool = pool
        self._macs = macs
        self._gateway = gateway
        self._ask = ask
        self._now = now
        self._known: dict[tuple[str, date], int] = {}
        self._next: dict[tuple[str, bool], asyncio.Task[OrderFault | None]] = {}
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def hold(self, merchant: Merchant, *, ended_only: bool = False) -> OrderFault | None:
        """Post the holds that the days of a merchant lack, oldest day first, as far as its available balance reaches.
        Return None if each day has its part, or nothing more can be held now. Return a fault if the outcome of a hold
        is unknown, or if a hold is refused although the balance covers it; a retry is safe. Raises Tampered,
        GatewayFault, and what asyncpg raises.

        `ended_only`: leave out the current day. Concurrent calls for a merchant share one run, which begins after each
        of them. A cancellation does not stop the run. No rows are locked.
        """
        key = merchant.id, ended_only
        run = self._next.get(key)
        if run is None:
            run = self._next[key] = asyncio.get_running_loop().create_task(self._run(merchant, ended_only))
        return await asyncio.shield(run)

    async def _run(self, merchant: Merchant, ended_only: bool) -> OrderFault | None:
        async with self._turns[merchant.id]:
            # A caller from here on may know a credit that this run does not see.
            del self._next[merchant.id, ended_only]
            if merchant.rolling is None:
                return None
            parts = await self._parts(merchant.id, merchant.rolling, ended_only)
            undecided: OrderFault | None = None
            for attempt in range(ATTEMPTS_MAX):
                if attempt:
                    await asyncio.sleep(PAUSE_S * 2.0 ** (attempt - 1))
                holds = await holds_of(self._pool, self._macs, merchant.id, parts) if parts else {}
                undecided = _undecided(holds)
                if undecided is None:
                    try:
                        return await self._post(merchant.id, merchant.rolling, parts, holds)
                    except _Again:
                        continue
            detail = f"the rolling reserve of merchant {merchant.id} changed while it was being held"
            return undecided or OrderFault(detail)

    async def _parts(self, merchant: str, rule: Rolling, ended_only: bool) -> dict[date, int]:
        """Return the amounts that are to be held, by day."""
        today = self._macs.days.day_of(self._now())
        closed, last = await closed_days(self._pool, rule.from_day)
        days = [day for day in days_of(rule, today, last) if day < today or not ended_only]
        return {day: part_of_day(await self._credits(merchant, day, day in closed), rule.basis_points) for day in days}

    async def _credits(self, merchant: str, day: date, is_closed: bool) -> int:
        found = self._known.get((merchant, day))
        if found is None:
            found = await credits_of(self._pool, self._macs.days, merchant, day)
            if is_closed:
                if len(self._known) >= KNOWN_MAX:
                    self._known.clear()
                self._known[merchant, day] = found
        return found

    async def _post(
        self, merchant: str, rule: Rolling, parts: Mapping[date, int], holds: Mapping[date, HoldsOfDay]
    ) -> OrderFault | None:
        """Post the missing holds. Return what `hold` returns. Raises _Again if another process has posted a hold with
        the same number, or if the balance fell: then the holds have to be read again.
        """
        missing = [(day, lacks) for day in sorted(parts) if (lacks := parts[day] - holds[day].held) > 0]
        balance = await self._balance(merchant) if missing else 0
        if isinstance(balance, OrderFault):
            return balance
        for day, lacks in missing:
            amount = min(lacks, balance, AMOUNT_MAX)
            if amount <= 0:
                return None
            request = ReserveHold(
                merchant=merchant,
                order_no=number_of_hold(day, holds[day].count + 1),
                amount=amount,
                reason=f"rolling reserve of {day}",
                release_on=release_day(rule, day),
            )
            answer = await self._ask(request, ROLLING)
            if isinstance(answer, OrderFault):
                return OrderFault(answer.detail, tampered=answer.tampered)
            if isinstance(answer, Refusal):
                if answer.code is Code.ORDER_NO_REUSED:
                    raise _Again
                # The state of the merchant refuses the order that follows, too.
                return None
            if answer.order.state is State.REFUSED:
                now = await self._balance(merchant)
                if isinstance(now, OrderFault) or now < amount:
                    raise _Again
                return OrderFault(f"{request.reason} is refused: {(answer.order.problem or b'').decode()}")
            if answer.order.state is not State.POSTED:
                raise _Again
            balance -= amount
        return None

    async def _balance(self, merchant: str) -> int | OrderFault:
        """Return the amount (minor units) that can be debited to the available balance of a merchant, 0 if the account
        is frozen or closed. Return a fault if its reserve takes nothing. Raises GatewayFault.
        """
        names = accounts.available(merchant), accounts.reserve(merchant)
        found = await self._gateway.balances([*names])
        available, reserve = (found.get(name) for name in names)
        if available is None or available.status != "open":
            return 0
        if reserve is not None and reserve.status != "open":
            return OrderFault(f"account {reserve.id} is {reserve.status}")
        return max(0, available.balance.available)


def _undecided(holds: Mapping[date, HoldsOfDay]) -> OrderFault | None:
    """Return a fault if the outcome of a hold is not known yet. Until it is, the amount may still be withdrawn."""
    for found in holds.values():
        if found.undecided is not None:
            return OrderFault(f"reserve hold {found.undecided} has no known outcome yet")
    return None
