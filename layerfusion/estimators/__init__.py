"""Estimators of scikit-learn over texts: a classifier, an embedder, and a ranking of models."""
