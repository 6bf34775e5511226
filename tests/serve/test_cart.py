"""Carts: pages sent ahead, questions and panels as forms."""

from __future__ import annotations

import io
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

import pulse_edge
from pulse_edge.page.numbered import FilePage

from support.paced import paced
from support.pdf_files import ecg_sheet, pdf_file, text_sheet
from support.requests import Q1, encoded, page
from support.served import Served, about, eventually, served

QUESTION = "What is the heart rate?"


def send(server: Served, data: bytes) -> dict[str, Any]:
    response = server.client.post("/v1/pages", content=data)
    assert response.status_code == 201, response.text
    record: dict[str, Any] = response.json()
    return record


def ecg(server: Served, **fields: Any) -> httpx.Response:
    """Post a form; bytes are files, texts are fields."""
    parts = {
        name: (f"{name}.bin", value) if isinstance(value, bytes) else (None, str(value))
        for name, value in fields.items()
    }
    return server.client.post("/v1/ecg", files=parts)


def test_a_page_is_looked_at_before_the_question(shared: Served, png: bytes) -> None:
    expected = shared.model.ask(png, QUESTION)
    shared.model.forget()
    record = send(shared, png)
    assert record["id"] == expected.provenance["image"]["sha256"]
    assert record["object"] == "page"
    path = f"/v1/pages/{record['id']}"
    assert eventually(lambda: shared.client.get(path).json()["state"] == "ready")
    answer = ecg(shared, page=record["id"], question=QUESTION).json()
    assert answer["text"] == expected.text
    assert answer["timings"]["vision"] == 0
    assert answer["usage"]["cached_tokens"] >= answer["usage"]["image_tokens"]
    assert answer["provenance"]["image"]["sha256"] == record["id"]
    assert shared.client.delete(path).json() == {"id": record["id"], "deleted": True}
    for response in (
        shared.client.get(path),
        shared.client.delete(path),
        ecg(shared, page=record["id"], question=QUESTION),
    ):
        assert (response.status_code, response.json()["error"]["code"]) == (404, "page_not_found")


def test_a_page_as_a_form(shared: Served, png: bytes) -> None:
    files: dict[str, Any] = {"file": ("x.png", png), "priority": (None, "interactive")}
    response = shared.client.post("/v1/pages", files=files)
    assert response.status_code == 201
    assert response.json()["id"] == send(shared, png)["id"]


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_page_of_a_file_is_chosen_by_its_number(shared: Served, number: int) -> None:
    file = pages_of_a_tiff(3)
    fields: dict[str, Any] = {"file": ("x.tif", file), "page": (None, str(number))}
    record = shared.client.post("/v1/pages", files=fields).json()
    expected = shared.model.ask(FilePage(file, number), QUESTION, max_new_tokens=3)
    assert record["id"] == expected.provenance["image"]["sha256"]
    assert record["image"]["notes"] == [f"Page {number} of 3 in the file was read."]
    answer = ecg(shared, file=file, page=number, question=QUESTION, max_tokens=3).json()
    assert answer["provenance"]["image"]["sha256"] == record["id"]
    asked = shared.chat(about(file, QUESTION), page=number, max_tokens=3).json()["pulse_edge"]
    assert asked["provenance"]["image"]["sha256"] == record["id"]
    assert asked["warnings"] == []


def test_a_page_of_a_pdf_is_chosen_by_its_number(shared: Served) -> None:
    pytest.importorskip("pypdfium2", reason="PDF needs pulse-edge[formats]")
    file = pdf_file([ecg_sheet(), text_sheet(), ecg_sheet(306, 396)])
    answer = ecg(shared, file=file, page=3, question=QUESTION, max_tokens=3).json()
    assert answer["provenance"]["image"]["notes"] == ["Page 3 of 3 in the file was read."]
    wrong = ecg(shared, file=file, page=4, question=QUESTION).json()["error"]
    assert wrong["code"] == "invalid_recording"
    assert wrong["message"].endswith("no page 4; the PDF has pages 1 to 3")


def test_a_recording_has_no_pages(shared: Served, tmp_path: Path) -> None:
    pytest.importorskip("pydicom")
    from support import dicom_files

    file = dicom_files.save(tmp_path / "ecg.dcm", dicom_files.dataset()).read_bytes()
    response = ecg(shared, file=file, page=1, question=QUESTION)
    assert (response.status_code, response.json()["error"]["param"]) == (400, "page")
    assert "a recording has no pages" in response.json()["error"]["message"]


def pages_of_a_tiff(count: int) -> bytes:
    """A TIFF of pages that differ."""
    first, *others = (Image.fromarray(page(number, (80, 60))) for number in range(count))
    file = io.BytesIO()
    first.save(file, "TIFF", save_all=True, append_images=others)
    return file.getvalue()


