"""Plugins in the namespace that Hydra searches. They call functions of `layerfusion`."""
