"""The two networks, written node by node through a target."""
