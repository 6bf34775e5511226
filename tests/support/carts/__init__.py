"""Recordings in carts' formats that tests make, one format a file, each with planted names."""
