"""Precisions, and how weights, activations and caches get there."""
