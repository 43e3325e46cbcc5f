"""Records of vouchers and holds in the ledger's store: decode, verify and write their rows."""

import contextlib
import hmac
import logging
import re
import struct
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from typing import Final, TypeAlias

import asyncpg
from asyncpg.pgproto.pgproto import UUID

from fundledger.faults import RecordTampered
from fundledger.ledger.model import clock
from fundledger.ledger.model.account import Account
from fundledger.ledger.model.batch import Batch
from fundledger.ledger.model.hold import Hold, HoldKey, HoldStatus, hold_digest
from fundledger.ledger.model.refusal import decode_refusal, encode_refusal
from fundledger.ledger.model.voucher import Record, digest_of
from fundledger.ledger.store.directory import AccountTampered, Directory, Reader
from fundledger.ledger.store.queries import SQL
from fundledger.security import canonical
from fundledger.security.keys import KeyFault, Keys

_FUND_BEFORE: Final = re.compile("fund:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
Name: TypeAlias = tuple[str | None, UUID]
"""The name of a voucher in journal and outbox: module and voucher id.

The module is None in rows from the time when all modules shared one space of ids.
"""
_log = logging.getLogger(__name__)
UNREADABLE: Final = (ValueError, TypeError, OverflowError, AttributeError, struct.error)
"""Errors caused by values that the ledger never writes, such as an infinite time, or voucher lines that are not
pairs."""


class VoucherTampered(RecordTampered):
    """A voucher's record does not match its MAC."""


class HoldTampered(RecordTampered):
    """A hold does not match its MAC."""


async def read_records(
    reader: Reader, directory: Directory, wanted: Collection[Name]
) -> list[tuple[Record, UUID | None]]:
    """Return the vouchers that exist among these names, each with the id of the voucher that reverses it, or None.

    A name without a module refers to a voucher from the time when all modules shared one space of ids. Raises
    AccountTampered, VoucherTampered, KeyFault.
    """
    rows = [row for row in await _rows(reader, wanted) if is_wanted(row, wanted)]
    numbers = {number for row in rows for number in row["lines"][::2]}
    accounts = await directory.by_number(reader, sorted(numbers))
    return [(record_of(row, accounts, directory.keys), row["reversed_by"]) for row in rows]


async def read_each(reader: Reader, directory: Directory, wanted: Collection[Name]) -> dict[Name, Record | None]:
    """Return the vouchers that exist among these names.

    If a voucher does not verify, log the failure, and return None as the value of the voucher.
    """
    rows = [row for row in await _rows(reader, wanted) if is_wanted(row, wanted)]
    numbers = sorted({number for row in rows for number in row["lines"][::2] if number is not None})
    accounts: dict[int, Account] = {}
    try:
        accounts = await directory.by_number(reader, numbers)
    except (AccountTampered, KeyFault):
        for number in numbers:
            with contextlib.suppress(AccountTampered, KeyFault):
                accounts |= await directory.by_number(reader, [number])
    found: dict[Name, Record | None] = {}
    for row in rows:
        try:
            record = record_of(row, accounts, directory.keys)
        except (VoucherTampered, KeyFault) as error:
            _log.critical("a voucher is withheld: %s", error, extra={"event": "integrity_finding", "once": str(error)})
            record = None
        found.update({key: record for key in names_of(row) if key in wanted})
    return found


async def _rows(reader: Reader, wanted: Collection[Name]) -> list[asyncpg.Record]:
    return await reader.fetch(SQL["read_vouchers"], list({id_ for _, id_ in wanted}))


def names_of(row: asyncpg.Record) -> Iterator[Name]:
    """Yield the names by which journal and outbox may refer to the voucher of this row."""
    yield row["module"], row["id"]
    if row["shared_id"]:
        yield None, row["id"]


def is_wanted(row: asyncpg.Record, wanted: Collection[Name]) -> bool:
    return any(name in wanted for name in names_of(row))


def record_of(row: asyncpg.Record, accounts: Mapping[int, Account], keys: Keys) -> Record:
    """Verify a voucher's row and return the voucher. For a row of layout 1, the digest is verified too.

    Raises VoucherTampered, KeyFault.
    """
    if not voucher_verifies(row, keys):
        raise VoucherTampered(f"the record of voucher {row['id']} does not match its MAC")
    try:
        lines = [(accounts[n], amount) for n, amount in zip(row["lines"][::2], row["lines"][1::2], strict=True)]
    except KeyError:
        raise VoucherTampered(f"an account of voucher {row['id']} is missing or does not match its MAC") from None
    record = Record(
        row["id"],
        row["type"],
        row["digest"],
        lines,
        row["reference"],
        row["metadata"],
        row["hold"],
        row["reverses"],
        None if row["refusal"] is None else decode_refusal(row["refusal"]),
        clock.us(row["posted_at"]),
        row["accounting_date"],
        row["batch"],
        row["module"],
    )
    if row["layout"] == 1 and not _agrees_with_digest(record):
        raise VoucherTampered(f"the record of voucher {row['id']} does not match its digest")
    return record


def _agrees_with_digest(record: Record) -> bool:
    """Return whether a record of layout 1 matches its digest and its module.

    A MAC of layout 1 covers type and free text only through the digest, and does not cover the module.
    """
    asked = [(account.id, amount) for account, amount in record.lines]
    digest = digest_of(record.type, asked, record.reference, record.metadata, record.hold, record.reverses)
    # A reversal has the module of the reversed voucher. That voucher is not read here; the MAC sweep checks the module.
    right = record.reverses is not None or record.module == module_before(record.reference)
    return right and hmac.compare_digest(digest, record.digest)


def module_before(reference: str | None) -> str:
    """Return the module that migration 12 assigned to the existing vouchers with this reference."""
    return "fund" if reference is not None and _FUND_BEFORE.fullmatch(reference) else "dev"


async def read_holds(reader: Reader, directory: Directory, wanted: Collection[HoldKey]) -> dict[HoldKey, Hold]:
    """Return the holds that exist among these keys of module and id.

    Raises HoldTampered, AccountTampered, KeyFault.
    """
    found = await reader.fetch(SQL["read_holds"], list({id_ for _, id_ in wanted}))
    rows = [row for row in found if (row["module"], row["id"]) in wanted]
    accounts = await directory.by_number(reader, sorted({row["account_number"] for row in rows})) if rows else {}
    holds = {}
    for row in rows:
        hold = hold_of(row, accounts, directory.keys)
        holds[hold.key] = hold
    return holds


def hold_of(row: asyncpg.Record, accounts: Mapping[int, Account], keys: Keys) -> Hold:
    """Verify a hold's row and return the hold. Raises HoldTampered, KeyFault."""
    if not hold_verifies(row, keys):
        raise HoldTampered(f"hold {row['id']} does not match its MAC")
    account = accounts.get(row["account_number"])
    if account is None:
        raise HoldTampered(f"the account of hold {row['id']} is missing")
    hold = Hold(
        row["id"],
        account,
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
        row["module"],
    )
    if row["layout"] == 1 and not _hold_agrees_with_digest(hold, row["shard"]):
        raise HoldTampered(f"hold {row['id']} does not match its digest")
    return hold


def _hold_agrees_with_digest(hold: Hold, shard: int) -> bool:
    """Return whether a hold of layout 1 matches its digest, has the module `dev` and is in the shard of its account.

    A MAC of layout 1 does not cover these fields.
    """
    digest = hold_digest(hold.id, hold.account.id, hold.amount, hold.expires_at_us)
    named = (hold.voucher_id is not None) == (hold.status == HoldStatus.CAPTURED)
    return named and (hold.module, shard) == ("dev", hold.account.shard) and hmac.compare_digest(digest, hold.digest)


async def write_holds(connection: "asyncpg.Connection[asyncpg.Record]", batch: Batch) -> None:
    """Write the changed holds of a batch. The caller has locked the sub-accounts of the holds.

    Raises UniqueViolationError when another transaction has used the id of a new hold meanwhile.
    """
    key = batch.key
    for hold in batch.changed_holds.values():
        refusal = None if hold.refusal is None else encode_refusal(hold.refusal).decode()
        mac = key.tag(_message(hold, refusal, key.version))
        ended_at = _moment(hold.ended_at_us)
        if hold.key not in batch.new_holds:
            fields = (hold.captured, hold.status, hold.voucher_id, ended_at, key.version, mac)
            ended = await connection.execute(SQL["end_hold"], hold.id, hold.module, *fields)
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
            hold.module,
        )


