"""What a service said "no" with, and what went wrong on the way: who is to blame, and whether to send it again."""

from collections.abc import Mapping
from typing import Any, ClassVar, Final

URN: Final = "urn:fundledger:problem:"


class Problem:
    """An answer of RFC 9457. `members` has all of it, also what this version does not know."""

    __slots__ = ("members",)

    def __init__(self, members: Mapping[str, Any]) -> None:
        self.members: Final = dict(members)

    @property
    def type(self) -> str:
        return str(self.members.get("type", "about:blank"))

    @property
    def code(self) -> str:
        """The last part of the type, such as `insufficient-funds`: what a program decides by."""
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
        """Of the request, where one is to blame."""
        return self.members.get("field")

    @property
    def account(self) -> str | None:
        """The account that is to blame, where it is one."""
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
    """The service understood the request and said no. Whether that is final for the id is the service's to say: see
    docs/refusals.md for what each `problem.code` means.
    """

    retry_is_safe: ClassVar[bool] = False
    undone: ClassVar[bool] = True

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


class Fault(Exception):
    """No answer to what was asked.

    `retry_is_safe`: the same request, with the same id, may be sent again, and that may help. `undone`: nothing was
    done and nothing will be. `retry_after_s`: how long it asks to wait, if it does. `problem`: what it said.
    """

    retry_is_safe: ClassVar[bool] = True
    undone: ClassVar[bool] = False

    def __init__(self, detail: str, problem: Problem | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(detail)
        self.problem = problem
        self.retry_after_s = retry_after_s


class QuotaExceeded(Fault):
    """429: the caller has used up what it may ask for. Nothing was done."""

    undone = True


class Unavailable(Fault):
    """Nothing was done: the service could not be reached, or it said so (503). Of a read: it was not answered."""

    undone = True


class OutcomeUnknown(Fault):
    """What was asked may have been done, or be done yet: no answer in time, a connection lost after the request went
    out, or the service does not know itself. The same request with the same id tells, and does nothing twice.
    """


class Unauthorized(Fault):
    """401 or 403: the token is not known, or may not do this. Nothing was done."""

    retry_is_safe = False
    undone = True


class ContractBroken(Fault):
    """An answer that is not of the contract: this is no such service, or something between alters what it says. What
    was asked may have been done; to send it again with the same id does no harm, but will hardly help.
    """

    retry_is_safe = False
