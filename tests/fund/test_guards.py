"""Guards of the fund database: every constraint and trigger that `verify` requires is shown to refuse a row."""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from fundledger.fund.model.order import Kind, State
from fundledger.reconciliation.fund.guards import APPEND_ONLY, GUARDS
from tests.support.database import Databases
from tests.support.fund_world import an_order, write

Connection = asyncpg.Connection


@pytest.fixture(scope="module")
async def fund(postgres: Databases) -> AsyncIterator[Connection]:
    """Return a fund database with a row in every table. Every test rolls back its changes."""
    dsn = await postgres.new_fund()
    connection = await asyncpg.connect(dsn)
    payment = an_order(Kind.PAYMENT, "p", 100, fee=5)
    adjustment = an_order(Kind.ADJUSTMENT, "a", 100, direction="credit", approved_by="other")
    others = an_order(Kind.PAYMENT, "second", 100), an_order(Kind.PAYMENT, "no", 100, State.REFUSED)
    waits = an_order(Kind.ADJUSTMENT, "waits", 100, State.CREATED, direction="credit")
    paid = an_order(Kind.WITHDRAWAL, "w", 100, State.PAID, ending="paid")
    sent = an_order(Kind.WITHDRAWAL, "sent", 100, State.SENT)
    old = an_order(Kind.REFUND, "old", 10, of_order=payment.id)
    await write(connection, [payment, adjustment, waits, paid, sent, old, *others])
    await connection.execute(
        f"""
        INSERT INTO fund.payments (order_id, merchant, seq, amount, fee, settled, fee_settled, mac_key, mac)
        VALUES ('{payment.id}', 'm', 1, 100, 5, 100, 5, 1, 'x');
        INSERT INTO fund.settled_payments VALUES (gen_random_uuid(), '{payment.id}', 100, 5);
        INSERT INTO fund.withdrawal_days VALUES ('m', '2026-03-01', 7, 1, 'x');
        INSERT INTO fund.debts VALUES ('m', 7, 1, 'x');
        INSERT INTO fund.merchants (id, name, currency, digest, mac_key, mac) VALUES ('m', 'M', 'CNY', '', 1, 'x');
        INSERT INTO fund.fee_rules (merchant, product, basis_points, fixed, minimum, effective_at, module, mac_key, mac)
        VALUES ('m', 'payment', 1, 1, 1, now(), 'x', 1, 'x');
        INSERT INTO fund.split_parts (order_id, merchant, kind, seq, amount, fee, tax, mac_key, mac)
        VALUES ('{payment.id}', 'm', 'split_payment', 1, 100, 5, 2, 1, 'x');
        INSERT INTO fund.payouts (order_id, channel, amount, currency, sent_at, due_at, mac_key, mac)
        VALUES ('{payment.id}', 'c', 1, 'CNY', now(), now(), 1, 'x');
        INSERT INTO outbox.webhooks (id, merchant, url, secret, module, mac_key, mac)
        VALUES ('{payment.id}', 'm', 'u', 's', 'x', 1, 'x');
        INSERT INTO fund.channels VALUES ('c', 'CNY', 'bank:c', 'http', true, 0, 'open', 'x', now(), 1, 'x');
        INSERT INTO fund.changes (id, kind, subject, body, state, maker, made_at, mac_key, mac)
        VALUES ('{payment.id}', 'channel', 'c CNY', '{{}}', 'waiting', 'ann', now(), 1, 'x');
        INSERT INTO fund.persons (name, roles, token_digest, created_by, created_at, mac_key, mac)
        VALUES ('ann', '{{maker}}', sha256('ann'), 'x', now(), 1, 'x');
        INSERT INTO fund.payees (id, merchant, holder, iban, currency, state, registered_by, created_at, usable_from, mac_key, mac)
        VALUES ('{payment.id}', 'm', 'M', 'X1', 'CNY', 'active', 'ann', now(), now(), 1, 'x');
        INSERT INTO fund.payout_files VALUES ('c', 1, 'CNY', 'csv', 1, 100, sha256('x'), 'x', 'ann', now(), 1, 'x');
        INSERT INTO fund.payout_results VALUES ('c', 1, 'd', 'csv', 1, '[]', 'ann', now(), 1, 'x');
        INSERT INTO fund.payouts (order_id, channel, amount, currency, sent_at, file_no, line_no, mac_key, mac)
        VALUES ('{adjustment.id}', 'c', 1, 'CNY', now(), 1, 1, 1, 'x');
        INSERT INTO fund.integrity_findings VALUES (1, 'k', 'key', '{{}}', now(), 1, 'x');
        INSERT INTO fund.calendars VALUES ('0001-01-01', 'UTC', '00:00', now(), 1, 'x');
        INSERT INTO fund.ends VALUES ('{payment.id}', 'paid', '2026-03-01', now(), 1, 'x');
        INSERT INTO fund.day_closings VALUES ('2026-03-01');
        INSERT INTO fund.day_ends (day, orders, begins_at, ends_at, ends) VALUES ('2026-03-01', 0, now(), now(), 0);
        INSERT INTO fund.holidays (region, day, working, change, mac_key, mac)
        VALUES ('CNY', '2026-03-01', true, '{payment.id}', 1, 'x');
        INSERT INTO fund.merchant_events (merchant, version, what, body, by, at, mac_key, mac)
        VALUES ('m', 1, 'created', '{{}}', 'x', now(), 1, 'x')
        """
    )
    yield connection
    await connection.close()
    await postgres.drop(dsn)


