"""A load generator for `pulse-edge serve`."""

KIND = "serve"  # of a record
SCHEMA = 1
