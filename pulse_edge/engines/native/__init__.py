"""Decode steps by kernels of our own, over the bundle that ONNX Runtime opens."""
