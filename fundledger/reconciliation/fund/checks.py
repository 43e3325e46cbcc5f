"""Everything that is proved of the fund service, from a snapshot of its database and one of the ledger's."""

from collections.abc import Callable
from typing import Final

from fundledger.database.statements import load
from fundledger.reconciliation.evidence import Names
from fundledger.reconciliation.fund.orders import check_orders
from fundledger.reconciliation.fund.vouchers import compare_vouchers
from fundledger.reconciliation.reading import SQL as LEDGER_SQL
from fundledger.reconciliation.reading import Connection, rows
from fundledger.reconciliation.report import Check, Fund

SQL: Final = load("fundledger.reconciliation.fund")
CHECKS: Final = ("fund_orders_consistent", "fund_equals_account", "fund_guards_in_force")
APPEND_ONLY: Final = ("fee_rules", "settled_payments", "events")
GUARDS: Final = frozenset(
    {
        "merchants_id_once",
        "fee_rules_basis_points",
        "fee_rules_fixed",
        "fee_rules_minimum",
        "fee_rules_maximum",
        "orders_id_once",
        "orders_state",
        "orders_amount",
        "orders_fee",
        "orders_from_pending",
        "orders_to_receivable",
        "orders_fee_waived",
        "orders_ending",
        "orders_refused_for_a_reason",
        "orders_approved_by_another",
        "orders_no_delete",
        "orders_no_truncate",
        "payments_pkey",
        "payments_never_more_back_than_paid",
        "payments_settled",
        "payments_refunded",
        "payments_fee",
        "payments_fee_returned",
        "payments_reversed",
        "settled_payments_pkey",
        "settled_payments_amount",
        "settled_payments_fee",
        "withdrawal_days_pkey",
        "withdrawal_days_amount",
        *(f"{table}_append_only" for table in APPEND_ONLY),
        *(f"{table}_no_truncate" for table in APPEND_ONLY),
    }
)
"""What the fund database itself must refuse; a guard that was dropped is a finding."""


async def check_fund(
    fund: Connection, later: Connection, account: Connection, names: Names, progress: Callable[[str, int], None]
) -> tuple[list[Check], Fund]:
    """`fund` and `account` are snapshots, that of the fund service not taken after the other one. `later` is no
    snapshot: the fund database is asked on it for what came after them.
    """
    counts = (await fund.fetch(SQL["counts"]))[0]
    progress("the orders", counts["orders"])
    consistent = await check_orders(rows(fund, SQL["orders"]), rows(fund, SQL["events"]))
    for name, subject, expected, actual in (
        ("payments_equal_orders", "payment {id}: {name}", "{expected}", "{actual}"),
        ("payments_kept", "payment {id}", "what became of it is kept, because {why}", "nothing is"),
        ("payments_not_exceeded", "payment {id}", "at most {amount} comes back", "{back}"),
        ("orders_of_orders", "{kind} {id}", "an order of the same merchant that it can be about", "{found}"),
        ("settlements_equal_parts", "settlement {id}", "its parts: {expected}", "{actual}"),
        ("withdrawal_days_equal_orders", "withdrawals of {merchant} on {day}", "{expected}", "{actual}"),
    ):
        progress(name, counts["orders"])
        for row in await fund.fetch(SQL[name]):
            consistent.differs(subject.format(**row), expected.format(**row), actual.format(**row))
    progress("orders and vouchers", counts["orders"])
    equal, totals = await compare_vouchers(
        rows(fund, SQL["steps"]),
        rows(account, LEDGER_SQL["fund_vouchers"]),
        names,
        lambda ids, reversed_: later.fetch(SQL["late_orders"], ids, reversed_),
    )
    return [consistent, equal, await _guards(fund)], totals


async def _guards(fund: Connection) -> Check:
    check = Check("fund_guards_in_force", rows=len(GUARDS))
    standing = {row["name"] for row in await fund.fetch(SQL["guards"])}
    for name in sorted(GUARDS - standing):
        check.differs(name, "in force", "missing")
    return check
