"""Reconciliation of the fund service: all checks, on snapshots of the fund database and of the ledger's database."""

from collections import defaultdict
from collections.abc import Awaitable, Mapping, Sequence
from typing import Final
from uuid import UUID

import asyncpg

from fundledger.database.statements import load
from fundledger.fund.model.days import Days
from fundledger.fund.model.ids import Ids, ids_key
from fundledger.fund.store.macs import OrderMacs, open_macs, open_macs_alone
from fundledger.fund.store.migrate import PACKAGE
from fundledger.fund.store.queries import ORDER_COLUMNS
from fundledger.fund.store.queries import SQL as FUND_SQL
from fundledger.reconciliation.definitions import FUND, check_definitions, check_migrations, read_manifest
from fundledger.reconciliation.fund.calendars import (
    AccountingDates,
    Calendar,
    check_calendar,
    day_columns,
    unverified_days,
)
from fundledger.reconciliation.fund.ids import OrderIds
from fundledger.reconciliation.fund.macs import KINDS, Kind, check_findings, check_macs, check_rows
from fundledger.reconciliation.fund.orders import check_orders
from fundledger.reconciliation.fund.vouchers import compare_vouchers
from fundledger.reconciliation.proof import Proof, SqlCheck, run_sql_check
from fundledger.reconciliation.reading import SQL as LEDGER_SQL
from fundledger.reconciliation.reading import Connection, Names, Rows, rows
from fundledger.reconciliation.report import Check, Fund
from fundledger.security.keys import KeyFault, Keys

SQL: Final = load("fundledger.reconciliation.fund", order=ORDER_COLUMNS)
CONSISTENT: Final = "fund_orders_consistent"
EQUAL: Final = "fund_equals_account"
GUARDS_CHECK: Final = "fund_guards_in_force"
MACS: Final = "mac_verifies_orders"
ROW_MACS: Final = "mac_verifies_fund_rows"
FINDINGS: Final = "fund_findings_chained"
CALENDAR: Final = "fund_calendar_agrees"
CHECKS: Final = (CONSISTENT, EQUAL, MACS, ROW_MACS, FINDINGS, CALENDAR, GUARDS_CHECK)


SQL_CHECKS: Final = (
    SqlCheck("payments_equal_orders", None, "payment {id}: {name}", "{expected}", "{actual}"),
    SqlCheck("payments_kept", None, "payment {id}", "a row in fund.payments, because {why}", "none"),
    SqlCheck("payments_not_exceeded", None, "payment {id}", "at most {amount} refunded or charged back", "{back}"),
    SqlCheck("payouts_equal_orders", None, "payout {id}: {name}", "{expected}", "{actual}"),
    SqlCheck("orders_of_orders", None, "{kind} {id}", "an order of the same merchant that it can refer to", "{found}"),
    SqlCheck("orders_named_once", None, "{kind} {order_no} of {merchant}", "one order", "{ids}"),
    SqlCheck("settlements_equal_parts", None, "settlement {id}", "its parts: {expected}", "{actual}"),
    SqlCheck("day_sums_equal_orders", None, "day {day}, {what}", "{expected}", "{actual}"),
    SqlCheck("debts_equal_orders", None, "debt of {merchant}", "{expected}", "{actual}"),
    SqlCheck("receipts_booked_once", None, "{kind} {order_no} of {merchant}", "{channel_ref} once", "also {first}"),
    SqlCheck("returns_equal_orders", None, "withdrawal {id}: returned", "{expected}", "{actual}"),
    SqlCheck("channels_equal_changes", None, "channel {subject}", "{expected}", "{actual}"),
    SqlCheck("split_parts_equal_orders", None, "part of {merchant} in {id}: {name}", "{expected}", "{actual}"),
    SqlCheck("invoices_not_overpaid", None, "invoice {id}", "at most {amount} paid", "{paid}"),
    SqlCheck("reserves_not_exceeded", None, "reserve of {merchant}", "at most {held} released by amount", "{released}"),
    SqlCheck("payees_equal_changes", None, "payee {id}: {name}", "{expected}", "{actual}"),
    SqlCheck(
        "withdrawals_equal_payees", None, "withdrawal {order_no} of {merchant} ({id})", "its usable payee", "{actual}"
    ),
    SqlCheck(
        "payout_files_equal_payouts", None, "payout file {file_no} of {channel}: {name}", "{expected}", "{actual}"
    ),
    SqlCheck("persons_kept", None, "{identity}", "a row in fund.persons", "none"),
    SqlCheck("wins_not_exceeded", None, "{kind} {id}", "at most {amount} won back", "{won}"),
    SqlCheck("own_funds_not_exceeded", None, "own funds in {currency}", "at most {put_in} out", "{taken_out}"),
    SqlCheck("closings_consistent", None, "day {day}", "{expected}", "{actual}"),
    SqlCheck("ends_equal_orders", None, "end of {id}", "{expected}", "{actual}"),
    SqlCheck("merchants_equal_events", None, "merchant {merchant}, {what}", "{expected}", "{actual}"),
    SqlCheck("merchant_changes_approved", None, "{what}", "{expected}", "{actual}"),
    SqlCheck("holidays_equal_changes", None, "holiday {day} of {region}", "{expected}", "{actual}"),
)
"""SQL checks of the fund database. The report combines them in the check `fund_orders_consistent`."""
WITHDRAWN: Final = SqlCheck(
    "withdrawal_days_equal_orders", None, "withdrawals of {merchant} on {day}", "{expected}", "{actual}"
)
"""A further check of `fund_orders_consistent`. Its query needs the days of the calendar."""


MODULE: Final = "fund"
"""Module of the fund service in the ledger. This module, and not their content, identifies the vouchers of the fund
service.
"""


