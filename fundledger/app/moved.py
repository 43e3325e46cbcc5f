"""Which class a voucher is of, and which accounts are charged for it: both follow from the lines.

The type that a caller writes and the order of the lines have no part in it. Pure.
"""

from collections.abc import Sequence
from typing import Final

from fundledger.ledger.account import Account
from fundledger.ratelimit.classes import ApiClass

Lines = Sequence[tuple[Account, int]]
_BANK: Final = "bank"
_TRANSIT: Final = "payout_transit"
OUTSIDE: Final = frozenset({_BANK, _TRANSIT})
"""Account types whose credit says that money leaves for the outside."""
_of_two: Final[dict[tuple[str, str], tuple[ApiClass, int | None]]] = {}
"""By the types of the account debited and of the one credited: the class, and which of the two is charged."""


def moved(lines: Lines) -> tuple[ApiClass, Sequence[Account]]:
    """Return the class of a voucher and the accounts that are charged, by net amount, the largest first.

    An account counts by what all lines together change it by: a line and its opposite are nothing.

    | debited | credited | class | charged |
    |---|---|---|---|
    | any account but bank and transit | bank or transit | withdraw | those debited |
    | transit only | any | confirm | the merchants' accounts credited |
    | any other | any other | payment | the merchants' accounts debited; where none is, those credited |

    A voucher without lines, or whose lines cancel out, is a payment that charges no account.
    """
    if len(lines) == 2:
        # Nearly every voucher: measured, a sixth of the time of the rule for any number of lines.
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
    """Keep what `_moved` says of two accounts; of several that are charged, nothing is kept."""
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
