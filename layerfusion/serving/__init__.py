"""A classifier behind HTTP: requests are checked, queued and classified in batches."""
