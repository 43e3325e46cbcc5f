"""CLI commands `fundledger verify` and `fundledger migrate`, with or without a running service."""

import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import asyncpg
import msgspec

from fundledger.app.console.terminal import complain
from fundledger.app.host.postgres.databases import NoLedger, databases, migrate_account, migrate_fund
from fundledger.app.host.postgres.identity import ACCOUNT, FUND, OtherDatabase, expect_own, keys_folder
from fundledger.app.host.preflight import CannotServe
from fundledger.database.migrations import SchemaFault
from fundledger.fund.store.migrate import fund_keys
from fundledger.ledger.store.directory import account_verifies
from fundledger.ledger.store.keys import ledger_keys
from fundledger.ledger.store.queries import SQL
from fundledger.reconciliation.checks import verify
from fundledger.reconciliation.proof import Progress
from fundledger.reconciliation.reading import BadDsn, Connection, connected
from fundledger.reconciliation.report import Check, Fund, Report, described
from fundledger.security.keys import FileKeys, KeyFault, read_keys
from fundledger.settings import BadSetting, Settings

RIGHT, FINDINGS, BAD_CONFIGURATION, UNFINISHED = range(4)
"""Exit statuses of `verify`."""


async def run_verify(read: Callable[[], Settings], as_json: bool) -> int:
    """Print the report of a verification. `read` returns the settings.

    Return 0 if all checks pass, 1 on any finding, 2 if the configuration names no ledger, 3 if the verification could
    not be completed. With `as_json`, standard output is one JSON object in each case. If the verification could not be
    completed, the object has an `error` and the checks made so far.
    """
    watched = sys.stderr.isatty() and not as_json

    def progress(what: str, rows: int) -> None:
        if watched:
            print(f"\r\x1b[Kchecking {what} ({rows:,} rows)", end="", file=sys.stderr, flush=True)

    report, status = Report(False, [], 0, 0, 0, {}, 0.0), UNFINISHED
    try:
        report = await _verified(read(), progress)
    except (BadSetting, BadDsn, NoLedger, OtherDatabase) as error:
        report.error, status = str(error), BAD_CONFIGURATION
    except (CannotServe, KeyFault) as error:
        report.error = str(error)
    except Exception as error:
        report.error = f"{described(error)} ({_where(error)})"
    if watched:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    if as_json:
        print(msgspec.json.encode(report).decode())
    elif report.checks:
        print(text(report))
    if report.error is not None:
        complain(f"fundledger: the books cannot be verified: {report.error}")
        return status
    return RIGHT if report.ok else FINDINGS


async def _verified(settings: Settings, progress: Progress) -> Report:
    data_dir = settings.data_dir
    async with databases(settings, any_database=True) as dsns:
        check, faults = Check("keys_match_record"), list[str]()
        for which, dsn in ((ACCOUNT, dsns.account), (FUND, dsns.fund)):
            if dsn is not None:
                async with connected(dsn) as connection:
                    await expect_own(connection, data_dir, which)
                    faults += await _key_faults(connection, keys_folder(data_dir, which), which, check)
        folder = keys_folder(data_dir, ACCOUNT)
        if faults and not read_keys(folder):
            raise KeyFault("; ".join(faults))
        keys, fund_folder = FileKeys(folder), keys_folder(data_dir, FUND)
        fund_keys = FileKeys(fund_folder) if read_keys(fund_folder) else None
        # The account service at another place has settings of its own. The accounting dates of vouchers show these.
        calendar = None if settings.account_url else (settings.accounting_timezone, settings.accounting_cut)
        report = await verify(dsns.account, keys, progress, dsns.fund, fund_keys, calendar)
    report.checks.append(check)
    report.ok = report.ok and check.ok and not faults
    if faults and report.error is None:
        report.error = "; ".join(faults)
    return report


