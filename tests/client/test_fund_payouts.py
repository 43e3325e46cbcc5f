"""The client sends requests about payees, payout files and batches of withdrawals that the fund service accepts."""

import json
import uuid
from typing import Any

import msgspec
import pytest

from fundledger.app.fund.requests.bodies import DisablePayeeBody
from fundledger.client import ContractBroken, FundService, Refused, Withdrawal
from fundledger.fund.model.payee import PayeeRequest
from fundledger.fund.model.payout_file import PayoutFileRequest, PayoutResultsRequest
from tests.client.stub import Say, Stub, problem

ID = uuid.UUID("00000000-0000-4000-8000-00000000000a")
IBAN = "DE89370400440532013000"
AT = "2026-01-31T12:00:00Z"
CHANGE = {
    "id": str(ID),
    "kind": "payee",
    "subject": "m x",
    "body": {},
    "state": "waiting",
    "maker": "dev",
    "made_at": AT,
}
PAYEE: dict[str, Any] = {
    "id": str(ID),
    "merchant": "m",
    "holder": "H",
    "number": "****3000",
    "currency": "CNY",
    "state": "active",
    "registered_by": "dev",
    "created_at": AT,
    "usable_from": "2026-02-01T12:00:00Z",
}
FILE: dict[str, Any] = {
    "channel": "icbc",
    "file_no": 1,
    "currency": "CNY",
    "format": "csv",
    "lines": 2,
    "total": 300,
    "sha256": "00",
    "message_id": "icbc-1",
    "created_by": "dev",
    "created_at": AT,
    "of_a_newer_server": 1,
}
REPLAY = {"Idempotent-Replay": "true"}


async def test_a_payee_is_requested_read_listed_and_disabled() -> None:
    says = [
        Say(202, CHANGE),
        Say(200, {**PAYEE, "number": IBAN, "iban": IBAN}),
        problem(404, "not-found"),
        Say(200, {"payees": [PAYEE], "next_cursor": "1"}),
        Say(200, {"payees": [PAYEE], "next_cursor": None}),
        Say(200, {**PAYEE, "state": "disabled", "disabled_at": AT, "disabled_by": "dev"}),
        problem(409, "payee-exists"),
    ]
    async with Stub(*says) as stub, FundService(stub.url, "t") as fund:
        change = await fund.create_payee("m", "H", "CNY", iban=IBAN, why="w")
        assert (change.id, change.state) == (ID, "waiting")
        payee = await fund.payee("m", ID)
        assert payee is not None
        assert (payee.iban, payee.number, payee.usable_from.day) == (IBAN, IBAN, 1)
        assert await fund.payee("m", ID) is None
        assert [listed.iban async for listed in fund.payees("m", limit=1)] == [None, None]
        assert (await fund.disable_payee("m", ID, "closed")).state == "disabled"
        with pytest.raises(Refused, match="payee-exists"):
            await fund.create_payee("m", "H", "CNY", account="12345678", bank_code="105", replaces=ID)
        assert [(asked.method, asked.path) for asked in stub.asked] == [
            ("POST", "/v1/merchants/m/payees"),
            ("GET", f"/v1/merchants/m/payees/{ID}"),
            ("GET", f"/v1/merchants/m/payees/{ID}"),
            ("GET", "/v1/merchants/m/payees?limit=1"),
            ("GET", "/v1/merchants/m/payees?limit=1&cursor=1"),
            ("POST", f"/v1/merchants/m/payees/{ID}/disable"),
            ("POST", "/v1/merchants/m/payees"),
        ]
        requests = [msgspec.json.decode(stub.asked[i].body, type=PayeeRequest) for i in (0, 6)]
        assert [(request.iban, request.account, request.replaces) for request in requests] == [
            (IBAN, None, None),
            (None, "12345678", ID),
        ]
        assert msgspec.json.decode(stub.asked[5].body, type=DisablePayeeBody).reason == "closed"


