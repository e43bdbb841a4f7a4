"""Labelled texts: this room reads, cleans and splits them, and computes their fingerprint."""

from layerfusion.texts.dataset import TextDataset, fingerprint, load_dataset
from layerfusion.texts.splits import Split

__all__ = ["Split", "TextDataset", "fingerprint", "load_dataset"]
