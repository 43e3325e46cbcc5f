"""Load shedding: concurrency limits, fair shares and shed levels, which reject requests under overload."""
