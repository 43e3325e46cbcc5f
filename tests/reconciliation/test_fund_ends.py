"""The checks of the fund service on refunds with an end and on payout returns: each finds one fault."""

import re
from collections.abc import AsyncIterator

import asyncpg
import pytest

from fundledger.fund.model.order import Kind, State
from fundledger.fund.store.mac_layouts import DAY, PAYOUT, Progress, fields_of_day, fields_of_payout
from fundledger.fund.store.migrate import migrate
from fundledger.reconciliation.checks import verify
from fundledger.reconciliation.report import Total
from fundledger.security.keys import FileKeys
from tests.reconciliation.test_fund_checks import CONSISTENT, DROP, EQUAL, Books, the
from tests.support.database import ONE_SHARD, Databases, findings
from tests.support.fund_ids import KEYS, MACS
from tests.support.fund_world import AT, an_order, payment_mac, write
from tests.support.ledger import Ledger

W1, W2 = the(Kind.WITHDRAWAL, "w1"), the(Kind.WITHDRAWAL, "w2")
P1, P2 = the(Kind.PAYMENT, "p1"), the(Kind.PAYMENT, "p2")
POSTED, PAID, BOUNCED, EARLY, SENT = (
    the(Kind.REFUND, number) for number in ("posted", "paid", "bounced", "early", "sent")
)
B1 = the(Kind.PAYOUT_RETURN, "b1")


async def fill(books: Books) -> None:
    """Create refunds in each state and payout returns; the books verify."""
    await books.open("m", "CNY")
    p1 = an_order(Kind.PAYMENT, "p1", 1000, fee=10)
    p2 = an_order(Kind.PAYMENT, "p2", 500, fee=5, settle="later")
    w1 = an_order(Kind.WITHDRAWAL, "w1", 100, State.PAID, ending="paid", returned=70)
    b3 = an_order(Kind.PAYOUT_RETURN, "b3", 20, of_order=w1.id)
    undone = an_order(Kind.REVERSAL, "u3", 20, of_order=b3.id)
    b3.reversed_by = undone.id
    new = {"voucher_format": 3, "of_order": p1.id}
    orders = [
        p1,
        p2,
        an_order(Kind.REFUND, "posted", 100, fee=1, **new),
        an_order(Kind.REFUND, "paid", 200, State.PAID, fee=2, ending="paid", **new),
        an_order(Kind.REFUND, "bounced", 300, State.BOUNCED, fee=3, ending="bounced", **new),
        an_order(Kind.REFUND, "early", 50, of_order=p1.id, voucher_format=2),
        an_order(Kind.REFUND, "sent", 40, State.SENT, **new),
        an_order(
            *(Kind.REFUND, "pending", 200, State.BOUNCED),
            **{**new, "of_order": p2.id, "from_pending": 200, "fee_waived": 2, "ending": "bounced"},
        ),
        w1,
        an_order(Kind.WITHDRAWAL, "w2", 10),
        an_order(Kind.PAYOUT_RETURN, "b1", 40, of_order=w1.id),
        an_order(Kind.PAYOUT_RETURN, "b2", 30, fee=1, of_order=w1.id),
        b3,
        undone,
    ]
    await write(books.fund, orders)
    for order in orders:
        await books.post(order)
        if order.ending is not None:
            await books.end(order)
            await books.count_end(order)
        if order.order_no in ("w1", "paid", "sent"):
            named = order.id, "c", order.amount, "CNY", order.ending
            mac = MACS.rows.tag(PAYOUT, fields_of_payout(*named, kind=order.kind))[1]
            await books.fund.execute(
                """INSERT INTO fund.payouts (order_id, channel, amount, currency, outcome, kind, sent_at, due_at, mac_key, mac)
                   VALUES ($1, $2, $3, $4, $5, $6, $7::timestamptz, CASE WHEN $5::text IS NULL THEN $7::timestamptz END, 1, $8)""",
                *(*named, order.kind, AT, mac),
            )
    await books.fund.execute(
        """INSERT INTO fund.payments (order_id, merchant, seq, amount, fee, settled, fee_settled, refunded,
           refunded_unsettled, fee_waived, fee_returned, charged_back, mac_key, mac)
           VALUES ($1, 'm', 1, 1000, 10, 1000, 10, 390, 0, 0, 3, 0, 1, $3), ($2, 'm', 2, 500, 5, 0, 0, 0, 0, 0, 0, 0, 1, $4)""",
        *(p1.id, p2.id),
        payment_mac(Progress(p1.id, "m", 1, 1000, 10, 1000, 10, 390, 0, 0, 3)),
        payment_mac(Progress(p2.id, "m", 2, 500, 5, 0, 0)),
    )
    mac = MACS.rows.tag(DAY, fields_of_day(("m", AT.date()), 110))[1]
    await books.fund.execute("INSERT INTO fund.withdrawal_days VALUES ('m', $1, 110, 1, $2)", AT.date(), mac)


