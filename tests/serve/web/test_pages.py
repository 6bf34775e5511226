"""How an ECG gets onto the page, and what is shown of it."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.browser import requests_of
from support.dicom_files import dataset, ecg, group, save
from support.paced import paced
from support.requests import encoded, page
from support.screen import Screen
from support.served import eventually

pytestmark = pytest.mark.browser
SHOWN = "document.getElementById('picture')"


def picture_size(screen: Screen) -> Any:
    return screen.js(f"[{SHOWN}.naturalWidth, {SHOWN}.naturalHeight]")


@pytest.mark.parametrize("way", ["choose", "drop", "paste", "paste into the question"])
@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_an_image_comes(screen: Screen, tmp_path: Path, way: str, form: str) -> None:
    data = encoded(page(3, (160, 120)), form)
    path = tmp_path / "Planted Name"
    path.write_bytes(data)
    if way == "choose":
        screen.node("file").send_keys(str(path))
    elif way == "drop":
        screen.drop(data)
    else:
        if way != "paste":
            screen.node("question").click()
        screen.paste(data, f"image/{form.lower()}")
    screen.until_read()
    facts = screen.server.model.ask(data, "x", max_new_tokens=1).provenance["image"]
    assert picture_size(screen) == [160, 120]
    assert screen.js("at('page-facts')").startswith(f"{form} · 160 × 120 pixels · page ")
    assert screen.js("at('page-facts')").endswith(facts["sha256"][:12])
    assert screen.js("at('checks-title')") == "The server has no notes on this page."
    assert not screen.shown("drop")
    assert (
        screen.ask("What is the rhythm?")
        == screen.server.model.ask(data, "What is the rhythm?").text
    )
    assert "Planted" not in screen.js("document.body.outerHTML")


def test_the_reading_of_a_page_is_told(screen: Screen) -> None:
    model = screen.server.model
    with paced(model) as pace, ThreadPoolExecutor(1) as pool:
        pace.hold()
        pool.submit(model.ask, None, "x", max_new_tokens=2)
        assert eventually(lambda: pace.steps == 1)
        screen.drop(encoded(page(11, (90, 60)), "PNG"))
        screen.until("at('page-state').startsWith('The model is reading the page')")
        screen.until("at('page-facts') !== ''")
        assert screen.shown("page-progress")
        pace.go()
        screen.until_read()
    assert re.fullmatch(
        r"The model has read the page, in [\d.]+ m?s\.", screen.js("at('page-state')")
    )
    assert not screen.shown("page-progress")


def test_a_page_that_others_displace_can_be_asked_about(screen: Screen) -> None:
    model = screen.server.model
    data = encoded(page(12, (90, 60)), "PNG")
    with paced(model) as pace, ThreadPoolExecutor(1) as pool:
        pace.hold()
        pool.submit(model.ask, None, "x", max_new_tokens=2)
        assert eventually(lambda: pace.steps == 1)
        screen.drop(data)
        screen.until("at('page-state').startsWith('The model is reading the page')")
        screen.server.service.pages.clear()
        screen.until("at('page-state').startsWith('The model will read')")
        pace.go()
    assert screen.ask("What is the rhythm?") == model.ask(data, "What is the rhythm?").text


def test_text_that_is_pasted_goes_into_the_question(screen: Screen) -> None:
    screen.js(
        "document.dispatchEvent(new ClipboardEvent('paste',"
        "{ clipboardData: new DataTransfer(), cancelable: true })) || 1"
    )
    assert screen.shown("drop")
    assert screen.js(
        "document.dispatchEvent(new ClipboardEvent('paste',"
        "{ clipboardData: new DataTransfer(), cancelable: true }))"
    )  # not prevented


def test_a_recording_is_drawn_by_the_server(screen: Screen, tmp_path: Path) -> None:
    pytest.importorskip("pydicom")
    path = save(tmp_path / "ecg.dcm", dataset(group(ecg())))
    screen.choose(path)
    screen.until(f"{SHOWN}.naturalWidth > 0")
    assert picture_size(screen) == [2200, 1700]
    assert screen.js("at('page-facts')").startswith("Recording, drawn as a page · 2,200 × 1,700")
    expected = screen.server.model.ask(path, "What is the heart rate?")
    assert screen.ask("What is the heart rate?") == expected.text
    assert "Planted" not in screen.js("document.body.outerHTML")


def test_the_notes_on_a_recording_are_shown(screen: Screen, tmp_path: Path) -> None:
    pytest.importorskip("pydicom")
    leads = {name: row for name, row in ecg().items() if name != "V3"}
    path = save(tmp_path / "ecg.dcm", dataset(group(leads)))
    screen.choose(path)
    notes = screen.server.model.ask(path, "x", max_new_tokens=1).provenance["image"]["notes"]
    assert any("V3" in note for note in notes)
    assert screen.js("[...document.querySelectorAll('#checks li')].map((i) => i.textContent)") == (
        notes
    )
    assert screen.shown("checks")


def test_an_image_that_browsers_do_not_show_comes_from_the_server(screen: Screen) -> None:
    screen.drop(encoded(page(4, (150, 90)), "TIFF"), "image/tiff")
    screen.until_read()
    screen.until(f"{SHOWN}.naturalWidth > 0")
    assert picture_size(screen) == [150, 90]
    assert screen.js("at('page-facts')").startswith("TIFF")


def test_a_transparent_image_lies_on_white_in_the_dark(screen: Screen) -> None:
    clear = np.zeros((60, 80, 4), np.uint8)
    clear[:30, :, 3] = 255
    screen.prefer(color_scheme="dark")
    screen.drop(encoded(clear, "PNG"))
    screen.until_read()
    assert screen.js(f"getComputedStyle({SHOWN}).backgroundColor") == "rgb(255, 255, 255)"
    assert screen.js("at('checks')") == "Its transparent parts were laid on white."


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "The image is empty"),
        (b"no image", "not an image that can be read"),
        (encoded(page(1), "PNG")[:900], "truncated"),
        (b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>", "not an image"),
        (b"\0" * 128 + b"DICM" + b"\0" * 50, "DICOM"),
    ],
)
def test_what_is_no_page_is_refused_in_words(screen: Screen, data: bytes, words: str) -> None:
    screen.drop(data, "image/svg+xml" if b"svg" in data else "")
    screen.until("at('page-error') !== ''")
    assert words in screen.js("at('page-error')")
    assert screen.shown("drop")
    assert not screen.shown("frame")
    screen.drop(encoded(page(1), "PNG"))
    screen.until_read()
    assert not screen.shown("page-error")


def test_removing_a_page_makes_the_server_forget_it(screen: Screen, png_file: Path) -> None:
    screen.choose(png_file)
    name = screen.server.client.post("/v1/pages", content=png_file.read_bytes()).json()["id"]
    screen.ask("What is the rhythm?")
    screen.node("remove").click()
    assert screen.shown("drop")
    assert not screen.driver.find_elements("tag name", "article")
    gone = [r["request"] for r in requests_of(screen.driver) if r["request"]["method"] == "DELETE"]
    assert gone[-1]["url"] == f"{screen.server.url}/v1/pages/{name}"
    screen.begin("What is the rhythm?")
    assert "Choose an ECG first" in screen.js("at('page-error')")


def test_another_page_begins_anew(screen: Screen, png_file: Path) -> None:
    screen.choose(png_file)
    screen.ask("What is the rhythm?")
    screen.drop(encoded(page(8, (90, 70)), "PNG"))
    screen.until("at('page-facts').includes('90 × 70')")
    screen.until_read()
    assert not screen.driver.find_elements("tag name", "article")
    assert not screen.shown("follow-row")


def test_the_picture_in_full_size(screen: Screen) -> None:
    screen.drop(encoded(np.full((1500, 2000, 3), 200, np.uint8), "PNG"))
    screen.until_read()
    assert screen.node("picture").size["width"] < 700
    screen.node("full").click()
    assert screen.node("picture").size == {"width": 2000, "height": 1500}
    assert screen.js("document.getElementById('frame').tabIndex") == 0
    assert screen.node("full").get_attribute("aria-pressed") == "true"
    screen.node("full").click()
    assert screen.node("picture").size["width"] < 700


def test_no_name_of_a_file_is_sent(screen: Screen, png_file: Path) -> None:
    requests_of(screen.driver)
    screen.choose(png_file)
    screen.ask("What is the rhythm?")
    sent = json.dumps(requests_of(screen.driver))
    assert "/v1/pages" in sent
    assert "/v1/chat/completions" in sent
    assert "Planted" not in sent
