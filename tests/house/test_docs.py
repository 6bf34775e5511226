"""What the documents say about the tree is true: links, named files, floor plan, results."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import house

from support.paths import ROOT

DOCS = sorted(ROOT / "docs" / p.name for p in (ROOT / "docs").glob("*.md"))
PAGES = [*(ROOT / f"{n}.md" for n in ("README", "CONTRIBUTING", "CHANGELOG", "SECURITY")), *DOCS]
NANO = [ROOT / "pulse_nano" / "README.md", ROOT / "pulse_nano" / "MODEL_CARD.md"]


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("page", [*PAGES, *NANO], ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        if re.match(r"https?://|mailto:", target):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path) if path else page
        assert found.exists(), f"{name(page)} links to {target}"
        if anchor:
            assert anchor in anchors(found), f"{name(page)} links to {target}"


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, made as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.M)
    return {
        re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings
    }


def test_the_floor_plan_is_the_tree_on_the_disk() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    tree = re.search(r"<!-- tree -->\n```\n(.*?)\n```\n<!-- /tree -->", page, re.S)
    assert tree
    # What a line says about its module may be older than the module; its name and place may not.
    documented = [re.split(r"(?<=\S)\s{2,}", line)[0] for line in tree[1].splitlines()]
    on_disk = [re.split(r"(?<=\S)\s{2,}", line)[0] for line in house.tree(ROOT)]
    assert documented == on_disk, "run python -m benchmarks.house --tree"


def test_the_results_page_is_generated() -> None:
    command = [sys.executable, "-m", "benchmarks.results_page", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_scripts_of_the_results_page_exist() -> None:
    page = (ROOT / "docs" / "results.md").read_text("utf-8")
    named = re.findall(r"^\| `(\w+)` \|", page[page.index("## How to repeat it") :], re.M)
    assert len(named) >= 8
    for script in {
        *named,
        *re.findall(r"-m benchmarks\.(\w+)", "".join(p.read_text("utf-8") for p in PAGES)),
    } - {"NAME"}:
        assert (ROOT / "benchmarks" / f"{script}.py").exists() or (
            ROOT / "benchmarks" / script
        ).is_dir(), script


def test_files_and_tables_of_the_checklists_exist() -> None:
    """Every path in CONTRIBUTING.md, and every `NAME` that a line puts into a file."""
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    paths = set(re.findall(r"`([\w./]+/[\w.]+\.(?:py|md))`", text))
    assert len(paths) >= 12
    for path in paths:
        folder = path.replace("NAME.py", "")
        assert (ROOT / folder).exists(), f"CONTRIBUTING.md names {path}"
    tables = re.findall(r"`(\w+)`(?: of| in|, which[^`]*)\s+`([\w./]+\.py)`", text)
    assert len(tables) >= 8
    for table, path in tables:
        if "NAME" not in path:
            assert re.search(rf"\b{table}\b", (ROOT / path).read_text("utf-8")), (
                f"{path} has no {table}"
            )


def test_every_seam_has_a_checklist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    for seam in ("engine", "precision", "target", "waveform format", "command", "evaluation task"):
        assert re.search(rf"^### A new {seam}$|^### An? {seam}$", text, re.M), seam


def test_make_targets_of_the_documents_exist() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"^(\w+):", makefile, re.M))
    for page in PAGES:
        for target in re.findall(r"`make (\w+)`|^make (\w+)", page.read_text("utf-8"), re.M):
            assert (target[0] or target[1]) in targets, f"{name(page)}: make {target}"


def test_the_manifest_table_names_every_field() -> None:
    from dataclasses import fields

    from pulse_edge.bundle.manifest import Manifest

    text = (ROOT / "docs" / "bundle.md").read_text("utf-8")
    assert [field.name for field in fields(Manifest)] == [
        row
        for row in re.findall(r"^\| `(\w+)` \|", text, re.M)
        if row in {f.name for f in fields(Manifest)}
    ]


def test_every_engine_is_described() -> None:
    from pulse_edge.engines.table import BUILT_IN

    text = (ROOT / "docs" / "engines.md").read_text("utf-8")
    assert {row.name for row in BUILT_IN} <= set(re.findall(r"^\| `(\w+)`", text, re.M))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_no_page_names_a_local_path(page: Path) -> None:
    assert not re.search(r"(?<![\w.])/(?:work|root|home/\w+)/", page.read_text("utf-8"))


def test_the_readme_is_a_product_page() -> None:
    lines = (ROOT / "README.md").read_text("utf-8").splitlines()
    assert len(lines) <= 200


def test_figures_of_the_house(tmp_path: Path) -> None:
    """The mirror, on a file whose figures are known."""
    (tmp_path / "one.py").write_text("a, b = 1, 2\n\n\ndef f(self, x, *y):\n    return x\n")
    (tmp_path / "two.py").write_text("def f():\n    return 1\n\n\nclass C:\n    pass\n")
    figures = house.measure(house.read_files([tmp_path]), tmp_path)
    assert (figures.files, figures.lines, figures.repeated_names) == (2, 11, 1)
    assert figures.median_function == 2
    assert figures.parallel_assignments == round(1000 / 11, 1)
    assert not figures.long_files
    assert not figures.wide_functions
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.house", "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert '"core_lines"' in done.stdout


def test_tests_that_hold_inputs_exist() -> None:
    """Each row of docs/inputs.md names a test function, or a file of tests."""
    rows = [line for line in (ROOT / "docs/inputs.md").read_text().splitlines() if "tests/" in line]
    named = [re.findall(r"`(tests/[^`]+?\.py)(?:::(\w+))?`", row) for row in rows[1:]]
    assert len(named) > 25
    assert all(named)
    for path, function in (test for tests in named for test in tests):
        assert (
            f"def {function}(" in (ROOT / path).read_text() if function else (ROOT / path).exists()
        )
