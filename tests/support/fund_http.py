"""A fund service over HTTP in the process of the test, with a fund database and a running account service."""

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg

from fundledger.app.fund.server import serving
from fundledger.app.fund.service import FundService
from fundledger.app.http.process import open_listener
from fundledger.client.account_service import AccountService
from fundledger.fund.store.events import fund_feed
from fundledger.fund.store.macs import open_macs
from fundledger.fund.store.open_ids import open_ids
from fundledger.ratelimit.quota.limiter import Limiter
from fundledger.security.tokens import Tokens
from fundledger.settings import Settings
from tests.support.client import Answer, Client
from tests.support.fund_ids import KEYS
from tests.support.running import RunningService, free_port

TOKEN = "fund-tests"
OTHER_TOKEN = "fund-tests-of-another"
NOBODY = "http://127.0.0.1:1"


class EveryName(dict[str, bool]):
    """The channels that the settings name: each name."""

    def __contains__(self, name: object) -> bool:
        return True

    def __missing__(self, name: str) -> bool:
        return False


@asynccontextmanager
async def a_fund_service(
    dsn: str,
    run_dir: Path,
    accounts: RunningService | None,
    *,
    limiter: Limiter | None = None,
    wait_s: float = 5.0,
    every_channel: bool = True,
) -> AsyncIterator[tuple[FundService, str]]:
    """Yield the service and its URL. Without `accounts`, no server listens at the address of the account service.
    `every_channel`: each channel is registered when it is first used.
    """
    url, token = (NOBODY, "") if accounts is None else (accounts.base_url, accounts.fund_token)
    pool = await asyncpg.create_pool(dsn, min_size=1, max_size=8)
    ids, macs = await open_ids(pool, KEYS), await open_macs(pool, KEYS)
    port = free_port()
    service = FundService(
        Settings(data_dir=run_dir),
        pool,
        AccountService(url, token),
        Tokens.of({TOKEN: "tests", OTHER_TOKEN: "others"}),
        run_dir,
        0,
        ids,
        macs,
        batch_max=500,
        wait_s=wait_s,
        due_s=0.0,
        feed=fund_feed(dsn, pool, macs, "test"),
        limiter=limiter,
    )
    if every_channel:
        service.channels._automatic = EveryName()
    async with serving(service, open_listener("127.0.0.1", port)):
        yield service, f"http://127.0.0.1:{port}"


class FundClient(Client):
    """A client of the fund service. `salt` is a part of all ids, which other tests therefore do not use. `channel`: the
    channel of payments; None: a channel of this client.
    """

    def __init__(self, base_url: str, token: str = TOKEN) -> None:
        super().__init__(base_url, token)
        self.salt = uuid.uuid4().hex[:8]
        self.channel: str | None = None

    async def shop(self, name: str = "m", balance: int = 0, **more: Any) -> str:
        """Create a merchant that has been paid this balance; return its id."""
        members = {"id": f"{name}-{self.salt}", "name": name, "currency": "CNY", **more}
        answer = await self.post("/v1/merchants", members)
        assert answer.status in (200, 201), answer
        if balance:
            assert (await self.paid(members["id"], f"first-{name}", balance)).status == 201
        return str(members["id"])

    async def paid(self, merchant: str, order_no: str, amount: int, **more: Any) -> Answer:
        return await self.post("/v1/payments", self.payment(merchant, order_no, amount, **more))

    def payment(self, merchant: str, order_no: str, amount: int, **more: Any) -> dict[str, Any]:
        named = {"merchant": merchant, "order_no": order_no, "amount": amount}
        return {**named, "currency": "CNY", "channel": self.channel or f"c-{self.salt}", **more}

    async def approve(self, change: Answer) -> Answer:
        """Approve the change in an answer, as another module."""
        assert change.status == 202, change
        headers = {"Authorization": f"Bearer {OTHER_TOKEN}"}
        return await self.post(f"/v1/changes/{change.json['id']}/approve", headers=headers)

    async def has(self, merchant: str) -> tuple[int, int, int]:
        """Return the balances of a merchant: available, pending, receivable."""
        answer = await self.get(f"/v1/merchants/{merchant}")
        assert answer.status == 200, answer
        shown = answer.json["balances"]
        names = ("available", "pending", "receivable")
        return tuple([shown[f"merchant:{merchant}:{name}"]["posted"] for name in names])  # type: ignore[return-value]
