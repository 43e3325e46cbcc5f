-- Channels, by name and currency. Rows: all. Locks: none.
SELECT c.name, c.currency, c.bank_account, c.payout, c.references_unique, c.overdraft, c.state, c.registered_by, c.created_at, c.refund,
       c.mac_key, c.mac
FROM fund.channels c ORDER BY c.name, c.currency
