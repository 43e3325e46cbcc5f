"""Limits over HTTP, as a caller and an operator meet them: a running service with policies of its own.

A machine that is too slow makes workers believe that their store is away, for a moment. Where a test counts tokens it
is `undisturbed`: what failed while that happened is tried again, with merchants of its own.
"""

import asyncio
import contextlib
import json
import math
import os
import re
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Self

import pytest

from fundledger.app.server import ROUTES
from fundledger.ratelimit.policies import default_text, parse
from tests.support.answers import is_problem
from tests.support.client import Answer, Client, new_id, voucher
from tests.support.running import RunningService, free_port, run, short_folder
from tests.support.waiting import eventually
from tests.support.wire import Reply, Wire, connected, request

IANA = "https://iana.org/assignments/http-problem-types#"
PAYS = 3
"""What a merchant of these tests may pay at once; another one every ten seconds."""
LIMITS = """
version = 3

[[policy]]
name = "wide"
key = "caller"
classes = ["payment"]
rate = "1/d"
burst = 20_000
mode = "strict"

[[policy]]
name = "rest"
key = "caller"
rate = 100_000
burst = 100_000

[[policy]]
name = "batches"
key = "class"
classes = ["batch"]
rate = "1/h"
burst = 1_000
mode = "strict"

[[policy]]
name = "pays"
key = "merchant"
classes = ["payment"]
rate = "6/min"
burst = 3

[[policy]]
name = "reads"
key = "merchant"
classes = ["query"]
rate = 2
burst = 2

[[policy]]
name = "notes"
key = "merchant"
classes = ["notify"]
rate = "1/h"
burst = 1
shadow = true

[types]
notify = ["note"]
confirm = ["fund"]
"""
assert f"burst = {PAYS}\n" in LIMITS


# --- Saying it ------------------------------------------------------------------------------------------------------


def items_of(header: str) -> list[tuple[str, dict[str, int]]]:
    """A structured-field list (RFC 9651) of strings with whole numbers as parameters; anything else is an error."""
    found, at = [], 0
    item, parameter = (
        re.compile(r'"((?:[^"\\\x00-\x1f\x7f]|\\["\\])*)"'),
        re.compile(r"; *([a-z*][a-z0-9_.*-]*)=(-?\d{1,15})"),
    )
    while True:
        name = item.match(header, at)
        assert name is not None, header
        at = name.end()
        parameters = {}
        while one := parameter.match(header, at):
            parameters[one[1]] = int(one[2])
            at = one.end()
        found.append((name[1], parameters))
        if at == len(header):
            return found
        between = re.compile(r"[ \t]*,[ \t]*(?=\")").match(header, at)
        assert between is not None, header
        at = between.end()


def says_where_one_stands(headers: Any, *policies: str) -> dict[str, int]:
    """The parameters of `RateLimit`, once both headers are what the draft asks for."""
    told = items_of(headers["RateLimit-Policy"])
    assert [name for name, _ in told] == list(policies)
    assert all(set(p) == {"q", "w"} and p["q"] >= 0 and p["w"] > 0 for _, p in told)
    [(nearest, parameters)] = items_of(headers["RateLimit"])
    assert nearest in policies
    assert set(parameters) == {"r", "t"}
    assert min(parameters.values()) >= 0
    return parameters


def is_denied(answer: Answer, policy: str) -> int:
    """A 429 in full; the seconds of its Retry-After."""
    assert answer.status == 429, answer
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem = answer.json
    assert problem["type"] == IANA + "quota-exceeded"
    assert problem["status"] == 429
    assert problem["title"]
    assert policy in problem["detail"]
    assert problem["violated-policies"] == [policy]
    assert re.fullmatch(r"[1-9]\d*", answer.headers["Retry-After"])
    wait_s = int(answer.headers["Retry-After"])
    assert problem["retry_after_ms"] == wait_s * 1000
    name, source, version = answer.headers["X-Limit-Decision"].split(";")
    assert name == policy
    assert source in ("strict", "denycache", "lease", "fallback")
    assert re.fullmatch(r"\d+\.[0-9a-f]{8}", version)
    assert (
        says_where_one_stands(answer.headers, *[n for n, _ in items_of(answer.headers["RateLimit-Policy"])])["t"]
        <= wait_s
    )
    return wait_s


