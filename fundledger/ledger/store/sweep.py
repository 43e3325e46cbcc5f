"""MAC sweep of the ledger's store: replaces MACs of layout 1 by MACs of layout 2, a few rows at a time.

Each row is first verified by its MAC of layout 1, and by its digest. A row that does not verify keeps its MAC, and is
recorded once as a finding. A row that another transaction changes meanwhile is skipped, because the update compares the
MAC. A later run converts the skipped row.
"""

from collections.abc import Sequence
from typing import Any, Final

import asyncpg
import msgspec
from asyncpg.pgproto.pgproto import UUID

from fundledger.ledger.model.chart import CHART
from fundledger.ledger.store.accounts import Layout
from fundledger.ledger.store.directory import AccountTampered, Directory, account_message
from fundledger.ledger.store.evidence import EVENTS, FINDINGS, Found, chain_old, write_findings
from fundledger.ledger.store.queries import SQL
from fundledger.ledger.store.records import (
    HoldTampered,
    VoucherTampered,
    hold_message,
    hold_of,
    record_of,
    voucher_message,
)
from fundledger.security import canonical
from fundledger.security.keys import KeyFault

Connection = asyncpg.Connection
AT_ONCE: Final = 200
_UNDECODABLE: Final = (ValueError, OverflowError)
"""Errors that asyncpg raises for values that Python cannot represent, such as a time before year 1."""
_KEYS: Final = {"voucher": ("id", "module"), "hold": ("id", "module"), "account": ("number",)}
_FIRST_ID: Final = UUID(bytes(16))


def _check_module(row: asyncpg.Record) -> None:
    """Check that a reversal has the module of the reversed voucher. Raises VoucherTampered."""
    if row["reverses"] is not None and row["reversed_module"] not in (None, row["module"]):
        raise VoucherTampered(f"voucher {row['id']} does not have the module of the voucher that it reverses")


