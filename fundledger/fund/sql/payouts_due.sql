-- Lease payouts that are due for a poll. $1 channel, $2 limit, $3 interval until another process may poll these
-- payouts, $4 `began_at` of the first rows of this run, null in the first call of a run, $5 the kinds of their orders.
-- Payouts that become due after `began_at` are left to the next run, so a run polls each payout once. Rows: the payouts, with
-- `began_at`. Locks: the rows of these payouts. Rows that are already locked are skipped.
WITH next AS (
    SELECT p.order_id
    FROM fund.payouts p
    WHERE p.channel = $1::text AND p.kind = ANY ($5::text[]) AND p.outcome IS NULL AND p.due_at <= coalesce($4::timestamptz, statement_timestamp())
    ORDER BY p.due_at
    LIMIT $2::bigint
    FOR UPDATE SKIP LOCKED
)
UPDATE fund.payouts p
SET due_at = clock_timestamp() + $3::interval, asked = p.asked + 1
FROM next
WHERE p.order_id = next.order_id
RETURNING p.order_id, p.kind, p.channel, p.amount, p.currency, p.asked, p.outcome, p.channel_ref, p.file_no, p.line_no,
    p.reported, p.reported_reason, p.mac_key, p.mac, coalesce($4::timestamptz, statement_timestamp()) AS began_at