async def _key_faults(connection: Connection, folder: Path, which: str, check: Check) -> list[str]:
    """Compare the keys in a folder with the fingerprints in a database. Return the faults.

    A missing or different key is a fault, with one exception. If no key is missing and a key of the account database
    still verifies rows, a fingerprint in the database must have changed. This change is a finding of `check`.
    """
    record = ledger_keys(folder) if which == ACCOUNT else fund_keys(folder)
    try:
        recorded = await record.recorded(connection)
        check.rows += len(recorded)
        record.check(recorded, {})
    except KeyFault as fault:
        if which == FUND or recorded.keys() - read_keys(folder).keys() or not await _verifies(connection, folder):
            return [str(fault)]
        check.differs("MAC keys of the ledger", "as recorded", fault)
    except asyncpg.PostgresError as error:
        check.failed(error)
    return []


async def _verifies(connection: Connection, folder: Path) -> bool:
    """Return whether a key in the folder verifies an account. The first 20 accounts of each key version are tried."""
    keys = FileKeys(folder)
    for row in await connection.fetch(SQL["accounts_by_number"], await _first_accounts(connection)):
        try:
            if account_verifies(row, keys):
                return True
        except Exception:  # noqa: S112 - `verify` reports an unreadable row
            continue
    return False


async def _first_accounts(connection: Connection) -> list[int]:
    return [row["number"] for row in await connection.fetch(SQL["key_evidence"])]


def _where(error: Exception) -> str:
    """Return the file and line where the error was raised, for a one-line message."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "no line"


def text(report: Report) -> str:
    """Return the report as a table, with the findings of a check below the check."""
    lines = []
    for check in report.checks:
        lines.append(
            f"{'ok ' if check.ok else 'BAD'}  {check.name:28} {check.rows:>12,} rows  {check.found or ''}".rstrip()
        )
        lines += [f"       {f.subject}: expected {f.expected}, found {f.actual}" for f in check.findings]
        if check.found > len(check.findings):
            lines.append(f"       and {check.found - len(check.findings):,} more")
        if check.error is not None:
            lines.append(f"       not all rows were checked: {check.error}")
    lines += _fund_lines(report.fund)
    balances = ", ".join(f"{currency} {total}" for currency, total in report.trial_balance.items()) or "no accounts"
    result = "the books are right" if report.ok else "THE BOOKS ARE WRONG" if report.error is None else "NOT PROVED"
    lines.append(
        f"{result}: {report.vouchers:,} vouchers, "
        f"{report.entries:,} entries, {report.accounts:,} accounts; trial balance {balances}; {report.elapsed_s} s"
    )
    return "\n".join(lines)


def _fund_lines(fund: Fund | None) -> list[str]:
    """Return one line per kind of order, with the totals of its orders and of their vouchers."""
    if fund is None:
        return []
    return [
        f"{kind:20} {total.orders:>12,} orders ({total.in_flight:,} in flight, {total.refused:,} refused) "
        f"{total.amount:>18,}   {total.vouchers:>12,} vouchers {total.moved:>18,}"
        for kind, total in sorted(fund.by_kind.items())
    ]


async def run_migrate(settings: Settings) -> int:
    """Migrate both schemas and print the applied migrations. Raises CannotServe, BadSetting."""
    settings.data_dir.mkdir(mode=0o711, parents=True, exist_ok=True)
    try:
        async with databases(settings, make_fund=True) as dsns:
            done = [f"{name} (account)" for name in await migrate_account(dsns.account, settings)]
            if dsns.fund is not None:
                done += [f"{name} (fund)" for name in await migrate_fund(dsns.fund, settings)]
    except KeyFault as fault:
        raise CannotServe(str(fault)) from None
    except (OSError, SchemaFault, asyncpg.PostgresError) as error:
        raise CannotServe(f"cannot migrate the schema: {error}") from None
    print("\n".join(f"applied {name}" for name in done) or "the schema is up to date")
    return 0