async def prove_fund(
    proof: Proof,
    fund: Connection,
    later: Connection,
    account: Connection,
    names: Names,
    keys: Keys | None = None,
    calendar: Calendar | None = None,
) -> None:
    """Make all checks of the fund database, and of the agreement between the fund database and the ledger.

    `fund` is a snapshot of the fund database, `account` a snapshot of the ledger's database. `fund` must not be taken
    after `account`. `later` is a connection to the fund database without a snapshot, for rows that were written after
    the snapshots. `keys` are the keys of the fund service. `calendar`: the time zone and the cut of the account
    service, None if they are not known.
    """
    counts = await _counts(fund)
    totals = proof.report.fund = Fund()
    proof.progress("the orders", counts["orders"])
    orders, events = rows(fund, SQL["orders"]), rows(fund, SQL["events"])
    await proof.make([CONSISTENT], [fund], _check_orders, fund, orders, events, keys)
    await proof.make([MACS], [fund], _check_macs, fund, keys)
    for kind in KINDS:
        await proof.make([ROW_MACS], [fund], _check_rows, fund, keys, kind)
    await proof.make([FINDINGS], [fund], _check_findings, fund, keys)
    for of in SQL_CHECKS:
        proof.progress(of.name, counts["orders"])
        await proof.make([CONSISTENT], [fund], run_sql_check, fund, SQL[of.name], of)
    await proof.make([CONSISTENT], [fund], _check_withdrawn, fund, keys)
    await proof.make([CALENDAR], [fund], _check_calendar, fund, keys, calendar)
    proof.progress("orders and vouchers", counts["orders"])
    steps, vouchers = rows(fund, SQL["steps"]), rows(account, LEDGER_SQL["fund_vouchers"], MODULE)

    def late(ids: Sequence[UUID], reversed_: Sequence[UUID]) -> Awaitable[list[asyncpg.Record]]:
        return later.fetch(SQL["late_orders"], ids, reversed_)

    await proof.make([EQUAL], [fund, account], compare_vouchers, totals, steps, vouchers, names, late)
    await proof.make([CALENDAR], [fund, account], _check_dates, fund, account, keys)
    await proof.make([GUARDS_CHECK], [fund], check_migrations, fund, PACKAGE, FUND_SQL["migrations_applied"])
    await proof.make([GUARDS_CHECK], [fund], check_definitions, fund, FUND, read_manifest("fund"))


async def _check_orders(
    checks: Sequence[Check], fund: Connection, orders: Rows, events: Rows, keys: Keys | None
) -> None:
    async with fund.transaction():
        former = await fund.fetchval(FUND_SQL["former_ids"])
    await check_orders(checks, orders, events, OrderIds(None if keys is None else Ids(ids_key(keys)), former))


async def _check_macs(checks: Sequence[Check], fund: Connection, keys: Keys | None) -> None:
    """Report each order that does not match its MAC. `checks` has one element."""
    (check,) = checks
    await check_macs(check, rows(fund, SQL["orders"]), await _macs(fund, keys))


async def _check_rows(checks: Sequence[Check], fund: Connection, keys: Keys | None, kind: Kind) -> None:
    (check,) = checks
    await check_rows(check, rows(fund, SQL[kind.table.replace(".", "_")]), kind, await _macs(fund, keys))


async def _check_findings(checks: Sequence[Check], fund: Connection, keys: Keys | None) -> None:
    (check,) = checks
    async with fund.transaction():
        head = await fund.fetchrow(SQL["findings_head"])
    await check_findings(check, fund, head, _there(keys), SQL["findings"])


async def _check_withdrawn(checks: Sequence[Check], fund: Connection, keys: Keys | None) -> None:
    days = await _days(fund, keys)
    row = (await fund.fetch(SQL["withdrawals_between"]))[0]
    columns = day_columns(days, row["first"], row["last"])
    await run_sql_check(checks, fund, SQL[WITHDRAWN.name], WITHDRAWN, arguments=columns)


async def _check_calendar(
    checks: Sequence[Check], fund: Connection, keys: Keys | None, calendar: Calendar | None
) -> None:
    (check,) = checks
    days = await _days(fund, keys)
    check_calendar(check, days, await fund.fetch(SQL["closed_days"]), calendar)


async def _check_dates(checks: Sequence[Check], fund: Connection, account: Connection, keys: Keys | None) -> None:
    """Compare the accounting dates of the vouchers of the fund service with its days."""
    (check,) = checks
    dates = AccountingDates(await _days(fund, keys))
    async for row in rows(account, LEDGER_SQL["fund_dates"], MODULE):
        check.examine(row, lambda row: f"voucher {row['id']}", dates.differences)


async def _days(fund: Connection, keys: Keys | None) -> Days:
    """Return the days of the fund database. Without keys, the calendars are not verified. Raises KeyFault."""
    async with fund.transaction():
        if keys is not None:
            return (await open_macs(fund, keys)).days
        return unverified_days(await fund.fetch(SQL["fund_calendars"]))


async def _macs(fund: Connection, keys: Keys | None) -> OrderMacs:
    """Return the MACs of the fund database. Raises KeyFault, but not because of a calendar: its row is one of those to
    check.
    """
    async with fund.transaction():
        return await open_macs_alone(fund, _there(keys))


def _there(keys: Keys | None) -> Keys:
    if keys is None:
        raise KeyFault("the keys of the fund database are missing (fund-keys/)")
    return keys


async def _counts(fund: Connection) -> Mapping[str, int]:
    """Return the row counts of the fund database, or zeros if they cannot be read. In that case each check reports its
    own error.
    """
    try:
        async with fund.transaction():
            return dict((await fund.fetch(SQL["counts"]))[0])
    except asyncpg.PostgresError:
        if fund.is_closed():
            raise
        return defaultdict(int)
