"""Reconciliation of the ledger: checks of every invariant, on one snapshot of the ledger's database.

The checks only read. They read row by row, on one connection, so memory does not grow with the journal. Some checks
compare sums in SQL. Others recompute the evidence (MACs and chains) from the keys. Both kinds are needed, because each
finds errors that the other misses.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Final

import asyncpg

from fundledger.database.migrations import SchemaFault
from fundledger.ledger.store.accounts import Layout
from fundledger.ledger.store.migrate import PACKAGE, read_layout
from fundledger.ledger.store.queries import SQL as LEDGER_SQL
from fundledger.reconciliation import evidence
from fundledger.reconciliation.chains import CHAINS, check_chains
from fundledger.reconciliation.definitions import LEDGER, check_definitions, check_migrations, read_manifest
from fundledger.reconciliation.fund.calendars import Calendar
from fundledger.reconciliation.fund.checks import prove_fund
from fundledger.reconciliation.journal import JOURNAL, check_journal
from fundledger.reconciliation.proof import Progress, Proof, SqlCheck, quiet, run_sql_check
from fundledger.reconciliation.reading import SQL, BadDsn, Connection, account_names, connected, rows, snapshot
from fundledger.reconciliation.report import Check, Report, described, printable
from fundledger.security.keys import Keys

GUARDS_CHECK: Final = "guards_in_force"
ACCOUNT: Final = "account {id} (number {account_number})"
MISSING: Final = "none in shard {shard}, account number {account_number}, slot {slot}"
SQL_CHECKS: Final = (
    SqlCheck("voucher_equals_entries", "vouchers", "voucher {id} of {module}: {lines} lines, {entries} entries"),
    SqlCheck(
        "summary_equals_vouchers",
        "entries",
        f"{ACCOUNT} slot {{slot}} seq {{seq}}: {{amount}}, its vouchers {{vouchers}}",
    ),
    SqlCheck(
        "line_counts",
        "entries",
        f"{ACCOUNT} slot {{slot}} seq {{seq}}: {{stored}} lines more than entries, {{due}} by the entries",
    ),
    SqlCheck("voucher_once", "vouchers", "voucher {id} of {module} is stored {times} times"),
    SqlCheck("reversal_mirrors", "reversals", "reversal {id} of {reverses}, module {module}"),
    SqlCheck("holds_open", "sub_accounts", f"{ACCOUNT} slot {{slot}}: held {{held}}, open {{open}}"),
    SqlCheck("captures_match", "holds", "hold {id} of {module}, voucher {voucher_id}"),
    SqlCheck("holds_of_accounts", "holds", "hold {id}", "a sub-account", MISSING),
    SqlCheck("outbox_equals_vouchers", "vouchers", "voucher {id} of {module}", "{expected}", "{actual}"),
    SqlCheck("routes_equal_events", "accounts", ACCOUNT, "{expected}", "{actual}"),
    SqlCheck("status_equals_events", "sub_accounts", f"{ACCOUNT} slot {{slot}}", "status {expected}", "{actual}"),
    SqlCheck("freezes_have_findings", "sub_accounts", ACCOUNT, "the row that did not match its MAC", "none is kept"),
    SqlCheck("integrity_findings", None, "finding {finding}: {subject} at {at}"),
)

APPEND_ONLY: Final = (
    "vouchers",
    "entries",
    "account_events",
    "integrity_findings",
    "route_events",
    "outbox",
    "line_counts",
)
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
        "outbox_vouchers",
        "line_counts_pkey",
        "buffered_entries_pkey",
        "buffered_entries_amount",
        "buffered_entries_number",
        "buffered_entries_no_change",
        "account_events_seq_once",
        "integrity_findings_seq_once",
        "integrity_findings_subject_once",
        "chains_pkey",
        "chains_kept",
        "outbox_modules",
        "buffered_entries_no_truncate",
        *(f"{table}_append_only" for table in APPEND_ONLY),
        *(f"{table}_no_truncate" for table in APPEND_ONLY),
    }
)
"""Constraints and triggers that enforce the invariants in the database. The check `guards_in_force` compares them, and
all other definitions, with the definitions that the migrations make.
"""


async def verify(
    dsn: str,
    keys: Keys,
    progress: Progress = quiet,
    fund_dsn: str | None = None,
    fund_keys: Keys | None = None,
    calendar: Calendar | None = None,
) -> Report:
    """Prove the books of a ledger and return the report. The ledger may be in use, because everything is read in one
    snapshot.

    With `fund_dsn`, also prove the orders of the fund service, and that the orders agree with the ledger. `fund_keys`:
    the keys of the fund service. Without these keys, an order with a keyed id is a finding. `calendar`: the time zone
    and the cut of the account service, which are compared with the calendar of the fund service; None: not compared.

    No content of the databases causes an exception: an unreadable row is a finding, and a check that cannot be made has
    an `error`. If a database becomes unavailable, the proof ends early. Then the report has an `error` and the checks
    that were made before. Raises BadDsn.
    """
    proof = Proof(progress)
    try:
        await _verify(proof, dsn, keys, fund_dsn, fund_keys, calendar)
    except BadDsn:
        raise
    except Exception as error:
        proof.report.error = described(error)
    return proof.finished()


async def _verify(
    proof: Proof,
    dsn: str,
    keys: Keys,
    fund_dsn: str | None,
    fund_keys: Keys | None,
    calendar: Calendar | None,
) -> None:
    if fund_dsn is None:
        async with snapshot(dsn) as connection:
            await _prove_ledger(proof, connection, keys)
        return
    # The fund snapshot is taken first. So if an order is posted in the fund snapshot, its voucher is in the ledger
    # snapshot.
    async with snapshot(fund_dsn) as fund, snapshot(dsn) as connection, connected(fund_dsn) as later:
        await prove_fund(proof, fund, later, connection, account_names(connection), fund_keys, calendar)
        await _prove_ledger(proof, connection, keys)


async def _prove_ledger(proof: Proof, connection: Connection, keys: Keys) -> None:
    report, names, one = proof.report, account_names(connection), [connection]
    counts = await _counts(connection)
    report.vouchers, report.entries, report.accounts = counts["vouchers"], counts["entries"], counts["accounts"]
    layout = await _layout(connection)
    proof.progress("the journal", counts["entries"])
    sub_accounts, entries = rows(connection, SQL["sub_accounts"]), rows(connection, SQL["entries"])
    await proof.make(JOURNAL, one, check_journal, sub_accounts, entries, names, keys)
    proof.progress("the accounts", counts["accounts"])
    accounts = rows(connection, SQL["accounts"], layout.shards)
    await proof.make(evidence.ACCOUNTS, one, evidence.check_accounts, accounts, keys, layout)
    proof.progress("the vouchers", counts["vouchers"])
    vouchers = rows(connection, SQL["vouchers"])
    await proof.make(evidence.VOUCHERS, one, evidence.check_vouchers, vouchers, names, keys)
    await proof.make(evidence.HOLDS, one, evidence.check_holds, rows(connection, SQL["holds"]), keys)
    await proof.make(evidence.BUFFER, one, evidence.check_buffer, rows(connection, SQL["buffered"]), keys)
    await proof.make(CHAINS, one, check_chains, connection, keys)
    for of in SQL_CHECKS:
        size = 0 if of.counted is None else counts[of.counted]
        proof.progress(of.name, size)
        await proof.make([of.name], one, run_sql_check, connection, SQL[of.name], of, size)
    await proof.make(["trial_balance"], one, _trial_balance, connection, report)
    await proof.make([GUARDS_CHECK], one, check_migrations, connection, PACKAGE, LEDGER_SQL["migrations_applied"])
    await proof.make([GUARDS_CHECK], one, check_definitions, connection, LEDGER, read_manifest("ledger"))


async def _counts(connection: Connection) -> Mapping[str, int]:
    """Return the row counts of the ledger, or zeros if they cannot be read. In that case each check reports its own
    error.
    """
    try:
        async with connection.transaction():
            return dict((await connection.fetch(SQL["counts"]))[0])
    except asyncpg.PostgresError:
        if connection.is_closed():
            raise
        return defaultdict(int)


async def _layout(connection: Connection) -> Layout:
    """Return the settings that are fixed when the ledger is initialised, such as the number of shards. If they cannot
    be read, return settings with one shard, so that accounts in other shards are reported.
    """
    try:
        async with connection.transaction():
            return await read_layout(connection)
    except (asyncpg.PostgresError, SchemaFault):
        if connection.is_closed():
            raise
        return Layout(1, 1)


async def _trial_balance(checks: Sequence[Check], connection: Connection, report: Report) -> None:
    (check,) = checks
    for row in await connection.fetch(SQL["trial_balance"]):
        check.rows += row["sub_accounts"]
        total = int(row["total"])
        report.trial_balance[printable(row["currency"])] = total
        if total != 0:
            check.differs(f"currency {row['currency']}", 0, total)
