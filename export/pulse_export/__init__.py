"""Checkpoint directory -> bundle. Needs the extra `pulse-edge[export]`."""
