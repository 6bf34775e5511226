"""Pictures of pages for people who send what browsers do not show."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from pulse_edge.ecg.drawing import draw_page
from pulse_edge.ecg.readers.registry import read_recording
from pulse_edge.errors import ImageError
from pulse_edge.serve.preview import LONGEST_SIDE, picture_of

from support.dicom_files import dataset, ecg, group, save
from support.requests import encoded, page
from support.served import Served


def pixels(png: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(png))
    assert image.format == "PNG"
    return np.asarray(image.convert("RGB"))


def send(server: Served, data: bytes, **fields: str) -> dict[str, Any]:
    form: dict[str, Any] = {name: (None, value) for name, value in fields.items()}
    response = server.client.post("/v1/pages", files={"file": ("x", data), **form})
    assert response.status_code == 201, response.text
    record: dict[str, Any] = response.json()
    return record


def picture(server: Served, record: dict[str, Any]) -> httpx.Response:
    return server.client.get(f"/v1/pages/{record['id']}/image")


@pytest.mark.parametrize("form", ["PNG", "TIFF", "BMP"])
def test_a_picture_has_the_pixels_of_the_page(form: str) -> None:
    array = page(1, (70, 50))
    assert (pixels(picture_of(encoded(array, form), {})) == array).all()


@pytest.mark.parametrize(
    ("size", "expected"), [((4400, 100), (2200, 50)), ((50, 4400), (25, 2200))]
)
def test_a_large_page_is_scaled_down(size: tuple[int, int], expected: tuple[int, int]) -> None:
    shape = pixels(picture_of(encoded(page(1, size), "PNG"), {})).shape
    assert shape[:2] == expected[::-1]
    assert max(shape) == LONGEST_SIDE


@pytest.mark.parametrize(("alpha", "colour"), [("none", 255), ("white", 255), ("dropped", 7)])
def test_transparent_pixels_are_as_the_model_sees_them(alpha: str, colour: int) -> None:
    clear = np.full((20, 30, 4), 7, np.uint8)
    clear[..., 3] = 0
    assert (pixels(picture_of(encoded(clear, "PNG"), {"alpha": alpha})) == colour).all()


def test_what_is_no_image_has_no_picture() -> None:
    with pytest.raises(ImageError):
        picture_of(b"no image", {})


def test_a_recording_as_the_model_sees_it(shared: Served, tmp_path: Path) -> None:
    pytest.importorskip("pydicom")
    path = save(tmp_path / "ecg.dcm", dataset(group(ecg())))
    record = send(shared, path.read_bytes(), picture="true")
    response = picture(shared, record)
    assert response.headers["content-type"] == "image/png"
    assert response.headers["cache-control"] == "no-store"
    drawn = np.asarray(Image.fromarray(np.asarray(draw_page(read_recording(path)))).convert("RGB"))
    assert (pixels(response.content) == drawn).all()
    assert record["image"]["width"] == 2200


def test_a_page_has_a_picture_only_if_its_sender_wants_one(shared: Served) -> None:
    data = encoded(page(31, (60, 40)), "PNG")
    for fields in ({}, {"picture": "false"}):
        record = send(shared, data, **fields)
        refused = picture(shared, record)
        assert refused.status_code == 404
        assert refused.json()["error"]["code"] == "picture_not_found"
    again = send(shared, data, picture="true")
    assert again["id"] == record["id"]
    assert (pixels(picture(shared, again).content) == page(31, (60, 40))).all()
    shared.client.delete(f"/v1/pages/{record['id']}")
    assert picture(shared, record).json()["error"]["code"] == "page_not_found"


@pytest.mark.parametrize("value", ["", "yes", "True", "2"])
def test_a_wish_that_is_none(shared: Served, png: bytes, value: str) -> None:
    files: dict[str, Any] = {"file": ("x", png), "picture": (None, value)}
    response = shared.client.post("/v1/pages", files=files)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "picture"


def test_a_page_comes_with_what_provenance_says_of_it(shared: Served) -> None:
    clear = np.zeros((60, 80, 4), np.uint8)
    data = encoded(clear, "PNG")
    record = send(shared, data)
    facts = shared.model.ask(data, "x", max_new_tokens=1).provenance["image"]
    assert record["image"] == {name: facts[name] for name in record["image"]}
    assert record["image"]["notes"] == ["The image is wholly transparent: the page is blank."]
    assert record["image"]["alpha"] == "white"
    assert shared.client.get(f"/v1/pages/{record['id']}").json()["image"] == record["image"]
