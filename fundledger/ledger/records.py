"""Vouchers and holds between their rows and their types."""

from collections.abc import Sequence
from datetime import datetime

import asyncpg
from asyncpg.pgproto.pgproto import UUID

from fundledger.ledger import clock
from fundledger.ledger.batch import Batch
from fundledger.ledger.directory import Directory, Reader
from fundledger.ledger.hold import Hold, HoldStatus
from fundledger.ledger.refusal import decode_refusal, encode_refusal
from fundledger.ledger.statements import SQL
from fundledger.ledger.voucher import Record
from fundledger.security import canonical
from fundledger.security.keys import Keys


class VoucherTampered(Exception):
    """A voucher's record does not match its MAC."""


class HoldTampered(Exception):
    """A hold does not match its MAC."""


async def read_records(
    reader: Reader, directory: Directory, voucher_ids: Sequence[UUID]
) -> list[tuple[Record, UUID | None]]:
    """The vouchers that exist among these ids, each with its reversal's. Raises AccountTampered, VoucherTampered."""
    rows = await reader.fetch(SQL["read_vouchers"], voucher_ids)
    for row in rows:
        if directory.keys.by_version(row["key_version"]).tag(voucher_message(row)) != row["mac"]:
            raise VoucherTampered(f"the record of voucher {row['id']} does not match its MAC")
    numbers = {number for row in rows for number in row["lines"][::2]}
    accounts = await directory.by_number(reader, sorted(numbers))
    return [
        (
            Record(
                row["id"],
                row["type"],
                row["digest"],
                [(accounts[n], amount) for n, amount in zip(row["lines"][::2], row["lines"][1::2], strict=True)],
                row["reference"],
                row["metadata"],
                row["hold"],
                row["reverses"],
                None if row["refusal"] is None else decode_refusal(row["refusal"]),
                clock.us(row["posted_at"]),
                row["accounting_date"],
                row["batch"],
            ),
            row["reversed_by"],
        )
        for row in rows
    ]


async def read_holds(reader: Reader, directory: Directory, keys: Keys, hold_ids: Sequence[str]) -> dict[str, Hold]:
    """The holds that exist among these ids. Raises HoldTampered, AccountTampered."""
    rows = await reader.fetch(SQL["read_holds"], hold_ids)
    accounts = await directory.by_number(reader, sorted({row["account_number"] for row in rows})) if rows else {}
    holds = {}
    for row in rows:
        hold = Hold(
            row["id"],
            accounts[row["account_number"]],
            row["slot"],
            row["amount"],
            row["captured"],
            HoldStatus(row["status"]),
            row["digest"],
            row["voucher_id"],
            None if row["refusal"] is None else decode_refusal(row["refusal"]),
            clock.us(row["created_at"]),
            _us(row["expires_at"]),
            _us(row["ended_at"]),
        )
        if keys.by_version(row["key_version"]).tag(hold_message(row)) != row["mac"]:
            raise HoldTampered(f"hold {hold.id} does not match its MAC")
        holds[hold.id] = hold
    return holds


async def write_holds(connection: "asyncpg.Connection[asyncpg.Record]", batch: Batch) -> None:
    """Under the locks of their sub-accounts. Raises UniqueViolationError when an id was used elsewhere meanwhile."""
    key = batch.key
    for hold in batch.changed_holds.values():
        refusal = None if hold.refusal is None else encode_refusal(hold.refusal).decode()
        mac = key.tag(_message(hold, refusal, key.version))
        ended_at = _moment(hold.ended_at_us)
        if hold.id not in batch.new_holds:
            ended = await connection.execute(
                SQL["end_hold"], hold.id, hold.captured, hold.status, hold.voucher_id, ended_at, key.version, mac
            )
            assert ended == "UPDATE 1", "a hold changed without the lock of its sub-account"
            continue
        await connection.execute(
            SQL["place_hold"],
            hold.account.shard,
            hold.id,
            hold.account.number,
            hold.slot,
            hold.amount,
            hold.captured,
            hold.status,
            hold.voucher_id,
            hold.digest,
            refusal,
            clock.moment(hold.created_at_us),
            _moment(hold.expires_at_us),
            ended_at,
            key.version,
            mac,
        )


def _message(hold: Hold, refusal: str | None, key_version: int) -> bytes:
    return canonical.hold(
        hold.id,
        hold.account.number,
        hold.slot,
        hold.amount,
        hold.captured,
        hold.status,
        hold.created_at_us,
        hold.expires_at_us,
        hold.ended_at_us,
        refusal,
        key_version,
    )


def voucher_message(row: asyncpg.Record) -> bytes:
    """What the MAC of a voucher's row covers."""
    return canonical.voucher(
        row["id"].bytes,
        row["digest"],
        row["accounting_date"].toordinal(),
        clock.us(row["posted_at"]),
        row["batch"],
        row["lines"],
        row["refusal"],
        row["key_version"],
    )


def hold_message(row: asyncpg.Record) -> bytes:
    """What the MAC of a hold's row covers."""
    return canonical.hold(
        row["id"],
        row["account_number"],
        row["slot"],
        row["amount"],
        row["captured"],
        row["status"],
        clock.us(row["created_at"]),
        _us(row["expires_at"]),
        _us(row["ended_at"]),
        row["refusal"],
        row["key_version"],
    )


def _us(moment: datetime | None) -> int:
    return 0 if moment is None else clock.us(moment)


def _moment(us: int) -> datetime | None:
    return None if us == 0 else clock.moment(us)
