"""Payout files of the fund service: the export of due withdrawals, and the files that were exported.

One transaction locks the withdrawals, records them as `sent`, inserts their payouts, and inserts the file with its
content. So a payout is in one file, permanently, whatever fails: before the commit there is no file, and after it the
file can be read. Exports of a channel are serialized, so that its files are numbered without gaps.
"""

import asyncio
import hashlib
import logging
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Protocol
from uuid import UUID

import msgspec

from fundledger.fund.account_gateway import GatewayFault
from fundledger.fund.channel_check import Registry
from fundledger.fund.jobs.payout_funds import PayoutFunds
from fundledger.fund.jobs.payout_holds import held
from fundledger.fund.jobs.payout_payees import Bounces, PayoutPayees, why_not
from fundledger.fund.jobs.stuck import mark_differing
from fundledger.fund.model.answer import OrderFault
from fundledger.fund.model.channel import Channel, unknown_channel
from fundledger.fund.model.order import Order, State
from fundledger.fund.model.payee import Payee
from fundledger.fund.model.payout_file import PayoutFile, PayoutFileRequest, PayoutLine
from fundledger.fund.model.refusal import Code, Refusal, Refused
from fundledger.fund.model.requests import AMOUNT_MAX
from fundledger.fund.payout_files.csv_file import write_csv
from fundledger.fund.payout_files.pain001 import write_pain001
from fundledger.fund.store.mac_layouts import PAYOUT, PAYOUT_FILE, Filed, fields_of_payout, payout_file_fields
from fundledger.fund.store.macs import OrderMacs, Tampered
from fundledger.fund.store.orders import AnyConnection, Connection, Pool, order_from
from fundledger.fund.store.payees import read_payees
from fundledger.fund.store.queries import SQL

READ_AT_ONCE: Final = 20
"""The maximum number of concurrent reads of vouchers."""
_log = logging.getLogger(__name__)


class Exported(msgspec.Struct, frozen=True):
    """A payout file. `unnamed`: the number of due withdrawals of the channel that are in no file, because they have no
    payee. `replay`: the file existed before the request.
    """

    file: PayoutFile
    unnamed: int
    replay: bool = False


class Batcher(Bounces, Protocol):
    """The interface to the order batcher, as far as exports need it."""

    async def contradiction(self, order: Order) -> str | None: ...


