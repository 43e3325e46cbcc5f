"""The policies file: the meaning of a valid file, and errors of an invalid one, which is rejected as a whole."""

from fractions import Fraction

import pytest

from fundledger.ratelimit.classes import ApiClass
from fundledger.ratelimit.quota.gcra import EXACT_MAX
from fundledger.ratelimit.quota.policies import (
    LEASED_MIN,
    BadPolicies,
    Kind,
    Policies,
    Policy,
    default_text,
    parse,
)


def table(name: str = "p", key: str = "caller", rate: object = 10, burst: object = 10, **more: str) -> str:
    """Return one `[[policy]]`; `more` is in the syntax of the file."""
    shown = f'"{rate}"' if isinstance(rate, str) else rate
    rows = [f'name = "{name}"', f'key = "{key}"', f"rate = {shown}", f"burst = {burst}"]
    return "\n".join(["[[policy]]", *rows, *(f"{k} = {v}" for k, v in more.items()), ""])


def parsed(*tables: str) -> Policies:
    return parse("version = 1\n" + "\n".join(tables))


def the_policy(**members: object) -> Policy:
    return parsed(table(**members)).all()[0]  # type: ignore[arg-type]


BAD: dict[str, tuple[str, tuple[str, ...]]] = {
    "no TOML": ("version = = 1", ("this is not TOML", "line 1")),
    "no version": ("", ("version",)),
    "version 0": ("version = 0", ("version", ">= 1")),
    "an unknown key of the file": ("version = 1\npolicies = []", ("unknown field", "policies")),
    "an unknown key of a policy": ("version = 1\n" + table(brust="1"), ("unknown field", "brust", "policy[0]")),
    "no rate": ('version = 1\n[[policy]]\nname = "p"\nkey = "caller"\nburst = 1', ("rate", "policy[0]")),
    "no burst": ('version = 1\n[[policy]]\nname = "p"\nkey = "caller"\nrate = 1', ("burst", "policy[0]")),
    "a name with blanks": ("version = 1\n" + table("two words"), ("name", "policy[0]")),
    "a name that would end a header": ("version = 1\n" + table('x\\"'), ("name", "policy[0]")),
    "an unknown kind of key": ("version = 1\n" + table(key="country"), ("country", "key", "policy[0]")),
    "an unknown class": ("version = 1\n" + table(classes='["pay"]'), ("pay", "classes", "policy[0]")),
    "an unknown mode": ("version = 1\n" + table(mode='"soft"'), ("soft", "mode", "policy[0]")),
    "a burst of 0": ("version = 1\n" + table(burst=0), ("burst", ">= 1", "policy[0]")),
    "a burst of text": ("version = 1\n" + table(burst='"9"'), ("burst", "int", "policy[0]")),
    "a burst too large": ("version = 1\n" + table(burst=1_000_001), ("burst", "1000000", "policy[0]")),
    "a rate of 0": ("version = 1\n" + table(rate=0), ("'p'", "rate 0", "one per day")),
    "a rate below 0": ("version = 1\n" + table(rate=-1), ("'p'", "rate -1")),
    "a rate too small": ("version = 1\n" + table(rate="1/2d"), ("'p'", "1/2d", "one per day")),
    "a rate too large": ("version = 1\n" + table(rate=1_000_001), ("'p'", "rate 1000001", "1000000")),
    "a rate of nan": ("version = 1\n" + table(rate=float("nan")), ("'p'", "rate nan")),
    "a rate without end": ("version = 1\n" + table(rate=float("inf")), ("'p'", "rate inf")),
    "a rate in weeks": ("version = 1\n" + table(rate="9/week"), ("'p'", "9/week", "90/min")),
    "a rate in digits of another script": ("version = 1\n" + table(rate="٣/s"), ("'p'", "90/min")),
    "a rate in 00 seconds": ("version = 1\n" + table(rate="9/00s"), ("'p'", "9/00s", "90/min")),
    "a rate in no seconds": ("version = 1\n" + table(rate="9/0s"), ("'p'", "9/0s", "90/min")),
    "a rate of too many digits": ("version = 1\n" + table(rate=0.123456789012345), ("'p'", "rate", "fewer digits")),
    "a rate of five thousand digits": ("version = 1\n" + table(rate="9" * 5000 + "/s"), ("'p'", "90/min")),
    "a burst of five thousand digits": ("version = 1\n" + table(burst="9" * 5000), ("not TOML",)),
    "brackets without end": ("version = " + "[" * 100_000, ("not TOML",)),
    "two of one name": ("version = 1\n" + table() + table(key="merchant"), ("'p' is defined twice",)),
    "an impossible lease": ("version = 1\n" + table(mode='"leased"'), ("'p'", "mode 'leased'", "1 tokens")),
    "keys of all": ("version = 1\n" + table(key="global", only='["x"]'), ("'p'", "only", "global")),
    "no key at all": ("version = 1\n" + table(only="[]"), ("'p'", "empty list")),
    "no class at all": ("version = 1\n" + table(classes="[]"), ("'p'", "empty list")),
    "a type of two classes": (
        'version = 1\n[types]\nrefund = ["x"]\nwithdraw = ["x"]',
        ("types", "under two classes"),
    ),
    "a type of an administrator": ('version = 1\n[types]\nadmin = ["x"]', ("types", "'admin'")),
    "a type of reads": ('version = 1\n[types]\nquery = ["x"]', ("types", "'query'")),
    "a type of lists": ('version = 1\n[types]\nlist = ["x"]', ("types", "'list'")),
    "a type of batches": ('version = 1\n[types]\nbatch = ["x"]', ("types", "'batch'")),
    "a type that no voucher may have": (
        'version = 1\n[types]\nrefund = ["pay-back"]',
        ("types", "'pay-back'", "[a-z_]"),
    ),
    "a type without a name": ('version = 1\n[types]\nrefund = [""]', ("types", "''")),
    "a type with a name too long": (f'version = 1\n[types]\nrefund = ["{"a" * 33}"]', ("types", "1 to 32")),
    "only for a class that is none": (
        "version = 1\n" + table(key="class", only='["refunds"]'),
        ("'p'", "only", "refund"),
    ),
    "only for others than its classes": (
        "version = 1\n" + table(key="class", only='["refund"]', classes='["list"]'),
        ("'p'", "never reached"),
    ),
    "types of no class": ('version = 1\n[types]\nmoney = ["x"]', ("money", "types")),
    "too many policies": ("version = 1\n" + "".join(table(f"p{i}") for i in range(65)), ("policy", "64")),
    "shadow that is no boolean": ("version = 1\n" + table(shadow='"yes"'), ("shadow", "bool", "policy[0]")),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_refused_in_one_line_that_names_the_place(case: str) -> None:
    text, named = BAD[case]
    with pytest.raises(BadPolicies) as told:
        parse(text)
    said = str(told.value)
    assert "\n" not in said
    for word in named:
        assert word in said, said


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ({}, {}),
        ({}, {"only": '["a"]'}),
        ({}, {"classes": '["refund"]'}),
        ({"only": '["a", "b"]'}, {"only": '["b"]', "classes": '["list"]'}),
        ({"classes": '["refund", "list"]'}, {"classes": '["list"]'}),
        ({"classes": str([str(c) for c in ApiClass])}, {}),
    ],
)
def test_a_policy_that_no_request_reaches_is_refused(earlier: dict[str, str], later: dict[str, str]) -> None:
    with pytest.raises(BadPolicies, match=r"'second' is never reached: 'first' before it"):
        parsed(table("first", **earlier), table("second", **later))
    assert len(parsed(table("first", **earlier), table("second", "merchant", **later)).all()) == 2


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ({"only": '["a"]'}, {}),
        ({"classes": '["refund"]'}, {}),
        ({"only": '["a"]'}, {"only": '["a", "b"]'}),
        ({"only": '["a"]', "classes": '["list"]'}, {"only": '["a"]'}),
        ({"classes": '["refund"]'}, {"classes": '["refund", "list"]'}),
    ],
)
def test_a_policy_that_some_request_reaches_is_accepted(earlier: dict[str, str], later: dict[str, str]) -> None:
    assert [p.name for p in parsed(table("first", **earlier), table("second", **later)).all()] == ["first", "second"]


