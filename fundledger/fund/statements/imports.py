"""Bank statements of the fund service: the import, which matches lines with orders and requests a bank difference for
each difference. A bank difference is posted to suspense after a second identity has approved it.

One transaction stores the statement and its matching before any difference is posted. So a retry of an interrupted
import uses the same matching. The order number of a difference is derived from the channel, the statement number and
the line number. So a replay returns the same report and posts nothing twice.
"""

import asyncio
import hashlib
from collections.abc import Sequence
from datetime import date
from typing import Annotated, Final, Protocol, TypeAlias
from uuid import UUID

import asyncpg
import msgspec

from fundledger.fund.model.answer import Answer, OrderFault, Taken
from fundledger.fund.model.order import State
from fundledger.fund.model.refusal import Code, Refusal
from fundledger.fund.model.requests import AMOUNT_MAX, BankDifference, ChannelName, ChannelRef, Currency, OrderNo
from fundledger.fund.statements.matching import Earlier, Expected, Line, Matched, Outcome, match
from fundledger.fund.store.queries import SQL

LINES_MAX: Final = 5000
AT_ONCE: Final = 500
_FAULTS = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)

Moved = Annotated[int, msgspec.Meta(ge=-AMOUNT_MAX, le=AMOUNT_MAX, description="positive for money received; never 0")]
Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"
Connection: TypeAlias = "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"


