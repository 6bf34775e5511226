"""Elements of DICOM written byte by byte: values, sequences, and the first bytes of files."""

from __future__ import annotations

import struct

import pytest

from pulse_edge.ecg.readers.dicom_budget import ParseBudget
from pulse_edge.ecg.readers.dicom_items import DicomElement, DicomItem, first_element, read_items
from pulse_edge.ecg.readers.dicom_tags import TAGS

pytest.importorskip("pydicom")

UNDEFINED = 0xFFFFFFFF
LONG_FORMS = (b"OB", b"OW", b"SQ", b"UN")


def tag(keyword: str) -> tuple[int, int]:
    return TAGS[keyword] >> 16, TAGS[keyword] & 0xFFFF


def explicit(keyword: str, kind: bytes, value: bytes, order: str = "<", length: int = -1) -> bytes:
    size = len(value) if length < 0 else length
    head = struct.pack(order + "HH2s", *tag(keyword), kind)
    return head + struct.pack(order + ("2xI" if kind in LONG_FORMS else "H"), size) + value


def implicit(keyword: str, value: bytes, length: int = -1) -> bytes:
    return struct.pack("<HHI", *tag(keyword), len(value) if length < 0 else length) + value


def item(value: bytes, length: int = -1, order: str = "<") -> bytes:
    return struct.pack(order + "HHI", 0xFFFE, 0xE000, len(value) if length < 0 else length) + value


ITEM_END = struct.pack("<HHI", 0xFFFE, 0xE00D, 0)
END = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
MODALITY = explicit("Modality", b"CS", b"ECG ")


def one(kind: str, value: bytes, order: str = "<", keyword: str = "CodeValue") -> DicomItem:
    """A data set of one element."""
    element = DicomElement(TAGS[keyword], kind, value, False)
    return DicomItem([element], order, ParseBudget())


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b"ECG", "ECG"),
        (b" ECG \0\0", "ECG"),
        (b"\0 \0", None),
        (b"", None),
        ("\u03bcV".encode(), "\u03bcV"),
        (b"\xb5V", "\xb5V"),  # Latin-1
    ],
)
def test_texts(value: bytes, text: str | None) -> None:
    assert one("SH", value).text("CodeValue") == text
    assert one("SH", value).text("Modality") is None


@pytest.mark.parametrize(
    ("kind", "value", "number"),
    [
        ("DS", b"2.5 ", 2.5),
        ("IS", b"-7", -7),
        ("DS", b" ", None),
        ("US", b"\1\2", 513),
        ("SS", b"\xff\xff", -1),
        ("UL", b"\1\0\0\x80", (1 << 31) + 1),
        ("SL", b"\xfe\xff\xff\xff", -2),
        ("FL", struct.pack("<f", 0.5), 0.5),
        ("FD", struct.pack("<d", -0.1), -0.1),
    ],
)
def test_numbers(kind: str, value: bytes, number: float | None) -> None:
    assert one(kind, value).number("CodeValue") == number
    assert one(kind, value).number("Modality") is None
    if kind in ("US", "SS", "UL", "SL", "FL", "FD"):
        assert one(kind, value[::-1], ">").number("CodeValue") == number
        for other in (value + value, value + b"\0", value[:-1]):
            with pytest.raises(ValueError, match="CodeValue is no single number"):
                one(kind, other).number("CodeValue")


@pytest.mark.parametrize("value", [b"fast", b"1\\2", b"1,5"])
def test_texts_that_are_no_numbers_are_not_quoted(value: bytes) -> None:
    with pytest.raises(ValueError, match=r"^CodeValue is no number$"):
        one("DS", value).number("CodeValue")


def test_without_a_representation_the_dictionarys_counts() -> None:
    assert one("", b"\x10\0", keyword="WaveformBitsStored").number("WaveformBitsStored") == 16
    assert one("", b"2.5 ", keyword="ChannelBaseline").number("ChannelBaseline") == 2.5


def test_a_sequence_is_no_value_and_a_value_no_sequence() -> None:
    inner = one("SH", b"x")
    element = DicomElement(TAGS["CodeValue"], "SQ", [inner], False)
    outer = DicomItem([element], "<", ParseBudget())
    assert outer.items("CodeValue") == [inner]
    for read in (outer.data, outer.text, outer.number):
        with pytest.raises(ValueError, match=r"^CodeValue is a sequence$"):
            read("CodeValue")
    assert one("SQ", b"").items("CodeValue") == []
    assert one("SQ", b"").items("Modality") == []
    with pytest.raises(ValueError, match="a sequence holds something else than items"):
        one("SH", b"a text of 16 byt").items("CodeValue")


# --- the first bytes ------------------------------------------------------------------------------