RULE = """INSERT INTO fund.fee_rules (merchant, product, basis_points, fixed, minimum, maximum, effective_at, module, mac_key, mac)
          VALUES ('m', 'payment', {}, {}, {}, {}, now(), 'x', 1, 'x')"""
FOR_ALL = """INSERT INTO fund.fee_rules (product, basis_points, fixed, minimum, effective_at, module, mac_key, mac, {})
             VALUES ('payment', 1, 0, 0, now(), 'x', 1, 'x', {})"""
PART = "UPDATE fund.split_parts SET {}"
PAYMENT = "UPDATE fund.payments SET {}"
PERSON = """INSERT INTO fund.persons (name, roles, token_digest, created_by, created_at, mac_key, mac)
            VALUES ('{}', '{}', {}, 'x', now(), 1, 'x')"""
ORDER = "UPDATE fund.orders SET {} WHERE order_no = 'p'"
TWICE = "INSERT INTO fund.{0} SELECT * FROM fund.{0} LIMIT 1"
MERCHANT = "UPDATE fund.merchants SET {}"
EVENT = """INSERT INTO fund.merchant_events (merchant, version, what, body, by, approved_by, change, at, mac_key, mac)
           VALUES ('m', {}, '{}', '{{}}', 'x', {}, {}, now(), 1, 'x')"""

PAYEE = """INSERT INTO fund.payees (id, merchant, holder, iban, account, bank_code, currency, state, registered_by, created_at,
           usable_from, disabled_at, mac_key, mac) VALUES (gen_random_uuid(), 'm', 'M', {}, {}, {}, 'CNY', '{}', 'ann', now(), {}, {}, 1, 'x')"""
FILE = "INSERT INTO fund.payout_files VALUES ('c', {}, 'CNY', '{}', {}, {}, {}, 'x', 'ann', now(), 1, 'x')"
FILED = "UPDATE fund.payouts SET {} WHERE file_no = 1"
DAY_END = "INSERT INTO fund.day_ends (day, orders, begins_at, ends_at, ends) VALUES ('2026-03-02', 0, {})"

