"""Any invalid input gets one clear 4xx that names the field; nothing is written, and the service continues without a
5xx.
"""

import json
import uuid
from collections.abc import AsyncIterator

import asyncpg
import pytest

from tests.support.client import Answer, Client, new_id, voucher
from tests.support.running import RunningService
from tests.support.waiting import eventually
from tests.support.wire import Wire, chunked, connected, request

A, B = "merchant:bad:a", "merchant:bad:b"
ID = "00000000-0000-4000-8000-000000000001"


@pytest.fixture(scope="module", autouse=True)
async def books(service: RunningService) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    async with Client(service.base_url, service.token) as client:
        for account in (A, B):
            await client.open_account(account)
        await client.pay(await client.bank(), A, 1000)
    connection = await asyncpg.connect(service.dsn)
    yield connection
    await connection.close()


@pytest.fixture
async def written(books: "asyncpg.Connection[asyncpg.Record]", client: Client) -> AsyncIterator[None]:
    """Fail the test if a row was written, or if the service does not accept a payment afterwards."""

    async def is_idle() -> bool:
        lines = (await client.get("/metrics")).body.decode().splitlines()
        names = ("fundledger_lane_waiting_commands ", "fundledger_lane_in_flight_commands ")
        commands = [float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(names)]
        return len(commands) == len(names) and not any(commands)

    # On a busy machine a request of an earlier test, whose client did not wait, may still be written.
    await eventually(is_idle, "the lanes have written every command")
    before = await rows(books)
    yield
    assert await rows(books) == before, "something was written"
    assert (await client.pay(A, B, 1)).status == 201
    assert (await client.pay(B, A, 1)).status == 201


async def rows(books: "asyncpg.Connection[asyncpg.Record]") -> tuple[int, ...]:
    tables = ("accounts", "sub_accounts", "vouchers", "entries", "holds", "account_events", "integrity_findings")
    counts = ", ".join(f"(SELECT count(*) FROM ledger.{table})" for table in tables)
    return tuple(await books.fetchrow(f"SELECT {counts}, (SELECT sum(version) FROM ledger.sub_accounts)"))


def refused_clearly(answer: Answer, field: str | None = None, status: int = 400) -> None:
    assert answer.status == status, answer
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json["status"] == status
    assert answer.json["detail"]
    if field is not None:
        assert answer.json.get("field") == field, answer.json


GOOD = f'"id":"{ID}","type":"pay"'
DEBIT = f'{{"account":"{A}","side":"debit","amount":1}}'
CREDIT = f'{{"account":"{B}","side":"credit","amount":1}}'
ENTRIES = f'"entries":[{DEBIT},{CREDIT}]'
WHOLE = f"{GOOD},{ENTRIES}"


def of(entry: str) -> str:
    return f'{{{GOOD},"entries":[{entry},{CREDIT}]}}'


def amount(text: str) -> str:
    return of(f'{{"account":"{A}","side":"debit","amount":{text}}}')


