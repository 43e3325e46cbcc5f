"""The rules of the load shedder, one at a time: admission, idle workers, limits, queueing, level, fair shares."""

import math
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fundledger.ratelimit.classes import CRITICAL, RANKS, ApiClass
from fundledger.ratelimit.shedding import concurrency
from fundledger.ratelimit.shedding.concurrency import LIMIT_MIN, Queueing
from fundledger.ratelimit.shedding.fairness import LENT, Shares
from fundledger.ratelimit.shedding.level import ShedLevel
from fundledger.ratelimit.shedding.shedder import LOWEST, Shedder

REFUND, PAYMENT, QUERY, BATCH = ApiClass.REFUND, ApiClass.PAYMENT, ApiClass.QUERY, ApiClass.BATCH


def window(shedder: Shedder, now: float, seconds: dict[ApiClass, float], count: int = 20, lag_s: float = 0.0) -> None:
    """Send `count` concurrent requests of each class, end those that are admitted, and call `tick`."""
    let_in = [c for c in seconds for _ in range(count) if shedder.enter(c, None, now) is None]
    for api_class in let_in:
        shedder.leave(api_class, None, seconds[api_class])
    shedder.tick(now, lag_s)


def limits(shedder: Shedder) -> dict[str, int]:
    return shedder.counted().limit


# --- Admission --------------------------------------------------------------------------------------------------------

STEPS = st.lists(
    st.tuples(st.sampled_from(list(ApiClass)), st.sampled_from([None, "a", "b"]), st.integers(0, 3)), max_size=200
)


