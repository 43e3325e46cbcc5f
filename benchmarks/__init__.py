"""Benchmarks: load drivers, fault tests, baselines and reports. They use the service from outside and import none of
it.
"""
