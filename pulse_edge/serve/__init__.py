"""The server: a loaded model behind HTTP, for OpenAI's clients and for carts."""
