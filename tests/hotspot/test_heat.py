"""Hot accounts are found in a stream of commands in bounded memory. Their heat does not change back and forth."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fundledger.heavy_hitters import SpaceSaving
from fundledger.hotspot.detector import COLD, Heat, Signal, Temperature, Thresholds, merge, step
from fundledger.hotspot.heat import CAPACITY, HeatSampler, Report, Warm
from tests.support.ledger import transfer
from tests.support.world import World


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 3)), max_size=300), st.integers(1, 12))
def test_the_summary_keeps_the_promises_of_space_saving(stream: list[tuple[int, int]], capacity: int) -> None:
    summary = SpaceSaving(capacity)
    true: Counter[int] = Counter()
    for key, weight in stream:
        summary.add(key, weight)
        true[key] += weight
    total = sum(true.values())
    assert len(summary.counts) <= capacity
    assert sum(summary.counts.values()) == total
    for key, count in summary.counts.items():
        assert true[key] <= count <= true[key] + total / capacity
    for key, count in true.items():
        assert count <= total / capacity or key in summary.counts


def test_the_summary_stays_small_however_long_the_stream_is() -> None:
    summary = SpaceSaving(8)
    chance = random.Random(1)
    for _ in range(20_000):
        summary.add(chance.randrange(1000), 1)
    assert len(summary.counts) == 8
    assert len(summary._heap) <= 64


def test_an_account_with_a_fifth_of_the_arrivals_is_reported_also_from_large_batches() -> None:
    world = World()
    bank = world.account("bank", "bank")
    merchants = [world.account(f"m:{i}") for i in range(2000)]
    chance = random.Random(2)
    sampler = HeatSampler()
    for _ in range(20):
        batch = [
            transfer(bank, merchants[0] if chance.random() < 0.2 else chance.choice(merchants), 1) for _ in range(2000)
        ]
        sampler.batch(batch, 0.04)
    report = sampler.report(1.0, {})
    hot = next(warm for warm in report.hottest if warm.account_number == merchants[0].number)
    assert report.arrivals == 40_000
    assert 0.15 <= hot.arrivals / report.arrivals <= 0.25
    assert hot.busy_s == pytest.approx(0.8)
    assert bank.number not in {warm.account_number for warm in report.hottest}
    assert len(report.hottest) <= CAPACITY


def test_a_report_begins_anew() -> None:
    world = World()
    sampler = HeatSampler()
    sampler.batch([transfer(world.account("a"), world.account("b"), 1)], 0.5)
    assert sampler.report(1.0, {}).arrivals == 1
    assert sampler.report(1.0, {7: 3}) == Report(1.0, 0, [Warm(7, 0, 0.0, 3)])


def test_the_reports_of_workers_are_added_up() -> None:
    signals = merge(
        [
            Report(1.0, 100, [Warm(1, 60, 0.4), Warm(2, 1, 0.1)]),
            Report(2.0, 200, [Warm(1, 40, 0.6, 2)]),
            Report(0.0, 9, []),
        ]
    )
    assert signals[1].utilisation == pytest.approx(0.7)
    assert signals[1].share == pytest.approx((60 + 20) / 200)
    assert signals[1].widened == 2
    assert signals[2].utilisation == pytest.approx(0.1)


RULES = Thresholds(promote=0.5, promote_s=3, demote=0.2, demote_s=600, share_min=0.05)
LOUD, BETWEEN, QUIET = Signal(0.9, 0.2), Signal(0.3, 0.2), Signal(0.1, 0.2)
STEPS = [
    (Heat.COLD, 0, LOUD, Heat.WARMING),
    (Heat.COLD, 0, BETWEEN, Heat.COLD),
    (Heat.COLD, 0, Signal(0.9, 0.01), Heat.COLD),
    (Heat.WARMING, 2.9, LOUD, Heat.WARMING),
    (Heat.WARMING, 3, LOUD, Heat.HOT),
    (Heat.WARMING, 3, BETWEEN, Heat.COLD),
    (Heat.HOT, 9, BETWEEN, Heat.HOT),
    (Heat.HOT, 9, QUIET, Heat.COOLING),
    (Heat.COOLING, 599, QUIET, Heat.COOLING),
    (Heat.COOLING, 600, QUIET, Heat.COLD),
    (Heat.COOLING, 599, BETWEEN, Heat.HOT),
]


@pytest.mark.parametrize(("heat", "elapsed", "signal", "then"), STEPS)
def test_heat_goes_step_by_step(heat: Heat, elapsed: float, signal: Signal, then: Heat) -> None:
    assert step(Temperature(heat, 100.0), signal, 100.0 + elapsed, RULES).heat is then


def _transitions(utilisation: list[float]) -> list[Heat]:
    now = COLD
    seen = []
    for second, value in enumerate(utilisation):
        after = step(now, Signal(value, 0.2), float(second), RULES)
        if after.heat is not now.heat:
            seen.append(after.heat)
        now = after
    return seen


def test_an_account_that_becomes_busy_is_hot_within_five_seconds() -> None:
    assert _transitions([0.8] * 5) == [Heat.WARMING, Heat.HOT]


@pytest.mark.parametrize("level", [0.15, 0.25, 0.35, 0.45, 0.6, 0.9])
def test_nothing_flaps_in_ten_minutes_of_constant_load(level: float) -> None:
    chance = random.Random(3)
    seen = _transitions([max(0.0, chance.gauss(level, 0.03)) for _ in range(600)])
    assert len([heat for heat in seen if heat in (Heat.HOT, Heat.COOLING)]) <= 1
    assert Heat.COOLING not in seen
