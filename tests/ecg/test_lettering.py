"""Headers of any characters: which font writes them, and what stands for those that none has."""

from __future__ import annotations

import pytest
from PIL import features

from pulse_edge.ecg.lettering import (
    REPLACEMENT,
    glyphs_of,
    header_notes,
    header_text,
    is_plain,
    wrap_lines,
)
from pulse_edge.errors import ParameterError

WRITTEN = [
    *("Müller", "Ångström", "Łódź", "Ștefan", "Müllerstraße", "Ωμέγα", "Жук", "Հայ", "ქართ"),
    *("5 µV ± 1 °", "≥ 50 % — ½", "“naïve” € 5", "Nguyễn", "İzmir", "Þór", "Čeněk", "Ñandú"),
]


@pytest.mark.parametrize("text", WRITTEN)
def test_letters_of_alphabets_are_written(text: str) -> None:
    assert header_text(text) == text
    assert header_notes(text) == ()
    absent = glyphs_of("\U0010fffe", 20, is_plain(text)).cover.tobytes()
    for letter in text.replace(" ", ""):
        glyph = glyphs_of(letter, 20, is_plain(text)).cover
        assert glyph.any()
        assert glyph.tobytes() != absent


@pytest.mark.parametrize("text", ["ID 7", "Sex: F", "40 Hz filter ~50%"])
def test_ascii_keeps_the_font_that_pulse_knows(text: str) -> None:
    assert is_plain(text)


@pytest.mark.parametrize("text", ["שלום", "عمر", "Dr. שלום 7"])
def test_right_to_left_letters_are_ordered_or_refused(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if features.check_feature("raqm"):
        assert header_text(text) == text
    monkeypatch.setattr(features, "check_feature", lambda _: False)
    with pytest.raises(ParameterError, match=r"right-to-left letters.*install FriBiDi"):
        header_text(text)
    assert header_text("Jürgen") == "Jürgen"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("中文", 2 * REPLACEMENT),
        ("한 a", f"{REPLACEMENT} a"),
        ("カ", REPLACEMENT),
        ("अ", REPLACEMENT),
        ("a\x00b", f"a{REPLACEMENT}b"),
        ("a\udcffb", f"a{REPLACEMENT}b"),
        ("\ue000", REPLACEMENT),
    ],
)
def test_what_no_font_has_is_replaced_and_said(text: str, shown: str) -> None:
    assert header_text(text) == shown
    lost = [letter for letter, other in zip(text, shown, strict=True) if letter != other]
    (note,) = header_notes(text)
    assert all(f"U+{ord(letter):04X}" in note for letter in lost)
    note.encode()  # prints


def test_decomposed_letters_are_composed_and_tabs_are_spaces() -> None:
    assert header_text("Mu\u0308ller\tA") == "Müller    A"
    assert header_notes(None) == header_notes("a\tb\nc") == ()


def test_lines_are_measured_in_the_font_that_writes_them() -> None:
    for text in ("words of a header " * 9, "Wörter eines Kopfes " * 9):
        plain = is_plain(text)
        for line in wrap_lines(text, 20, 400):
            assert glyphs_of(line, 20, plain).cover.shape[1] <= 402
