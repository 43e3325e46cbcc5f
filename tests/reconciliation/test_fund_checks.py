"""The checks of the fund service against the ledger: each finds one fault in books that verify otherwise."""

import re
from collections.abc import AsyncIterator, Callable
from datetime import time, timedelta
from typing import Any

import asyncpg
import msgspec
import pytest

from fundledger.app.commands.books import text
from fundledger.fund.model.flows import Entry
from fundledger.fund.model.order import Kind, Order, State
from fundledger.fund.store.migrate import migrate
from fundledger.reconciliation.checks import verify
from fundledger.reconciliation.fund.checks import CHECKS, MACS, SQL
from fundledger.reconciliation.reading import connected, snapshot
from fundledger.reconciliation.report import FINDINGS_MAX, Check, Fund, Total
from fundledger.security.keys import FileKeys
from tests.support.database import ONE_SHARD, Databases, findings
from tests.support.fund_books import check_fund
from tests.support.fund_ids import KEYS, order_id, voucher_id
from tests.support.fund_world import AT, FundWorld, an_order, write
from tests.support.ledger import Ledger

TABLES = {
    "fee_rules": ("append_only", "no_truncate", "currency"),
    "settled_payments": ("append_only", "no_truncate"),
    "events": ("append_only", "no_truncate"),
    "orders": ("no_delete", "no_truncate", "first_state", "transition"),
    "payments": ("no_delete", "no_truncate"),
    "withdrawal_days": ("no_delete", "no_truncate"),
    "day_ends": ("append_only", "no_truncate"),
    "day_sums": ("append_only", "no_truncate"),
    "ends": ("append_only", "no_truncate"),
}


def name_of(dsn: str) -> str:
    return dsn.partition("@/")[2].partition("?")[0]


@pytest.fixture(scope="module")
async def templates(postgres: Databases, keys: FileKeys) -> AsyncIterator[tuple[str, str]]:
    """Return the names of a fund database and an account database that verify. Every test gets copies of them."""
    fund_dsn = await postgres.empty()
    async with postgres.a_database() as dsn:
        ledger = await Ledger(dsn, keys, ONE_SHARD).start()
        fund = await asyncpg.connect(fund_dsn)
        await migrate(fund)
        await FundWorld(ledger, fund).fill()
        await fund.close()
        await ledger.close()
        yield name_of(fund_dsn), name_of(dsn)
    await postgres.drop(fund_dsn)


class Books(FundWorld):
    """Copies of both databases."""

    fund_dsn: str

    async def check(self, between: Callable[[], Any] | None = None) -> tuple[list[Check], Fund]:
        """Run the checks. `between` is called after the fund database was read and before the ledger is read."""
        async with snapshot(self.fund_dsn) as fund:
            if between is not None:
                await between()
            async with snapshot(self.ledger.dsn) as account, connected(self.fund_dsn) as later:
                return await check_fund(fund, later, account)

    async def check_with(self, *statements: str, ledger: str | None = None) -> list[str]:
        """Execute statements that make a fault, return the findings, and roll back."""
        account = self.ledger.connection
        in_fund, in_ledger = self.fund.transaction(), account.transaction()
        await in_fund.start()
        await in_ledger.start()
        try:
            for statement in statements:
                await self.fund.execute(statement)
            if ledger is not None:
                await account.execute("ALTER TABLE ledger.vouchers DISABLE TRIGGER ALL")
                assert await account.execute(ledger) == "UPDATE 1", "the tampering missed"
            checks, _ = await check_fund(self.fund, self.fund, account)
            return lines(checks)
        finally:
            await in_ledger.rollback()
            await in_fund.rollback()

    async def corrupt(self, statement: str) -> list[str]:
        """Execute a statement while triggers are disabled. Return the findings."""
        aside = [f"ALTER TABLE fund.{table} DISABLE TRIGGER ALL" for table in TABLES]
        back = [
            f"ALTER TABLE fund.{table} ENABLE ALWAYS TRIGGER {table}_{trigger}"
            for table, triggers in TABLES.items()
            for trigger in triggers
        ]
        return await self.check_with(*aside, statement, *back)


async def copy(postgres: Databases, templates: tuple[str, str], keys: FileKeys) -> AsyncIterator[Books]:
    fund_dsn, dsn = [await postgres.empty(template) for template in templates]
    ledger = await Ledger(dsn, keys, ONE_SHARD).start()
    books = Books(ledger, await asyncpg.connect(fund_dsn))
    books.fund_dsn = fund_dsn
    yield books
    await books.fund.close()
    await ledger.close()
    await postgres.drop(fund_dsn)
    await postgres.drop(dsn)


