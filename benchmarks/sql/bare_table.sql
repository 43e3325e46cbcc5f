-- Create the table for bare inserts, in a database of its own. Rows: none.
CREATE TABLE bare_vouchers (
    id uuid PRIMARY KEY,
    account text NOT NULL,
    amount bigint NOT NULL,
    posted_at timestamptz NOT NULL DEFAULT now()
)
