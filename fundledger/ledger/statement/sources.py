"""Sources of ledger statement lines: the verified vouchers of the lines, and the other accounts of each voucher."""

from collections.abc import Sequence
from functools import partial

import asyncpg
import msgspec
from asyncpg.pgproto.pgproto import UUID

from fundledger.ledger.model.account import Account
from fundledger.ledger.model.voucher import digest_of
from fundledger.ledger.store.directory import AccountTampered, Directory, Reader
from fundledger.ledger.store.integrity import UNREADABLE, Tampered, fetch_readable, verifies
from fundledger.ledger.store.queries import SQL
from fundledger.ledger.store.records import Name, is_wanted, names_of, voucher_message


class Source(msgspec.Struct, frozen=True):
    """A voucher from the perspective of one account.

    `amounts` are the signed amounts of the account's lines, in the order of the voucher. `credited` and `debited` are
    the ids of the other accounts that the voucher credits or debits.
    """

    id: UUID
    type: str
    reference: str | None
    metadata: str | None
    amounts: list[int]
    credited: list[str]
    debited: list[str]

    def counter_accounts(self, side: str) -> list[str]:
        """Return the other accounts on the side opposite to `side`."""
        return self.credited if side == "debit" else self.debited


async def read_sources(
    reader: Reader, directory: Directory, account: Account, wanted: Sequence[Name]
) -> dict[Name, Source]:
    """Return a source for each voucher in `wanted` that exists, by its name in the journal. Raises Tampered.

    If the record of another account of the voucher does not verify, that account is left out of `credited` and
    `debited`.
    """
    if not wanted:
        return {}
    found = await fetch_readable(reader, account, "read_vouchers", [id_ for _, id_ in wanted])
    rows = [row for row in found if is_wanted(row, wanted)]
    for row in rows:
        message = partial(voucher_message, row, row["layout"], row["key_version"])
        if not verifies(directory.keys, row["key_version"], row["mac"], message):
            raise Tampered(account, account.shard, 0, f"the record of voucher {row['id']} does not match its MAC", row)
    names = await _names(reader, directory, sorted({number for row in rows for number in row["lines"][::2]}))
    sources: dict[Name, Source] = {}
    for row in rows:
        source = _source(account, row, names)
        sources.update(dict.fromkeys(names_of(row), source))
    return sources


async def _names(reader: Reader, directory: Directory, numbers: Sequence[int]) -> dict[int, str]:
    names = {}
    for row in await _accounts(reader, numbers):
        try:
            names[row["number"]] = directory.verified(row).id
        except (AccountTampered, *UNREADABLE):
            continue
    return names


async def _accounts(reader: Reader, numbers: Sequence[int]) -> list[asyncpg.Record]:
    """Return the records of the accounts with these numbers. Records that cannot be decoded are left out."""
    try:
        return await reader.fetch(SQL["accounts_by_number"], numbers)
    except (ValueError, OverflowError) as error:
        if isinstance(error, asyncpg.InterfaceError):
            raise
        if len(numbers) == 1:
            return []
        half = len(numbers) // 2
        return [*await _accounts(reader, numbers[:half]), *await _accounts(reader, numbers[half:])]


def _source(account: Account, row: asyncpg.Record, names: dict[int, str]) -> Source:
    lines = list(zip(row["lines"][::2], row["lines"][1::2], strict=True))
    if all(number in names for number, _ in lines):
        asked = [(names[number], amount) for number, amount in lines]
        digest = digest_of(row["type"], asked, row["reference"], row["metadata"], row["hold"], row["reverses"])
        if digest != row["digest"]:
            wrong = f"the record of voucher {row['id']} has different content than requested"
            raise Tampered(account, account.shard, 0, wrong, row)
    others = [(names[number], amount) for number, amount in lines if number != account.number and number in names]
    return Source(
        row["id"],
        row["type"],
        row["reference"],
        row["metadata"],
        [amount for number, amount in lines if number == account.number],
        list(dict.fromkeys(name for name, amount in others if amount > 0)),
        list(dict.fromkeys(name for name, amount in others if amount < 0)),
    )
