"""How many ECG carts one engine serves, from measured rates."""
