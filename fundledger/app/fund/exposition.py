"""Prometheus text format of a metrics snapshot of the fund service."""

from collections.abc import Iterable
from typing import Final

from prometheus_client.core import Metric

from fundledger.app.fund.metrics import FundSnapshot
from fundledger.app.http.metrics.counters import SECONDS, SIZES
from fundledger.app.http.metrics.exposition import answered, counter, counters, gauge, histogram, histograms, page

PREFIX: Final = "fund_"


def families(snapshot: FundSnapshot) -> Iterable[Metric]:
    """Return all metrics of the fund service. Names begin with `fundledger_fund_`, except those of background jobs."""
    yield from answered(snapshot, PREFIX)
    yield from _orders(snapshot)


def render(snapshot: FundSnapshot) -> bytes:
    """Render a snapshot of the fund service's metrics in the Prometheus text format."""
    return page(families(snapshot))


def _orders(s: FundSnapshot) -> Iterable[Metric]:
    yield counters(
        "fund_orders", "Orders whose outcome was recorded, by kind and state.", ("kind", "state"), s.posting.orders
    )
    help_ = "Order responses, by kind and result: order state, refusal code, replayed, or fault."
    yield counters("fund_answers", help_, ("kind", "answer"), s.answers)
    yield counter("fund_unmarked_orders", "Orders with a known outcome that could not be recorded.", s.posting.unmarked)
    help_ = "Duration of calls that post vouchers at the account service, by outcome."
    yield histograms("fund_account_call_seconds", help_, ("outcome",), s.calls, SECONDS)
    yield histogram("fund_batch_size_orders", "Orders per posting call.", s.call_size, SIZES)
    yield gauge("fund_waiting_orders", "Orders accepted and not yet answered.", s.waiting)
    yield gauge("fund_outstanding_orders", "Orders inserted as posting that have no recorded outcome.", s.outstanding)
    yield gauge("fund_outstanding_age_seconds", "Age of the oldest outstanding order.", s.outstanding_age_s)
    yield gauge("fund_stuck_orders", "Orders that retries cannot complete: an operator must act.", s.stuck)
    yield gauge("fund_parked_orders", "Orders that the accounts of their merchants do not take.", s.parked)
    yield gauge("fund_parked_age_seconds", "Age of the oldest parked order.", s.parked_age_s)
    help_ = "Age of the oldest own transfer that has neither arrived nor come back."
    yield gauge("fund_own_transfer_age_seconds", help_, s.own_transfer_age_s)
    yield gauge("fund_dispute_age_seconds", "Age of the oldest dispute that is neither won nor lost.", s.dispute_age_s)
    yield gauge("fund_calendar_differs", "1 if the account service has another calendar.", s.calendar_differs)
