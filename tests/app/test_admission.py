"""The admission controller without a service: the accounts that it charges, the cost of a batch, early rejects."""

import asyncio
import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from fundledger.app.account.requests.charged_accounts import class_and_accounts
from fundledger.app.http.admission.admission import Admission
from fundledger.app.http.admission.controller import AdmissionController
from fundledger.app.http.admission.hot_keys import HotKeys
from fundledger.app.http.bodies import batch_decoding as many
from fundledger.app.http.problems import malformed
from fundledger.app.http.wire.reply import Reply
from fundledger.ledger.model.account import Account
from fundledger.ledger.model.chart import CHART
from fundledger.ratelimit.classes import ApiClass
from fundledger.ratelimit.quota.limiter import Limiter
from fundledger.ratelimit.quota.matched import Pending
from fundledger.ratelimit.quota.policies import parse
from fundledger.ratelimit.shedding.shedder import Shedder
from fundledger.ratelimit.stats import Limits
from tests.ratelimit.test_limiter import Near, World

POLICIES = """
version = 1
[[policy]]
name = "caller"
key = "caller"
rate = "1/h"
burst = 5_000
mode = "strict"
[[policy]]
name = "merchant"
key = "merchant"
rate = "1/h"
burst = 50
mode = "strict"
"""
BANK = Account(0, "bank", 0, 1, "CNY", CHART["bank"], owner="platform")
ONE, TWO = (Account(n, f"m:{n}:available", 0, 1, "CNY", CHART["merchant_available"], owner=f"m:{n}") for n in (1, 2))


def a_controller(policies: str | None = POLICIES) -> AdmissionController:
    world = World()
    world.now = 1e9
    limiter = None if policies is None else Limiter(parse(policies), Near(world, 1), Limits())  # type: ignore[arg-type]
    return AdmissionController(limiter, Shedder(1.0, 10_000), HotKeys(lambda: clock.now))


clock = SimpleNamespace(now=5000.25)


def an_admission(api_class: ApiClass = ApiClass.BATCH) -> Admission:
    return Admission("dev", time.monotonic(), None, api_class)


def moves(debited: Account, credited: Account) -> tuple[ApiClass, Sequence[Account]]:
    return class_and_accounts([(credited, 5), (debited, -5)])


async def test_a_rejected_batch_gets_the_wait_of_the_bucket_that_rejected_it_and_not_of_its_whole_price() -> None:
    controller = a_controller()
    limiter = controller.limiter
    assert limiter is not None

    async def detail(of_one: int, of_nobody: int) -> str:
        batch = [moves(BANK, ONE)] * of_one + [moves(BANK, BANK)] * of_nobody
        admission = an_admission()
        reply = await controller.ask_many(admission, batch, len(batch))
        if reply is None:
            controller.leave(admission, time.monotonic())
            return ""
        return reply.body.decode()

    assert await detail(40, 100) == ""
    assert "is used up" in await detail(40, 100)
    assert "the request costs 60 tokens, more than the burst of 50 of the policy merchant" in await detail(60, 100)


@pytest.mark.parametrize("policies", [POLICIES, None], ids=["limited", "without limits"])
async def test_a_batch_is_seen_among_the_hot_keys_of_all_whose_money_it_moves(policies: str | None) -> None:
    controller = a_controller(policies)
    batch = [moves(BANK, ONE)] * 3 + [moves(BANK, TWO)] * 2 + [moves(BANK, BANK)]
    assert await controller.ask_many(an_admission(), batch, len(batch)) is None
    clock.now += 1
    seen: dict[str, Any] = {kind: controller.hot_keys.top(kind, 5) for kind in ("caller", "merchant", "account")}
    assert [(key, rate) for key, rate, _ in seen["caller"]] == [("dev", 6.0)]
    assert [(key, rate) for key, rate, _ in seen["merchant"]] == [("m:1", 3.0), ("m:2", 2.0)]
    assert [(key, rate) for key, rate, _ in seen["account"]] == [(ONE.id, 3.0), (TWO.id, 2.0)]