def _message(hold: Hold, refusal: str | None, key_version: int) -> bytes:
    return canonical.hold_2(
        hold.id,
        hold.module,
        hold.account.shard,
        hold.account.number,
        hold.slot,
        hold.amount,
        hold.captured,
        hold.status,
        hold.digest,
        None if hold.voucher_id is None else hold.voucher_id.bytes,
        hold.created_at_us,
        hold.expires_at_us,
        hold.ended_at_us,
        refusal,
        key_version,
    )


def voucher_verifies(row: asyncpg.Record, keys: Keys) -> bool:
    """Return whether a voucher's row matches its MAC. Raises KeyFault."""
    key = keys.by_version(row["key_version"])
    try:
        return key.matches(voucher_message(row, row["layout"], row["key_version"]), row["mac"])
    except UNREADABLE:
        return False


def hold_verifies(row: asyncpg.Record, keys: Keys) -> bool:
    """Return whether a hold's row matches its MAC. Raises KeyFault."""
    key = keys.by_version(row["key_version"])
    try:
        return key.matches(hold_message(row, row["layout"], row["key_version"]), row["mac"])
    except UNREADABLE:
        return False


def voucher_message(row: asyncpg.Record, layout: int, key_version: int) -> bytes:
    """Return the content of a voucher's row that a MAC of this layout covers. Raises UNREADABLE for invalid values."""
    if layout == 1:
        return canonical.voucher(
            row["id"].bytes,
            row["digest"],
            row["accounting_date"].toordinal(),
            clock.us(row["posted_at"]),
            row["batch"],
            row["lines"],
            row["refusal"],
            key_version,
        )
    if layout != canonical.LAYOUT:
        raise ValueError(f"there is no layout {layout}")
    return canonical.voucher_2(
        row["id"].bytes,
        row["module"],
        row["type"],
        row["digest"],
        row["accounting_date"].toordinal(),
        clock.us(row["posted_at"]),
        row["batch"],
        row["lines"],
        row["reference"],
        row["metadata"],
        row["hold"],
        None if row["reverses"] is None else row["reverses"].bytes,
        row["refusal"],
        row["shared_id"],
        key_version,
    )


def hold_message(row: asyncpg.Record, layout: int, key_version: int) -> bytes:
    """Return the content of a hold's row that a MAC of this layout covers. Raises UNREADABLE for invalid values."""
    times = (clock.us(row["created_at"]), _us(row["expires_at"]), _us(row["ended_at"]))
    if layout == 1:
        amounts = (row["amount"], row["captured"], row["status"])
        return canonical.hold(
            row["id"], row["account_number"], row["slot"], *amounts, *times, row["refusal"], key_version
        )
    if layout != canonical.LAYOUT:
        raise ValueError(f"there is no layout {layout}")
    return canonical.hold_2(
        row["id"],
        row["module"],
        row["shard"],
        row["account_number"],
        row["slot"],
        row["amount"],
        row["captured"],
        row["status"],
        row["digest"],
        None if row["voucher_id"] is None else row["voucher_id"].bytes,
        *times,
        row["refusal"],
        key_version,
    )


def _us(moment: datetime | None) -> int:
    return 0 if moment is None else clock.us(moment)


def _moment(us: int) -> datetime | None:
    return None if us == 0 else clock.moment(us)
