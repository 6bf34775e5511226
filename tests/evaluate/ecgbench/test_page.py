"""The report as one HTML file."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pulse_edge.errors import OutputError
from pulse_edge.evaluate.ecgbench.page import write_report
from pulse_edge.evaluate.ecgbench.score import score_runs

from support.ecgbench_texts import rows_of, shuffled_lines, upstream_line, write_bench, write_lines

CONFIGS = ("ptb-test", "ecgqa-test", "mmmu-ecg")


@pytest.fixture
def folders(tmp_path: Path) -> tuple[list[Path], Path]:
    rows = {config: rows_of(config, 12) for config in CONFIGS}
    rows["mmmu-ecg"][0]["gold"] = "A"
    rows["mmmu-ecg"][0]["text"] = "<script>alert(1)</script>"
    bench = write_bench(tmp_path / "bench", rows)
    (bench / "images").mkdir()
    page = Image.fromarray(np.full((40, 1600, 3), 200, np.uint8))
    page.save(bench / "images" / "mmmu-ecg-0.png")
    for config in CONFIGS:
        write_lines(tmp_path / "fp16", config, shuffled_lines(rows[config], 1))
        other = [{**row, "text": "A"} for row in rows[config]]
        write_lines(tmp_path / "int4", config, [upstream_line(row) for row in other])
    return [tmp_path / "fp16", tmp_path / "int4"], bench


def test_the_page_has_figures_classes_confusions_and_pages(
    folders: tuple[list[Path], Path], tmp_path: Path
) -> None:
    runs, bench = folders
    out = tmp_path / "report.html"
    write_report(score_runs(runs, bench), runs, bench, out)
    text = out.read_text("utf-8")
    for part in ("fp16: classes", "int4: confusion", "types of question", "Worst disagreements"):
        assert part in text
    assert "options that are right" in text
    assert "sensitivity" in text
    assert "median latency" in text
    assert "<h4>mmmu-ecg-0</h4>" in text
    assert text.count("data:image/jpeg;base64,") == 1
    assert "The page is not there." in text


def test_the_page_needs_nothing_else_and_runs_nothing(
    folders: tuple[list[Path], Path], tmp_path: Path
) -> None:
    runs, bench = folders
    out = tmp_path / "report.html"
    write_report(score_runs(runs, bench), runs, bench, out)
    text = out.read_text("utf-8")
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert "http" not in text


def test_a_page_that_cannot_be_written_is_an_output_error(
    folders: tuple[list[Path], Path], tmp_path: Path
) -> None:
    runs, bench = folders
    with pytest.raises(OutputError, match="cannot be written"):
        write_report(score_runs(runs, bench), runs, bench, tmp_path / "none" / "report.html")


def test_the_page_of_reports_says_that_no_judge_was_asked(tmp_path: Path) -> None:
    rows = [{"id": "r-0", "prompt": "Report.", "gold": "Sinus rhythm.", "text": "Asystole."}]
    bench = write_bench(tmp_path / "bench", {"ptb-test-report": rows})
    run = write_lines(tmp_path / "run", "ptb-test-report", [upstream_line(rows[0])])
    out = tmp_path / "report.html"
    write_report(score_runs([run], bench), [run], bench, out)
    text = out.read_text("utf-8")
    assert "m: statements" in text
    assert "not the paper" in text
    assert "missed: " in text


def latency_runs(folder: Path) -> tuple[list[Path], Path]:
    rows = rows_of("mmmu-ecg", 12)
    bench = write_bench(folder / "bench", {"mmmu-ecg": rows})
    runs = []
    for name, precision, seconds in (("one", "fp16", 2.0), ("two", "int4", 0.5)):
        metadata = {"timings": {"total": seconds}, "precision": precision}
        lines = [
            {**upstream_line(row), "model_id": name, "metadata": metadata, "text": "A"}
            for row in rows
        ]
        runs.append(write_lines(folder / name, "mmmu-ecg", lines))
    return runs, bench


def test_each_precision_is_drawn_beside_its_latency(tmp_path: Path) -> None:
    runs, bench = latency_runs(tmp_path)
    out = tmp_path / "report.html"
    write_report(score_runs(runs, bench), runs, bench, out)
    text = out.read_text("utf-8")
    assert text.count("<svg") == 1
    assert "<figcaption>mmmu-ecg: accuracy</figcaption>" in text
    assert "one: accuracy 0." in text
    assert ", 2.00 s; two: accuracy 0." in text
    assert "</b> one, fp16</li>" in text
    assert "</b> two, int4</li>" in text
    row = "<tr><td>two</td><td>int4</td>"
    assert row in text
    assert text.index(row) < text.index("<h2>Figures</h2>")


def test_answers_without_times_are_not_drawn(
    folders: tuple[list[Path], Path], tmp_path: Path
) -> None:
    runs, bench = folders
    out = tmp_path / "report.html"
    write_report(score_runs(runs, bench), runs, bench, out)
    text = out.read_text("utf-8")
    assert "<svg" not in text
    assert "say nothing of their latency" in text


def test_the_page_is_for_phones_for_the_dark_and_for_print(tmp_path: Path) -> None:
    runs, bench = latency_runs(tmp_path)
    out = tmp_path / "report.html"
    write_report(score_runs(runs, bench), runs, bench, out)
    text = out.read_text("utf-8")
    assert '<meta name="viewport" content="width=device-width,initial-scale=1">' in text
    assert "prefers-color-scheme:dark" in text
    assert "@media print" in text
    assert text.count("<table") == text.count('<div class="wide"><table')
    for name in re.findall(r"var\((--\w+)\)", text):
        assert f"{name}:" in text, name