def test_a_prediction_comes_with_a_page(shared: Served) -> None:
    send(shared, encoded(page(1, (80, 60)), "PNG"))
    shared.model.ask(None, Q1, max_new_tokens=2)
    record = send(shared, encoded(page(2, (80, 60)), "PNG"))
    assert record["predicted_s"] > 0
    assert 0 < record["seconds_left"] <= 900


def test_a_question_about_a_file(shared: Served, png: bytes) -> None:
    answer = ecg(shared, file=png, question=QUESTION, max_tokens=3)
    expected = shared.model.ask(png, QUESTION, max_new_tokens=3)
    assert answer.json()["text"] == expected.text
    assert answer.json()["token_ids"] == list(expected.token_ids)
    assert answer.json()["notice"] == expected.notice


def test_a_question_about_a_recording(shared: Served, tmp_path: Path) -> None:
    pytest.importorskip("pydicom")
    from support import dicom_files

    path = dicom_files.save(tmp_path / "ecg.dcm", dicom_files.dataset())
    answer = ecg(shared, file=path.read_bytes(), question=QUESTION)
    assert answer.json()["text"] == shared.model.ask(path, QUESTION).text
    assert "Planted" not in answer.text


@pytest.mark.parametrize("sent_ahead", [False, True])
def test_a_panel(shared: Served, png: bytes, sent_ahead: bool) -> None:
    shared.model.look(png).wait()  # a page in one piece with its question has other last bits
    expected = shared.model.panel(png).to_dict()
    source: dict[str, Any] = {"page": send(shared, png)["id"]} if sent_ahead else {"file": png}
    result = ecg(shared, **source).json()
    assert result["schema"] == expected["schema"]
    assert result["panel"]["sha256"] == expected["panel"]["sha256"]
    kept = ("id", "prompt", "options", "answer", "text", "parsed", "spans", "scores", "margin")
    for question, other in zip(
        result["panel"]["questions"], expected["panel"]["questions"], strict=True
    ):
        assert {n: question[n] for n in kept} == _as_json({n: other[n] for n in kept})
    assert result["statements"] == _as_json(expected["statements"])


def _as_json(value: Any) -> Any:
    return json.loads(json.dumps(value))


def test_a_panel_by_name_and_as_a_file(shared: Served, png: bytes) -> None:
    text = (
        'schema = "pulse-edge/panel/1"\nname = "one"\ntitle = "One"\n[[questions]]\nid = "rate"\n'
        f'ask = "{QUESTION}"\n'
    )
    result = ecg(shared, file=png, panel=text.encode()).json()
    assert [q["text"] for q in result["panel"]["questions"]] == [
        shared.model.ask(png, QUESTION, max_new_tokens=64).text
    ]
    named = ecg(shared, file=png, panel="resting-12-lead", deadline_s=60).json()
    assert named["panel"]["name"] == "resting-12-lead"
    assert named["timing"]["deadline_s"] == 60


def test_a_panel_s_name_is_no_path(shared: Served, png: bytes, tmp_path: Path) -> None:
    for name in ("../assets/panels/pulse-nano.toml", str(tmp_path), "/etc/passwd", "", "x" * 999):
        response = ecg(shared, file=png, panel=name)
        assert (response.status_code, response.json()["error"]["code"]) == (404, "panel_not_found")


def test_a_panel_s_file_is_checked(shared: Served, png: bytes) -> None:
    for data in (b"", b"\xff", b"schema = 1", b'schema = "pulse-edge/panel/1"'):
        response = ecg(shared, file=png, panel=data)
        assert (response.status_code, response.json()["error"]["code"]) == (
            400,
            "invalid_parameter",
        )


def test_what_a_deadline_leaves_out_is_listed(shared: Served, png: bytes) -> None:
    result = ecg(shared, file=png, deadline_s=0.02, best_effort="true").json()
    assert result["timing"]["deadline_met"] is False
    assert result["timing"]["skipped"]


