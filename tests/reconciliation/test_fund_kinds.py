"""Verification of own money, suspense, disputes and merchants' money: each fault in right books is found, and each column
is under the MAC of its order.
"""

import re
from collections.abc import AsyncIterator

import asyncpg
import pytest

from fundledger.fund.model import accounts
from fundledger.fund.model.order import PLATFORM, Kind, Order, State
from fundledger.fund.store.mac_layouts import DEBT, Progress
from fundledger.fund.store.migrate import migrate
from fundledger.reconciliation.checks import verify
from fundledger.reconciliation.fund.checks import MACS
from fundledger.security.keys import FileKeys
from tests.reconciliation.test_fund_checks import DROP, TABLES, lines
from tests.support import fund_ids
from tests.support.database import ONE_SHARD, Databases, findings
from tests.support.fund_books import check_fund
from tests.support.fund_ids import KEYS, order_id, voucher_id
from tests.support.fund_world import FundWorld, an_order, payment_mac, write
from tests.support.ledger import Ledger

CONSISTENT, EQUAL = "fund_orders_consistent", "fund_equals_account"


def own(kind: Kind, number: str, amount: int, state: State = State.POSTED, **more: object) -> Order:
    """Return an approved order of the platform."""
    return an_order(kind, number, amount, state, **{"merchant": PLATFORM, "approved_by": "other", **more})


def parked(kind: Kind, number: str, amount: int, **more: object) -> Order:
    id_ = order_id(kind, "n", number)
    park = voucher_id(id_, attempt=1)
    terms = {"merchant": "n", "attempt": 1, "parking": "park", "parked_voucher_id": park}
    return an_order(kind, number, amount, State.CLEARED, **{**terms, **more})


class Books(FundWorld):
    """Orders of every further kind, beside their vouchers."""

    def orders(self) -> list[Order]:
        p1 = an_order(Kind.PAYMENT, "p1", 1_000)
        lost = an_order(Kind.DISPUTE, "lost", 60, State.LOST, ending="lost", channel_ref="CB", of_order=p1.id)
        wrong = an_order(Kind.TOP_UP, "wrong", 70)
        undone = an_order(Kind.REVERSAL, "undone", 70, of_order=wrong.id, of_kind="top_up", approved_by="other")
        wrong.reversed_by = undone.id
        cleared = parked(Kind.PAYMENT, "cleared", 90)
        cleared.settle = "now"
        of = {"of_order": cleared.id, "of_kind": "payment", "direction": "in", "against": "income"}
        clearing = own(Kind.PARKED_CLEARING, "clearing", 90, **of)
        cleared.reversed_by = clearing.id
        more, out = {"direction": "more"}, {"direction": "out", "counterparty": "c"}
        return [
            p1,
            an_order(Kind.TOP_UP, "top", 500, channel_ref="T"),
            an_order(Kind.TRANSFER, "move", 100, channel=None, counterparty="n"),
            an_order(Kind.RESERVE_HOLD, "hold", 50, channel=None),
            an_order(Kind.RESERVE_RELEASE, "release", 20, channel=None),
            an_order(Kind.DISPUTE, "open", 100, of_order=p1.id),
            an_order(Kind.DISPUTE, "won", 80, State.WON, ending="won", of_order=p1.id),
            lost,
            an_order(Kind.DISPUTE_WON, "back", 30, of_order=lost.id, of_kind="dispute"),
            an_order(Kind.DISPUTE_FEE, "fee", 10),
            an_order(Kind.DISPUTE_FEE, "owed", 15, against="payable"),
            own(Kind.PAYABLE_PAYMENT, "owed", 15),
            own(Kind.OWN_FUNDS, "in", 40, direction="in"),
            own(Kind.OWN_FUNDS, "out", 10, **out, counter_ref="OUT"),
            own(Kind.FEE_SWEEP, "sweep", 5),
            own(
                Kind.OWN_TRANSFER, "t1", 25, State.PAID, ending="paid", counterparty="c", channel="b", channel_ref="IN"
            ),
            own(Kind.OWN_TRANSFER, "t2", 26, State.BOUNCED, ending="bounced", counterparty="c", channel="b"),
            own(Kind.OWN_TRANSFER, "t3", 27, counterparty="c", channel="b", counter_ref="OUT3"),
            own(Kind.BANK_DIFFERENCE, "d", 9, **more),
            own(Kind.SUSPENSE_CLEARING, "s", 4, merchant="m", channel=None, against="merchant", **more),
            wrong,
            undone,
            cleared,
            clearing,
        ]

    async def fill(self) -> None:
        orders = self.orders()
        for merchant in ("m", "n"):
            await self.open(merchant, "CNY")
        further = [name for order in orders for name in accounts.further(order)]
        for name in [*further, *accounts.of_channel("b", "CNY")]:
            if name.id not in self.opened:
                self.opened[name.id] = (await self.ledger.open(name.id, name.type, name.owner, "CNY")).view.account
        await write(self.fund, orders)
        for order in orders:
            await self.post(order)
            if order.ending is not None:
                await self.end(order)
                await self.count_end(order)
        p1 = Progress(orders[0].id, "m", 1, 1_000, 0, 1_000, 0, charged_back=130)
        await self.fund.execute(
            """INSERT INTO fund.payments (order_id, merchant, seq, amount, fee, settled, fee_settled, charged_back, mac_key, mac)
               VALUES ($1, 'm', 1, 1000, 0, 1000, 0, 130, 1, $2)""",
            *(p1.order_id, payment_mac(p1)),
        )
        mac = fund_ids.MACS.rows.tag(DEBT, ("m", 0))[1]
        await self.fund.execute("INSERT INTO fund.debts VALUES ('m', 0, 1, $1)", mac)

    async def corrupt(self, statement: str) -> tuple[list[str], bool]:
        """Execute a statement while triggers are disabled. Return the findings, and whether a MAC does not verify."""
        transaction = self.fund.transaction()
        await transaction.start()
        try:
            for table in TABLES:
                await self.fund.execute(f"ALTER TABLE fund.{table} DISABLE TRIGGER ALL")
            await self.fund.execute(statement)
            for table, triggers in TABLES.items():
                for trigger in triggers:
                    await self.fund.execute(f"ALTER TABLE fund.{table} ENABLE ALWAYS TRIGGER {table}_{trigger}")
            checks, _ = await check_fund(self.fund, self.fund, self.ledger.connection)
            return lines(checks), any(check.findings for check in checks if check.name == MACS)
        finally:
            await transaction.rollback()


