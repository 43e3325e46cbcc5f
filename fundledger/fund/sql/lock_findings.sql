-- Lock the head of the chain of findings. Rows: one. Locks: the head.
SELECT h.seq, h.last_mac, h.key_version, h.mac FROM fund.findings_head h FOR UPDATE
