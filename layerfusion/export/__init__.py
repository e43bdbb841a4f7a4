"""Exported classifiers: folders that other libraries load without LayerFusion."""