@pytest.fixture(scope="module")
async def right(postgres: Databases, templates: tuple[str, str], keys: FileKeys) -> AsyncIterator[Books]:
    """Return one copy for all tests that roll back their changes."""
    async for books in copy(postgres, templates, keys):
        yield books


@pytest.fixture
async def books(postgres: Databases, templates: tuple[str, str], keys: FileKeys) -> AsyncIterator[Books]:
    async for books in copy(postgres, templates, keys):
        await load_accounts(books)
        yield books


def lines(checks: list[Check]) -> list[str]:
    """Return the findings, except those of MACs. Almost every fault here also changes a MAC's content."""
    return [
        f"{c.name}: {f.subject}: expected {f.expected}, found {f.actual}"
        for c in checks
        for f in c.findings
        if c.name != MACS
    ]


async def test_books_that_are_right_are_found_right(right: Books):
    report = await verify(right.ledger.dsn, right.ledger.keys, fund_dsn=right.fund_dsn, fund_keys=KEYS)
    assert report.ok, findings(report)
    assert {check.name for check in report.checks} >= set(CHECKS)
    assert report.fund is not None
    assert report.fund.orders == 24
    kinds = report.fund.by_kind
    assert kinds["payment"] == Total(orders=5, amount=1800, in_flight=2, refused=1, vouchers=3, moved=1891)
    assert kinds["payment:USD"] == Total(orders=1, amount=93, vouchers=1, moved=93)
    assert kinds["withdrawal"] == Total(orders=6, amount=422, refused=1, vouchers=5, moved=422)
    assert kinds["withdraw_paid"] == Total(orders=2, amount=100, in_flight=1, vouchers=1, moved=100)
    assert kinds["reversal"] == Total(orders=1, amount=5, vouchers=1, moved=5)
    assert re.search(r"payment +5 orders \(2 in flight, 1 refused\)", text(report))


async def test_without_a_fund_service_its_checks_are_left_out(right: Books):
    report = await verify(right.ledger.dsn, right.ledger.keys)
    assert not {check.name for check in report.checks} & set(CHECKS)
    assert "fund" not in msgspec.to_builtins(report)


def the(kind: Kind, order_no: str) -> str:
    merchant = "platform" if kind in {Kind.CHANNEL_COST, Kind.REVERSAL} else "m"
    return f"'{order_id(kind, merchant, order_no)}'"


P1, P2, R1 = the(Kind.PAYMENT, "p1"), the(Kind.PAYMENT, "p2"), the(Kind.REFUND, "r1")
W1, W3, W4 = (the(Kind.WITHDRAWAL, number) for number in ("w1", "w3", "w4"))
C1 = the(Kind.CHARGEBACK, "c1")
A1, A2, COST, UNDONE = (
    the(Kind.ADJUSTMENT, "a1"),
    the(Kind.ADJUSTMENT, "a2"),
    the(Kind.CHANNEL_COST, "cost"),
    the(Kind.REVERSAL, "undone"),
)
CONSISTENT, EQUAL, CALENDAR = "fund_orders_consistent", "fund_equals_account", "fund_calendar_agrees"
DROP = "ALTER TABLE fund.{} DROP CONSTRAINT {};"

