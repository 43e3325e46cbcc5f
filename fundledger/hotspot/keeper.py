"""Splits and merges accounts by themselves: one keeper in each worker, of which one at a time decides.

Each second a keeper tells all others, through the database, what its worker posted to, and follows the routes. The one
that holds an advisory lock also merges what all tell, says how hot each account is, and acts: an account that becomes
hot is spread over as many slots as there are workers, one that has become cold is merged, one whose debits need several
slots is levelled. Each of these is one transaction of the ledger, under the locks of the account's slots; whatever dies
in between, the next keeper finds a state that it goes on from. What cannot be reached is tried again a second later.
"""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Final

import asyncpg
import msgspec

from fundledger.hotspot.detector import COLD, Heat, Signal, Temperature, Thresholds, merge, step
from fundledger.hotspot.heat import Report, Thermometer
from fundledger.ledger.account import Account
from fundledger.ledger.batch import Command, Outcome, Rebalance, Resplit
from fundledger.ledger.books import Books
from fundledger.ledger.directory import AccountTampered
from fundledger.ledger.posting import post_vouchers
from fundledger.ledger.routes import follow, read_routes
from fundledger.ledger.session import Session
from fundledger.ledger.slots import SLOTS_MAX
from fundledger.ledger.statements import load
from fundledger.security.keys import KeyFault

SQL: Final = load("fundledger.hotspot")
EVERY_S = 1.0
STALE_S = 5.0
MODULE = "hotspot"
_LEADER = 0x686F74  # "hot": whoever holds this advisory lock decides
_log = logging.getLogger(__name__)


class Counted(msgspec.Struct):
    """Since this keeper started; `heat` counts accounts by state, and only where it decides."""

    splits: int = 0
    merges: int = 0
    rebalances: int = 0
    transitions: int = 0
    widened: int = 0
    heat: dict[str, int] = {}


