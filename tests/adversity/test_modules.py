"""Ids of another module: of 500 known ids, none can be read, replayed, reversed, captured or blocked."""

from tests.support.client import Client, new_id, voucher
from tests.support.running import RunningService

COUNT = 500


async def test_of_five_hundred_ids_of_a_module_none_is_of_use_to_another(
    service: RunningService, client: Client
) -> None:
    bank, merchant = await client.bank(), await client.merchant(COUNT)
    ids = [new_id() for _ in range(COUNT)]
    bodies = [voucher(bank, merchant, 1, id_) for id_ in ids]
    for start in range(0, COUNT, 100):
        answer = await client.post("/v1/vouchers/batch", {"vouchers": bodies[start : start + 100]})
        assert {result["status"] for result in answer.json["results"]} == {"posted"}
    usable = dict.fromkeys(("read", "reversed", "repeated", "blocked"), 0)
    async with Client(service.base_url, service.fund_token) as other:
        for id_ in ids:
            usable["read"] += (await other.get(f"/v1/vouchers/{id_}")).status != 404
            usable["reversed"] += (await other.post(f"/v1/vouchers/{id_}/reverse", {"id": new_id()})).status != 404
        # The id is free in this module: the same content is no replay of the other module's voucher, and other content
        # is not refused.
        for id_ in ids[:50]:
            answer = await other.post("/v1/vouchers", voucher(merchant, bank, 1, id_))
            usable["blocked"] += answer.status != 201
            usable["repeated"] += answer.is_replay
        hold = {"id": f"h:{new_id()}", "account": merchant, "amount": 1}
        assert (await client.post("/v1/holds", hold)).status == 201
        assert (await other.get(f"/v1/holds/{hold['id']}")).status == 404
        assert (await other.post(f"/v1/holds/{hold['id']}/release", {"reason": "mine"})).status == 404
        for body in bodies[:50]:
            answer = await client.post("/v1/vouchers", body)
            assert (answer.status, answer.is_replay, answer.json["module"]) == (200, True, "dev")
    assert usable == dict.fromkeys(usable, 0)
