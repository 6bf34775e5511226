"""What the export writes for: one file a target; `target.py` is their protocol, `registry.py` names them."""
