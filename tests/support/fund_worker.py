"""A fund worker in the process of the test, with a fund database and a running account service."""

import uuid
from collections.abc import Collection
from datetime import UTC, datetime, time, timedelta
from functools import partial
from typing import Any, Self

import msgspec

from fundledger.client.account_service import AccountService
from fundledger.fund.account_gateway import AccountGateway
from fundledger.fund.batcher import OrderBatcher
from fundledger.fund.channel_check import Registry
from fundledger.fund.jobs.recover import Recoverer
from fundledger.fund.jobs.settle import Settler
from fundledger.fund.model import accounts
from fundledger.fund.model.answer import Answer, Taken
from fundledger.fund.model.change import Change, ChangeKind
from fundledger.fund.model.channel import Channel, RefundMethod
from fundledger.fund.model.order import Kind, Order, State
from fundledger.fund.model.person import Role
from fundledger.fund.model.request_types import REQUESTS
from fundledger.fund.model.requests import Fee, MerchantRequest, Request
from fundledger.fund.poster import Posting
from fundledger.fund.store.calendars import record_first
from fundledger.fund.store.changes import Applier, Changes
from fundledger.fund.store.holidays import apply_holidays
from fundledger.fund.store.macs import open_macs
from fundledger.fund.store.merchant_changes import MerchantChanges
from fundledger.fund.store.merchants import Merchants
from fundledger.fund.store.open_ids import open_ids
from fundledger.fund.store.persons import add_person, new_token
from fundledger.fund.store.pool import open_pool
from tests.support.fund_ids import KEYS

MODULE = "tester"
CHECKER = "checker"


def request_of(kind: str, **members: Any) -> Request:
    return REQUESTS[Kind(kind)](**members)


class EveryChannel:
    """A registry in which each channel is registered, and permits each order."""

    names: tuple[str, ...] = ()

    def __init__(self, refund: RefundMethod = "payout") -> None:
        self._refund = refund

    def known(self, name: str, currency: str) -> Channel:
        account = accounts.bank(name, currency)
        return Channel(name, currency, account, "http", False, None, "open", "tests", datetime.now(UTC), self._refund)

    async def get(self, name: str, currency: str) -> Channel:
        return self.known(name, currency)

    async def look(self) -> None:
        """Read nothing: each channel is registered."""


