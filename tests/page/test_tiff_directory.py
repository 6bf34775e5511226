"""Directories of TIFF, byte by byte: what lies at the end of a file, and what lies beyond."""

from __future__ import annotations

import struct

import pytest

from pulse_edge.page.tiff_directory import Directory, Flavour, read_directory, read_tiff_header

SMALL = Flavour("<", "H", "I")
HEAD = b"II*\0\x08\0\0\0"


def directory(*entries: bytes, behind: bytes = bytes(4), count: int | None = None) -> Directory:
    number = len(entries) if count is None else count
    return read_directory(HEAD + struct.pack("<H", number) + b"".join(entries) + behind, SMALL, 8)


def entry(number: int, kind: int, values: int, content: bytes | int) -> bytes:
    place = struct.pack("<I", content) if isinstance(content, int) else content.ljust(4, b"\0")
    return struct.pack("<HHI", number, kind, values) + place


@pytest.mark.parametrize(
    ("data", "flavour", "offset"),
    [
        (b"II*\0\x08\0\0\0", ("<", "H", "I"), 8),
        (b"MM\0*\0\0\1\2", (">", "H", "I"), 258),
        (b"II+\0\x08\0\0\0" + struct.pack("<Q", 16), ("<", "Q", "Q"), 16),
        (b"MM\0+\0\x08\0\0" + struct.pack(">Q", 1 << 40), (">", "Q", "Q"), 1 << 40),
    ],
)
def test_headers(data: bytes, flavour: tuple[str, str, str], offset: int) -> None:
    assert read_tiff_header(data) == (flavour, offset)
    with pytest.raises(ValueError, match="no TIFF header"):
        read_tiff_header(data[:-1])


def test_another_version_is_no_header() -> None:
    for version in (41, 44, 0x2A00):
        with pytest.raises(ValueError, match=rf"no TIFF header \(version {version}\)"):
            read_tiff_header(b"II" + struct.pack("<H", version) + bytes(20))


@pytest.mark.parametrize(
    ("kind", "content", "values"),
    [
        (1, b"\1\xff\3\4", (1, 255, 3, 4)),
        (3, b"\1\2\xff\xff", (513, 65535)),
        (4, b"\0\0\0\x80", (1 << 31,)),
        (6, b"\xff\1", (-1, 1)),
        (8, b"\xff\xff\1\0", (-1, 1)),
        (9, b"\xfe\xff\xff\xff", (-2,)),
        (13, b"\x10\0\0\0", (16,)),
    ],
)
def test_numbers_of_every_type_that_fit_in_the_entry(
    kind: int, content: bytes, values: tuple[int, ...]
) -> None:
    found = directory(entry(300, kind, len(values), content))
    assert found.integers(300) == values
    assert found.integer(300, 7) == values[0]
    assert (found.complete, found.next) == (True, 0)


@pytest.mark.parametrize(
    ("kind", "form"), [(1, "5B"), (3, "3H"), (4, "2I"), (16, "Q"), (17, "q"), (18, "Q")]
)
def test_numbers_behind_the_directory(kind: int, form: str) -> None:
    numbers = tuple(
        range(1, 1 + len(struct.unpack(f"<{form}", bytes(struct.calcsize("<" + form)))))
    )
    content = struct.pack("<" + form, *numbers)
    place = 8 + 2 + 12 + 4
    made = directory(entry(300, kind, len(numbers), place), behind=bytes(4) + content)
    assert made.integers(300) == numbers
    assert made.content(300) == content
    cut = directory(entry(300, kind, len(numbers), place), behind=bytes(4) + content[:-1])
    assert cut.content(300) == b""
    with pytest.raises(ValueError, match="the values of tag 300 lie outside the file"):
        cut.integers(300)


@pytest.mark.parametrize(("kind", "size"), [(2, 1), (5, 8), (7, 1), (10, 8), (11, 4), (12, 8)])
def test_other_types_are_bytes_and_no_numbers(kind: int, size: int) -> None:
    content = bytes(range(3 * size))
    inline = len(content) <= 4
    made = directory(
        entry(300, kind, 3, content if inline else 26),
        behind=bytes(4) + (b"" if inline else content),
    )
    assert made.content(300) == content
    assert made.integers(300, (5,)) == (5,)


def test_absent_unknown_and_empty_tags_have_their_default() -> None:
    made = directory(entry(300, 99, 1, b"\1"), entry(301, 3, 0, b"\1"))
    for number in (300, 301, 302):
        assert made.integers(number) == ()
        assert made.integer(number, 9) == 9
        assert made.content(number) == b""


def test_as_many_values_as_rows_of_the_tallest_page() -> None:
    most = 1 << 18
    behind = bytes(4) + bytes(range(256)) * (most // 256) + b"\7"
    assert len(directory(entry(300, 1, most, 26), behind=behind).integers(300)) == most
    with pytest.raises(ValueError, match="tag 300 has 262,145 values, over 262,144"):
        directory(entry(300, 1, most + 1, 26), behind=behind).integers(300)


def test_of_entries_with_one_number_the_first_counts() -> None:
    assert directory(entry(274, 3, 1, b"\6\0"), entry(274, 3, 1, b"\3\0")).integer(274, 1) == 6


@pytest.mark.parametrize(
    ("behind", "following"),
    [(b"\x05\0\0\0", 5), (b"\x05\0\0\0more", 5), (b"\x05\0\0", 0), (b"", 0)],
)
def test_the_next_directory(behind: bytes, following: int) -> None:
    made = directory(entry(300, 3, 1, b"\1"), behind=behind)
    assert (made.next, made.complete, made.integer(300, 0)) == (following, True, 1)
    empty = directory(behind=behind)
    assert (empty.next, empty.tags) == (following, {})


def test_a_directory_that_ends_early_is_not_complete() -> None:
    made = directory(entry(300, 3, 1, b"\1"), entry(301, 3, 1, b"\1")[:11], count=2, behind=b"")
    assert (made.complete, set(made.tags), made.next) == (False, {300}, 0)
    many = [entry(n, 3, 1, b"\1") for n in range(1025)]
    assert directory(*many[:1024]).complete
    assert not directory(*many).complete
    assert len(directory(*many).tags) == 1024


@pytest.mark.parametrize("offset", [0, 7, 10, 11, 1 << 40])
def test_a_directory_outside_the_file_is_none(offset: int) -> None:
    data = HEAD + b"\0\0\0"
    assert read_directory(data, SMALL, 9).tags == {}  # its count is the last two bytes
    if offset == 10:
        data = data[:-1] + b""
    with pytest.raises(ValueError, match=rf"no directory at byte {offset} of {len(data)}"):
        read_directory(data, SMALL, offset)


def test_entries_of_bigtiff_hold_8_bytes() -> None:
    big = Flavour("<", "Q", "Q")
    assert (SMALL.entry_size, big.entry_size) == (12, 20)
    inline = struct.pack("<HHQ4H", 300, 3, 4, 1, 2, 3, 4)
    apart = struct.pack("<HHQQ", 301, 3, 5, 16 + 8 + 40 + 8)
    data = (
        bytes(16) + struct.pack("<Q", 2) + inline + apart + struct.pack("<Q5H", 99, 5, 6, 7, 8, 9)
    )
    made = read_directory(data, big, 16)
    assert (made.integers(300), made.integers(301), made.next) == (
        (1, 2, 3, 4),
        (5, 6, 7, 8, 9),
        99,
    )
