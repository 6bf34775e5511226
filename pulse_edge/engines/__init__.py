"""Engines run a bundle's two networks on a device. `engine.py` is their protocol, `registry.py` names them."""
