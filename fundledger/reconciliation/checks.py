"""Who checks the books: every invariant, proved from the rows as they stand in one snapshot.

Reads only, on one connection, row by row: memory does not grow with the journal. The balance-sheet side (sums in SQL)
and the evidence side (MACs and chains, recomputed here from the keys) are separate checks, because each misses what the
other sees.
"""

import time
from collections.abc import Awaitable, Callable
from typing import Final

from fundledger.ledger.migrate import read_layout
from fundledger.reconciliation.evidence import check_accounts, check_buffer, check_holds, check_journal, check_vouchers
from fundledger.reconciliation.fund.checks import check_fund
from fundledger.reconciliation.reading import SQL, Connection, connected, rows, snapshot
from fundledger.reconciliation.report import Check, Fund, Report
from fundledger.security.keys import Keys

Progress = Callable[[str, int], None]

APPEND_ONLY: Final = ("vouchers", "entries", "account_events", "integrity_findings", "route_events", "outbox")
GUARDS: Final = frozenset(
    {
        "vouchers_id_once",
        "vouchers_sum_to_zero",
        "vouchers_reversed_once",
        "holds_id_once",
        "holds_amount",
        "holds_captured",
        "accounts_id_once",
        "accounts_number_once",
        "sub_accounts_pkey",
        "sub_accounts_normal",
        "sub_accounts_held",
        "sub_accounts_floor",
        "entries_pkey",
        "sub_accounts_slots",
        "entries_vouchers",
        "buffered_entries_pkey",
        "buffered_entries_amount",
        "buffered_entries_number",
        "buffered_entries_no_change",
        "buffered_entries_no_truncate",
        *(f"{table}_append_only" for table in APPEND_ONLY),
        *(f"{table}_no_truncate" for table in APPEND_ONLY),
    }
)
"""What the database itself must refuse; a guard that was dropped is a finding."""


async def verify(dsn: str, keys: Keys, progress: Progress | None = None, fund_dsn: str | None = None) -> Report:
    """Prove the books of a ledger, which may be in use: everything is read in one snapshot. With `fund_dsn`, prove the
    orders of the fund service, too, and that they and the ledger say the same.

    Raises what asyncpg raises when a database cannot be read, KeyFault when a key version is missing.
    """
    started = time.monotonic()
    progress = progress or _quiet
    if fund_dsn is None:
        async with snapshot(dsn) as connection:
            return await _verify(connection, keys, started, progress)
    # The fund service first: what it says is posted was posted by then, so the ledger that is read after it has it.
    async with snapshot(fund_dsn) as fund, snapshot(dsn) as connection, connected(fund_dsn) as later:
        checks, totals = await check_fund(fund, later, connection, _names(connection), progress)
        report = await _verify(connection, keys, started, progress)
    return _with_fund(report, checks, totals)


def _with_fund(report: Report, checks: list[Check], totals: Fund) -> Report:
    report.ok = report.ok and all(check.ok for check in checks)
    report.checks += checks
    report.fund = totals
    return report


def _quiet(_: str, __: int) -> None:
    pass


async def _verify(connection: Connection, keys: Keys, started: float, progress: Progress) -> Report:
    counts = (await connection.fetch(SQL["counts"]))[0]
    layout = await read_layout(connection)
    checks: list[Check] = []
    progress("the journal", counts["entries"])
    checks += await check_journal(rows(connection, SQL["sub_accounts"]), rows(connection, SQL["entries"]), keys)
    progress("the accounts", counts["accounts"])
    checks += await check_accounts(rows(connection, SQL["accounts"], layout.shards), keys, layout)
    progress("the vouchers", counts["vouchers"])
    names = _names(connection)
    checks += await check_vouchers(rows(connection, SQL["vouchers"]), names, keys)
    checks += await check_holds(rows(connection, SQL["holds"]), keys)
    checks.append(await check_buffer(rows(connection, SQL["buffered"]), keys))
    for name, size, subject in (
        ("voucher_equals_entries", counts["vouchers"], "voucher {id}: {lines} lines, {entries} entries"),
        (
            "summary_equals_vouchers",
            counts["entries"],
            "account number {account_number} slot {slot} seq {seq}: {amount}, its vouchers {vouchers}",
        ),
        ("voucher_once", counts["vouchers"], "voucher {id} stands {times} times"),
        ("reversal_mirrors", counts["reversals"], "reversal {id} of {reverses}"),
        ("holds_open", counts["sub_accounts"], "account number {account_number} slot {slot}: held {held}, open {open}"),
        ("captures_match", counts["holds"], "hold {id}, voucher {voucher_id}"),
        ("integrity_findings", 0, "finding {id}: account number {account_number} slot {slot} at {at}"),
    ):
        progress(name, size)
        check = Check(name, rows=size)
        for row in await connection.fetch(SQL[name]):
            check.differs(subject.format(**row), "none", "found")
        checks.append(check)
    trial, balances = await _trial_balance(connection)
    checks += [trial, await _guards(connection)]
    return Report(
        all(check.ok for check in checks),
        checks,
        counts["vouchers"],
        counts["entries"],
        counts["accounts"],
        balances,
        round(time.monotonic() - started, 3),
    )


def _names(connection: Connection) -> Callable[[list[int]], Awaitable[dict[int, tuple[str, str]]]]:
    """Looks up `{number: (id, currency)}`, remembering a bounded number."""
    known: dict[int, tuple[str, str]] = {}

    async def names(numbers: list[int]) -> dict[int, tuple[str, str]]:
        missing = [number for number in numbers if number not in known]
        if missing:
            if len(known) > 200_000:
                known.clear()
                missing = numbers
            for row in await connection.fetch(SQL["account_names"], missing):
                known[row["number"]] = (row["id"], row["currency"])
        return known

    return names


async def _trial_balance(connection: Connection) -> tuple[Check, dict[str, int]]:
    check = Check("trial_balance")
    balances = {}
    for row in await connection.fetch(SQL["trial_balance"]):
        check.rows += row["sub_accounts"]
        balances[row["currency"]] = int(row["total"])
        if int(row["total"]) != 0:
            check.differs(f"currency {row['currency']}", 0, row["total"])
    return check, balances


async def _guards(connection: Connection) -> Check:
    check = Check("guards_in_force", rows=len(GUARDS))
    standing = {row["name"] for row in await connection.fetch(SQL["guards"])}
    for name in sorted(GUARDS - standing):
        check.differs(name, "in force", "missing")
    return check
