"""Edited rows of the fund database: each edit is a finding, and it hides no other finding of `verify`."""

from collections.abc import AsyncIterator

import asyncpg
import msgspec
import pytest

from fundledger.fund.model.order import Kind
from fundledger.fund.store.migrate import migrate
from fundledger.reconciliation.checks import verify
from fundledger.reconciliation.report import Report
from fundledger.security.keys import FileKeys
from tests.support.database import ONE_SHARD, Databases
from tests.support.fund_ids import KEYS, order_id
from tests.support.fund_world import FundWorld
from tests.support.ledger import Ledger
from tests.support.tampering import errors_of, findings_of, unguarded

P1, P2 = order_id(Kind.PAYMENT, "m", "p1"), order_id(Kind.PAYMENT, "m", "p2")
W1, S1 = order_id(Kind.WITHDRAWAL, "m", "w1"), order_id(Kind.SETTLEMENT, "m", "s1")
ORDER = f"UPDATE fund.orders SET {{}} WHERE id = '{P1}'"
ENDED = f"UPDATE fund.orders SET {{}} WHERE id = '{W1}'"
PAYMENT = f"UPDATE fund.payments SET {{}} WHERE order_id = '{P2}'"
EVENT = f"UPDATE fund.events SET {{}} WHERE order_id = '{P1}'"

EDITS: dict[str, tuple[str, str]] = {
    # fault: (how, the name of the row)
    **{
        f"an order: {change}": (ORDER.format(change), f"order {P1}")
        for change in (
            "kind = 'theft'",
            "kind = NULL",
            "state = 'lost'",
            "state = NULL",
            "amount = NULL",
            "amount = -1",
            "amount = 9223372036854775807",
            "fee = NULL",
            "fee = 9223372036854775807",
            "currency = NULL",
            "currency = 'USD'",
            "merchant = NULL",
            "order_no = NULL",
            "channel = NULL",
            "attempt = NULL",
            "attempt = -1",
            "posted_at = NULL",
            "direction = 'up', kind = 'adjustment'",
            "ending = 'lost'",
            "module = NULL, approved_by = 'x'",
            "problem = '{}'",
        )
    },
    **{
        f"a withdrawal: {change}": (ENDED.format(change), f"order {W1}")
        for change in ("attempt = NULL", "attempt = 7", "ending = NULL", "ending = 'lost'", "state = 'unknown'")
    },
    "an order: settle = 'never'": (ORDER.format("settle = 'never'"), f"payment {P1}: settled"),
    "an order: voucher_id of another": (
        f"UPDATE fund.orders SET voucher_id = gen_random_uuid() WHERE id = '{P1}'",
        f"order {P1}",
    ),
    "an order of the names of another": (
        f"UPDATE fund.orders SET order_no = 'p1' WHERE id = '{P2}'",
        "payment p1 of m",
    ),
    "an order without an id": (
        (
            f"ALTER TABLE fund.orders DROP CONSTRAINT orders_id_once; ALTER TABLE fund.orders ALTER id DROP NOT NULL;"
            f" UPDATE fund.orders SET id = NULL WHERE id = '{P1}'"
        ),
        "order None (payment p1 of m)",
    ),
    "an order without a voucher": (ORDER.format("voucher_id = NULL"), f"order {P1}"),
    **{
        f"a payment: {change}": (PAYMENT.format(change), f"payment {P2}")
        for change in ("amount = NULL", "refunded = NULL", "settled = 900000", "reversed = NULL")
    },
    "a settled part: amount = NULL": (
        f"UPDATE fund.settled_payments SET amount = NULL WHERE payment = '{P2}'",
        f"settlement {S1}",
    ),
    **{
        f"an event: {change}": (EVENT.format(change), f"order {P1}")
        for change in ("state = NULL", "state = 'lost'", "order_id = gen_random_uuid()")
    },
    "an event of no order": (EVENT.format("order_id = NULL"), "event"),
    "an event: merchant = NULL": (EVENT.format("merchant = NULL"), "event"),
    "a day: amount = NULL": ("UPDATE fund.withdrawal_days SET amount = NULL", "withdrawals of m on 2026-03-01"),
    "a day: infinity": (
        "INSERT INTO fund.withdrawal_days VALUES ('m', 'infinity', 1)",
        "withdrawals of m on infinity",
    ),
    "a day: before Christ": (
        "INSERT INTO fund.withdrawal_days VALUES ('m', '0044-03-15 BC', 1)",
        "withdrawals of m on 0044-03-15 BC",
    ),
    "a day's sum: NaN": (
        "UPDATE fund.day_sums SET amount = 'NaN' WHERE kind = 'refund'",
        "day 2026-03-01, refund of m in CNY",
    ),
    "a closed day: infinity": ("UPDATE fund.day_ends SET day = '2030-01-01'", "day 2026-03-01"),
    "an order: posted_at = infinity": (ORDER.format("posted_at = 'infinity'"), "day 2026-03-01, payment of m in CNY"),
    "an order: created_at = BC": (ENDED.format("created_at = '4713-01-01 BC'"), "withdrawals of m on"),
}