async def test_a_payout_file_is_made_once_and_its_content_is_returned_as_it_is() -> None:
    content = b"\x00\xff\r\n"
    says = [
        Say(201, {**FILE, "unnamed": 3}),
        Say(200, FILE, REPLAY),
        Say(200, content, {"Content-Type": "application/octet-stream"}),
        problem(404, "not-found"),
        Say(200, {"files": [FILE], "next_cursor": None}),
        Say(200, FILE),
        problem(404, "not-found"),
        problem(422, "nothing-to-export"),
    ]
    async with Stub(*says) as stub, FundService(stub.url, "t") as fund:
        made = await fund.export_payouts("icbc", "CNY")
        assert (made.file_no, made.total, made.unnamed, made.replay) == (1, 300, 3, False)
        debtor = {"holder": "Us", "iban": IBAN}
        day = "2026-02-01"
        more: dict[str, Any] = {"limit": 5, "file_no": 1, "debtor": debtor, "execution_date": day}
        again = await fund.export_payouts("icbc", "CNY", "pain.001", **more)
        assert (again.file_no, again.replay) == (1, True)
        assert await fund.payout_file_content("icbc", 1) == content
        with pytest.raises(Refused, match="not-found"):
            await fund.payout_file_content("icbc", 2)
        assert [file.sha256 async for file in fund.payout_files("icbc")] == ["00"]
        assert await fund.payout_file("icbc", 1) == msgspec.structs.replace(made, unnamed=None)
        assert await fund.payout_file("icbc", 2) is None
        with pytest.raises(Refused, match="nothing-to-export"):
            await fund.export_payouts("icbc", "CNY")
        requests = [msgspec.json.decode(stub.asked[i].body, type=PayoutFileRequest) for i in (0, 1)]
        assert (requests[0].currency, requests[0].format, requests[0].debtor) == ("CNY", "csv", None)
        assert (requests[1].limit, requests[1].file_no, str(requests[1].execution_date)) == (5, 1, day)
        assert requests[1].debtor is not None


async def test_results_are_imported() -> None:
    line = {"line": 2, "ref": ID.hex, "state": "paid", "outcome": "recorded", "amount": 100, "order": str(ID)}
    report = {"channel": "icbc", "file_no": 1, "counts": {"recorded": 1, "unknown": 0}, "lines": [line]}
    async with (
        Stub(Say(201, report), Say(200, report, REPLAY), problem(422, "payout-results-other")) as stub,
        FundService(stub.url, "t") as fund,
    ):
        imported = await fund.import_payout_results("icbc", 1, "csv", "ref,state,amount\n")
        assert (imported.counts["recorded"], imported.lines[0].order, imported.replay) == (1, ID, False)
        assert (await fund.import_payout_results("icbc", 1, "csv", "ref,state,amount\n")).replay
        with pytest.raises(Refused, match="payout-results-other"):
            await fund.import_payout_results("icbc", 2, "pain.002", "<x/>")
        sent = [msgspec.json.decode(asked.body, type=PayoutResultsRequest) for asked in stub.asked]
        assert [(one.file_no, one.format) for one in sent] == [(1, "csv"), (1, "csv"), (2, "pain.002")]
        assert stub.asked[0].path == "/v1/channels/icbc/payout-results"


async def test_withdrawals_are_sent_in_one_request_and_their_results_are_aligned() -> None:
    kept = {"order_no": "1", "state": "posted", "id": str(ID)}
    no = {"type": "urn:fundledger:problem:payee-required", "title": "No", "status": 422, "detail": "why"}
    results = [kept, {"order_no": "2", "state": "refused", "problem": no}]
    withdrawals = [Withdrawal("m", "1", 5, "c", ID), Withdrawal("m", "2", 5, "c")]
    says = Say(200, {"results": results}), Say(200, {"results": results[::-1]})
    async with Stub(*says) as stub, FundService(stub.url, "t") as fund:
        found = await fund.withdraw_many(withdrawals)
        assert [(result.order_no, result.state) for result in found] == [("1", "posted"), ("2", "refused")]
        assert found[1].problem is not None
        with pytest.raises(ContractBroken):
            await fund.withdraw_many(withdrawals)
        assert await fund.withdraw_many([]) == []
        assert stub.asked[0].path == "/v1/withdrawals/batch"
        assert json.loads(stub.asked[0].body) == {
            "withdrawals": [
                {"merchant": "m", "order_no": "1", "amount": 5, "channel": "c", "payee": str(ID)},
                {"merchant": "m", "order_no": "2", "amount": 5, "channel": "c"},
            ]
        }