@pytest.fixture(scope="module")
async def right(postgres: Databases, keys: FileKeys) -> AsyncIterator[Books]:
    fund_dsn = await postgres.empty()
    async with postgres.a_database() as dsn:
        ledger = await Ledger(dsn, keys, ONE_SHARD).start()
        books = Books(ledger, await asyncpg.connect(fund_dsn))
        books.fund_dsn = fund_dsn
        await migrate(books.fund)
        await fill(books)
        yield books
        await books.fund.close()
        await ledger.close()
    await postgres.drop(fund_dsn)


async def test_refunds_with_an_end_and_payout_returns_are_found_right(right: Books) -> None:
    report = await verify(right.ledger.dsn, right.ledger.keys, fund_dsn=right.fund_dsn, fund_keys=KEYS)
    assert report.ok, findings(report)
    assert report.fund is not None
    kinds = report.fund.by_kind
    assert kinds["refund"] == Total(orders=6, amount=890, vouchers=6, moved=890)
    assert kinds["refund_paid"] == Total(orders=1, amount=200, vouchers=1, moved=200)
    assert kinds["refund_bounced"] == Total(orders=2, amount=500, vouchers=2, moved=500)
    assert kinds["payout_return"] == Total(orders=3, amount=91, vouchers=3, moved=91)


