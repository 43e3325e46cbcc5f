"""`decide.lua` and `gcra.decide` have the same results, bit for bit, for random sequences on the test's clock."""

import random
from importlib.resources import files

import redis.asyncio

from fundledger.ratelimit.quota.gcra import Ask, Rate, State, decide
from fundledger.ratelimit.quota.policies import parse
from tests.support.length import unless_long
from tests.support.valkey import a_redis

DECISIONS = unless_long(20_000, 100_000)
AT_ONCE = 500
EPOCH_US = 1_790_000_000_000_000
SOURCE = (files("fundledger.ratelimit.quota") / "decide.lua").read_text()
CLOCK = "local now = tonumber(clock[1]) * 1000000 + tonumber(clock[2])"
LIFE = ", 'PX', string.format('%.0f', ttl_ms)"


def with_the_clock_of_a_test() -> str:
    """Return the script changed so that `now` is its last argument, and keys do not expire by the server's clock."""
    assert SOURCE.count(CLOCK) == 1
    assert SOURCE.count(LIFE) == 1
    return SOURCE.replace(CLOCK, "local now = tonumber(ARGV[#ARGV])").replace(LIFE, "")


def some_rates(pick: random.Random) -> list[Rate]:
    rates = []
    for rate in (0.7, 1.9, 10.5, 333.3, 1000, 8000, 50_000, 0.001):
        text = f'version = 1\n[[policy]]\nname = "p"\nkey = "global"\nrate = {rate}\nburst = {pick.randint(1, 500)}\n'
        rates.append(parse(text).all()[0].rate)
    return rates


def an_ask(pick: random.Random, rate: Rate) -> Ask:
    least = pick.choice((0, 1, 1, 2, pick.randint(1, rate.burst)))
    return Ask(
        rate,
        debt=pick.choice((0, 0, 0, 1, -1, pick.randint(-rate.burst, rate.burst))),
        least=least,
        most=least + pick.choice((0, 0, 5, rate.burst)),
        shadow=pick.random() < 0.1,
    )


class Pair:
    """The same buckets in Valkey and in a dict."""

    def __init__(self, pick: random.Random) -> None:
        self.pick = pick
        self.rates = some_rates(pick)
        self.states: dict[str, State | None] = {}
        self.now = EPOCH_US
        self.since = EPOCH_US
        self.back = EPOCH_US + 30_000_000

    def next(self) -> tuple[list[str], list[object], list[int]]:
        """Return the keys and arguments of the next random call, and the expected reply."""
        pick = self.pick
        self.now += int(10 ** pick.uniform(0, 6.5)) - (500_000 if pick.random() < 0.01 else 0)
        self.now -= 3_600_000_000 if pick.random() < 0.0005 else 0
        self.since, self.back = min(self.since, self.back, self.now), min(self.back, self.now)
        chosen = pick.sample(range(len(self.rates)), pick.randint(1, 5))
        asks = [an_ask(pick, self.rates[i]) for i in chosen]
        keys = [f"b{i}" for i in chosen]
        ok, grants, written = decide(asks, [self.states.get(key) for key in keys], self.since, self.back, self.now)
        for key, state in zip(keys, written, strict=True):
            self.states[key] = state or self.states.get(key)
        arguments: list[object] = ["n"]
        for ask in asks:
            rate = ask.rate
            arguments += [rate.tokens, rate.period_us, rate.burst, rate.ceiling]
            arguments += [ask.debt, ask.least, ask.most, int(ask.shadow)]
        expected = [int(ok)]
        for grant in grants:
            expected += [grant.granted, grant.remaining, grant.retry_us, grant.reset_us]
        return keys, [*arguments, self.now], expected


async def test_python_and_lua_agree_bit_for_bit(valkey: str) -> None:
    await agree(valkey, DECISIONS)


async def test_they_agree_on_a_redis_too() -> None:
    async with a_redis() as url:
        await agree(url, DECISIONS // 4)


async def agree(url: str, decisions: int) -> None:
    client = redis.asyncio.Redis.from_url(url, decode_responses=True)
    try:
        await client.flushall()
        pair = Pair(random.Random(11))
        await client.set("since", pair.since)
        await client.set("back", pair.back)
        sha = await client.script_load(with_the_clock_of_a_test())
        granted = denied = 0
        for _ in range(decisions // AT_ONCE):
            batch = [pair.next() for _ in range(AT_ONCE)]
            pipeline = client.pipeline(transaction=False)
            for keys, arguments, _ in batch:
                pipeline.evalsha(sha, len(keys) + 2, "since", "back", *keys, *arguments)
            for (_, _, expected), (nonce, *reply) in zip(batch, await pipeline.execute(), strict=True):
                assert nonce == "n"
                assert reply == expected
                granted += expected[0]
                denied += 1 - expected[0]
        for key, state in pair.states.items():
            stored = await client.get(key)
            assert (stored is None) == (state is None), key
            if stored is not None and state is not None:
                us, frac, _ = map(int, stored.split())
                assert (us, frac) == state
        assert min(granted, denied) > decisions / 10
    finally:
        await client.aclose()