VOUCHERS: list[tuple[str, str | bytes, str | None]] = [
    # not JSON
    ("nothing", "", None),
    ("blanks", "   ", None),
    ("half an object", f"{{{GOOD}", None),
    ("two objects", f"{{{WHOLE}}}{{}}", None),
    ("a comma too many", f"{{{WHOLE},}}", None),
    ("single quotes", "{'id':1}", None),
    ("a comment", f"{{{WHOLE}}} // hello", None),
    ("invalid UTF-8", b"{" + WHOLE.encode() + b',"reference":"\xff\xfe"}', None),
    ("half a character", b"{" + WHOLE.encode() + b',"reference":"\xe4\xb8"}', None),
    ("a surrogate in UTF-8", b"{" + WHOLE.encode() + b',"reference":"\xed\xa0\x80"}', None),
    ("invalid UTF-8 in metadata", b"{" + WHOLE.encode() + b',"metadata":{"k":"\xff"}}', None),
    ("a surrogate in UTF-8 in metadata", b"{" + WHOLE.encode() + b',"metadata":{"k":"\xed\xa0\x80"}}', None),
    ("UTF-16", f"{{{WHOLE}}}".encode("utf-16"), None),
    ("a byte order mark", b"\xef\xbb\xbf{" + WHOLE.encode() + b"}", None),
    ("a NUL byte", b"{" + WHOLE.encode() + b"}\x00", None),
    ("deep nesting", "[" * 20_000 + "]" * 20_000, None),
    ("deep nesting in metadata", f'{{{WHOLE},"metadata":{"[" * 1500}{"]" * 1500}}}', None),
    ("deeper nesting in metadata", f'{{{WHOLE},"metadata":{{"a":{"[" * 25_000}{"]" * 25_000}}}}}', None),
    # not an object of the contract
    ("null", "null", None),
    ("a list", "[]", None),
    ("a number", "7", None),
    ("a string", '"x"', None),
    ("an empty object", "{}", "id"),
    ("an unknown field", f'{{{WHOLE},"surprise":1}}', "surprise"),
    ("an unknown field with an odd name", f'{{{WHOLE},"a`b":1}}', "a`b"),
    ("a field with its name in capitals", f"{{{GOOD.replace('type', 'TYPE')},{ENTRIES}}}", None),
    ("an unknown field of an entry", of(DEBIT[:-1] + ',"currency":"CNY"}'), "entries[0].currency"),
    ("a missing field of an entry", of(f'{{"account":"{A}","side":"debit"}}'), "entries[0].amount"),
    # repeated keys
    ("two ids", f'{{{WHOLE},"id":"{ID}"}}', "id"),
    ("two types", f'{{"type":"pay",{WHOLE}}}', "type"),
    ("two entries", f"{{{WHOLE},{ENTRIES}}}", "entries"),
    ("two amounts", of(DEBIT[:-1] + ',"amount":1}'), "amount"),
    ("two amounts, one of them escaped", of(DEBIT[:-1] + ',"\\u0061mount":1}'), "amount"),
    ("two references", f'{{{WHOLE},"reference":"a","reference":"b"}}', "reference"),
    ("a reference and none", f'{{{WHOLE},"reference":"a","reference":null}}', "reference"),
    ("none and a reference", f'{{{WHOLE},"reference":null,"reference":"a"}}', "reference"),
    ("two metadata", f'{{{WHOLE},"metadata":{{}},"metadata":{{}}}}', "metadata"),
    ("a key twice within metadata", f'{{{WHOLE},"metadata":{{"k":1,"k":2}}}}', "k"),
    ("a key twice deep within metadata", f'{{{WHOLE},"metadata":{{"a":[{{"k":1,"\\u006b":2}}]}}}}', "k"),
    # amounts
    ("amount 0", amount("0"), "entries[0].amount"),
    ("amount -1", amount("-1"), "entries[0].amount"),
    ("amount -0", amount("-0"), "entries[0].amount"),
    ("amount 2^53", amount("9007199254740992"), "entries[0].amount"),
    ("amount 2^63", amount("9223372036854775808"), "entries[0].amount"),
    ("amount 2^64", amount("18446744073709551616"), "entries[0].amount"),
    ("an amount of 5,000 digits", amount("9" * 5000), "entries[0].amount"),
    ("amount 1.0", amount("1.0"), "entries[0].amount"),
    ("amount 1.5", amount("1.5"), "entries[0].amount"),
    ("amount 1e3", amount("1e3"), "entries[0].amount"),
    ("amount 1e400", amount("1e400"), "entries[0].amount"),
    ('amount "1"', amount('"1"'), "entries[0].amount"),
    ("amount true", amount("true"), "entries[0].amount"),
    ("amount null", amount("null"), "entries[0].amount"),
    ("amount [1]", amount("[1]"), "entries[0].amount"),
    ("amount NaN", amount("NaN"), None),
    ("amount Infinity", amount("Infinity"), None),
    ("amount -Infinity", amount("-Infinity"), None),
    ("amount 01", amount("01"), None),
    ("amount +1", amount("+1"), None),
    ("amount 0x1", amount("0x1"), None),
    ("amount .5", amount(".5"), None),
    # sides and accounts
    ("a side that is none", of(DEBIT.replace("debit", "left")), "entries[0].side"),
    ("a side in capitals", of(DEBIT.replace("debit", "DEBIT")), "entries[0].side"),
    ("a side of null", of(f'{{"account":"{A}","side":null,"amount":1}}'), "entries[0].side"),
    ("an account of null", of('{"account":null,"side":"debit","amount":1}'), "entries[0].account"),
    ("an account of 7", of('{"account":7,"side":"debit","amount":1}'), "entries[0].account"),
    ("an empty account", of(DEBIT.replace(A, "")), "entries[0].account"),
    ("an account with a blank", of(DEBIT.replace(A, "a b")), "entries[0].account"),
    ("an account with a slash", of(DEBIT.replace(A, "a/b")), "entries[0].account"),
    ("an account with a quote", of(DEBIT.replace(A, "a\\\"b'")), "entries[0].account"),
    ("an account with a NUL", of(DEBIT.replace(A, "a\\u0000b")), "entries[0].account"),
    ("an account with a line end", of(DEBIT.replace(A, A + "\\n")), "entries[0].account"),
    ("an account with a lone surrogate", of(DEBIT.replace(A, "a\\ud800")), None),
    ("an account in Chinese", of(DEBIT.replace(A, "账户")), "entries[0].account"),
    ("an account of 129 characters", of(DEBIT.replace(A, "a" * 129)), "entries[0].account"),
    ("an account of 20,000 characters", of(DEBIT.replace(A, "a" * 20_000)), "entries[0].account"),
    ("a full-width digit in an account", of(DEBIT.replace(A, "a\uff11")), "entries[0].account"),
    # entries
    ("entries that are no list", f'{{{GOOD},"entries":{{}}}}', "entries"),
    ("no entries", f'{{{GOOD},"entries":[]}}', "entries"),
    ("one entry", f'{{{GOOD},"entries":[{DEBIT}]}}', "entries"),
    ("65 entries", f'{{{GOOD},"entries":[{",".join([DEBIT, CREDIT] * 32)},{DEBIT}]}}', "entries"),
    ("an entry that is null", f'{{{GOOD},"entries":[null,{CREDIT}]}}', "entries[0]"),
    ("unbalanced", f'{{{GOOD},"entries":[{DEBIT},{CREDIT.replace(":1}", ":2}")}]}}', "entries"),
    ("debits only", f'{{{GOOD},"entries":[{DEBIT},{DEBIT}]}}', "entries"),
    (
        "a sum that is far off",
        f'{{{GOOD},"entries":[{",".join([DEBIT.replace(":1}", ":9007199254740991}")] * 64)}]}}',
        "entries",
    ),
    # ids
    ("no UUID", f"{{{GOOD.replace(ID, 'order-1')},{ENTRIES}}}", "id"),
    ("an empty id", f"{{{GOOD.replace(ID, '')},{ENTRIES}}}", "id"),
    ("an id without dashes", f"{{{GOOD.replace(ID, ID.replace('-', ''))},{ENTRIES}}}", "id"),
    ("an id in braces", f"{{{GOOD.replace(ID, '{' + ID + '}')},{ENTRIES}}}", "id"),
    ("an id as a URN", f"{{{GOOD.replace(ID, 'urn:uuid:' + ID)},{ENTRIES}}}", "id"),
    ("an id with a blank", f"{{{GOOD.replace(ID, ID + ' ')},{ENTRIES}}}", "id"),
    ("an id with other dashes", f"{{{GOOD.replace(ID, ID.replace('-', '', 1) + '-')},{ENTRIES}}}", "id"),
    ("an id that is a number", f'{{"id":1,"type":"pay",{ENTRIES}}}', "id"),
    ("an id with a NUL", f"{{{GOOD.replace(ID, ID[:-1] + chr(92) + 'u0000')},{ENTRIES}}}", "id"),
    # types
    ("an empty type", f'{{"id":"{ID}","type":"",{ENTRIES}}}', "type"),
    ("a type in capitals", f'{{"id":"{ID}","type":"Pay",{ENTRIES}}}', "type"),
    ("a type with a digit", f'{{"id":"{ID}","type":"pay2",{ENTRIES}}}', "type"),
    ("a type with a line end", f'{{"id":"{ID}","type":"pay\\n",{ENTRIES}}}', "type"),
    ("a type of 33", f'{{"id":"{ID}","type":"{"a" * 33}",{ENTRIES}}}', "type"),
    ("a type of 7", f'{{"id":"{ID}","type":7,{ENTRIES}}}', "type"),
    # reference and metadata
    ("an empty reference", f'{{{WHOLE},"reference":""}}', "reference"),
    ("a reference of 257", f'{{{WHOLE},"reference":"{"r" * 257}"}}', "reference"),
    ("a reference with a NUL", f'{{{WHOLE},"reference":"a\\u0000b"}}', "reference"),
    ("a reference with a lone surrogate", f'{{{WHOLE},"reference":"a\\ud800"}}', None),
    ("a reference of 7", f'{{{WHOLE},"reference":7}}', "reference"),
    ("metadata that is a list", f'{{{WHOLE},"metadata":[]}}', "metadata"),
    ("metadata that is a string", f'{{{WHOLE},"metadata":"x"}}', "metadata"),
    ("metadata with a NUL", f'{{{WHOLE},"metadata":{{"k":"\\u0000"}}}}', "metadata"),
    ("metadata with a NUL in a key", f'{{{WHOLE},"metadata":{{"\\u0000":1}}}}', "metadata"),
    ("metadata with a lone surrogate", f'{{{WHOLE},"metadata":{{"k":"\\ud800"}}}}', None),
    ("metadata with NaN", f'{{{WHOLE},"metadata":{{"k":NaN}}}}', None),
    ("metadata with 1e400", f'{{{WHOLE},"metadata":{{"k":1e400}}}}', "metadata"),
    ("metadata of 4,097 bytes", f'{{{WHOLE},"metadata":{{"k":"{"x" * 4089}"}}}}', "metadata"),
]


