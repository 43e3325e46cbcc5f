"""Rebalancer of hot accounts: the background job that splits hot accounts over slots and merges cold ones.

Every second each worker stores a report of its load in the database and applies the slot map (`hotspot.follower`). The
rebalancer adds up all reports, sets the heat of each account, and takes these actions:

- an account that becomes hot is split over as many slots as there are workers
- an account that becomes cold is merged
- an account whose debits need several slots is rebalanced

Each action is one ledger transaction that holds the job lease and the locks of the account's slots. After a crash at
any point, the next lease owner can therefore continue. An action that failed is retried a second later.
"""

import logging
import time
from typing import Any, Final

import asyncpg
import msgspec

from fundledger.database.statements import load
from fundledger.hotspot.detector import COLD, Heat, Signal, Temperature, Thresholds, merge, step
from fundledger.hotspot.heat import Report
from fundledger.jobs.job import Job, Lease, Ran
from fundledger.ledger.context import Books
from fundledger.ledger.model.account import Account
from fundledger.ledger.model.batch import Command, Outcome, Rebalance, Resplit
from fundledger.ledger.posting import post_vouchers
from fundledger.ledger.rules.slots import SLOTS_MAX
from fundledger.ledger.store.directory import AccountTampered
from fundledger.ledger.store.session import FencedSession
from fundledger.ledger.store.slot_map import read_routes
from fundledger.security.keys import KeyFault

SQL: Final = load("fundledger.hotspot")
REBALANCER: Final = "hot_keeper"
EVERY_S = 1.0
STALE_S = 5.0
ALARM_S: Final = 30.0
MODULE = "hotspot"
_log = logging.getLogger(__name__)


class Counted(msgspec.Struct):
    """Counters of a process since its start.

    `widened`: the number of batches that needed more than one slot of an account. `heat` maps each heat to the current
    number of accounts; the map is empty unless this process is the lease owner.
    """

    splits: int = 0
    merges: int = 0
    rebalances: int = 0
    transitions: int = 0
    widened: int = 0
    heat: dict[str, int] = {}