def is_not_served(answer: Answer, reason: str) -> bool:
    """A 503 of ours, for want of capacity."""
    assert answer.status == 503, answer
    assert answer.json["type"] == IANA + "temporary-reduced-capacity"
    assert "violated-policies" not in answer.json
    assert int(answer.headers["Retry-After"]) >= 1
    assert answer.json["retry_after_ms"] == int(answer.headers["Retry-After"]) * 1000
    assert answer.headers["X-Limit-Decision"].startswith(f"{reason};")
    return True


# --- Asking it ------------------------------------------------------------------------------------------------------


class Limited:
    """A service and its limits file."""

    def __init__(self, service: RunningService, file: Path) -> None:
        self.service = service
        self.file = file
        self._calm_at = -1.0
        """Failures of the store when nothing was spent last."""

    def one(self) -> Client:
        """Over one connection, to one worker."""
        return Client(self.service.base_url, self.service.token, connections=1)

    async def change(self, text: str) -> None:
        """Until every worker has it; what it means is decided by this version from then on."""
        version = parse(text).version
        self.file.write_text(text)

        async def all_have_it() -> bool:
            return all([(await self.limits())["version"] == version for _ in range(12)])

        await eventually(all_have_it, "every worker has the new limits")

    async def limits(self, **query: str) -> dict[str, Any]:
        """What `GET /debug/limits` says over a new connection, to whichever worker."""
        async with self.one() as client:
            text = "&".join(f"{name}={value}" for name, value in query.items())
            answer = await client.get(f"/debug/limits?{text}" if text else "/debug/limits")
        assert answer.status == 200, answer
        return dict(answer.json)

    async def used(self, policy: str, **query: str) -> int:
        found = [p["used"] for p in (await self.limits(**query))["policies"] if p["policy"] == policy]
        return int(found[0])

    async def metrics(self) -> dict[str, dict[tuple[str, ...], float]]:
        """By name, then by the values of the labels, in their order."""
        async with self.one() as client:
            page = (await client.get("/metrics")).body.decode()
        found: dict[str, dict[tuple[str, ...], float]] = {}
        for line in page.splitlines():
            if not line.startswith("#"):
                name, _, rest = line.partition("{") if "{" in line else line.partition(" ")
                labels = tuple(re.findall(r'="([^"]*)"', rest))
                found.setdefault(name.removeprefix("fundledger_"), {})[labels] = float(line.rsplit(" ", 1)[1])
        return found

    async def counted(self, name: str, *labels: str) -> float:
        """Of a counter, all whose labels contain these."""
        series = (await self.metrics()).get(name, {})
        return sum(value for key, value in series.items() if set(labels) <= set(key))

    async def mode(self) -> str:
        series = (await self.metrics())["ratelimit_mode"]
        return next(labels[0] for labels, value in series.items() if value)

    async def failures(self) -> float:
        calls = (await self.metrics()).get("ratelimit_store_calls_total", {})
        return sum(value for labels, value in calls.items() if labels[-1] != "ok")

    async def undisturbed(self, scenario: Callable[[], Awaitable[None]]) -> None:
        for _ in range(5):
            before = await self.failures()
            if before != self._calm_at:
                await self.calm()
                before = self._calm_at
            try:
                await scenario()
            except AssertionError:
                if await self.failures() == before:
                    raise
            else:
                return
        raise AssertionError("this machine is too slow: the store was away five times in a row")

    async def calm(self) -> None:
        """Every worker counts in the store, and a new merchant has all of its quota."""

        async def is_calm() -> bool:
            said = [await self.limits(merchant=f"m:{new_id()}", account="a") for _ in range(8)]
            return all(
                one["mode"] in ("normal", "shadow") and {p["policy"]: p["used"] for p in one["policies"]}["pays"] == 0
                for one in said
            )

        while True:
            before = await self.failures()
            await eventually(is_calm, "limits are counted in the store, and none is spent", 90)
            if await self.failures() == before:
                self._calm_at = before
                return


