-- Apply the commit delay even if no other transaction is open. Rows: none. Locks: none.
ALTER SYSTEM SET commit_siblings = 0
