"""Payout files and their results over HTTP."""

import base64
import csv
import hashlib
import io
from datetime import timedelta
from typing import Any

import pytest

from fundledger.fund.model.payout_file import CONTENT_CHARACTERS_MAX
from tests.app.fund.test_fund_openapi import is_documented
from tests.app.fund.test_people import Place, place, registered, running
from tests.support.answers import is_problem
from tests.support.client import Answer
from tests.support.fund_payees import iban

__all__ = ["place", "running"]  # fixtures
DEBTOR = {"holder": "Fundledger Ltd", "iban": iban(77)}


class Exports:
    """A channel with the payout method `file`, and a merchant with a payee."""

    def __init__(self, place: Place, channel: str, merchant: str, payee: str) -> None:
        self.place = place
        self.channel = channel
        self.merchant = merchant
        self.payee = payee

    @property
    def files(self) -> str:
        return f"/v1/channels/{self.channel}/payout-files"

    async def withdraw(self, order_no: str, amount: int) -> str:
        body = {"merchant": self.merchant, "order_no": order_no, "amount": amount, "channel": self.channel}
        answer = await self.place.tests.post("/v1/withdrawals", {**body, "payee": self.payee})
        assert (answer.status, answer.json["state"]) == (201, "posted"), answer
        return str(answer.json["id"])

    async def export(self, **more: Any) -> Answer:
        return await self.place.tests.post(self.files, {"currency": "CNY", **more})

    async def results(self, file_no: int, content: str, format_: str = "csv") -> Answer:
        body = {"file_no": file_no, "format": format_, "content": content}
        return await self.place.tests.post(f"/v1/channels/{self.channel}/payout-results", body)

    async def state(self, id_: str) -> str:
        return str((await self.place.tests.get(f"/v1/withdrawals/{id_}")).json["state"])


async def exports(place: Place, **terms: Any) -> Exports:
    place.service.payees._cooling = timedelta(0)
    channel = await registered(place, "bank", payout="file", **terms)
    merchant = await place.tests.shop()
    assert (
        await place.tests.paid(merchant, "p", 100_000, channel=channel, channel_ref=f"r-{place.salt}")
    ).status == 201
    body = {"holder": "Tea House", "currency": "CNY", "iban": iban(1)}
    made = await place.tests.post(f"/v1/merchants/{merchant}/payees", body)
    assert (await place.others.post(f"/v1/changes/{made.json['id']}/approve")).status == 200
    return Exports(place, channel, merchant, made.json["id"])


async def test_a_file_is_made_once_and_downloaded_with_the_same_bytes(place: Place) -> None:
    bank = await exports(place)
    first, second = await bank.withdraw("1", 1_050), await bank.withdraw("2", 200)
    made = await bank.export(file_no=1)
    assert made.status == 201, made
    assert is_documented(made, "POST", "/v1/channels/{name}/payout-files")
    assert {name: made.json[name] for name in ("channel", "file_no", "lines", "total", "unnamed")} == {
        "channel": bank.channel,
        "file_no": 1,
        "lines": 2,
        "total": 1_250,
        "unnamed": 0,
    }
    again = await bank.export(file_no=1)
    assert (again.status, again.is_replay) == (200, True)
    assert again.json["sha256"] == made.json["sha256"]
    assert is_documented(again, "POST", "/v1/channels/{name}/payout-files")
    assert is_problem(await bank.export(), 422, "nothing-to-export")
    assert is_problem(await bank.export(file_no=3), 422, "payout-file-no-wrong")
    content = await place.tests.get(f"{bank.files}/1/content")
    assert content.status == 200
    assert content.headers["Content-Type"] == "application/octet-stream"
    assert content.headers["Content-Disposition"] == f'attachment; filename="{bank.channel}-1.csv"'
    digest = hashlib.sha256(content.body)
    assert digest.hexdigest() == made.json["sha256"]
    assert content.headers["Content-Digest"] == f"sha-256=:{base64.b64encode(digest.digest()).decode()}:"
    assert (await place.tests.get(f"{bank.files}/1/content")).body == content.body
    lines = list(csv.DictReader(io.StringIO(content.body.decode(), newline="")))
    assert [(line["ref"], line["amount"], line["iban"], line["holder"]) for line in lines] == [
        (first.replace("-", ""), "10.50", iban(1), "Tea House"),
        (second.replace("-", ""), "2.00", iban(1), "Tea House"),
    ]
    assert [await bank.state(first), await bank.state(second)] == ["sent", "sent"]
    one = await place.tests.get(f"{bank.files}/1")
    assert is_documented(one, "GET", "/v1/channels/{name}/payout-files/{file_no}")
    assert one.json["sha256"] == made.json["sha256"]
    await bank.withdraw("3", 1)
    assert (await bank.export(format="pain.001", debtor=DEBTOR)).json["file_no"] == 2
    page = await place.tests.get(f"{bank.files}?limit=1")
    assert is_documented(page, "GET", "/v1/channels/{name}/payout-files")
    listed = page.json
    assert [file["file_no"] for file in listed["files"]] == [1]
    rest = (await place.tests.get(f"{bank.files}?cursor={listed['next_cursor']}")).json
    assert [(file["file_no"], file["format"]) for file in rest["files"]] == [(2, "pain.001")]


