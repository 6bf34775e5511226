"""The two plans, opened by TensorRT, and their execution contexts.

RTX differs from TensorRT in `PlanContexts.context` and `PlanContext.capturable` (docstrings of
tensorrt_rtx 1.7; "Working with Runtime Cache" and "Working with CUDA graphs" in its guide).
Contracts: NvInferRuntime.h, IExecutionContext.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pulse_edge.bundle.opened import OpenedFile
from pulse_edge.bundle.plans import DECODER_PLAN, VISION_PLAN, OpenedPlans, error_log
from pulse_edge.engines.cuda_runtime import CudaDevice
from pulse_edge.errors import EngineError


class PlanContexts:
    """Both plans' engines, and the execution contexts made of them.

    The contexts share one block for activations, because they take turns.

    Attributes:
        vision, decoder: TensorRT's engines.
    """

    def __init__(self, plans: OpenedPlans, device: CudaDevice, library: Any) -> None:
        self._device = device
        self._trt = library
        self._log = error_log(library)
        self._kernels: Any = None
        self._runtime = library.Runtime(self._log)
        index = plans.index
        self.vision: Any = self._open(plans.files.file(VISION_PLAN))
        self.decoder: Any = self._open(plans.files.file(DECODER_PLAN))
        # Contexts are pushed to the stack later, so they are closed before their engines.
        device.stack.callback(self._close)
        engines = (self.vision, self.decoder)
        self._size = max(1, *(int(engine.device_memory_size_v2) for engine in engines))
        remedy = f"build again with --prefill-rows under {index.prefill_rows}"
        self._scratch = device.allocate(self._size, "activations", remedy)

    def _open(self, plan: OpenedFile) -> Any:
        with plan.steady():
            # Mapped under a lease: no second copy in memory, which a Jetson shares with the GPU.
            engine = self._runtime.deserialize_cuda_engine(plan.content().memory)
            if self._device.cuda.integrated():
                plan.drop_cached()  # CUDA on a Jetson counts the file cache as used
        size = plan.size
        if engine is None:
            call = f"deserialize_cuda_engine({plan.path}), {size / 1e9:.2f} GB,"
            raise tensorrt_failure(self._device, self._log, call)
        used = self._device.used
        used["plans"] = used.get("plans", 0) + size  # a plan is its weights, but for a few MB
        return engine

    def _close(self) -> None:
        self.vision = self.decoder = self._kernels = self._runtime = None

    def context(
        self,
        engine: Any,
        profile: int,
        addresses: dict[str, int],
        fixed: bool = False,
    ) -> PlanContext:
        """A new execution context.

        Args:
            engine: `vision` or `decoder`.
            profile: of the engine's optimization profiles.
            addresses: on the device, by tensor.
            fixed: its shapes never change. RTX compiles kernels for each shape it meets, in the
                background. A graph must not be captured before that is done, so these contexts
                wait for it.

        Raises:
            EngineError: TensorRT refuses, or has no memory for it.
        """
        created = self._create(engine, fixed)
        if created is None:
            raise tensorrt_failure(self._device, self._log, "create_execution_context")
        context = PlanContext(self._device, self._log, created)
        self._device.stack.callback(context.close)
        context("set_optimization_profile_async", profile, int(self._device.stream))
        context("set_device_memory", self._scratch, self._size)
        for name in map(engine.get_tensor_name, range(engine.num_io_tensors)):
            context("set_tensor_address", name, addresses[name])
        return context

    def _create(self, engine: Any, fixed: bool) -> Any:
        trt = self._trt
        strategy = trt.ExecutionContextAllocationStrategy.USER_MANAGED
        if not hasattr(trt, "DynamicShapesKernelSpecializationStrategy"):
            return engine.create_execution_context(strategy)
        config = engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(strategy)
        if fixed:
            eager = trt.DynamicShapesKernelSpecializationStrategy.EAGER
            config.dynamic_shapes_kernel_specialization_strategy = eager
        if self._kernels is None:  # shared: what one context compiled, the others need not
            self._kernels = config.create_runtime_cache()
        if not config.set_runtime_cache(self._kernels):
            raise tensorrt_failure(self._device, self._log, "set_runtime_cache")
        return engine.create_execution_context(config)


class PlanContext:
    """An execution context, and its latest CUDA graph."""

    def __init__(self, device: CudaDevice, log: Any, context: Any) -> None:
        self._device = device
        self._log = log
        self._context = context
        self._graph: Any = None

    def __call__(self, method: str, *args: Any) -> None:
        """Call a method. The bindings return False or raise `RuntimeError` if it fails.

        Raises:
            EngineError: it failed.
        """
        reason = ""
        try:
            if getattr(self._context, method)(*args) is not False:
                return
        except RuntimeError as error:
            reason = str(error)
        call = f"{method}({', '.join(map(repr, args))})"
        raise tensorrt_failure(self._device, self._log, call, reason)

    def shape(self, name: str, shape: tuple[int, ...]) -> None:
        """Set an input's shape."""
        self("set_input_shape", name, shape)

    def enqueue(self) -> None:
        """Put a run on the stream."""
        self("execute_async_v3", int(self._device.stream))

    @property
    def capturable(self) -> bool:
        """Whether a run can be captured. RTX knows.

        TensorRT's runs can be if no shape depends on data, and none here does.
        """
        if self._graph is not None:
            return True
        ask = getattr(self._context, "is_stream_capturable", None)
        return ask is None or bool(ask(int(self._device.stream)))

    def launch(self, issue: Callable[[], None]) -> None:
        """Run as one graph what `issue` puts on the stream.

        `issue` is called for the first launch after `drop_graph` only.
        """
        if self._graph is None:
            self._graph = self._device.capture(issue)
        self._device.cuda("cudaGraphLaunch", self._graph, self._device.stream)

    def drop_graph(self) -> None:
        """Give the graph back, if there is one."""
        if self._graph is not None:
            graph, self._graph = self._graph, None
            self._device.release("cudaGraphExecDestroy", graph)

    def close(self) -> None:
        """Give the context and its graph back."""
        self.drop_graph()
        self._context = None


def tensorrt_failure(device: CudaDevice, log: Any, call: str, raised: str = "") -> EngineError:
    """An error with what TensorRT logged about a call, and `raised`.

    TensorRT also allocates memory on its own account. If that failed, the error says what to lower.
    """
    reason = " ".join([*log.complaints[-3:], raised]).strip() or "it did not say why"
    log.complaints.clear()
    message = f"TensorRT: {call} failed ({reason})"
    if "memory" in reason.lower() and "illegal memory" not in reason.lower():
        remedy = "close other programs, export with a lower --context, or with fewer bits"
        return EngineError(f"{message}: {device.memory()}; {remedy}")
    return EngineError(message)