class Keeper:
    """`sessions` are those of this worker's lanes, whose count of widened batches it takes. Cancelling ends `run`."""

    def __init__(
        self,
        dsn: str,
        name: str,
        books: Books,
        thermometer: Thermometer,
        sessions: Sequence[Session],
        thresholds: Thresholds,
        *,
        acts: bool = True,
    ) -> None:
        self._dsn = dsn
        self._name = name
        self._books = books
        self._thermometer = thermometer
        self._sessions = sessions
        self._thresholds = thresholds
        self._acts = acts
        self._session = Session(dsn, f"fundledger hot {name}")
        self._connection: asyncpg.Connection[asyncpg.Record] | None = None
        self._epochs: dict[int, int] = {}
        self._temperatures: dict[int, Temperature] | None = None
        self._reported = False
        self._told_at = time.monotonic()
        self.counted = Counted()

    async def run(self) -> None:
        """For ever, once a second."""
        try:
            while True:
                await asyncio.sleep(EVERY_S)
                try:
                    await self.tick(time.time())
                except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
                    _log.warning("the keeper of hot accounts cannot reach the database: %s", error)
                    self._drop()
                except (AccountTampered, KeyFault) as error:
                    _log.critical("the keeper of hot accounts met a record that it cannot trust: %s", error)
                except Exception:
                    _log.exception("the keeper of hot accounts failed")
                    self._drop()
        finally:
            self._drop()

    async def tick(self, at: float) -> None:
        """One second's work. Raises what asyncpg raises."""
        if self._connection is None or self._connection.is_closed():
            self._connection = await asyncpg.connect(
                self._dsn, timeout=10, server_settings={"application_name": f"fundledger heat {self._name}"}
            )
            self._temperatures = None
        connection = self._connection
        await self._tell(connection)
        routes = await read_routes(connection)
        await follow(connection, self._books.directory, self._epochs, routes)
        if await self._decides(connection):
            assert self._temperatures is not None
            await self._decide(connection, at, {route.account_number: route.slots for route in routes})

    async def _tell(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        widened: dict[int, int] = {}
        for session in self._sessions:
            for number, count in session.widened.items():
                widened[number] = widened.get(number, 0) + count
            session.widened.clear()
        now = time.monotonic()
        report = self._thermometer.report(now - self._told_at, widened)
        self._told_at = now
        self.counted.widened += sum(widened.values())
        if report.arrivals or self._reported:
            await connection.execute(SQL["tell_heat"], self._name, msgspec.json.encode(report).decode())
        self._reported = bool(report.arrivals)

    async def _decides(self, connection: "asyncpg.Connection[asyncpg.Record]") -> bool:
        """Whether this keeper is the one; when it has just become it, it takes over what the last one knew."""
        if self._temperatures is not None:
            return True
        if not await connection.fetchval(SQL["lead"], _LEADER):
            return False
        rows = await connection.fetch(SQL["read_hot_accounts"])
        self._temperatures = {
            row["account_number"]: Temperature(Heat(row["state"]), row["since"].timestamp(), row["utilisation"])
            for row in rows
        }
        return True

    async def _decide(
        self, connection: "asyncpg.Connection[asyncpg.Record]", at: float, slots: Mapping[int, int]
    ) -> None:
        assert self._temperatures is not None
        told = await connection.fetch(SQL["read_heat"], STALE_S)
        reports = [msgspec.json.decode(row["hottest"], type=Report) for row in told]
        signals = merge(reports)
        wanted = min(SLOTS_MAX, max(1, len(told)))
        for number in signals.keys() | self._temperatures.keys():
            signal = signals.get(number, Signal())
            before = self._temperatures.get(number, COLD)
            after = step(before, signal, at, self._thresholds)
            if after.heat is not before.heat:
                await self._changed(connection, number, before, after)
            have = slots.get(number, 1)
            if not self._acts:
                pass
            elif after.heat is Heat.HOT and have < wanted:
                reason = f"hot: utilisation {signal.utilisation:.2f}, {signal.share:.0%} of the arrivals"
                self.counted.splits += await self._post(connection, number, wanted, reason)
            elif before.heat is Heat.COOLING and after.heat is Heat.COLD and have > 1:
                reason = f"cold: utilisation below {self._thresholds.demote} for {self._thresholds.demote_s:.0f} s"
                self.counted.merges += await self._post(connection, number, 1, reason)
            elif signal.widened and have > 1:
                self.counted.rebalances += await self._post(connection, number, 0, "")
            if after.heat is Heat.COLD:
                self._temperatures.pop(number, None)
            else:
                self._temperatures[number] = after
        if self._acts:
            await self._finish_merges(connection)
        self.counted.heat = {}
        for temperature in self._temperatures.values():
            self.counted.heat[temperature.heat] = self.counted.heat.get(temperature.heat, 0) + 1

    async def _changed(
        self,
        connection: "asyncpg.Connection[asyncpg.Record]",
        number: int,
        before: Temperature,
        after: Temperature,
    ) -> None:
        self.counted.transitions += 1
        extra = {"account_number": number, "was": before.heat, "is": after.heat, "utilisation": after.utilisation}
        _log.info("an account changed its heat", extra=extra)
        if after.heat is Heat.COLD:
            await connection.execute(SQL["forget_hot_account"], number)
        else:
            await connection.execute(SQL["write_hot_account"], number, after.heat, after.since, after.utilisation)

    async def _finish_merges(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        """Slots that had a hold when their account was merged, and have none any more."""
        for row in await connection.fetch(SQL["unmerged_slots"]):
            await self._post(connection, row["account_number"], row["slots"], "a hold ended")

    async def _post(
        self, connection: "asyncpg.Connection[asyncpg.Record]", number: int, slots: int, reason: str
    ) -> bool:
        """Split or merge; with no slots, level. Whether anything was changed; a refusal is logged, and met again."""
        found = await self._books.directory.by_number(connection, [number])
        account = found.get(number)
        if account is None or account.type.platform:
            return False
        return await self._ask(account, Resplit(account, slots, reason, MODULE) if slots else Rebalance(account))

    async def _ask(self, account: Account, command: Command) -> bool:
        outcome = (await post_vouchers(self._session, self._books, [command]))[0]
        if not isinstance(outcome, Outcome) or outcome.refusal is not None:
            _log.warning(
                "an account could not be split, merged or levelled: %s", outcome, extra={"account": account.id}
            )
            return False
        if outcome.replay:
            return False
        if type(command) is Resplit:
            extra = {"account": account.id, "slots": command.slots, "reason": command.reason}
            _log.info("an account was split or merged", extra=extra)
        return type(command) is Resplit or outcome.record is not None

    def _drop(self) -> None:
        """The lock goes with its connection: another keeper takes over."""
        if self._connection is not None:
            self._connection.terminate()
        self._connection = None
        self._temperatures = None
        self._session.drop()
