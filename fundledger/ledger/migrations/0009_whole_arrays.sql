-- A CHECK passes when it is NULL: arrays with NULL elements, an odd number of them, another lower bound or more dimensions
-- were accepted. Existing rows are checked once more, under a lock that keeps others from the tables meanwhile.
ALTER TABLE ledger.vouchers DROP CONSTRAINT vouchers_sum_to_zero;
ALTER TABLE ledger.vouchers ADD CONSTRAINT vouchers_sum_to_zero CHECK ((
    CASE cardinality(lines)
        WHEN 4 THEN lines[1] IS NOT NULL AND lines[3] IS NOT NULL AND lines[2] = -lines[4]
        WHEN 6 THEN lines[1] IS NOT NULL AND lines[3] IS NOT NULL AND lines[5] IS NOT NULL AND lines[2] + lines[4] + lines[6] = 0
        WHEN 8 THEN lines[1] IS NOT NULL AND lines[3] IS NOT NULL AND lines[5] IS NOT NULL AND lines[7] IS NOT NULL
            AND lines[2] + lines[4] + lines[6] + lines[8] = 0
        ELSE cardinality(lines) > 8 AND cardinality(lines) % 2 = 0 AND array_ndims(lines) = 1 AND array_lower(lines, 1) = 1
            AND array_position(lines, NULL) IS NULL AND ledger.lines_sum(lines) = 0
    END
) IS TRUE);

ALTER TABLE ledger.entries DROP CONSTRAINT entries_vouchers;
ALTER TABLE ledger.entries ADD CONSTRAINT entries_vouchers CHECK ((
    CASE WHEN vouchers IS NULL THEN voucher_id IS NOT NULL
         ELSE voucher_id IS NULL AND array_ndims(vouchers) = 1 AND array_position(vouchers, NULL) IS NULL END
) IS TRUE);

ALTER TABLE ledger.outbox DROP CONSTRAINT outbox_vouchers;
ALTER TABLE ledger.outbox ADD CONSTRAINT outbox_vouchers CHECK ((
    cardinality(vouchers) BETWEEN 1 AND 16383 AND array_ndims(vouchers) = 1 AND array_position(vouchers, NULL) IS NULL
) IS TRUE);
