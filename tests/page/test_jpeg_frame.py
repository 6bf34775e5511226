"""A JPEG's frame and scans, by their headers: sizes in units, memory, and what is missing."""

from __future__ import annotations

import struct

import pytest

from pulse_edge.errors import ImageError
from pulse_edge.page.jpeg_frame import Component, Frame, Scan, read_frame, read_scan

YCC = (Component(1, 2, 2), Component(2, 1, 1), Component(3, 1, 1))


def header(
    *components: tuple[int, int, int], width: int = 200, height: int = 150, bits: int = 8
) -> bytes:
    body = struct.pack(">BHHB", bits, height, width, len(components))
    return body + b"".join(bytes((n, across << 4 | down, 0)) for n, across, down in components)


def frame(*components: Component, progressive: bool = False) -> Frame:
    return Frame(200, 150, progressive, components or YCC)


@pytest.mark.parametrize(("marker", "progressive"), [(0xC0, False), (0xC1, False), (0xC2, True)])
def test_a_frame_is_read(marker: int, progressive: bool) -> None:
    body = header((1, 2, 2), (2, 1, 1), (3, 1, 1))
    assert read_frame(marker, body) == frame(progressive=progressive)
    assert read_frame(marker, body + b"more") == frame(progressive=progressive)
    wide = header((9, 4, 1), (8, 1, 4), (7, 3, 2), (6, 1, 1))
    assert read_frame(marker, wide).components == ((9, 4, 1), (8, 1, 4), (7, 3, 2), (6, 1, 1))


