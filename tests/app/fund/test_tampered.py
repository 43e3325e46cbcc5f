"""A row that was edited by SQL is 500 `integrity` over HTTP, and the rows beside it are answered."""

from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from fundledger.fund.store.events import UNVERIFIED
from tests.support.answers import is_problem
from tests.support.fund_http import FundClient, a_fund_service
from tests.support.running import RunningService
from tests.support.tampering import any_state
from tests.support.waiting import eventually


@pytest.fixture
async def tampered(
    fund_database: str, service: RunningService, tmp_path: Path
) -> AsyncIterator[tuple[FundClient, asyncpg.Connection]]:
    connection = await asyncpg.connect(fund_database)
    async with a_fund_service(fund_database, tmp_path, service) as (_, url), FundClient(url) as client:
        yield client, connection
    await connection.close()


async def test_a_list_shows_the_others_and_names_what_is_left_out(
    tampered: tuple[FundClient, asyncpg.Connection],
) -> None:
    client, connection = tampered
    merchant = await client.shop()
    ids = [(await client.paid(merchant, f"p{i}", 100 + i)).json["id"] for i in range(3)]
    whole = (await client.get(f"/v1/payments?merchant={merchant}")).json
    assert "unverified" not in whole
    await connection.execute("UPDATE fund.orders SET amount = 999999 WHERE id::text = $1", ids[1])
    for read in ("", "/history"):
        assert is_problem(await client.get(f"/v1/payments/{ids[1]}{read}"), 500, "integrity")
    assert is_problem(await client.get(f"/v1/payments?merchant={merchant}&order_no=p1"), 500, "integrity")
    page = await client.get(f"/v1/payments?merchant={merchant}")
    assert page.status == 200
    assert [order["id"] for order in page.json["orders"]] == [ids[0], ids[2]]
    (named,) = page.json["unverified"]
    assert (named["id"], named["problem"]["status"]) == (ids[1], 500)
    assert b"999999" not in page.body
    # A page that ends with the edited row continues behind it.
    first = (await client.get(f"/v1/payments?merchant={merchant}&limit=2")).json
    assert [order["id"] for order in first["orders"]] == [ids[0]]
    rest = (await client.get(f"/v1/payments?merchant={merchant}&limit=2&cursor={first['next_cursor']}")).json
    assert [order["id"] for order in rest["orders"]] == [ids[2]]


async def test_a_batch_with_a_repeat_of_an_edited_payment_refuses_this_one_only(
    tampered: tuple[FundClient, asyncpg.Connection],
) -> None:
    client, connection = tampered
    merchant = await client.shop()
    await client.paid(merchant, "p0", 100)
    async with any_state(connection):
        await connection.execute("UPDATE fund.orders SET state = 'posting', posted_at = NULL")
    payments = [client.payment(merchant, f"p{i}", 100) for i in range(3)]
    answer = await client.post("/v1/payments/batch", {"payments": payments})
    assert answer.status == 200
    assert [item["state"] for item in answer.json["results"]] == ["unknown", "posted", "posted"]
    assert answer.json["results"][0]["problem"]["type"].endswith(":integrity")
    alone = await client.post("/v1/payments/batch", {"payments": payments[:1]})
    assert (alone.status, alone.json["results"]) == (200, answer.json["results"][:1])


async def test_merchants_and_endpoints_that_were_edited_are_not_shown(
    tampered: tuple[FundClient, asyncpg.Connection],
) -> None:
    client, connection = tampered
    edited, whole = await client.shop("edited"), await client.shop("whole", fee={"basis_points": 60})
    ids = []
    for merchant in (edited, whole):
        hook = {"merchant": merchant, "url": "https://example.com/hook"}
        ids.append((await client.post("/v1/webhooks", hook)).json["id"])
    await connection.execute("UPDATE fund.merchants SET withdrawal_limit = 7 WHERE id = $1", edited)
    await connection.execute("UPDATE outbox.webhooks SET url = 'https://attacker.example/' WHERE id::text = $1", ids[0])
    assert is_problem(await client.get(f"/v1/merchants/{edited}"), 500, "integrity")
    assert (await client.get(f"/v1/merchants/{whole}")).status == 200
    page = (await client.get("/v1/merchants?limit=100")).json
    assert [merchant["id"] for merchant in page["merchants"]] == [whole]
    assert [item["id"] for item in page["unverified"]] == [edited]
    hooks = (await client.get("/v1/webhooks")).json
    assert [hook["id"] for hook in hooks["webhooks"]] == [ids[1]]
    assert [item["id"] for item in hooks["unverified"]] == [ids[0]]
    for verb in ("disable", "redeliver"):
        assert is_problem(await client.post(f"/v1/webhooks/{ids[0]}/{verb}", {}), 500, "integrity")
    await connection.execute("ALTER TABLE fund.fee_rules DISABLE TRIGGER ALL")
    await connection.execute("UPDATE fund.fee_rules SET basis_points = 0")
    assert is_problem(await client.get(f"/v1/merchants/{whole}"), 500, "integrity")

    async def written() -> bool:
        found = await connection.fetch("SELECT kind FROM fund.integrity_findings ORDER BY seq")
        return sorted(row["kind"] for row in found) == ["fee_rule", "merchant", "webhook"]

    await eventually(written, "each is written down once")


async def test_an_event_of_an_edited_order_has_no_content_and_holds_up_no_other(
    tampered: tuple[FundClient, asyncpg.Connection],
) -> None:
    client, connection = tampered
    merchant = await client.shop()
    ids = [(await client.paid(merchant, f"p{i}", 100)).json["id"] for i in range(3)]
    await connection.execute("UPDATE fund.orders SET amount = 999999 WHERE id::text = $1", ids[1])
    page = await client.get("/v1/events?after=0&wait_s=2")
    assert page.status == 200
    types = [event["type"] for event in page.json["events"]]
    assert types == ["payment.posted", UNVERIFIED, "payment.posted"]
    assert b"999999" not in page.body
    assert page.json["events"][1]["order_id"] == ids[1]
