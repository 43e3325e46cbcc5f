-- Payout files that differ from their payouts in number, sum or currency, whose content does not match its digest, or that are
-- not numbered without gaps; and payouts of a file that does not exist. Rows: the first 100; `total` is the number of all.
-- Locks: none.
WITH exported AS (
    SELECT p.channel, p.file_no, count(*) AS lines, sum(p.amount::numeric) AS total, min(p.currency) AS first_currency,
           max(p.currency) AS last_currency, min(p.line_no) AS first_line, max(p.line_no) AS last_line
    FROM fund.payouts p WHERE p.file_no IS NOT NULL GROUP BY p.channel, p.file_no
), numbered AS (
    SELECT f.*, row_number() OVER (PARTITION BY f.channel ORDER BY f.file_no) AS nth FROM fund.payout_files f
)
SELECT coalesce(f.channel, e.channel) AS channel, coalesce(f.file_no, e.file_no) AS file_no, c.name, c.expected, c.actual,
       count(*) OVER () AS total
FROM numbered f FULL JOIN exported e ON e.channel = f.channel AND e.file_no = f.file_no
CROSS JOIN LATERAL (VALUES
    ('payouts', coalesce(f.lines::text, 'none'), coalesce(e.lines::text, 'none')),
    ('sum', coalesce(f.total::text, 'none'), coalesce(e.total::text, 'none')),
    ('currency', f.currency, e.first_currency),
    ('currency', f.currency, e.last_currency),
    ('first line', '1', coalesce(e.first_line::text, '1')),
    ('last line', f.lines::text, e.last_line::text),
    ('digest', encode(f.digest, 'hex'), encode(sha256(f.content), 'hex')),
    ('number', f.nth::text, f.file_no::text)
) AS c (name, expected, actual)
WHERE c.expected IS DISTINCT FROM c.actual
ORDER BY channel, file_no, c.name LIMIT 100
