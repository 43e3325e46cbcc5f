"""Rate limits of look-ups: a request is charged before the database is read for an id that may not exist."""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from multidict import CIMultiDict

from fundledger.app.account.handlers import holds, vouchers
from fundledger.app.http.admission.admission import Admission
from fundledger.app.http.admission.controller import AdmissionController
from fundledger.app.http.problems import BadRequest
from fundledger.app.http.routing import Call
from fundledger.app.http.wire.reply import Reply
from fundledger.fund.model.order import Kind
from fundledger.ratelimit.classes import ApiClass
from fundledger.ratelimit.quota.limiter import Limiter
from fundledger.ratelimit.quota.policies import parse
from fundledger.ratelimit.stats import Limits
from tests.app.test_admission import a_controller
from tests.ratelimit.test_limiter import Near, World
from tests.support.client import Client, new_id, voucher
from tests.support.database import Databases
from tests.support.fund_http import TOKEN, a_fund_service

BURST = 3
ASKED = 20
POLICIES = f"""
version = 1
[[policy]]
name = "caller"
key = "caller"
rate = "1/h"
burst = {BURST}
mode = "strict"
"""
ORDER = {"merchant": "nobody", "order_no": "1", "amount": 1}
FUND: dict[str, dict[str, Any]] = {
    "/v1/withdrawals/{id}/paid": {"channel_ref": "r"},
    "/v1/withdrawals/{id}/bounced": {"reason": "none"},
    "/v1/adjustments/{id}/approve": {},
    **{f"/v1/{kind}s/{{id}}/retry": {"reason": "none"} for kind in (Kind.WITHDRAWAL, Kind.PAYMENT, Kind.REFUND)},
    "/v1/payments": {**ORDER, "currency": "CNY", "channel": "c"},
    "/v1/withdrawals": {**ORDER, "channel": "c"},
    "/v1/settlements": ORDER,
}


class NoRepeats:
    """A replay look-up that finds no voucher and no order."""

    def has_room(self) -> bool:
        return True

    async def known(self, *_: object) -> bool:
        return False


class Reads:
    """A counter of reads."""

    def __init__(self) -> None:
        self.count = 0

    async def __call__(self, read: Callable[[], Awaitable[Any]]) -> Any:
        self.count += 1
        return await read()


@pytest.fixture
async def fund(postgres: Databases, tmp_path: Path) -> AsyncIterator[tuple[str, Reads]]:
    dsn = await postgres.new_fund()
    world = World()
    world.now = 1e9
    limiter = Limiter(parse(POLICIES), Near(world, 1), Limits())  # type: ignore[arg-type]
    async with a_fund_service(dsn, tmp_path, None, limiter=limiter) as (service, url):
        reads = Reads()
        service.reading = reads  # type: ignore[assignment,method-assign]
        service.replays = NoRepeats()  # type: ignore[assignment]
        yield url, reads
    await postgres.drop(dsn)


@pytest.mark.parametrize("path", FUND)
async def test_the_fund_service_reads_nothing_for_a_caller_without_quota(fund: tuple[str, Reads], path: str) -> None:
    url, reads = fund
    async with Client(url, TOKEN, connections=ASKED) as client:
        asked = [client.post(path.replace("{id}", str(uuid.uuid4())), FUND[path]) for _ in range(ASKED)]
        statuses = [answer.status for answer in await asyncio.gather(*asked)]
    assert statuses.count(429) == ASKED - BURST, statuses
    assert set(statuses) <= {404, 422, 429, 503}, statuses
    assert reads.count <= BURST


ACCOUNT: dict[str, tuple[Callable[[Any, Call], Awaitable[Reply]], ApiClass, Callable[[], dict[str, Any]], int]] = {
    "capture": (holds.capture_hold, ApiClass.CONFIRM, lambda: {"voucher": voucher("a", "b", 1)}, 1),
    "release": (holds.release_hold, ApiClass.CONFIRM, dict, 1),
    "hold": (holds.place_hold, ApiClass.PAYMENT, lambda: {"id": new_id(), "account": new_id(), "amount": 1}, 1),
    "reverse": (vouchers.reverse_voucher, ApiClass.REFUND, lambda: {"id": new_id()}, 1),
    "post": (vouchers.post_one, ApiClass.PAYMENT, lambda: voucher("a", "b", 1), 1),
    "list": (vouchers.post_batch, ApiClass.BATCH, lambda: {"vouchers": [voucher("a", "b", 1) for _ in range(2)]}, 2),
}


@pytest.mark.parametrize("name", ACCOUNT)
async def test_the_account_service_reads_nothing_for_a_caller_without_quota(name: str) -> None:
    statuses, reads = await asked(name, a_controller(POLICIES))
    allowed = BURST // ACCOUNT[name][-1]
    assert statuses.count(429) == ASKED - allowed, statuses
    assert reads <= allowed


@pytest.mark.parametrize("name", ACCOUNT)
async def test_the_twin_that_charges_after_the_read_reads_for_all(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def charges_nothing(*_: object) -> None:
        return None

    monkeypatch.setattr(AdmissionController, "charge_caller", charges_nothing)
    _, reads = await asked(name, a_controller(POLICIES))
    assert reads > BURST


async def asked(name: str, controller: AdmissionController) -> tuple[list[int], int]:
    """Return the statuses, and the number of database reads."""
    handler, api_class, body, _ = ACCOUNT[name]
    tasks: set[asyncio.Task[None]] = set()
    reads = 0

    async def reading(_: object) -> Any:
        nonlocal reads
        reads += 1
        await asyncio.sleep(0)
        return {}

    service = SimpleNamespace(
        controller=controller,
        reading=reading,
        reading_durable=reading,
        directory=SimpleNamespace(get=lambda _: None),
        lanes=[SimpleNamespace(post=lambda *_: None, free=lambda: 0)],
        replays=NoRepeats(),
        metrics=SimpleNamespace(outcome=lambda _: None),
        spawn=lambda work: tasks.add(asyncio.ensure_future(work)),
    )

    async def ask() -> int:
        admission = Admission("dev", time.monotonic(), None, api_class)
        call = Call("dev", {"id": new_id()}, {}, CIMultiDict(), json.dumps(body()).encode(), admission)
        try:
            return (await asyncio.wait_for(handler(service, call), 0.2)).status
        except BadRequest as bad:
            return bad.reply.status
        except Exception:
            return 0  # an admitted request finds no ledger here

    statuses = await asyncio.gather(*(ask() for _ in range(ASKED)))
    for task in tasks:
        task.cancel()
    return statuses, reads
