"""Flows of random orders: entries are balanced, `net` is what they move, and what undoes an order moves the opposite."""

from hypothesis import given

from fundledger.fund.model import flows
from fundledger.fund.model.flows import Entry, end_entries_of, entries_of, moved, net_of, net_of_part
from fundledger.fund.model.order import REFUND_FORMAT, Kind, Order, has_end
from fundledger.fund.model.split import of_merchant
from tests.support.flow_orders import C, D, orders, reversal_of


def assert_well_made(entries: list[Entry]) -> None:
    assert 2 <= len(entries) <= 64
    assert len({entry.account for entry in entries}) == len(entries)
    assert all(entry.amount > 0 for entry in entries)
    assert sum(entry.amount if entry.side == C else -entry.amount for entry in entries) == 0


@given(orders())
def test_entries_are_balanced_and_positive_and_of_each_account_once(order: Order):
    assert_well_made(entries_of(order))
    for kind, ending in flows.END_VOUCHER_TYPES:
        if kind is order.kind and has_end(order):
            assert_well_made(end_entries_of(order, ending))


# A debit of the receivable account raises the debt of a merchant, which counts against it.
SIGNS = {C: 1, D: -1}


@given(orders())
def test_net_is_what_the_voucher_moves_on_the_accounts_of_its_merchants(order: Order):
    merchants = [order.merchant] if order.parts is None else [part.merchant for part in order.parts]
    own = {f"merchant:{m}:{name}" for m in merchants for name in ("available", "pending", "receivable")}
    moved = [SIGNS[e.side] * e.amount for e in entries_of(order) if e.account in own]
    assert net_of(order) == sum(moved)
    if order.parts is not None:
        shown = [of_merchant(order, part.merchant) for part in order.parts]
        nets = [net_of(one) for one in shown if one is not None]
        assert sum(nets) == net_of(order)
        assert [net_of_part(order, part) for part in order.parts] == nets
        assert [net_of_part(reversal_of(order), part) for part in order.parts] == [-net for net in nets]
        if order.kind is Kind.SPLIT_PAYMENT:
            assert net_of(reversal_of(order)) == -net_of(order)


@given(orders(Kind.SPLIT_PAYMENT))
def test_a_reversal_of_a_split_payment_moves_the_opposite_for_each_merchant(order: Order):
    moved = {account: -amount for account, amount in flows.moved(order).items()}
    assert flows.moved(reversal_of(order)) == moved
    for part in order.parts or ():
        own, reversed_ = of_merchant(order, part.merchant), of_merchant(reversal_of(order), part.merchant)
        assert own is not None
        assert reversed_ is not None
        assert flows.moved(reversed_) == {account: -amount for account, amount in flows.moved(own).items()}
    assert of_merchant(order, "nobody") is None


@given(orders(Kind.PAYOUT_RETURN))
def test_the_reversal_of_a_payout_return_moves_the_opposite(order: Order):
    order.direction = None
    assert moved(reversal_of(order)) == {account: -amount for account, amount in moved(order).items()}


@given(orders(Kind.WITHDRAWAL, Kind.REFUND, Kind.SPLIT_REFUND, Kind.OWN_TRANSFER, Kind.DISPUTE))
def test_an_order_that_bounced_or_was_won_leaves_everything_as_it_was(order: Order):
    order.voucher_format = REFUND_FORMAT
    order.end_set_off = order.to_receivable
    moves = [moved(order), moved(order, "won" if order.kind is Kind.DISPUTE else "bounced")]
    accounts = {account for each in moves for account in each}
    assert {account: sum(each.get(account, 0) for each in moves) for account in accounts} == dict.fromkeys(accounts, 0)
