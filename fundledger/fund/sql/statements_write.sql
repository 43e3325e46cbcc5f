-- Insert a statement with its results. $1 channel, $2 number, $3 currency, $4 digest, $5 module, $6 JSON: orders in
-- transit; then arrays over the lines: $7 references, $8 amounts, $9 outcomes, $10 orders, $11 differences, $12 the
-- bank's references of the entries, $13 value dates. Rows: none. Locks: the new rows.
WITH statement AS (
    INSERT INTO fund.bank_statements (channel, statement_no, currency, digest, module, in_transit, at)
    VALUES ($1::text, $2::text, $3::text, $4::bytea, $5::text, $6::json, clock_timestamp())
)
INSERT INTO fund.bank_statement_lines
    (channel, statement_no, line_no, ref, amount, outcome, order_id, difference, entry_ref, value_date)
SELECT $1::text, $2::text, t.line_no, t.ref, t.amount, t.outcome, t.order_id, t.difference, t.entry_ref, t.value_date
FROM unnest($7::text[], $8::bigint[], $9::text[], $10::uuid[], $11::bigint[], $12::text[], $13::date[])
    WITH ORDINALITY AS t (ref, amount, outcome, order_id, difference, entry_ref, value_date, line_no)
