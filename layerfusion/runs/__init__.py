"""Runs jobs, layer profiles and plans, and keeps track of the jobs of a sweep."""
