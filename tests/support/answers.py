"""The form of responses that the contract requires."""

from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from tests.support.client import Answer


def is_problem(answer: Answer, status: int, problem: str) -> bool:
    """Assert that a response is a problem in the form that RFC 9457 and the contract require."""
    assert answer.headers["Content-Type"] == "application/problem+json", answer
    assert answer.json["status"] == answer.status == status, answer
    assert answer.problem == problem, answer
    assert answer.json["title"] and answer.json["detail"]
    return True


def refusal_of(answer: Answer) -> dict[str, Any]:
    """Return the members of a problem that a replay also has. Members about a single request are left out."""
    assert answer.json["request_id"] == answer.headers["Request-Id"]
    return {name: value for name, value in answer.json.items() if name not in ("request_id", "documentation")}


def instant(text: str) -> datetime:
    assert text.endswith("Z")
    return datetime.fromisoformat(text)


def at(moment: datetime) -> str:
    return quote(moment.astimezone(UTC).isoformat().replace("+00:00", "Z"))
