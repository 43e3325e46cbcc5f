-- A refund may take of what a settlement settled that is not posted yet, and may be refused: then more of the fee was
-- returned than is settled by now, until the rest is. It is never more than the fee.
ALTER TABLE fund.payments
    DROP CONSTRAINT payments_fee_returned,
    ADD CONSTRAINT payments_fee_returned CHECK (fee_returned BETWEEN 0 AND fee);
