"""LayerFusion: which layers of which frozen language models carry the signal for your texts."""

__version__ = "0.1.0"
