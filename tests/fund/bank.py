"""Substitutes for a bank: the simulator in this process or in its own, channels that record calls, and an order batcher
that ends orders by SQL.
"""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Self
from uuid import UUID, uuid4

import aiohttp
import asyncpg
from aiohttp import web

from fundledger.fund.channels.channel import ChannelFault, Payout, Standing, StatementLine
from fundledger.fund.channels.simulator import TOKEN_FILE, Simulator
from fundledger.fund.model.answer import Answer, OrderFault, Taken
from fundledger.fund.model.bank_account import BankAccount
from fundledger.fund.model.order import REFUND_FORMAT, Kind, Order
from fundledger.fund.model.refusal import Code, Refusal
from fundledger.fund.next_steps import ENDED
from fundledger.fund.store.mac_layouts import MERCHANT, MERCHANT_DEFAULTS, merchant_fields
from fundledger.fund.store.orders import order_from
from tests.support.fund_ids import MACS, order_id, voucher_id
from tests.support.tampering import any_state
from tests.support.waiting import eventually

Pool = asyncpg.Pool
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Here:
    """The name of the running test's channel. `next` changes it, so that each test has its own channel."""

    number = 0

    def next(self) -> None:
        self.number += 1

    @property
    def channel(self) -> str:
        return f"bank-{self.number}"


here = Here()


class RunningBank:
    def __init__(self, folder: Path) -> None:
        self.token = "simulator_of_a_test"
        self.simulator = Simulator(folder, self.token)
        self._runner = web.AppRunner(self.simulator.app(), access_log=None)

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        port = self._runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{port}"
        self._session = aiohttp.ClientSession(self.url, headers={"Authorization": f"Bearer {self.token}"})
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()
        await self._runner.cleanup()

    async def post(self, path: str, body: object = None) -> tuple[int, Any]:
        async with self._session.post(path, json=body) as response:
            return response.status, await response.json()

    async def get(self, path: str, **headers: str) -> tuple[int, Any]:
        async with self._session.get(path, headers=headers) as response:
            is_json = response.content_type == "application/json"
            return response.status, await response.json() if is_json else await response.text()

    async def behave(self, **behaviour: object) -> None:
        status, body = await self.post("/behaviour", behaviour)
        assert status == 200, body

    @property
    def totals(self) -> dict[str, int]:
        return self.simulator.bank.totals()