KEPT = ("persons", "channels", "changes", "split_parts", "holidays", "merchants", "payees")
BITES: dict[str, str] = {
    "merchants_id_once": """INSERT INTO fund.merchants (id, name, currency, digest, mac_key, mac)
                            SELECT id, name, currency, digest, mac_key, mac FROM fund.merchants""",
    "merchants_mac": "UPDATE fund.merchants SET mac = ''",
    "fee_rules_mac": """INSERT INTO fund.fee_rules (merchant, product, basis_points, fixed, minimum, effective_at, module, mac_key, mac)
                        VALUES ('m', 'payment', 1, 1, 1, now(), 'x', 0, 'x')""",
    "fee_rules_currency": """INSERT INTO fund.fee_rules (product, basis_points, fixed, minimum, effective_at, module, mac_key, mac)
                             VALUES ('payment', 1, 1, 0, now(), 'x', 1, 'x')""",
    "fee_rules_currency ": """INSERT INTO fund.fee_rules (product, basis_points, fixed, minimum, effective_at, module, mac_key, mac)
                              VALUES ('payment', 1, 0, 1, now(), 'x', 1, 'x')""",
    "fee_rules_currency  ": FOR_ALL.format("maximum", "7"),
    "fee_rules_currency   ": FOR_ALL.format("tiers", """'[{"from_amount": 1, "basis_points": 1, "fixed": 0}]'"""),
    "fee_rules_tax": FOR_ALL.format("tax_basis_points", "10001"),
    "fee_rules_tax ": FOR_ALL.format("tax_basis_points", "-1"),
    "fee_rules_tax_mode": FOR_ALL.format("tax_mode", "'none'"),
    "fee_rules_return": FOR_ALL.format("fee_return", "'half'"),
    "orders_tax": ORDER.format("tax = fee + 1"),
    "orders_tax ": ORDER.format("tax = -1"),
    "orders_parts": ORDER.format("parts = '[]'"),
    "orders_parts ": """INSERT INTO fund.orders (id, kind, merchant, order_no, state, amount, fee, currency, module, digest,
                        voucher_id, created_at, mac, mac_key, layout) VALUES (gen_random_uuid(), 'split_payment', 'm', 'new',
                        'posting', 1, 0, 'CNY', 't', '', gen_random_uuid(), now(), 'x', 1, 2)""",
    "orders_period": ORDER.format("period = '2026-13'"),
    "payments_tax": PAYMENT.format("tax = 6"),
    "payments_tax ": PAYMENT.format("tax = 2, tax_settled = 3"),
    "payments_tax  ": PAYMENT.format("tax = 5, tax_settled = 5, fee_settled = 4"),
    "payments_tax   ": PAYMENT.format("tax = 2, tax_settled = 2, tax_returned = 1"),
    "settled_payments_tax": "INSERT INTO fund.settled_payments VALUES (gen_random_uuid(), gen_random_uuid(), 1, 1, 2)",
    "split_parts_pkey": TWICE.format("split_parts"),
    "split_parts_amount": """INSERT INTO fund.split_parts (order_id, merchant, kind, seq, amount, fee, tax, mac_key, mac)
                             VALUES (gen_random_uuid(), 'm', 'split_payment', 1, 0, 0, 0, 1, 'x')""",
    "split_parts_fee": """INSERT INTO fund.split_parts (order_id, merchant, kind, seq, amount, fee, tax, mac_key, mac)
                          VALUES (gen_random_uuid(), 'm', 'split_payment', 1, 1, -1, 0, 1, 'x')""",
    "split_parts_tax": """INSERT INTO fund.split_parts (order_id, merchant, kind, seq, amount, fee, tax, mac_key, mac)
                          VALUES (gen_random_uuid(), 'm', 'split_payment', 1, 2, 1, 2, 1, 'x')""",
    "split_parts_set_off": PART.format("set_off = 96"),
    "split_parts_end_set_off": PART.format("end_set_off = 96"),
    "split_parts_to_receivable": PART.format("to_receivable = 101"),
    "split_parts_never_more_back_than_paid": PART.format("refunded = 60, charged_back = 41"),
    "split_parts_fee_returned": PART.format("refunded = 100, fee_returned = 6"),
    "split_parts_tax_returned": PART.format("refunded = 100, fee_returned = 5, tax_returned = 3"),
    "split_parts_reversed": PART.format("refunded = 1, reversed = true"),
    "split_parts_terms": PART.format("amount = 99"),
    "split_parts_terms ": PART.format("merchant = 'x'"),
    "split_parts_terms  ": PART.format("fee = 4"),
    "split_parts_terms   ": PART.format("tax = 1"),
    "split_parts_terms    ": PART.format("kind = 'split_refund'"),
    "split_parts_terms     ": PART.format("seq = 2"),
    "payouts_mac": "UPDATE fund.payouts SET mac_key = 0",
    "payouts_kind": "UPDATE fund.payouts SET kind = 'payment'",
    "webhooks_mac": "UPDATE outbox.webhooks SET mac = ''",
    "payments_mac": "UPDATE fund.payments SET mac_key = 0",
    "withdrawal_days_mac": "UPDATE fund.withdrawal_days SET mac = ''",
    "channels_pkey": TWICE.format("channels"),
    "channels_name": "UPDATE fund.channels SET name = 'a:b'",
    "channels_payout": "UPDATE fund.channels SET payout = 'post'",
    "channels_refund": "UPDATE fund.channels SET refund = 'post'",
    "channels_overdraft": "UPDATE fund.channels SET overdraft = -1",
    "channels_state": "UPDATE fund.channels SET state = 'lost'",
    "changes_pkey": """INSERT INTO fund.changes (id, kind, subject, body, state, maker, made_at, mac_key, mac)
                       SELECT id, kind, 'other', body, state, maker, made_at, mac_key, mac FROM fund.changes""",
    "changes_waiting_once": """INSERT INTO fund.changes (id, kind, subject, body, state, maker, made_at, mac_key, mac)
                               SELECT gen_random_uuid(), kind, subject, '[]', state, 'bob', made_at, 1, mac FROM fund.changes""",
    "changes_state": "UPDATE fund.changes SET state = 'lost', decided_at = now()",
    "changes_decided": "UPDATE fund.changes SET state = 'expired'",
    "changes_checked": "UPDATE fund.changes SET state = 'rejected', decided_at = now()",
    "changes_two_identities": "UPDATE fund.changes SET state = 'applied', decided_at = now(), checker = 'ann/bob'",
    "changes_once_decided": "UPDATE fund.changes SET body = '[]'",
    "changes_once_decided ": """UPDATE fund.changes SET state = 'expired', decided_at = now();
                                UPDATE fund.changes SET state = 'waiting', decided_at = NULL""",
    "persons_pkey": PERSON.format("ann", "{maker}", "sha256('b')"),
    "persons_name": PERSON.format("a/b", "{maker}", "sha256('b')"),
    "persons_name_once": PERSON.format("Ann", "{maker}", "sha256('b')"),
    "persons_roles": PERSON.format("bob", "{boss}", "sha256('b')"),
    "persons_roles ": PERSON.format("bob", "{}", "sha256('b')"),
    "persons_token_once": PERSON.format("bob", "{maker}", "sha256('ann')"),
    "persons_token_digest": PERSON.format("bob", "{maker}", "'short'"),
    "persons_forward": "UPDATE fund.persons SET name = 'eve'",
    "persons_forward ": "UPDATE fund.persons SET roles = '{checker}'",
    "persons_forward  ": "UPDATE fund.persons SET created_by = 'y'",
    "persons_forward   ": "UPDATE fund.persons SET created_at = now() - interval '1 day'",
    "persons_forward    ": "UPDATE fund.persons SET token_digest = sha256('eve')",
    "persons_forward     ": "UPDATE fund.persons SET token_digest = sha256('eve'), rotated_at = created_at - interval '1 day'",
    "persons_forward      ": """UPDATE fund.persons SET token_digest = sha256('eve'), rotated_at = created_at + interval '2 days';
                               UPDATE fund.persons SET token_digest = sha256('ann'), rotated_at = created_at + interval '1 day'""",
    "persons_forward       ": """UPDATE fund.persons SET disabled_at = now();
                                UPDATE fund.persons SET disabled_at = NULL""",
    "payees_pkey": """INSERT INTO fund.payees (id, merchant, holder, iban, currency, state, registered_by, created_at, usable_from,
                      mac_key, mac) SELECT id, merchant, holder, 'X2', currency, state, registered_by, created_at, usable_from, mac_key, mac
                      FROM fund.payees""",
    "payees_account": PAYEE.format("'X2'", "'7'", "'b'", "active", "now()", "NULL"),
    "payees_account ": PAYEE.format("NULL", "NULL", "'b'", "active", "now()", "NULL"),
    "payees_account  ": PAYEE.format("NULL", "'7'", "NULL", "active", "now()", "NULL"),
    "payees_state": PAYEE.format("'X2'", "NULL", "NULL", "lost", "now()", "NULL"),
    "payees_usable_from": PAYEE.format("'X2'", "NULL", "NULL", "active", "now() - interval '1 s'", "NULL"),
    "payees_disabled": PAYEE.format("'X2'", "NULL", "NULL", "disabled", "now()", "NULL"),
    "payees_disabled ": PAYEE.format("'X2'", "NULL", "NULL", "active", "now()", "now()"),
    "payees_disabled  ": "UPDATE fund.payees SET state = 'disabled', disabled_at = now()",
    "payees_active_once": PAYEE.format("'X1'", "NULL", "NULL", "active", "now()", "NULL"),
    "payees_forward": "UPDATE fund.payees SET iban = 'X3'",
    "payees_forward ": "UPDATE fund.payees SET usable_from = created_at",
    "payees_forward  ": "UPDATE fund.payees SET state = 'disabled', disabled_at = now(), disabled_by = 'x', holder = 'y'",
    "payees_forward   ": """UPDATE fund.payees SET state = 'disabled', disabled_at = now(), disabled_by = 'x';
                            UPDATE fund.payees SET state = 'active', disabled_at = NULL, disabled_by = NULL""",
    "orders_payee": ORDER.format("payee = id"),
    "payout_files_pkey": FILE.format(1, "csv", 1, 1, "sha256('x')"),
    "payout_files_file_no": FILE.format(0, "csv", 1, 1, "sha256('x')"),
    "payout_files_format": FILE.format(2, "xls", 1, 1, "sha256('x')"),
    "payout_files_lines": FILE.format(2, "csv", 0, 1, "sha256('x')"),
    "payout_files_lines ": FILE.format(2, "csv", 10001, 1, "sha256('x')"),
    "payout_files_total": FILE.format(2, "csv", 1, 0, "sha256('x')"),
    "payout_files_digest": FILE.format(2, "csv", 1, 1, "sha256('y')"),
    "payout_results_pkey": TWICE.format("payout_results"),
    "payouts_file": """INSERT INTO fund.payouts (order_id, channel, amount, currency, sent_at, due_at, line_no, mac_key, mac)
                       VALUES (gen_random_uuid(), 'c', 1, 'CNY', now(), now(), 1, 1, 'x')""",
    "payouts_of_file": """INSERT INTO fund.payouts (order_id, channel, amount, currency, sent_at, file_no, line_no, mac_key, mac)
                          VALUES (gen_random_uuid(), 'c', 1, 'CNY', now(), 7, 1, 1, 'x'); SET CONSTRAINTS ALL IMMEDIATE""",
    "payouts_in_file_once": """INSERT INTO fund.payouts (order_id, channel, amount, currency, sent_at, file_no, line_no, mac_key, mac)
                               VALUES (gen_random_uuid(), 'c', 1, 'CNY', now(), 1, 1, 1, 'x')""",
    "payouts_reported": FILED.format("reported = 'lost'"),
    "payouts_reported ": "UPDATE fund.payouts SET reported = 'paid' WHERE file_no IS NULL",
    "payouts_filed_once": FILED.format("file_no = 2"),
    "payouts_filed_once ": FILED.format("line_no = 2"),
    "payouts_filed_once  ": "UPDATE fund.payouts SET file_no = 1, line_no = 2, due_at = NULL WHERE file_no IS NULL",
    "payouts_filed_once   ": FILED.format("channel = 'd'"),
    "payouts_filed_once    ": FILED.format("reported = 'paid'") + "; " + FILED.format("reported = 'bounced'"),
    "integrity_findings_once": "INSERT INTO fund.integrity_findings VALUES (2, 'k', 'key', '{}', now(), 1, 'x')",
    "orders_layout": ORDER.format("layout = 3"),
    "orders_mac_of_layout": ORDER.format("mac = NULL, mac_key = NULL"),
    "orders_times": ORDER.format("created_at = '0044-03-15 BC'"),
    "orders_times ": ORDER.format("due_at = 'infinity'"),
    "orders_times  ": ORDER.format("posted_at = '-infinity'"),
    "fee_rules_basis_points": RULE.format(10001, 0, 0, "NULL"),
    "fee_rules_fixed": RULE.format(0, -1, 0, "NULL"),
    "fee_rules_minimum": RULE.format(0, 0, -1, "NULL"),
    "fee_rules_maximum": RULE.format(0, 0, 2, 1),
    "orders_id_once": "INSERT INTO fund.orders OVERRIDING USER VALUE SELECT * FROM fund.orders LIMIT 1",
    "orders_state": ORDER.format("state = 'gone'"),
    "orders_amount": ORDER.format("amount = 0"),
    "orders_fee": ORDER.format("fee = -1"),
    "orders_from_pending": ORDER.format("from_pending = amount + 1"),
    "orders_to_receivable": ORDER.format("to_receivable = amount + 1"),
    "orders_set_off": ORDER.format("set_off = -1"),
    "orders_end_set_off": ORDER.format("end_set_off = -1"),
    "orders_returned": ORDER.format("returned = 1"),
    "orders_returned ": "UPDATE fund.orders SET returned = 101 WHERE order_no = 'w'",
    "orders_returned  ": "UPDATE fund.orders SET returned = -1 WHERE order_no = 'w'",
    "orders_returned   ": "UPDATE fund.orders SET returned = 1 WHERE order_no = 'sent'",
    "orders_end_of_refund": "UPDATE fund.orders SET state = 'sent' WHERE order_no = 'old'",
    "orders_end_of_refund ": "UPDATE fund.orders SET ending = 'bounced' WHERE order_no = 'old'",
    "orders_end_of_refund  ": "UPDATE fund.orders SET state = 'stuck', stuck_from = 'posted', problem = '{}' WHERE order_no = 'old'",
    "orders_parking": ORDER.format("parking = 'lost'"),
    "orders_parked_voucher": ORDER.format("parked_voucher_id = id"),
    "orders_parked": ORDER.format("state = 'parked'"),
    "orders_receipt_once": "UPDATE fund.orders SET channel = 'c', channel_ref = 'r' WHERE kind = 'payment'",
    "orders_fee_waived": ORDER.format("fee_waived = -1"),
    "orders_ending": ORDER.format("ending = 'gone'"),
    "orders_against": ORDER.format("against = 'gone'"),
    "orders_counterparty": ORDER.format("counterparty = 'n', counter_set_off = amount + 1"),
    "orders_counterparty ": ORDER.format("counter_set_off = 1"),
    "orders_counter_ref_once": "UPDATE fund.orders SET counterparty = 'c', counter_ref = 'r' WHERE kind = 'payment'",
    "orders_refused_for_a_reason": ORDER.format("state = 'refused'"),
    "orders_refused_for_a_reason ": ORDER.format("problem = '{}'"),
    "orders_mac": ORDER.format("mac = NULL"),
    "orders_voucher_format": ORDER.format("voucher_format = 4"),
    "orders_first_state": """INSERT INTO fund.orders (id, kind, merchant, order_no, state, amount, fee, currency, module, digest,
                             voucher_id, created_at, mac, mac_key, layout) VALUES (gen_random_uuid(), 'payment', 'm', 'new',
                             'posted', 1, 0, 'CNY', 't', '', gen_random_uuid(), now(), 'x', 1, 2)""",
    "orders_transition": ORDER.format("state = 'posting'"),
    "orders_transition  ": "UPDATE fund.orders SET state = 'posting', approved_by = 'front/bob' WHERE order_no = 'waits'",
    "orders_transition ": "SET LOCAL session_replication_role = replica; " + ORDER.format("state = 'posting'"),
    "orders_stuck_from": ORDER.format("state = 'stuck', problem = '{}', stuck_from = 'paid'"),
    "orders_stuck_from_a_state": ORDER.format("stuck_from = 'posted'"),
    "orders_approved_by_another": ORDER.format("approved_by = module"),
    "payments_pkey": TWICE.format("payments"),
    "payments_never_more_back_than_paid": PAYMENT.format("refunded = 60, charged_back = 41"),
    "payments_settled": PAYMENT.format("refunded_unsettled = 1, refunded = 1"),
    "payments_settled ": PAYMENT.format("charged_back_unsettled = 1, charged_back = 1"),
    "payments_charged_back": PAYMENT.format("settled = 0, charged_back_unsettled = 1"),
    "debts_pkey": TWICE.format("debts"),
    "debts_owed": "UPDATE fund.debts SET owed = -1",
    "debts_mac": "UPDATE fund.debts SET mac = ''",
    "payments_refunded": PAYMENT.format("settled = 0, refunded_unsettled = 1"),
    "payments_fee": PAYMENT.format("fee_waived = 1"),
    "payments_fee_returned": PAYMENT.format("fee_returned = 6"),
    "payments_reversed": PAYMENT.format("refunded = 1, reversed = true"),
    "settled_payments_pkey": TWICE.format("settled_payments"),
    "settled_payments_amount": "INSERT INTO fund.settled_payments VALUES (gen_random_uuid(), gen_random_uuid(), 0, 0)",
    "settled_payments_fee": "INSERT INTO fund.settled_payments VALUES (gen_random_uuid(), gen_random_uuid(), 1, -1)",
    "withdrawal_days_pkey": TWICE.format("withdrawal_days"),
    "withdrawal_days_amount": "UPDATE fund.withdrawal_days SET amount = -1",
    "calendars_pkey": TWICE.format("calendars"),
    "calendars_cut": "INSERT INTO fund.calendars VALUES ('2026-03-01', 'UTC', '24:00', now(), 1, 'x')",
    "calendars_from_day": "INSERT INTO fund.calendars VALUES ('0044-03-15 BC', 'UTC', '00:00', now(), 1, 'x')",
    "calendars_from_day ": "INSERT INTO fund.calendars VALUES ('9999-12-01', 'UTC', '00:00', now(), 1, 'x')",
    "calendars_recorded_at": "INSERT INTO fund.calendars VALUES ('2026-03-01', 'UTC', '00:00', 'infinity', 1, 'x')",
    "ends_day": "INSERT INTO fund.ends VALUES (gen_random_uuid(), 'paid', '1969-12-31', now(), 1, 'x')",
    "ends_day ": "INSERT INTO fund.ends VALUES (gen_random_uuid(), 'paid', '9999-12-01', now(), 1, 'x')",
    "ends_at": "INSERT INTO fund.ends VALUES (gen_random_uuid(), 'paid', '2026-03-01', 'infinity', 1, 'x')",
    "day_closings_day": "INSERT INTO fund.day_closings VALUES ('infinity')",
    "day_closings_day ": "INSERT INTO fund.day_closings VALUES ('1969-12-31')",
    "day_ends_day": "INSERT INTO fund.day_ends (day, orders) VALUES ('infinity', 0)",
    "day_ends_day ": "INSERT INTO fund.day_ends (day, orders) VALUES ('0044-03-15 BC', 0)",
    "payments_settle_on": "UPDATE fund.payments SET settle_on = '0044-03-15 BC'",
    "payments_settle_on ": "UPDATE fund.payments SET settle_on = 'infinity'",
    "holidays_day": """INSERT INTO fund.holidays (region, day, working, change, mac_key, mac)
                       VALUES ('CN', '0044-03-15 BC', true, gen_random_uuid(), 1, 'x')""",
    "merchant_events_at": "INSERT INTO fund.merchant_events (merchant, version, what, body, by, at, mac_key, mac)"
    " VALUES ('m', 2, 'changed', '{}', 'x', 'infinity', 1, 'x')",
    "ends_pkey": TWICE.format("ends"),
    "ends_ending": "INSERT INTO fund.ends VALUES (gen_random_uuid(), 'posted', '2026-03-01', now(), 1, 'x')",
    "day_closings_pkey": TWICE.format("day_closings"),
    "day_ends_instants": DAY_END.format("now(), NULL, 0"),
    "day_ends_instants ": DAY_END.format("NULL, NULL, 0"),
    "day_ends_instants  ": DAY_END.format("now(), now() - interval '1 second', 0"),
    "orders_settle_on": ORDER.format("settle_on = '2026-03-01'"),
    "orders_settle_on ": "UPDATE fund.orders SET settle_on = '2026-03-01' WHERE order_no = 'a'",
    "orders_settle_on  ": ORDER.format("settle = 'later', settle_on = '0044-03-15 BC'"),
    "orders_takes_all": ORDER.format("takes_all = true"),
    "holidays_pkey": TWICE.format("holidays"),
    "holidays_region": """INSERT INTO fund.holidays (region, day, working, change, mac_key, mac)
                          VALUES ('a b', '2026-03-01', true, gen_random_uuid(), 1, 'x')""",
    "merchants_state": """INSERT INTO fund.merchants (id, name, currency, digest, mac_key, mac, state)
                          VALUES ('new', 'M', 'CNY', '', 1, 'x', 'lost')""",
    "merchants_settlement_days": MERCHANT.format("settlement_days = 61"),
    "merchants_settlement_days ": MERCHANT.format("settlement_days = -1"),
    "merchants_settlement_cut": MERCHANT.format("settlement_cut = '24:00'"),
    "merchants_settlement_region": MERCHANT.format("settlement_region = ''"),
    "merchants_version": """INSERT INTO fund.merchants (id, name, currency, digest, mac_key, mac, version)
                            VALUES ('new', 'M', 'CNY', '', 1, 'x', -1)""",
    "merchants_final": MERCHANT.format("final_channel = 'c'"),
    "merchants_final_payee": MERCHANT.format("final_payee = gen_random_uuid()"),
    "merchants_rolling": MERCHANT.format("rolling_days = 1, rolling_from = '2026-03-02'"),
    "merchants_rolling ": MERCHANT.format("rolling_days = 1, rolling_basis_points = 1"),
    "merchants_rolling_basis_points": MERCHANT.format(
        "rolling_basis_points = 0, rolling_days = 1, rolling_from = '2026-03-02'"
    ),
    "merchants_rolling_basis_points ": MERCHANT.format(
        "rolling_basis_points = 10001, rolling_days = 1, rolling_from = '2026-03-02'"
    ),
    "merchants_rolling_days": MERCHANT.format(
        "rolling_basis_points = 1, rolling_days = 0, rolling_from = '2026-03-02'"
    ),
    "merchants_rolling_days ": MERCHANT.format(
        "rolling_basis_points = 1, rolling_days = 1096, rolling_from = '2026-03-02'"
    ),
    "merchants_rolling_from": MERCHANT.format(
        "rolling_basis_points = 1, rolling_days = 1, rolling_from = '1969-12-31'"
    ),
    "merchants_forward": MERCHANT.format("state = 'closed'"),
    "merchants_forward ": MERCHANT.format("version = -1"),
    "merchants_forward  ": """UPDATE fund.merchants SET state = 'closing';
                              UPDATE fund.merchants SET state = 'suspended'""",
    "merchants_forward   ": """UPDATE fund.merchants SET state = 'closing';
                               UPDATE fund.merchants SET state = 'closed';
                               UPDATE fund.merchants SET state = 'open'""",
    "merchants_forward    ": "SET LOCAL session_replication_role = replica; " + MERCHANT.format("state = 'closed'"),
    "merchant_events_pkey": EVENT.format(1, "changed", "NULL", "NULL"),
    "merchant_events_version": EVENT.format(0, "changed", "NULL", "NULL"),
    "merchant_events_what": EVENT.format(2, "lost", "NULL", "NULL"),
    "merchant_events_approved": EVENT.format(2, "changed", "'bob'", "NULL"),
    "merchant_events_approved ": EVENT.format(2, "changed", "NULL", "gen_random_uuid()"),
}


