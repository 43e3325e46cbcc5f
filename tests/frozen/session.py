"""The scripted session that fills a frozen data set: every kind of row of both databases, in every lasting state."""

import asyncio
import os
import signal
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg

from tests.support.client import Answer, Client, line, voucher
from tests.support.running import RunningService, run
from tests.support.waiting import eventually

NAMESPACE = uuid.UUID("5f0a3d0e-6a52-4c1b-9a67-2f1c6f1a7d10")
"""The namespace of voucher ids. Each id is a hash of a name in this script."""


def named(name: str) -> str:
    return str(uuid.uuid5(NAMESPACE, name))


class Recorder:
    """Sends requests, and records those that a later version has to answer with the same record.

    `requests[i]` is `[service, path, body, status]`. A request is not recorded if it is malformed, or if a retry may
    have another outcome.
    """

    def __init__(self, service: RunningService) -> None:
        self.service = service
        self.clients = {
            "account": Client(service.base_url, service.token),
            "fund": Client(service.fund_url, service.token),
        }
        self.requests: list[list[Any]] = []

    async def close(self) -> None:
        for client in self.clients.values():
            await client.close()

    async def send(self, where: str, path: str, body: Any, *statuses: int, keep: bool = True) -> Answer:
        answer = await self.clients[where].post(path, body)
        assert answer.status in (statuses or (201,)), (path, body, answer)
        if keep:
            self.requests.append([where, path, body, answer.status])
        return answer

    async def account(self, id_: str, owner: str, type_: str, currency: str = "CNY", **more: Any) -> str:
        members = {"id": id_, "owner": owner, "type": type_, "currency": currency, **more}
        await self.send("account", "/v1/accounts", members, 200, 201)
        return id_

    async def voucher(self, name: str, lines: list[dict[str, Any]], *statuses: int, **more: Any) -> str:
        body = {"id": named(name), "type": "pay", "entries": lines, **more}
        await self.send("account", "/v1/vouchers", body, *statuses)
        return named(name)

    async def move(self, name: str, debit: str, credit: str, amount: int, *statuses: int, **more: Any) -> str:
        lines = [line(debit, "debit", amount), line(credit, "credit", amount)]
        return await self.voucher(name, lines, *statuses, **more)

    async def order(self, path: str, body: dict[str, Any], *statuses: int) -> dict[str, Any]:
        answer = await self.send("fund", path, body, *(statuses or (201, 202)))
        return dict(answer.json)


async def play(recorder: Recorder) -> None:
    await of_accounts(recorder)
    await of_merchants(recorder)


