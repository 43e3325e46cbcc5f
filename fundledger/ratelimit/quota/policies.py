"""Rate limit policies, and their TOML file. The file is accepted or rejected as a whole.

For each kind of key (global, class, caller, merchant, account), the first policy in the file that matches a request
applies. At most five policies therefore apply to a request. For a `strict` policy, a worker calls the store for each
request. For a `leased` policy, a worker holds tokens and spends them without a call (docs/adr/0016).
"""

import hashlib
import re
import tomllib
from collections.abc import Mapping
from enum import StrEnum
from fractions import Fraction
from importlib.resources import files
from typing import Annotated, Final, Literal

import msgspec

from fundledger.ratelimit.classes import ApiClass
from fundledger.ratelimit.quota.gcra import EXACT_MAX, Rate

LEASED_SHARE: Final = Fraction(1, 20)
"""Fraction of (burst + tokens of one second) that all workers together may hold or overdraw without a call to the
store."""
LEASED_MIN: Final = 4
"""Minimum number of tokens that one worker may hold or overdraw. If the number would be smaller, the policy is
strict."""
RATE_MAX: Final = 1_000_000
_PER: Final = {"s": 1, "min": 60, "h": 3600, "d": 86400}
_TYPE = re.compile(r"[a-z_]{1,32}\Z")
_NO_VOUCHER: Final = (ApiClass.ADMIN, ApiClass.QUERY, ApiClass.LIST, ApiClass.BATCH)
"""Classes that a single voucher cannot have, because the route of a request determines them."""
_RATE = re.compile(r"(\d{1,12}(?:\.\d{1,12})?)/(\d{0,12})(s|min|h|d)\Z", re.ASCII)


class Kind(StrEnum):
    """Kind of a bucket's key."""

    GLOBAL = "global"
    CLASS = "class"
    CALLER = "caller"
    MERCHANT = "merchant"
    ACCOUNT = "account"


class BadPolicies(Exception):
    """The policies file has an error. The message is one line."""


class _PolicyBody(msgspec.Struct, forbid_unknown_fields=True):
    name: Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9-]{0,31}\Z")]
    key: Kind
    rate: float | str
    burst: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
    mode: Literal["leased", "strict"] | None = None
    classes: list[ApiClass] | None = None
    only: list[str] | None = None
    shadow: bool = False


class _FileBody(msgspec.Struct, forbid_unknown_fields=True):
    version: Annotated[int, msgspec.Meta(ge=1)]
    policy: Annotated[list[_PolicyBody], msgspec.Meta(max_length=64)] = []
    types: dict[ApiClass, list[str]] | None = None


class Policy(msgspec.Struct, frozen=True):
    """One policy. It matches requests with a class in `classes` and a key in `only`; None means all classes or keys.

    `leased_max` is the number of tokens that all workers together may hold or overdraw; 0 for a strict policy.
    """

    name: str
    kind: Kind
    rate: Rate
    leased_max: int
    classes: frozenset[ApiClass] | None = None
    only: frozenset[str] | None = None
    shadow: bool = False

    def matches(self, api_class: ApiClass, key: str) -> bool:
        return (self.classes is None or api_class in self.classes) and (self.only is None or key in self.only)

    def leased(self, workers: int) -> int:
        """Return the number of tokens that each worker may hold or overdraw.

        If 0, the store is called for each request.
        """
        share = self.leased_max // max(1, workers)
        return share if share >= LEASED_MIN else 0


class Policies(msgspec.Struct, frozen=True):
    """The policies of a file. `version` is the file's version number and the first eight hex digits of its SHA-256.

    `types` maps voucher types to classes. Files of earlier releases contain this table. The table has no effect.
    """

    version: str
    by_kind: dict[Kind, list[Policy]]
    types: dict[str, ApiClass]

    def matching(self, api_class: ApiClass, keys: Mapping[Kind, str | None]) -> list[tuple[Policy, str]]:
        """Return the policies that apply to a request, each with the key of its bucket; the most general first."""
        found = []
        for kind, policies in self.by_kind.items():
            key = keys.get(kind)
            if key is not None:
                policy = next((p for p in policies if p.matches(api_class, key)), None)
                if policy is not None:
                    found.append((policy, key))
        return found

    def all(self) -> list[Policy]:
        return [policy for policies in self.by_kind.values() for policy in policies]


def default_text() -> str:
    """Return the policies file of a new installation."""
    return (files("fundledger.ratelimit") / "default.toml").read_text()


def parse(text: str, *, shadow: bool = False) -> Policies:
    """Parse and check a policies file. `shadow` puts all policies into shadow mode. Raises BadPolicies."""
    try:
        body = msgspec.convert(tomllib.loads(text), _FileBody)
    except msgspec.ValidationError as error:
        raise BadPolicies(str(error).replace("`$.", "`").replace(" - at `$`", "")) from None
    except (ValueError, RecursionError) as error:
        # TOMLDecodeError is a ValueError. A number of thousands of digits raises another ValueError, and thousands of
        # nested brackets raise RecursionError.
        raise BadPolicies(f"this is not TOML: {error}") from None
    policies = [_policy(one, shadow) for one in body.policy]
    _refuse_twice([policy.name for policy in policies])
    _refuse_never_reached(policies)
    by_kind = {kind: [policy for policy in policies if policy.kind is kind] for kind in Kind}
    types = _types(body.types or {})
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return Policies(f"{body.version}.{digest}", {kind: found for kind, found in by_kind.items() if found}, types)


