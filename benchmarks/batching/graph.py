"""A bundle's decoder graph, changed to take several sequences: a batch.

Graphs that were exported before engines had slots have one sequence. Their operators take more:
`MatMulNBits` sees one more row for each sequence, and `GroupQueryAttention` has a length for each.
Only shapes change, and the axis that the logits lose. Graphs of today take a batch as they are.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx
from onnx import helper, numpy_helper

HEAD_INPUT = "norm"  # the output matrix reads it


def batched_decoder(graph: bytes, *, head: bool) -> bytes:
    """Change a decoder graph for the CPU, so that each sequence appends one row.

    Args:
        graph: the file `decoder.onnx` of a bundle for the CPU.
        head: keep the output matrix. Without it the graph ends at its input, which shows what the
            layers take.

    Returns:
        A graph with inputs inputs_embeds [batch, 1, hidden] and seqlens_k [batch], caches [batch,
        kv heads, capacity, head size], and logits [batch, vocab].

    Raises:
        ValueError: the graph is of another target.
    """
    model = onnx.load_from_string(graph)
    names = [value.name for value in model.graph.input]
    if "inputs_embeds" not in names or "seqlens_k" not in names:
        raise ValueError("only bundles for the CPU can be batched here")
    for value in (*model.graph.input, *model.graph.output):
        if value.name in ("inputs_embeds", "seqlens_k") or "." in value.name:
            value.type.tensor_type.shape.dim[0].dim_param = "batch"
    if head:
        _squeeze_rows(model)
    else:
        _end_before_head(model)
    changed: bytes = model.SerializeToString()
    return changed


def _squeeze_rows(model: onnx.ModelProto) -> None:
    """Let the logits lose the axis of rows, where the exported graph drops that of the batch."""
    squeeze = next(node for node in model.graph.node if node.name == "logits.rows")
    if squeeze.op_type == "Reshape":  # a graph of today
        return
    squeeze.input[1] = "logits.rows.axis"
    model.graph.initializer.append(
        numpy_helper.from_array(np.array([1], np.int64), "logits.rows.axis")
    )


def _end_before_head(model: onnx.ModelProto) -> None:
    logits = next(value for value in model.graph.output if value.name == "logits")
    model.graph.output.remove(logits)
    nodes = [*model.graph.node]
    last = next(i for i, node in enumerate(nodes) if HEAD_INPUT in node.output)
    del model.graph.node[last + 1 :]
    hidden = helper.make_tensor_value_info(
        HEAD_INPUT, logits.type.tensor_type.elem_type, ["batch", "logit_rows", "hidden"]
    )
    model.graph.output.append(hidden)
    read = _names_read(model.graph.node)
    for tensor in [*model.graph.initializer]:
        if tensor.name not in read:
            model.graph.initializer.remove(tensor)


def _names_read(nodes: Iterable[onnx.NodeProto]) -> set[str]:
    return {name for node in nodes for name in node.input}