@pytest.fixture(scope="module")
async def limited() -> AsyncIterator[Limited]:
    folder = short_folder()
    file = folder / "limits.toml"
    file.write_text(LIMITS)
    service = RunningService(workers=2, env={"FUNDLEDGER_RATELIMIT_FILE": str(file)})
    try:
        await service.start()
        yield Limited(service, file)
        report = await service.verify()
        assert report["ok"], json.dumps(report, indent=1)
        assert await service.stop() == 0, service.log_tail()
    finally:
        await service.remove()
        file.unlink()
        folder.rmdir()


@pytest.fixture
async def client(limited: Limited) -> AsyncIterator[Client]:
    async with limited.one() as client:
        yield client


async def funded(client: Client, balance: int = 1000) -> str:
    """A new merchant's account, with money that no policy counted."""
    account = await client.merchant()
    bank = await client.bank()
    assert (await client.post("/v1/vouchers", fund(bank, account, balance))).status == 201
    return account


def fund(debit: str, credit: str, amount: int, id_: str | None = None) -> dict[str, Any]:
    return {**voucher(debit, credit, amount, id_), "type": "fund"}


def owner_of(account: str) -> str:
    return account.rpartition(":")[0]


async def pays(client: Client, debit: str, credit: str, times: int) -> list[Answer]:
    return [await client.pay(debit, credit, 1) for _ in range(times)]


def statuses(answers: list[Answer]) -> list[int]:
    return [answer.status for answer in answers]


# --- The caller's quota ---------------------------------------------------------------------------------------------


async def test_beyond_its_quota_a_caller_is_told_when_to_come_back_and_by_which_policy(
    limited: Limited, client: Client
) -> None:
    async def scenario() -> None:
        a, b = await funded(client), await client.merchant()
        answers = await pays(client, a, b, PAYS + 2)
        assert statuses(answers) == [201] * PAYS + [429] * 2
        for left, answer in zip((2, 1, 0), answers, strict=False):
            parameters = says_where_one_stands(answer.headers, "wide", "pays")
            assert parameters["r"] == left or items_of(answer.headers["RateLimit"])[0][0] == "wide"
            assert "Retry-After" not in answer.headers
            assert "X-Limit-Decision" not in answer.headers
        for answer in answers[PAYS:]:
            assert is_denied(answer, "pays") <= math.ceil(10 * 1.2)
            assert says_where_one_stands(answer.headers, "wide", "pays")["r"] == 0
        assert dict(items_of(answers[0].headers["RateLimit-Policy"]))["pays"] == {"q": 1, "w": 10}
        # Another merchant is not concerned.
        other = await funded(client)
        assert (await client.pay(other, b, 1)).status == 201
        assert (await client.balance(b))["posted"] == PAYS + 1

    await limited.undisturbed(scenario)


async def test_who_waits_as_long_as_told_gets_through(limited: Limited, client: Client) -> None:
    async def scenario() -> None:
        a = await funded(client)
        for _ in range(4):
            answer = await client.get(f"/v1/accounts/{a}")
            while answer.status == 200:
                answer = await client.get(f"/v1/accounts/{a}")
            until = time.monotonic() + is_denied(answer, "reads")
            await eventually(lambda until=until: time.monotonic() >= until, "the time has come")
            assert (await client.get(f"/v1/accounts/{a}")).status == 200

    await limited.undisturbed(scenario)


def bad_requests() -> list[tuple[str, str, bytes | None, dict[str, str], int]]:
    found: list[tuple[str, str, bytes | None, dict[str, str], int]] = []
    for route in ROUTES:
        if route.api_class is None:
            continue
        path = route.template.replace("{id}", new_id() if "vouchers" in route.template else "nobody")
        if route.method == "POST":
            found.append((route.method, path, b"{}", {"Content-Type": "text/plain"}, 415))
            found.append((route.method, path, b"{", {}, 400))
            found.append((route.method, path, b"{}", {"X-Request-Timeout-Ms": "soon"}, 400))
            found.append((route.method, path, b"x" * (route.body_bytes_max + 1), {}, 413))
        else:
            found.append((route.method, path, None, {}, 404))
            found.append((route.method, path + "?nothing=1", None, {}, 400))
    return found


