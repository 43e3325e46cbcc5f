-- Lock a channel. $1 name, $2 currency. Rows: one, or none. Locks: the channel.
SELECT c.name, c.currency, c.bank_account, c.payout, c.references_unique, c.overdraft, c.state, c.registered_by, c.created_at, c.refund,
       c.mac_key, c.mac
FROM fund.channels c WHERE c.name = $1 AND c.currency = $2
FOR UPDATE