class Sweep:
    """A sweep in progress, with its position in each table.

    Rows that do not verify are skipped until `begin` is called.

    `step` raises asyncpg errors, ChainBroken, and KeyFault when there is no key at all. A retry is safe.
    """

    def __init__(self, directory: Directory, layout: Layout) -> None:
        self._directory = directory
        self._keys = directory.keys
        self._layout = layout
        self._found: list[Found] = []
        self.begin()

    def begin(self) -> None:
        """Restart from the first row."""
        self._voucher: tuple[Any, ...] = (_FIRST_ID, "")
        self._hold: tuple[Any, ...] = ("", "")
        self._account: tuple[Any, ...] = (0,)

    async def step(self, connection: "Connection[asyncpg.Record]") -> tuple[int, bool]:
        """Convert some rows in the caller's transaction. Return their number, and whether more rows may remain."""
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
        try:
            if not await connection.fetch(SQL[f"{name}_to_chain"], 1):
                return 0, 0
            done = await chain_old(connection, self._keys, name, AT_ONCE)
        except _UNDECODABLE as error:
            # A chain has no gaps, so the chain cannot continue until the row is restored. Rows of other kinds are still
            # converted.
            _decoding(error)
            self._found.append(Found(_evidence_of(error, {}), name, "a row that cannot be read"))
            return 0, 0
        return done, done

    async def _page(
        self, connection: "Connection[asyncpg.Record]", kind: str, after: tuple[Any, ...]
    ) -> tuple[list[asyncpg.Record], tuple[Any, ...], int]:
        """Return the next rows of a kind, the key after which to continue, and the number of rows examined.

        A row that cannot be decoded is left out and added to the findings.
        """
        try:
            rows = await connection.fetch(SQL[f"{kind}s_to_sweep"], *after, AT_ONCE)
        except _UNDECODABLE as error:
            _decoding(error)
        else:
            return rows, tuple(rows[-1][name] for name in _KEYS[kind]) if rows else after, len(rows)
        keys = [tuple(row) for row in await connection.fetch(SQL[f"{kind}s_to_sweep_keys"], *after, AT_ONCE)]
        rows = []
        for key in keys:
            try:
                rows += await connection.fetch(SQL[f"{kind}s_to_sweep"], *after, 1)
            except _UNDECODABLE as error:
                _decoding(error)
                self._found.append(Found(_evidence_of(error, {}), kind, _subject(kind, key)))
            after = key
        return rows, after, len(keys)

    async def _vouchers(self, connection: "Connection[asyncpg.Record]") -> tuple[int, int]:
        rows, self._voucher, looked = await self._page(connection, "voucher", self._voucher)
        numbers = sorted({number for row in rows for number in row["lines"][::2] if number is not None})
        accounts = await self._verified(connection, numbers)
        key, done = self._keys.current, 0
        for row in rows:
            try:
                record_of(row, accounts, self._keys)
                _check_module(row)
            except (VoucherTampered, KeyFault) as error:
                self._differs("voucher", f"{row['module']} {row['id']}", error, row)
                continue
            mac = key.tag(voucher_message(row, canonical.LAYOUT, key.version))
            await connection.execute(SQL["sweep_voucher"], row["id"], row["module"], row["mac"], key.version, mac)
            done += 1
        return done, looked

    async def _holds(self, connection: "Connection[asyncpg.Record]") -> tuple[int, int]:
        rows, self._hold, looked = await self._page(connection, "hold", self._hold)
        accounts = await self._verified(connection, sorted({row["account_number"] for row in rows}))
        key, done = self._keys.current, 0
        for row in rows:
            try:
                hold_of(row, accounts, self._keys)
            except (HoldTampered, KeyFault) as error:
                self._differs("hold", f"{row['module']} {row['id']}", error, row)
                continue
            mac = key.tag(hold_message(row, canonical.LAYOUT, key.version))
            await connection.execute(SQL["sweep_hold"], row["id"], row["module"], row["mac"], key.version, mac)
            done += 1
        return done, looked

    async def _accounts(self, connection: "Connection[asyncpg.Record]") -> tuple[int, int]:
        rows, self._account, looked = await self._page(connection, "account", self._account)
        key, done = self._keys.current, 0
        for row in rows:
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
        return done, looked

    def _check_posting(self, row: asyncpg.Record) -> None:
        """Check the number of slots and the buffering policy, which a MAC of layout 1 does not cover.

        Both values are compared with the slot map and slot 0. Raises AccountTampered.
        """
        due = (row["route_slots"] or 1, row["first_buffered"])
        if CHART[row["type"]].platform:
            due = (self._layout.platform_slots, False)
        if (row["slots"], row["buffered"]) != due:
            raise AccountTampered(row)

    async def _verified(self, connection: "Connection[asyncpg.Record]", numbers: Sequence[int]) -> dict[int, Any]:
        found = {}
        for row in await _readable(connection, numbers):
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
        self._found.append(Found(_evidence_of(error, shown), kind, subject))


async def _readable(connection: "Connection[asyncpg.Record]", numbers: Sequence[int]) -> list[asyncpg.Record]:
    """Return the rows of accounts with these numbers. Rows that cannot be decoded are left out."""
    try:
        return await connection.fetch(SQL["accounts_by_number"], numbers)
    except _UNDECODABLE as error:
        _decoding(error)
    found = []
    for number in numbers:
        try:
            found += await connection.fetch(SQL["accounts_by_number"], [number])
        except _UNDECODABLE as error:
            _decoding(error)
    return found


def _decoding(error: Exception) -> None:
    """Raise the error again, unless asyncpg raised it because of the content of a row."""
    if isinstance(error, asyncpg.InterfaceError):
        raise error


def _subject(kind: str, key: tuple[Any, ...]) -> str:
    """Return the subject of a finding about the row with this key.

    For a voucher or a hold, the subject is the same as in `_differs`. For an account, the subject is the account
    number, because the id cannot be read here.
    """
    return f"number {key[0]}" if kind == "account" else f"{key[1]} {key[0]}"


def _evidence_of(error: Exception, row: dict[str, Any]) -> str:
    return msgspec.json.encode({"sweep": str(error), "row": row}).decode()
