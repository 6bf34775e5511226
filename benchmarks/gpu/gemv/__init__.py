"""How fast int4 kernels of our own stream the weights of a decode step of PULSE-7B.

    python -m benchmarks.gpu.gemv WORK

The question behind it: is a native decode path worth writing? ONNX Runtime's int4 products take
about 2.0 ms a step on an H100; copies of as many bytes take 1.16. Up to 1.5 ms: write it. Up to
1.8: improve the kernel first. Above: stop.

`gemv.cu` has the kernel, `kernels.py` its variants and the products of a step. `measure.py` times
them on a GPU through `driver.py`; `emulation.py` runs the same source on a CPU; `nvrtc.py` compiles
it for any architecture without a GPU.
"""
