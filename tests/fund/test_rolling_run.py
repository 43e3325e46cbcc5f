"""Random orders of merchants with rolling reserves: the ledger has the balances of an independent model."""

import logging
import os
import secrets
from datetime import UTC, datetime, time
from typing import Final

import asyncpg
import pytest

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
    ledger = await asyncpg.connect(service.dsn)
    worker = FundWorker(fund_database, service.base_url, service.fund_token)
    # The day of the run does not end soon.
    worker.calendar = "UTC", time((datetime.now(UTC).hour + 12) % 24)
    async with worker:
        run = RollingRun(worker, ledger, seed)
        await run.open()
        try:
            steps = 0
            while steps < STEPS or (WANTED - run.seen.keys() and steps < STEPS_MAX):
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
    await ledger.close()
    await prove_fund(fund_database, service.dsn, worker.salt, same_days=False)
