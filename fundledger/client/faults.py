"""Python client: problems, refusals and faults, and whether a retry is safe after each."""

from collections.abc import Mapping
from typing import Any, ClassVar, Final

URN: Final = "urn:fundledger:problem:"


class Problem:
    """A problem of RFC 9457. `members` has all JSON members, including those unknown to this version."""

    __slots__ = ("members",)

    def __init__(self, members: Mapping[str, Any]) -> None:
        self.members: Final = dict(members)

    @property
    def type(self) -> str:
        return str(self.members.get("type", "about:blank"))

    @property
    def code(self) -> str:
        """Last part of the type, such as `insufficient-funds`. Programs should distinguish problems by this code."""
        return self.type.removeprefix(URN)

    @property
    def title(self) -> str:
        return str(self.members.get("title", ""))

    @property
    def status(self) -> int:
        status = self.members.get("status")
        return status if isinstance(status, int) else 0

    @property
    def detail(self) -> str:
        return str(self.members.get("detail", ""))

    @property
    def field(self) -> str | None:
        """Request field that caused the problem, or None."""
        return self.members.get("field")

    @property
    def account(self) -> str | None:
        """Account that caused the problem, or None."""
        return self.members.get("account")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Problem) and self.members == other.members

    def __hash__(self) -> int:
        return hash((self.type, self.detail))

    def __repr__(self) -> str:
        return f"Problem({self.members!r})"

    def __str__(self) -> str:
        return f"{self.code}: {self.detail}"


class Refused(Exception):
    """A request that the service understood and refused.

    Whether the refusal is final for the id depends on `problem.code`, see docs/reference/refusals.md.
    """

    retry_is_safe: ClassVar[bool] = False
    undone: ClassVar[bool] = True

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


class Fault(Exception):
    """A call that failed without a result.

    `retry_is_safe`: the same request with the same id may be sent again, and may then succeed. `undone`: the request
    has had no effect and will have none. `retry_after_s`: the wait that the service requests, seconds, or None.
    `problem`: the service's problem, or None.
    """

    retry_is_safe: ClassVar[bool] = True
    undone: ClassVar[bool] = False

    def __init__(self, detail: str, problem: Problem | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(detail)
        self.problem = problem
        self.retry_after_s = retry_after_s


class QuotaExceeded(Fault):
    """Rejection with 429: the quota of the caller is used up. The request had no effect."""

    undone = True


class Unavailable(Fault):
    """Failure without effect: the service was unreachable or returned 408 or 503, or a read failed."""

    undone = True


class OutcomeUnknown(Fault):
    """Failure with an unknown outcome: the request may have had an effect, or may still have one.

    Causes: no answer in time, a connection lost after the request was sent, or the service does not know the outcome.
    Sending the same request with the same id returns the outcome and has no second effect.
    """


class Unauthorized(Fault):
    """Rejection with 401 or 403: the token is unknown or lacks permission. The request had no effect."""

    retry_is_safe = False
    undone = True


class ContractBroken(Fault):
    """A response that violates the API contract: the URL is not this service, or a proxy alters responses.

    The request may have had an effect. Sending it again with the same id is harmless but unlikely to succeed.
    """

    retry_is_safe = False
