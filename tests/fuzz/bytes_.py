"""Damage to bytes that knows nothing of what they mean."""

from __future__ import annotations

import random


def flip_bits(data: bytes, rng: random.Random, most: int = 3) -> bytes:
    """Up to `most` bits turned."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, most)):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def truncate(data: bytes, rng: random.Random) -> bytes:
    """Cut off at the end: any length, or a few bytes."""
    if rng.random() < 0.5:
        return data[: rng.randrange(len(data))]
    return data[: -min(len(data), rng.randint(1, 16))]


def splice(data: bytes, rng: random.Random) -> bytes:
    """A part of it repeated, removed, zeroed or put elsewhere."""
    start = rng.randrange(len(data))
    end = min(len(data), start + rng.choice((1, 2, 4, 8, 64, 512)))
    part = data[start:end]
    match rng.randrange(4):
        case 0:
            return data[:end] + part + data[end:]
        case 1:
            return data[:start] + data[end:]
        case 2:
            return data[:start] + bytes(len(part)) + data[end:]
    rest = data[:start] + data[end:]
    at = rng.randrange(len(rest) + 1)
    return rest[:at] + part + rest[at:]


def overwrite(data: bytes, rng: random.Random) -> bytes:
    """One to eight bytes replaced by extreme numbers or noise."""
    width = rng.choice((1, 2, 4, 8))
    at = rng.randrange(len(data))
    value = rng.choice(
        (bytes(width), b"\xff" * width, b"\x7f" + b"\xff" * (width - 1), rng.randbytes(width))
    )
    return (data[:at] + value + data[at + width :])[: len(data)]


DAMAGE = {"flip": flip_bits, "truncate": truncate, "splice": splice, "overwrite": overwrite}