@pytest.mark.parametrize("route", ["one", "batch", "capture"])
@pytest.mark.parametrize(("name", "body", "field"), VOUCHERS, ids=[name for name, _, _ in VOUCHERS])
async def test_a_bad_voucher_is_refused_clearly_and_writes_nothing(
    client: Client, written: None, route: str, name: str, body: str | bytes, field: str | None
) -> None:
    sent = (body if isinstance(body, bytes) else body.encode()).replace(ID.encode(), new_id().encode())
    if route == "one":
        refused_clearly(await client.post("/v1/vouchers", body=sent), field)
    elif route == "batch":
        answer = await client.post("/v1/vouchers/batch", body=b'{"vouchers":[%b]}' % sent)
        if answer.status == 200:  # a voucher that is unbalanced and otherwise valid is a result of its own
            assert field == "entries"
            assert answer.json["results"][0]["problem"]["type"].endswith("voucher-unbalanced")
        else:
            refused_clearly(answer)
            if field is not None and field not in ("k", "metadata") and "." not in field and len(sent) < 60_000:
                assert field in str(answer.json["field"])
    else:
        hold = f"hold:{uuid.uuid4().hex}"
        answer = await client.post(f"/v1/holds/{hold}/capture", body=b'{"voucher":%b}' % sent)
        assert answer.status in (400, 404), answer


