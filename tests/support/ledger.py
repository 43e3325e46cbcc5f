"""The ledger without HTTP: accounts, commands, and their outcomes."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import time
from typing import Any
from zoneinfo import ZoneInfo

import asyncpg
from asyncpg.pgproto.pgproto import UUID

from fundledger.faults import Fault
from fundledger.ledger.context import Books
from fundledger.ledger.model.account import Account, Status
from fundledger.ledger.model.batch import Command, Outcome, SetStatus
from fundledger.ledger.model.clock import AccountingCalendar
from fundledger.ledger.model.hold import EndHold, Hold, PlaceHold
from fundledger.ledger.model.voucher import Record, Voucher, digest_of
from fundledger.ledger.posting import post_vouchers
from fundledger.ledger.store.accounts import AccountView, Layout, NewAccount, Opened, open_accounts, read_accounts
from fundledger.ledger.store.directory import Directory
from fundledger.ledger.store.records import read_holds, read_records
from fundledger.ledger.store.session import Session
from fundledger.ledger.store.write_cache import WriteCache
from fundledger.reconciliation.report import Report
from fundledger.security.keys import Keys
from tests.support.database import prove_books

Line = tuple[Account, int]


class Ledger:
    """The ledger as one worker uses it: a posting session, a connection for reads, a write cache.

    Only the test uses `connection`. Concurrent work uses `pool` or `reading`, because two concurrent queries on one
    connection are an error.
    """

    def __init__(self, dsn: str, keys: Keys, layout: Layout, ordinal: int = 0) -> None:
        self.dsn = dsn
        self.keys = keys
        self.layout = layout
        self.directory = Directory(keys, shards=layout.shards)
        calendar = AccountingCalendar(ZoneInfo("UTC"), time(0))
        self.books = Books(keys, self.directory, layout, calendar, ordinal)
        self.session = Session(dsn, f"test lane {ordinal}")
        self.connection: asyncpg.Connection[asyncpg.Record]
        self._workers: list[Ledger] = []

    async def start(self) -> "Ledger":
        self.connection = await asyncpg.connect(self.dsn)
        return self

    async def close(self) -> None:
        for worker in self._workers:
            await worker.close()
        await self.session.close()
        await self.connection.close()

    @asynccontextmanager
    async def reading(self) -> "AsyncIterator[asyncpg.Connection[asyncpg.Record]]":
        """Open another connection for reads that are concurrent with queries on `connection`."""
        connection = await asyncpg.connect(self.dsn)
        try:
            yield connection
        finally:
            await connection.close()

    def pool(self) -> "asyncpg.Pool[asyncpg.Record]":
        """Open a pool for concurrent work, such as a service or a background job."""
        return asyncpg.create_pool(self.dsn, min_size=1, max_size=4)

    async def worker(self, ordinal: int) -> "Ledger":
        """Open another worker on the same ledger. It is closed with this one."""
        worker = await Ledger(self.dsn, self.keys, self.layout, ordinal).start()
        self._workers.append(worker)
        return worker

    async def open(
        self,
        id_: str,
        type_: str = "merchant_available",
        owner: str | None = None,
        currency: str = "CNY",
        metadata: str | None = None,
        buffered: bool = False,
    ) -> Opened:
        request = NewAccount(id_, "dev", owner or id_, type_, currency, metadata, buffered)
        return (await open_accounts(self.connection, self.directory, self.keys, self.layout, [request]))[0]

    async def account(self, id_: str, type_: str = "merchant_available", balance: int = 0, **more: Any) -> Account:
        """Open an account and pay `balance`, in its normal direction, from `bank:funding`."""
        account = (await self.open(id_, type_, **more)).view.account
        if balance:
            currency = more.get("currency", "CNY")
            bank = (await self.open(f"bank:funding:{currency}", "bank", currency=currency)).view.account
            signed = balance * account.type.normal
            outcome = (await self.post(voucher((bank, -signed), (account, signed))))[0]
            assert posted(outcome), outcome
        return account

    def lock_always(self) -> None:
        """Disable the optimistic path from now on."""
        self.session.memory = WriteCache(0)

    async def post(self, *commands: Command) -> list[Outcome | Fault]:
        return await post_vouchers(self.session, self.books, commands)

    async def post_one(self, command: Command) -> Outcome:
        outcome = (await self.post(command))[0]
        assert isinstance(outcome, Outcome), outcome
        return outcome

    async def freeze(self, account: Account, status: Status = Status.FROZEN_ALL) -> Outcome:
        return await self.post_one(SetStatus(account, status, "a test", "tests"))

    async def hold(self, id_: str, account: Account, amount: int, expires_at_us: int = 0) -> Hold:
        outcome = await self.post_one(PlaceHold(id_, account, amount, expires_at_us, "dev"))
        assert outcome.hold is not None and outcome.refusal is None, outcome
        return outcome.hold

    async def view(self, account: Account) -> AccountView:
        return (await read_accounts(self.connection, self.directory, self.layout, [account.id]))[account.id]

    async def status(self, account: Account) -> Status:
        """Return the stored status, also of an account that does not verify."""
        statement = "SELECT max(CASE WHEN suspect THEN 4 ELSE status END) FROM ledger.sub_accounts WHERE account_number = $1 AND status <> 5"
        return Status(await self.connection.fetchval(statement, account.number))

    async def posted(self, account: Account) -> int:
        """Return the posted balance in the account's normal direction."""
        return (await self.view(account)).posted

    async def record(self, id_: UUID, module: str = "dev") -> Record | None:
        """Return the record of a module's voucher id."""
        found = await read_records(self.connection, self.directory, {(module, id_)})
        return found[0][0] if found else None

    async def read_hold(self, id_: str, module: str = "dev") -> Hold | None:
        return (await read_holds(self.connection, self.directory, {(module, id_)})).get((module, id_))

    async def count(self, table: str) -> int:
        return int(await self.connection.fetchval(f"SELECT count(*) FROM ledger.{table}"))

    async def state(self) -> dict[str, list[tuple[object, ...]]]:
        """Return every row of every table, to show that an action wrote nothing."""
        tables = (
            "buffered_entries",
            "accounts",
            "sub_accounts",
            "vouchers",
            "entries",
            "holds",
            "account_events",
            "integrity_findings",
        )
        return {
            table: sorted(tuple(map(str, row)) for row in await self.connection.fetch(f"SELECT * FROM ledger.{table}"))
            for table in tables
        }

    async def tamper(self, statement: str, *arguments: object) -> None:
        """Change rows by SQL, without the ledger. Fail if an UPDATE changes no row."""
        done = await self.connection.execute(statement, *arguments)
        assert done != "UPDATE 0", "the tampering missed"

    async def prove(self) -> Report:
        return await prove_books(self.dsn, self.keys)


