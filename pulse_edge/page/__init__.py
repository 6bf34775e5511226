"""A page on its way from a file to image tokens."""
