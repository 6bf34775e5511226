"""What the kernels take: each takes one struct by value. The sources explain the fields."""

from __future__ import annotations

import ctypes

POINTER = ctypes.c_uint64  # a device address


class Gemv(ctypes.Structure):
    """Of gemv.cu."""

    _fields_ = (
        ("weights", POINTER * 2),
        ("scales", POINTER * 2),
        ("x", POINTER),
        ("x_sums", POINTER),
        ("x_squares", POINTER),
        ("residual", POINTER),
        ("y", POINTER),
        ("gain", POINTER),
        ("next_x", POINTER),
        ("next_sums", POINTER),
        ("next_squares", POINTER),
        ("logits", POINTER),
        ("best", POINTER),
        ("n", ctypes.c_int),
        ("rows", ctypes.c_int),
        ("next_layout", ctypes.c_int),
        ("x_factor", ctypes.c_float),
        ("epsilon", ctypes.c_float),
    )


class Embed(ctypes.Structure):
    """Of step.cu."""

    _fields_ = (
        ("table", POINTER),
        ("numbers", POINTER),
        ("gain", POINTER),
        ("residual", POINTER),
        ("x", POINTER),
        ("sums", POINTER),
        ("squares", POINTER),
        ("hidden", ctypes.c_int),
        ("layout", ctypes.c_int),
    )


class Choose(ctypes.Structure):
    """Of step.cu."""

    _fields_ = (("best", POINTER), ("tokens", POINTER), ("count", ctypes.c_int))


class Attention(ctypes.Structure):
    """Of attention.cu."""

    _fields_ = (
        ("qkv", POINTER),
        ("cosines", POINTER),
        ("sines", POINTER),
        ("keys", POINTER),
        ("values", POINTER),
        ("scales", POINTER),
        ("copied_keys", POINTER),
        ("copied_values", POINTER),
        ("lengths", POINTER),
        ("row_slots", POINTER),
        ("x", POINTER),
        ("x_sums", POINTER),
        ("partial", POINTER),
        ("arrivals", POINTER),
        ("rows", ctypes.c_int),
        ("heads", ctypes.c_int),
        ("kv_heads", ctypes.c_int),
        ("capacity", ctypes.c_int),
        ("layout", ctypes.c_int),
        ("least", ctypes.c_int),
        ("scale", ctypes.c_float),
    )


class Quantize(ctypes.Structure):
    """Of cache.cu."""

    _fields_ = (
        ("keys", POINTER),
        ("values", POINTER),
        ("key_bytes", POINTER),
        ("value_bytes", POINTER),
        ("scales", POINTER),
        ("kv_heads", ctypes.c_int),
        ("capacity", ctypes.c_int),
        ("begin", ctypes.c_int),
        ("end", ctypes.c_int),
        ("slot", ctypes.c_int),
    )