@pytest.mark.parametrize(
    ("marker", "body", "message"),
    [
        (0xC3, header((1, 1, 1)), r"unusual kind \(lossless\)"),
        (0xCA, header((1, 1, 1)), r"unusual kind \(arithmetic coding\)"),
        (0xC7, header((1, 1, 1)), r"unusual kind \(frame type 7\)"),
        (0xC0, header((1, 1, 1))[:5], "frame header of the JPEG is too short"),
        (0xC0, header((1, 1, 1))[:8], "frame header of the JPEG is too short"),
        (0xC0, header((1, 1, 1), (2, 1, 1), (3, 1, 1))[:-1], "frame header .* is too short"),
        (0xC0, header((1, 1, 1), bits=12), "12 bits a sample, not 8"),
        (0xC0, header(), "0 components, not 1, 3 or 4"),
        (0xC0, header((1, 1, 1), (2, 1, 1)), "2 components, not 1, 3 or 4"),
        (0xC0, header(*[(n, 1, 1) for n in range(5)]), "5 components, not 1, 3 or 4"),
        (0xC0, header((1, 0, 1)), "samples a component impossibly"),
        (0xC0, header((1, 1, 0)), "samples a component impossibly"),
        (0xC0, header((1, 5, 1)), "samples a component impossibly"),
        (0xC0, header((1, 1, 5)), "samples a component impossibly"),
        (0xC0, header((1, 1, 1), width=0), "0 x 150 pixels"),
        (0xC0, header((1, 1, 1), height=0), "200 x 0 pixels"),
    ],
)
def test_other_frames_are_refused_by_name(marker: int, body: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        read_frame(marker, body)


@pytest.mark.parametrize(
    ("components", "expected"),
    [
        ((Component(1, 1, 1),), 2),
        ((Component(1, 2, 2),), 2),
        (YCC, 3),
        ((Component(1, 2, 1), Component(2, 1, 1), Component(3, 1, 1)), 4),
        (tuple(Component(n, 1, 1) for n in range(4)), 8),
        ((Component(1, 4, 1), Component(2, 1, 1), Component(3, 2, 1)), 3.5),
    ],
)
def test_coefficients_take_two_bytes_a_sample(
    components: tuple[Component, ...], expected: float
) -> None:
    assert frame(*components).coefficient_bytes == expected


@pytest.mark.parametrize(
    ("numbers", "units"),
    [
        ((1, 2, 3), 13 * 10),  # 200 x 150 in squares of 16
        ((1, 2), 13 * 10),
        ((1,), 25 * 19),  # in blocks of 8
        ((2,), 13 * 10),  # 100 x 75
    ],
)
def test_units_of_scans(numbers: tuple[int, ...], units: int) -> None:
    assert frame().units(numbers) == units


def test_units_of_components_that_differ_across_and_down() -> None:
    made = Frame(99, 65, False, (Component(1, 4, 1), Component(2, 1, 2), Component(3, 2, 2)))
    assert made.units((1, 2, 3)) == 4 * 5  # 32 x 16
    assert made.units((1,)) == 13 * 5  # 99 x 33
    assert made.units((2,)) == 4 * 9  # 25 x 65
    assert made.units((3,)) == 7 * 9  # 50 x 65


# --- scans ----------------------------------------------------------------------------------------


def scan_header(*numbers: int, spectrum: tuple[int, int, int] = (0, 63, 0)) -> bytes:
    return bytes((len(numbers), *(b for n in numbers for b in (n, 0)), *spectrum))


def test_a_scan_is_read() -> None:
    progressive = frame(progressive=True)
    scan = read_scan(scan_header(2, spectrum=(1, 63, 0x21)), progressive)
    assert scan == Scan((2,), 1, 63, 1, 130)
    whole = read_scan(scan_header(1, 2, 3, spectrum=(0, 0, 0x01)), progressive)
    assert whole == Scan((1, 2, 3), 0, 0, 1, 130)
    # A baseline decoder does not look at the spectrum.
    assert read_scan(scan_header(3, spectrum=(9, 3, 7)), frame()) == Scan((3,), 0, 63, 0, 130)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "scan header of the JPEG is too short"),
        (bytes((0, 0, 63, 0)), "scan header of the JPEG is too short"),
        (bytes((1, 1, 0, 0, 63)), "scan header of the JPEG is too short"),
        (scan_header(1, 2, 3)[:-1], "scan header of the JPEG is too short"),
        (scan_header(1, 2, 3, 1, 2), "scan header of the JPEG is too short"),
        (scan_header(4), "names an unknown component"),
        (scan_header(1, 0), "names an unknown component"),
        (scan_header(1, spectrum=(0, 64, 0)), "names unknown coefficients"),
        (scan_header(1, spectrum=(5, 4, 0)), "names unknown coefficients"),
        (scan_header(1, spectrum=(64, 64, 0)), "names unknown coefficients"),
    ],
)
def test_damaged_scan_headers_are_refused(body: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        read_scan(body, frame(progressive=True))


FIRST, REST = Scan((1,), 0, 0, 0, 1), Scan((1,), 1, 63, 0, 1)


@pytest.mark.parametrize(
    ("scans", "complete"),
    [
        ([Scan((1,), 0, 63, 0, 1)], True),
        ([FIRST, REST], True),
        ([FIRST], False),
        ([REST], False),
        ([FIRST, Scan((1,), 1, 62, 0, 1)], False),
        ([FIRST, Scan((1,), 2, 63, 0, 1)], False),
        ([FIRST, Scan((1,), 1, 63, 1, 1)], False),
        ([FIRST, Scan((1,), 1, 63, 1, 1), REST], True),
        ([FIRST, Scan((1,), 1, 5, 2, 1), Scan((1,), 6, 63, 0, 1)], False),
        ([Scan((2,), 0, 63, 0, 1)], False),
        ([], False),
    ],
)
def test_every_coefficient_must_be_refined_to_its_last_bit(
    scans: list[Scan], complete: bool
) -> None:
    made = frame(Component(1, 1, 1))
    if complete:
        made.check_complete(scans)
    else:
        with pytest.raises(ImageError, match="lacks scans that complete its picture"):
            made.check_complete(scans)


def test_every_component_must_be_complete() -> None:
    whole = Scan((1, 2, 3), 0, 63, 0, 1)
    frame().check_complete([whole])
    with pytest.raises(ImageError, match="lacks scans"):
        frame().check_complete([Scan((1, 3), 0, 63, 0, 1)])
