"""Benchmarks: load drivers, fault tests, baselines and reports. Black box: imports nothing of the service."""
