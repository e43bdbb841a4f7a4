"""Benchmarks of speed and accuracy against other programs, as ratios measured in one run."""
