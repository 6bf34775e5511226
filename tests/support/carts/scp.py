"""SCP-ECG."""

from __future__ import annotations

import binascii
import struct

import numpy as np
from numpy.typing import NDArray

from support.carts.signals import LEADS, OTHER, PERSON, RATE, SECRET, STEP, Signals

NUMBERS = dict(zip(LEADS, (1, 2, 61, 62, 63, 64, 3, 4, 5, 6, 7, 8), strict=True))


def scp_file(
    signals: Signals,
    *,
    rate: int = RATE,
    step: float = STEP,
    packed: bool = False,
    differences: int = 0,
    rhythm: bool = True,
    checksums: bool = True,
    starts: dict[str, int] | None = None,
) -> bytes:
    """A record.

    Args:
        signals: counts by lead.
        rate: samples per second.
        step: uV of a count.
        packed: whether samples are in the default Huffman codes.
        differences: 0, 1 or 2: how often they were differenced.
        rhythm: whether there is rhythm data, besides a reference beat.
        checksums: whether they are right.
        starts: number of a lead's first sample, from 1.
    """
    leads = list(signals)
    texts = {0: PERSON, 1: OTHER, 2: SECRET, 16: f"{PERSON} Hospital", 20: OTHER, 21: PERSON,
             22: PERSON, 30: f"seen by {OTHER}"}  # fmt: skip
    tags = [(tag, text.encode() + b"\0") for tag, text in texts.items()]
    tags += [(5, struct.pack("<HBB", 1987, 2, 13)), (25, struct.pack("<HBB", 1987, 2, 13))]
    tags += [(14, bytes(14) + bytes([20]) + bytes(21) + f"{PERSON}\0".encode())]
    tags += [(27, struct.pack("<H", 5)), (28, struct.pack("<H", 150)), (29, bytes([2]))]
    patient = b"".join(struct.pack("<BH", tag, len(value)) + value for tag, value in tags)
    first = starts or {}
    ranges = b"".join(
        struct.pack(
            "<IIB",
            first.get(lead, 1),
            first.get(lead, 1) + len(row) - 1,
            NUMBERS[lead],
        )
        for lead, row in signals.items()
    )
    bodies = {
        1: patient + b"\xff\0\0",
        3: bytes([len(leads), 0x04]) + ranges,
        5: _samples({lead: row[:300] for lead, row in signals.items()}, rate, step, False, 0),
        7: bytes([1, 0]) + struct.pack("<HH", 800, 0xFFFF)
        + struct.pack("<5H3h", 286, 388, 434, 554, 854, 44, -61, 999),
        8: bytes([0]) + struct.pack("<HBB", 1987, 2, 13) + bytes(3) + bytes([2])
        + _statement(1, "Sinus rhythm") + _statement(2, f"Reviewed by {PERSON}"),
    }  # fmt: skip
    if packed:
        bodies[2] = struct.pack("<H", 19999)
        del bodies[5]
    if rhythm:
        bodies[6] = _samples(signals, rate, step, packed, differences)
    return _record(bodies, checksums)


def _statement(number: int, text: str) -> bytes:
    value = text.encode() + b"\0"
    return struct.pack("<BH", number, len(value)) + value


def _samples(signals: Signals, rate: int, step: float, packed: bool, differences: int) -> bytes:
    parts = [_encoded(row, packed, differences) for row in signals.values()]
    head = struct.pack("<HHBB", round(step * 1000), 1_000_000 // rate, differences, 0)
    return head + struct.pack(f"<{len(parts)}H", *map(len, parts)) + b"".join(parts)


def _encoded(row: NDArray[np.int64], packed: bool, differences: int) -> bytes:
    values = row.copy()
    for order in range(differences):
        values[order + 1 :] = np.diff(values[order:])
    if not packed:
        return values.astype("<i2").tobytes()
    bits = "".join(map(_huffman, values.tolist()))
    bits += "0" * (-len(bits) % 16)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


def _huffman(value: int) -> str:
    """The default table: ones and a sign up to 8, else 8 or 16 bits after a prefix."""
    if value == 0:
        return "0"
    if abs(value) <= 8:
        return "1" * abs(value) + "0" + ("1" if value < 0 else "0")
    if -128 <= value < 128:
        return "1111111110" + f"{value & 0xFF:08b}"
    return "1111111111" + f"{value & 0xFFFF:016b}"


def _record(bodies: dict[int, bytes], checksums: bool) -> bytes:
    numbers = list(range(12))
    pointers = 16 + 10 * len(numbers)
    sections = {n: _section(n, body, checksums) for n, body in sorted(bodies.items())}
    place = 6 + pointers
    table = struct.pack("<HII", 0, pointers, 7)
    for number in numbers[1:]:
        size = len(sections.get(number, b""))
        table += struct.pack("<HII", number, size, place + 1 if size else 0)
        place += size
    record = _section(0, table, checksums) + b"".join(sections.values())
    body = struct.pack("<I", len(record) + 6) + record
    return struct.pack("<H", _checksum(body, checksums)) + body


def _section(number: int, body: bytes, checksums: bool) -> bytes:
    body += bytes(len(body) % 2)
    head = struct.pack("<HIBB6s", number, len(body) + 16, 20, 20, b"SCPECG" if not number else b"")
    return struct.pack("<H", _checksum(head + body, checksums)) + head + body


def _checksum(data: bytes, right: bool) -> int:
    return binascii.crc_hqx(data, 0xFFFF) ^ (0 if right else 1)
