"""Blocks of the report, one file for each topic: its tables, its sentences, its figure."""
