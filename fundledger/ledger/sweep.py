"""Brings MACs of layout 1 to layout 2, a few rows at a time.

Each row is verified by its own version first, and by what that leaves to the digest. A row that does not verify keeps
its MAC, and is a finding, once. A row that is written meanwhile is left to a later run: the update compares the MAC.
"""

from collections.abc import Sequence
from typing import Any, Final

import asyncpg
import msgspec
from asyncpg.pgproto.pgproto import UUID

from fundledger.ledger.accounts import Layout
from fundledger.ledger.chart import CHART
from fundledger.ledger.directory import AccountTampered, Directory, account_message
from fundledger.ledger.evidence import EVENTS, FINDINGS, Found, chain_old, write_findings
from fundledger.ledger.records import (
    HoldTampered,
    VoucherTampered,
    hold_message,
    hold_of,
    record_of,
    voucher_message,
)
from fundledger.ledger.statements import SQL
from fundledger.security import canonical
from fundledger.security.keys import KeyFault

Connection = asyncpg.Connection
AT_ONCE: Final = 200
_FIRST_ID: Final = UUID(bytes(16))


def _check_module(row: asyncpg.Record) -> None:
    """A reversal is of the module of what it reverses. Raises VoucherTampered."""
    if row["reverses"] is not None and row["reversed_module"] not in (None, row["module"]):
        raise VoucherTampered(f"voucher {row['id']} is of another module than what it reverses")


class Sweep:
    """Where a sweep has come to. A row that does not verify is passed once, until the sweep begins anew.

    `step` raises what asyncpg raises, KeyFault where no key is there at all, ChainBroken. It may always be repeated.
    """

    def __init__(self, directory: Directory, layout: Layout) -> None:
        self._directory = directory
        self._keys = directory.keys
        self._layout = layout
        self._found: list[Found] = []
        self.begin()

    def begin(self) -> None:
        """From the first row again."""
        self._voucher: tuple[UUID, str] = (_FIRST_ID, "")
        self._hold: tuple[str, str] = ("", "")
        self._account = 0

    async def step(self, connection: "Connection[asyncpg.Record]") -> tuple[int, bool]:
        """In a transaction: how many rows were brought over, and whether there may be more."""
        self._found = []
        counts = [
            await self._accounts(connection),
            await self._vouchers(connection),
            await self._holds(connection),
            await self._evidence(connection, EVENTS),
            await self._evidence(connection, FINDINGS),
        ]
        if self._found:
            await write_findings(connection, self._keys, self._found)
        return sum(done for done, _ in counts), any(looked == AT_ONCE for _, looked in counts)

    async def _evidence(self, connection: "Connection[asyncpg.Record]", name: str) -> tuple[int, int]:
        if not await connection.fetch(SQL[f"{name}_to_chain"], 1):
            return 0, 0
        done = await chain_old(connection, self._keys, name, AT_ONCE)
        return done, done

    async def _vouchers(self, connection: "Connection[asyncpg.Record]") -> tuple[int, int]:
        rows = await connection.fetch(SQL["vouchers_to_sweep"], *self._voucher, AT_ONCE)
        numbers = sorted({number for row in rows for number in row["lines"][::2] if number is not None})
        accounts = await self._verified(connection, numbers)
        key, done = self._keys.current, 0
        for row in rows:
            self._voucher = (row["id"], row["module"])
            try:
                record_of(row, accounts, self._keys)
                _check_module(row)
            except (VoucherTampered, KeyFault) as error:
                self._differs("voucher", f"{row['module']} {row['id']}", error, row)
                continue
            mac = key.tag(voucher_message(row, canonical.LAYOUT, key.version))
            await connection.execute(SQL["sweep_voucher"], *self._voucher, row["mac"], key.version, mac)
            done += 1
        return done, len(rows)

    async def _holds(self, connection: "Connection[asyncpg.Record]") -> tuple[int, int]:
        rows = await connection.fetch(SQL["holds_to_sweep"], *self._hold, AT_ONCE)
        accounts = await self._verified(connection, sorted({row["account_number"] for row in rows}))
        key, done = self._keys.current, 0
        for row in rows:
            self._hold = (row["id"], row["module"])
            try:
                hold_of(row, accounts, self._keys)
            except (HoldTampered, KeyFault) as error:
                self._differs("hold", f"{row['module']} {row['id']}", error, row)
                continue
            mac = key.tag(hold_message(row, canonical.LAYOUT, key.version))
            await connection.execute(SQL["sweep_hold"], *self._hold, row["mac"], key.version, mac)
            done += 1
        return done, len(rows)

    async def _accounts(self, connection: "Connection[asyncpg.Record]") -> tuple[int, int]:
        rows = await connection.fetch(SQL["accounts_to_sweep"], self._account, AT_ONCE)
        key, done = self._keys.current, 0
        for row in rows:
            self._account = row["number"]
            try:
                self._directory.verified(row)
                self._check_posting(row)
            except (AccountTampered, KeyFault) as error:
                self._differs("account", str(row["id"]), error, row)
                continue
            mac = key.tag(account_message(row, canonical.LAYOUT, row["slots"], row["buffered"], key.version))
            how = (row["slots"], row["buffered"], key.version, mac)
            await connection.execute(SQL["sweep_account"], row["number"], row["mac"], *how)
            done += 1
        return done, len(rows)

    def _check_posting(self, row: asyncpg.Record) -> None:
        """Slots and policy, which layout 1 left out, are those of the account's route and of its first slot.

        Raises AccountTampered.
        """
        due = (row["route_slots"] or 1, row["first_buffered"])
        if CHART[row["type"]].platform:
            due = (self._layout.platform_slots, False)
        if (row["slots"], row["buffered"]) != due:
            raise AccountTampered(row)

    async def _verified(self, connection: "Connection[asyncpg.Record]", numbers: Sequence[int]) -> dict[int, Any]:
        found = {}
        for row in await connection.fetch(SQL["accounts_by_number"], numbers):
            try:
                found[row["number"]] = self._directory.verified(row)
            except (AccountTampered, KeyFault):
                continue
        return found

    def _differs(self, kind: str, subject: str, error: Exception, row: asyncpg.Record) -> None:
        shown = {
            name: value.hex() if isinstance(value, bytes) else value if value is None else str(value)
            for name, value in row.items()
        }
        evidence = msgspec.json.encode({"sweep": str(error), "row": shown}).decode()
        self._found.append(Found(evidence, kind, subject))
