"""Random orders of merchants with rolling reserves: the ledger has the balances of an independent model."""

import logging
import os
import secrets
from collections.abc import Callable
from datetime import UTC, datetime, time
from typing import Any, Final

import asyncpg
import pytest

from fundledger.fund import batcher, rolling
from fundledger.fund.model.order import Kind
from fundledger.fund.store.queries import SQL
from fundledger.fund.store.reserves import HoldsOfDay
from tests.support.fund_books import prove_fund
from tests.support.fund_worker import FundWorker
from tests.support.length import unless_long
from tests.support.rolling_run import RollingPlatform, RollingRun
from tests.support.running import RunningService

STEPS: Final = unless_long(400, 20_000)
STEPS_MAX: Final = 10 * STEPS
"""The maximum number of steps if an outcome was not reached yet."""
WANTED: Final = frozenset(
    {"withdrawal posted", "withdrawal refused", "transfer posted", "reserve_release reserve-exceeded"}
)
_log = logging.getLogger(__name__)


@pytest.mark.drill
@pytest.mark.timeout(unless_long(300, 3_600))
async def test_every_balance_is_that_of_the_model_with_rolling_reserves(
    fund_database: str, service: RunningService
) -> None:
    seed = int(os.environ.get("FUNDLEDGER_TEST_SEED", "0")) or unless_long(5, secrets.randbits(32))
    worker = FundWorker(fund_database, service.base_url, service.fund_token)
    await runs(worker, service, seed, STEPS, STEPS_MAX)
    await prove_fund(fund_database, service.dsn, worker.salt, same_days=False)


async def runs(worker: FundWorker, service: RunningService, seed: int, least: int, most: int) -> None:
    """Make at least `least` steps, and at most `most` until each outcome of WANTED is reached."""
    # The day of the run does not end soon.
    worker.calendar = "UTC", time((datetime.now(UTC).hour + 12) % 24)
    ledger = await asyncpg.connect(service.dsn)
    try:
        async with worker:
            run = RollingRun(worker, ledger, seed)
            await run.open()
            steps = 0
            try:
                while steps < least or (WANTED - run.seen.keys() and steps < most):
                    await run.step()
                    steps += 1
            except BaseException as error:
                error.add_note(f"seed {seed}, order {run.number}\n" + "\n".join(run.steps))
                raise
            await run.compare()
            assert isinstance(run.platform, RollingPlatform)
            assert WANTED - run.seen.keys() == set()
            assert sum(n > 0 for n in run.platform.rolled.values()) >= 3
            _log.info("seed %d: %d steps, %d orders, 0 differences; %s", seed, steps, run.number, dict(run.seen))
            for merchant in run.merchants:
                if merchant.held:
                    await run.hold(merchant)
    finally:
        await ledger.close()


def rounds_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rolling, "part_of_day", lambda base, points: -(-base * points // 10_000))


def holds_before_withdrawals_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batcher, "_HELD_BEFORE", frozenset({Kind.WITHDRAWAL}))


def holds_each_part_again(monkeypatch: pytest.MonkeyPatch) -> None:
    real = rolling.holds_of

    async def forgets(*arguments: Any) -> Any:
        return {day: HoldsOfDay(0, found.count) for day, found in (await real(*arguments)).items()}

    monkeypatch.setattr(rolling, "holds_of", forgets)


def counts_payments_that_are_settled_later(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = SQL["reserve_credits"].replace("o.settle = 'now'", "true")
    assert counted != SQL["reserve_credits"]
    monkeypatch.setitem(SQL, "reserve_credits", counted)


@pytest.mark.drill
@pytest.mark.parametrize(
    "breaks",
    [rounds_up, holds_before_withdrawals_only, holds_each_part_again, counts_payments_that_are_settled_later],
)
async def test_a_rolling_reserve_that_is_wrong_is_noticed(
    fund_database: str, service: RunningService, monkeypatch: pytest.MonkeyPatch, breaks: Callable[[Any], None]
) -> None:
    breaks(monkeypatch)
    with pytest.raises(AssertionError, match=r"^\(expected, found\) by account"):
        await runs(FundWorker(fund_database, service.base_url, service.fund_token), service, 5, STEPS, STEPS_MAX)
