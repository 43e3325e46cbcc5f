"""A snapshot of the fund service as Prometheus reads it. In the supervisor, as that of the account service."""

from collections.abc import Iterable
from typing import Final

from prometheus_client.core import Metric

from fundledger.app.exposition import answered, counter, counters, gauge, histogram, histograms, page
from fundledger.app.fund.metrics import FundSnapshot
from fundledger.app.metrics import SECONDS, SIZES

PREFIX: Final = "fund_"


def families(snapshot: FundSnapshot) -> Iterable[Metric]:
    """All of it; each name begins with `fundledger_fund_`."""
    yield from answered(snapshot, PREFIX)
    yield from _orders(snapshot)


def render(snapshot: FundSnapshot) -> bytes:
    """The Prometheus text format."""
    return page(families(snapshot))


def _orders(s: FundSnapshot) -> Iterable[Metric]:
    yield counters("fund_orders", "Orders marked, by what became of them.", ("kind", "state"), s.posting.orders)
    help_ = "Orders answered: their state, the code of a refusal, replayed, fault."
    yield counters("fund_answers", help_, ("kind", "answer"), s.answers)
    yield counter("fund_unmarked_orders", "Orders known to have ended that could not be marked.", s.posting.unmarked)
    help_ = "Calls that post vouchers at the account service, by how they ended."
    yield histograms("fund_account_call_seconds", help_, ("outcome",), s.calls, SECONDS)
    yield histogram("fund_batch_size_orders", "Orders posted in one call.", s.call_size, SIZES)
    yield gauge("fund_waiting_orders", "Orders that are not answered yet.", s.waiting)
    yield gauge("fund_outstanding_orders", "Orders written ahead that are not known yet.", s.outstanding)
    yield gauge("fund_outstanding_age_seconds", "The age of the oldest of them.", s.outstanding_age_s)
    yield gauge("fund_stuck_orders", "Orders that no repetition takes further: a person has to act.", s.stuck)
