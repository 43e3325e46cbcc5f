"""Requests of the fund service to the account service have no quota there and are shed last."""

import time
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from fundledger.app.account.handlers import vouchers
from fundledger.app.account.service import FUND_MODULE
from fundledger.app.http.admission.admission import Admission
from fundledger.app.http.admission.controller import AdmissionController
from fundledger.app.http.admission.hot_keys import HotKeys
from fundledger.ratelimit.classes import ApiClass
from fundledger.ratelimit.quota.bucket import SPACE, Bucket
from fundledger.ratelimit.quota.buckets import Buckets
from fundledger.ratelimit.quota.limiter import Limiter
from fundledger.ratelimit.quota.policies import parse
from fundledger.ratelimit.quota.store import Store
from fundledger.ratelimit.shedding.shedder import Shedder
from fundledger.ratelimit.stats import Limits
from tests.app.test_answered import POLICIES, Service, a_payment, send, service
from tests.ratelimit.test_limiter import Near
from tests.support.wire import connected

__all__ = ["service"]
PATHS = ("/v1/vouchers", "/v1/vouchers/batch")
BODIES: dict[str, Any] = {
    "/v1/vouchers": a_payment(),
    "/v1/vouchers/batch": {"vouchers": [a_payment()] * 30},
}


@pytest.fixture
async def trusting(service: Service) -> AsyncIterator[Service]:
    """Return a service that treats all requests as sent by the fund service. Others may send ten for each merchant."""
    limiter = Limiter(parse(POLICIES), Near(service.world, 1), Limits())  # type: ignore[arg-type]
    service.controller = AdmissionController(limiter, Shedder(1.0, 100), HotKeys(), FUND_MODULE)
    service.module = lambda authorization: None if authorization is None else FUND_MODULE  # type: ignore[method-assign]
    yield service


def entered(service: Service, monkeypatch: pytest.MonkeyPatch) -> list[ApiClass]:
    """Record the classes of the requests that are admitted from now on."""
    classes: list[ApiClass] = []
    enter = Shedder.enter

    def seen(shedder: Shedder, api_class: ApiClass, *rest: Any) -> Any:
        classes.append(api_class)
        return enter(shedder, api_class, *rest)

    monkeypatch.setattr(Shedder, "enter", seen)
    return classes


@pytest.mark.parametrize("headers", [{}, {"Expect": "100-continue"}], ids=["short path", "ordinary path"])
@pytest.mark.parametrize("path", PATHS)
async def test_the_fund_service_meets_no_quota_and_is_of_the_class_that_is_shed_last(
    trusting: Service, path: str, headers: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    classes = entered(trusting, monkeypatch)
    async with connected(trusting.base_url) as wire:
        for _ in range(15):
            reply = await send(wire, BODIES[path], headers, path)
            assert reply.status == (200 if path.endswith("batch") else 422), reply
            assert "ratelimit" not in reply.headers
    assert set(classes) == {ApiClass.CONFIRM}
    assert trusting.spent() == 0
    assert trusting.in_flight == 0


@pytest.mark.parametrize("path", PATHS)
async def test_without_a_trusted_module_the_same_requests_are_rejected(trusting: Service, path: str) -> None:
    trusting.controller.trusted = None
    async with connected(trusting.base_url) as wire:
        statuses = {(await send(wire, BODIES[path], {}, path)).status for _ in range(15)}
    assert 429 in statuses


async def test_early_rejection_spares_postings_of_the_fund_service_and_not_its_reads(
    trusting: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Shedder, "is_shut", lambda self, api_class: api_class is not ApiClass.CONFIRM)
    controller = trusting.controller
    for method, is_open in (("POST", True), ("GET", False)):
        admission = Admission(FUND_MODULE, time.monotonic(), None, ApiClass.QUERY)
        assert controller.recognise(admission, method)
        assert (controller.early_rejection(admission) is None) is is_open
    stranger = Admission("dev", time.monotonic(), None, ApiClass.BATCH)
    assert not controller.recognise(stranger)
    assert controller.early_rejection(stranger) is not None


async def test_repeats_in_a_batch_of_the_fund_service_give_nothing_back_that_was_not_taken(
    trusting: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    trusting.lane.outcome.replay = True  # type: ignore[union-attr]
    try:
        async with connected(trusting.base_url) as wire:
            assert (await send(wire, BODIES["/v1/vouchers/batch"], {}, "/v1/vouchers/batch")).status == 200
        assert trusting.spent() == 0
        # The broken twin refunds tokens that were not charged, and the counters show it.
        refund_one = AdmissionController.refund_one
        untrusted = Admission(FUND_MODULE, 0.0, None, ApiClass.BATCH)
        monkeypatch.setattr(
            AdmissionController, "refund_one", lambda controller, _, *moved: refund_one(controller, untrusted, *moved)
        )
        async with connected(trusting.base_url) as wire:
            assert (await send(wire, BODIES["/v1/vouchers/batch"], {}, "/v1/vouchers/batch")).status == 200
        merchant = trusting.controller.limiter.match(FUND_MODULE, ApiClass.PAYMENT, "m:1", None).buckets[-1]  # type: ignore[union-attr]
        assert merchant.debt < 0
        assert trusting.spent() < 0
    finally:
        trusting.lane.outcome.replay = False  # type: ignore[union-attr]


def test_each_service_counts_in_buckets_of_its_own() -> None:
    policy = parse(POLICIES).all()[0]
    assert Bucket(policy, "x", 0).key == "{fundledger}:all:x"
    assert Bucket(policy, "x", 0, "fundledger-fund").key == "{fundledger-fund}:all:x"
    keys = {
        space: Buckets(parse(POLICIES), {}, lambda: 0.0, space).match("dev", ApiClass.PAYMENT, "m", "a", 1).buckets
        for space in (SPACE, "fundledger-fund")
    }
    assert not {b.key for b in keys[SPACE]} & {b.key for b in keys["fundledger-fund"]}
    one, other = (Store("redis://localhost", "n", Limits(), 1, space=space) for space in keys)
    assert not {one._since, one._back, one._probed, one._workers} & {other._since, other._workers}


def test_what_is_posted_of_a_batch_says_when() -> None:
    record = vouchers.Record("id", "pay", b"", [], None, None, None, None, None, 1, None, 0, "fund")  # type: ignore[arg-type]
    controller = AdmissionController(None, Shedder(1.0, 100), HotKeys())
    service: Any = SimpleNamespace(metrics=SimpleNamespace(outcome=lambda name: None), controller=controller)
    voucher: Any = SimpleNamespace(id="id", lines=[])
    admission = Admission("dev", 0.0, None, ApiClass.BATCH)
    for replay in (False, True):
        result = vouchers._result(service, admission, voucher, vouchers.Outcome(record=record, replay=replay))
        assert result.posted_at == "1970-01-01T00:00:00.000001Z"
