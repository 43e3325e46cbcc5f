"""Rate limits as an operator sees them: metrics, changes of the file, local quotas while the store is unavailable."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Self

import pytest
from redis.asyncio import Redis

from fundledger.ratelimit.quota.policies import default_text, parse
from tests.support.answers import is_problem
from tests.support.client import Answer, Client, voucher
from tests.support.limits import (
    LIMITS,
    PAYS,
    Limited,
    a_limited_service,
    fund,
    funded,
    is_not_served,
    owner_of,
    pays,
    says_where_one_stands,
    statuses,
)
from tests.support.running import RunningService, free_port, run, short_folder
from tests.support.valkey import a_redis
from tests.support.waiting import eventually

pytestmark = pytest.mark.drill


@pytest.fixture(scope="module")
async def limited() -> AsyncIterator[Limited]:
    # On a busy machine many answers of the store take longer than 5 ms, and the mode would stay `local`.
    async with a_limited_service(FUNDLEDGER_RATELIMIT_DEADLINE_MS="200") as limited:
        yield limited


@pytest.fixture
async def client(limited: Limited) -> AsyncIterator[Client]:
    async with limited.one() as client:
        yield client


# --- Views for operators --------------------------------------------------------------------------------------------


async def test_debug_limits_names_each_policy_with_what_is_used_of_it(limited: Limited, client: Client) -> None:
    async def scenario() -> None:
        a, b = await funded(client), await client.merchant()
        await pays(client, a, b, 2)
        said = await limited.limits(merchant=owner_of(a), account=a)
        assert (said["mode"], said["class"], said["caller"]) == ("normal", "payment", "dev")
        assert said["version"] == parse(limited.file.read_text()).version
        by_name = {policy["policy"]: policy for policy in said["policies"]}
        assert list(by_name) == ["wide", "pays"]
        one = by_name["pays"]
        assert (one["key"], one["of"], one["limit"], one["used"]) == ("merchant", owner_of(a), PAYS, 2)
        assert (one["mode"], one["shadow"], one["source"], one["rate"]) == ("strict", False, "store", 0.1)
        assert 10_000 < one["reset_ms"] <= 20_000
        assert by_name["wide"]["of"] == "dev"

    await limited.undisturbed(scenario)
    nobody = await limited.limits(caller="nobody", **{"class": "refund"})
    assert [(p["policy"], p["of"], p["used"], p["mode"]) for p in nobody["policies"]] == [
        ("rest", "nobody", 0, "leased")
    ]
    answer = await client.get("/debug/limits?class=money")
    assert is_problem(answer, 400, "malformed")
    assert answer.json["field"] == "class"


async def test_decisions_are_counted_once_each(limited: Limited, client: Client) -> None:
    async def decided() -> float:
        counts = (await limited.metrics())["ratelimit_decisions_total"]
        return sum(value for labels, value in counts.items() if {"allow", "deny"} & set(labels))

    a, b = await funded(client), await client.merchant()
    many = [await funded(client) for _ in range(10)]
    async with Client(limited.service.base_url, limited.service.token) as crowd:
        before = await decided()
        sent: list[Awaitable[Answer]] = [crowd.pay(a, b, 1) for _ in range(60)]
        sent += [crowd.pay(one, b, 1) for one in many for _ in range(PAYS + 1)]
        sent += [crowd.get(f"/v1/accounts/{one}") for one in many for _ in range(4)]
        sent += [crowd.post("/v1/vouchers/batch", {"vouchers": [voucher(a, b, 1)] * 2}) for _ in range(5)]
        sent += [crowd.post(f"/v1/accounts/{one}/freeze", {"reason": "a try"}) for one in many[:2]]
        answers = await asyncio.gather(*sent)
        assert 429 in statuses(answers)
        assert await decided() - before == len(sent)


async def test_a_hot_account_is_seen(limited: Limited, client: Client) -> None:
    a = await funded(client)

    async def is_seen() -> bool:
        await asyncio.gather(*(client.post("/v1/vouchers", fund(a, 1)) for _ in range(20)))
        kinds = (await client.get("/debug/hotkeys")).json["kinds"]
        account = [hot for hot in kinds["account"] if hot["id"] == a]
        merchant = [hot for hot in kinds["merchant"] if hot["id"] == owner_of(a)]
        caller = [hot for hot in kinds["caller"] if hot["id"] == "dev"]
        return bool(account and merchant and caller) and account[0]["share"] > 0.5 and account[0]["rate"] > 0

    await eventually(is_seen, "the account is among the hot ones")
    page = "\n".join(str(labels) for series in (await limited.metrics()).values() for labels in series)
    assert a not in page
    assert owner_of(a) not in page


async def test_a_request_that_a_shadow_policy_would_reject_is_counted_and_admitted(
    limited: Limited, client: Client
) -> None:
    async def scenario() -> None:
        a, bank = await funded(client), await client.bank()
        before = await limited.counted("ratelimit_decisions_total", "drains", "shadow_deny")
        for _ in range(6):
            assert (await client.post("/v1/vouchers", voucher(a, bank, 1))).status == 201
        assert await limited.counted("ratelimit_decisions_total", "drains", "shadow_deny") == before + 5
        assert await limited.counted("ratelimit_decisions_total", "drains", "deny") == 0

    await limited.undisturbed(scenario)


# --- Changes of the file --------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def restored(limited: Limited) -> AsyncIterator[None]:
    try:
        yield
    finally:
        await limited.change(LIMITS)


async def test_what_is_written_into_the_file_counts_soon(limited: Limited, client: Client) -> None:
    async def scenario() -> None:
        a, b = await funded(client), await client.merchant()
        assert statuses(await pays(client, a, b, PAYS + 1)) == [201] * PAYS + [429]
        more = f'[[policy]]\nname = "more"\nkey = "merchant"\nonly = ["{owner_of(a)}"]\nrate = "1/h"\nburst = 100\n\n'
        before_it = '[[policy]]\nname = "pays"'
        async with restored(limited):
            await limited.change(LIMITS.replace(before_it, more + before_it))
            answers = await pays(client, a, b, 2 * PAYS)
            assert statuses(answers) == [201] * 2 * PAYS
            says_where_one_stands(answers[0].headers, "wide", "more")
        c = await funded(client)
        assert statuses(await pays(client, c, b, PAYS + 1)) == [201] * PAYS + [429]

    await limited.undisturbed(scenario)


@pytest.mark.parametrize("bad", ["version = ", LIMITS.replace('"6/min"', '"6/week"'), None, "9" * 5000 + " = 1"])
async def test_a_bad_file_keeps_the_limits_and_is_reported(limited: Limited, client: Client, bad: str | None) -> None:
    before = await limited.limits()
    failures = await limited.counted("ratelimit_config_reload_failures_total")
    logged = limited.service.log.read_text().count("the limits are unchanged")
    async with restored(limited):
        if bad is None:
            limited.file.unlink()
        else:
            limited.file.write_text(bad)

        async def is_told() -> bool:
            return await limited.counted("ratelimit_config_reload_failures_total") >= failures + 2

        await eventually(is_told, "both workers tell of it")
        assert limited.service.log.read_text().count("the limits are unchanged") >= logged + 2
        assert (await limited.limits())["version"] == before["version"]
        info = (await limited.metrics())["ratelimit_config_info"]
        assert info == {(before["version"],): 1}
        a = await funded(client)
        assert (await client.pay(a, await client.merchant(), 1)).status == 201


async def test_a_worker_that_is_started_again_beside_a_bad_file_has_the_limits_of_the_others(
    limited: Limited, client: Client
) -> None:
    version = (await limited.limits())["version"]
    async with restored(limited):
        limited.file.write_text("version = ")
        first = limited.service.worker_pids()
        os.kill(first[0], signal.SIGKILL)

        async def is_back() -> bool:
            pids = limited.service.worker_pids()
            workers = (await limited.metrics())["workers"][()]
            return len(pids) == 2 and pids != first and workers == 2

        await eventually(is_back, "another worker serves", 60)
        assert all([(await limited.limits())["version"] == version for _ in range(8)])


# --- While the store is down ----------------------------------------------------------------------------------------


class Traffic:
    """Requests that are sent during the block: payments that no policy of a merchant counts, lists and reads.

    All answers are kept.
    """

    def __init__(self, limited: Limited, account: str, other: str) -> None:
        self.limited = limited
        self.account = account
        self.other = other
        self.answers: list[Answer] = []
        self.paid = 0
        self._ends = False
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._ends = True
        await self._task

    async def _run(self) -> None:
        while not self._ends:
            async with self.limited.one() as client:
                money = await client.post("/v1/vouchers", fund(self.account, 1))
                self.paid += money.status == 201
                self.answers += [
                    money,
                    await client.post("/v1/vouchers", fund(self.other, 1)),
                    await client.get(f"/v1/accounts/{self.account}/entries?limit=1"),
                    await client.get(f"/v1/accounts/{self.account}"),
                    await client.pay(self.account, self.other, 1),
                ]

    async def some(self) -> None:
        """Wait until some more answers have arrived."""
        wanted = len(self.answers) + 20
        await eventually(lambda: len(self.answers) >= wanted, "traffic goes on")


def only_quotas(answers: list[Answer]) -> bool:
    assert len(answers) > 10
    assert {answer.status for answer in answers} <= {200, 201, 429}, {answer.status for answer in answers}
    return True


async def test_while_the_store_does_not_answer_money_goes_on_and_administration_waits(
    limited: Limited, client: Client
) -> None:
    a, b = await funded(client, 100_000), await client.merchant()
    pid = limited.service.valkey_pid()
    assert pid is not None
    async with Traffic(limited, a, b) as traffic:
        os.kill(pid, signal.SIGSTOP)
        try:

            async def nobody_counts() -> bool:
                said = [await limited.limits() for _ in range(8)]
                return all(one["mode"] == "fallback" for one in said)

            await eventually(nobody_counts, "both workers have noticed")
            await traffic.some()
            assert await limited.mode() == "fallback"
            assert await limited.counted("ratelimit_fallback_seconds") > 0
            for path in ("unfreeze", "close", "policy"):
                answer = await client.post(f"/v1/accounts/{b}/{path}", {})
                assert is_not_served(answer, "rest")
                assert answer.headers["X-Limit-Decision"].split(";")[1] == "fallback"
            assert (await client.post(f"/v1/accounts/{b}/freeze", {"reason": "it is urgent"})).status == 200
            used = {p["policy"]: p for p in (await limited.limits(**{"class": "confirm"}))["policies"]}["rest"]
            assert used["source"] == "fallback"
            assert used["used"] < used["limit"]
        finally:
            os.kill(pid, signal.SIGCONT)
        await eventually(lambda: is_normal(limited), "it is counted in the store again")
        await traffic.some()
    assert only_quotas(traffic.answers)
    answer = await client.post(f"/v1/accounts/{b}/unfreeze", {})
    assert answer.status == 200, answer
    assert await limited.counted("ratelimit_decisions_total", "allow", "fallback") > 0
    assert (await limited.service.verify())["ok"]


async def is_normal(limited: Limited) -> bool:
    said = [await limited.limits() for _ in range(8)]
    sources = {policy["source"] for one in said for policy in one["policies"]}
    return {one["mode"] for one in said} == {"normal"} and sources == {"store"}


async def test_when_the_store_is_killed_no_caller_is_served_worse_or_gets_a_fresh_burst(
    limited: Limited, client: Client
) -> None:
    await limited.calm()
    a, b, spent = await funded(client, 100_000), await client.merchant(), await funded(client)
    assert statuses(await pays(client, spent, b, PAYS)).count(201) >= 1
    pid = limited.service.valkey_pid()
    assert pid is not None
    async with Traffic(limited, a, b) as traffic:
        os.kill(pid, signal.SIGKILL)
        await eventually(lambda: limited.service.valkey_pid() not in (None, pid), "another store")
        again = await pays(client, spent, b, 2 * PAYS)
        await eventually(lambda: is_normal(limited), "it is counted in the store again")
        await traffic.some()
    assert only_quotas(traffic.answers)
    # One token exists initially, and another one may have been refilled meanwhile.
    assert statuses(again).count(201) <= 2
    assert set(statuses(again)) <= {201, 429}
    assert (await limited.service.verify())["ok"]


# --- Other modes ----------------------------------------------------------------------------------------------------


async def test_in_shadow_nothing_is_refused_and_with_limits_off_nothing_is_said() -> None:
    folder = short_folder()
    file = folder / "limits.toml"
    file.write_text(LIMITS)
    environment = {"FUNDLEDGER_RATELIMIT_FILE": str(file), "FUNDLEDGER_RATELIMIT": "shadow"}
    service = RunningService(workers=1, env=environment)
    limited = Limited(service, file)
    try:
        await service.start()
        async with limited.one() as client:

            async def scenario() -> None:
                a, b = await funded(client), await client.merchant()
                before = await limited.counted("ratelimit_decisions_total", "pays", "shadow_deny")
                answers = await pays(client, a, b, PAYS + 4)
                assert statuses(answers) == [201] * (PAYS + 4)
                assert await limited.counted("ratelimit_decisions_total", "pays", "shadow_deny") == before + 4
                assert await limited.counted("ratelimit_decisions_total", "deny") == 0
                batch = await client.post("/v1/vouchers/batch", {"vouchers": [voucher(a, b, 1) for _ in range(5)]})
                assert batch.status == 200

            await limited.undisturbed(scenario)

            async def is_shadow() -> bool:
                return await limited.mode() == "shadow"

            # If the machine was too busy to receive a response in time, the limiter reports that mode for a second.
            await eventually(is_shadow, "the limiter is in shadow")
            assert all(policy["shadow"] for policy in (await limited.limits(merchant="m"))["policies"])
        await service.stop()
        service.environment["FUNDLEDGER_RATELIMIT"] = "off"
        await service.start()
        async with limited.one() as client:
            a, b = await funded(client), await client.merchant()
            answers = await pays(client, a, b, PAYS + 4)
            assert statuses(answers) == [201] * (PAYS + 4)
            for answer in (*answers, await client.get(f"/v1/accounts/{a}")):
                assert not {"RateLimit", "RateLimit-Policy", "X-Limit-Decision"} & set(answer.headers)
            assert await limited.mode() == "off"
            assert await limited.limits() == {"mode": "off", "version": "", "policies": []}
            # The deadline belongs to the caller; it is not a quota.
            late = await client.post("/v1/vouchers", voucher(a, b, 1), headers={"X-Request-Timeout-Ms": "0"})
            assert is_not_served(late, "deadline")
        assert (await service.verify())["ok"]
    finally:
        await service.remove()
        file.unlink()
        folder.rmdir()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "FUNDLEDGER_RATELIMIT_FILE"),
        ("version = ", "this is not TOML"),
        (LIMITS.replace("burst = 3", "burst = 0"), "burst"),
        (LIMITS + '\n[[policy]]\nname = "late"\nkey = "caller"\nrate = 1\nburst = 1\n', "'late' is never reached"),
    ],
)
async def test_a_bad_limits_file_at_the_start_is_one_line(tmp_path: Path, text: str | None, told: str) -> None:
    file = tmp_path / "limits.toml"
    if text is not None:
        file.write_text(text)
    environment = {
        "FUNDLEDGER_DATA_DIR": str(tmp_path / "data"),
        "FUNDLEDGER_RATELIMIT_FILE": str(file),
        "FUNDLEDGER_PORT": str(free_port()),
        "FUNDLEDGER_FUND": "off",
    }
    done = await run("serve", env=environment, cwd=tmp_path)
    assert done.returncode == 2
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert told in lines[0]
    assert str(file) in lines[0]


async def test_the_check_command_says_what_a_file_means(tmp_path: Path) -> None:
    async def check(text: str) -> tuple[int, str]:
        file = tmp_path / "limits.toml"
        file.write_text(text)
        done = await run("ratelimit", "check", str(file), env={"FUNDLEDGER_WORKERS": "4"}, cwd=tmp_path)
        assert not done.stderr
        return done.returncode, done.stdout

    status, said = await check(LIMITS)
    assert status == 0
    rows = said.splitlines()
    assert rows[-1] == f"version {parse(LIMITS).version}: valid"
    assert len(rows) == 7
    assert "drains: 0.000277778/s, burst 1 for each merchant, only withdraw; strict, shadow" in rows
    assert "rest: 100000/s, burst 100000 for each caller; leased, 2500 for each of 4 workers" in rows
    assert (await check(default_text()))[0] == 0
    for text, told in ((LIMITS.replace("key =", "kye =", 1), "kye"), ("version = 1\n[[policy]]\n", "name")):
        status, said = await check(text)
        assert status == 1
        assert told in said
        assert len(said.splitlines()) == 1
    gone = await run("ratelimit", "check", str(tmp_path / "gone"), env={}, cwd=tmp_path)
    assert gone.returncode == 2
    assert len(gone.stderr.strip().splitlines()) == 1


async def test_a_redis_of_ones_own_counts_the_limits_and_the_embedded_valkey_is_not_started() -> None:
    async with a_redis("a-secret") as url, RunningService(workers=2, env={"FUNDLEDGER_REDIS_URL": url}) as service:
        async with Client(service.base_url, service.token) as client:

            async def it_is_asked() -> bool:
                policies = (await client.get("/debug/limits")).json["policies"]
                return {policy["source"] for policy in policies} == {"store"}

            await eventually(it_is_asked, "it answers")
        assert not (service.data_dir / "valkey.log").exists()
        assert "a-secret" not in service.log.read_text()
        async with Redis.from_url(url) as redis:

            async def two_are_heard() -> bool:
                return await redis.zcard("{fundledger}:workers") == 2

            await eventually(two_are_heard, "both workers are heard")
        assert (await service.verify())["ok"]
