"""Drivers, baselines and reports: a black box around the service. Imports nothing of it."""
