"""Model of the fund service: persons, with their roles, and the identities of callers. Pure.

An identity is a module, or `person:NAME` for an authenticated person. The prefix keeps persons and modules apart.
"""

import unicodedata
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final

import msgspec

PREFIX: Final = "person:"
"""Prefix of the identity of a person."""
PERSONS_MAX: Final = 1000
"""The maximum number of persons, because each worker keeps all persons in memory."""
PersonName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}\Z", description="1 to 64 of `[A-Za-z0-9_.-]`")]


class Role(StrEnum):
    """A role of a person. `maker`: requests orders and changes. `checker`: approves and rejects the requests of others.
    `operator`: retries orders, reports ends of withdrawals, and manages webhooks. `auditor`: reads. Each role may read.
    """

    MAKER = "maker"
    CHECKER = "checker"
    OPERATOR = "operator"
    AUDITOR = "auditor"


class Person(msgspec.Struct, frozen=True):
    """A row of fund.persons. `token_digest`: the SHA-256 of the bearer token."""

    name: str
    roles: frozenset[Role]
    token_digest: bytes
    created_by: str
    created_at: datetime
    rotated_at: datetime | None = None
    disabled_at: datetime | None = None

    @property
    def identity(self) -> str:
        return PREFIX + self.name


def is_person(identity: str) -> bool:
    """Return whether an identity belongs to a person. Otherwise it belongs to a module."""
    return identity.startswith(PREFIX)


def identity_of(requester: str) -> str:
    """Return the identity of a requester or approver as an order stores it: IDENTITY, or IDENTITY/NOTE."""
    return requester.partition("/")[0]


def may_approve(requester: str, approver: str) -> bool:
    """Return whether `approver` may approve what `requester` requested. Both are IDENTITY or IDENTITY/NOTE, and their
    identities have to differ. The comparison ignores case, surrounding blanks, and differences of Unicode normal form.
    """
    return _plain(identity_of(requester)) != _plain(identity_of(approver))


def _plain(name: str) -> str:
    # Normalize before and after case folding: folding a normalized text may return a text that is not normalized.
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold()).strip()
