"""Metrics of HTTP workers: counters, event-loop lag, and the Prometheus text format."""
