"""Benchmarks of speed and accuracy against other programs, as ratios measured in one run."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does, before torch starts
