"""Admission of HTTP requests: quotas of the caller (429), capacity of the worker (503), replays."""