CORRUPTIONS: dict[str, tuple[str, list[str]]] = {
    # fault: (how, the findings)
    "an order is gone": (
        f"DELETE FROM fund.orders WHERE id = {W3}",
        [
            f"{CONSISTENT}: event .* of order .*: expected an order, found none",
            f"{EQUAL}: voucher .*: expected an order of the fund service that posts it, found withdraw of fund:",
            f"{CONSISTENT}: withdrawals of m on 2026-03-01: expected 190, found 220",
        ],
    ),
    "a reversal is gone": (
        f"DELETE FROM fund.orders WHERE id = {UNDONE}",
        [
            f"{EQUAL}: voucher .* found reversal of no order: .*bank:c -5",
            f"{CONSISTENT}: channel_cost .*found reversed by",
        ],
    ),
    "an amount": (
        f"UPDATE fund.orders SET amount = amount + 1 WHERE id = {P1}",
        [
            rf"{EQUAL}: order .*\(payment p1 of m\), voucher .*: expected .*bank:c -1001.*, found .*bank:c -1000",
            f"{CONSISTENT}: payment .*: amount: expected 1001, found 1000",
        ],
    ),
    "a fee": (f"UPDATE fund.orders SET fee = 7 WHERE id = {P1}", [f"{EQUAL}: .*expected .*income:fee .7"]),
    "a fee above the amount": (
        f"UPDATE fund.orders SET fee = 2000 WHERE id = {P1}",
        [
            f"{CONSISTENT}: .*expected amounts that are valid for its flow",
            f"{EQUAL}: .*expected an order that is valid for its flow",
        ],
    ),
    "a channel": (f"UPDATE fund.orders SET channel = 'x' WHERE id = {P1}", [f"{EQUAL}: .*expected .*bank:x -1000"]),
    "a currency": (f"UPDATE fund.orders SET currency = 'USD' WHERE id = {P1}", [f"{EQUAL}: .*expected .*bank:c:USD"]),
    "a merchant": (
        f"UPDATE fund.orders SET merchant = 'u' WHERE id = {P1}",
        [
            rf"{CONSISTENT}: order .*\(payment p1 of u\): expected the id of its names",
            f"{CONSISTENT}: event .*: expected payment of u, found payment of m",
            f"{CONSISTENT}: refund .*: expected an order of the same merchant",
        ],
    ),
    "a kind": (
        f"UPDATE fund.orders SET kind = 'theft' WHERE id = {P1}",
        [f"{CONSISTENT}: .*expected a known kind and state"],
    ),
    "an id of a voucher": (
        f"UPDATE fund.orders SET voucher_id = gen_random_uuid() WHERE id = {P1}",
        [
            f"{CONSISTENT}: .*expected the voucher of its id",
            f"{EQUAL}: order .*: expected voucher .* is posted, the order is posted, found none",
            f"{EQUAL}: voucher .*: expected an order of the fund service that posts it",
        ],
    ),
    "an attempt of a payment": (
        f"UPDATE fund.orders SET attempt = 1, voucher_id = '{voucher_id(order_id('payment', 'm', 'p1'), attempt=1)}' WHERE id = {P1}",
        [f"{CONSISTENT}: .*expected one attempt, found attempt 1"],
    ),
    "posted is refused": (
        f"UPDATE fund.orders SET state = 'refused', problem = '{{}}', posted_at = NULL WHERE id = {the(Kind.RECOVERY, 'y1')}",
        [
            f"{EQUAL}: .*expected no voucher, the order is refused, found voucher .*merchant:m:available -20",
            f"{CONSISTENT}: debt of m: expected 20, found 0",
            f"{CONSISTENT}: .*expected refused as the last event, found posted",
        ],
    ),
    "refused is posted": (
        f"UPDATE fund.orders SET state = 'posted', problem = NULL, posted_at = now() WHERE id = {the(Kind.PAYMENT, 'p5')}",
        [f"{EQUAL}: .*is posted, the order is posted, found none", f"{CONSISTENT}: .*last event, found refused"],
    ),
    "posted is posting again": (
        f"UPDATE fund.orders SET state = 'posting' WHERE id = {P1}",
        [f"{CONSISTENT}: .*expected no posting time", f"{CONSISTENT}: .*expected posting as the last event"],
    ),
    "a refusal without a problem": (
        DROP.format("orders", "orders_refused_for_a_reason")
        + f"UPDATE fund.orders SET problem = NULL WHERE id = {the(Kind.PAYMENT, 'p5')}",
        [
            f"{CONSISTENT}: .*expected a problem, the order is refused, found none",
            "fund_guards_in_force: constraint fund.orders.orders_refused_for",
        ],
    ),
    "no time of posting": (
        f"UPDATE fund.orders SET posted_at = NULL WHERE id = {P1}",
        [f"{CONSISTENT}: .*expected a posting time, the order is posted, found None"],
    ),
    "a payment is paid": (
        f"UPDATE fund.orders SET state = 'paid' WHERE id = {P1}",
        [f"{CONSISTENT}: .*expected paid as the last event, found posted"],
    ),
    "a payment went on, and its events are complete": (
        (
            f"UPDATE fund.orders SET state = 'sent' WHERE id = {P1};"
            f" INSERT INTO fund.events (order_id, merchant, kind, state, at) VALUES ({P1}, 'm', 'payment', 'sent', now())"
        ),
        [f"{CONSISTENT}: .*expected a state that comes after posted, found sent"],
    ),
    "a withdrawal returned to another state than it came from": (
        (
            f"UPDATE fund.orders SET state = 'posting', posted_at = NULL WHERE id = {W3};"
            " INSERT INTO fund.events (order_id, merchant, kind, state, at)"
            f" SELECT {W3}, 'm', 'withdrawal', state, now() FROM unnest(ARRAY['stuck', 'posting']) AS state"
        ),
        [f"{CONSISTENT}: .*expected a state that comes after stuck, found posting"],
    ),
    "a payment is created": (
        f"UPDATE fund.orders SET state = 'created', posted_at = NULL WHERE id = {P1}",
        [
            f"{CONSISTENT}: .*expected created as the last event",
            f"{EQUAL}: .*expected no voucher, the order is created",
        ],
    ),
    "a withdrawal ends otherwise": (
        f"UPDATE fund.orders SET ending = 'bounced' WHERE id = {W1}",
        [
            f"{CONSISTENT}: .*expected ending paid, found ending bounced",
            f"{EQUAL}: .*expected withdraw_bounced of .*found withdraw_paid of",
        ],
    ),
    "a withdrawal that did not end has": (
        f"UPDATE fund.orders SET state = 'paid', ending = 'paid' WHERE id = {W3}",
        [f"{EQUAL}: order .* of m, paid.: expected voucher .* is posted, the order is paid, found none"],
    ),
    "a withdrawal that ended has not": (
        f"UPDATE fund.orders SET state = 'posted', ending = NULL WHERE id = {W1}",
        [f"{EQUAL}: voucher .* found withdraw_paid of fund:"],
    ),
    "an ending before it is posted": (
        f"UPDATE fund.orders SET ending = 'paid' WHERE id = {the(Kind.WITHDRAWAL, 'w6')}",
        [f"{CONSISTENT}: .*expected no ending, the order is not posted or has no such end"],
    ),
    "nobody approved": (
        f"UPDATE fund.orders SET approved_by = NULL WHERE id = {A1}",
        [f"{CONSISTENT}: .*expected approved by another module or person, found approved by None"],
    ),
    "who asked for it approved it": (
        DROP.format("orders", "orders_approved_by_another")
        + f"UPDATE fund.orders SET approved_by = module WHERE id = {A1}",
        [f"{CONSISTENT}: .*expected approved by another module or person, found approved by front"],
    ),
    "what was reversed is not known to be": (
        f"UPDATE fund.orders SET reversed_by = NULL WHERE id = {COST}",
        [f"{CONSISTENT}: reversal .*: expected an order .* that it can refer to, found channel_cost"],
    ),
    "a reversal is of another order": (
        f"UPDATE fund.orders SET of_order = {P1} WHERE id = {UNDONE}",
        [rf"{EQUAL}: order .*\(reversal undone .*expected voucher .* is the reversal of"],
    ),
    "a refund is of another payment": (
        f"UPDATE fund.orders SET of_order = {P2} WHERE id = {R1}",
        [
            f"{CONSISTENT}: payment .*: refunded: expected 500, found 200",
            f"{CONSISTENT}: payment .*: refunded: expected 0, found 300",
        ],
    ),
    "a refund is of nothing": (
        f"UPDATE fund.orders SET of_order = gen_random_uuid() WHERE id = {R1}",
        [
            f"{CONSISTENT}: refund .*: expected an order of the same merchant that it can refer to, found none",
            f"{CONSISTENT}: payment .*: expected a row in fund.payments, because it has a refund, found none",
        ],
    ),
    "more came back than was paid": (
        f"UPDATE fund.orders SET amount = 950 WHERE id = {R1}",
        [f"{CONSISTENT}: payment .*: expected at most 1000 refunded or charged back, found 1050"],
    ),
    "what became of a payment is gone": (
        f"DELETE FROM fund.payments WHERE order_id = {P2}",
        [f"{CONSISTENT}: payment .*: expected a row in fund.payments"],
    ),
    "what became of a payment that is none": (
        f"INSERT INTO fund.payments (order_id, merchant, seq, amount, fee, settled, fee_settled, mac_key, mac) VALUES ({W1}, 'm', 9, 1, 0, 1, 0, 1, 'x')",
        [f"{CONSISTENT}: payment .*: amount: expected None, found 1"],
    ),
    **{
        f"{column} of a payment": (
            f"UPDATE fund.payments SET {column} = {column} - 1 WHERE order_id = {payment}",
            [rf"{CONSISTENT}: payment .*: {column}: expected \d+, found \d+"],
        )
        for column, payment in (
            ("refunded", P1),
            ("fee_returned", P1),
            ("charged_back", P1),
            ("fee", P1.replace(P1, P2)),
            ("settled", P2),
            ("fee_settled", P2),
            ("refunded_unsettled", P2),
            ("fee_waived", P2),
        )
    },
    "a payout of no withdrawal": (
        f"""INSERT INTO fund.payouts (order_id, channel, amount, currency, sent_at, due_at, mac_key, mac)
            VALUES ({P1}, 'c', 1000, 'CNY', now(), now(), 1, 'x')""",
        [f"{CONSISTENT}: payout .*: amount: expected None, found 1000"],
    ),
    **{
        f"a payout: {change}": (
            f"UPDATE fund.payouts SET {change} WHERE order_id = {withdrawal}",
            [f"{CONSISTENT}: payout .*: {told}"],
        )
        for change, withdrawal, told in (
            ("amount = 1", W1, "amount: expected 100, found 1"),
            ("channel = 'x'", W1, "channel: expected c, found x"),
            ("currency = 'USD'", W1, "currency: expected CNY, found USD"),
            ("outcome = 'bounced'", W1, "outcome: expected paid, found bounced"),
            ("outcome = 'paid', due_at = NULL", W4, "outcome: expected none, found paid"),
        )
    },
    "a withdrawal was paid out and is not sent": (
        f"UPDATE fund.orders SET state = 'posted' WHERE id = {W4}",
        [f"{CONSISTENT}: payout .*: state: expected sent, found posted"],
    ),
    "a payment is said to be reversed": (
        DROP.format("payments", "payments_reversed")
        + f"UPDATE fund.payments SET reversed = true WHERE order_id = {P1}",
        [f"{CONSISTENT}: payment .*: reversed: expected false, found true"],
    ),
    "a part of a settlement": (
        "UPDATE fund.settled_payments SET amount = 499",
        [f"{CONSISTENT}: settlement .*: expected its parts: amount 499, fee 5, tax 0, found amount 500, fee 5, tax 0"],
    ),
    "a part of no settlement": (
        f"INSERT INTO fund.settled_payments VALUES (gen_random_uuid(), {P2}, 1, 0)",
        [f"{CONSISTENT}: settlement .*: expected its parts: amount 1, fee 0, tax 0, found amount , fee , tax "],
    ),
    "what was withdrawn on a day": (
        "UPDATE fund.withdrawal_days SET amount = amount - 1",
        [f"{CONSISTENT}: withdrawals of m on 2026-03-01: expected 220, found 219"],
    ),
    "a day without withdrawals": (
        "INSERT INTO fund.withdrawal_days VALUES ('u', '2026-03-01', 7, 1, 'x')",
        [f"{CONSISTENT}: withdrawals of u on 2026-03-01: expected 0, found 7"],
    ),
    "withdrawals of another day": (
        "UPDATE fund.withdrawal_days SET day = day + 1",
        [
            f"{CONSISTENT}: withdrawals of m on 2026-03-01: expected 220, found 0",
            f"{CONSISTENT}: withdrawals of m on 2026-03-02: expected 0, found 220",
        ],
    ),
    "a pending part of a payment was charged back": (
        DROP.format("payments", "payments_settled")
        + f"UPDATE fund.payments SET charged_back_unsettled = 1 WHERE order_id = {P1}",
        [f"{CONSISTENT}: payment .*: charged_back_unsettled: expected 0, found 1"],
    ),
    "a debt": (
        "UPDATE fund.debts SET owed = owed + 1",
        [f"{CONSISTENT}: debt of m: expected 0, found 1"],
    ),
    "a debt of nobody": (
        "INSERT INTO fund.debts VALUES ('u', 7, 1, 'x')",
        [f"{CONSISTENT}: debt of u: expected 0, found 7"],
    ),
    "a debt is gone, and a part was repaid": (
        f"UPDATE fund.debts SET merchant = 'z'; UPDATE fund.orders SET amount = 15 WHERE id = {the(Kind.WRITE_OFF, 'o1')}",
        [f"{CONSISTENT}: debt of m: expected 5, found 0"],
    ),
    "a set-off that no voucher has": (
        f"UPDATE fund.orders SET set_off = 3 WHERE id = {P1}",
        [f"{CONSISTENT}: debt of m: expected -3, found 0"],
    ),
    "a set-off of an end that no voucher has": (
        f"UPDATE fund.orders SET end_set_off = 3 WHERE id = {the(Kind.WITHDRAWAL, 'w2')}",
        [f"{CONSISTENT}: debt of m: expected -3, found 0"],
    ),
    "a receipt is booked twice": (
        f"UPDATE fund.orders SET channel_ref = 'r', receipt_void = order_no = 'p2' WHERE id IN ({P1}, {P2})",
        [f"{CONSISTENT}: payment p2 of m: expected r once, found also "],
    ),
    "a sum of a day": (
        "UPDATE fund.day_sums SET amount = amount + 1 WHERE kind = 'refund'",
        [
            f"{CONSISTENT}: day 2026-03-01, refund of m in CNY: expected 2 orders, amount 500, fee 1, tax 0, found 2 .* 501, fee 1, tax 0"
        ],
    ),
    "a fee of a day": (
        "UPDATE fund.day_sums SET fee = fee - 1 WHERE kind = 'refund'",
        [f"{CONSISTENT}: day 2026-03-01, refund of m in CNY: expected .* fee 1, tax 0, found .* fee 0, tax 0"],
    ),
    "a number of orders of a day": (
        "UPDATE fund.day_sums SET orders = orders + 1 WHERE kind = 'refund'",
        [f"{CONSISTENT}: day 2026-03-01, refund of m in CNY: expected 2 orders, .*found 3 orders"],
    ),
    "a sum of a day is gone": (
        "DELETE FROM fund.day_sums WHERE kind = 'refund'",
        [f"{CONSISTENT}: day 2026-03-01, refund of m in CNY: expected 2 orders, .*found  orders"],
    ),
    "a sum of a day without orders": (
        "INSERT INTO fund.day_sums VALUES ('2026-03-01', 'u', 'refund', 'USD', 'posted', 1, 1, 0)",
        [f"{CONSISTENT}: day 2026-03-01, refund of u in USD: expected  orders, .*found 1 orders"],
    ),
    "a closed day counts an order less": (
        "UPDATE fund.day_ends SET orders = orders - 1",
        [f"{CONSISTENT}: day 2026-03-01, all orders: expected 18, found 17"],
    ),
    "the end of a day is gone": (
        "DELETE FROM fund.day_ends WHERE day = '2026-03-01'",
        [f"{CONSISTENT}: day 2026-03-01, refund of m in CNY: expected  orders, .*found 2 orders"],
    ),
    "a day in between is not closed": (
        "INSERT INTO fund.day_ends (day, orders) VALUES ('2026-03-03', 0)",
        [f"{CONSISTENT}: day 2026-03-01, the day after: expected closed, found not closed"],
    ),
    "an end is gone": (
        f"DELETE FROM fund.ends WHERE order_id = {W1}",
        [
            f"{CONSISTENT}: end of .*: expected a row in fund.ends: paid, found none",
            f"{CONSISTENT}: day 2026-03-01, withdrawal of m in CNY, paid: expected  ended, .*found 1 ended",
            f"{CONSISTENT}: day 2026-03-01, all ends: expected 1, found 2",
        ],
    ),
    "an end of a withdrawal that did not end": (
        f"INSERT INTO fund.ends VALUES ({W3}, 'paid', '2026-03-02', now(), 1, 'x')",
        [f"{CONSISTENT}: end of .*: expected an order that is paid, found withdrawal posted"],
    ),
    "an end of another day": (
        f"UPDATE fund.ends SET day = '2026-03-02' WHERE order_id = {W1}",
        [f"{CONSISTENT}: day 2026-03-01, withdrawal of m in CNY, paid: expected  ended, .*found 1 ended"],
    ),
    "a number of ends of a day": (
        "UPDATE fund.day_sums SET ended = ended + 1 WHERE kind = 'withdrawal' AND state = 'paid'",
        [f"{CONSISTENT}: day 2026-03-01, withdrawal of m in CNY, paid: expected 1 ended, .*found 2 ended"],
    ),
    "an amount of ends of a day": (
        "UPDATE fund.day_sums SET ended_amount = ended_amount - 1 WHERE kind = 'withdrawal' AND state = 'paid'",
        [f"{CONSISTENT}: day 2026-03-01, withdrawal of m in CNY, paid: expected 1 ended, amount 100, .*amount 99"],
    ),
    "a closed day counts an end more": (
        "UPDATE fund.day_ends SET ends = ends + 1",
        [f"{CONSISTENT}: day 2026-03-01, all ends: expected 2, found 3"],
    ),
    "a closed day begins otherwise": (
        "UPDATE fund.day_ends SET begins_at = begins_at - interval '1 hour'",
        [f"{CALENDAR}: day 2026-03-01: expected 2026-03-01 00:00.* to 2026-03-02 00:00.*, found 2026-02-28 23:00"],
    ),
    "a day is gone": ("DELETE FROM fund.withdrawal_days", [f"{CONSISTENT}: withdrawals of m .* found 0"]),
    "an event is gone": (
        f"DELETE FROM fund.events WHERE order_id = {P1}",
        [f"{CONSISTENT}: .*expected posted as the last event, found none"],
    ),
    "an event in between is gone": (
        f"DELETE FROM fund.events WHERE order_id = {W1} AND state = 'posted'",
        [f"{CONSISTENT}: .*expected a state that comes after posting, found sent"],
    ),
    "an event's state": (
        f"UPDATE fund.events SET state = 'lost' WHERE order_id = {P1}",
        [f"{CONSISTENT}: .*expected a state that comes after posting, found lost"],
    ),
}


