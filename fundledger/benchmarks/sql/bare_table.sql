-- The table of the bare insert, in a database of its own.
CREATE TABLE bare_vouchers (
    id uuid PRIMARY KEY,
    account text NOT NULL,
    amount bigint NOT NULL,
    posted_at timestamptz NOT NULL DEFAULT now()
)