def head(
    group: int, element: int, kind: bytes, length: int, order: str = "<", size: int = 12
) -> bytes:
    """An element's head of 8 bytes, cut or filled to `size`."""
    if kind:
        made = struct.pack(order + "HH2sH", group, element, kind, length)
    else:
        made = struct.pack(order + "HHI", group, element, length)
    return made.ljust(size, b"\0")[:size]


@pytest.mark.parametrize(
    ("data", "place"),
    [
        (bytes(128) + b"DICM", 132),
        (b"DICM", 4),
        (bytes(127) + b"DICM" + bytes(9), None),
        (bytes(129) + b"DICM", None),
        (head(2, 0, b"UL", 4), 0),
        (head(8, 5, b"CS", 10), 0),
        (head(8, 5, b"", 10), 0),
        (head(8, 0x1FFF, b"", 10), 0),
        (head(8, 0x2000, b"", 10), None),
        (head(8, 0x2000, b"CS", 10), None),
        (head(8, 5, b"", 0x3FF), 0),
        (head(8, 5, b"", 0x400), None),
        (head(8, 5, b"CS", 0x4000), 0),  # a length that counts only without a representation
        (head(8, 5, b"cs", 0x4000), None),
        (head(8, 5, b"C\0", 0x4000), None),
        (head(8, 5, b"C1", 0x4000), None),
        (head(8, 5, b"Cs", 0x4000), None),
        (head(8, 5, b"cS", 0x4000), None),
        (head(8, 5, b"1S", 0x4000), None),
        (head(2, 0, b"UL", 4, ">"), 0),
        (head(8, 5, b"CS", 10, ">"), 0),
        (head(8, 5, b"", 0x3FF, ">"), 0),
        (head(8, 5, b"", 0x400, ">"), None),
        (head(8, 0x2000, b"CS", 10, ">"), None),
        (head(3, 5, b"CS", 10), None),
        (head(0x0208, 5, b"CS", 10), None),
        (head(8, 5, b"CS", 10, size=11), None),
        (head(8, 5, b"CS", 10, size=13), 0),
        (b"", None),
    ],
)
def test_where_a_file_begins(data: bytes, place: int | None) -> None:
    assert first_element(data) == place


def test_a_file_that_is_none_is_said() -> None:
    with pytest.raises(ValueError, match="neither a DICOM mark nor a first element"):
        read_items(b"no recording" * 40)
    marked_late = bytes(129) + b"DICM" + MODALITY
    with pytest.raises(ValueError, match="neither a DICOM mark"):
        read_items(marked_late)


# --- whole data sets ------------------------------------------------------------------------------


def meta(syntax: bytes) -> bytes:
    """A meta header that names a transfer syntax."""
    value = syntax + b"\0" * (len(syntax) % 2)
    return struct.pack("<HH2sH", 2, 0x0010, b"UI", len(value)) + value


@pytest.mark.parametrize("syntax", [b"1.2.840.10008.1.2.2", b"1.2.840.10008.1.2.2 "])
def test_the_transfer_syntax_tells_the_order_of_bytes(syntax: bytes) -> None:
    body = explicit("Modality", b"CS", b"ECG ", ">")
    body += explicit("WaveformBitsStored", b"US", b"\0\x10", ">")
    for front in (bytes(128) + b"DICM" + meta(syntax), meta(syntax), b""):
        whole = read_items(front + body)
        assert (whole.order, whole.text("Modality")) == (">", "ECG")
        assert whole.number("WaveformBitsStored") == 16


CODES = explicit("CodeValue", b"SH", b"2:1 ") + explicit("CodeMeaning", b"LO", b"Lead I")
IMPLICIT_CODES = implicit("CodeValue", b"2:1 ") + implicit("CodeMeaning", b"Lead I")


@pytest.mark.parametrize(
    "sequence",
    [
        explicit("ChannelSourceSequence", b"SQ", item(CODES)),
        explicit("ChannelSourceSequence", b"SQ", item(CODES) + END, length=UNDEFINED),
        explicit(
            "ChannelSourceSequence",
            b"SQ",
            item(CODES + ITEM_END, UNDEFINED) + END,
            length=UNDEFINED,
        ),
        explicit("ChannelSourceSequence", b"SQ", item(CODES + ITEM_END, UNDEFINED)),
        # Of unknown representation, what is in it leaves representations out (PS3.5, 6.2.2).
        explicit("ChannelSourceSequence", b"UN", item(IMPLICIT_CODES)),
        explicit("ChannelSourceSequence", b"UN", item(IMPLICIT_CODES) + END, length=UNDEFINED),
    ],
)
@pytest.mark.parametrize("behind", [b"", explicit("ChannelLabel", b"SH", b"I ")])
def test_sequences_in_explicit_files(sequence: bytes, behind: bytes) -> None:
    whole = read_items(MODALITY + sequence + behind)
    (source,) = whole.items("ChannelSourceSequence")
    assert (source.text("CodeValue"), source.text("CodeMeaning")) == ("2:1", "Lead I")
    assert whole.text("ChannelLabel") == ("I" if behind else None)
    assert whole.text("Modality") == "ECG"


