"""One job and what it leaves: metrics, statistics, the baseline, records and tracking."""