@pytest.fixture(scope="module")
async def templates(postgres: Databases, keys: FileKeys) -> AsyncIterator[tuple[str, str]]:
    """Return the names of both databases, which verify. The guards of the fund database against edits are removed."""
    fund_dsn = await postgres.empty()
    async with postgres.a_database() as dsn:
        ledger = await Ledger(dsn, keys, ONE_SHARD).start()
        fund = await asyncpg.connect(fund_dsn)
        await migrate(fund)
        await FundWorld(ledger, fund).fill()
        await fund.execute(unguarded("fund"))
        await fund.close()
        await ledger.close()
        yield tuple(of.partition("@/")[2].partition("?")[0] for of in (fund_dsn, dsn))
    await postgres.drop(fund_dsn)


class Edited:
    def __init__(self, fund_dsn: str, dsn: str, keys: FileKeys) -> None:
        self.fund_dsn, self.dsn, self.keys = fund_dsn, dsn, keys

    async def edit(self, statement: str) -> None:
        connection = await asyncpg.connect(self.fund_dsn)
        try:
            for part in statement.split(";"):
                assert await connection.execute(part) not in ("UPDATE 0", "DELETE 0"), "the tampering missed"
        finally:
            await connection.close()

    async def verify(self) -> Report:
        return await verify(self.dsn, self.keys, fund_dsn=self.fund_dsn, fund_keys=KEYS)


@pytest.fixture
async def edited(postgres: Databases, templates: tuple[str, str], keys: FileKeys) -> AsyncIterator[Edited]:
    fund_dsn, dsn = [await postgres.empty(name) for name in templates]
    yield Edited(fund_dsn, dsn, keys)
    await postgres.drop(fund_dsn)
    await postgres.drop(dsn)


STANDING = (
    f"UPDATE fund.orders SET channel = 'x' WHERE id = '{order_id(Kind.PAYMENT, 'u', 'p6')}';"
    f" UPDATE fund.payments SET fee_returned = 0 WHERE order_id = '{P1}'"
)
"""Two other faults, one for the checks of each database. Their findings must be reported beside each edit."""


@pytest.mark.parametrize("what", EDITS)
async def test_an_edited_row_is_named_and_hides_nothing_else(edited: Edited, what: str) -> None:
    statement, named = EDITS[what]
    await edited.edit(STANDING)
    before = {(name, finding.subject) for name, finding in findings_of(await edited.verify())}
    assert {name for name, _ in before} >= {"fund_orders_consistent", "fund_equals_account"}
    await edited.edit(statement)
    report = await edited.verify()
    msgspec.json.encode(report)
    assert (report.error, errors_of(report)) == (None, {})
    found = {(name, finding.subject) for name, finding in findings_of(report)}
    assert [subject for _, subject in found - before if subject.startswith(named)], found - before
    lost = {subject for name, subject in before - found if name != "fund_guards_in_force"}
    assert {subject for subject in lost if str(P1) not in subject} == set()