def _policy(body: _PolicyBody, shadow: bool) -> Policy:
    where = f"policy {body.name!r}"
    per_second = _per_second(where, body.rate)
    per_us = per_second / 1_000_000
    leased_max = int(LEASED_SHARE * (per_second + body.burst))
    ceiling = 2 * body.burst + leased_max
    rate = Rate(per_us.numerator, per_us.denominator, body.burst, ceiling)
    if ceiling * rate.period_us > EXACT_MAX or rate.tokens > EXACT_MAX:
        raise BadPolicies(
            f"{where}: rate {body.rate} with burst {body.burst} cannot be counted exactly: use fewer digits"
        )
    if body.mode == "leased" and leased_max < LEASED_MIN:
        least = f"a twentieth of rate and burst is {leased_max} tokens, fewer than {LEASED_MIN}"
        raise BadPolicies(f"{where}: mode 'leased' is impossible: {least}; leave it out, or use 'strict'")
    if body.only is not None and body.key is Kind.GLOBAL:
        raise BadPolicies(f"{where}: `only` makes no sense with key 'global'")
    if body.only == [] or body.classes == []:
        raise BadPolicies(f"{where}: an empty list matches nothing; leave it out to match all")
    if body.key is Kind.CLASS and body.only is not None and not set(body.only) <= set(ApiClass):
        raise BadPolicies(f"{where}: `only` with key 'class' names classes: {', '.join(ApiClass)}")
    return Policy(
        body.name,
        body.key,
        rate,
        0 if body.mode == "strict" else leased_max,
        None if body.classes is None else frozenset(body.classes),
        None if body.only is None else _keys(body.key, body.only),
        body.shadow or shadow,
    )


def _keys(kind: Kind, only: list[str]) -> frozenset[str]:
    """Return the keys in `only`. For merchants, names without the prefix `merchant:` are also accepted."""
    bare = {f"merchant:{name}" for name in only if ":" not in name} if kind is Kind.MERCHANT else set()
    return frozenset({*only, *bare})


def _per_second(where: str, given: float | str) -> Fraction:
    """Return the exact rate per second of `0.7`, `"90/min"` or `"7/10s"`. Raises BadPolicies."""
    if isinstance(given, str):
        found = _RATE.match(given.replace(" ", ""))
        if found is None or found[2].strip("0") == "" != found[2]:
            raise BadPolicies(f'{where}: rate {given!r}: must be a number per second, or like "90/min", "7/10s"')
        rate = Fraction(found[1]) / (int(found[2] or 1) * _PER[found[3]])
    else:
        rate = Fraction(str(given)) if given == given and abs(given) != float("inf") else Fraction(0)  # noqa: PLR0124
    if not Fraction(1, 86400) <= rate <= RATE_MAX:
        raise BadPolicies(f"{where}: rate {given!r}: must be between one per day and {RATE_MAX} per second")
    return rate


def _refuse_twice(names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise BadPolicies(f"policy {name!r} is defined twice")


def _types(types: dict[ApiClass, list[str]]) -> dict[str, ApiClass]:
    for api_class, names in types.items():
        if names and api_class in _NO_VOUCHER:
            raise BadPolicies(f"types: no voucher has the class {str(api_class)!r}")
        for name in names:
            if not _TYPE.match(name):
                raise BadPolicies(f"types: {name!r} is not a voucher type: 1 to 32 of [a-z_]")
    by_type = {name: api_class for api_class, names in types.items() for name in names}
    if len(by_type) != sum(len(names) for names in types.values()):
        raise BadPolicies("types: a voucher type is listed under two classes")
    return by_type


def _refuse_never_reached(policies: list[Policy]) -> None:
    for i, later in enumerate(policies):
        left = _classes_of(later)
        if not left:
            raise BadPolicies(f"policy {later.name!r} is never reached: `only` names none of its classes")
        before = []
        for earlier in policies[:i]:
            if earlier.kind is later.kind and _all_keys_of(later, earlier) and left & _classes_of(earlier):
                left -= _classes_of(earlier)
                before.append(repr(earlier.name))
            if not left:
                match = "matches" if len(before) == 1 else "match"
                raise BadPolicies(
                    f"policy {later.name!r} is never reached: {', '.join(before)} before it {match} the same"
                )


def _classes_of(policy: Policy) -> frozenset[str]:
    """Return the classes that a policy can match. If the kind of the policy is `class`, `only` also lists classes."""
    classes = frozenset[str](ApiClass if policy.classes is None else policy.classes)
    return classes & policy.only if policy.kind is Kind.CLASS and policy.only is not None else classes


def _all_keys_of(narrow: Policy, wide: Policy) -> bool:
    if wide.only is None or wide.kind is Kind.CLASS:
        return True
    return narrow.only is not None and narrow.only <= wide.only
