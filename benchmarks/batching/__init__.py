"""What a decode step costs that serves several sequences at once, on the CPU."""

KIND = "batching"  # of a record
SCHEMA = 1
