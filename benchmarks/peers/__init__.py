"""The peers of compare.py: `protocol.py` and one worker file for each, which runs in the peer's own
environment.
"""
