"""Python client: problems, refusals and faults. Each fault states whether a retry is safe."""

from collections.abc import Mapping
from typing import Any, ClassVar, Final

URN: Final = "urn:fundledger:problem:"


class Problem:
    """A problem as defined by RFC 9457. `members` has all JSON members, also members that this version
    does not know.
    """

    __slots__ = ("members",)

    def __init__(self, members: Mapping[str, Any]) -> None:
        self.members: Final = dict(members)

    @property
    def type(self) -> str:
        return str(self.members.get("type", "about:blank"))

    @property
    def code(self) -> str:
        """Last part of the problem's type, for example `insufficient-funds`. Programs should distinguish problems by
        this code.
        """
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
        """Request field that caused the problem, or None if the service names no field."""
        return self.members.get("field")

    @property
    def account(self) -> str | None:
        """Account that caused the problem, or None if the service names no account."""
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

    `problem.code` determines whether every replay of the id returns the same refusal: see docs/reference/refusals.md.
    """

    retry_is_safe: ClassVar[bool] = False
    undone: ClassVar[bool] = True

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


class Fault(Exception):
    """A call that failed without a result.

    `retry_is_safe`: the same request with the same id may be sent again, and may then succeed. `undone`: the request
    has had no effect and will have none. `retry_after_s`: the seconds that the service asks the caller to wait, or
    None. `problem`: the problem in the response, or None.
    """

    retry_is_safe: ClassVar[bool] = True
    undone: ClassVar[bool] = False

    def __init__(self, detail: str, problem: Problem | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(detail)
        self.problem = problem
        self.retry_after_s = retry_after_s


class QuotaExceeded(Fault):
    """Rejection with status 429: the caller has used up its quota. The request had no effect."""

    undone = True


class Unavailable(Fault):
    """Failure of a request that had no effect. The service was unreachable, it returned 408 or 503, or
    a read failed.
    """

    undone = True


class OutcomeUnknown(Fault):
    """Failure with an unknown outcome: the request may have had an effect, or may still have one.

    There are three causes: no answer came in time, the connection was lost after the request was sent, or the service
    does not know the outcome. The same request, sent again with the same id, returns the outcome and has no second
    effect.
    """


class Unauthorized(Fault):
    """Rejection with status 401 or 403: the API token is unknown or lacks permission. The request had no effect."""

    retry_is_safe = False
    undone = True


class ContractBroken(Fault):
    """A response that violates the API contract. Either the URL belongs to another service, or a proxy alters
    responses.

    The request may have had an effect. A retry with the same id is harmless, but unlikely to succeed.
    """

    retry_is_safe = False
