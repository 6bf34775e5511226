"""Decoding: logits to tokens to text, and drafts that save steps."""