class FundWorker:
    """A fund worker without HTTP. Several objects on one database act as separate workers.

    `salt` is a part of all ids, which other tests therefore do not use. `calendar`: the time zone and the cut that are
    recorded at the start, None for days in UTC without a record.
    """

    def __init__(
        self, dsn: str, base_url: str, token: str, *, wait_s: float = 5.0, due_s: float = 0.0, salt: str = ""
    ) -> None:
        self.salt = salt or uuid.uuid4().hex[:8]
        self.dsn = dsn
        self.days_back = 0
        self.calendar: tuple[str, time] | None = None
        self.registry: Registry = EveryChannel()
        self.accounts = AccountService(base_url, token)
        self.gateway = AccountGateway(self.accounts)
        self._settings = {"batch_max": 500, "wait_s": wait_s, "due_s": due_s}

    def now(self) -> datetime:
        """Return the time of new orders, which is `days_back` days before the current time."""
        return datetime.now(UTC) - timedelta(days=self.days_back)

    async def __aenter__(self) -> Self:
        self.pool = await open_pool(self.dsn, "tests", 8)
        await self.accounts.open()
        await self.start_worker()
        return self

    async def start_worker(self) -> None:
        """Create the objects of a new worker. An earlier worker is dropped."""
        self.macs = await open_macs(self.pool, KEYS)
        if self.calendar is not None:
            async with self.pool.acquire() as connection:
                await record_first(connection, self.macs.rows, self.macs.days, *self.calendar)
            await self.macs.read_days(self.pool)
        self.merchants = Merchants(self.pool, self.gateway, self.macs, now=self.now)
        await self.merchants.look()
        self.posting = Posting(self.pool, self.gateway, await open_ids(self.pool, KEYS), self.macs)
        self.batcher = OrderBatcher(
            self.pool, self.posting, self.merchants, self.registry, now=self.now, **self._settings
        )
        self.recoverer = Recoverer(self.posting, 0.0)
        self.changes = MerchantChanges(self.pool, self.macs, self.merchants, self.gateway)
        appliers: dict[ChangeKind, Applier] = {
            ChangeKind.MERCHANT: self.changes.apply_patch,
            ChangeKind.FEE_RULE: self.changes.apply_fee_rule,
            ChangeKind.HOLIDAYS: partial(apply_holidays, macs=self.macs),
        }
        self.dual = Changes(self.pool, self.macs, appliers)

    async def __aexit__(self, *_: object) -> None:
        await self.batcher.drain()
        await self.accounts.close()
        await self.pool.close()

    async def merchant(self, name: str = "m", currency: str = "CNY", fee: Fee | None = None, **more: Any) -> str:
        """Create a merchant unless it exists. Return its id."""
        id_ = f"{name}-{self.salt}"
        created = await self.merchants.create(
            MerchantRequest(id=id_, name=name, currency=currency, fee=fee, **more), MODULE
        )
        assert isinstance(created, tuple), created
        return id_

    async def ask(self, kind: str, module: str = MODULE, **members: Any) -> Answer:
        """Request an order. An order that needs an approval is approved by CHECKER."""
        return await self.asked(request_of(kind, **members), module)

    async def asked(self, request: Request, module: str = MODULE, left: Collection[Kind] = ()) -> Answer:
        """Request an order. If it needs an approval, CHECKER approves it, unless its kind is in `left`."""
        answer = await self.batcher.ask(request, module)
        if isinstance(answer, Taken) and answer.order.state is State.CREATED and request.kind not in left:
            return await self.batcher.approve(answer.order.id, CHECKER)
        return answer

    async def persons(self, *names: str) -> None:
        """Add persons, unless they exist."""
        for name in names:
            await add_person(self.pool, self.macs, name, [Role.CHECKER], MODULE, datetime.now(UTC), new_token(name))

    async def requested(self, kind: str, **members: Any) -> Order:
        """Request an order that needs an approval, and do not approve it."""
        answer = await self.batcher.ask(request_of(kind, **members), MODULE)
        assert isinstance(answer, Taken), answer
        assert answer.order.state is State.CREATED
        return answer.order

    async def done(self, kind: str, **members: Any) -> Order:
        """Post an order and require that it is accepted."""
        answer = await self.ask(kind, **members)
        assert isinstance(answer, Taken), answer
        return answer.order

    async def pay(self, merchant: str, order_no: str, amount: int, **more: Any) -> Order:
        members = {"currency": "CNY", "channel": f"c-{self.salt}", **more}
        return await self.done("payment", merchant=merchant, order_no=order_no, amount=amount, **members)

    async def debit(self, merchant: str, order_no: str, amount: int) -> None:
        """Debit the available balance of a merchant by an adjustment."""
        members = {"amount": amount, "direction": "debit", "reason": "a slip"}
        await self.done("adjustment", merchant=merchant, order_no=order_no, **members)

    async def balance(self, account: str) -> int:
        found = await self.accounts.account(account)
        return 0 if found is None else found.balance.posted

    async def of(self, merchant: str) -> tuple[int, int, int]:
        """Return the balances of a merchant: available, pending, receivable."""
        names = ("available", "pending", "receivable")
        return tuple([await self.balance(f"merchant:{merchant}:{name}") for name in names])  # type: ignore[return-value]

    async def approved(self, kind: ChangeKind, subject: str, body: msgspec.Struct) -> Change:
        """Request a change, and let CHECKER approve it."""
        made = await self.dual.request(kind, subject, body, MODULE)
        assert isinstance(made, Change), made
        applied = await self.dual.approve(made.id, CHECKER)
        assert isinstance(applied, Change), applied
        return applied

    def settler(self, at: time = time(2), again_s: float = 0.0) -> Settler:
        """Return the job of automatic settlements."""
        return Settler(self.pool, self.batcher, self.merchants, at, again_s)

    async def value(self, statement: str, *arguments: Any) -> Any:
        return await self.pool.fetchval(statement, *arguments)
