"""`fundledger verify` and `fundledger migrate`: the books without the service, or beside it."""

import contextlib
import sys
from collections.abc import AsyncIterator

import asyncpg
import msgspec

from fundledger.app.postgres import EmbeddedPostgres, PostgresFault
from fundledger.app.settings import Settings
from fundledger.app.supervisor import CannotServe, lock, migrate_database
from fundledger.reconciliation.checks import verify
from fundledger.reconciliation.report import Fund, Report
from fundledger.security.keys import FileKeys, KeyFault


@contextlib.asynccontextmanager
async def database(settings: Settings) -> AsyncIterator[str]:
    """The DSN of the account database: the configured one, that of a running `serve`, or the embedded one, started for
    this purpose. Raises CannotServe.
    """
    if settings.account_dsn:
        yield settings.account_dsn
        return
    told = settings.data_dir / "account-dsn"
    if told.exists() and await _answers(told.read_text().strip()):
        yield told.read_text().strip()
        return
    if not (settings.data_dir / "postgres").exists():
        raise CannotServe(
            f"there is no ledger in {settings.data_dir}: start `fundledger serve` or set FUNDLEDGER_DATA_DIR"
        )
    held = lock(settings.data_dir)
    postgres = EmbeddedPostgres(settings.data_dir, settings.postgres_memory_mb)
    try:
        await postgres.start()
        yield postgres.dsn
    except PostgresFault as fault:
        raise CannotServe(str(fault)) from None
    finally:
        await postgres.stop()
        held.close()


async def _answers(dsn: str) -> bool:
    try:
        connection = await asyncpg.connect(dsn, timeout=5)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
        return False
    await connection.close()
    return True


async def _fund_dsn(settings: Settings) -> str | None:
    """The DSN of the fund database of a running `serve`; None where there is none."""
    told = settings.data_dir / "fund-dsn"
    if settings.account_dsn or not told.exists():
        return None
    dsn = told.read_text().strip()
    return dsn if await _answers(dsn) else None


async def run_verify(settings: Settings, as_json: bool) -> int:
    """Prints the report; 0 when everything holds, 1 on any finding."""
    watched = sys.stderr.isatty() and not as_json

    def progress(what: str, rows: int) -> None:
        if watched:
            print(f"\r\x1b[Kchecking {what} ({rows:,} rows)", end="", file=sys.stderr, flush=True)

    try:
        async with database(settings) as dsn:
            report = await verify(dsn, FileKeys(settings.data_dir / "keys"), progress, await _fund_dsn(settings))
    except (OSError, KeyFault, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise CannotServe(f"the books cannot be read: {error}") from None
    if watched:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
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
    """Brings the schema up to date, and says what was done."""
    settings.data_dir.mkdir(mode=0o711, parents=True, exist_ok=True)
    try:
        async with database(settings) as dsn:
            done = await migrate_database(dsn, settings)
    except (OSError, asyncpg.PostgresError) as error:
        raise CannotServe(f"the schema cannot be migrated: {error}") from None
    print("\n".join(f"applied {name}" for name in done) or "the schema is up to date")
    return 0