@pytest.mark.parametrize("what", CORRUPTIONS)
async def test_each_fault_is_reported(right: Books, what: str):
    statement, expected = CORRUPTIONS[what]
    told = await right.corrupt(statement)
    assert [line for line in expected if not any(re.match(line, found) for found in told)] == [], told


@pytest.mark.parametrize("guard", ["orders_no_delete", "orders_first_state", "orders_transition", "events_append_only"])
async def test_a_guard_that_is_not_in_force_is_reported(right: Books, guard: str):
    told = await right.check_with(f"ALTER TABLE fund.{guard.partition('_')[0]} DISABLE TRIGGER {guard}")
    (line,) = told
    assert re.match(rf"fund_guards_in_force: trigger fund.\w+.{guard}: expected always: .*, found disabled: ", line)


async def test_every_statement_can_be_prepared_says_what_it_does_and_is_one(right: Books):
    for statement in SQL.values():
        await right.fund.prepare(statement)
        assert statement.startswith("-- ")
        assert ";" not in "".join(line for line in statement.splitlines() if not line.startswith("--"))


# --- The ledger -----------------------------------------------------------------------------------------------------


async def load_accounts(books: Books) -> None:
    for row in await books.ledger.connection.fetch("SELECT id, type, owner, currency FROM ledger.accounts"):
        opened = await books.ledger.open(row["id"], row["type"], row["owner"], row["currency"])
        books.opened[row["id"]] = opened.view.account