class StatementLine(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A line of a bank statement. `ref`: the channel's reference; for money that the platform sent, the order id; for a
    payout that returned, also the order id or the reference of the withdrawal.
    `entry_ref`: the bank's permanent reference of the entry. `value_date` distinguishes entries that are otherwise
    equal.
    """

    ref: ChannelRef
    amount: Moved
    entry_ref: ChannelRef | None = None
    value_date: date | None = None

    def __post_init__(self) -> None:
        if self.amount == 0:
            raise ValueError("the amount of a line must not be 0")


class StatementRequest(msgspec.Struct, forbid_unknown_fields=True):
    """A bank statement, identified permanently by (channel, statement_no). The sequence of its lines is part of its
    content.
    """

    channel: ChannelName
    statement_no: OrderNo
    currency: Currency
    lines: Annotated[list[StatementLine], msgspec.Meta(min_length=1, max_length=LINES_MAX)]

    def digest(self) -> bytes:
        return hashlib.sha256(b"statement|" + msgspec.json.encode(self)).digest()


class LineReport(msgspec.Struct, omit_defaults=True):
    """The result of a line. `line` counts from 1. `difference`: bank amount minus expected amount. `booked`, `state`:
    the id and state of the bank difference, which is `created` until it is approved.
    """

    line: int
    ref: str
    amount: int
    outcome: Outcome
    difference: int = 0
    order: UUID | None = None
    booked: UUID | None = None
    state: State | None = None


class StatementReport(msgspec.Struct):
    """The result of a statement. `total` and `difference` are sums over the lines. `counts` has a number for every
    outcome. `in_transit`: orders that have a reference of this statement, but that no line matches.
    """

    channel: str
    statement_no: str
    currency: str
    total: int
    difference: int
    counts: dict[Outcome, int]
    lines: list[LineReport]
    in_transit: list[UUID]


class Imported(msgspec.Struct):
    """An imported statement. `replay`: the statement existed before the request."""

    report: StatementReport
    replay: bool = False


class Asks(Protocol):
    """The interface to the order batcher, as far as statements need it."""

    async def ask(self, request: BankDifference, module: str) -> Answer: ...


async def import_statement(
    batcher: Asks, pool: Pool, request: StatementRequest, module: str
) -> Imported | Refusal | OrderFault:
    """Match a statement with orders, and request its differences. During the matching, a lock on the channel blocks
    other imports of its statements.

    The refusal is STATEMENT_NO_REUSED if the statement number exists with other content, or a refusal of the order
    batcher. After an `OrderFault` or a cancellation, some differences may not be requested yet, so the caller has to
    retry the request. A retry is safe.
    """
    try:
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute(SQL["statements_lock"], request.channel)
            there = await connection.fetchrow(SQL["statements_read"], request.channel, request.statement_no)
            if there is not None and there["digest"] != request.digest():
                detail = f"statement {request.statement_no} of {request.channel} exists with other content"
                return Refusal(Code.STATEMENT_NO_REUSED, detail, "statement_no")
            if there is None:
                lines, in_transit = await _match(connection, request, module)
            else:
                rows = await connection.fetch(SQL["statements_lines"], request.channel, request.statement_no)
                lines = [Matched(Outcome(row["outcome"]), row["order_id"], row["difference"]) for row in rows]
                # The first requester remains the requester of the differences, and may not approve them.
                module = there["module"]
                in_transit = msgspec.json.decode(there["in_transit"], type=list[UUID])
    except _FAULTS:
        return OrderFault("the fund database does not answer", undone=False)
    reports = [
        LineReport(i, line.ref, line.amount, matched.outcome, matched.difference, matched.order)
        for i, (line, matched) in enumerate(zip(request.lines, lines, strict=True), 1)
    ]
    fault = await _book(batcher, request, [report for report in reports if report.difference], module)
    return fault or Imported(_report(request, reports, in_transit), replay=there is not None)


async def _match(connection: Connection, request: StatementRequest, module: str) -> tuple[list[Matched], list[UUID]]:
    """Match the lines of a statement, and insert the statement with the results. Return `(results of the lines, orders
    in transit)`.
    """
    refs = sorted({line.ref for line in request.lines})
    ids = [id_ for id_ in map(_uuid, refs) if id_ is not None]
    rows = await connection.fetch(SQL["statements_expected"], request.channel, request.currency, refs, ids)
    entry_refs = [line.entry_ref for line in request.lines if line.entry_ref is not None]
    earlier = await connection.fetch(SQL["statements_earlier"], request.channel, request.currency, refs, entry_refs)
    matching = match(
        [Line(_plain(line.ref), line.amount, line.entry_ref, line.value_date) for line in request.lines],
        [_expected(row) for row in rows],
        [Earlier(_plain(ref), *rest) for ref, *rest in earlier],
    )
    await connection.execute(
        SQL["statements_write"],
        *(request.channel, request.statement_no, request.currency, request.digest(), module),
        msgspec.json.encode(matching.in_transit).decode(),
        [line.ref for line in request.lines],
        [line.amount for line in request.lines],
        [matched.outcome.value for matched in matching.lines],
        [matched.order for matched in matching.lines],
        [matched.difference for matched in matching.lines],
        [line.entry_ref for line in request.lines],
        [line.value_date for line in request.lines],
    )
    return matching.lines, matching.in_transit


def _expected(row: asyncpg.Record) -> Expected:
    refs = {str(row["id"])} if row["by_id"] else set()
    refs |= {_plain(str(row[name])) for name in ("channel_ref", "payout", "payout_ref") if row[name] is not None}
    return Expected(row["id"], frozenset(refs), row["amount"], row["ended"], row["taken"])


async def _book(
    batcher: Asks, request: StatementRequest, reports: Sequence[LineReport], module: str
) -> Refusal | OrderFault | None:
    fault: Refusal | OrderFault | None = None
    for start in range(0, len(reports), AT_ONCE):
        part = reports[start : start + AT_ONCE]
        answers = await asyncio.gather(*(batcher.ask(_difference(request, report), module) for report in part))
        for report, answer in zip(part, answers, strict=True):
            if isinstance(answer, Taken):
                report.booked, report.state = answer.order.id, answer.order.state
            elif fault is None:
                fault = answer
    # The statement is stored. So `undone` is false in the fault of the request, even if it is true in the fault of a
    # difference.
    return OrderFault(fault.detail, undone=False) if isinstance(fault, OrderFault) else fault


def _difference(request: StatementRequest, report: LineReport) -> BankDifference:
    return BankDifference(
        order_no=difference_no(request.channel, request.statement_no, report.line),
        channel=request.channel,
        amount=abs(report.difference),
        currency=request.currency,
        direction="more" if report.difference > 0 else "less",
        reason=f"statement {request.statement_no}, line {report.line}: {report.outcome}, {report.ref}",
    )


def difference_no(channel: str, statement_no: str, line: int) -> str:
    """Return the order number of a line's difference. It contains a digest, because a statement number may already have
    the maximum length of an order number.
    """
    named = hashlib.sha256(f"{len(channel)}:{channel}{statement_no}".encode()).hexdigest()[:32]
    return f"statement:{named}:{line}"


def _report(request: StatementRequest, reports: list[LineReport], in_transit: list[UUID]) -> StatementReport:
    counts = dict.fromkeys(Outcome, 0)
    for report in reports:
        counts[report.outcome] += 1
    total = sum(report.amount for report in reports)
    difference = sum(report.difference for report in reports)
    number, currency = request.statement_no, request.currency
    return StatementReport(request.channel, number, currency, total, difference, counts, reports, in_transit)


class Contradiction(msgspec.Struct, frozen=True):
    """A contradiction: the bank executed a line, but the order of the line ended as bounced or refused. No difference
    was posted.
    """

    channel: str
    statement_no: str
    line: int
    amount: int
    order: UUID
    state: State


async def contradictions(pool: Pool, limit: int = 1000) -> list[Contradiction]:
    """Return at most `limit` contradictions: lines with the outcome `awaited` whose order was refused, bounced or won
    later. Raises what asyncpg raises.
    """
    rows = await pool.fetch(SQL["statements_contradicted"], limit)
    return [Contradiction(*row.values()) for row in rows]


def _uuid(ref: str) -> UUID | None:
    try:
        return UUID(ref)
    except ValueError:
        return None


def _plain(ref: str) -> str:
    """Return a reference in canonical form, because a UUID has more than one spelling."""
    id_ = _uuid(ref)
    return ref if id_ is None else str(id_)
