"""How pulse-nano, the embedded demonstration model, is made.

Simulated data only; research use only.
"""
