"""Load shedding: rejects requests under overload by concurrency limits, fair shares and the shed level."""
