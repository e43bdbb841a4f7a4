"""Metrics, confidence intervals and significance tests. Nothing here knows what a job is."""
