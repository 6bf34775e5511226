"""Simulated ECGs with known truth: what evaluation and calibration need."""
