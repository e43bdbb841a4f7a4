"""Figures as functions that draw on matplotlib axes, for the report and for notebooks."""
