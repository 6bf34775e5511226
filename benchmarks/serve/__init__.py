"""A load generator for `pulse-edge serve`."""
