"""Rate limits and load shedding: quotas with leased tokens, concurrency limits, shed levels. Independent of HTTP."""
