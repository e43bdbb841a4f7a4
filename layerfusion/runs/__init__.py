"""One job and what it leaves: metrics, statistics, the floor, records and tracking."""
