"""Whether a model keeps the deadlines that requests carry."""

KIND = "deadlines"  # of a record
SCHEMA = 1
