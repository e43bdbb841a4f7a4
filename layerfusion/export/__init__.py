"""Exported classifiers: folders that other libraries load without LayerFusion."""

TRANSFORMERS, SENTENCE, ONNX = "transformers", "sentence-transformers", "onnx"
TARGETS = (TRANSFORMERS, SENTENCE, ONNX)
"""Libraries that a classifier is exported for, by the names that the hub gives them."""
OWN = "layerfusion"
"""The library of a bundle as it is."""