async def test_a_batch_names_the_item_and_the_field(client: Client, written: None) -> None:
    good = json.dumps(voucher(A, B, 1))
    for bad, field in (
        (amount("0"), "vouchers[1].entries[0].amount"),
        (of(DEBIT.replace(A, "a b")), "vouchers[1].entries[0].account"),
        (f"{{{GOOD.replace(ID, 'x')},{ENTRIES}}}", "vouchers[1].id"),
        (f"{{{GOOD.replace('pay', 'PAY')},{ENTRIES}}}", "vouchers[1].type"),
        (f'{{{WHOLE},"metadata":[]}}', "vouchers[1].metadata"),
        (f'{{{WHOLE},"surprise":1}}', "vouchers[1].surprise"),
        (f"{{{GOOD}}}", "vouchers[1].entries"),
    ):
        answer = await client.post(
            "/v1/vouchers/batch", body=f'{{"vouchers":[{good},{bad}]}}'.replace(ID, new_id()).encode()
        )
        refused_clearly(answer, field)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ("{}", "vouchers"),
        ('{"vouchers":[]}', "vouchers"),
        ('{"vouchers":{}}', "vouchers"),
        ('{"vouchers":null}', "vouchers"),
        (f'{{"vouchers":[{{{WHOLE}}}],"atomic":1}}', "atomic"),
        (f'{{"vouchers":[{{{WHOLE}}}],"atomic":"true"}}', "atomic"),
        (f'{{"vouchers":[{{{WHOLE}}}],"atomic":true,"atomic":false}}', "atomic"),
        (f'{{"vouchers":[{{{WHOLE}}}],"vouchers":[{{{WHOLE}}}]}}', "vouchers"),
        (f'{{"vouchers":[{{{WHOLE}}}],"more":1}}', "more"),
        # A value longer than a request is not checked further, whatever its type.
        (f'{{"atomic":{" " * 3}[{"1," * 40_000}1],"vouchers":[{{{WHOLE}}}]}}', "atomic"),
        # A type named like the field `atomic` must not hide a repeated key.
        (
            f'{{"vouchers":[{{{GOOD.replace("pay", "atomic")},"entries":[{DEBIT[:-1]},"amount":1}},{CREDIT}]}}]}}',
            "amount",
        ),
        (f'{{"vouchers":[{{"id":"{ID}","type":"atomic","type":"pay",{ENTRIES}}}]}}', "type"),
    ],
)
async def test_a_bad_batch_is_refused_clearly_and_writes_nothing(
    client: Client, written: None, body: str, field: str
) -> None:
    refused_clearly(await client.post("/v1/vouchers/batch", body=body.replace(ID, new_id()).encode()), field)


