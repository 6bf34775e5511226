"""The targets, one file each. `target.py` is their protocol, `registry.py` names them."""
