"""Orders of every kind beside their vouchers, created without the service: a fund database and a ledger that agree."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
from asyncpg.pgproto import pgproto

from fundledger.fund.model import accounts
from fundledger.fund.model.flows import Entry, end_entries_of, end_voucher_type, entries_of, voucher_type
from fundledger.fund.model.order import PLATFORM, Kind, Order, State
from fundledger.fund.model.transitions import POSTED
from fundledger.fund.store.calendars import record_first
from fundledger.fund.store.ends import end_mac
from fundledger.fund.store.mac_layouts import DAY, DEBT, PAYMENT, PAYOUT, Progress, fields_of_day, fields_of_payout
from fundledger.fund.store.queries import SQL
from tests.support.fund_ids import MACS, order_id, voucher_id
from tests.support.ledger import Ledger, posted, voucher
from tests.support.tampering import any_state

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
COLUMNS = [name for name in Order.__struct_fields__ if name != "seq"]
PLATFORMS = {Kind.CHANNEL_COST, Kind.BANK_DIFFERENCE}


def an_order(kind: Kind, order_no: str, amount: int, state: State = State.POSTED, **more: Any) -> Order:
    """Return an order as the order batcher creates it."""
    merchant = more.pop("merchant", PLATFORM if kind in PLATFORMS else "m")
    fields = {
        "fee": 0,
        "currency": "CNY",
        "digest": b"\x00" * 32,
        "module": "front",
        "created_at": AT,
        "posted_at": AT if state in POSTED else None,
        "problem": b'{"code":"no"}' if state is State.REFUSED else None,
        "settle": "now" if kind is Kind.PAYMENT else None,
        "channel": None if kind in {Kind.SETTLEMENT, Kind.RECOVERY, Kind.WRITE_OFF, Kind.ADJUSTMENT} else "c",
    }
    id_ = order_id(kind, merchant, order_no)
    fields["voucher_id"] = voucher_id(id_, attempt=more.get("attempt", 0))
    if more.get("ending"):
        fields["end_voucher_id"] = voucher_id(id_, "end", more.get("attempt", 0))
    return Order(id=id_, kind=kind, merchant=merchant, order_no=order_no, amount=amount, state=state, **(fields | more))


def states(order: Order) -> list[State]:
    """Return the states of an order after its first."""
    was_created = order.kind is Kind.ADJUSTMENT or order.approved_by is not None
    first = [State.POSTING] if was_created and order.state is not State.CREATED else []
    if order.state in {State.CREATED, State.POSTING}:
        return first
    if order.state in {State.PAID, State.UNKNOWN} and order.kind is Kind.WITHDRAWAL:
        return [State.POSTED, State.SENT, order.state]
    if order.state is State.CLEARED:
        return [State.PARKED, State.CLEARED]
    return (
        [*first, order.state] if order.state in {State.POSTED, State.REFUSED} else [*first, State.POSTED, order.state]
    )


async def write(fund: "asyncpg.Connection[Any]", orders: Sequence[Order]) -> None:
    """Insert orders and their events."""
    places = ", ".join(f"${i + 1}" for i in range(len(COLUMNS)))
    rows = []
    for order in orders:
        MACS.seal(order)
        row = msgspec.structs.asdict(order) | {"problem": order.problem and order.problem.decode()}
        rows.append([row[name] for name in COLUMNS])
    async with any_state(fund):
        await fund.executemany(f"INSERT INTO fund.orders ({', '.join(COLUMNS)}) VALUES ({places})", rows)
    await fund.executemany(
        "INSERT INTO fund.events (order_id, merchant, kind, state, at) VALUES ($1, $2, $3, $4, $5)",
        [(order.id, order.merchant, order.kind, state, AT) for order in orders for state in states(order)],
    )


TAKEN_BACK = """
DELETE FROM public.fundledger_fund_migrations WHERE number = 12;
DROP TABLE fund.unswept, fund.integrity_findings, fund.findings_head;
DROP TRIGGER payments_no_delete ON fund.payments; DROP TRIGGER payments_no_truncate ON fund.payments;
DROP TRIGGER withdrawal_days_no_delete ON fund.withdrawal_days; DROP TRIGGER withdrawal_days_no_truncate ON fund.withdrawal_days;
DROP TRIGGER fee_rules_append_only ON fund.fee_rules;
DROP FUNCTION fund.refuse_change_but_mac;
CREATE TRIGGER fee_rules_append_only BEFORE UPDATE OR DELETE ON fund.fee_rules FOR EACH ROW EXECUTE FUNCTION fund.refuse_change();
ALTER TABLE fund.fee_rules ENABLE ALWAYS TRIGGER fee_rules_append_only;
ALTER TABLE fund.orders DROP COLUMN layout, DROP CONSTRAINT orders_times;
ALTER TABLE fund.payments DROP COLUMN mac, DROP COLUMN mac_key;
ALTER TABLE fund.withdrawal_days DROP COLUMN mac, DROP COLUMN mac_key;
ALTER TABLE fund.merchants DROP COLUMN mac, DROP COLUMN mac_key;
ALTER TABLE fund.fee_rules DROP COLUMN mac, DROP COLUMN mac_key;
ALTER TABLE fund.payouts DROP COLUMN mac, DROP COLUMN mac_key;
ALTER TABLE outbox.webhooks DROP COLUMN mac, DROP COLUMN mac_key
"""
"""Reverts 0012_row_macs.sql: the database is as in the release before it."""


def payment_mac(progress: Progress) -> bytes:
    return MACS.rows.tag(PAYMENT, progress.fields())[1]


@dataclass
class FundWorld:
    ledger: Ledger
    fund: "asyncpg.Connection[Any]"
    opened: dict[str, Any] = field(default_factory=dict)

    async def open(self, merchant: str, currency: str) -> None:
        for name in [
            *accounts.of_merchant(merchant),
            *accounts.of_platform(currency),
            *accounts.of_channel("c", currency),
        ]:
            if name.id not in self.opened:
                view = (await self.ledger.open(name.id, name.type, name.owner, currency)).view
                self.opened[name.id] = view.account

    async def post(self, order: Order) -> None:
        """Return the voucher that posts the order."""
        if order.kind is Kind.REVERSAL:
            assert order.of_order is not None
            original = voucher_id(order.of_order)
            record = await self.ledger.record(pgproto.UUID(original.bytes), "fund")
            assert record is not None
            lines = [(account, -amount) for account, amount in record.lines]
            await self._post(order.voucher_id, "reversal", lines, None, pgproto.UUID(original.bytes))
        else:
            await self.post_entries(order, order.voucher_id, voucher_type(order), entries_of(order))

    async def count_end(self, order: Order) -> None:
        """Insert the row of an order that ended."""
        end = AT.date(), AT, 1, end_mac(MACS, order, AT.date(), AT)
        await self.fund.execute("INSERT INTO fund.ends VALUES ($1, $2, $3, $4, $5, $6)", order.id, order.state, *end)

    async def end(self, order: Order) -> None:
        """Return the voucher that ends the order."""
        ending: Any = order.ending
        await self.post_entries(
            order, voucher_id(order.id, "end"), end_voucher_type(order.kind, ending), end_entries_of(order, ending)
        )

    async def post_entries(
        self, order: Order, id_: UUID, type_: str, entries: Sequence[Entry], module: str = "fund"
    ) -> None:
        lines = [(self.opened[e.account], e.amount if e.side == "credit" else -e.amount) for e in entries]
        await self._post(id_, type_, lines, f"fund:{order.id}", None, module)

    async def _post(
        self, id_: UUID, type_: str, lines: Any, reference: str | None, reverses: Any, module: str = "fund"
    ) -> None:
        said = {"reference": reference, "reverses": reverses, "module": module}
        asked = voucher(*lines, id_=pgproto.UUID(id_.bytes), type_=type_, **said)
        outcome = await self.ledger.post_one(asked)
        assert posted(outcome), outcome

    async def fill(self) -> None:
        """Create one order of each kind and outcome; the books verify."""
        await record_first(self.fund, MACS.rows, MACS.days, "UTC", time())
        await self.open("m", "CNY")
        await self.open("u", "USD")
        p1 = an_order(Kind.PAYMENT, "p1", 1000, fee=6)
        p2 = an_order(Kind.PAYMENT, "p2", 800, fee=8, settle="later")
        cost = an_order(Kind.CHANNEL_COST, "cost", 5)
        undone = an_order(Kind.REVERSAL, "undone", 5, merchant=PLATFORM, of_order=cost.id, channel=None)
        cost.reversed_by = undone.id
        settlement = an_order(Kind.SETTLEMENT, "s1", 500, fee=5)
        orders = [
            p1,
            p2,
            settlement,
            an_order(Kind.REFUND, "r1", 300, fee=1, of_order=p1.id),
            an_order(Kind.REFUND, "r2", 200, from_pending=200, fee_waived=2, of_order=p2.id),
            an_order(Kind.REFUND, "r3", 50, State.REFUSED, of_order=p1.id),
            an_order(Kind.WITHDRAWAL, "w1", 100, State.PAID, fee=1, ending="paid"),
            an_order(Kind.WITHDRAWAL, "w2", 200, State.BOUNCED, fee=1, ending="bounced"),
            an_order(Kind.WITHDRAWAL, "w3", 30),
            an_order(Kind.WITHDRAWAL, "w4", 40, State.SENT),
            an_order(Kind.WITHDRAWAL, "w5", 50, State.UNKNOWN, ending="paid"),
            an_order(Kind.WITHDRAWAL, "w6", 60, State.REFUSED),
            an_order(Kind.CHARGEBACK, "c1", 100, attempt=1, to_receivable=40, of_order=p1.id),
            an_order(Kind.RECOVERY, "y1", 20),
            an_order(Kind.WRITE_OFF, "o1", 20),
            an_order(Kind.ADJUSTMENT, "a1", 10, direction="credit", approved_by="other"),
            an_order(Kind.ADJUSTMENT, "a2", 10, State.CREATED, direction="debit"),
            cost,
            undone,
            an_order(Kind.BANK_DIFFERENCE, "d1", 7, direction="more"),
            an_order(Kind.PAYMENT, "p3", 90, State.POSTING),
            an_order(Kind.PAYMENT, "p4", 91, State.POSTING),
            an_order(Kind.PAYMENT, "p5", 92, State.REFUSED),
            an_order(Kind.PAYMENT, "p6", 93, merchant="u", currency="USD"),
        ]
        await write(self.fund, orders)
        for order in orders:
            if order.state in POSTED or order.order_no == "p4":
                await self.post(order)
            if order.state in {State.PAID, State.BOUNCED}:
                await self.end(order)
        await self.fund.execute(
            """INSERT INTO fund.payments (order_id, merchant, seq, amount, fee, settled, fee_settled, refunded,
               refunded_unsettled, fee_waived, fee_returned, charged_back, mac_key, mac)
               VALUES ($1, 'm', 1, 1000, 6, 1000, 6, 300, 0, 0, 1, 100, 1, $3),
                      ($2, 'm', 2, 800, 8, 500, 5, 200, 200, 2, 0, 0, 1, $4)""",
            p1.id,
            p2.id,
            payment_mac(Progress(p1.id, "m", 1, 1000, 6, 1000, 6, 300, 0, 0, 1, 100)),
            payment_mac(Progress(p2.id, "m", 2, 800, 8, 500, 5, 200, 200, 2)),
        )
        await self.fund.execute(
            "INSERT INTO fund.settled_payments (settlement, payment, amount, fee) VALUES ($1, $2, 500, 5)",
            settlement.id,
            p2.id,
        )
        await self.fund.execute("INSERT INTO fund.debts VALUES ('m', 0, 1, $1)", MACS.rows.tag(DEBT, ("m", 0))[1])
        mac = MACS.rows.tag(DAY, fields_of_day(("m", AT.date()), 220))[1]
        await self.fund.execute("INSERT INTO fund.withdrawal_days VALUES ('m', $1, 220, 1, $2)", AT.date(), mac)
        for order in orders:
            if order.order_no in ("w1", "w2", "w4"):
                row = order.id, "c", order.amount, "CNY", order.ending
                await self.fund.execute(
                    """INSERT INTO fund.payouts (order_id, channel, amount, currency, outcome, sent_at, due_at, mac_key, mac)
                       VALUES ($1, $2, $3, $4, $5, $6::timestamptz, CASE WHEN $5::text IS NULL THEN $6::timestamptz END, 1, $7)""",
                    *row,
                    AT,
                    MACS.rows.tag(PAYOUT, fields_of_payout(*row))[1],
                )
        for order in orders:
            if order.state in {State.PAID, State.BOUNCED}:
                await self.count_end(order)
        begins = MACS.days.beginning_of(AT.date())
        await self.fund.execute(SQL["close_day"], AT.date(), begins, begins + timedelta(days=1))
