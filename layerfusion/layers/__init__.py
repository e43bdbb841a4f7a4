"""Which layers carry the signal: names and selection."""
