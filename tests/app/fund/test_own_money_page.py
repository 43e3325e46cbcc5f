"""The requests of the page on own money have the effects that the page shows."""

import json
import re
from pathlib import Path

from tests.support.client import Client
from tests.support.database import Databases
from tests.support.fund_books import prove_fund
from tests.support.fund_http import OTHER_TOKEN, FundClient, a_fund_service
from tests.support.running import RunningService

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "own-money.md"
NAMES = ("icbc", "ccb", "tea-house")


async def balance(client: Client, account: str) -> int:
    answer = await client.get(f"/v1/accounts/{account}")
    return 0 if answer.status == 404 else int(answer.json["balance"]["posted"])


async def test_the_requests_of_the_page_have_the_shown_effects(
    postgres: Databases, service: RunningService, client: Client, tmp_path: Path
) -> None:
    text = PAGE.read_text()
    requests = re.findall(r"```\nPOST (\S+)\n(\{.*\})\n```", text)
    assert len(requests) == 13
    rows = re.findall(r"^\| `([\w:]+)` \| ([\d,.]+) \|", text, re.MULTILINE)
    shown = {account: int(re.sub("[,.]", "", amount)) for account, amount in rows}
    assert len(shown) == 10
    dsn = await postgres.new_fund()
    async with (
        a_fund_service(dsn, tmp_path, service, every_channel=False) as (_, url),
        FundClient(url) as fund,
        FundClient(url, OTHER_TOKEN) as other,
    ):

        def salted(name: str) -> str:
            for of_page in NAMES:
                name = name.replace(of_page, f"{of_page}-{fund.salt}")
            return name

        # Other tests on this service may have losses. The page sweeps a fee.
        await client.open_account("income:fee", "fee_income", "platform")
        assert (await client.pay(await client.bank(), "income:fee", 1 << 40)).status == 201
        before = {account: await balance(client, salted(account)) for account in shown}
        merchant = {"id": salted("tea-house"), "name": "Tea House", "currency": "CNY", "fee": {"basis_points": 60}}
        assert (await fund.post("/v1/merchants", merchant)).status == 201
        id_ = ""
        for path, body in requests:
            members = json.loads(salted(body))
            for name in {"order_no", "invoice_order_no"} & members.keys():
                members[name] = f"{members[name]}-{fund.salt}"
            answer = await fund.post(path.replace("{id}", id_), members)
            assert answer.status in (200, 201, 202), (path, answer)
            id_, state = answer.json["id"], answer.json["state"]
            if state in ("created", "waiting"):
                approved = f"/v1/changes/{id_}/approve" if state == "waiting" else f"{path}/{id_}/approve"
                decided = await other.post(approved)
                assert (decided.status, decided.json["state"] in ("posted", "applied")) == (200, True), decided
        after = {account: await balance(client, salted(account)) for account in shown}
        assert {account: after[account] - before[account] for account in shown} == shown
        salt = fund.salt
    await prove_fund(dsn, service.dsn, salt)
    await postgres.drop(dsn)
