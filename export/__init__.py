"""Checkpoint directory -> bundle. Installed as `pulse_edge.export`; needs the extra `pulse-edge[export]`."""
