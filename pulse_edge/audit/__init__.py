"""The audit log: a line for each answer, each line with the hash of the one before."""