async def test_every_limited_route_tells_where_one_stands_whatever_else_is_wrong(client: Client) -> None:
    cases = bad_requests()
    assert {status for *_, status in cases} == {400, 404, 413, 415}
    for method, path, body, headers, status in cases:
        answer = await client.request(method, path, body, headers)
        assert answer.status == status, (method, path, answer)
        told = [name for name, _ in items_of(answer.headers["RateLimit-Policy"])]
        assert says_where_one_stands(answer.headers, *told)
        assert {"wide", "rest"} & set(told)
    refused = await client.pay(await client.merchant(), "merchant:nobody", 1)
    assert refused.status == 422
    says_where_one_stands(refused.headers, "wide")


async def test_what_is_not_limited_and_who_is_not_known_is_told_nothing(limited: Limited, client: Client) -> None:
    for path in ("/healthz", "/metrics", "/debug/limits", "/debug/hotkeys", "/docs", "/nowhere"):
        assert "RateLimit-Policy" not in (await client.get(path)).headers
    async with Client(limited.service.base_url, "wrong") as nobody:
        for answer in (await nobody.get("/v1/accounts/a"), await nobody.post("/v1/vouchers", {})):
            assert answer.status == 401
            assert "RateLimit-Policy" not in answer.headers


async def test_a_batch_costs_as_many_as_it_has(limited: Limited, client: Client) -> None:
    async def scenario() -> None:
        a, b = await funded(client), await client.merchant()
        before = await limited.used("batches", **{"class": "batch"})
        two = await client.post("/v1/vouchers/batch", {"vouchers": [voucher(a, b, 1) for _ in range(2)]})
        assert two.status == 200
        assert says_where_one_stands(two.headers, "batches", "rest")
        assert await limited.used("pays", merchant=owner_of(a)) == 2
        assert await limited.used("batches", **{"class": "batch"}) == before + 2
        denied = await client.post("/v1/vouchers/batch", {"vouchers": [voucher(a, b, 1) for _ in range(2)]})
        is_denied(denied, "pays")
        assert statuses(await pays(client, a, b, 2)) == [201, 429]

    await limited.undisturbed(scenario)


@pytest.mark.parametrize("atomic", [False, True])
async def test_a_batch_that_is_denied_posts_nothing_and_costs_nothing_of_any_policy(
    limited: Limited, client: Client, atomic: bool
) -> None:
    async def scenario() -> None:
        a, c, b = await funded(client), await funded(client), await client.merchant()
        before = [await limited.used("batches", **{"class": "batch"}), await limited.used("wide")]
        batch = [*(voucher(a, b, 1) for _ in range(PAYS + 1)), voucher(c, b, 1)]
        denied = await client.post("/v1/vouchers/batch", {"vouchers": batch, "atomic": atomic})
        is_denied(denied, "pays")
        for one in batch:
            assert (await client.request("GET", f"/v1/vouchers/{one['id']}")).status == 404
        assert (await client.get(f"/v1/accounts/{b}")).json["balance"]["posted"] == 0
        after = [await limited.used("batches", **{"class": "batch"}), await limited.used("wide")]
        assert after == before
        assert [await limited.used("pays", merchant=owner_of(x)) for x in (a, c)] == [0, 0]

    await limited.undisturbed(scenario)


async def test_what_is_denied_by_one_policy_costs_nothing_of_another(limited: Limited, client: Client) -> None:
    async def scenario() -> None:
        a, b = await funded(client), await client.merchant()
        assert statuses(await pays(client, a, b, PAYS)) == [201] * PAYS
        before = await limited.used("wide", merchant=owner_of(a))
        assert statuses(await pays(client, a, b, 20)) == [429] * 20
        assert await limited.used("wide", merchant=owner_of(a)) == before
        assert await limited.used("pays", merchant=owner_of(a)) == PAYS

    await limited.undisturbed(scenario)


# --- Repeats --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("headers", [{}, {"Connection": "close"}], ids=["short path", "ordinary path"])
async def test_a_repeat_is_answered_from_its_record_while_the_quota_is_used_up(
    limited: Limited, client: Client, headers: dict[str, str]
) -> None:
    async def scenario() -> None:
        a, b = await funded(client), await client.merchant()
        asked = [voucher(a, b, 1) for _ in range(PAYS)]
        first = [await client.post("/v1/vouchers", one, headers=headers) for one in asked]
        assert statuses(first) == [201] * PAYS
        is_denied(await client.post("/v1/vouchers", voucher(a, b, 1), headers=headers), "pays")
        for one, answer in zip(asked, first, strict=True):
            again = await client.post("/v1/vouchers", one, headers=headers)
            assert (again.status, again.is_replay, again.body) == (200, True, answer.body)
        # Free also where there is a quota: nothing is used by it.
        is_denied(await client.post("/v1/vouchers", voucher(a, b, 1), headers=headers), "pays")
        assert await limited.used("pays", merchant=owner_of(a)) == PAYS
        # And what was denied is no record.
        assert (await client.balance(b))["posted"] == PAYS

    await limited.undisturbed(scenario)


