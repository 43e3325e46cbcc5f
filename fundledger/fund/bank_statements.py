"""Bank statements: what the bank moved is held against the books, and the difference booked to suspense.

What a statement came to is written with it, in one transaction, before anything is booked: an import that was cut off
goes on with the same matching, and the numbers of the differences are made of the statement's and the line's. So a
repeat answers the same, and books nothing twice.
"""

import asyncio
import hashlib
from collections.abc import Sequence
from datetime import date
from typing import Annotated, Final, Protocol, TypeAlias
from uuid import UUID

import asyncpg
import msgspec

from fundledger.fund.answer import Answer, Away, Taken
from fundledger.fund.matching import Earlier, Expected, Line, Matched, Outcome, match
from fundledger.fund.order import Kind, State
from fundledger.fund.refusal import Code, Refusal
from fundledger.fund.requests import AMOUNT_MAX, BankDifference, ChannelName, ChannelRef, Currency, OrderNo
from fundledger.fund.statements import SQL

LINES_MAX: Final = 5000
AT_ONCE: Final = 500
_FAULTS = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)

Moved = Annotated[int, msgspec.Meta(ge=-AMOUNT_MAX, le=AMOUNT_MAX, description="positive came in; never 0")]
Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"
Connection: TypeAlias = "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"


class StatementLine(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """`ref`: the channel's reference or, of what we sent, the order's id. `entry_ref`: the bank's own reference of the
    entry, which names it permanently. `value_date` tells two entries apart that look alike.
    """

    ref: ChannelRef
    amount: Moved
    entry_ref: ChannelRef | None = None
    value_date: date | None = None

    def __post_init__(self) -> None:
        if self.amount == 0:
            raise ValueError("a line of 0 moves nothing")


class StatementRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Named by (channel, statement_no), for ever. The order of the lines is part of it."""

    channel: ChannelName
    statement_no: OrderNo
    currency: Currency
    lines: Annotated[list[StatementLine], msgspec.Meta(min_length=1, max_length=LINES_MAX)]

    def digest(self) -> bytes:
        return hashlib.sha256(b"statement|" + msgspec.json.encode(self)).digest()


class LineReport(msgspec.Struct, omit_defaults=True):
    """`line` counts from 1. `difference`: how much more, or less, the bank has. `booked`: its order, and `state`."""

    line: int
    ref: str
    amount: int
    outcome: Outcome
    difference: int = 0
    order: UUID | None = None
    booked: UUID | None = None
    state: State | None = None


class StatementReport(msgspec.Struct):
    """`total` and `difference` are sums. `counts` has every outcome. `in_transit`: orders under the references of this
    statement that no line explains.
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
    """`replay`: it was there before."""

    report: StatementReport
    replay: bool = False


class Asks(Protocol):
    """As much of the desk as statements need."""

    async def ask(self, request: BankDifference, module: str) -> Answer: ...


async def import_statement(desk: Asks, pool: Pool, request: StatementRequest, module: str) -> Imported | Refusal | Away:
    """Match a statement with the books, and book its differences. Locks the channel against other imports meanwhile.

    Refused: STATEMENT_NO_REUSED, for other content; what the desk refuses. `Away`: the same may, and has to, be asked
    for again, so that every difference is booked. Cancelling is as `Away`.
    """
    try:
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute(SQL["statements_lock"], request.channel)
            there = await connection.fetchrow(SQL["statements_read"], request.channel, request.statement_no)
            if there is not None and there["digest"] != request.digest():
                detail = f"statement {request.statement_no} of {request.channel} exists, with other lines"
                return Refusal(Code.STATEMENT_NO_REUSED, detail, "statement_no")
            if there is None:
                lines, in_transit = await _match(connection, request, module)
            else:
                rows = await connection.fetch(SQL["statements_lines"], request.channel, request.statement_no)
                lines = [Matched(Outcome(row["outcome"]), row["order_id"], row["difference"]) for row in rows]
                in_transit = msgspec.json.decode(there["in_transit"], type=list[UUID])
    except _FAULTS:
        return Away("the fund database does not answer", undone=False)
    reports = [
        LineReport(i, line.ref, line.amount, matched.outcome, matched.difference, matched.order)
        for i, (line, matched) in enumerate(zip(request.lines, lines, strict=True), 1)
    ]
    fault = await _book(desk, request, [report for report in reports if report.difference], module)
    return fault or Imported(_report(request, reports, in_transit), replay=there is not None)


async def _match(connection: Connection, request: StatementRequest, module: str) -> tuple[list[Matched], list[UUID]]:
    """Match, and write the statement with what came of it."""
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
    if row["channel_ref"] is not None:
        refs.add(_plain(row["channel_ref"]))
    amount = row["amount"] if row["kind"] == Kind.PAYMENT else -row["amount"]
    return Expected(row["id"], frozenset(refs), amount, row["ended"], row["taken"])


async def _book(
    desk: Asks, request: StatementRequest, reports: Sequence[LineReport], module: str
) -> Refusal | Away | None:
    fault: Refusal | Away | None = None
    for start in range(0, len(reports), AT_ONCE):
        part = reports[start : start + AT_ONCE]
        answers = await asyncio.gather(*(desk.ask(_difference(request, report), module) for report in part))
        for report, answer in zip(part, answers, strict=True):
            if isinstance(answer, Taken):
                report.booked, report.state = answer.order.id, answer.order.state
            elif fault is None:
                fault = answer
    # Something was kept, whatever the desk says of the one order.
    return Away(fault.detail, undone=False) if isinstance(fault, Away) else fault


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
    """The order number of a line's difference. A statement's number may be as long as that: a digest stands for it."""
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
    """The bank moved it, and the order ended as if it had not; no difference was booked."""

    channel: str
    statement_no: str
    line: int
    amount: int
    order: UUID
    state: State


async def contradictions(pool: Pool, limit: int = 1000) -> list[Contradiction]:
    """Lines that awaited an order which then bounced, or was refused: for reconciliation. Raises as asyncpg does."""
    rows = await pool.fetch(SQL["statements_contradicted"], limit)
    return [Contradiction(*row.values()) for row in rows]


def _uuid(ref: str) -> UUID | None:
    try:
        return UUID(ref)
    except ValueError:
        return None


def _plain(ref: str) -> str:
    """Ids are written in more than one way."""
    id_ = _uuid(ref)
    return ref if id_ is None else str(id_)