async def test_an_atomic_batch_of_too_many_entries_is_refused_and_writes_nothing(client: Client, written: None) -> None:
    item = voucher(A, B, 1)
    item["entries"] = [{**item["entries"][0], "amount": 49}, *([item["entries"][1]] * 49)]
    batch = [{**item, "id": new_id()} for _ in range(401)]
    answer = await client.post("/v1/vouchers/batch", {"vouchers": batch, "atomic": True})
    refused_clearly(answer, "vouchers")
    assert "20000 entries" in answer.json["detail"]


async def test_an_atomic_batch_may_have_as_many_vouchers_as_any_other(
    client: Client, books: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    batch = [one for _ in range(2_500) for one in (voucher(A, B, 1), voucher(B, A, 1))]
    answer = await client.post("/v1/vouchers/batch", {"vouchers": batch, "atomic": True})
    assert (answer.status, {result["status"] for result in answer.json["results"]}) == (200, {"posted"})


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"id": ""}, "id"),
        ({"id": "a b"}, "id"),
        ({"id": "a/b"}, "id"),
        ({"id": "a\n"}, "id"),
        ({"id": "a\0"}, "id"),
        ({"id": "x" * 129}, "id"),
        ({"id": None}, "id"),
        ({"id": 7}, "id"),
        ({"owner": ""}, "owner"),
        ({"owner": "a b"}, "owner"),
        ({"owner": "x" * 129}, "owner"),
        ({"type": "savings"}, "type"),
        ({"type": ""}, "type"),
        ({"type": None}, "type"),
        ({"currency": "cny"}, "currency"),
        ({"currency": "CN"}, "currency"),
        ({"currency": "CNYX"}, "currency"),
        ({"currency": "CNY\n"}, "currency"),
        ({"currency": "元元元"}, "currency"),
        ({"currency": 156}, "currency"),
        ({"metadata": []}, "metadata"),
        ({"metadata": "x"}, "metadata"),
        ({"metadata": {"k": "x" * 5000}}, "metadata"),
        ({"balance": {"posted": 5}}, "balance"),
        ({"shard": 3}, "shard"),
    ],
    ids=str,
)
async def test_a_bad_account_is_refused_clearly_and_writes_nothing(
    client: Client, written: None, change: dict, field: str
) -> None:
    asked = {"id": "merchant:bad:new", "owner": "merchant:bad", "type": "merchant_available", "currency": "CNY"}
    refused_clearly(await client.post("/v1/accounts", {**asked, **change}), field)
    for missing in asked:
        partial = {name: value for name, value in asked.items() if name != missing}
        refused_clearly(await client.post("/v1/accounts", partial), missing)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"id": "a b"}, "id"),
        ({"id": "x" * 129}, "id"),
        ({"account": "a b"}, "account"),
        ({"account": "a\0"}, "account"),
        ({"amount": 0}, "amount"),
        ({"amount": -5}, "amount"),
        ({"amount": 1.0}, "amount"),
        ({"amount": "1"}, "amount"),
        ({"amount": 2**53}, "amount"),
        ({"expires_at": "tomorrow"}, "expires_at"),
        ({"expires_at": 7}, "expires_at"),
        ({"expires_at": ""}, "expires_at"),
        ({"expires_at": "2030-01-01"}, "expires_at"),
        ({"expires_at": "2030-01-01T00:00:00"}, "expires_at"),
        ({"expires_at": "2030-02-30T00:00:00Z"}, "expires_at"),
        ({"expires_at": "9999-12-31T23:59:59-23:59"}, "expires_at"),
        ({"expires_at": "99999-01-01T00:00:00Z"}, "expires_at"),
        ({"expires_at": "2030-01-01T25:00:00Z"}, "expires_at"),
        ({"surprise": 1}, "surprise"),
    ],
    ids=str,
)
async def test_a_bad_hold_is_refused_clearly_and_writes_nothing(
    client: Client, written: None, change: dict, field: str
) -> None:
    asked = {"id": f"hold:{uuid.uuid4().hex}", "account": A, "amount": 1}
    refused_clearly(await client.post("/v1/holds", {**asked, **change}), field)


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        (f"/v1/accounts/{A}/freeze", {"scope": "some"}, "scope"),
        (f"/v1/accounts/{A}/freeze", {"scope": None}, "scope"),
        (f"/v1/accounts/{A}/freeze", {"reason": 7}, "reason"),
        (f"/v1/accounts/{A}/freeze", {"reason": "a\0b"}, "reason"),
        (f"/v1/accounts/{A}/freeze", {"reason": "x" * 1001}, "reason"),
        (f"/v1/accounts/{A}/freeze", {"status": "closed"}, "status"),
        (f"/v1/accounts/{A}/unfreeze", {"scope": "all"}, "scope"),
        (f"/v1/accounts/{A}/close", {"force": True}, "force"),
        (f"/v1/accounts/{A}/close", [], None),
        ("/v1/holds/nohold/release", {"amount": 1}, "amount"),
        ("/v1/holds/nohold/capture", {}, "voucher"),
        ("/v1/holds/nohold/capture", {"voucher": None}, "voucher"),
        (f"/v1/vouchers/{ID}/reverse", {}, "id"),
        (f"/v1/vouchers/{ID}/reverse", {"id": "x"}, "id"),
        (f"/v1/vouchers/{ID}/reverse", {"id": None}, "id"),
        (f"/v1/vouchers/{ID}/reverse", {"id": ID, "amount": 1}, "amount"),
    ],
)
async def test_another_bad_body_is_refused_clearly_and_writes_nothing(
    client: Client, written: None, path: str, body: object, field: str | None
) -> None:
    refused_clearly(await client.post(path, body), field)


