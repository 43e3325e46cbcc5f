"""Hot keys: the most frequent keys of a second, counted in bounded memory, with a small error."""

import random
import sys

import pytest

from fundledger.app.http.admission.hot_keys import CAPACITY, KINDS, HotKeys, Window


class Clock:
    def __init__(self) -> None:
        self.now = 5000.25

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keys(clock: Clock) -> HotKeys:
    return HotKeys(clock)


def test_a_second_is_shown_when_it_is_over_and_until_the_next_one_is(keys: HotKeys, clock: Clock):
    keys.seen("caller", "before")
    clock.now = 5001.0
    for _ in range(3):
        keys.seen("caller", "a")
    keys.seen("caller", "b")
    assert keys.top("caller", 5) == [("before", 1.0, 1.0)]
    clock.now = 5002.0
    assert keys.top("caller", 5) == [("a", 3.0, 0.75), ("b", 1.0, 0.25)]
    assert keys.top("caller", 1) == [("a", 3.0, 0.75)]
    clock.now = 5002.9
    assert keys.top("caller", 5) == [("a", 3.0, 0.75), ("b", 1.0, 0.25)]
    clock.now = 5003.0
    assert keys.top("caller", 5) == []


@pytest.mark.parametrize("pause", [1.75, 2.0, 60.0])
def test_what_is_older_than_the_last_second_is_not_shown(keys: HotKeys, clock: Clock, pause: float):
    keys.seen("merchant", "old")
    clock.now += pause
    keys.seen("merchant", "new")
    assert keys.top("merchant", 5) == []
    clock.now += 1.0
    assert keys.top("merchant", 5) == [("new", 1.0, 1.0)]


def test_kinds_are_counted_apart_and_weights_add_up(keys: HotKeys, clock: Clock):
    keys.seen("merchant", "x", 3)
    keys.seen("account", "x", 5)
    clock.now += 1
    assert [keys.top(kind, 1) for kind in KINDS] == [[], [("x", 3.0, 1.0)], [("x", 5.0, 1.0)]]


def test_a_kind_that_is_not_known_is_a_bug(keys: HotKeys):
    with pytest.raises(KeyError):
        keys.seen("payee", "x")


@pytest.mark.parametrize("seed", range(5))
def test_an_account_with_a_twentieth_of_the_traffic_is_shown_within_two_seconds_a_tenth_off_at_most(
    keys: HotKeys, clock: Clock, seed: int
):
    chance = random.Random(seed)
    began = clock.now
    true = 0
    for i in range(20_000):
        clock.now = began + i / 10_000
        hot = chance.random() < 0.05
        true += hot and int(clock.now) == int(began) + 1
        keys.seen("account", "hot" if hot else f"account:{chance.randrange(1_000_000)}")
    clock.now = began + 2
    key, rate, share = keys.top("account", 1)[0]
    assert key == "hot"
    assert rate == pytest.approx(true, rel=0.1)
    assert share == pytest.approx(0.05, rel=0.2)


def test_memory_is_fixed_however_many_keys_there_are(keys: HotKeys, clock: Clock):
    for i in range(100_000):
        keys.seen("caller", f"caller:{i}")
    summary = keys._tops["caller"]
    assert len(summary.counts) == len(summary._heap) == CAPACITY
    assert sys.getsizeof(summary.counts) < 64 << 10
    clock.now += 1
    assert len(keys.last()["caller"].counts) == CAPACITY


def test_what_several_workers_saw_is_added_up():
    window = Window(10, {"a": 6, "b": 4})
    window.add(Window(30, {"b": 20, "c": 10}))
    assert window.top(2) == [("b", 24.0, 0.6), ("c", 10.0, 0.25)]
    assert Window().top(3) == []


def test_a_payment_counts_as_its_three_keys_do_one_by_one(keys: HotKeys, clock: Clock):
    others = HotKeys(clock)
    for i in range(3 * CAPACITY):
        merchant, account = f"m:{i % (CAPACITY + 9)}", f"m:{i % (CAPACITY + 9)}:{i % 2}"
        keys.payment(merchant, account, "dev")
        for kind, key in (("merchant", merchant), ("account", account), ("caller", "dev")):
            others.seen(kind, key)
    clock.now += 1
    assert keys.last() == others.last()
    assert all(window.total == 3 * CAPACITY for window in keys.last().values())
