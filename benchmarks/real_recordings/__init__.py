"""What pulse-nano says of recordings that are no simulation."""