class Rebalancer:
    """The rebalancer of one process.

    If `acts` is False, the heat of accounts is recorded, but no account is split, merged or rebalanced.
    """

    def __init__(
        self, dsn: str, pool: "asyncpg.Pool[asyncpg.Record]", books: Books, thresholds: Thresholds, *, acts: bool = True
    ) -> None:
        self._pool = pool
        self._books = books
        self._thresholds = thresholds
        self._acts = acts
        self._session = FencedSession(dsn, f"fundledger hot {books.ordinal}")
        self._temperatures: dict[int, Temperature] | None = None
        self._unbalanced: set[int] = set()
        self.counted = Counted()

    def job(self) -> Job:
        return Job(REBALANCER, self.run, EVERY_S, alarm_after_s=ALARM_S, ended=self.stop)

    async def run(self, lease: Lease) -> Ran:
        """Set the heat of all accounts, and split, merge or rebalance them. Raises LeaseLost, asyncpg errors.

        A retry is always safe.
        """
        return await self.run_at(time.time(), lease)

    async def run_at(self, at: float, lease: Lease) -> Ran:
        """Set the heat of all accounts at the time `at`, and split, merge or rebalance them accordingly.

        `at` is in seconds since 1970, and must not decrease while the same lease owner runs the job.
        """
        self._session.lease = lease
        before = self.counted.transitions
        temperatures, self._temperatures = self._temperatures, None
        if temperatures is None:
            await self._write("forget_heat")
            temperatures = {
                row["account_number"]: Temperature(Heat(row["state"]), row["since"].timestamp(), row["utilisation"])
                for row in await self._pool.fetch(SQL["read_hot_accounts"])
            }
        await self._decide(at, temperatures)
        # The heat is cached only after success. After a failed run the next run reads the heat from the database,
        # because a crash of the database may have undone recorded changes of heat.
        self._temperatures = temperatures
        return Ran(self.counted.transitions - before)

    def stop(self) -> None:
        """Drop the connections and the cached heat of accounts: the next lease owner may change the recorded heat."""
        self._temperatures = None
        self._unbalanced.clear()
        self.counted.heat = {}
        self._session.drop()

    async def _decide(self, at: float, temperatures: dict[int, Temperature]) -> None:
        slots = {route.account_number: route.slots for route in await read_routes(self._pool)}
        rows = await self._pool.fetch(SQL["read_heat"], STALE_S)
        reports = [msgspec.json.decode(row["hottest"], type=Report) for row in rows]
        signals = merge(reports)
        wanted = min(SLOTS_MAX, max(1, len(rows)))
        for number in signals.keys() | temperatures.keys() | self._unbalanced:
            signal = signals.get(number, Signal())
            before = temperatures.get(number, COLD)
            after = step(before, signal, at, self._thresholds)
            if self._acts and not await self._act(number, before, after, signal, slots.get(number, 1), wanted):
                # The heat is left unchanged, so that the next run, a second later, retries the action.
                after = msgspec.structs.replace(before, utilisation=after.utilisation)
            if after.heat is not before.heat:
                await self._changed(number, before, after)
            if after.heat is Heat.COLD:
                temperatures.pop(number, None)
            else:
                temperatures[number] = after
        if self._acts:
            await self._finish_merges()
        self.counted.heat = {}
        for temperature in temperatures.values():
            self.counted.heat[temperature.heat] = self.counted.heat.get(temperature.heat, 0) + 1

    async def _act(
        self, number: int, before: Temperature, after: Temperature, signal: Signal, have: int, wanted: int
    ) -> bool:
        """Split, merge or rebalance an account as its heat requires. Return False if the action failed."""
        changed: bool | None = False
        unbalanced = signal.widened > 0 or number in self._unbalanced
        self._unbalanced.discard(number)
        if after.heat is Heat.HOT and have < wanted:
            reason = f"hot: utilisation {signal.utilisation:.2f}, {signal.share:.0%} of the arrivals"
            changed = await self._post(number, wanted, reason)
            self.counted.splits += bool(changed)
        elif before.heat is Heat.COOLING and after.heat is Heat.COLD and have > 1:
            reason = f"cold: utilisation below {self._thresholds.demote} for {self._thresholds.demote_s:.0f} s"
            changed = await self._post(number, 1, reason)
            self.counted.merges += bool(changed)
        elif unbalanced and have > 1:
            changed = await self._post(number, 0, "")
            self.counted.rebalances += bool(changed)
            if changed is None:
                # The account is remembered, because the reports of the next run cover another second and may not show
                # the imbalance.
                self._unbalanced.add(number)
        return changed is not None

    async def _changed(self, number: int, before: Temperature, after: Temperature) -> None:
        self.counted.transitions += 1
        if after.heat is Heat.COLD:
            id_ = await self._write("forget_hot_account", number)
        else:
            id_ = await self._write("write_hot_account", number, after.heat, after.since, after.utilisation)
        extra = {
            "event": "account_heat_changed",
            "account": id_,
            "was": before.heat,
            "is": after.heat,
            "utilisation": after.utilisation,
        }
        _log.info("account heat changed", extra=extra)

    async def _write(self, statement: str, *arguments: object) -> Any:
        """Run a query in a transaction that holds the job lease. Return the first value of the result."""
        async with self._pool.acquire() as connection, connection.transaction():
            await self._session.lease.hold(connection)  # type: ignore[arg-type]
            return await connection.fetchval(SQL[statement], *arguments)

    async def _finish_merges(self) -> None:
        """Merge each slot whose merge was prevented by a hold that has ended."""
        for row in await self._pool.fetch(SQL["unmerged_slots"]):
            await self._post(row["account_number"], row["slots"], "a hold ended")

    async def _post(self, number: int, slots: int, reason: str) -> bool | None:
        """Split or merge an account to `slots` slots. If `slots` is 0, rebalance the account.

        Return whether anything changed, or None if the action failed. A failure is logged, and the next run retries.
        """
        try:
            account = (await self._books.directory.by_number(self._pool, [number])).get(number)
        except (AccountTampered, KeyFault) as error:
            extra = {"event": "integrity_finding", "once": f"rebalancer {error}"}
            _log.critical("account not split or merged: %s", error, extra=extra)
            return None
        if account is None or account.type.platform:
            return False
        return await self._ask(account, Resplit(account, slots, reason, MODULE) if slots else Rebalance(account))

    async def _ask(self, account: Account, command: Command) -> bool | None:
        outcome = (await post_vouchers(self._session, self._books, [command]))[0]
        if not isinstance(outcome, Outcome) or outcome.refusal is not None:
            once = f"resplit {account.id} {outcome}"
            extra: dict[str, object] = {"event": "account_resplit_failed", "account": account.id, "once": once}
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