@given(STEPS, st.booleans(), st.integers(4, 40))
def test_whatever_enters_and_leaves_nothing_is_left_and_nothing_is_negative(
    steps: list[tuple[ApiClass, str | None, int]], on: bool, concurrency_max: int
) -> None:
    shedder = Shedder(concurrency_max=concurrency_max, on=on)
    inside: list[tuple[ApiClass, str | None]] = []
    now = 0.0
    for api_class, merchant, choice in steps:
        now += 0.03
        if choice == 3:
            shedder.tick(now, 0.0)
        elif choice == 2 and inside:
            shedder.leave(*inside.pop(len(inside) // 2), 0.5)
        elif shedder.enter(api_class, merchant, now) is None:
            inside.append((api_class, merchant))
        counted = shedder.counted().in_flight
        assert counted == {str(c): sum(1 for entered, _ in inside if entered == c) for c in ApiClass}
        if on:
            assert sum(n for c, n in counted.items() if ApiClass(c) not in CRITICAL) <= 0.8 * concurrency_max
            assert len(inside) <= concurrency_max
    for entered in inside:
        shedder.leave(*entered, 0.5)
    assert set(shedder.counted().in_flight.values()) == {0}
    assert shedder._in_flight == 0
    assert [limiter.shares._held for limiter in shedder._limiters.values()] == [{}] * len(ApiClass)


@pytest.mark.parametrize(
    ("entered", "left"), [(None, (PAYMENT, "a")), ((PAYMENT, "a"), (PAYMENT, "b")), ((PAYMENT, "a"), (QUERY, "a"))]
)
def test_a_leave_of_what_never_entered_is_a_bug(
    entered: tuple[ApiClass, str] | None, left: tuple[ApiClass, str]
) -> None:
    shedder = Shedder()
    if entered:
        shedder.enter(*entered, 0.0)
    with pytest.raises(AssertionError):
        shedder.leave(*left, 0.1)


def test_a_shedder_that_is_switched_off_admits_every_request_and_counts() -> None:
    shedder = Shedder(concurrency_max=4, on=False)
    for n in range(100):
        assert shedder.enter(BATCH, "a", float(n), budget_s=-1.0) is None
        shedder.tick(float(n), 9.0)
    assert shedder.counted().in_flight["batch"] == 100
    assert (shedder.level, shedder.counted().shed) == (0, {})


@pytest.mark.parametrize(
    ("mean_s", "budget_s", "reason"),
    [
        (0.02, None, None),
        (0.02, 0.041, None),
        (0.02, 0.039, "deadline"),
        (0.02, 0.0, "deadline"),
        (0.0, 0.001, None),
        (0.0, -1.0, "deadline"),
    ],
)
def test_a_request_that_would_spend_half_of_its_deadline_waiting_is_rejected_immediately(
    mean_s: float, budget_s: float | None, reason: str | None
) -> None:
    shedder = Shedder()
    window(shedder, 0.0, {})
    window(shedder, 0.1, {PAYMENT: mean_s})
    assert shedder.enter(PAYMENT, None, 0.2, budget_s) == reason
    assert shedder.counted().shed == ({f"payment {reason}": 1} if reason else {})


def test_a_class_that_was_rejected_for_its_deadline_is_admitted_again_without_a_faster_request_as_proof() -> None:
    shedder = Shedder()
    window(shedder, 0.0, {})
    window(shedder, 0.1, {PAYMENT: 5.0})
    reasons = []
    for n in range(2, 40):
        reasons.append(shedder.enter(PAYMENT, None, n / 10, 0.2))
        if reasons[-1] is None:
            break
        shedder.tick(n / 10, 0.0)
    assert reasons[0] == "deadline"
    assert reasons[-1] is None


@pytest.mark.parametrize("late", [1, 3, 9, 30])
@pytest.mark.parametrize("hanging", [0, 1, 30])
def test_a_few_late_requests_do_not_shut_their_class_to_all_who_have_a_deadline(late: int, hanging: int) -> None:
    """The late requests took 2 s. If that stayed the expected wait, every later request (deadline 3 s) was rejected."""
    shedder = Shedder(1.0)
    shedder.tick(0.0, 0.0)
    assert {shedder.enter(REFUND, None, 0.0) for _ in range(hanging + late)} == {None}
    for _ in range(late):
        shedder.leave(REFUND, None, 2.0)
    reasons = []
    for n in range(1, 600):
        shedder.tick(n / 10, 0.0)
        reasons.append(shedder.enter(REFUND, None, n / 10, 3.0))
        if reasons[-1] is None:
            shedder.leave(REFUND, None, 0.02)
    assert reasons[0] == "deadline"
    assert set(reasons[50:]) == {None}


# --- An idle worker ---------------------------------------------------------------------------------------------------

HICCUPS = {
    "one": [(1.6, 1.5)],
    "two": [(1.6, 1.5), (1.6, 1.5)],
    "a late loop": [(0.1, 2.0)] * 50,
    "a machine that stands still each second": [(1.6, 1.5), *[(0.1, 0.0)] * 10] * 20,
}
"""Windows, each as (seconds since the previous one, lag of the event loop in seconds)."""


def idle_worker(name: str, api_class: ApiClass, together: int) -> list[str | None]:
    """Send a few concurrent requests in each window, each as long as the lag of the loop. Return the rejections."""
    shedder = Shedder(1.0)
    now = 0.0
    shedder.tick(now, 0.0)
    reasons = []
    for elapsed_s, lag_s in HICCUPS[name]:
        let_in = [shedder.enter(api_class, "a", now) for _ in range(together)]
        reasons += let_in
        for _ in range(let_in.count(None)):
            shedder.leave(api_class, "a", lag_s)
        now += elapsed_s
        shedder.tick(now, lag_s)
    return reasons + [shedder.enter(api_class, "a", now) for _ in range(together)]


@pytest.mark.parametrize("api_class", ApiClass)
@pytest.mark.parametrize("together", [1, 3, 8])
@pytest.mark.parametrize("name", HICCUPS)
def test_an_idle_worker_turns_nothing_away_because_its_machine_stood_still(
    name: str, together: int, api_class: ApiClass
) -> None:
    assert set(idle_worker(name, api_class, together)) == {None}


@pytest.mark.parametrize("name", HICCUPS)
def test_the_twin_that_takes_each_hiccup_for_load_turns_requests_away(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Shedder, "_is_idle", lambda self: False)
    assert set(idle_worker(name, BATCH, 3)) > {None}


@pytest.mark.parametrize("name", HICCUPS)
def test_more_requests_than_an_idle_worker_has_in_flight_are_load(name: str) -> None:
    assert set(idle_worker(name, BATCH, 9)) > {None}


def test_after_too_much_a_request_that_is_alone_is_admitted_at_every_level() -> None:
    shedder = Shedder(concurrency_max=400)
    for n in range(100):
        window(shedder, n / 10, {REFUND: 0.001}, lag_s=0.5)
    assert shedder.level == LOWEST
    for api_class in ApiClass:
        assert not shedder.is_shut(api_class)
        assert shedder.enter(api_class, None, 10.0) is None
        assert shedder.is_shut(BATCH)
        assert shedder.enter(BATCH, None, 10.0) == "worker"
        shedder.leave(api_class, None, 0.001)


@pytest.mark.parametrize("early_rejection", [True, False])
def test_what_is_turned_away_is_load_though_it_is_not_in_flight(early_rejection: bool) -> None:
    """The level does not fall while a flood of rejected requests makes the event loop late."""
    shedder = Shedder(concurrency_max=400)
    for n in range(100):
        window(shedder, n / 10, {REFUND: 0.001}, lag_s=0.5)
    assert shedder.enter(REFUND, None, 10.0) is None
    for n in range(100, 1000):
        assert shedder.is_shut(QUERY) if early_rejection else shedder.enter(QUERY, None, n / 10) == "worker"
        shedder.tick(n / 10, 0.5)
    assert shedder.level == LOWEST


# --- Limits -----------------------------------------------------------------------------------------------------------


def pressed(seconds: dict[ApiClass, float], windows: int, lag_s: float = 0.0) -> tuple[dict[str, int], dict[str, int]]:
    shedder = Shedder(concurrency_max=400)
    before = limits(shedder)
    for n in range(windows + 1):
        window(shedder, n / 10, seconds, lag_s=lag_s)
    return before, limits(shedder)


@pytest.mark.parametrize(
    ("seconds", "shrinks"),
    [
        ({PAYMENT: 0.3, REFUND: 0.3}, {"payment"}),
        ({PAYMENT: 0.3, REFUND: 0.3, QUERY: 0.3}, {"query"}),
        ({REFUND: 0.3}, {"refund"}),
        ({PAYMENT: 0.3, REFUND: 0.01}, {"payment"}),
        ({PAYMENT: 0.01, QUERY: 0.3}, {"query"}),
        ({PAYMENT: 0.3, QUERY: 0.01}, {"query"}),
        ({PAYMENT: 0.01, REFUND: 0.01, QUERY: 0.01}, set()),
        ({PAYMENT: 0.07, REFUND: 0.07, QUERY: 0.07}, set()),
    ],
)
def test_the_lowest_that_was_let_in_pays(seconds: dict[ApiClass, float], shrinks: set[str]) -> None:
    before, after = pressed(seconds, 1)
    assert {c for c in before if after[c] < before[c]} == shrinks


def test_a_flood_of_payments_does_not_shrink_refunds() -> None:
    _, after = pressed({PAYMENT: 0.5, REFUND: 0.5}, 3)
    assert after["payment"] < 20
    assert after["refund"] == 200


def test_a_late_loop_is_latency() -> None:
    before, after = pressed({PAYMENT: 0.01}, 3, lag_s=0.2)
    assert after["payment"] < before["payment"]


def test_what_is_dropped_counts_and_what_is_turned_away_does_not() -> None:
    shedder = Shedder(concurrency_max=400)
    shedder.tick(0.0, 0.0)
    assert {shedder.enter(PAYMENT, None, 0.0) for _ in range(20)} == {None}
    for n in range(20):
        shedder.leave(PAYMENT, None, 0.001, dropped=n < 4)
    shedder.tick(0.1, 0.0)
    assert limits(shedder)["payment"] < 100
    before = limits(shedder)["payment"]
    shut = Shedder(concurrency_max=400)
    for n in range(30):
        for _ in range(100):
            assert shut.enter(PAYMENT, None, 0.0, -1.0) == "deadline"
        shut.tick(n / 10, 0.0)
    assert limits(shut)["payment"] == 100 > before


def test_one_lucky_sample_moves_nothing() -> None:
    shedder = Shedder(concurrency_max=400)
    for n in range(50):
        window(shedder, n / 10, {PAYMENT: 0.08}, count=60)
    before = limits(shedder)["payment"]
    shedder.enter(PAYMENT, None, 5.0)
    shedder.leave(PAYMENT, None, 0.04)
    window(shedder, 5.0, {PAYMENT: 0.08}, count=60)
    shedder.enter(PAYMENT, None, 5.1)
    shedder.leave(PAYMENT, None, 0.001)  # a single latency: not enough for a mean
    shedder.tick(5.1, 0.0)
    assert abs(limits(shedder)["payment"] - before) < 0.05 * before


def test_a_server_that_answers_no_request_is_noticed() -> None:
    shedder = Shedder(concurrency_max=400)
    for n in range(30):
        for _ in range(10):
            shedder.enter(PAYMENT, None, n / 10)
        shedder.tick(n / 10, 0.0)
    assert limits(shedder)["payment"] == LIMIT_MIN


@pytest.mark.parametrize("classes", [[PAYMENT], [PAYMENT, REFUND, ApiClass.CONFIRM], [QUERY]])
@pytest.mark.parametrize("fails_after", [None, 40])
def test_a_database_that_stands_still_is_noticed_at_five_requests_a_second(
    classes: list[ApiClass], fails_after: int | None
) -> None:
    """The requests fail after 4 s, or never end."""
    shedder = Shedder(1.0)
    before = limits(shedder)[classes[0]]
    inside: list[tuple[int, ApiClass]] = []
    shedder.tick(0.0, 0.0)
    for n in range(1, 80):
        if n % 2:
            api_class = classes[n // 2 % len(classes)]
            if shedder.enter(api_class, None, n / 10) is None:
                inside.append((n, api_class))
        while fails_after and inside and inside[0][0] + fails_after <= n:
            shedder.leave(inside.pop(0)[1], None, fails_after / 10, dropped=True)
        shedder.tick(n / 10, 0.0)
    assert limits(shedder)[classes[0]] < before / 2


@pytest.mark.parametrize("count", [1, 50])
def test_a_level_falls_again_although_a_request_hangs(count: int) -> None:
    shedder = Shedder(1.0)
    for _ in range(count):
        shedder.enter(REFUND, None, 0.0)
    for n in range(30):
        window(shedder, n / 10, {REFUND: 0.9}, lag_s=2.0)
    assert shedder.level > 0
    window(shedder, 3.0, {REFUND: 0.9})
    for n in range(31, 400):
        shedder.tick(n / 10, 0.0)
    assert shedder.level == 0


@pytest.mark.parametrize(("baselines", "calm"), [(concurrency.BASELINES_MIN, True), (2, False)])
def test_a_class_that_waits_for_no_other_is_calm_however_long_it_takes(
    baselines: int, calm: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(concurrency, "BASELINES_MIN", baselines)
    shedder = Shedder(concurrency_max=400)
    for n in range(300):
        window(shedder, n / 10, {ApiClass.LIST: 2.0}, count=20)
    assert (limits(shedder)["list"] >= 20) == calm


# --- A queue, or slow work --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rate", "latency_s", "low", "high"),
    [
        (1000, 0.09, 0.0, 0.01),  # half in flight, the same throughput: all of the wait was a queue
        (450, 0.2, 0.99, 1.0),  # half the throughput at the same latency: none was
        (700, 0.128, 0.5, 0.6),  # in between
    ],
)
def test_a_queue_is_distinguished_from_slow_work(rate: int, latency_s: float, low: float, high: float) -> None:
    queueing = Queueing()
    for _ in range(100):
        queueing.window(100, 100 * 0.2, 0.1)  # 1000/s, 200 in flight
        queueing.watch()
    assert queueing.unqueued() is None
    for _ in range(100):
        queueing.window(rate // 10, rate // 10 * latency_s, 0.1)
    part = queueing.unqueued()
    assert part is not None
    assert low <= part <= high


# --- The shed level ---------------------------------------------------------------------------------------------------


WINDOWS = st.lists(
    st.tuples(
        st.sampled_from([0.05, 0.1, 0.1, 0.1, 0.3, 0.5, 0.6, 1.1, 30.0]),  # seconds since the one before
        st.dictionaries(
            st.sampled_from([REFUND, PAYMENT, QUERY, BATCH]), st.sampled_from([0.0, 0.001, 0.04, 0.3, 5.0]), max_size=3
        ),
        st.integers(0, 40),
        st.sampled_from([0.0, 0.0, 0.01, 2.0]),  # lag of the loop
    ),
    min_size=1,
    max_size=60,
)
BUSY, IDLE = (0.1, {PAYMENT: 0.3}, 40, 0.0), (0.6, dict[ApiClass, float](), 0, 0.0)


@given(WINDOWS)
@example([BUSY] * 12 + [(0.1, {PAYMENT: 0.001}, 40, 0.0)] * 12 + [IDLE] * 4)
def test_whatever_windows_come_the_controller_goes_on_with_limits_in_their_bounds(
    windows: list[tuple[float, dict[ApiClass, float], int, float]],
) -> None:
    shedder = Shedder(0.1, 100)
    now = 100.0
    shedder.tick(now, 0.0)
    for elapsed_s, seconds, count, lag_s in windows:
        now += elapsed_s
        window(shedder, now, seconds, count, lag_s)
        for limiter in shedder._limiters.values():
            assert LIMIT_MIN <= limiter.limit <= max(limiter.room, LIMIT_MIN)
            assert 0.1 <= limiter.target_s < math.inf
            assert limiter.rate >= 0.0
            assert limiter.recent_s >= 0.0
        for queueing, _ in shedder._queueing:
            assert 0.0 <= (queueing.unqueued() or 0.0) <= 1.0
        assert 0 <= shedder.level <= LOWEST
        assert shedder.retry_after_s(BATCH) >= 1


def test_nothing_in_flight_since_it_was_calm_proves_nothing() -> None:
    queueing = Queueing()
    for _ in range(20):
        queueing.window(40, 12.0, 0.1)
    queueing.watch()
    queueing.calm()
    queueing.window(0, 0.0, 0.6)
    assert queueing.unqueued() is None


def test_the_level_rises_by_one_a_second_and_falls_by_one_in_five() -> None:
    shedder = Shedder(concurrency_max=400)
    levels = []
    for n in range(100):
        window(shedder, n / 10, {REFUND: 0.001}, lag_s=0.5)
        levels.append(shedder.level)
    assert max(levels) == LOWEST
    raised = [n for n in range(1, 100) if levels[n] != levels[n - 1]]
    assert all(levels[n] == levels[n - 1] + 1 for n in raised)
    assert all(b - a >= 10 for a, b in pairwise(raised))
    assert [shedder.enter(c, None, 10.0) for c in CRITICAL] == [None] * len(CRITICAL)
    assert {shedder.enter(c, None, 10.0) for c in ApiClass if c not in CRITICAL} == {"worker"}
    for c in CRITICAL:
        shedder.leave(c, None, 0.001)
    lowered = []
    for n in range(100, 400):
        before = shedder.level
        window(shedder, n / 10, {})
        if shedder.level != before:
            lowered.append(n)
    assert shedder.level == 0
    assert len(lowered) == LOWEST
    assert all(b - a >= 50 for a, b in pairwise(lowered))


@pytest.mark.parametrize("patience", [0.0, 60.0])
def test_who_is_let_in_too_early_once_waits_longer_the_next_time(
    patience: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Overload returns each time the level falls. In the broken twin, the level changes back and forth."""
    monkeypatch.setattr("fundledger.ratelimit.shedding.level.RELAPSE_S", patience)
    door = ShedLevel(LOWEST)
    changed = [n / 10 for n in range(6000) if door.tick(n / 10, stuck=door.level == 0, calm=door.level == 1)]
    later = [at for at in changed if at >= 60]
    flaps = any(sum(at <= other < at + 60 for other in later) > 2 for at in later)
    assert flaps == (patience == 0.0)


def test_when_to_ask_again_grows_with_the_level() -> None:
    shedder = Shedder()
    waits = {c: [shedder.retry_after_s(c)] for c in ApiClass}
    for n in range(100):
        before = shedder.level
        window(shedder, n / 10, {REFUND: 0.001}, lag_s=0.5)
        if shedder.level != before:
            for c in ApiClass:
                waits[c].append(shedder.retry_after_s(c))
    assert all(wait[0] == 1 and wait == sorted(set(wait)) and len(wait) == LOWEST + 1 for wait in waits.values())
    assert max(waits[BATCH]) > max(waits[PAYMENT]) > max(waits[REFUND])


# --- Shares -----------------------------------------------------------------------------------------------------------


def test_a_merchant_alone_may_have_all() -> None:
    shedder = Shedder(concurrency_max=400)
    assert [shedder.enter(PAYMENT, "a", 0.0) for _ in range(100)] == [None] * 100


def test_a_merchant_among_others_is_lent_what_they_leave_and_no_more() -> None:
    shedder = Shedder(concurrency_max=400)
    for n in range(9):
        assert shedder.enter(PAYMENT, f"m{n}", 0.0) is None
    flood = [shedder.enter(PAYMENT, "flood", 0.0) for _ in range(100)]
    assert flood.count(None) == LENT * 100 - 9
    assert [shedder.enter(PAYMENT, f"m{n}", 0.0) for n in range(9) for _ in range(4)] == [None] * 36
    assert shedder.enter(PAYMENT, None, 0.0) is None  # a request without a merchant has no share as a bound


@given(st.lists(st.sampled_from("abcdef"), max_size=60))
def test_shares_remember_only_what_is_in_flight(entered: list[str]) -> None:
    shares = Shares()
    for merchant in entered:
        shares.enter(merchant)
    assert shares.merchants() == len(set(entered))
    for merchant in reversed(entered):
        shares.leave(merchant)
    assert shares.merchants() == 0


def test_each_class_has_a_rank() -> None:
    assert set(RANKS) == set(ApiClass)
    assert set(RANKS.values()) == set(range(LOWEST + 1))
