"""The arithmetic of limits: the bound that holds in every window, and that nothing is lost below it."""

import random
from itertools import accumulate

import pytest

from fundledger.ratelimit.gcra import Ask, Rate, State, decide, load_of
from fundledger.ratelimit.policies import parse
from tests.support.length import unless_long

TRACES = unless_long(20_000, 100_000)
EPOCH_US = 1_790_000_000_000_000


def rate_of(rate: object, burst: int) -> Rate:
    shown = f'"{rate}"' if isinstance(rate, str) else rate
    text = f'version = 1\n[[policy]]\nname = "p"\nkey = "global"\nrate = {shown}\nburst = {burst}\n'
    return parse(text).all()[0].rate


RATES = [
    rate_of(rate, burst) for rate, burst in ((0.7, 1), (1.9, 3), ("90/min", 2), (10.5, 5), (333.3, 7), (50_000, 40))
]


def admitted(rate: Rate, arrivals: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """`(when us, cost)` of those that are let in."""
    state: State | None = None
    let_in = []
    for now, cost in arrivals:
        ok, _, (new,) = decide([Ask(rate, least=cost, most=cost)], [state], 0, 0, now)
        state = new or state
        if ok and cost:
            let_in.append((now, cost))
    return let_in


def excess(rate: Rate, let_in: list[tuple[int, int]]) -> int:
    """How much the worst window W had beyond floor(r W) + b, in units of 1 / tokens us; at most 0 when the bound holds."""
    worst, lowest, total = -rate.burst * rate.period_us, 0, 0
    for i, (now, cost) in enumerate(let_in):
        at = (now - EPOCH_US) * rate.tokens
        lowest = min(lowest, total * rate.period_us - at) if i else -at
        total += cost
        worst = max(worst, (total - rate.burst) * rate.period_us - at - lowest)
    return worst


def a_trace(pick: random.Random, rate: Rate) -> list[tuple[int, int]]:
    token_us = rate.period_us / rate.tokens
    gaps = [int(pick.choice((0, 0.3, 1, 1, 3)) * pick.random() * token_us) for _ in range(12)]
    return [(EPOCH_US + at, pick.randint(1, min(3, rate.burst))) for at in accumulate(gaps)]


def test_no_window_of_any_trace_holds_more_than_rate_and_burst() -> None:
    pick = random.Random(4)
    tight = 0
    for i in range(TRACES):
        rate = RATES[i % len(RATES)]
        worst = excess(rate, admitted(rate, a_trace(pick, rate)))
        assert worst <= 0, (rate, i)
        tight += worst > -rate.period_us
    assert tight > TRACES / 20, "the traces never come near the bound"


@pytest.mark.parametrize("twin", ["a burst of one more", "a refill that is rounded up"])
def test_the_bound_is_seen_to_break(twin: str) -> None:
    pick = random.Random(4)
    broken = 0
    for i in range(2_000):
        rate = RATES[i % len(RATES)]
        wrong = (
            Rate(rate.tokens, rate.period_us, rate.burst + 1, rate.ceiling)
            if twin == "a burst of one more"
            else Rate(rate.tokens * 6, rate.period_us * 5, rate.burst, rate.ceiling)
        )
        broken += excess(rate, admitted(wrong, a_trace(pick, rate))) > 0
    assert broken > 100


@pytest.mark.parametrize("rate", RATES, ids=lambda rate: f"{rate.per_second:g}/s")
def test_who_asks_all_the_time_gets_the_whole_rate(rate: Rate) -> None:
    # With a burst of 1 nothing is saved up until the next one comes.
    rate = Rate(rate.tokens, rate.period_us, rate.burst + 1, rate.ceiling + 2)
    step_us = max(1, int(rate.period_us / rate.tokens / 7))
    arrivals = [(EPOCH_US + i * step_us, 1) for i in range(70_00)]
    span_us = arrivals[-1][0] - EPOCH_US
    assert span_us * rate.tokens // rate.period_us + rate.burst - len(admitted(rate, arrivals)) in (0, 1)


def test_a_flood_over_the_edge_of_a_second_gets_no_second_burst() -> None:
    rate = rate_of(1000, 1000)
    edge = EPOCH_US - EPOCH_US % 1_000_000
    arrivals = [(edge - 10_000 + i * 4, 1) for i in range(5_000)]
    assert len(admitted(rate, arrivals)) <= 1_020


def test_a_clock_that_goes_back_admits_nothing_more_and_shuts_nobody_out() -> None:
    rate = rate_of(10, 5)
    forward = admitted(rate, [(EPOCH_US, 1)] * 20)
    assert len(forward) == 5
    state: State | None = (EPOCH_US + 500_000, 0)
    hour_back = EPOCH_US - 3_600_000_000
    assert load_of(rate, state, 0, 0, hour_back) <= rate.ceiling * rate.period_us
    hour = (EPOCH_US, 0)
    ok, (grant,), (written,) = decide([Ask(rate, least=1, most=1)], [hour], 0, 0, hour_back)
    assert not ok
    assert written is not None, "an hour would pass before it comes down by itself"
    ok, _, _ = decide([Ask(rate, least=1, most=1)], [written], 0, 0, hour_back + 2_000_000)
    assert ok
    assert grant.remaining == 0
    assert grant.retry_us <= rate.ceiling * rate.period_us // rate.tokens


def test_a_denial_charges_nothing_anywhere() -> None:
    wide, narrow = rate_of(100, 100), rate_of(1, 1)
    states: list[State | None] = [None, (EPOCH_US + narrow.period_us // narrow.tokens, 0)]
    ok, grants, written = decide([Ask(wide, least=1, most=1), Ask(narrow, least=1, most=1)], states, 0, 0, EPOCH_US)
    assert not ok
    assert written == [None, None]
    assert [grant.granted for grant in grants] == [0, 0]
    assert grants[1].retry_us == 1_000_000


def test_a_store_that_forgot_counts_as_spent_but_for_a_tenth() -> None:
    rate = rate_of(100, 50)
    assert len(admitted_since(rate, EPOCH_US)) == 5
    assert len(admitted_since(rate, EPOCH_US - 10_000_000)) == 50


def admitted_since(rate: Rate, since: int) -> list[bool]:
    state: State | None = None
    let_in = []
    for _ in range(100):
        ok, _, (new,) = decide([Ask(rate, least=1, most=1)], [state], since, 0, EPOCH_US)
        state = new or state
        if ok:
            let_in.append(ok)
    return let_in


def test_what_was_spent_unasked_is_charged_even_beyond_the_burst() -> None:
    rate = rate_of(100, 10)
    _, (grant,), (state,) = decide([Ask(rate, debt=15)], [None], 0, 0, EPOCH_US)
    assert grant.remaining == 0
    ok, (grant,), _ = decide([Ask(rate, least=1, most=1)], [state], 0, 0, EPOCH_US)
    assert not ok
    assert grant.retry_us == 60_000
    _, _, (given_back,) = decide([Ask(rate, debt=-15)], [state], 0, 0, EPOCH_US)
    assert given_back == (EPOCH_US, 0)