async def of_accounts(r: Recorder) -> None:
    bank = await r.account("bank:ledger", "platform", "bank")
    usd = await r.account("bank:ledger:USD", "platform", "bank", "USD")
    suspense = await r.account("suspense:ledger", "platform", "suspense")
    a = await r.account(
        "merchant:a:available", "merchant:a", "merchant_available", metadata={"note": "茶馆 ☕", "n": 1}
    )
    b = await r.account("merchant:b:available", "merchant:b", "merchant_available")
    c = await r.account("merchant:c:pending", "merchant:c", "merchant_pending")
    d = await r.account("merchant:d:available", "merchant:d", "merchant_available", "USD")
    owed = await r.account("merchant:b:receivable", "merchant:b", "receivable")

    await r.move("plain", bank, a, 100_000)
    await r.move("reference", bank, b, 70_000, reference="order 2026-0001, 茶")
    await r.move("metadata", bank, c, 5_000, metadata={"z": [1, {"y": None}], "a": "é\\n"})
    await r.move("both", usd, d, 9_007_199_254_740_991, reference="all there is", metadata={"k": True})
    await r.move("owed", owed, suspense, 33)
    lines = [line(bank, "debit", 60), line(a, "credit", 10), line(b, "credit", 20), line(c, "credit", 30)]
    await r.voucher("four", lines, type="split")
    many = [line(bank, "debit", 62), *[line(a if i % 2 else b, "credit", 1) for i in range(62)]]
    await r.voucher("many", many, type="spread")
    await r.move("refused", a, b, 10_000_000, 422)
    items = [voucher(bank, a, i + 1, named(f"batch-{i}"), reference=f"batch {i}") for i in range(20)]
    items[7] = voucher(c, a, 999_999, named("batch-7"))
    await r.send("account", "/v1/vouchers/batch", {"vouchers": items}, 200)
    atomic = [voucher(bank, a, 5, named("atomic-0")), voucher(a, b, 3, named("atomic-1"))]
    await r.send("account", "/v1/vouchers/batch", {"vouchers": atomic, "atomic": True}, 200)
    undone = await r.move("undone", bank, b, 444)
    await r.send("account", f"/v1/vouchers/{undone}/reverse", {"id": named("undoing")})

    later = (datetime.now(UTC) + timedelta(days=3650)).replace(microsecond=0).isoformat().replace("+00:00", "Z")
    for name, more in (("open", {}), ("captured", {}), ("released", {}), ("dated", {"expires_at": later})):
        await r.send("account", "/v1/holds", {"id": f"h:{name}", "account": a, "amount": 700, **more})
    await r.send("account", "/v1/holds", {"id": "h:refused", "account": a, "amount": 99_000_000}, 422)
    captured = voucher(a, bank, 650, named("captured"), reference="captured")
    await r.send("account", "/v1/holds/h:captured/capture", {"voucher": captured})
    await r.send("account", "/v1/holds/h:released/release", None, 200)
    soon = (datetime.now(UTC) + timedelta(seconds=3)).isoformat().replace("+00:00", "Z")
    await r.send(
        "account", "/v1/holds", {"id": "h:expired", "account": b, "amount": 10, "expires_at": soon}, keep=False
    )

    split = await r.account("merchant:split:available", "merchant:split", "merchant_available")
    await r.move("split-0", bank, split, 900)
    await hot(r, "split", split, "--slots", "3")
    for i in range(12):
        await r.move(f"split-{i + 1}", bank, split, 100 + i)
    await r.move("split-debit", split, bank, 1_500)
    merged = await r.account("merchant:merged:available", "merchant:merged", "merchant_available")
    await hot(r, "split", merged, "--slots", "2")
    for i in range(6):
        await r.move(f"merged-{i}", bank, merged, 10 + i)
    await hot(r, "merge", merged)

    buffered = await r.account("merchant:buffered:available", "merchant:buffered", "merchant_available")
    await r.send("account", f"/v1/accounts/{buffered}/policy", {"posting": "buffered", "reason": "a sale"}, 200)
    for i in range(5):
        await r.move(f"buffered-{i}", bank, buffered, 50 + i)

    frozen = await r.account("merchant:frozen:available", "merchant:frozen", "merchant_available")
    await r.move("before-freeze", bank, frozen, 12)
    await r.send("account", f"/v1/accounts/{frozen}/freeze", {"reason": "asked for by the police"}, 200)
    await r.move("frozen", frozen, bank, 12, 422)
    closed = await r.account("merchant:closed:available", "merchant:closed", "merchant_available")
    await r.send("account", f"/v1/accounts/{closed}/close", {"reason": "left"}, 200)
    await r.move("closed", bank, closed, 12, 422)

    async def expired() -> bool:
        return (await r.clients["account"].get("/v1/holds/h:expired")).json["status"] == "expired"

    await eventually(expired, "the hold expires", 60)


async def hot(r: Recorder, verb: str, account: str, *arguments: str) -> None:
    done = await run("hot", verb, account, *arguments, env=r.service.environment, cwd=r.service.folder)
    assert done.returncode == 0, done.stderr


