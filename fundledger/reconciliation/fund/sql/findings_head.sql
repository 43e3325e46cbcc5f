-- Head of the chain of findings: its length and last MAC. Rows: one. Locks: none.
SELECT h.seq, h.last_mac, h.key_version, h.mac FROM fund.findings_head h
