"""What the results show: choices, comparisons, tests and sentences."""
