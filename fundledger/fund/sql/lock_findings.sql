-- The end of the chain of findings. Rows: one. Locks: it.
SELECT h.seq, h.last_mac, h.key_version, h.mac FROM fund.findings_head h FOR UPDATE