class PayoutFiles:
    """The payout files of the fund database, in one worker. Methods raise Tampered, and what asyncpg raises."""

    def __init__(
        self,
        pool: Pool,
        macs: OrderMacs,
        batcher: Batcher,
        channels: Registry,
        funds: PayoutFunds,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._pool = pool
        self._macs = macs
        self._batcher = batcher
        self._channels = channels
        self._funds = funds
        self._payees = PayoutPayees(pool, macs)
        self._now = now
        # An export holds a connection of the pool while it waits for another one of its channel.
        self._one = asyncio.Lock()

    async def read(self, channel: str, file_no: int, connection: "AnyConnection | None" = None) -> PayoutFile | None:
        row = await (connection or self._pool).fetchrow(SQL["payout_files_read"], channel, file_no)
        return None if row is None else self._verified(row)

    async def content(self, channel: str, file_no: int) -> tuple[PayoutFile, bytes] | None:
        """Return a file with its content, the same bytes each time, or None if there is no such file."""
        file = await self.read(channel, file_no)
        if file is None:
            return None
        content = await self._pool.fetchval(SQL["payout_files_content"], channel, file_no)
        if content is None or hashlib.sha256(content).digest() != file.digest:
            self._macs.report("payout_file", f"{channel} {file_no}", "content", {"digest": file.digest.hex()})
            raise Tampered("payout file", f"{channel} {file_no}")
        return file, content

    async def page(self, channel: str, after: int, limit: int) -> tuple[list[PayoutFile], list[str], int]:
        """Return `(files of a channel after a number, numbers of files that do not match their MACs, number of the last
        row or 0)`.
        """
        rows = await self._pool.fetch(SQL["payout_files_list"], channel, after, limit)
        good, bad = [], []
        for row in rows:
            try:
                good.append(self._verified(row))
            except Tampered:
                bad.append(f"{channel} {row['file_no']}")
        return good, bad, rows[-1]["file_no"] if rows else 0

    async def export(self, name: str, request: PayoutFileRequest, by: str) -> Exported | Refusal | OrderFault:
        """Export due withdrawals of a channel, oldest first. A withdrawal that the bank account does not cover blocks
        later ones. The refusal is CHANNEL_NOT_FOUND, CHANNEL_NOT_FILE, PAYOUT_FILE_NO_WRONG, CHANNEL_UNDERFUNDED or
        NOTHING_TO_EXPORT. After any other exception than Tampered, the list of files shows whether a file was made.
        """
        await self._channels.look()
        channel = await self._channels.get(name, request.currency)
        if channel is None:
            return unknown_channel(name, request.currency, self._channels.names)
        if channel.payout != "file":
            detail = f"the payout method of channel {name} is {channel.payout}"
            return Refusal(Code.CHANNEL_NOT_FILE, detail, "name")
        try:
            async with self._one:
                return await self._export(channel, request, by)
        except Refused as no:
            return no.refusal
        except GatewayFault as fault:
            return OrderFault(f"the account service does not answer: {fault}")

    async def _export(self, channel: Channel, request: PayoutFileRequest, by: str) -> Exported | Refusal:
        name, currency = channel.name, channel.currency
        if request.file_no is not None:
            there = await self.read(name, request.file_no)
            if there is not None:
                return await self._again(there, request)
        due = await self._matching(await self._due(name, currency, request.limit), name)
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(SQL["payout_files_lock"], name)
            file_no = 1 + await connection.fetchval(SQL["payout_files_last"], name)
            if request.file_no is not None and request.file_no != file_no:
                there = await self.read(name, request.file_no, connection)
                if there is not None:
                    # A concurrent request has made the file.
                    return await self._again(there, request)
                detail = f"the next payout file of channel {name} is {file_no}"
                raise Refused(Refusal(Code.PAYOUT_FILE_NO_WRONG, detail, "file_no"))
            lines = await self._chosen(connection, channel, due)
            file = await self._write(connection, channel, request, file_no, lines, by)
        _log.info(
            "payout file %d of channel %s has %d payouts in %s",
            *(file.file_no, name, file.lines, currency),
            extra={"event": "payout_file_made", "channel": name, "file_no": file.file_no},
        )
        return Exported(file, await self._unnamed(file))

    async def _again(self, file: PayoutFile, request: PayoutFileRequest) -> Exported | Refusal:
        if (file.currency, file.format) != (request.currency, request.format):
            detail = f"payout file {file.file_no} of channel {file.channel} is in {file.currency}, {file.format}"
            return Refusal(Code.PAYOUT_FILE_NO_WRONG, detail, "file_no")
        return Exported(file, await self._unnamed(file), replay=True)

    async def _unnamed(self, file: PayoutFile) -> int:
        return int(await self._pool.fetchval(SQL["payout_files_unnamed"], file.channel, file.currency))

    async def _due(self, channel: str, currency: str, limit: int) -> list[Order]:
        """Return withdrawals that are to be exported, without those of merchants that get no payouts now."""
        holding: set[str] = set()
        while True:
            rows = await self._pool.fetch(SQL["payout_files_due"], channel, currency, limit, sorted(holding))
            more = await held(self._pool, self._macs, {row["merchant"] for row in rows})
            if not more:
                return [order_from(row) for row in rows]
            holding |= more

    async def _matching(self, orders: Sequence[Order], channel: str) -> list[Order]:
        """Return the orders that may be paid out: each matches its MAC and its posted voucher, and its payee is usable.
        Of the others, an order that differs becomes stuck, and one whose payee is disabled is returned to its merchant.
        Raises GatewayFault.
        """
        gate = asyncio.Semaphore(READ_AT_ONCE)
        payees, bad = await read_payees(self._pool, self._macs, {o.payee for o in orders if o.payee is not None})

        async def matches(order: Order) -> bool:
            async with gate:
                differs = await self._batcher.contradiction(order)
                if differs is not None:
                    await mark_differing(self._pool, self._macs, order, channel, differs)
                    return False
                assert order.payee is not None
                unusable = why_not(order, payees.get(order.payee), is_tampered=order.payee in bad)
                if unusable is None:
                    return True
                if unusable.tampered:
                    await mark_differing(self._pool, self._macs, order, channel, unusable.detail)
                else:
                    await self._payees.give_up(self._batcher, order, unusable.detail, f"file/{channel}")
                return False

        found = await asyncio.gather(*map(matches, orders), return_exceptions=True)
        for one in found:
            if isinstance(one, BaseException):
                raise one
        return [order for order, is_right in zip(orders, found, strict=True) if is_right]

    async def _chosen(
        self, connection: Connection, channel: Channel, due: Sequence[Order]
    ) -> list[tuple[Order, Payee]]:
        """Lock the withdrawals of the file, and return them with their payees, oldest first. Raises Refused if there is
        none, GatewayFault.
        """
        locked = await connection.fetch(
            *(SQL["payout_files_hold"], channel.name, channel.currency),
            *([order.id for order in due], [order.mac for order in due]),
        )
        # A merchant that is suspended after this keeps the payouts that are in the file.
        holding = await held(connection, self._macs, {order.merchant for order in due})
        orders = {order.id: order for order in due}
        named: Collection[UUID] = {id_ for order in due if (id_ := order.payee) is not None}
        # A payee that is disabled after this keeps the payouts that are in the file.
        payees, _ = await read_payees(connection, self._macs, named, share=True)
        left = await self._funds.left_of(connection, channel)
        found: list[tuple[Order, Payee]] = []
        total, is_short = 0, False
        for row in locked:
            order = orders[row["id"]]
            if order.merchant in holding:
                continue
            payee = None if order.payee is None else payees.get(order.payee)
            if payee is None or payee.state != "active":
                # The payee has been disabled or edited since it was read.
                continue
            is_short = left is not None and total + order.amount > left
            if is_short or total + order.amount > AMOUNT_MAX:
                break
            total += order.amount
            found.append((order, payee))
        if not found:
            if is_short:
                detail = f"the bank account of channel {channel.name} does not hold enough for the next payout"
                raise Refused(Refusal(Code.CHANNEL_UNDERFUNDED, detail))
            detail = f"no withdrawal with a payee is due through channel {channel.name} in {channel.currency}"
            raise Refused(Refusal(Code.NOTHING_TO_EXPORT, detail))
        return found

    async def _write(
        self,
        connection: Connection,
        channel: Channel,
        request: PayoutFileRequest,
        file_no: int,
        chosen: Sequence[tuple[Order, Payee]],
        by: str,
    ) -> PayoutFile:
        """Insert a file with its payouts. The caller holds the locks of the orders."""
        name, currency, at = channel.name, channel.currency, self._now()
        lines = [PayoutLine(o.id, o.merchant, o.order_no, o.amount, payee.bank_account) for o, payee in chosen]
        total = sum(line.amount for line in lines)
        file = PayoutFile(name, file_no, currency, request.format, len(lines), total, b"", by, at)
        # Rendering in a thread keeps the worker responsive.
        content = await asyncio.to_thread(_rendered, file, lines, request)
        file = msgspec.structs.replace(file, digest=hashlib.sha256(content).digest())
        row = msgspec.structs.asdict(file)
        sealed = self._macs.rows.tag(PAYOUT_FILE, payout_file_fields(row))
        await connection.execute(SQL["payout_files_write"], *row.values(), content, *sealed)
        sent, kept = [], []
        for number, (order, _) in enumerate(chosen, 1):
            new = msgspec.structs.replace(order, state=State.SENT)
            self._macs.seal(new)
            sent.append(new.mac)
            fields = fields_of_payout(order.id, name, order.amount, currency, filed=Filed(file_no, number))
            kept.append(self._macs.rows.tag(PAYOUT, fields)[1])
            if number % 200 == 0:
                await asyncio.sleep(0)
        columns = [line.order for line in lines], [line.amount for line in lines], sent, kept
        claimed = await connection.fetch(
            SQL["payout_files_claim"], name, file_no, currency, *columns, self._macs.rows.version
        )
        assert len(claimed) == len(lines), (len(claimed), len(lines))
        return file

    def _verified(self, row: Any) -> PayoutFile:
        key = f"{row['channel']} {row['file_no']}"
        if not self._macs.agrees(PAYOUT_FILE, "payout_file", key, payout_file_fields, row):
            raise Tampered("payout file", key)
        return PayoutFile(*(row[name] for name in PayoutFile.__struct_fields__))


def _rendered(file: PayoutFile, lines: Sequence[PayoutLine], request: PayoutFileRequest) -> bytes:
    if request.format == "csv":
        return write_csv(file, lines)
    assert request.debtor is not None
    day = request.execution_date or file.created_at.astimezone(UTC).date()
    return write_pain001(file, lines, request.debtor.bank_account, day)
