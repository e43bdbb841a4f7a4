"""Frozen models, the tap on their layers, and the store of what it gives."""
