"""Payout files of the fund service: the import of the results of a file, and the ends of its withdrawals.

One transaction records the results in fund.payouts, the findings, and the report of the import. After it, each recorded
result ends its withdrawal. If the process dies in between, the background job `payouts` ends the rest. The same content
is imported once: a repeated import returns the stored report.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Literal, cast
from uuid import UUID

import asyncpg
import msgspec

from fundledger.fund.jobs.payout_payees import Bounces
from fundledger.fund.jobs.recorded_end import recorded_end
from fundledger.fund.model.payout_file import PayoutFile, PayoutResultsRequest, Result, ResultReport
from fundledger.fund.model.refusal import Code, Refusal
from fundledger.fund.payout_files.classify import Decided, Exported, Finding, decide
from fundledger.fund.payout_files.csv_file import read_csv
from fundledger.fund.payout_files.pain002 import Header, OtherFile, read_pain002
from fundledger.fund.store.mac_layouts import (
    PAYOUT,
    PAYOUT_RESULTS,
    Filed,
    fields_of_payout,
    payout_fields,
    payout_results_fields,
)
from fundledger.fund.store.macs import OrderMacs, Tampered
from fundledger.fund.store.orders import Pool
from fundledger.fund.store.queries import SQL
from fundledger.fund.store.reported import Reported

AT_ONCE: Final = 200
ENDED_AT_ONCE: Final = 20
"""The maximum number of withdrawals that are ended concurrently."""
AGAIN_S: Final = 30.0
TRIED_MAX: Final = 100_000
_FIRST: Final = UUID(int=0)
_decode_report: Final = msgspec.json.Decoder(list[ResultReport]).decode
_log = logging.getLogger(__name__)


class Imported(msgspec.Struct, frozen=True):
    """The report of an import. `replay`: the content was imported before the request."""

    reports: list[ResultReport]
    replay: bool = False


class PayoutResults:
    """The imports of results. `wait_s`: the seconds for which a request waits until its withdrawals have ended. Methods
    raise Tampered, and what asyncpg raises.
    """

    def __init__(
        self,
        pool: Pool,
        macs: OrderMacs,
        batcher: Bounces,
        wait_s: float,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._pool = pool
        self._macs = macs
        self._batcher = batcher
        self._wait_s = wait_s
        self._now = now
        self._one = asyncio.Lock()
        self._reported = Reported()
        self._tried: dict[UUID, float] = {}

    async def import_results(self, file: PayoutFile, request: PayoutResultsRequest, by: str) -> Imported | Refusal:
        """Import the results of a file. The refusal is PAYOUT_RESULTS_OTHER. Raises BadResults if the content cannot be
        read. A retry is safe.
        """
        digest = request.digest()
        async with self._one:
            there = await self._stored(file, digest)
            if there is None:
                refs = [(row["order_id"].hex, row["amount"]) for row in await self._payouts(file)]
                header = Header(file.message_id, file.currency, file.lines, file.total, refs)
                try:
                    results = await asyncio.to_thread(_read, request, header)
                except OtherFile as other:
                    return Refusal(Code.PAYOUT_RESULTS_OTHER, str(other), "content")
                there = await self._record(file, request, digest, results, by)
        # The background job ends those that do not end in time.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._wait_s):
                await self.end_some(file.channel, file.file_no, limit=file.lines)
        return there

    async def end_some(
        self, channel: str | None = None, file_no: int | None = None, *, limit: int = AT_ONCE
    ) -> tuple[int, int]:
        """End withdrawals whose results are recorded, at most `limit`, of one file or of all. Return `(number of ended
        ones, number of those that could not end now)`. Without a file, one that could not end is tried again after
        AGAIN_S. Concurrent calls, and repeated ones, are safe.
        """
        done = left = 0
        after = _FIRST
        while done + left < limit:
            rows = await self._pool.fetch(SQL["payout_results_open"], channel, file_no, after, ENDED_AT_ONCE)
            ended = await asyncio.gather(*(self._end(row) for row in rows if channel or self._may_try(row)))
            done, left = done + sum(ended), left + len(rows) - sum(ended)
            if len(rows) < ENDED_AT_ONCE:
                break
            after = rows[-1]["order_id"]
        return done, left

    def _may_try(self, row: asyncpg.Record) -> bool:
        now = time.monotonic()
        if now - self._tried.get(row["order_id"], -AGAIN_S) < AGAIN_S:
            return False
        if len(self._tried) >= TRIED_MAX:
            self._tried.clear()
        self._tried[row["order_id"]] = now
        return True

    async def _stored(self, file: PayoutFile, digest: bytes, connection: Any = None) -> Imported | None:
        of = file.channel, file.file_no, digest
        row = await (connection or self._pool).fetchrow(SQL["payout_results_read"], *of)
        if row is None:
            return None
        key = f"{file.channel} {file.file_no} {digest.hex()[:16]}"
        if not self._macs.agrees(PAYOUT_RESULTS, "payout_results", key, payout_results_fields, row):
            raise Tampered("payout results", key)
        return Imported(_decode_report(row["report"]), replay=True)

    async def _payouts(self, file: PayoutFile, connection: Any = None) -> list[asyncpg.Record]:
        """Return the payouts of a file, locked if a connection with a transaction is given. Raises Tampered."""
        rows = await (connection or self._pool).fetch(SQL["payout_results_payouts"], file.channel, file.file_no)
        for row in rows:
            if not self._macs.agrees(PAYOUT, "payout", row["order_id"], payout_fields, row):
                raise Tampered("payout", row["order_id"])
        return list(rows)

    async def _record(
        self, file: PayoutFile, request: PayoutResultsRequest, digest: bytes, results: Sequence[Result], by: str
    ) -> Imported:
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(SQL["payout_files_lock"], file.channel)
            there = await self._stored(file, digest, connection)
            if there is not None:
                return there
            rows = {row["order_id"]: row for row in await self._payouts(file, connection)}
            payouts = {id_: Exported(*(row[name] for name in _EXPORTED)) for id_, row in rows.items()}
            decided = decide(file.channel, results, payouts)
            await self._write_results(connection, file, decided, rows)
            new = await _write_findings(connection, file.channel, file.file_no, decided.findings)
            report = {
                "channel": file.channel,
                "file_no": file.file_no,
                "digest": digest,
                "format": request.format,
                "lines": len(results),
                "report": msgspec.json.encode(decided.reports).decode(),
                "imported_by": by,
                "at": self._now(),
            }
            sealed = self._macs.rows.tag(PAYOUT_RESULTS, payout_results_fields(report))
            await connection.execute(SQL["payout_results_write"], *report.values(), *sealed)
        extra = {"event": "payout_results_imported", "channel": file.channel, "file_no": file.file_no}
        _log.log(
            logging.CRITICAL if new else logging.INFO,
            "results of payout file %d of channel %s: %d lines, %d recorded, %d new findings",
            *(file.file_no, file.channel, len(results), len(decided.recorded), new),
            extra=extra,
        )
        return Imported(decided.reports)

    async def _write_results(
        self, connection: Any, file: PayoutFile, decided: Decided, rows: dict[UUID, asyncpg.Record]
    ) -> None:
        tags = []
        for result in decided.recorded:
            assert result.order is not None
            row = rows[result.order]
            filed = Filed(row["file_no"], row["line_no"], result.state, result.reason)
            named = row["order_id"], file.channel, row["amount"], row["currency"]
            tags.append(self._macs.rows.tag(PAYOUT, fields_of_payout(*named, None, result.channel_ref, filed=filed))[1])
        columns = [
            [getattr(result, name) for result in decided.recorded]
            for name in ("order", "state", "channel_ref", "reason")
        ]
        await connection.execute(SQL["payout_results_record"], *columns, tags, self._macs.rows.version)

    async def _end(self, row: asyncpg.Record) -> bool:
        """End the withdrawal of a payout as its recorded result requires, and close the payout. Return whether it is
        closed. A payout that does not match its MAC ends nothing.
        """
        if not self._macs.agrees(PAYOUT, "payout", row["order_id"], payout_fields, row):
            return False
        state, by = cast("Literal['paid', 'bounced']", row["reported"]), f"file/{row['channel']}"
        reason = (row["reported_reason"] or "no reason was given") if state == "bounced" else None
        ref = row["channel_ref"] if state == "paid" else None
        answer = await self._batcher.end(row["order_id"], state, ref, reason, by)
        if isinstance(answer, Refusal) and answer.code is Code.RECEIPT_ALREADY_BOOKED:
            # The payout has happened nevertheless, so it is recorded without the reference of the bank.
            await self._find(row, "sent")
            answer = await self._batcher.end(row["order_id"], state, None, reason, by)
        end = recorded_end(answer)
        if end is None:
            if not self._reported.is_new(row["order_id"]):
                return False
            _log.warning(
                "recording that payout %s is %s failed: %s",
                *(row["order_id"], state, answer),
                extra={"event": "payout_end_unrecorded", "order": str(row["order_id"])},
            )
            return False
        if end != state:
            await self._find(row, end)
        filed = Filed(*(row[name] for name in Filed._fields))
        named = row["order_id"], row["channel"], row["amount"], row["currency"]
        sealed = self._macs.rows.tag(PAYOUT, fields_of_payout(*named, state, row["channel_ref"], filed=filed))
        await self._pool.execute(SQL["payouts_close"], row["order_id"], state, row["channel_ref"], *sealed)
        return True

    async def _find(self, row: asyncpg.Record, stands: str) -> None:
        """Record a finding: the bank reports an end, but the recorded state of the withdrawal is `stands`."""
        state, file = row["reported"], {"file_no": row["file_no"], "line_no": row["line_no"]}
        detail = msgspec.json.encode({**file, "channel_ref": row["channel_ref"]}).decode()
        found = row["order_id"], row["channel"], stands, state, detail
        if await self._pool.fetchval(SQL["payouts_finding"], *found) is not None:
            _log.critical(
                "channel %s reports %s for withdrawal %s, which is recorded as %s",
                *(row["channel"], state, row["order_id"], stands),
                extra={"event": "payout_finding", "order": str(row["order_id"])},
            )


_EXPORTED: Final = ("order_id", "amount", "currency", "reported", "ending")


async def _write_findings(connection: Any, channel: str, file_no: int, findings: Sequence[Finding]) -> int:
    """Insert findings, and return the number of those that were not stored before."""
    if not findings:
        return 0
    details = [
        msgspec.json.encode({"file_no": file_no, **msgspec.structs.asdict(finding.result)}).decode()
        for finding in findings
    ]
    columns = [[getattr(finding, name) for finding in findings] for name in ("order", "stands", "says")]
    return len(await connection.fetch(SQL["payout_results_findings"], channel, *columns, details))


def _read(request: PayoutResultsRequest, header: Header) -> list[Result]:
    if request.format == "csv":
        return read_csv(request.content, header.currency)
    return read_pain002(request.content, header)
