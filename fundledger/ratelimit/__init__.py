"""Rate limits and load shedding, independent of HTTP: token buckets, leases, concurrency limits and the shed level."""