async def test_a_repeat_costs_nothing_where_there_is_a_quota_left(limited: Limited, client: Client) -> None:
    async def scenario() -> None:
        a, b = await funded(client), await client.merchant()
        asked = voucher(a, b, 1)
        assert (await client.post("/v1/vouchers", asked)).status == 201
        for _ in range(PAYS * 4):
            answer = await client.post("/v1/vouchers", asked)
            assert (answer.status, answer.is_replay) == (200, True)

        async def is_given_back() -> bool:
            return await limited.used("pays", merchant=owner_of(a)) == 1

        await eventually(is_given_back, "what repeats were charged is given back", 5)

    await limited.undisturbed(scenario)


async def test_repeats_in_a_batch_are_given_back_by_every_policy(limited: Limited, client: Client) -> None:
    async def scenario() -> None:
        a, b = await funded(client), await client.merchant()
        batch = {"vouchers": [voucher(a, b, 1), voucher(a, b, 1)]}
        assert (await client.post("/v1/vouchers/batch", batch)).status == 200
        before = await limited.used("batches", **{"class": "batch"})
        alone = voucher(a, b, 1)
        assert (await client.post("/v1/vouchers", alone)).status == 201
        batch = {"vouchers": [alone]}

        async def is_given_back() -> bool:
            used = await limited.used("pays", merchant=owner_of(a))
            return used == PAYS - 1 and await limited.used("batches", **{"class": "batch"}) == before

        # Its quota is used up: one comes back in ten seconds, and then the repeat is let in and costs nothing.
        async def is_repeated() -> bool:
            answer = await client.post("/v1/vouchers/batch", batch)
            return answer.status == 200 and bool(answer.json["results"][0].get("replay"))

        await eventually(is_repeated, "the repeat is let in", 30)
        await eventually(is_given_back, "and given back", 5)

    await limited.undisturbed(scenario)


async def test_repeats_of_holds_captures_and_reversals_cost_nothing(limited: Limited, client: Client) -> None:
    async def scenario() -> None:
        a, b = await funded(client), await client.merchant()
        hold = {"id": f"hold:{new_id()}", "account": a, "amount": 5}
        assert (await client.post("/v1/holds", hold)).status == 201
        for _ in range(PAYS * 2):
            assert (await client.post("/v1/holds", hold)).status == 200
        capture = {"voucher": voucher(a, b, 5)}
        assert (await client.post(f"/v1/holds/{hold['id']}/capture", capture)).status == 201
        before = await limited.used("rest", **{"class": "confirm"})
        again = await client.post(f"/v1/holds/{hold['id']}/capture", capture)
        assert (again.status, again.is_replay) == (200, True)

        async def is_given_back() -> bool:
            used = await limited.used("pays", merchant=owner_of(a))
            return used == 1 and await limited.used("rest", **{"class": "confirm"}) <= before

        await eventually(is_given_back, "what repeats were charged is given back", 5)

    await limited.undisturbed(scenario)


# --- What an operator sees ------------------------------------------------------------------------------------------


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
    a, b = await funded(client), await client.merchant()

    async def is_seen() -> bool:
        await asyncio.gather(*(client.post("/v1/vouchers", fund(a, b, 1)) for _ in range(20)))
        kinds = (await client.get("/debug/hotkeys")).json["kinds"]
        account = [hot for hot in kinds["account"] if hot["id"] == a]
        merchant = [hot for hot in kinds["merchant"] if hot["id"] == owner_of(a)]
        caller = [hot for hot in kinds["caller"] if hot["id"] == "dev"]
        return bool(account and merchant and caller) and account[0]["share"] > 0.5 and account[0]["rate"] > 0

    await eventually(is_seen, "the account is among the hot ones")
    page = "\n".join(str(labels) for series in (await limited.metrics()).values() for labels in series)
    assert a not in page
    assert owner_of(a) not in page