def test_a_policy_that_several_before_it_leave_nothing_for_is_refused() -> None:
    critical, rest = ApiClass.REFUND, [str(c) for c in ApiClass if c is not ApiClass.REFUND]
    several = [table("first", classes=f'["{critical}"]'), table("second", classes=str(rest))]
    with pytest.raises(BadPolicies, match="'third' is never reached: 'first', 'second' before it match the same"):
        parsed(*several, table("third"))
    with pytest.raises(BadPolicies, match="'third' is never reached"):
        parsed(*several, table("third", only='["a"]', classes='["list", "refund"]'))
    # The earlier policies apply to one caller only.
    parsed(table("first", classes=f'["{critical}"]'), table("second", only='["a"]', classes=str(rest)), table("third"))


def test_of_the_key_class_only_names_classes() -> None:
    parsed(table("a", "class", only='["list"]'), table("b", "class", only='["refund"]'), table("c", "class"))
    with pytest.raises(BadPolicies, match="'b' is never reached: 'a' before it"):
        parsed(table("a", "class", only='["list", "refund"]'), table("b", "class", classes='["list"]'))


def test_the_first_of_a_kind_of_key_that_matches_counts() -> None:
    policies = parsed(
        table("few", "merchant", only='["m:1"]'),
        table("refunds", "merchant", classes='["refund"]'),
        table("rest", "merchant"),
        table("everything", "global"),
        table("by-class", "class", classes='["list"]'),
    )

    def met(api_class: ApiClass, merchant: str | None) -> list[tuple[str, str]]:
        keys = {Kind.GLOBAL: "", Kind.CLASS: str(api_class), Kind.CALLER: "c", Kind.MERCHANT: merchant}
        return [(policy.name, key) for policy, key in policies.matching(api_class, keys)]

    assert met(ApiClass.REFUND, "m:1") == [("everything", ""), ("few", "m:1")]
    assert met(ApiClass.REFUND, "m:2") == [("everything", ""), ("refunds", "m:2")]
    assert met(ApiClass.LIST, "m:2") == [("everything", ""), ("by-class", "list"), ("rest", "m:2")]
    assert met(ApiClass.QUERY, None) == [("everything", "")]


