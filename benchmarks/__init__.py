"""What is fast, against whom, as ratios measured in one run."""