@pytest.fixture(scope="module")
async def right(postgres: Databases, keys: FileKeys) -> AsyncIterator[Books]:
    """Return books that verify. Each test rolls back its changes."""
    fund_dsn = await postgres.empty()
    async with postgres.a_database() as dsn:
        ledger = await Ledger(dsn, keys, ONE_SHARD).start()
        fund = await asyncpg.connect(fund_dsn)
        await migrate(fund)
        books = Books(ledger, fund)
        await books.fill()
        report = await verify(dsn, keys, fund_dsn=fund_dsn, fund_keys=KEYS)
        assert report.ok, findings(report)
        yield books
        await fund.close()
        await ledger.close()
    await postgres.drop(fund_dsn)


def the(number: str) -> str:
    (order,) = [order for order in Books.orders(Books.__new__(Books)) if order.order_no == number]
    return f"WHERE id = '{order.id}'"


SET = "UPDATE fund.orders SET {} {}"
CORRUPTIONS: dict[str, tuple[str, list[str]]] = {
    "a transfer to another merchant": (
        SET.format("counterparty = 'x'", the("move")),
        [f"{EQUAL}: .*expected .*merchant:x:available \\+100"],
    ),
    "a set-off of the receiver": (
        SET.format("counter_set_off = 7", the("move")),
        [f"{EQUAL}: .*expected .*merchant:n:receivable \\+7", f"{CONSISTENT}: debt of n: expected -7, found 0"],
    ),
    "a set-off above the amount": (
        DROP.format("orders", "orders_counterparty") + SET.format("counter_set_off = 101", the("move")),
        [f"{CONSISTENT}: .*expected amounts that are valid for its flow", "fund_guards_in_force: constraint"],
    ),
    "a transfer to nobody": (
        SET.format("counterparty = NULL", the("move")),
        [f"{CONSISTENT}: .*expected amounts that are valid for its flow"],
    ),
    "an own transfer from another bank": (
        SET.format("counterparty = 'b'", the("t3")),
        [f"{EQUAL}: .*expected .*bank:b \\+27"],
    ),
    "an own transfer that ended otherwise": (
        SET.format("ending = 'bounced', state = 'bounced'", the("t1")),
        [f"{EQUAL}: .*expected own_transfer_bounced of .*found own_transfer_paid of", f"{CONSISTENT}: .*last event"],
    ),
    "an own transfer that is won": (
        SET.format("ending = 'won'", the("t3")),
        [f"{CONSISTENT}: .*expected no ending, the order is not posted or has no such end, found ending won"],
    ),
    "a dispute that ended otherwise": (
        SET.format("ending = 'won', state = 'won'", the("lost")),
        [
            f"{EQUAL}: .*expected dispute_released of .*found dispute_lost of",
            f"{CONSISTENT}: payment .*: charged_back: expected 70, found 130",
            f"{CONSISTENT}: dispute_won .*: expected an order .* that it can refer to, found dispute",
        ],
    ),
    "a dispute of nothing": (
        SET.format("of_order = gen_random_uuid()", the("open")),
        [f"{CONSISTENT}: dispute .*: expected an order .*found none"],
    ),
    "the account of a slip": (
        SET.format("against = 'payable'", the("fee")),
        [f"{EQUAL}: .*expected .*payable:c \\+10"],
    ),
    "a clearing that names an account of nothing": (
        SET.format("against = NULL", the("s")),
        [f"{CONSISTENT}: .*expected amounts that are valid for its flow"],
    ),
    "more came back than the dispute took": (
        SET.format("amount = 61", the("back")),
        [f"{CONSISTENT}: dispute .*: expected at most 60 won back, found 61"],
    ),
    "a won dispute of another kind": (
        SET.format("of_kind = 'chargeback'", the("back")),
        [f"{CONSISTENT}: dispute_won .*: expected an order .* that it can refer to, found dispute"],
    ),
    "more own funds left than came in": (
        SET.format("amount = 39", the("in")) + ";" + SET.format("amount = 41", the("out")),
        [f"{CONSISTENT}: own funds in CNY: expected at most 39 out, found 41"],
    ),
    "own funds came in that nobody approved": (
        SET.format("approved_by = NULL", the("in")),
        [f"{CONSISTENT}: .*expected approved by another module or person, found approved by None"],
    ),
    "a reference of own money counts twice": (
        "DROP INDEX fund.orders_counter_ref_once;" + SET.format("counter_ref = 'OUT'", the("t3")),
        [f"{CONSISTENT}: own_transfer t3 of platform: expected OUT once, found also "],
    ),
    "a reference of own money is that of a payout": (
        SET.format("channel_ref = 'OUT3'", the("fee")),
        [f"{CONSISTENT}: own_transfer t3 of platform: expected OUT3 once, found also "],
    ),
    "a reversal of another kind": (
        SET.format("of_kind = 'payment'", the("undone")),
        [f"{CONSISTENT}: reversal .*: expected an order .* that it can refer to, found top_up"],
    ),
    "a cleared order that nothing cleared": (
        SET.format("reversed_by = NULL", the("cleared")),
        [f"{CONSISTENT}: payment .*found reversed by none", f"{CONSISTENT}: parked_clearing .*found payment"],
    ),
    "a cleared order is parked": (
        SET.format("state = 'parked'", the("cleared")),
        [
            f"{CONSISTENT}: parked_clearing .*found payment .*parked",
            f"{CONSISTENT}: .*expected parked as the last event",
        ],
    ),
    "a cleared order is posted": (
        SET.format("state = 'posted', parking = 'release', posted_at = created_at", the("cleared")),
        [
            f"{CONSISTENT}: .*expected posted as the last event, found cleared",
            f"{CONSISTENT}: payment .*found reversed by",
            f"{CONSISTENT}: parked_clearing .*found payment .*posted",
        ],
    ),
    "a clearing of another amount": (
        SET.format("amount = 91", the("clearing")),
        [f"{CONSISTENT}: parked_clearing .*found payment", f"{EQUAL}: .*expected .*suspense:parked -91"],
    ),
    "an order of own money is gone": (
        f"DELETE FROM fund.orders {the('sweep')}",
        [f"{EQUAL}: voucher .*expected an order of the fund service that posts it, found fee_sweep of fund:"],
    ),
}


@pytest.mark.parametrize("what", CORRUPTIONS)
async def test_each_fault_is_found(right: Books, what: str) -> None:
    statement, expected = CORRUPTIONS[what]
    told, _ = await right.corrupt(statement)
    assert [line for line in expected if not any(re.match(line, found) for found in told)] == [], told


@pytest.mark.parametrize(
    ("column", "number"),
    [
        ("against = 'payable'", "fee"),
        ("counterparty = 'x'", "move"),
        ("counter_ref = 'x'", "out"),
        ("counter_ref = NULL", "out"),
        ("counter_set_off = 1", "move"),
        ("of_kind = 'payment'", "undone"),
        ("of_kind = NULL", "undone"),
    ],
)
async def test_each_column_is_under_the_mac(right: Books, column: str, number: str) -> None:
    _, is_found = await right.corrupt(SET.format(column, the(number)))
    assert is_found


async def test_right_books_have_no_finding(right: Books) -> None:
    assert await right.corrupt("SELECT 1") == ([], False)