R1_VOUCHER = voucher_id(order_id("refund", "m", "r1"))


async def test_a_voucher_that_is_gone_is_reported(right: Books):
    """The voucher is replaced in the ledger by a refusal."""
    (line,) = await right.check_with(ledger=f"UPDATE ledger.vouchers SET refusal = '{{}}' WHERE id = '{R1_VOUCHER}'")
    assert re.match(rf"{EQUAL}: order .*\(refund r1 of m\): expected voucher {R1_VOUCHER} is posted", line)


@pytest.mark.parametrize(
    ("column", "found"),
    [
        ("type = 'settle'", "found settle of"),
        ("reference = 'fund:nobody'", "found refund of fund:nobody"),
        ("lines[2] = lines[2] - 1, lines[4] = lines[4] + 1", "merchant:m:available -300"),
        ("lines[1] = 999999", "account number 999999"),
    ],
)
async def test_another_content_of_a_voucher_is_reported(right: Books, column: str, found: str):
    (line,) = await right.check_with(ledger=f"UPDATE ledger.vouchers SET {column} WHERE id = '{R1_VOUCHER}'")
    assert re.match(rf"{EQUAL}: order .*\(refund r1 of m\), voucher {R1_VOUCHER}: expected refund of fund:", line)
    assert found in line


