"""Evaluation of bundles on tasks with known answers."""
