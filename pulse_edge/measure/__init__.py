"""Measuring: benchmarks, comparisons, predictions."""
