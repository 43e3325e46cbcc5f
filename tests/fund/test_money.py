"""Random orders of many merchants in four currencies: the ledger has the balances of an independent model of the business.

After each order the test compares the outcome, and the balance of every account of the platform and of the merchants.

`FUNDLEDGER_TEST_LONG=1` makes 200,000 steps; `--log-cli-level=INFO` shows the counts. A failure shows its seed and the
last steps.
"""

import logging
import os
import random
import secrets
from typing import Final

import asyncpg
import pytest

from tests.support.due_run import CALENDARS, Clocked, DueRun
from tests.support.fund_books import prove_fund
from tests.support.length import unless_long
from tests.support.running import RunningService

STEPS: Final = unless_long(1_200, 200_000)
STEPS_MAX: Final = 10 * STEPS
"""The maximum number of steps if an outcome was not reached yet."""
SEED: Final = 5
WANTED: Final = frozenset(
    {
        *(
            "payment posted",
            "payment parked",
            "settlement posted",
            "settlement refused",
            "refund posted",
            "refund refused",
        ),
        *(
            "withdrawal posted",
            "withdrawal refused",
            "withdrawal debt-in-progress",
            "withdrawal paid",
            "withdrawal bounced",
        ),
        *("chargeback posted", "chargeback parked", "recovery posted", "recovery refused", "write_off posted"),
        *("adjustment posted", "adjustment refused", "channel_cost posted", "bank_difference posted"),
        *("reversal posted", "reversal refused", "reversal order-already-reversed", "reversal order-not-reversible"),
        *("settlement nothing-to-settle", "settlement settlement-exceeds-pending", "refund refund-exceeds-payment"),
        *("chargeback chargeback-exceeds-payment", "refund payment-not-posted", "refund order-already-reversed"),
        *("recovery debt-exceeded", "write_off debt-exceeded", "release"),
        *("own_transfer posted", "own_transfer channel-underfunded", "own_transfer paid", "own_transfer bounced"),
        *("own_funds posted", "own_funds own-funds-exceeded", "own_funds channel-underfunded"),
        *("fee_sweep posted", "fee_sweep sweep-exceeds-income", "payable_payment posted"),
        *("payable_payment payable-exceeded", "suspense_clearing posted", "suspense_clearing suspense-exceeded"),
        *("adjustment suspense-exceeded", "parked_clearing posted", "park again"),
        *("top_up posted", "top_up parked", "transfer posted", "transfer refused", "transfer debt-in-progress"),
        *("reserve_hold posted", "reserve_hold refused", "reserve_release posted", "reserve_release reserve-exceeded"),
        *("dispute posted", "dispute refused", "dispute won", "dispute lost", "dispute chargeback-exceeds-payment"),
        *("dispute_won posted", "dispute_won parked", "dispute_won win-exceeds-chargeback"),
        *("dispute_won chargeback-not-posted", "dispute_fee posted", "dispute_fee parked"),
        *(
            f"reversal of {kind} posted"
            for kind in (
                *("adjustment", "bank_difference", "channel_cost", "settlement", "recovery", "write_off", "top_up"),
                *("dispute_fee", "own_funds", "fee_sweep", "payable_payment", "suspense_clearing", "payout_return"),
            )
        ),
        *("reversal suspense-exceeded", "reversal own-funds-exceeded", "reversal payable-exceeded"),
        *("refund paid", "refund bounced", "payout_return posted", "payout_return parked"),
        *("payout_return withdrawal-not-paid", "payout_return return-exceeds-withdrawal"),
        *("reversal of payout_return order-not-reversible", "parked_clearing of payout_return posted"),
        *("channel_invoice posted", "payable_payment invoice-exceeded", "invoice reversal posted"),
        *("invoice reversal order-not-reversible", "invoice reversal order-already-reversed"),
        *("split_payment posted", "split_payment parked", "split_refund posted", "split_refund refused"),
        *("split_refund refund-exceeds-payment", "split_refund payment-not-posted", "split_refund paid"),
        *("split_refund order-already-reversed", "split_refund bounced", "split_chargeback posted"),
        *("split_chargeback parked", "split_chargeback chargeback-exceeds-payment", "split reversal posted"),
        *("split reversal order-not-reversible", "split reversal order-already-reversed"),
        *("split_chargeback reversal posted", "split_chargeback reversal order-not-reversible"),
        *("due posted", "due nothing-to-settle", "due settlement-exceeds-pending"),
        *("all posted", "all nothing-to-withdraw"),
    }
)
"""Outcomes that a run has to reach. Otherwise it proves nothing about them."""
_log = logging.getLogger(__name__)


@pytest.mark.drill
@pytest.mark.timeout(900)
async def test_every_balance_is_that_of_the_model_after_each_order(fund_database: str, service: RunningService) -> None:
    seed = int(os.environ.get("FUNDLEDGER_TEST_SEED", "0")) or unless_long(SEED, secrets.randbits(32))
    ledger = await asyncpg.connect(service.dsn)
    try:
        worker = Clocked(fund_database, service.base_url, service.fund_token)
        worker.calendar = random.Random(seed).choice(CALENDARS)
        async with worker:
            run = DueRun(worker, ledger, seed)
            await run.open()
            steps = 0
            try:
                while steps < STEPS or (WANTED - run.seen.keys() and steps < STEPS_MAX):
                    await run.step()
                    steps += 1
            except BaseException as error:
                error.add_note(f"seed {seed}, order {run.number}\n" + "\n".join(run.steps))
                raise
            assert WANTED - run.seen.keys() == set(), f"seed {seed}: outcomes that were never reached"
            _log.info("seed %d: %d steps, %d orders, 0 differences; %s", seed, steps, run.number, dict(run.seen))
            for merchant in run.merchants:
                if merchant.held:
                    await run.hold(merchant)
            await run.compare()
        await prove_fund(fund_database, service.dsn, worker.salt, same_days=False)
    finally:
        await ledger.close()
