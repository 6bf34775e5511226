"""What a decode step costs that serves several sequences at once, on the CPU."""
