"""Agreement of the fund service and of the account service on their calendar, in one process.

The calendar of the account service is recorded in the fund database (`fund.store.calendars`). A process of the fund
service does not start if the account service has another calendar. If the account service gets another one later, the
fund service keeps the recorded one, and reports the difference until it is removed.
"""

import asyncio
import logging
from datetime import time
from typing import Final

import asyncpg

from fundledger.accounting_days import CalendarDiffers
from fundledger.fund.account_gateway import AccountGateway, GatewayFault
from fundledger.fund.store.calendars import record_first, require_same
from fundledger.fund.store.macs import OrderMacs
from fundledger.fund.store.orders import Pool
from fundledger.security.keys import KeyFault

ASK_S: Final = 5.0
LOOK_EVERY_S: Final = 60.0
MISS_EVERY_S: Final = 1.0
_AWAY: Final = (GatewayFault, KeyFault, OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError)
_log = logging.getLogger(__name__)


class Agreement:
    """The calendar of the fund database, compared with that of the account service. `differs`: the last comparison
    found a difference.
    """

    def __init__(self, pool: Pool, gateway: AccountGateway, macs: OrderMacs) -> None:
        self._pool = pool
        self._gateway = gateway
        self._macs = macs
        self.differs = False

    async def begin(self) -> None:
        """Record the calendar if none is recorded, and compare it. Raises CalendarDiffers if the calendars differ. If
        the account service does not answer, this is logged, and the recorded calendar is used.
        """
        try:
            async with asyncio.timeout(ASK_S):
                there = await self._gateway.calendar()
        except (GatewayFault, TimeoutError) as fault:
            days = self._macs.days
            known = f"is used: {days.current.shown}" if days.is_recorded else "is not recorded yet"
            _log.warning(
                "the account service does not report its calendar, the recorded calendar %s (%s)",
                *(known, fault or "timeout"),
                extra={"event": "calendar_unknown"},
            )
            return
        await self._agree(*there)

    async def ensure(self) -> None:
        """Record the calendar of the account service if none is recorded. Raises GatewayFault, CalendarDiffers,
        KeyFault, and what asyncpg raises.
        """
        if not self._macs.days.is_recorded:
            await self._agree(*await self._gateway.calendar())

    async def watch(self) -> None:
        """Repeat until cancelled: record and compare the calendar. A difference is logged once."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S if self._macs.days.is_recorded else MISS_EVERY_S)
            try:
                await self._agree(*await self._gateway.calendar())
            except CalendarDiffers as found:
                if not self.differs:
                    _log.critical("%s", found, extra={"event": "calendar_differs"})
                self.differs = True
            except _AWAY as error:
                _log.debug("the calendars cannot be compared: %s", error, extra={"event": "calendar_unknown"})
            else:
                self.differs = False

    async def _agree(self, timezone: str, cut: time) -> None:
        if not self._macs.days.is_recorded:
            async with self._pool.acquire() as connection:
                await record_first(connection, self._macs.rows, self._macs.days, timezone, cut)
        await self._macs.read_days(self._pool)
        require_same(self._macs.days, timezone, cut, "the account service has")
