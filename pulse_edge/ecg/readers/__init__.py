"""Readers of waveform files, one format a file; `registry.py` names them."""
