"""Background job of the fund service for reserves. It releases each hold on its day, and posts the holds that rolling
reserves lack for days that have ended.

A day whose holds are less than its part is completed from later credits, for LOOK_BACK. A release that was refused is
requested again after a pause.
"""

import asyncio
import logging
from datetime import UTC, date, datetime
from typing import Any, Final
from uuid import UUID

from fundledger.fund.account_gateway import GatewayFault
from fundledger.fund.batcher import OrderBatcher
from fundledger.fund.jobs.pacing import Pacing
from fundledger.fund.model.answer import Answer, OrderFault, Taken
from fundledger.fund.model.days import FIRST
from fundledger.fund.model.merchant import ROLLING
from fundledger.fund.model.merchant_requests import ReserveRelease
from fundledger.fund.model.order import State
from fundledger.fund.model.refusal import Code, Refusal
from fundledger.fund.model.requests import AUTO
from fundledger.fund.next_steps import FAULTS
from fundledger.fund.store.macs import Tampered
from fundledger.fund.store.merchants import Merchants
from fundledger.fund.store.orders import Pool
from fundledger.fund.store.queries import SQL

AT_ONCE: Final = 100
"""The maximum number of releases, and of merchants, in one run."""
AGAIN_S: Final = 10.0
AGAIN_MAX_S: Final = 3600.0
"""The first and the longest pause before a release that was refused is requested again, in seconds."""
_NOTHING: Final = UUID(int=0)
_log = logging.getLogger(__name__)


class ReserveJob:
    """The job. Several processes may run it concurrently: holds and releases are orders, and each order number is
    accepted once.
    """

    def __init__(self, pool: Pool, batcher: OrderBatcher, merchants: Merchants, again_s: float = AGAIN_S) -> None:
        self._pool = pool
        self._batcher = batcher
        self._merchants = merchants
        self._days = merchants.dates.days
        self._pacing = Pacing(again_s, AGAIN_MAX_S)
        self._after = ""

    async def run_some(self, now: datetime | None = None) -> tuple[int, float]:
        """Run once: request at most AT_ONCE releases, and post the holds of the next AT_ONCE merchants. Return `(number
        of releases that became orders, also refused ones, seconds since the beginning of the release day of the oldest
        hold whose release got a fault or was left for the next run)`. A hold that pauses after a refusal is not
        counted. Raises what asyncpg raises.
        """
        now = now or datetime.now(UTC)
        await self._merchants.look()
        done, lag_s = await self._release(self._days.day_of(now), now)
        await self._hold()
        return done, lag_s

    async def _release(self, today: date, now: datetime) -> tuple[int, float]:
        done, asked, lag_s = 0, 0, 0.0
        after: tuple[date, str, UUID] = (FIRST, "", _NOTHING)
        while asked < AT_ONCE:
            rows = await self._pool.fetch(SQL["reserve_due"], today, *after, AT_ONCE)
            due = [row for row in rows if self._pacing.is_due(row["id"])]
            taken = due[: AT_ONCE - asked]
            answers = await asyncio.gather(*(self._release_alone(row) for row in taken))
            asked += len(taken)
            done += sum(isinstance(answer, Taken) for answer in answers)
            late = [row for row, answer in zip(taken, answers, strict=True) if isinstance(answer, OrderFault)]
            for row in [*late, *due[len(taken) :]]:
                lag_s = max(lag_s, (now - self._days.beginning_of(row["settle_on"])).total_seconds())
            if len(rows) < AT_ONCE:
                break
            after = rows[-1]["settle_on"], rows[-1]["merchant"], rows[-1]["id"]
        return done, lag_s

    async def _release_alone(self, row: Any) -> Answer:
        """Request the release of a hold. Every process requests the same order until its outcome is known."""
        number = f"{AUTO}{row['id'].hex}" + (f"-{row['attempts'] + 1}" if row["attempts"] else "")
        request = ReserveRelease(
            merchant=row["merchant"],
            order_no=number,
            hold_order_no=row["order_no"],
            reason=f"held until {row['settle_on']}",
        )
        answer = await self._batcher.ask(request, ROLLING)
        if isinstance(answer, Taken) and answer.order.state is not State.REFUSED:
            self._pacing.succeeded(row["id"])
        elif isinstance(answer, Taken) or _pauses(answer):
            self._pacing.failed(row["id"])
            _log.warning(
                "reserve hold %s of merchant %s is not released: %s",
                *(row["order_no"], row["merchant"], _reason(answer)),
                extra={"event": "reserve_not_released", "merchant": row["merchant"]},
            )
        return answer

    async def _hold(self) -> None:
        """Post the holds of the next AT_ONCE merchants. A merchant that cannot be processed does not delay others."""
        rows = await self._pool.fetch(SQL["reserve_merchants"], self._after, AT_ONCE)
        self._after = rows[-1]["id"] if len(rows) == AT_ONCE else ""
        for row in rows:
            if not self._pacing.is_due(row["id"]):
                continue
            try:
                merchant = await self._merchants.get(row["id"])
                fault = None if merchant is None else await self._batcher.rolling.hold(merchant, ended_only=True)
            except (GatewayFault, Tampered, *FAULTS) as error:
                fault = OrderFault(str(error))
            if fault is None:
                self._pacing.succeeded(row["id"])
            else:
                self._pacing.failed(row["id"])
                _log.warning(
                    "the rolling reserve of merchant %s is not held: %s",
                    *(row["id"], fault.detail),
                    extra={"event": "reserve_not_held", "merchant": row["id"]},
                )


def _pauses(answer: Answer) -> bool:
    """Return whether a release pauses after this answer: after a row that does not match its MAC, and after a refusal,
    unless another order is releasing the hold.
    """
    if isinstance(answer, Refusal):
        return answer.code is not Code.RESERVE_HOLD_RELEASED
    return isinstance(answer, OrderFault) and answer.tampered


def _reason(answer: Answer) -> str:
    return (answer.order.problem or b"").decode() if isinstance(answer, Taken) else answer.detail
