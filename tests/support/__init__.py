"""What tests share: tiny checkpoints, fakes, damage, and the helpers of more than one file."""