async def refused(fund: Connection, *statements: str) -> asyncpg.IntegrityConstraintViolationError:
    transaction = fund.transaction()
    await transaction.start()
    try:
        with pytest.raises(asyncpg.IntegrityConstraintViolationError) as caught:
            for statement in statements:
                await fund.execute(statement)
    finally:
        await transaction.rollback()
    return caught.value


@pytest.mark.parametrize("name", BITES)
async def test_each_constraint_bites(fund: Connection, name: str):
    assert (await refused(fund, BITES[name])).constraint_name == name.strip()


@pytest.mark.parametrize("role", ["origin", "replica"])
@pytest.mark.parametrize("table", [*APPEND_ONLY, "orders", "payments", "withdrawal_days", "debts", *KEPT])
async def test_what_was_written_stays(fund: Connection, table: str, role: str):
    """An order may change, but is never deleted."""
    columns = {"settled_payments": "fee", "events": "kind", "fee_rules": "module", "integrity_findings": "at"}
    columns |= {"calendars": "timezone", "ends": "ending", "day_closings": "begun_at", "merchant_events": "what"}
    columns |= {"payout_files": "content", "payout_results": "report"}
    column = columns.get(table)
    changes = [f"DELETE FROM fund.{table}", f"TRUNCATE fund.{table} CASCADE"]
    changes += [f"UPDATE fund.{table} SET {column} = {column}"] if column else []
    for change in changes:
        error = await refused(fund, f"SET LOCAL session_replication_role = {role}", change)
        assert "append-only" in str(error), change