async def test_a_capture_with_a_bad_voucher_leaves_the_hold_open(client: Client) -> None:
    hold = f"hold:{uuid.uuid4().hex}"
    await client.post("/v1/holds", {"id": hold, "account": A, "amount": 1})
    for bad in (amount("0"), of(DEBIT.replace(A, "a\\u0000")), f'{{{WHOLE},"surprise":1}}'):
        refused_clearly(await client.post(f"/v1/holds/{hold}/capture", body=f'{{"voucher":{bad}}}'.encode()))
    assert (await client.get(f"/v1/holds/{hold}")).json["status"] == "open"
    assert (await client.post(f"/v1/holds/{hold}/release")).status == 200


# --- Paths and queries ----------------------------------------------------------------------------------------------

ODD_PATHS = [
    "/v1/accounts/a%20b",
    "/v1/accounts/%00",
    "/v1/accounts/a%0Ab",
    "/v1/accounts/%ff%fe",
    "/v1/accounts/%E8%B4%A6",
    "/v1/accounts/%",
    "/v1/accounts/%zz",
    "/v1/accounts/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
    "/v1/accounts/..%2f..",
    "/v1/accounts/' OR 1=1--".replace(" ", "%20"),
    "/v1/accounts/" + "x" * 129,
    "/v1/accounts/" + "x" * 5000,
    "/v1/accounts/a%00/entries",
    "/v1/accounts/a%20b/balance",
    "/v1/vouchers/7",
    "/v1/vouchers/%00",
    "/v1/vouchers/" + "0" * 36,
    f"/v1/vouchers/{ID}%0A",
    f"/v1/vouchers/{{{ID}}}",
    "/v1/holds/a%20b",
    "/v1/holds/%00",
    "/v1/holds/" + "x" * 129,
    "/v1/%61ccounts/x%20",
]


@pytest.mark.parametrize("path", ODD_PATHS, ids=[p[:40] for p in ODD_PATHS])
async def test_an_odd_path_is_a_clear_4xx(client: Client, written: None, path: str) -> None:
    answer = await client.get(path)
    assert answer.status in (400, 404), answer
    assert answer.problem
    for verb in ("freeze", "close"):
        if path.startswith("/v1/accounts/"):
            answer = await client.post(f"{path}/{verb}", {})
            assert answer.status in (400, 404), answer