CORRUPTIONS: dict[str, tuple[str, list[str]]] = {
    # fault: (how, the findings)
    "more returned than the orders say": (
        f"UPDATE fund.orders SET returned = 71 WHERE id = {W1}",
        [f"{CONSISTENT}: withdrawal .*: returned: expected 70, found 71"],
    ),
    "less returned than the orders say": (
        f"UPDATE fund.orders SET returned = 0 WHERE id = {W1}",
        [f"{CONSISTENT}: withdrawal .*: returned: expected 70, found 0"],
    ),
    "a withdrawal that is not paid returned": (
        DROP.format("orders", "orders_returned") + f"UPDATE fund.orders SET returned = 1 WHERE id = {W2}",
        [
            f"{CONSISTENT}: withdrawal .*: returned: expected 0, found 1",
            "fund_guards_in_force: constraint fund.orders.orders_returned",
        ],
    ),
    "a payout return is of another withdrawal": (
        f"UPDATE fund.orders SET of_order = {W2} WHERE id = {B1}",
        [
            f"{CONSISTENT}: payout_return .*: expected an order of the same merchant that it can refer to, found withdrawal",
            f"{CONSISTENT}: withdrawal .*: returned: expected 30, found 70",
            f"{CONSISTENT}: withdrawal .*: returned: expected 40, found 0",
        ],
    ),
    "a payout return is of a payment": (
        f"UPDATE fund.orders SET of_order = {P1} WHERE id = {B1}",
        [f"{CONSISTENT}: payout_return .*: expected an order of the same merchant that it can refer to, found payment"],
    ),
    "an amount of a payout return": (
        f"UPDATE fund.orders SET amount = 41 WHERE id = {B1}",
        [f"{EQUAL}: .*expected .*bank:c -41.*, found .*bank:c -40", f"{CONSISTENT}: .*returned: expected 71, found 70"],
    ),
    "a payout return is gone": (
        f"DELETE FROM fund.orders WHERE id = {B1}",
        [
            f"{EQUAL}: voucher .*: expected an order of the fund service that posts it, found payout_return of fund:",
            f"{CONSISTENT}: withdrawal .*: returned: expected 30, found 70",
        ],
    ),
    "a refund ends otherwise": (
        f"UPDATE fund.orders SET ending = 'bounced' WHERE id = {PAID}",
        [
            f"{CONSISTENT}: .*expected ending paid, found ending bounced",
            f"{EQUAL}: .*expected refund_bounced of .*found refund_paid of",
        ],
    ),
    "a refund that did not end has": (
        f"UPDATE fund.orders SET state = 'paid', ending = 'paid' WHERE id = {POSTED}",
        [f"{EQUAL}: order .* of m, paid.: expected voucher .* is posted, the order is paid, found none"],
    ),
    "a refund that ended has not": (
        f"UPDATE fund.orders SET state = 'posted', ending = NULL WHERE id = {PAID}",
        [f"{EQUAL}: voucher .* found refund_paid of fund:"],
    ),
    "a refund that bounced is posted": (
        f"UPDATE fund.orders SET state = 'posted', ending = NULL WHERE id = {BOUNCED}",
        [
            f"{EQUAL}: voucher .* found refund_bounced of fund:",
            f"{CONSISTENT}: payment .*: refunded: expected 690, found 390",
        ],
    ),
    "a bounced refund counts": (
        f"UPDATE fund.payments SET refunded = 690 WHERE order_id = {P1}",
        [f"{CONSISTENT}: payment .*: refunded: expected 390, found 690"],
    ),
    "a refund has the format of before": (
        f"UPDATE fund.orders SET voucher_format = 2 WHERE id = {POSTED}",
        [f"{EQUAL}: .*expected .*bank:c .100.*, found .*transit:refund:c .100"],
    ),
    "a refund of before has the format of today": (
        f"UPDATE fund.orders SET voucher_format = 3 WHERE id = {EARLY}",
        [f"{EQUAL}: .*expected .*transit:refund:c .50.*, found .*bank:c .50"],
    ),
    "a refund of before has an end": (
        DROP.format("orders", "orders_end_of_refund")
        + f"UPDATE fund.orders SET ending = 'paid', state = 'paid' WHERE id = {EARLY}",
        [
            f"{CONSISTENT}: .*expected no ending, the order is not posted or has no such end",
            "fund_guards_in_force: constraint fund.orders.orders_end_of_refund",
        ],
    ),
    "a payout of a refund is of a withdrawal": (
        f"UPDATE fund.payouts SET kind = 'withdrawal' WHERE order_id = {PAID}",
        [f"{CONSISTENT}: payout .*: amount: expected None, found 200"],
    ),
    "a payout of a refund": (
        f"UPDATE fund.payouts SET outcome = 'paid', due_at = NULL WHERE order_id = {SENT}",
        [f"{CONSISTENT}: payout .*: outcome: expected none, found paid"],
    ),
    "a payment of a bounced refund": (
        f"UPDATE fund.payments SET refunded = 200, refunded_unsettled = 200, fee_waived = 2 WHERE order_id = {P2}",
        [
            f"{CONSISTENT}: payment .*: refunded: expected 0, found 200",
            f"{CONSISTENT}: payment .*: refunded_unsettled: expected 0, found 200",
        ],
    ),
}


@pytest.mark.parametrize("fault", CORRUPTIONS)
async def test_each_fault_is_found(right: Books, fault: str) -> None:
    how, expected = CORRUPTIONS[fault]
    found = await right.corrupt(how)
    for pattern in expected:
        assert any(re.search(pattern, line) for line in found), (pattern, found)
