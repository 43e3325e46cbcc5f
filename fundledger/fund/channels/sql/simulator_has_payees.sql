-- Whether the table of payouts has the column of payees (SQLite). Rows: one, or none. Locks: none.
SELECT name FROM pragma_table_info('payouts') WHERE name = 'payee'
