"""Rate limits: policies, token buckets, and leases of tokens from a store that all workers share."""