async def test_another_accounting_date_of_a_voucher_is_reported(right: Books):
    change = f"UPDATE ledger.vouchers SET accounting_date = accounting_date + 1 WHERE id = '{R1_VOUCHER}'"
    (line,) = await right.check_with(ledger=change)
    assert re.match(rf"{CALENDAR}: voucher {R1_VOUCHER}: expected accounting date .*, posted at ", line)


@pytest.mark.parametrize("calendar", [("UTC", time(23)), ("Asia/Shanghai", time()), ("UTC", time())])
async def test_another_calendar_of_the_account_service_is_reported(right: Books, calendar: tuple[str, time]):
    here = right.ledger.dsn, right.ledger.keys
    report = await verify(*here, fund_dsn=right.fund_dsn, fund_keys=KEYS, calendar=calendar)
    told = lines(report.checks)
    if calendar == ("UTC", time()):
        assert told == []
        return
    assert not report.ok
    found = f"{calendar[0]}, cut {calendar[1]:%H:%M}"
    assert told == [f"{CALENDAR}: the calendar of the account service: expected UTC, cut 00:00, found {found}"]


async def test_a_voucher_of_an_unknown_order_is_reported(books: Books):
    stray = an_order(Kind.PAYMENT, "stray", 12)
    await books.post(stray)
    checks, totals = await books.check()
    (line,) = lines(checks)
    assert re.match(f"{EQUAL}: voucher {stray.voucher_id}: expected an order .*, found pay of fund:{stray.id}: ", line)
    assert (totals.by_kind["payment"].vouchers, totals.by_kind["payment"].moved) == (4, 1903)