async def test_what_a_shadow_policy_would_refuse_is_counted_and_let_in(limited: Limited, client: Client) -> None:
    async def scenario() -> None:
        a, b = await funded(client), await client.merchant()
        before = await limited.counted("ratelimit_decisions_total", "notes", "shadow_deny")
        for _ in range(6):
            assert (await client.post("/v1/vouchers", {**voucher(a, b, 1), "type": "note"})).status == 201
        assert await limited.counted("ratelimit_decisions_total", "notes", "shadow_deny") == before + 5
        assert await limited.counted("ratelimit_decisions_total", "notes", "deny") == 0

    await limited.undisturbed(scenario)


# --- Changing it ----------------------------------------------------------------------------------------------------


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
async def test_a_bad_file_keeps_the_limits_and_is_told(limited: Limited, client: Client, bad: str | None) -> None:
    before = await limited.limits()
    failures = await limited.counted("ratelimit_config_reload_failures_total")
    logged = limited.service.log.read_text().count("the limits stay as they were")
    async with restored(limited):
        if bad is None:
            limited.file.unlink()
        else:
            limited.file.write_text(bad)

        async def is_told() -> bool:
            return await limited.counted("ratelimit_config_reload_failures_total") >= failures + 2

        await eventually(is_told, "both workers tell of it")
        assert limited.service.log.read_text().count("the limits stay as they were") >= logged + 2
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


# --- The caller's time ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["soon", "-1", "1.5", "", "1 000", "+5", "1e3", "9999999999"])
@pytest.mark.parametrize("headers", [{}, {"Connection": "close"}], ids=["short path", "ordinary path"])
async def test_a_bad_time_is_400_and_names_the_header(client: Client, text: str, headers: dict[str, str]) -> None:
    sent = {"X-Request-Timeout-Ms": text, **headers}
    for answer in (
        await client.post("/v1/vouchers", voucher("a", "b", 1), headers=sent),
        await client.get("/v1/accounts/nobody", sent),
    ):
        assert is_problem(answer, 400, "malformed")
        assert answer.json["field"] == "X-Request-Timeout-Ms"


@pytest.mark.parametrize("headers", [{}, {"Connection": "close"}], ids=["short path", "ordinary path"])
async def test_what_comes_too_late_is_not_begun_and_costs_nothing(
    limited: Limited, client: Client, headers: dict[str, str]
) -> None:
    async def scenario() -> None:
        a, b = await funded(client), await client.merchant()
        before = await limited.counted("shed_requests_total", "payment", "deadline")
        late = [voucher(a, b, 1) for _ in range(2)]
        for one in late:
            sent = {"X-Request-Timeout-Ms": "0", **headers}
            answer = await client.post("/v1/vouchers", one, headers=sent)
            assert is_not_served(answer, "deadline")
            says_where_one_stands(answer.headers, "wide", "pays")
        assert await limited.counted("shed_requests_total", "payment", "deadline") == before + 2
        for one in late:
            assert (await client.get(f"/v1/vouchers/{one['id']}")).status == 404

        async def costs_nothing() -> bool:
            return await limited.used("pays", merchant=owner_of(a)) == 0

        await eventually(costs_nothing, "what was charged is given back", 5)
        in_time = {"X-Request-Timeout-Ms": "60000", **headers}
        assert (await client.post("/v1/vouchers", late[0], headers=in_time)).status == 201
        assert (await client.balance(b))["posted"] == 1

    await limited.undisturbed(scenario)


async def test_a_batch_that_comes_too_late_costs_nothing(limited: Limited, client: Client) -> None:
    async def scenario() -> None:
        a, b = await funded(client), await client.merchant()
        before = await limited.used("batches", **{"class": "batch"})
        batch = {"vouchers": [voucher(a, b, 1), voucher(a, b, 1)]}
        answer = await client.post("/v1/vouchers/batch", batch, headers={"X-Request-Timeout-Ms": "0"})
        assert is_not_served(answer, "deadline")

        async def costs_nothing() -> bool:
            used = await limited.used("pays", merchant=owner_of(a))
            return used == 0 and await limited.used("batches", **{"class": "batch"}) == before

        await eventually(costs_nothing, "what was charged is given back", 5)

    await limited.undisturbed(scenario)


