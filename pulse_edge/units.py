"""Sizes: of numbers in memory, and as text for people."""

from __future__ import annotations


def element_bytes(type_name: str) -> int:
    """Bytes of an element by the bits in its type's name: 2 for "fp16", 1 for "int8"."""
    return int(type_name.lstrip("abcdefghijklmnopqrstuvwxyz")) // 8


def size(bytes_: float) -> str:
    """A number of bytes in decimal units: 1,500 is "1.5 kB"."""
    for unit in ("B", "kB", "MB"):
        if bytes_ < 1000:
            return f"{bytes_:.0f} {unit}" if unit == "B" else f"{bytes_:.1f} {unit}"
        bytes_ /= 1000
    return f"{bytes_:.2f} GB"