async def of_merchants(r: Recorder) -> None:
    fee = {"basis_points": 60, "fixed": 5, "minimum": 10, "maximum": 9_999}
    tea = {"id": "tea", "name": "Tea 茶", "currency": "CNY", "fee": fee, "withdrawal_fee": {"fixed": 7}}
    await r.send("fund", "/v1/merchants", {**tea, "withdrawal_limit": 1_000_000, "settlement": "daily"}, 201)
    await r.send("fund", "/v1/merchants", {"id": "bare", "name": "Bare", "currency": "USD"}, 201)
    tiers = [{"from_amount": 100_000, "basis_points": 30}]
    rule = {"product": "payment", "channel": "simulator", "basis_points": 50, "tiers": tiers}
    at = (datetime.now(UTC) + timedelta(seconds=7)).isoformat().replace("+00:00", "Z")
    await r.send("fund", "/v1/merchants/tea/fees", {**rule, "effective_at": at}, 201, keep=False)

    def pay(no: str, amount: int, **more: Any) -> dict[str, Any]:
        named_ = {"merchant": "tea", "order_no": no, "amount": amount, "currency": "CNY", "channel": "simulator"}
        return {**named_, **more}

    await r.order("/v1/payments", pay("p-now", 100_000, channel_ref="BANK-1"))
    await r.order("/v1/payments", pay("p-later", 50_000, settle="later"))
    await r.order("/v1/payments", pay("p-half", 40_000, settle="later"))
    await r.order("/v1/payments", pay("p-pending", 7_000, settle="later"))
    await r.order("/v1/payments", pay("p-undone", 900, ticket="a ticket"))
    batch = [pay(f"p-{i}", 1_000 + i, settle="later" if i % 3 else "now") for i in range(12)]
    await r.order("/v1/payments/batch", {"payments": batch}, 200)
    await r.order("/v1/payments", {**pay("u-1", 5_000), "merchant": "bare", "currency": "USD"})

    def of(no: str, amount: int | None = None, **more: Any) -> dict[str, Any]:
        sized = {} if amount is None else {"amount": amount}
        return {"merchant": "tea", "order_no": no, **sized, **more}

    await r.order("/v1/refunds", of("r-part", 30_000, payment_order_no="p-now"))
    await r.order("/v1/refunds", of("r-pending", 1_000, payment_order_no="p-half"))
    await r.order("/v1/settlements", of("s-1", 70_000))
    await r.order("/v1/refunds", of("r-mixed", 20_000, payment_order_no="p-half"))
    await r.order("/v1/reversals", of("undo", of_kind="payment", of_order_no="p-undone", reason="paid twice"))
    await r.order("/v1/channel-costs", {"order_no": "cost", "channel": "simulator", "amount": 77, "currency": "CNY"})
    difference = {"channel": "simulator", "currency": "CNY", "reason": "found"}
    await r.order("/v1/bank-differences", {**difference, "order_no": "more", "amount": 3, "direction": "more"})
    await r.order("/v1/bank-differences", {**difference, "order_no": "less", "amount": 4, "direction": "less"})
    adjusted = of("adj-done", 25, direction="credit", reason="goodwill", person="alice")
    done = await r.order("/v1/adjustments", adjusted)
    await r.send("fund", f"/v1/adjustments/{done['id']}/approve", {"person": "bob"}, 200, 201, 202)
    await r.order("/v1/adjustments", of("adj-waits", 26, direction="debit", reason="not yet", person="alice"))

    behaviour = Client(r.service.simulator_url, r.service.simulator_token)
    try:
        await r.order("/v1/withdrawals", of("w-paid", 10_000, channel="simulator"))
        await state(r, "withdrawals", "w-paid", "paid")
        assert (await behaviour.post("/behaviour", {"bounce_rate": 1.0})).status == 200
        await r.order("/v1/withdrawals", of("w-bounced", 5_000, channel="simulator"))
        await state(r, "withdrawals", "w-bounced", "bounced")
        assert (await behaviour.post("/behaviour", {"settle_after_ms": 2_592_000_000})).status == 200
        await r.order("/v1/withdrawals", of("w-sent", 3_000, channel="simulator"))
        await state(r, "withdrawals", "w-sent", "sent")
    finally:
        await behaviour.close()
    await r.order("/v1/withdrawals", of("w-by-hand", 60_000, channel="cash"))
    await state(r, "withdrawals", "w-by-hand", "posted")
    await r.order("/v1/withdrawals", of("w-refused", 900_000, channel="simulator"), 422)
    await r.order("/v1/chargebacks", of("cb", 60_000, payment_order_no="p-now", channel_ref="CB-1"))
    await r.order("/v1/chargebacks", of("cb-owed", 50_000, payment_order_no="p-later"))
    await r.order("/v1/payments", pay("p-again", 30_000))
    await r.order("/v1/recoveries", of("back", 100))
    await r.order("/v1/write-offs", of("gone", 50, reason="not worth it"))
    lines = [{"ref": "BANK-1", "amount": 100_000}, {"ref": "NOT-OURS", "amount": 123}]
    statement = {"channel": "simulator", "statement_no": "2026-1", "currency": "CNY", "lines": lines}
    await r.send("fund", "/v1/bank-statements", statement, 201)
    endpoint = {"merchant": "tea", "url": "http://127.0.0.1:9/hook", "events": ["payment.posted"]}
    answer = await r.send("fund", "/v1/webhooks", endpoint, 201, keep=False)
    disabled = await r.send("fund", "/v1/webhooks", {**endpoint, "url": "http://127.0.0.1:9/off"}, 201, keep=False)
    await r.send("fund", f"/v1/webhooks/{disabled.json['id']}/disable", {"reason": "gone"}, 200, keep=False)
    assert answer.json["id"] != disabled.json["id"]
    await r.order("/v1/payments", pay("p-told", 10))
    await at_rest(r)


