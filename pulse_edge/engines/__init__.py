"""Engines run a bundle's two networks on a device and keep the KV cache.

`engine.py` is the protocol, `table.py` lists the engines, `registry.py` opens the one that fits a
bundle, and `cursor.py` has the rules of the KV cache's length that all of them share.
"""
