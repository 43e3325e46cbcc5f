"""Request quotas: policies, token buckets, and tokens leased from a shared store."""
