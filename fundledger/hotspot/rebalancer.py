"""Rebalancer of hot accounts: splits and merges them automatically. One rebalancer per worker; one at a time leads.

Every second each rebalancer reports the load of its worker through the database and updates the worker's slot map. An
advisory lock elects the leader, which also merges all reports, sets the heat of each account and acts:

- an account that becomes hot is split over as many slots as there are workers
- an account that becomes cold is merged
- an account whose debits need several slots is rebalanced

Each action is one ledger transaction under the locks of the account's slots, so that the next leader can continue after
a crash at any point. An action that failed is retried a second later.
"""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Final

import asyncpg
import msgspec

from fundledger.database.statements import load
from fundledger.hotspot.detector import COLD, Heat, Signal, Temperature, Thresholds, merge, step
from fundledger.hotspot.heat import HeatSampler, Report
from fundledger.jobs.job import Ran
from fundledger.jobs.tally import Tally
from fundledger.ledger.context import Books
from fundledger.ledger.model.account import Account
from fundledger.ledger.model.batch import Command, Outcome, Rebalance, Resplit
from fundledger.ledger.posting import post_vouchers
from fundledger.ledger.rules.slots import SLOTS_MAX
from fundledger.ledger.store.directory import AccountTampered
from fundledger.ledger.store.session import Session, connect
from fundledger.ledger.store.slot_map import follow, read_routes
from fundledger.security.keys import KeyFault

SQL: Final = load("fundledger.hotspot")
EVERY_S = 1.0
STALE_S = 5.0
ALARM_S: Final = 30.0
MODULE = "hotspot"
_LEADER = 0x686F74  # "hot": key of the advisory lock that the leader holds
_log = logging.getLogger(__name__)


class Counted(msgspec.Struct):
    """Counters since this rebalancer started; `heat` counts accounts by state, on the leader only."""

    splits: int = 0
    merges: int = 0
    rebalances: int = 0
    transitions: int = 0
    widened: int = 0
    heat: dict[str, int] = {}