async def together(*posts: Any) -> list[Any]:
    """Await several awaitables concurrently. Return their results in order."""
    return list(await asyncio.gather(*posts))


def new_id() -> UUID:
    return UUID(uuid.uuid4().bytes)


def posted(outcome: Outcome | Fault) -> bool:
    return isinstance(outcome, Outcome) and outcome.refusal is None and outcome.record is not None


def code(outcome: Outcome | Fault) -> str:
    """Return an outcome as one word: the code of the refusal, `posted`, or the name of the fault."""
    if isinstance(outcome, Fault):
        return type(outcome).__name__
    return "posted" if outcome.refusal is None else str(outcome.refusal.code)


def voucher(
    *lines: Line,
    id_: UUID | None = None,
    type_: str = "pay",
    reference: str | None = None,
    metadata: str | None = None,
    hold: Hold | None = None,
    hold_id: str | None = None,
    reverses: UUID | None = None,
    unknown: str | None = None,
    module: str = "dev",
) -> Voucher:
    """Return the voucher that the service would create from the body of a request.

    A line is `(account, signed amount)`; a credit is positive. `hold_id` without `hold` is the id of a hold that does
    not exist, as if it had been placed on the account of the first line.
    """
    asked = [(account.id, amount) for account, amount in lines] + ([(unknown, 0)] if unknown else [])
    held = hold.id if hold is not None else hold_id
    holder = hold.account if hold is not None else lines[0][0] if held is not None else None
    slot = hold.slot if hold is not None else 0
    digest = digest_of(type_, asked, reference, metadata, held, reverses)
    return Voucher(
        id_ or new_id(),
        module,
        type_,
        [] if unknown else list(lines),
        sum(amount for _, amount in lines),
        digest,
        reference,
        metadata,
        held,
        0 if holder is None else holder.shard,
        0 if holder is None else (holder.number << 16) + slot,
        reverses,
        unknown,
    )


def transfer(debit: Account, credit: Account, amount: int, id_: UUID | None = None, **more: Any) -> Voucher:
    """Return a voucher that debits `debit` and credits `credit`."""
    return voucher((debit, -amount), (credit, amount), id_=id_, **more)


def reversal(original: Voucher, id_: UUID | None = None) -> Voucher:
    lines = [(account, -amount) for account, amount in original.lines]
    return voucher(*lines, id_=id_, type_="reversal", reverses=original.id, module=original.module)


def capture(hold: Hold, credit: Account, amount: int, id_: UUID | None = None) -> Voucher:
    return voucher((hold.account, -amount), (credit, amount), id_=id_, hold=hold, module=hold.module)


def release(hold: Hold) -> EndHold:
    return EndHold(hold.id, hold.account, hold.slot, hold.module)


def expire(hold: Hold) -> EndHold:
    return EndHold(hold.id, hold.account, hold.slot, hold.module, expire=True)


async def accounts_by_shard(ledger: Ledger, balance: int = 0) -> dict[int, list]:
    """Open two merchants in each shard."""
    found: dict[int, list] = {shard: [] for shard in range(ledger.layout.shards)}
    i = 0
    while any(len(accounts) < 2 for accounts in found.values()):
        account = await ledger.account(f"m:{i}", balance=balance)
        found[account.shard].append(account)
        i += 1
    return found


def codes(outcomes: Sequence[Outcome | Fault]) -> list[str]:
    return [code(outcome) for outcome in outcomes]
