"""The client of the tests sends a shed request again after `Retry-After`, so that tests pass on a busy machine."""

import pytest

from tests.client.stub import Say, Stub, problem
from tests.support.client import SHED, Client
from tests.support.limits import is_not_served


def shed(of: str = "") -> Say:
    """Return the response to a shed request. `of`: the prefix with which the fund service passes it on."""
    body = {
        "type": "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity",
        "status": 503,
        "detail": f"{of}{SHED}; nothing was done, the same request may be sent again",
        "retry_after_ms": 1000,
    }
    headers = {"Retry-After": "1", "X-Limit-Decision": "concurrency;shedder;1"}
    return Say(503, body, {"Content-Type": "application/problem+json", **headers})


@pytest.fixture(autouse=True)
def waited(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the times (s) for which the client was asked to wait. It does not wait."""
    waited: list[float] = []

    async def as_asked(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr("tests.support.client.as_asked", as_asked)
    return waited


@pytest.mark.parametrize("of", ["", "the account service does not answer: temporary-reduced-capacity: "])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_request_that_is_shed_is_sent_again_as_it_was(of: str, method: str, waited: list[float]) -> None:
    async with Stub(shed(of), shed(of), Say(201)) as stub, Client(stub.url, "t") as client:
        body = b'{"id": 1}' if method == "POST" else None
        assert (await client.request(method, "/v1/x?y=1", body)).status == 201
    assert waited == [1.0, 1.0]
    assert len({(asked.method, asked.path, asked.body, asked.headers["Authorization"]) for asked in stub.asked}) == 1


async def test_patience_ends(waited: list[float]) -> None:
    async with Stub(shed()) as stub, Client(stub.url, "t") as client:
        assert is_not_served(await client.get("/v1/x"), "concurrency")
    assert sum(waited) == 30.0


@pytest.mark.parametrize(
    "say", [problem(503, "unavailable", Retry_After="1"), problem(503, "outcome-unknown"), problem(429, "quota")]
)
async def test_other_answers_are_what_a_test_sees(say: Say, waited: list[float]) -> None:
    async with Stub(say, Say(201)) as stub, Client(stub.url, "t") as client:
        assert (await client.get("/v1/x")).status == say.status
    assert waited == []


async def test_what_is_shed_is_seen_by_tests_of_shedding(waited: list[float]) -> None:
    async with Stub(shed(), shed(), Say(201)) as stub, Client(stub.url, "t", patient=False) as impatient:
        assert is_not_served(await impatient.get("/v1/x"), "concurrency")
        async with Client(stub.url, "t") as client:
            late = await client.get("/v1/x", headers={"X-Request-Timeout-Ms": "0"})
        assert is_not_served(late, "concurrency")
    assert waited == []