async def test_a_reversal_that_the_fund_service_does_not_know_is_reported(books: Books):
    await books.post(an_order(Kind.REVERSAL, "stray", 7, of_order=order_id("bank_difference", "platform", "d1")))
    checks, _ = await books.check()
    (line,) = lines(checks)
    assert re.match(f"{EQUAL}: voucher .*: expected an order .*, found reversal of no order: ", line)


async def test_an_adjustment_that_was_posted_without_approval_is_reported(books: Books):
    await books.post(an_order(Kind.ADJUSTMENT, "a2", 10, direction="debit"))
    checks, _ = await books.check()
    (line,) = lines(checks)
    assert re.match(rf"{EQUAL}: order .*\(adjustment a2 of m\): expected no voucher, the order is created, found", line)


async def test_vouchers_of_others_are_theirs(books: Books):
    """Vouchers of other modules are no findings: they may have any reference, and reverse each other."""
    entries = [Entry("bank:c", "debit", 3), Entry("merchant:m:available", "credit", 3)]
    for k, type_ in enumerate(("transfer", "top_up", "pay", "refund", "withdraw_paid")):
        id_ = order_id("other", "m", str(k))
        await books.post_entries(an_order(Kind.PAYMENT, f"other{k}", 3), id_, type_, entries, "dev")
    checks, _ = await books.check()
    assert lines(checks) == []


