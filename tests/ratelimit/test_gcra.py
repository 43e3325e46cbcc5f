"""`gcra.decide`: no window exceeds the bound, and no token below the bound is lost."""

import math
import random
import sys
from fractions import Fraction
from itertools import accumulate

import pytest

from fundledger.ratelimit.quota.gcra import EXACT_MAX, Ask, Grant, Rate, State, decide, load_of
from fundledger.ratelimit.quota.policies import parse
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
    """Return `(time us, cost)` of the admitted arrivals."""
    state: State | None = None
    let_in = []
    for now, cost in arrivals:
        ok, _, (new,) = decide([Ask(rate, least=cost, most=cost)], [state], 0, 0, now)
        state = new or state
        if ok and cost:
            let_in.append((now, cost))
    return let_in


def excess(rate: Rate, let_in: list[tuple[int, int]]) -> int:
    """Return the maximum excess of a window W over floor(r W) + b, in 1 / tokens us; at most 0 if the bound holds."""
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
    # With a burst of 1, no token can be saved for the next request.
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


def test_a_clock_that_goes_back_admits_nothing_more_and_shuts_no_caller_out() -> None:
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


# --- The same bucket in fractions of a token --------------------------------------------------------------------------

TENTH, AWAY_US = Fraction(1, 10), 10_000_000
"""After a loss of the store's data, this part of the burst is left (at least one token). After an outage, the tokens of
this time count as spent.
"""


class Bucket:
    """A model of a bucket, independent of `decide`: the missing tokens as an exact fraction."""

    def __init__(self, rate: Rate) -> None:
        self.rate = rate
        self.per_us = Fraction(rate.tokens, rate.period_us)

    def short(self, state: State | None, since: int, back: int, now: int) -> Fraction:
        kept = max(1, math.floor(self.rate.burst * TENTH))
        lost = self.rate.burst - kept
        shortages = [
            lost - max(0, now - since) * self.per_us,
            min(Fraction(lost), AWAY_US * self.per_us) - max(0, now - back) * self.per_us,
        ]
        if state is not None:
            full_at = state[0] + Fraction(state[1], self.rate.tokens)
            shortages.append(min(Fraction(self.rate.ceiling), (full_at - now) * self.per_us))
        return max(Fraction(0), *shortages)

    def charged(self, short: Fraction, debt: int) -> Fraction:
        return min(max(short + debt, Fraction(0)), Fraction(self.rate.ceiling))

    def have(self, short: Fraction) -> int:
        return max(0, math.floor(self.rate.burst - short))

    def wait_us(self, tokens: Fraction) -> int:
        return math.ceil(tokens / self.per_us)

    def full_at(self, now: int, short: Fraction) -> State:
        at = now + short / self.per_us
        return math.floor(at), int((at - math.floor(at)) * self.rate.tokens)


def a_moment(pick: random.Random) -> tuple[list[Ask], list[State | None], int, int, int]:
    """Return a random case. Small numbers reach every boundary. With a period of seconds, the tokens of ten seconds are
    fewer than the burst.
    """
    now = EPOCH_US
    asks: list[Ask] = []
    states: list[State | None] = []
    for _ in range(pick.randint(1, 3)):
        period_us = pick.choice((1, 3, 7, 5_000_000))
        burst = pick.choice((1, 2, 3, 9, 10, 11, 25))
        rate = Rate(pick.randint(1, 5), period_us, burst, burst + pick.randint(0, 3))
        least = pick.choice((0, 1, 2, burst))
        debt = pick.choice((0, 0, 0, 1, -1, burst, -burst))
        asks.append(Ask(rate, debt, least, least + pick.choice((0, 1, burst)), pick.random() < 0.2))
        span = rate.ceiling * period_us // rate.tokens
        ahead = pick.choice((-1, 0, 1, span - 1, span, span + 1, pick.randint(-2, 2 * span + 2)))
        states.append(None if pick.random() < 0.2 else (now + ahead, pick.randrange(rate.tokens)))
    span = 2 * burst * period_us // asks[-1].rate.tokens
    since, back = (now - pick.choice((10**12, pick.randint(-2, span + 2), 0)) for _ in "ab")
    return asks, states, since, back, now


def test_a_decision_is_that_of_an_exact_bucket() -> None:
    pick = random.Random(5)
    admitted_ = 0
    for _ in range(unless_long(20_000, 100_000)):
        asks, states, since, back, now = moment = a_moment(pick)
        buckets = [Bucket(ask.rate) for ask in asks]
        shorts = [
            bucket.charged(bucket.short(state, since, back, now), ask.debt)
            for bucket, ask, state in zip(buckets, asks, states, strict=True)
        ]
        haves = [bucket.have(short) for bucket, short in zip(buckets, shorts, strict=True)]
        enough = [have >= ask.least for have, ask in zip(haves, asks, strict=True)]
        ok, grants, written = decide(*moment)
        assert ok == all(is_enough or ask.shadow for is_enough, ask in zip(enough, asks, strict=True)), moment
        admitted_ += ok
        for i, (ask, bucket, state) in enumerate(zip(asks, buckets, states, strict=True)):
            granted = min(haves[i], ask.most) if ok and enough[i] else 0
            retry_us = 0 if enough[i] else bucket.wait_us(shorts[i] + ask.least - ask.rate.burst)
            after = shorts[i] + granted
            assert grants[i] == Grant(granted, haves[i] - granted, retry_us, bucket.wait_us(after)), (moment, i)
            longest_us = ask.rate.ceiling / bucket.per_us
            goes_back = state is not None and state[0] - now > longest_us
            is_written = granted or ask.debt or goes_back
            assert written[i] == (bucket.full_at(now, after) if is_written else None), (moment, i)
    assert 0.2 < admitted_ / unless_long(20_000, 100_000) < 0.8


@pytest.mark.parametrize(("asks", "states"), [(2, 1), (1, 2)])
def test_a_decision_needs_a_state_for_each_ask(asks: int, states: int) -> None:
    with pytest.raises(ValueError, match="zip"):
        decide([Ask(rate_of(1, 1), least=1, most=1)] * asks, [None] * states, 0, 0, EPOCH_US)


def test_an_ask_of_nothing_is_admitted_when_a_bucket_is_empty_and_charges_nothing() -> None:
    rate = rate_of(1, 1)
    assert Ask(rate) == Ask(rate, 0, 0, 0, False)
    empty = (EPOCH_US + 1_000_000, 0)
    assert decide([Ask(rate)], [empty], 0, 0, EPOCH_US) == (True, [Grant(0, 0, 0, 1_000_000)], [None])


def test_lua_adds_the_largest_load_and_the_largest_charge_exactly() -> None:
    """Lua computes in doubles. Both values are at most `EXACT_MAX`, and are added before the ceiling applies."""
    assert 2**sys.float_info.mant_dig == 2 * EXACT_MAX


def test_a_rate_is_shown_in_tokens_a_second() -> None:
    assert [rate.per_second for rate in (Rate(90, 60_000_000, 2, 2), Rate(1, 1_000_000, 1, 1))] == [1.5, 1.0]
