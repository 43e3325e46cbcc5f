-- When money was asked to be sent the last time. What a channel does not know may be under way to it since then, not since
-- it was sent first.
ALTER TABLE fund.payouts ADD COLUMN called_at timestamptz NOT NULL DEFAULT clock_timestamp();
COMMENT ON COLUMN fund.payouts.called_at IS 'when money was asked to be sent the last time, written before the call';