class BankProcess:
    """The simulator as `fundledger serve` runs it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: asyncio.subprocess.Process | None = None

    @property
    def token(self) -> str:
        return (self.folder / TOKEN_FILE).read_text().strip()

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "fundledger.fund.channels.simulator"),
            *("--port", str(self.port), "--folder", str(self.folder)),
        )
        await eventually(self._answers, "the simulator answers")

    async def kill(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGKILL)
        await self._process.wait()
        self._process = None

    async def totals(self) -> dict[str, int]:
        return (await self._get("/totals"))[1]

    async def _answers(self) -> bool:
        with contextlib.suppress(aiohttp.ClientError, FileNotFoundError):
            return (await self._get("/healthz"))[0] == 200
        return False

    async def _get(self, path: str) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {self.token}"}
        async with aiohttp.ClientSession(self.url, headers=headers) as session, session.get(path) as response:
            return response.status, await response.json()


@contextlib.asynccontextmanager
async def a_bank_process(folder: Path) -> AsyncIterator[BankProcess]:
    bank = BankProcess(folder)
    await bank.start()
    try:
        yield bank
    finally:
        if bank._process is not None:
            await bank.kill()


class Scripted:
    """A channel that returns the answers of the test, in order. It records its calls, and pays on every call."""

    def __init__(self, *said: Standing | ChannelFault | Payout) -> None:
        self.said = list(said)
        self.asked: list[str] = []
        self.refs: list[str] = []
        self.original_refs: list[str | None] = []
        self.payees: list[BankAccount | None] = []
        self.during: Callable[[str], Awaitable[None]] | None = None

    async def pay_out(self, ref: str, amount: int, currency: str, payee: BankAccount | None = None) -> Payout:
        self.payees.append(payee)
        return await self._say("pay_out", ref)

    async def query(self, ref: str) -> Payout:
        return await self._say("query", ref)

    async def refund(self, ref: str, original_ref: str | None, amount: int, currency: str) -> Payout:
        self.original_refs.append(original_ref)
        return await self._say("refund", ref)

    async def query_refund(self, ref: str) -> Payout:
        return await self._say("query_refund", ref)

    async def statement(self, day: date) -> list[StatementLine]:
        return []

    async def _say(self, verb: str, ref: str) -> Payout:
        self.asked.append(verb)
        self.refs.append(ref)
        if self.during is not None:
            await self.during(verb)
        said = self.said.pop(0)
        if isinstance(said, ChannelFault):
            raise said
        return said if isinstance(said, Payout) else Payout(said, channel_ref=f"REF-{ref[:8]}")


class EndsInSql:
    """A substitute for the order batcher. Its `end` changes the order by SQL and posts no voucher."""

    macs = MACS

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.away = False
        self.asked: list[tuple[UUID, str, str]] = []

    async def contradiction(self, order: Order) -> str | None:
        """Return None: every voucher matches its order."""
        return None

    async def end(
        self, order_id: UUID, ending: str, channel_ref: str | None, reason: str | None, module: str
    ) -> Answer:
        self.asked.append((order_id, ending, module))
        if self.away:
            return OrderFault("the account service does not answer")
        async with self._pool.acquire() as connection, connection.transaction():
            row = await connection.fetchrow("SELECT * FROM fund.orders WHERE id = $1 FOR UPDATE", order_id)
            if row is None:
                return Refusal(Code.ORDER_NOT_FOUND, "there is no such order")
            if row["state"] == ending:
                return Taken(to_order(row), replay=True)
            if row["state"] in {"paid", "bounced"}:
                return Refusal(ENDED[Kind(row["kind"]), row["state"]], "it has ended")
            row = await connection.fetchrow(
                "UPDATE fund.orders SET state = $2, ending = $2, channel_ref = $3, reason = $4 WHERE id = $1 RETURNING *",
                *(order_id, ending, channel_ref, reason),
            )
            order = to_order(row)
            MACS.seal(order)
            await connection.execute("UPDATE fund.orders SET mac = $2 WHERE id = $1", order_id, order.mac)
            await connection.execute(
                "INSERT INTO fund.events (order_id, merchant, kind, state, at)"
                " VALUES ($1, 'm', $3, $2, clock_timestamp())",
                *(order_id, ending, row["kind"]),
            )
            return Taken(to_order(row))


DEFAULTS = {
    **dict.fromkeys(
        (
            *("from_pending", "to_receivable", "fee_waived", "attempt", "set_off", "end_set_off"),
            *("returned", "counter_set_off", "tax"),
        ),
        0,
    ),
    "layout": 2,
    "takes_all": False,
    "voucher_format": 1,
}


def to_order(row: Any) -> Order:
    return order_from({name: row[name] for name in Order.__struct_fields__})


async def an_order(pool: Pool, kind: str, amount: int, state: str, **columns: Any) -> UUID:
    order_no = columns.pop("order_no", uuid4().hex)
    id_ = order_id(kind, "m", order_no)
    row = {
        "id": id_,
        "kind": kind,
        "merchant": "m",
        "order_no": order_no,
        "state": state,
        "amount": amount,
        "fee": 0,
        "currency": "CNY",
        "channel": here.channel,
        "module": "dev",
        "digest": b"",
        "voucher_id": voucher_id(id_),
        "created_at": NOW,
        "posted_at": NOW,
        **columns,
    }
    order = to_order({**dict.fromkeys(Order.__struct_fields__), **DEFAULTS, **row})
    MACS.seal(order)
    row |= {"layout": order.layout, "mac": order.mac, "mac_key": order.mac_key}
    names = ", ".join(row)
    places = ", ".join(f"${n + 1}" for n in range(len(row)))
    async with any_state(pool) as fund:
        await fund.execute(f"INSERT INTO fund.orders ({names}) VALUES ({places})", *row.values())
    return id_


async def a_refund(
    pool: Pool,
    amount: int = 100,
    state: str = "posted",
    original_ref: str | None = None,
    kind: str = "refund",
    **columns: Any,
) -> UUID:
    """Insert a refund whose money is sent, and its payment. `original_ref`: the reference of the payment. `kind`:
    `refund` or `split_refund`.
    """
    parts = {"parts": f'[{{"merchant":"m","amount":{amount}}}]'} if kind == "split_refund" else {}
    of = "split_payment" if parts else "payment"
    payment = await an_order(pool, of, amount, "posted", channel_ref=original_ref, settle="now", **parts)
    more = {"of_order": payment, "voucher_format": REFUND_FORMAT, **parts, **columns}
    return await an_order(pool, kind, amount, state, **more)


async def a_merchant(pool: Pool, id_: str = "m") -> None:
    """Insert a merchant unless it exists."""
    row = {"id": id_, "name": "M", "currency": "CNY", "settlement": "manual", "withdrawal_limit": None}
    row |= {"digest": b"", "created_at": NOW}
    sealed = MACS.rows.tag(MERCHANT, merchant_fields({**row, **MERCHANT_DEFAULTS}))
    await pool.execute(
        """INSERT INTO fund.merchants (id, name, currency, settlement, withdrawal_limit, digest, created_at, mac_key, mac)
           VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING""",
        *row.values(),
        *sealed,
    )


async def a_withdrawal(pool: Pool, amount: int = 100, state: str = "posted", **columns: Any) -> UUID:
    """Insert a withdrawal, and its merchant, which exists for every withdrawal."""
    await a_merchant(pool, columns.get("merchant", "m"))
    return await an_order(pool, "withdrawal", amount, state, **columns)