class Rebalancer:
    """The rebalancer of one worker.

    `sessions` are those of the worker's lanes; `tick` reads and resets their counts of widened batches. With `acts`
    False, heat is recorded and no account is split, merged or rebalanced. Cancelling ends `run`.
    """

    def __init__(
        self,
        dsn: str,
        name: str,
        books: Books,
        thermometer: HeatSampler,
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
        self.tally = Tally("hot_keeper")

    async def run(self) -> None:
        """Run `tick` once a second until cancelled."""
        try:
            while True:
                await asyncio.sleep(EVERY_S)
                try:
                    await self.tick(time.time())
                except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
                    _log.warning(
                        "rebalancer: database unreachable: %s", error, extra={"event": "rebalancer_disconnected"}
                    )
                    self._failed(error)
                except (AccountTampered, KeyFault) as error:
                    extra = {"event": "integrity_finding", "once": f"keeper {error}"}
                    _log.critical("rebalancer: a record could not be verified: %s", error, extra=extra)
                    self.tally.failed(error)
                except Exception as error:
                    _log.exception("rebalancer: unexpected error", extra={"event": "rebalancer_failed"})
                    self._failed(error)
        finally:
            self._drop()

    async def tick(self, at: float) -> None:
        """Report, update the slot map, and act if this rebalancer leads. Raises what asyncpg raises."""
        if self._connection is None or self._connection.is_closed():
            self._connection = await connect(self._dsn, f"fundledger heat {self._name}"[:63], command_timeout=30)
            self._temperatures = None
        connection = self._connection
        await self._tell(connection)
        routes = await read_routes(connection)
        await follow(connection, self._books.directory, self._epochs, routes)
        if await self._decides(connection):
            assert self._temperatures is not None
            self.tally.started()
            before = self.counted.transitions
            await self._decide(connection, at, {route.account_number: route.slots for route in routes})
            self.tally.ran(Ran(self.counted.transitions - before))

    async def _tell(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        widened: dict[int, int] = {}
        for session in self._sessions:
            for number, count in session.widened.items():
                widened[number] = widened.get(number, 0) + count
            session.widened.clear()
            session.buffering.clear()
        now = time.monotonic()
        report = self._thermometer.report(now - self._told_at, widened)
        self._told_at = now
        self.counted.widened += sum(widened.values())
        if report.arrivals or self._reported:
            await connection.execute(SQL["tell_heat"], self._name, msgspec.json.encode(report).decode())
        self._reported = bool(report.arrivals)

    async def _decides(self, connection: "asyncpg.Connection[asyncpg.Record]") -> bool:
        """Return whether this rebalancer leads. A new leader loads the recorded heat of all accounts."""
        if self._temperatures is not None:
            return True
        if not await connection.fetchval(SQL["lead"], _LEADER):
            return False
        await connection.execute(SQL["forget_heat"])
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
            if self._acts and not await self._act(
                connection, number, before, after, signal, slots.get(number, 1), wanted
            ):
                # Retried in a second, from the same state.
                after = msgspec.structs.replace(before, utilisation=after.utilisation)
            if after.heat is not before.heat:
                await self._changed(connection, number, before, after)
            if after.heat is Heat.COLD:
                self._temperatures.pop(number, None)
            else:
                self._temperatures[number] = after
        if self._acts:
            await self._finish_merges(connection)
        self.counted.heat = {}
        for temperature in self._temperatures.values():
            self.counted.heat[temperature.heat] = self.counted.heat.get(temperature.heat, 0) + 1

    async def _act(
        self,
        connection: "asyncpg.Connection[asyncpg.Record]",
        number: int,
        before: Temperature,
        after: Temperature,
        signal: Signal,
        have: int,
        wanted: int,
    ) -> bool:
        """Split, merge or rebalance an account as its heat requires. Return False when a merge failed."""
        if after.heat is Heat.HOT and have < wanted:
            reason = f"hot: utilisation {signal.utilisation:.2f}, {signal.share:.0%} of the arrivals"
            changed = await self._post(connection, number, wanted, reason)
            self.counted.splits += bool(changed)
        elif before.heat is Heat.COOLING and after.heat is Heat.COLD and have > 1:
            reason = f"cold: utilisation below {self._thresholds.demote} for {self._thresholds.demote_s:.0f} s"
            changed = await self._post(connection, number, 1, reason)
            self.counted.merges += bool(changed)
            return changed is not None
        elif signal.widened and have > 1:
            changed = await self._post(connection, number, 0, "")
            self.counted.rebalances += bool(changed)
        return True

    async def _changed(
        self,
        connection: "asyncpg.Connection[asyncpg.Record]",
        number: int,
        before: Temperature,
        after: Temperature,
    ) -> None:
        self.counted.transitions += 1
        extra = {
            "event": "account_heat_changed",
            "account_number": number,
            "was": before.heat,
            "is": after.heat,
            "utilisation": after.utilisation,
        }
        _log.info("account heat changed", extra=extra)
        if after.heat is Heat.COLD:
            await connection.execute(SQL["forget_hot_account"], number)
        else:
            await connection.execute(SQL["write_hot_account"], number, after.heat, after.since, after.utilisation)

    async def _finish_merges(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        """Merge slots that had a hold when their account was merged and have none now."""
        for row in await connection.fetch(SQL["unmerged_slots"]):
            await self._post(connection, row["account_number"], row["slots"], "a hold ended")

    async def _post(
        self, connection: "asyncpg.Connection[asyncpg.Record]", number: int, slots: int, reason: str
    ) -> bool | None:
        """Split or merge an account; rebalance it if `slots` is 0.

        Return whether anything changed, None when it failed. A failure is logged; the next run retries.
        """
        try:
            account = (await self._books.directory.by_number(connection, [number])).get(number)
        except (AccountTampered, KeyFault) as error:
            extra = {"event": "integrity_finding", "once": f"keeper {error}"}
            _log.critical("account not split or merged: %s", error, extra=extra)
            return None
        if account is None or account.type.platform:
            return False
        return await self._ask(account, Resplit(account, slots, reason, MODULE) if slots else Rebalance(account))

    async def _ask(self, account: Account, command: Command) -> bool | None:
        outcome = (await post_vouchers(self._session, self._books, [command]))[0]
        if not isinstance(outcome, Outcome) or outcome.refusal is not None:
            extra: dict[str, object] = {"event": "account_resplit_failed", "account": account.id}
            _log.warning("splitting, merging or rebalancing an account failed: %s", outcome, extra=extra)
            return None
        if outcome.replay:
            return False
        if type(command) is Resplit:
            extra = {
                "event": "account_resplit",
                "account": account.id,
                "slots": command.slots,
                "reason": command.reason,
            }
            _log.info("account split or merged", extra=extra)
        return type(command) is Resplit or outcome.record is not None

    def _failed(self, error: Exception) -> None:
        if self._temperatures is not None:
            self.tally.failed(error)
        self._drop()

    def _drop(self) -> None:
        """Drop the connections. The advisory lock ends with its connection, so another rebalancer can lead."""
        if self._connection is not None:
            self._connection.terminate()
        self._connection = None
        self._temperatures = None
        self._session.drop()
