"""Hydra finds its plugins in this namespace; what they do is in `layerfusion`."""