# --- Two paths ------------------------------------------------------------------------------------------------------


async def over(wire: Wire, limited: Limited, body: Any, **headers: str) -> Reply:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    await wire.send(request("POST", "/v1/vouchers", limited.service.token, json.dumps(body).encode(), sent))
    return await wire.reply()


def comparable(reply: Reply) -> tuple[object, ...]:
    """All but what changes from moment to moment, by design: the time, the jitter, where one asked."""
    headers = {n: v for n, v in reply.headers.items() if n not in ("date", "connection", "content-length", "ratelimit")}
    if "retry-after" in headers:
        headers["retry-after"] = "some"
        name, _, version = headers["x-limit-decision"].split(";")
        headers["x-limit-decision"] = f"{name};{version}"
    body = {k: v for k, v in reply.json.items() if k not in ("posted_at", "accounting_date", "id", "retry_after_ms")}
    body.pop("entries", None)
    return reply.status, headers, "ratelimit" in reply.headers, body


async def test_the_short_path_and_the_ordinary_one_give_the_same_answers(limited: Limited, client: Client) -> None:
    async def answers(**more: str) -> list[tuple[object, ...]]:
        a, b = await funded(client), await client.merchant()
        asked = [voucher(a, b, 1) for _ in range(PAYS)]
        found = []
        sent: list[tuple[Any, dict[str, str]]] = [
            *((one, {}) for one in asked),
            (voucher(a, b, 1), {}),  # denied
            (asked[0], {}),  # a repeat
            (voucher(a, b, 1), {"X_Request_Timeout_Ms": "x"}),
            ({**voucher(a, b, 1), "type": "fund"}, {"X_Request_Timeout_Ms": "0"}),
            ({**voucher(a, b, 1), "type": "fund"}, {}),
            ({"id": 1}, {}),
        ]
        for body, headers in sent:
            async with connected(limited.service.base_url) as wire:
                await wire.send(request("GET", "/healthz", None))
                assert (await wire.reply()).status == 200
                found.append(comparable(await over(wire, limited, body, **headers, **more)))
        return found

    async def scenario() -> None:
        short = await answers()
        assert [answer[0] for answer in short] == [201] * PAYS + [429, 200, 400, 503, 201, 400]
        assert await answers(Connection="close") == short

    await limited.undisturbed(scenario)


# --- While nobody counts --------------------------------------------------------------------------------------------


class Traffic:
    """Payments that no merchant's policy counts, lists and reads, for as long as the block lasts; all answers."""

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
                money = await client.post("/v1/vouchers", fund(self.account, self.other, 1))
                self.paid += money.status == 201
                self.answers += [
                    money,
                    await client.post("/v1/vouchers", {**fund(self.account, self.other, 1), "type": "refund"}),
                    await client.get(f"/v1/accounts/{self.account}/entries?limit=1"),
                    await client.get(f"/v1/accounts/{self.account}"),
                    await client.pay(self.account, self.other, 1),
                ]

    async def some(self) -> None:
        """A few more answers."""
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
    await limited.calm()
    assert (await limited.service.verify())["ok"]


async def is_normal(limited: Limited) -> bool:
    said = [await limited.limits() for _ in range(8)]
    sources = {policy["source"] for one in said for policy in one["policies"]}
    return {one["mode"] for one in said} == {"normal"} and sources == {"store"}


async def test_when_the_store_is_killed_nobody_is_served_worse_and_nobody_gets_a_fresh_burst(
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
    # One is there at once, and one may have come back meanwhile.
    assert statuses(again).count(201) <= 2
    assert set(statuses(again)) <= {201, 429}
    await limited.calm()
    assert (await limited.service.verify())["ok"]


# --- Otherwise ------------------------------------------------------------------------------------------------------


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
            assert await limited.mode() == "shadow"
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
            # Time is the caller's, not a quota.
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
    assert rows[-1] == f"version {parse(LIMITS).version}: would be taken"
    assert len(rows) == 7
    assert "notes: 0.000277778/s, burst 1 for each merchant, only notify; strict, shadow" in rows
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
