"""`GET /v1/events` of the account service, and the background jobs of its workers."""

import asyncio
import uuid
from typing import Any

import asyncpg
import pytest

from tests.support.client import Client
from tests.support.running import RunningService, run
from tests.support.waiting import eventually


async def open_two(client: Client) -> tuple[str, str]:
    bank, merchant = f"bank:{uuid.uuid4().hex}", f"m:{uuid.uuid4().hex}"
    for id_, type_ in ((bank, "bank"), (merchant, "merchant_available")):
        body = {"id": id_, "owner": id_, "type": type_, "currency": "CNY"}
        assert (await client.post("/v1/accounts", body)).status == 201
    return bank, merchant


def voucher(debit: str, credit: str, amount: int) -> dict[str, Any]:
    entries = [
        {"account": debit, "side": "debit", "amount": amount},
        {"account": credit, "side": "credit", "amount": amount},
    ]
    return {"id": str(uuid.uuid4()), "type": "pay", "entries": entries}


async def newest(client: Client) -> int:
    """Return the seq at the current end of the feed."""
    after = 0
    while True:
        page = (await client.get(f"/v1/events?after={after}&limit=1000")).json
        assert "events" in page, page
        if not page["events"]:
            return int(page["next"])
        after = page["next"]


async def test_vouchers_are_reported_in_order_and_a_reader_continues_after_an_absence(client: Client) -> None:
    bank, merchant = await open_two(client)
    after = await newest(client)
    paid = [voucher(bank, merchant, 10), voucher(merchant, bank, 1000), voucher(merchant, bank, 5)]
    answer = await client.post("/v1/vouchers/batch", {"vouchers": paid})
    assert [one["status"] for one in answer.json["results"]] == ["posted", "refused", "posted"]
    read: list[dict[str, Any]] = []
    while len(read) < 3:
        page = (await client.get(f"/v1/events?after={after}&limit=2&wait_s=5")).json
        read += [event for event in page["events"] if event["id"] in {one["id"] for one in paid}]
        after = page["next"]
    assert [event["id"] for event in read] == [one["id"] for one in paid]
    assert [event["type"] for event in read] == ["voucher.posted", "voucher.refused", "voucher.posted"]
    assert read[0]["voucher"] == (await client.get(f"/v1/vouchers/{paid[0]['id']}")).json
    assert read[1]["voucher"]["problem"]["type"].endswith("insufficient-funds")
    assert sorted(event["seq"] for event in read) == [event["seq"] for event in read]


async def test_a_long_poll_is_answered_when_something_happens(client: Client) -> None:
    bank, merchant = await open_two(client)
    after = await newest(client)
    paid = voucher(bank, merchant, 10)

    async def told() -> None:
        seen, following = False, after
        while not seen:
            page = (await client.get(f"/v1/events?after={following}&wait_s=30")).json
            seen, following = any(event["id"] == paid["id"] for event in page["events"]), page["next"]

    waiting = asyncio.create_task(told())
    await asyncio.sleep(0)
    assert (await client.post("/v1/vouchers", paid)).status == 201
    await waiting


@pytest.mark.parametrize(
    "query",
    [
        "after=-1",
        "after=x",
        "limit=0",
        "limit=1001",
        "wait_s=31",
        "wait_s=1e1",
        "wait_s=-1",
        "wait_s=nan",
        "after=9007199254740992",
        "from=1",
    ],
)
async def test_a_bad_question_is_answered_400(client: Client, query: str) -> None:
    assert (await client.get(f"/v1/events?{query}")).status == 400


async def test_the_background_jobs_of_workers_are_in_the_metrics(client: Client, service: RunningService) -> None:
    async def shown() -> bool:
        page = (await client.get("/metrics")).body.decode()
        names = ("hold_expiry", "hot_keeper", "buffer_folder")
        return all(
            f'fundledger_daemon_overdue{{daemon="{name}"}} 0.0' in page
            and f'fundledger_daemon_last_success_timestamp_seconds{{daemon="{name}"}}' in page
            for name in names
        )

    await eventually(shown, "each of them has succeeded")


async def test_an_operator_sees_who_runs_what_and_that_it_is_taken(service: RunningService, client: Client) -> None:
    async def listed() -> bool:
        done = await run("jobs", "list", env=service.environment, cwd=service.folder)
        assert done.returncode == 0, done.stdout + done.stderr
        return all(f"account   {name} " in done.stdout for name in ("hold_expiry", "hot_keeper", "buffer_folder"))

    await eventually(listed, "all of them are known")
    done = await run("jobs", "run", "hold_expiry", "--once", env=service.environment, cwd=service.folder)
    assert (done.returncode, "already running" in done.stdout) == (1, True), done.stdout + done.stderr
    done = await run("jobs", "run", "nobody", "--once", env=service.environment, cwd=service.folder)
    assert done.returncode == 2


async def test_a_voucher_that_does_not_verify_holds_up_no_other_event(service: RunningService, client: Client) -> None:
    bank, merchant = await open_two(client)
    after = await newest(client)
    paid = [voucher(bank, merchant, 10 + i) for i in range(3)]
    await client.post("/v1/vouchers/batch", {"vouchers": paid})
    connection = await asyncpg.connect(service.dsn)

    async def refer_to(reference: str | None) -> None:
        async with connection.transaction():
            await connection.execute("ALTER TABLE ledger.vouchers DISABLE TRIGGER vouchers_append_only")
            id_ = paid[1]["id"]
            await connection.execute("UPDATE ledger.vouchers SET reference = $2 WHERE id = $1::uuid", id_, reference)
            await connection.execute("ALTER TABLE ledger.vouchers ENABLE ALWAYS TRIGGER vouchers_append_only")

    try:
        await refer_to("invoice 666")
        told: dict[str, Any] = {}

        async def all_reported() -> bool:
            nonlocal after
            page = (await client.get(f"/v1/events?after={after}&limit=1000")).json
            told.update({event["id"]: event for event in page["events"]})
            after = page["next"]
            return all(one["id"] in told for one in paid)

        await eventually(all_reported, "the three vouchers are reported")
        assert [told[one["id"]]["type"] for one in paid] == ["voucher.posted", "voucher.unverified", "voucher.posted"]
        assert told[paid[1]["id"]]["integrity"] is False
        assert "voucher" not in told[paid[1]["id"]]
        # The test does not read the voucher: that would record a finding in the books of the shared service.
    finally:
        await refer_to(None)
        await connection.close()
    assert (await client.get(f"/v1/vouchers/{paid[1]['id']}")).status == 200
