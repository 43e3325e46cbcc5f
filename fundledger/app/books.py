"""`fundledger verify` and `fundledger migrate`: the books without the service, or beside it."""

import sys

import asyncpg
import msgspec

from fundledger.app.claims import CannotServe
from fundledger.app.databases import databases, migrate_account, migrate_fund
from fundledger.app.settings import Settings
from fundledger.database.migrations import SchemaFault
from fundledger.reconciliation.checks import verify
from fundledger.reconciliation.report import Fund, Report
from fundledger.security.keys import FileKeys, KeyFault


async def run_verify(settings: Settings, as_json: bool) -> int:
    """Prints the report; 0 when everything holds, 1 on any finding."""
    watched = sys.stderr.isatty() and not as_json

    def progress(what: str, rows: int) -> None:
        if watched:
            print(f"\r\x1b[Kchecking {what} ({rows:,} rows)", end="", file=sys.stderr, flush=True)

    try:
        async with databases(settings) as dsns:
            report = await verify(dsns.account, FileKeys(settings.data_dir / "keys"), progress, dsns.fund)
    except (OSError, KeyFault, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise CannotServe(f"the books cannot be read: {error}") from None
    if watched:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    if report.error is not None:
        raise CannotServe(f"the books cannot be read: {report.error}")
    print(msgspec.json.encode(report).decode() if as_json else text(report))
    return 0 if report.ok else 1


def text(report: Report) -> str:
    """The report as a table, findings below their check."""
    lines = []
    for check in report.checks:
        lines.append(
            f"{'ok ' if check.ok else 'BAD'}  {check.name:28} {check.rows:>12,} rows  {check.found or ''}".rstrip()
        )
        lines += [f"       {f.subject}: expected {f.expected}, found {f.actual}" for f in check.findings]
    lines += _fund_lines(report.fund)
    balances = ", ".join(f"{currency} {total}" for currency, total in report.trial_balance.items()) or "no accounts"
    lines.append(
        f"{'the books are right' if report.ok else 'THE BOOKS ARE WRONG'}: {report.vouchers:,} vouchers, "
        f"{report.entries:,} entries, {report.accounts:,} accounts; trial balance {balances}; {report.elapsed_s} s"
    )
    return "\n".join(lines)


def _fund_lines(fund: Fund | None) -> list[str]:
    """Orders beside their vouchers, a line a kind."""
    if fund is None:
        return []
    return [
        f"{kind:20} {total.orders:>12,} orders ({total.in_flight:,} in flight, {total.refused:,} refused) "
        f"{total.amount:>18,}   {total.vouchers:>12,} vouchers {total.moved:>18,}"
        for kind, total in sorted(fund.by_kind.items())
    ]


async def run_migrate(settings: Settings) -> int:
    """Brings both schemas up to date, and says what was done. Raises CannotServe, BadSetting."""
    settings.data_dir.mkdir(mode=0o711, parents=True, exist_ok=True)
    try:
        async with databases(settings, make_fund=True) as dsns:
            done = [f"{name} (account)" for name in await migrate_account(dsns.account, settings)]
            if dsns.fund is not None:
                done += [f"{name} (fund)" for name in await migrate_fund(dsns.fund)]
    except (OSError, SchemaFault, asyncpg.PostgresError) as error:
        raise CannotServe(f"the schema cannot be migrated: {error}") from None
    print("\n".join(f"applied {name}" for name in done) or "the schema is up to date")
    return 0
