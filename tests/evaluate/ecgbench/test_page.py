"""The report as one HTML file."""

from __future__ import annotations

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
    assert "run: statements" in text
    assert "not the paper" in text
    assert "missed: " in text
