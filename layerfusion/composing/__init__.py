"""Everything that deals with Hydra: composing configs, launching jobs, registering schemas."""
