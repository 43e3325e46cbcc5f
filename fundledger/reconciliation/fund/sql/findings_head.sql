-- How many findings there are, and how they end. Rows: one. Locks: none.
SELECT h.seq, h.last_mac, h.key_version, h.mac FROM fund.findings_head h
