"""What a decode step costs that serves several sequences at once, on the CPU."""

KIND = "batching"  # of a record
REQUESTS_KIND = "batched-requests"  # of a record of whole requests
SCHEMA = 1