async def leave_unfinished(r: Recorder) -> list[list[Any]]:
    """Stop the account workers while credits are buffered and an order is `posting`.

    Return the unfinished requests, each as `[service, path, body, status]`. No other request uses their accounts.
    """
    earlier = len(r.requests)
    bank = await r.account("bank:late", "platform", "bank")
    waiting = await r.account("merchant:waiting:available", "merchant:waiting", "merchant_available")
    await r.send("account", f"/v1/accounts/{waiting}/policy", {"posting": "buffered", "reason": ""}, 200)
    await r.send("fund", "/v1/merchants", {"id": "late", "name": "Late", "currency": "CNY"}, 201)
    payment = {"merchant": "late", "order_no": "p-first", "amount": 40, "currency": "CNY", "channel": "late"}
    await r.order("/v1/payments", payment)
    database = await asyncpg.connect(r.service.dsn)
    try:
        for i in range(1000):
            for part in range(3):
                await r.move(f"late-{i}-{part}", bank, waiting, 1 + part)
            for pid in r.service.worker_pids():
                os.kill(pid, signal.SIGSTOP)
            if await database.fetchval("SELECT count(*) FROM ledger.buffered_entries"):
                break
            for pid in r.service.worker_pids():
                os.kill(pid, signal.SIGCONT)
    finally:
        await database.close()
    await r.order("/v1/payments", {**payment, "order_no": "p-posting", "amount": 41}, 202)
    return r.requests[earlier:]


async def state(r: Recorder, kind: str, order_no: str, wanted: str) -> None:
    async def reached() -> bool:
        answer = await r.clients["fund"].get(f"/v1/{kind}?merchant=tea&order_no={order_no}")
        return bool(answer.json["state"] == wanted)

    await eventually(reached, f"{order_no} is {wanted}", 60)


async def at_rest(r: Recorder) -> None:
    """Return whether no order is `posting` any more."""

    async def rests() -> bool:
        answer = await r.clients["fund"].get("/metrics")
        del answer
        kinds = ("payments", "refunds", "settlements", "withdrawals", "chargebacks")
        pages = await asyncio.gather(
            *[r.clients["fund"].get(f"/v1/{kind}?merchant=tea&state=posting&limit=1") for kind in kinds]
        )
        return not any(members for page in pages for members in page.json.values() if isinstance(members, list))

    await eventually(rests, "no order is posting", 60)
