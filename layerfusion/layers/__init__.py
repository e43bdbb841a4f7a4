"""Scores that say which layers carry the signal, and selections of layers by them."""