async def lets_others_work(controller: AdmissionController) -> int:
    """Return the number of times that another task ran while a batch of 40 vouchers was charged."""
    turns, done = 0, False

    async def other() -> None:
        nonlocal turns
        while not done:
            turns += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(other())
    await controller.ask_many(an_admission(), [moves(BANK, ONE)] * 40, 40)
    done = True
    await beside
    return turns


async def test_while_a_long_batch_is_charged_others_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(many, "TURN_S", 0.0)
    assert await lets_others_work(a_controller()) >= 40
    monkeypatch.setattr(many, "TURN_S", 3600.0)
    assert await lets_others_work(a_controller()) < 10


async def test_only_a_caller_that_is_known_to_have_used_up_its_quota_is_rejected_early() -> None:
    controller = a_controller(POLICIES.replace("burst = 5_000", "burst = 2"))
    assert controller.early_rejection(an_admission()) is None
    for _ in range(2):
        assert await controller.admit(an_admission(ApiClass.QUERY), (ONE,)) is None
    assert controller.early_rejection(an_admission()) is None, "nobody has been told yet"
    denied = await controller.admit(an_admission(ApiClass.QUERY), (ONE,))
    assert denied is not None
    assert denied.status == 429
    admission = an_admission()
    reply = controller.early_rejection(admission)
    assert reply is not None
    assert reply.status == 429
    assert (reply.headers or {})["X-Limit-Decision"].startswith("caller;denycache;")
    assert controller.rate_limit_headers(admission, time.monotonic()).headers["RateLimit"].startswith('"caller";r=0;')
    assert controller.limiter is not None
    assert controller.limiter.counted().decisions["caller batch deny denycache"] == 1
    # An early reject does not depend on a merchant's quota.
    controller = a_controller(POLICIES.replace("burst = 50\n", "burst = 1\n"))
    assert await controller.admit(an_admission(ApiClass.QUERY), (ONE,)) is None
    assert await controller.admit(an_admission(ApiClass.QUERY), (ONE,)) is not None
    assert controller.early_rejection(an_admission(ApiClass.QUERY)) is None


async def test_no_request_is_rejected_early_by_a_shadow_policy() -> None:
    controller = a_controller(POLICIES.replace("burst = 5_000", "burst = 1\nshadow = true"))
    for _ in range(3):
        assert await controller.admit(an_admission(ApiClass.QUERY), ()) is None
        assert controller.early_rejection(an_admission(ApiClass.QUERY)) is None


BAD = malformed("there is something wrong with it").reply


async def test_a_malformed_request_costs_its_caller_one_token_and_is_denied_when_there_is_none() -> None:
    controller = a_controller(POLICIES.replace("burst = 5_000", "burst = 3"))
    limiter = controller.limiter
    assert limiter is not None
    for _ in range(3):
        admission = an_admission()
        assert isinstance(controller.charge_refused(admission, BAD), Pending)
        await controller.charge_later(admission)
    admission = an_admission()
    assert isinstance(controller.charge_refused(admission, BAD), Pending), "nobody has been told yet"
    await controller.charge_later(admission)
    denied = controller.charge_refused(an_admission(), BAD)
    assert isinstance(denied, Reply)
    assert denied.status == 429
    assert await controller.admit(an_admission(ApiClass.QUERY), ()) is not None, (
        "it is the quota of all requests of the caller"
    )


@pytest.mark.parametrize("status", [201, 401, 408, 409, 422, 429, 500, 503])
async def test_other_answers_are_charged_where_they_are_admitted(status: int) -> None:
    reply = Reply(status, b"{}")
    assert a_controller().charge_refused(an_admission(), reply) is reply


async def test_no_request_is_charged_twice() -> None:
    controller = a_controller()
    admission = an_admission()
    assert await controller.admit(admission, ()) is None
    assert controller.charge_refused(admission, BAD) is BAD
    assert controller.charge_refused(Admission("", 0.0, None, ApiClass.PAYMENT), BAD) is BAD
    assert a_controller(None).charge_refused(an_admission(), BAD) is BAD
    trusting = a_controller()
    trusting.trusted = "dev"
    admission = an_admission()
    assert trusting.recognise(admission)
    assert trusting.charge_refused(admission, BAD) is BAD
