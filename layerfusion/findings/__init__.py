"""Findings from the results: choices, comparisons, tests and sentences."""