@pytest.mark.parametrize(
    ("given", "per_second"),
    [
        (0.7, Fraction(7, 10)),
        ("7/10s", Fraction(7, 10)),
        ("90/min", Fraction(3, 2)),
        ("90 / min", Fraction(3, 2)),
        ("0.5/2min", Fraction(1, 240)),
        ("1/d", Fraction(1, 86400)),
        ("7/h", Fraction(7, 3600)),
        (1.9, Fraction(19, 10)),
        (333.3, Fraction(3333, 10)),
        (1_000_000, Fraction(1_000_000)),
        ("1000000/s", Fraction(1_000_000)),
    ],
)
def test_a_rate_is_kept_exactly(given: object, per_second: Fraction) -> None:
    rate = the_policy(rate=given, burst=4).rate
    assert Fraction(rate.tokens * 1_000_000, rate.period_us) == per_second


def test_whatever_is_accepted_can_be_counted_without_rounding() -> None:
    for rate in (0.7, "1/d", "7/h", 333.3, 1_000_000, "999999/7s"):
        for burst in (1, 7, 1_000_000):
            try:
                found = the_policy(rate=rate, burst=burst).rate
            except BadPolicies as bad:
                assert "fewer digits" in str(bad)
            else:
                assert found.ceiling * found.period_us <= EXACT_MAX


def test_all_workers_together_lease_at_most_a_twentieth() -> None:
    for rate, burst in ((10, 10), (50, 50), (100, 60), (1000, 200), (8000, 1), (1_000_000, 1_000_000), (0.7, 1000)):
        policy = the_policy(rate=rate, burst=burst)
        for workers in (1, 2, 3, 4, 7, 8, 64, 256):
            of_one = policy.leased(workers)
            assert workers * of_one <= (rate + burst) / 20
            assert of_one == 0 or of_one >= LEASED_MIN


def test_strict_is_strict_however_much_could_be_leased() -> None:
    assert the_policy(rate=1000, burst=1000).leased(1) == 100
    assert the_policy(rate=1000, burst=1000, mode='"strict"').leased(1) == 0
    assert the_policy(rate=1000, burst=1000, mode='"leased"').leased(1) == 100


def test_the_file_of_a_new_installation_is_accepted() -> None:
    policies = parse(default_text())
    assert [p.name for p in policies.all()] == ["all", "caller", "merchant", "withdraw"]
    assert policies.all()[-1].leased(1) == 0
    assert policies.version.startswith("1.")


def test_the_version_changes_with_any_character() -> None:
    first, second = parsed(table(burst=10)), parsed(table(burst=11))
    assert first.version != second.version == parsed(table(burst=11)).version
    assert parse("version = 7").version.startswith("7.")


def test_shadow_is_of_one_policy_or_of_all() -> None:
    text = "version = 1\n" + table("one", shadow="true") + table("two", "merchant")
    assert [p.shadow for p in parse(text).all()] == [True, False]
    assert [p.shadow for p in parse(text, shadow=True).all()] == [True, True]


def test_a_file_without_policies_limits_no_caller() -> None:
    assert parse("version = 1").matching(ApiClass.PAYMENT, {Kind.GLOBAL: "", Kind.CALLER: "c"}) == []


def test_a_file_with_types_of_an_earlier_release_is_accepted() -> None:
    assert parse("version = 1").types == parse(default_text()).types == parse("version = 1\n[types]\n").types == {}
    assert parse('version = 1\n[types]\nrefund = ["x"]').types == {"x": ApiClass.REFUND}


@pytest.mark.parametrize("name", ["tea-house", "merchant:tea-house"])
def test_a_merchant_is_named_with_or_without_its_prefix(name: str) -> None:
    policies = parsed(table("few", "merchant", only=f'["{name}"]'), table("rest", "merchant"))

    def met(key: str) -> str:
        return policies.matching(ApiClass.PAYMENT, {Kind.MERCHANT: key})[0][0].name

    assert (met("merchant:tea-house"), met("merchant:other")) == ("few", "rest")


def test_only_merchants_have_two_spellings() -> None:
    for kind in ("caller", "account"):
        (policy,) = parsed(table("few", kind, only='["x"]')).all()
        assert policy.only == {"x"}