async def test_a_path_that_is_percent_encoded_names_the_same_account(client: Client) -> None:
    assert (await client.get("/v1/accounts/merchant%3Abad%3aa")).json["id"] == A


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("entries?limit=0", "limit"),
        ("entries?limit=-1", "limit"),
        ("entries?limit=1001", "limit"),
        ("entries?limit=0000001001", "limit"),
        ("entries?limit=1.5", "limit"),
        ("entries?limit=1e2", "limit"),
        ("entries?limit=", "limit"),
        ("entries?limit=%D9%A1", "limit"),
        ("entries?limit=" + "9" * 4000, "limit"),
        ("entries?limit=1&limit=2", None),
        ("entries?from=yesterday", "from"),
        ("entries?from=", "from"),
        ("entries?to=2030-01-01", "to"),
        ("entries?to=2030-01-01T00:00:00", "to"),
        ("entries?to=2030-01-01T00:00:00+08:00", "to"),
        ("entries?to=9999-12-31T23:59:59-01:00", "to"),
        ("entries?from=0001-01-01T00:00:00%2B01:00", "from"),
        ("entries?cursor=%00", "cursor"),
        ("entries?cursor=%C3%A4", "cursor"),
        ("entries?cursor=AAAA", "cursor"),
        ("entries?cursor=" + "A" * 4000, "cursor"),
        ("entries?surprise=1", "surprise"),
        ("entries?Limit=1", "Limit"),
        ("balance?at=now", "at"),
        ("balance?at=", "at"),
        ("balance?at=1767225600", "at"),
        ("balance?when=2030-01-01T00:00:00Z", "when"),
        ("?surprise=1", "surprise"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_a_bad_query_is_refused_clearly(client: Client, query: str, field: str | None) -> None:
    joint = "" if query.startswith("?") else "/"
    refused_clearly(await client.get(f"/v1/accounts/{A}{joint}{query}"), field)


@pytest.mark.parametrize(
    "path", [f"/v1/vouchers/{ID}", "/v1/holds/nohold", f"/v1/accounts/{A}", f"/v1/accounts/{A}/balance"]
)
async def test_a_parameter_that_does_not_exist_is_refused_on_every_read(client: Client, path: str) -> None:
    refused_clearly(await client.get(f"{path}?surprise=1"), "surprise")


@pytest.mark.parametrize(
    "path", ["/v1/vouchers", "/v1/vouchers/batch", "/v1/accounts", "/v1/holds", f"/v1/accounts/{A}/unfreeze"]
)
async def test_a_parameter_that_does_not_exist_is_refused_on_every_write(
    client: Client, written: None, path: str
) -> None:
    body = {
        "/v1/vouchers": voucher(A, B, 1),
        "/v1/vouchers/batch": {"vouchers": [voucher(A, B, 1)]},
        "/v1/accounts": {"id": "merchant:bad:q", "owner": "o", "type": "merchant_available", "currency": "CNY"},
        "/v1/holds": {"id": f"hold:{uuid.uuid4().hex}", "account": A, "amount": 1},
    }.get(path, {})
    refused_clearly(await client.post(f"{path}?dry_run=true", body), "dry_run")


# --- Size and framing -----------------------------------------------------------------------------------------------


async def is_usable_or_cleanly_closed(wire: Wire, token: str) -> bool:
    """Return whether the next request after a response is answered, or the connection was closed after the response."""
    try:
        await wire.send(request("GET", "/healthz", token))
        return (await wire.reply()).status == 200
    except (ConnectionError, EOFError):
        return True


async def test_a_body_of_ten_megabytes_is_413_and_the_answer_arrives(service: RunningService, written: None) -> None:
    for path in ("/v1/vouchers", "/v1/vouchers/batch", "/v1/accounts"):
        async with connected(service.base_url) as wire:
            await wire.send(request("POST", path, service.token, b'{"id":"' + b"x" * (10 << 20) + b'"}'))
            reply = await wire.reply()
            assert (reply.status, reply.problem) == (413, "body-too-large")
            assert await is_usable_or_cleanly_closed(wire, service.token)


async def test_a_length_of_ten_gigabytes_is_413_before_anything_is_sent(service: RunningService, written: None) -> None:
    for path in ("/v1/vouchers", "/v1/vouchers/batch"):
        async with connected(service.base_url) as wire:
            await wire.send(request("POST", path, service.token, b"", {"Content-Length": str(10 << 30)}))
            reply = await wire.reply()
            assert (reply.status, reply.problem) == (413, "body-too-large")


async def test_a_chunked_body_without_end_is_413(service: RunningService, written: None) -> None:
    for path in ("/v1/vouchers", "/v1/holds"):
        async with connected(service.base_url) as wire:
            await wire.send(request("POST", path, service.token, b"", {"Transfer-Encoding": "chunked"}))
            await wire.send(b"4000\r\n" + b" " * 0x4000 + b"\r\n")
            for _ in range(8):
                try:
                    await wire.send(b"4000\r\n" + b" " * 0x4000 + b"\r\n")
                except ConnectionError:
                    break
            reply = await wire.reply()
            assert (reply.status, reply.problem) == (413, "body-too-large")


async def test_a_chunked_body_is_read_like_any_other(service: RunningService, client: Client) -> None:
    body = json.dumps(voucher(A, B, 1)).encode()
    for size in (1, 7, 100_000):
        asked = json.dumps(voucher(A, B, 1)).encode()
        async with connected(service.base_url) as wire:
            await wire.send(request("POST", "/v1/vouchers", service.token, b"", {"Transfer-Encoding": "chunked"}))
            await wire.send(chunked(asked, size))
            assert (await wire.reply()).status == 201
    assert body
    await client.pay(B, A, 3)


async def test_a_compressed_body_is_not_unpacked(client: Client, written: None) -> None:
    import gzip

    bomb = gzip.compress(b"0" * (50 << 20))
    for encoding in ("gzip", "deflate", "br", "zstd", "gzip, gzip"):
        answer = await client.post("/v1/vouchers", body=bomb, headers={"Content-Encoding": encoding})
        refused_clearly(answer, status=415)


MALFORMED = {
    "no HTTP": b"hello\r\n\r\n",
    "TLS": bytes.fromhex("16030100c8010000c40303") + bytes(200),
    "a bad version": b"GET /healthz HTTP/9.9\r\nHost: x\r\n\r\n",
    "a header without a colon": b"GET /healthz HTTP/1.1\r\nHost x\r\n\r\n",
    "a NUL in a header": b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: a\x00b\r\n\r\n",
    "a blank before the colon": b"GET /healthz HTTP/1.1\r\nHost : x\r\n\r\n",
    "a length that is no number": b"POST /v1/vouchers HTTP/1.1\r\nHost: x\r\nContent-Length: ten\r\n\r\n",
    "a negative length": b"POST /v1/vouchers HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    "two lengths": b"POST /v1/vouchers HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "a length and chunks": b"POST /v1/vouchers HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a chunk size that is no number": b"POST /v1/vouchers HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "an unknown transfer encoding": b"POST /v1/vouchers HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "a header of 20,000 bytes": b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 20_000 + b"\r\n\r\n",
    "a path of 20,000 bytes": b"GET /v1/accounts/" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "100,000 headers": b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + b"X: a\r\n" * 100_000 + b"\r\n",
}


@pytest.mark.parametrize("sent", MALFORMED.values(), ids=MALFORMED)
async def test_what_is_no_http_is_a_4xx_or_a_closed_connection(
    service: RunningService, client: Client, written: None, sent: bytes
) -> None:
    pids = service.worker_pids()
    async with connected(service.base_url) as wire:
        try:
            await wire.send(sent)
            reply = await wire.reply()
        except (ConnectionError, EOFError):
            pass
        else:
            assert 400 <= reply.status < 500, reply
            assert await wire.is_closed()
    assert (await client.get("/healthz")).status == 200
    assert service.worker_pids() == pids, "a worker died of it"


async def test_an_unfinished_request_keeps_no_other_request_waiting(
    service: RunningService, client: Client, written: None
) -> None:
    async with connected(service.base_url) as first, connected(service.base_url) as second:
        await first.send(b"POST /v1/vouchers HTTP/1.1\r\nHost: x\r\n")
        await second.send(request("POST", "/v1/vouchers", service.token, b"{", {"Content-Length": "100"}))
        assert (await client.get("/healthz")).status == 200
