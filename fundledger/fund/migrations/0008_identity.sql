-- Which keys the fund database was written with, and a name of its own, so that a restored one without its keys, and an
-- empty one in its place, are refused.
CREATE TABLE fund.key_fingerprints (
    version smallint NOT NULL CONSTRAINT key_fingerprints_pkey PRIMARY KEY,
    fingerprint text NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON COLUMN fund.key_fingerprints.fingerprint IS 'a truncated HMAC of a constant: it tells keys apart and says nothing of them';
CREATE TABLE fund.identity (
    one boolean NOT NULL DEFAULT true CONSTRAINT identity_one_row PRIMARY KEY CHECK (one),
    fund_id uuid NOT NULL DEFAULT gen_random_uuid()
);
INSERT INTO fund.identity DEFAULT VALUES;