def test_every_guard_that_verify_asks_for_is_tried_here():
    tried = {name.strip() for name in BITES} | {"findings_head_kept"}
    tried |= {
        f"{table}_no_{what}"
        for table in ("orders", "payments", "withdrawal_days", "debts", *KEPT)
        for what in ("delete", "truncate")
    }
    tried |= {f"{table}_{what}" for table in APPEND_ONLY for what in ("append_only", "no_truncate")}
    assert tried == GUARDS


async def test_the_head_of_the_findings_stays(fund: Connection):
    assert "append-only" in str(await refused(fund, "DELETE FROM fund.findings_head"))


OLDER = {
    "orders": """INSERT INTO fund.orders (id, kind, merchant, order_no, state, amount, fee, currency, module, digest, voucher_id,
                 created_at, mac, mac_key) VALUES (gen_random_uuid(), 'payment', 'm', 'older', 'posting', 1, 0, 'CNY', 't', '',
                 gen_random_uuid(), now(), 'x', 1)""",
    "payments": """INSERT INTO fund.payments (order_id, merchant, seq, amount, fee, settled, fee_settled)
                   VALUES (gen_random_uuid(), 'm', 1, 100, 5, 100, 5)""",
    "withdrawal_days": "INSERT INTO fund.withdrawal_days (merchant, day, amount) VALUES ('o', '2026-03-01', 7)",
    "merchants": "INSERT INTO fund.merchants (id, name, currency, digest) VALUES ('o', 'M', 'CNY', '')",
    "fee_rules": """INSERT INTO fund.fee_rules (product, basis_points, fixed, minimum, effective_at, module)
                    VALUES ('payment', 1, 1, 1, now(), 'x')""",
    "payouts": """INSERT INTO fund.payouts (order_id, channel, amount, currency, sent_at, due_at)
                  VALUES (gen_random_uuid(), 'c', 1, 'CNY', now(), now())""",
    "webhooks": """INSERT INTO outbox.webhooks (id, merchant, url, secret, module)
                   VALUES (gen_random_uuid(), 'm', 'u', 's', 'x')""",
}


@pytest.mark.parametrize("table", OLDER)
async def test_a_fund_service_of_before_inserts_nothing(fund: Connection, table: str):
    assert isinstance(await refused(fund, OLDER[table]), asyncpg.NotNullViolationError)
