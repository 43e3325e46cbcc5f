"""Local quotas while the store is unavailable: all workers together stay within the limit, and each has a quota."""

import pytest

from fundledger.ratelimit.classes import ApiClass
from fundledger.ratelimit.quota import fallback
from fundledger.ratelimit.quota.bucket import Bucket
from fundledger.ratelimit.quota.limiter import Limiter
from fundledger.ratelimit.quota.matched import Denied
from fundledger.ratelimit.quota.policies import Policy, parse
from fundledger.ratelimit.quota.store import Store
from fundledger.ratelimit.stats import Limits

SECOND_US = 1_000_000
START_US = 7_000_000_000


def policy(rate: object = 100, burst: int = 20, more: str = "") -> Policy:
    shown = f'"{rate}"' if isinstance(rate, str) else rate
    text = f'version = 1\n[[policy]]\nname = "p"\nkey = "caller"\nrate = {shown}\nburst = {burst}\n{more}'
    return parse(text).all()[0]


def a_bucket(of: Policy) -> Bucket:
    return Bucket(of, "somebody", 0)


def admitted(
    bucket: Bucket, workers: int, us: range, api_class: ApiClass = ApiClass.PAYMENT, cost: int = 1
) -> list[int]:
    """Return the times at which requests are admitted, if a caller sends one at each time in `us`."""
    return [now for now in us if fallback.take([(bucket, cost)], api_class, workers, 1, now)[0]]


def in_worst_second(moments: list[int]) -> int:
    return max(sum(start <= at < start + SECOND_US for at in moments) for start in moments)


@pytest.mark.parametrize("workers", range(1, 9))
@pytest.mark.parametrize(("rate", "burst"), [(100, 20), (400, 133), (90, 17), ("700/min", 8)])
def test_the_shares_of_all_workers_add_up_to_at_most_the_limit(workers: int, rate: object, burst: int) -> None:
    of = policy(rate, burst)
    every_ms = range(START_US, START_US + 2 * SECOND_US, 1000)
    together = sorted(moment for _ in range(workers) for moment in admitted(a_bucket(of), workers, every_ms))
    bound = of.rate.per_second + burst
    assert in_worst_second(together) <= bound
    assert in_worst_second(together) >= 0.8 * bound - workers


def test_the_whole_limit_for_each_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    real = fallback.share_of
    monkeypatch.setattr(fallback, "share_of", lambda rate, _: real(rate, 1))
    with pytest.raises(AssertionError):
        test_the_shares_of_all_workers_add_up_to_at_most_the_limit(2, 100, 20)


@pytest.mark.parametrize("workers", [1, 8, 256])
def test_a_share_is_never_nothing(workers: int) -> None:
    for rate, burst in ((1, 1), ("1/d", 1), (0.7, 3)):
        of = policy(rate, burst)
        bucket = a_bucket(of)
        assert fallback.share_of(of.rate, workers).burst >= fallback.FRACTION
        assert 1 <= len(admitted(bucket, workers, range(START_US, START_US + 10))) <= burst
        full_us = int(workers / of.rate.per_second * SECOND_US) + 1
        assert admitted(bucket, workers, range(START_US + full_us, START_US + full_us + 1))


def test_reading_gets_half_of_what_money_gets() -> None:
    every_ms = range(START_US, START_US + 2 * SECOND_US, 1000)
    money = len(admitted(a_bucket(policy()), 2, every_ms))
    reads = len(admitted(a_bucket(policy()), 2, every_ms, ApiClass.QUERY))
    lists = len(admitted(a_bucket(policy()), 2, every_ms, ApiClass.LIST))
    assert reads == lists
    assert money - 2 <= 2 * reads <= money + 2


def test_reading_is_possible_with_a_burst_of_one() -> None:
    of = policy(1, 1)
    assert len(admitted(a_bucket(of), 1, range(START_US, START_US + 3 * SECOND_US, 1000), ApiClass.QUERY)) == 2


def test_a_share_begins_with_what_was_left_when_the_store_answered_last() -> None:
    for left in (0, 5, 20):
        bucket = a_bucket(policy(1, 20))
        bucket.answer(left, 0, START_US / 1e6)
        assert len(admitted(bucket, 1, range(START_US, START_US + 100))) == left
    assert len(admitted(a_bucket(policy(1, 20)), 1, range(START_US, START_US + 100))) == 20


def test_what_costs_more_than_the_share_passes_a_full_one_and_is_missing_for_so_much_longer() -> None:
    of = policy(10, 10)
    bucket = a_bucket(of)
    batch = fallback.take([(bucket, 30)], ApiClass.BATCH, 1, 1, START_US)
    assert batch[0]
    assert not admitted(bucket, 1, range(START_US, START_US + 2_000_000, 1000))
    after = admitted(bucket, 1, range(START_US, START_US + 4_000_000, 1000))
    # 10 tokens of the 30 were available, and 10 are refilled in a second. The next one is available after 2.1 s.
    assert after[0] == START_US + 2_100_000


def test_what_one_policy_refuses_costs_nothing_of_the_others() -> None:
    wide, narrow = a_bucket(policy(1, 5)), a_bucket(policy(1, 1))
    assert fallback.take([(wide, 1), (narrow, 1)], ApiClass.PAYMENT, 1, 1, START_US)[0]
    for _ in range(10):
        ok, grants = fallback.take([(wide, 1), (narrow, 1)], ApiClass.PAYMENT, 1, 1, START_US)
        assert not ok
        assert (grants[0].retry_us, grants[1].retry_us > 0) == (0, True)
    assert len(admitted(wide, 1, range(START_US, START_US + 10))) == 4


def test_a_shadow_policy_refuses_nothing_here_either() -> None:
    bucket = a_bucket(policy(1, 2, "shadow = true"))
    assert len(admitted(bucket, 1, range(START_US, START_US + 50))) == 50


# --- Local quota in the limiter -------------------------------------------------------------------------------------


async def a_limiter_whose_store_is_away(workers: int = 2) -> Limiter:
    counts = Limits()
    store = Store("unix:///nowhere/valkey.sock", "me", counts, workers)
    store._went_away()
    text = 'version = 1\n[[policy]]\nname = "p"\nkey = "caller"\nrate = 1\nburst = 10\n'
    return Limiter(parse(text), store, counts, clock=lambda: 100.0)


async def test_administration_is_refused_as_our_fault_and_money_goes_on() -> None:
    limiter = await a_limiter_whose_store_is_away()
    admin = limiter.match("c", ApiClass.ADMIN, None, None)
    for _ in range(3):
        denied = limiter.admit(admin, 1, 100.0)
        assert isinstance(denied, Denied)
        assert denied.closed
        assert denied.retry_s > 0
    for api_class in (ApiClass.REFUND, ApiClass.WITHDRAW, ApiClass.CONFIRM, ApiClass.PAYMENT):
        assert limiter.admit(limiter.match("c", api_class, None, None), 1, 100.0) is None
    payment = limiter.match("c", ApiClass.PAYMENT, None, None)
    answers = [limiter.admit(payment, 1, 100.0) for _ in range(50)]
    assert answers.count(None) == 1
    assert not any(isinstance(answer, Denied) and answer.closed for answer in answers)
    assert limiter.counted().mode == "fallback"


async def test_administration_that_no_policy_limits_is_not_refused() -> None:
    limiter = await a_limiter_whose_store_is_away()
    limiter.replace(parse("version = 1"))
    assert limiter.admit(limiter.match("c", ApiClass.ADMIN, None, None), 1, 100.0) is None