async def test_results_end_withdrawals_and_findings_change_nothing(place: Place) -> None:
    bank = await exports(place)
    paid, bounced, wrong = [await bank.withdraw(no, 100) for no in "123"]
    assert (await bank.export()).status == 201
    absent = "0" * 32
    content = f"ref,state,amount\n{paid},paid,1.00\n{bounced},bounced,1.00\n{wrong},paid,1.01\n{absent},paid,1.00\n"
    answer = await bank.results(1, content)
    assert answer.status == 201, answer
    assert is_documented(answer, "POST", "/v1/channels/{name}/payout-results")
    assert [line["outcome"] for line in answer.json["lines"]] == ["recorded", "recorded", "amount", "unknown"]
    assert (answer.json["counts"]["recorded"], answer.json["counts"]["unknown"]) == (2, 1)
    assert [await bank.state(id_) for id_ in (paid, bounced, wrong)] == ["paid", "bounced", "sent"]
    assert (await place.tests.has(bank.merchant))[0] == 100_000 - 200
    replay = await bank.results(1, content)
    assert (replay.status, replay.is_replay, replay.json) == (200, True, answer.json)
    late = await bank.results(1, f"ref,state,amount\n{paid},bounced,1.00\n{wrong},paid,1.00\n")
    assert [line["outcome"] for line in late.json["lines"]] == ["contradictory", "recorded"]
    assert [await bank.state(id_) for id_ in (paid, wrong)] == ["paid", "paid"]


@pytest.mark.parametrize(
    ("format_", "content"),
    [
        ("csv", "x"),
        ("csv", "ref,state\na,paid\n"),
        ("csv", "ref,state,amount\na,perhaps,1.00\n"),
        ("csv", 'ref,state,amount\n"a,paid,1.00\n'),
        ("pain.002", "<x"),
        ("pain.002", '<!DOCTYPE x [<!ENTITY a "b">]><x>&a;</x>'),
        ("pain.002", "ref,state,amount\n"),
    ],
)
async def test_results_that_cannot_be_read_are_malformed(place: Place, format_: str, content: str) -> None:
    bank = await exports(place)
    await bank.withdraw("1", 100)
    assert (await bank.export()).status == 201
    assert is_problem(await bank.results(1, content, format_), 400, "malformed")


async def test_a_body_that_is_too_long_or_a_missing_member_is_refused(place: Place) -> None:
    bank = await exports(place)
    await bank.withdraw("1", 100)
    assert (await bank.export()).status == 201
    too_long = await bank.results(1, "a" * (CONTENT_CHARACTERS_MAX + 1))
    assert too_long.status in (400, 413), too_long
    path = f"/v1/channels/{bank.channel}/payout-results"
    for body in ({}, {"file_no": 1, "format": "csv"}, {"file_no": 1, "format": "mt103", "content": "a"}):
        assert is_problem(await place.tests.post(path, body), 400, "malformed")
    assert is_problem(await bank.results(2, "ref,state,amount\n"), 404, "not-found")
    assert is_problem(await bank.results(0, "ref,state,amount\n"), 400, "malformed")


async def test_a_channel_that_is_unknown_or_has_another_payout_method_has_no_files(place: Place) -> None:
    path = "/v1/channels/{}/payout-files"
    body = {"currency": "CNY"}
    unknown = await place.tests.post(path.format(f"no-{place.salt}"), body)
    assert is_problem(unknown, 422, "channel-not-found")
    by_http = await registered(place, "http", payout="http")
    assert is_problem(await place.tests.post(path.format(by_http), body), 422, "channel-not-file")
    assert is_problem(await place.tests.get(path.format(by_http) + "/1"), 404, "not-found")
    assert is_problem(await place.tests.get(path.format(by_http) + "/1/content"), 404, "not-found")
    assert is_problem(await place.tests.get(path.format(by_http) + "/x"), 400, "malformed")
    for wrong in ({}, {"currency": "XXX"}, {**body, "format": "pain.001"}, {**body, "limit": 10_001}, {**body, "a": 1}):
        assert (await place.tests.post(path.format(by_http), wrong)).status == 400


async def test_the_floor_of_the_bank_account_applies_to_a_file(place: Place) -> None:
    bank = await exports(place, overdraft=0)
    await bank.withdraw("1", 40_000)
    await bank.withdraw("2", 60_000)
    cost = {"order_no": f"cost-{place.salt}", "channel": bank.channel, "amount": 1, "currency": "CNY"}
    assert (await place.tests.post("/v1/channel-costs", cost)).status == 201
    assert (await bank.export()).json["total"] == 40_000
    assert is_problem(await bank.export(), 422, "channel-underfunded")
    more = await place.tests.paid(bank.merchant, "q", 1, channel=bank.channel, channel_ref=f"q-{place.salt}")
    assert more.status == 201
    assert (await bank.export()).json["total"] == 60_000


async def test_only_an_operator_or_a_module_exports_and_imports(place: Place) -> None:
    bank = await exports(place)
    path = f"/v1/channels/{bank.channel}/payout-results"
    results = {"file_no": 1, "format": "csv", "content": "ref,state,amount\n"}
    for client in (place.maker, place.checker, place.auditor):
        assert is_problem(await client.post(bank.files, {"currency": "CNY"}), 403, "role-missing")
        assert is_problem(await client.post(path, results), 403, "role-missing")
    assert (await place.auditor.get(bank.files)).json["files"] == []
