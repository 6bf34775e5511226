"""TensorRT plans built from a bundle."""
