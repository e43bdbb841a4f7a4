"""Hydra: composing configs, launching jobs, registering schemas and resolvers."""