def test_a_server_s_own_deadline(nano: pulse_edge.Model, png: bytes) -> None:
    with served(nano, deadline_s=50) as server:
        assert ecg(server, file=png, question=Q1).json()["deadline"]["deadline_s"] == 50
        answer = ecg(server, file=png, question=Q1, deadline_s=40).json()
        assert answer["deadline"]["deadline_s"] == 40
        assert server.chat(Q1).json()["pulse_edge"]["deadline"]["deadline_s"] == 50


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({}, "invalid_form"),
        ({"question": "a"}, "invalid_form"),
        ({"file": b"x", "page": "y", "question": "a"}, "invalid_form"),
        ({"file": b"PNG", "page": "0", "question": "a"}, "invalid_form"),
        ({"file": b"PNG", "page": "-1", "question": "a"}, "invalid_form"),
        ({"file": b"PNG", "page": "1.5", "question": "a"}, "invalid_form"),
        ({"file": b"PNG", "page": "", "question": "a"}, "invalid_form"),
        ({"file": b"PNG", "page": "\u00b2", "question": "a"}, "invalid_form"),
        ({"file": b"PNG", "page": "1" * 40, "question": "a"}, "invalid_form"),
        ({"file": b"PNG", "page": "2", "question": "a"}, "invalid_image"),
        ({"file": b"", "question": "a"}, "empty_image"),
        ({"file": b"no image", "question": "a"}, "invalid_image"),
        ({"file": b"PNG", "question": ""}, "invalid_parameter"),
        ({"file": b"PNG", "question": "a", "panel": "resting-12-lead"}, "invalid_form"),
        ({"file": b"PNG", "question": "a", "deadline_s": "soon"}, "invalid_form"),
        ({"file": b"PNG", "question": "a", "deadline_s": "nan"}, "invalid_form"),
        ({"file": b"PNG", "question": "a", "deadline_s": "inf"}, "invalid_form"),
        ({"file": b"PNG", "question": "a", "deadline_s": "-1"}, "invalid_form"),
        ({"file": b"PNG", "question": "a", "best_effort": "yes"}, "invalid_form"),
        ({"file": b"PNG", "question": "a", "priority": "first"}, "invalid_form"),
        ({"file": b"PNG", "question": "a", "max_tokens": "-1"}, "invalid_form"),
        ({"file": b"PNG", "question": "a", "max_tokens": "0"}, "invalid_parameter"),
        ({"file": b"PNG", "max_tokens": "5"}, "invalid_form"),
        ({"file": b"PNG", "question": "a", "patient": "b"}, "invalid_form"),
    ],
)
def test_what_is_wrong_is_named(
    shared: Served, png: bytes, fields: dict[str, Any], code: str
) -> None:
    sent = {name: png if value == b"PNG" else value for name, value in fields.items()}
    response = ecg(shared, **sent) if sent else shared.client.post("/v1/ecg", content=b"")
    if not fields:
        assert response.status_code == 415
        return
    assert (response.status_code, response.json()["error"]["code"]) == (400, code)


def test_pages_are_bounded(nano: pulse_edge.Model) -> None:
    with served(nano, pages=2) as server:
        names = []
        for seed in range(4):
            names.append(send(server, encoded(page(seed, (60, 40)), "PNG"))["id"])
            path = f"/v1/pages/{names[-1]}"
            assert eventually(lambda p=path: server.client.get(p).json()["state"] == "ready")
        found = [server.client.get(f"/v1/pages/{name}").status_code for name in names]
        assert found == [404, 404, 200, 200]
        assert len(server.service.pages) == 2


def test_pages_that_all_wait_leave_no_place(nano: pulse_edge.Model) -> None:
    with served(nano, pages=2) as server, paced(nano) as pace, ThreadPoolExecutor(1) as pool:
        pace.hold()
        running = pool.submit(nano.ask, None, Q1)
        assert eventually(lambda: pace.steps == 1)
        for seed in range(2):
            assert send(server, encoded(page(seed, (60, 40)), "PNG"))["state"] == "waiting"
        full = server.client.post("/v1/pages", content=encoded(page(2, (60, 40)), "PNG"))
        assert (full.status_code, full.json()["error"]["code"]) == (429, "queue_full")
        assert full.headers["x-should-retry"] == "false"
        assert len(nano.worker.unfinished) == 3, "the page that was refused is not looked at"
        again = send(server, encoded(page(0, (60, 40)), "PNG"))
        assert again["state"] == "waiting"
        assert len(nano.worker.unfinished) == 3, "a page that is sent twice is looked at once"
        pace.go()
        running.result()
        assert server.settled()
        assert eventually(lambda: not nano.worker.unfinished)


def test_a_panel_ends_when_its_client_leaves(nano: pulse_edge.Model, png: bytes) -> None:
    with served(nano) as server, paced(nano) as pace:
        pace.hold()
        with (
            httpx.Client(base_url=server.url, timeout=0.5, trust_env=False) as impatient,
            pytest.raises(httpx.TimeoutException),
        ):
            impatient.post("/v1/ecg", files={"file": ("x", png)})
        begun = pace.steps
        pace.go()
        assert server.settled()
        assert pace.steps <= begun + 1
        assert eventually(lambda: not nano.worker.unfinished)
