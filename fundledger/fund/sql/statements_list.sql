-- Imported statements, ordered by channel and number, with the counts and sums of their lines. $1 channel and $2
-- statement number to start after, $3 the last channel, null for the last of all, $4 limit. Rows: at most $4. Locks:
-- none.
SELECT s.channel, s.statement_no, s.currency, s.at, s.module, l.*
FROM (
    SELECT b.channel, b.statement_no, b.currency, b.at, b.module FROM fund.bank_statements b
    WHERE (b.channel, b.statement_no) > ($1::text, $2::text)
      AND b.channel <= coalesce($3::text, (SELECT max(m.channel) FROM fund.bank_statements m))
    ORDER BY b.channel, b.statement_no LIMIT $4::bigint
) s
CROSS JOIN LATERAL (
    SELECT count(*) AS lines, coalesce(sum(n.amount), 0) AS total, coalesce(sum(n.difference), 0) AS difference,
           count(*) FILTER (WHERE n.outcome = 'matched') AS matched, count(*) FILTER (WHERE n.outcome = 'awaited') AS awaited,
           count(*) FILTER (WHERE n.outcome = 'different') AS different,
           count(*) FILTER (WHERE n.outcome = 'duplicate') AS duplicate,
           count(*) FILTER (WHERE n.outcome = 'unknown') AS unknown, count(*) FILTER (WHERE n.outcome = 'repeated') AS repeated
    FROM fund.bank_statement_lines n WHERE n.channel = s.channel AND n.statement_no = s.statement_no
) l
ORDER BY s.channel, s.statement_no
