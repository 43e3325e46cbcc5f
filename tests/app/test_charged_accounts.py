"""The class and the charged accounts of a voucher depend on its lines only, not on their order, and not on decoys."""

import itertools

import pytest

from fundledger.app.account.requests.charged_accounts import class_and_accounts
from fundledger.ledger.model.account import Account
from fundledger.ledger.model.chart import CHART
from fundledger.ratelimit.classes import ApiClass

KINDS = {
    "a": "merchant_available",
    "a_pending": "merchant_pending",
    "a_owes": "receivable",
    "b": "merchant_available",
    "victim": "merchant_available",
    "bank": "bank",
    "transit": "payout_transit",
    "fees": "fee_income",
    "suspense": "suspense",
    "losses": "channel_expense",
    "nobody": "merchant_available",
}
ACCOUNTS = {
    name: Account(number, name, 0, 1, "CNY", CHART[type_], owner=name[0])
    for number, (name, type_) in enumerate(KINDS.items())
}
Amounts = list[tuple[str, int]]
WITHDRAW, PAYMENT, CONFIRM = ApiClass.WITHDRAW, ApiClass.PAYMENT, ApiClass.CONFIRM

CASES: dict[str, tuple[Amounts, ApiClass, list[str]]] = {
    "to the bank": ([("a", -5), ("bank", 5)], WITHDRAW, ["a"]),
    "to transit": ([("a", -5), ("transit", 5)], WITHDRAW, ["a"]),
    "to transit with a fee": ([("a", -6), ("transit", 5), ("fees", 1)], WITHDRAW, ["a"]),
    "from what is pending": ([("a_pending", -5), ("bank", 5)], WITHDRAW, ["a_pending"]),
    "from two accounts": ([("a_pending", -2), ("a", -3), ("bank", 5)], WITHDRAW, ["a", "a_pending"]),
    "from two merchants": ([("a", -2), ("b", -3), ("bank", 5)], WITHDRAW, ["b", "a"]),
    "a chargeback": ([("a", -2), ("a_owes", -3), ("bank", 5)], WITHDRAW, ["a_owes", "a"]),
    "behind a small debit of another": ([("a", -1), ("suspense", -9), ("bank", 10)], WITHDRAW, ["suspense", "a"]),
    "by way of the platform": ([("suspense", -5), ("bank", 5)], WITHDRAW, ["suspense"]),
    "by way of our income": ([("fees", -5), ("transit", 5)], WITHDRAW, ["fees"]),
    "with a payment that hides it": ([("a", -5), ("b", 4), ("bank", 1)], WITHDRAW, ["a"]),
    "with money of the bank beside it": ([("a", -5), ("bank", -5), ("transit", 10)], WITHDRAW, ["a"]),
    "between merchants": ([("a", -5), ("b", 5)], PAYMENT, ["a"]),
    "between accounts of one merchant": ([("a_pending", -5), ("a", 5)], PAYMENT, ["a_pending"]),
    "a fee": ([("a", -5), ("fees", 5)], PAYMENT, ["a"]),
    "a payment": ([("bank", -5), ("a", 4), ("fees", 1)], PAYMENT, ["a"]),
    "a payment to two": ([("bank", -5), ("a", 2), ("b", 3)], PAYMENT, ["b", "a"]),
    "a loss": ([("losses", -5), ("a", 5)], PAYMENT, ["a"]),
    "a withdrawal that is paid": ([("transit", -5), ("bank", 5)], CONFIRM, []),
    "a withdrawal that came back": ([("transit", -5), ("a", 5)], CONFIRM, ["a"]),
    "a payment beside transit": ([("transit", -1), ("bank", -4), ("a", 5)], PAYMENT, ["a"]),
    "between banks": ([("bank", -5), ("transit", 5)], PAYMENT, []),
    "nothing": ([], PAYMENT, []),
}


def lines_of(amounts: Amounts) -> list[tuple[Account, int]]:
    return [(ACCOUNTS[name], amount) for name, amount in amounts]


@pytest.mark.parametrize("case", CASES)
def test_class_and_accounts_follow_from_what_moves_in_whatever_order(case: str) -> None:
    amounts, api_class, charged = CASES[case]
    for order in itertools.permutations(amounts):
        found, accounts = class_and_accounts(lines_of(list(order)))
        assert (found, [account.id for account in accounts]) == (api_class, charged), order


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("decoy", ["victim", "bank", "transit", "fees"])
def test_a_line_and_its_opposite_change_nothing(case: str, decoy: str) -> None:
    amounts, api_class, charged = CASES[case]
    opposite = [(decoy, -1), (decoy, 1)]
    for order in ([*opposite, *amounts], [opposite[1], *amounts, opposite[0]], [*amounts, *opposite]):
        found, accounts = class_and_accounts(lines_of(order))
        assert (found, [account.id for account in accounts]) == (api_class, charged), order


@pytest.mark.parametrize("debited", KINDS)
@pytest.mark.parametrize("credited", KINDS)
def test_two_accounts_are_what_they_are_beside_others(debited: str, credited: str) -> None:
    """Two lines have the same class and accounts in each order, repeated, and among other lines that cancel out."""
    if debited == credited or "nobody" in (debited, credited):
        return
    two = [(debited, -5), (credited, 5)]
    among = class_and_accounts(lines_of([("nobody", -1), *two, ("nobody", 1)]))
    for lines in (two, two, two[::-1], two):
        api_class, accounts = class_and_accounts(lines_of(lines))
        assert (api_class, list(accounts)) == (among[0], list(among[1]))


def test_what_cancels_out_charges_no_account() -> None:
    assert class_and_accounts(lines_of([("a", -5), ("bank", 3), ("a", 5), ("bank", -3)])) == (PAYMENT, [])
    found, accounts = class_and_accounts(lines_of([("a", -5), ("a", 2), ("bank", 3)]))
    assert (found, [account.id for account in accounts]) == (WITHDRAW, ["a"])
