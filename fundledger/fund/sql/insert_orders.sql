-- Insert orders. $1 a JSON array of orders (the fields of fund/model/order.py; digests in base64), $2 the former ids of
-- these orders, or an empty array, $3 whether the set-offs of the orders are decided. Three orders are not inserted and not
-- returned: an order that exists under its id or its former id; an order whose reference of the channel another order has;
-- and a payment to a merchant that owes, if set-offs are not decided.
-- Rows: one per new order. Locks: the new rows.
INSERT INTO fund.orders (id, kind, merchant, order_no, state, amount, fee, currency, channel, channel_ref, settle, of_order,
                         from_pending, to_receivable, fee_waived, fee_version, direction, reason, ticket, module, digest,
                         voucher_id, created_at, due_at, of_voucher, mac, mac_key, voucher_format, layout, set_off,
                         against, counterparty, counter_ref, counter_set_off, of_kind, tax, parts, period, settle_on, takes_all, payee)
SELECT o.id, o.kind, o.merchant, o.order_no, o.state, o.amount, o.fee, o.currency, o.channel, o.channel_ref, o.settle,
       o.of_order, o.from_pending, o.to_receivable, o.fee_waived, o.fee_version, o.direction, o.reason, o.ticket, o.module,
       decode(o.digest, 'base64'), o.voucher_id, o.created_at, o.due_at,
       o.of_voucher, decode(o.mac, 'base64'), o.mac_key, o.voucher_format, o.layout, o.set_off, o.against, o.counterparty, o.counter_ref,
       o.counter_set_off, o.of_kind, o.tax, o.parts, o.period, o.settle_on, o.takes_all, o.payee
FROM ROWS FROM (json_to_recordset($1::json) AS (
    id uuid, kind text, merchant text, order_no text, state text, amount bigint, fee bigint, currency text, channel text,
    channel_ref text, settle text, of_order uuid, from_pending bigint, to_receivable bigint, fee_waived bigint,
    fee_version bigint, direction text, reason text, ticket text, module text, digest text, voucher_id uuid,
    created_at timestamptz, due_at timestamptz, of_voucher uuid, mac text,
    mac_key smallint, voucher_format smallint, layout smallint, set_off bigint,
    against text, counterparty text, counter_ref text, counter_set_off bigint, of_kind text,
    tax bigint, parts json, period text, settle_on date, takes_all boolean, payee uuid), unnest($2::uuid[])) AS o (
    id, kind, merchant, order_no, state, amount, fee, currency, channel, channel_ref, settle, of_order, from_pending,
    to_receivable, fee_waived, fee_version, direction, reason, ticket, module, digest, voucher_id, created_at, due_at, of_voucher,
    mac, mac_key, voucher_format, layout, set_off, against, counterparty, counter_ref, counter_set_off, of_kind,
    tax, parts, period, settle_on, takes_all, payee, former_id)
WHERE (o.former_id IS NULL OR NOT EXISTS (SELECT FROM fund.orders f WHERE f.id = o.former_id))
  -- A scalar subquery is evaluated per order through the index, whatever the size of the table was at planning.
  AND ($3::boolean OR o.kind <> 'payment' OR o.settle = 'later'
       OR (SELECT d.owed FROM fund.debts d WHERE d.merchant = o.merchant AND d.owed > 0) IS NULL)
ON CONFLICT DO NOTHING
RETURNING id, seq
