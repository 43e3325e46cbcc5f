-- Every row of fund.payouts, with its MAC. Rows: all. Locks: none.
SELECT p.order_id, p.kind, p.channel, p.amount, p.currency, p.outcome, p.channel_ref, p.file_no, p.line_no, p.reported,
    p.reported_reason, p.mac_key, p.mac
FROM fund.payouts p