async def test_of_many_findings_all_are_counted_and_some_are_kept(right: Books):
    told = await right.check_with(
        """INSERT INTO fund.events (order_id, merchant, kind, state, at)
           SELECT gen_random_uuid(), 'm', 'payment', 'posted', now() FROM generate_series(1, 150)"""
    )
    assert len(told) == FINDINGS_MAX


# --- While both services continue -----------------------------------------------------------------------------------


async def go_on(books: Books) -> list[Order]:
    """Change orders between the two snapshots: new ones, approvals, ends, reversals, retries."""
    orders = [
        an_order(Kind.PAYMENT, "late", 12, fee=1),
        an_order(Kind.REVERSAL, "late", 7, merchant="platform", of_order=order_id("bank_difference", "platform", "d1")),
    ]
    await write(books.fund, orders)
    for order in orders:
        await books.post(order)
    await books.fund.execute(f"UPDATE fund.orders SET state = 'posting', approved_by = 'other' WHERE id = {A2}")
    await books.post(an_order(Kind.ADJUSTMENT, "a2", 10, direction="debit"))
    w3 = an_order(Kind.WITHDRAWAL, "w3", 30, ending="paid")
    end = "UPDATE fund.orders SET ending = 'paid', end_voucher_id = $2 WHERE id = $1"
    await books.fund.execute(end, w3.id, w3.end_voucher_id)
    await books.end(w3)
    await books.end(an_order(Kind.WITHDRAWAL, "w5", 50, ending="paid"))
    await books.post(an_order(Kind.PAYMENT, "p3", 90))
    return orders


async def test_what_happens_between_the_snapshots_is_no_finding_because_it_is_looked_at_again(
    books: Books, monkeypatch: pytest.MonkeyPatch
):
    async with snapshot(books.fund_dsn) as fund:
        await go_on(books)
        async with snapshot(books.ledger.dsn) as account, connected(books.fund_dsn) as later:
            checks, totals = await check_fund(fund, later, account)
            assert lines(checks) == []
            assert totals.by_kind["payment"].vouchers == 5
            # The broken twin reads orders again in its first snapshot.
            checks, _ = await check_fund(fund, fund, account)
            told = lines(checks)
            assert len([line for line in told if "an order of the fund service that posts it" in line]) == 3
            assert len([line for line in told if "expected no voucher, the order is created" in line]) == 1
            # Another broken twin never reads orders again, so it does not find that the order was approved meanwhile.
            monkeypatch.setattr("fundledger.reconciliation.fund.vouchers._steps_by_now", lambda _: [])
            checks, _ = await check_fund(fund, later, account)
            assert len(lines(checks)) == 4


async def test_an_order_that_came_late_is_compared_all_the_same(books: Books):

    async def wrongly() -> None:
        await write(books.fund, [an_order(Kind.PAYMENT, "late", 12)])
        await books.post(an_order(Kind.PAYMENT, "late", 13))

    checks, _ = await books.check(wrongly)
    (line,) = lines(checks)
    assert re.match(rf"{EQUAL}: order .*\(payment late of m\), voucher .*bank:c -12.*found .*bank:c -13", line)


async def test_an_order_that_is_posted_after_the_ledger_was_read_is_no_finding(books: Books):
    """If the ledger was read first, the order would be a finding. Therefore the fund database is read first."""
    late = an_order(Kind.PAYMENT, "late", 12, posted_at=AT + timedelta(days=1))
    async with snapshot(books.ledger.dsn) as account:
        await books.post(late)
        await write(books.fund, [late])
        async with snapshot(books.fund_dsn) as fund:
            checks, _ = await check_fund(fund, fund, account)
    (line,) = lines(checks)
    assert line.endswith("is posted, the order is posted, found none")
    assert State.POSTED in line
