-- Which keys the ledger was written with, so that a restored ledger without its keys is refused instead of getting new ones.
CREATE TABLE ledger.key_fingerprints (
    version smallint NOT NULL CONSTRAINT key_fingerprints_pkey PRIMARY KEY,
    fingerprint text NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON COLUMN ledger.key_fingerprints.fingerprint IS 'a truncated HMAC of a constant: it tells keys apart and says nothing of them';