@pytest.mark.parametrize(
    "sequence",
    [
        implicit("ChannelSourceSequence", item(IMPLICIT_CODES)),
        implicit("ChannelSourceSequence", item(IMPLICIT_CODES) + END, UNDEFINED),
        implicit(
            "ChannelSourceSequence", item(IMPLICIT_CODES + ITEM_END, UNDEFINED) + END, UNDEFINED
        ),
    ],
)
def test_sequences_in_implicit_files(sequence: bytes) -> None:
    whole = read_items(
        implicit("Modality", b"ECG ") + sequence + implicit("WaveformBitsStored", b"\x10\0")
    )
    (source,) = whole.items("ChannelSourceSequence")
    assert (source.text("CodeValue"), source.text("CodeMeaning")) == ("2:1", "Lead I")
    assert whole.number("WaveformBitsStored") == 16


@pytest.mark.parametrize("kind", [b"SQ", b"OB", b"UN"])
def test_what_is_not_asked_for_is_skipped(kind: bytes) -> None:
    """A private sequence, or fragments of an image: of undefined length, and of any content."""
    private = struct.pack("<HH2s2xI", 0x0009, 0x1010, kind, UNDEFINED)
    fragments = item(b"\xff\xd8\xff\xe0junk") + item(b"") + END
    whole = read_items(MODALITY + private + fragments + explicit("CodeValue", b"SH", b"x "))
    assert (whole.text("Modality"), whole.text("CodeValue")) == ("ECG", "x")


@pytest.mark.parametrize("length", [2, 10, 300])
def test_a_character_set_is_stepped_over(length: int) -> None:
    """Of any length. pydicom would look it up, and warn."""
    value = b"ISO 9999".ljust(length)[:length]
    charset = struct.pack("<HH2sH", 8, 5, b"CS", length) + value
    whole = read_items(charset + MODALITY + charset + explicit("CodeValue", b"SH", b"x "))
    assert (whole.text("Modality"), whole.text("CodeValue")) == ("ECG", "x")


def test_a_sequence_of_something_else_is_refused() -> None:
    broken = explicit("WaveformSequence", b"SQ", CODES, length=UNDEFINED)
    with pytest.raises(ValueError, match="a sequence holds something else than items"):
        read_items(MODALITY + broken)


@pytest.mark.parametrize(("levels", "accepted"), [(16, True), (17, False)])
def test_sequences_nest_16_deep(levels: int, accepted: bool) -> None:
    nested = b""
    for _ in range(levels):
        nested = explicit(
            "WaveformSequence", b"SQ", item(nested + ITEM_END, UNDEFINED) + END, length=UNDEFINED
        )
    if accepted:
        whole = read_items(MODALITY + nested)
        for _ in range(levels):
            (whole,) = whole.items("WaveformSequence")
    else:
        with pytest.raises(ValueError, match="nest too deep"):
            read_items(MODALITY + nested)


def test_elements_and_items_are_counted_to_100_000() -> None:
    """The modality and the sequence are two of them."""
    elements = b"\x09\0\x10\x10LO\0\0"
    assert read_items(MODALITY + elements * 99_999).text("Modality") == "ECG"
    with pytest.raises(ValueError, match="too many elements"):
        read_items(MODALITY + elements * 100_000)
    items = struct.pack("<HH2s2xI", 0x0009, 0x1010, b"SQ", UNDEFINED) + item(b"") * 99_998
    assert read_items(MODALITY + items).text("Modality") == "ECG"
    with pytest.raises(ValueError, match="too many elements"):
        read_items(MODALITY + items + item(b""))


def test_lengths_that_look_like_letters() -> None:
    """0x4242 is "BB", and 0x62 a "b"."""
    whole = read_items(explicit("Modality", b"CS", b"ECG".ljust(0x62)) + CODES)
    assert (whole.text("Modality"), whole.text("CodeValue")) == ("ECG", "2:1")
    long = implicit("CodeMeaning", b"Lead I".ljust(0x4242)) + implicit("CodeValue", b"2:1 ")
    for sequence in (
        explicit("ChannelSourceSequence", b"UN", item(long)),
        explicit("ChannelSourceSequence", b"UN", item(long) + END, length=UNDEFINED),
    ):
        (source,) = read_items(MODALITY + sequence).items("ChannelSourceSequence")
        assert (source.text("CodeMeaning"), source.text("CodeValue")) == ("Lead I", "2:1")
