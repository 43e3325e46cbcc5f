"""Reconciliation of the fund service: checks that rows of its database match their MACs, and findings
their MAC chain.
"""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import asyncpg

from fundledger.fund.store import mac_layouts as rows_of
from fundledger.fund.store.findings import finding_verifies, head_verifies
from fundledger.fund.store.macs import OrderMacs
from fundledger.outbox.webhooks import WEBHOOK, webhook_fields
from fundledger.reconciliation.fund.orders import named, order_of
from fundledger.reconciliation.reading import Connection, Rows, rows
from fundledger.reconciliation.report import Check, Difference
from fundledger.security import canonical
from fundledger.security.keys import Keys


class Kind(NamedTuple):
    """The rows of one table. `is_swept`: a row older than MACs is accepted until the background job `fund_mac_sweep`
    has written its MAC.
    """

    table: str
    tag: bytes
    fields_of: Callable[[Any], tuple[object, ...]]
    key: tuple[str, ...]
    is_swept: bool = False


KINDS: Final = (
    Kind("fund.payments", rows_of.PAYMENT, rows_of.payment_fields, ("order_id",), True),
    Kind("fund.withdrawal_days", rows_of.DAY, rows_of.day_fields, ("merchant", "day"), True),
    Kind("fund.debts", rows_of.DEBT, rows_of.debt_fields, ("merchant",)),
    Kind("fund.payouts", rows_of.PAYOUT, rows_of.payout_fields, ("order_id",), True),
    Kind("fund.merchants", rows_of.MERCHANT, rows_of.merchant_fields, ("id",)),
    Kind("fund.fee_rules", rows_of.FEE_RULE, rows_of.fee_rule_fields, ("version",)),
    Kind("fund.split_parts", rows_of.PART, rows_of.part_fields, ("order_id", "merchant")),
    Kind("fund.persons", rows_of.PERSON, rows_of.person_fields, ("name",)),
    Kind("fund.channels", rows_of.CHANNEL, rows_of.channel_fields, ("name", "currency")),
    Kind("fund.changes", rows_of.CHANGE, rows_of.change_fields, ("id",)),
    Kind("fund.calendars", rows_of.CALENDAR, rows_of.calendar_fields, ("from_day",)),
    Kind("fund.ends", rows_of.END, rows_of.end_fields, ("order_id", "ending")),
    Kind("fund.holidays", rows_of.HOLIDAY, rows_of.holiday_fields, ("region", "day")),
    Kind("fund.merchant_events", rows_of.MERCHANT_EVENT, rows_of.merchant_event_fields, ("merchant", "version")),
    Kind("fund.payees", rows_of.PAYEE, rows_of.payee_fields, ("id",)),
    Kind("fund.payout_files", rows_of.PAYOUT_FILE, rows_of.payout_file_fields, ("channel", "file_no")),
    Kind(
        "fund.payout_results", rows_of.PAYOUT_RESULTS, rows_of.payout_results_fields, ("channel", "file_no", "digest")
    ),
    Kind("outbox.webhooks", WEBHOOK, webhook_fields, ("id",)),
)


async def check_macs(check: Check, orders: Rows, macs: OrderMacs) -> None:
    """Report each order that does not match its MAC. An order without a MAC is accepted if it is older than MACs."""
    async for row in orders:
        check.examine(row, named, _against_mac, macs)


def _against_mac(row: asyncpg.Record, macs: OrderMacs) -> Difference:
    order = order_of(row)
    order.problem = None if row["problem"] is None else row["problem"].encode()
    if not macs.verifies(order):
        yield "terms and a state that match its MAC", "no MAC" if row["mac"] is None else "different ones"


async def check_rows(check: Check, found: Rows, kind: Kind, macs: OrderMacs) -> None:
    """Report each row of a table that does not match its MAC. A finding names the table and the key of the row."""

    def name(row: asyncpg.Record) -> str:
        return " ".join([kind.table, *(str(row[part]) for part in kind.key)])

    def against_mac(row: asyncpg.Record) -> Difference:
        if not (kind.is_swept and macs.is_old(row)) and not macs.rows.agree(kind.tag, kind.fields_of, row):
            yield "content that matches its MAC", "different content" if row["mac_key"] else "no MAC"

    async for row in found:
        check.examine(row, name, against_mac)


async def check_findings(check: Check, fund: Connection, head: Any, keys: Keys, statement: str) -> None:
    """Report findings that were edited, omitted or deleted. The chain is read from its first finding to its head."""
    seq, mac = 0, canonical.GENESIS
    async for row in rows(fund, statement):
        if row["seq"] != seq + 1:
            check.differs(f"finding {row['seq']}", f"finding {seq + 1}", f"finding {row['seq']}")
        check.examine(row, lambda row: f"finding {row['seq']}", _chained, mac, keys)
        seq, mac = row["seq"], row["mac"]
    if head is None or not head_verifies(head, keys):
        check.differs("the head of the findings", "its MAC", "none" if head is None else "different content")
    elif (head["seq"], head["last_mac"]) != (seq, mac):
        check.differs("the end of the findings", f"{head['seq']} findings, the last as it was written", f"{seq}")


def _chained(row: asyncpg.Record, previous: bytes, keys: Keys) -> Difference:
    if not finding_verifies(row, previous, keys):
        yield "its MAC, chained to the previous finding", "different content"
