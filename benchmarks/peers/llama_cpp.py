"""llama.cpp through llama-cpp-python's low-level API. Variants: q4_0, q8_0.

The head is Q8_0 in both, as wide as ours and OpenVINO's, so that a slice of few layers compares
like with like; llama-quantize would make it Q6_K in a Q4_0 model (a quarter less to read, of 2 % of
a whole model's weights).
"""

from __future__ import annotations

import ctypes
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gguf
import llama_cpp
import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from benchmarks.peers import checkpoint as source
from benchmarks.peers.protocol import BATCH, serve

TYPES = {"q4_0": gguf.GGMLQuantizationType.Q4_0, "q8_0": gguf.GGMLQuantizationType.Q8_0}
FILE_TYPES = {"q4_0": gguf.LlamaFileType.MOSTLY_Q4_0, "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0}
DTYPES = {"BF16": ml_dtypes.bfloat16, "F16": np.float16}
NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def convert(checkpoint: Path, out: Path, variant: str) -> None:
    out.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(out / "model.gguf", "llama", use_temp_file=True)
    _describe(writer, source.config(checkpoint), FILE_TYPES[variant])
    heads = source.config(checkpoint)["num_attention_heads"]
    for name, entry, data in source.tensors(checkpoint):
        values = (
            np.frombuffer(data, DTYPES[entry["dtype"]]).reshape(entry["shape"]).astype(np.float32)
        )
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            values = _interleaved(values, heads)
        renamed = _renamed(name)
        if values.ndim == 1:
            writer.add_tensor(renamed, values)
        else:
            kind = TYPES["q8_0" if renamed == "output.weight" else variant]
            writer.add_tensor(renamed, gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _describe(writer: Any, config: dict[str, Any], file_type: Any) -> None:
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_file_type(file_type)
    # No text is ever tokenized.
    writer.add_tokenizer_model("no_vocab")


def _interleaved(values: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Rows of q and k in the order of llama.cpp's rotary embedding: the two halves of a head
    alternate.
    """
    rows, columns = values.shape
    return (
        values.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)
    )


def _renamed(name: str) -> str:
    stem = name.removesuffix(".weight")
    if stem.startswith("model.layers."):
        _, _, layer, part = stem.split(".", 3)
        return f"blk.{layer}.{NAMES[part]}.weight"
    return f"{NAMES[stem]}.weight"


class LlamaCpp:
    """Defaults of llama-bench: batches of 512, fp16 cache, flash attention where the library
    chooses it.
    """

    def __init__(self, path: Path, threads: int, context: int) -> None:
        lib = llama_cpp
        lib.llama_backend_init()
        model_options = lib.llama_model_default_params()
        model_options.n_gpu_layers = 0
        self._model = lib.llama_model_load_from_file(
            str(path / "model.gguf").encode(), model_options
        )
        options = lib.llama_context_default_params()
        options.n_ctx, options.n_batch, options.n_ubatch = context, BATCH, BATCH
        options.n_threads = options.n_threads_batch = threads
        self._context = lib.llama_init_from_model(self._model, options) if self._model else None
        if not self._context:
            raise RuntimeError("llama.cpp cannot load it; its log says why")
        self._batch = lib.llama_batch_init(BATCH, 0, 1)
        self._length = 0
        self.engine = {
            "engine": "llama.cpp",
            "engine_version": f"llama-cpp-python {version('llama-cpp-python')}",
            "system": lib.llama_print_system_info().decode().strip(),
            "batch": BATCH,
            "cache": "fp16",
        }

    def feed(self, tokens: list[int]) -> None:
        for at in range(0, len(tokens), BATCH):
            part = tokens[at : at + BATCH]
            self._decode(part, wanted=at + len(part) == len(tokens))
        logits = llama_cpp.llama_get_logits_ith(self._context, -1)  # waits for them
        assert ctypes.cast(logits, ctypes.c_void_p).value, "no logits"

    def _decode(self, tokens: list[int], wanted: bool) -> None:
        batch = self._batch
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0] = (
                token,
                self._length + i,
                1,
                0,
            )
            batch.logits[i] = wanted and i == len(tokens) - 1
        failed = llama_cpp.llama_decode(self._context, batch)
        if failed:
            raise RuntimeError(f"llama_decode returned {failed}")
        self._length += len(tokens)

    def rewind(self, length: int) -> None:
        memory = llama_cpp.llama_get_memory(self._context)
        if not llama_cpp.llama_memory_seq_rm(memory, 0, length, -1):
            raise RuntimeError(f"cannot rewind to {length}")
        self._length = length


def load(path: Path, variant: str, threads: int, context: int) -> LlamaCpp:
    return LlamaCpp(path, threads, context)


if __name__ == "__main__":
    serve(convert, load)
