"""The embedding table: in memory, or row by row from its file with a check."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from pulse_edge.bundle.bundle import open_bundle
from pulse_edge.bundle.embeddings import CheckedRows, Embeddings, open_embeddings
from pulse_edge.bundle.manifest import EMBEDDINGS
from pulse_edge.errors import BundleError

from support.fixture_types import Bundles
from support.manifests import edit_manifest


@pytest.fixture
def copy(bundles: Bundles, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundles("int8", None, "cpu"), tmp_path / "copy"))


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_rows_are_the_files(bundles: Bundles, precision: str) -> None:
    bundle = open_bundle(bundles(precision, None, "cpu"))
    dtype = np.float32 if precision == "fp32" else np.float16
    hidden = bundle.manifest.model.text.hidden
    table = np.fromfile(bundle.file(EMBEDDINGS), dtype).reshape(-1, hidden)
    numbers = np.array([5, 0, len(table) - 1, 5])
    features = np.arange(2 * 3 * hidden, dtype=np.float32).reshape(2, 3, hidden)
    both = np.array([5, len(table) + 4, 1])
    for copied in (True, False):
        embeddings = Embeddings(bundle, np.float32, copied)
        assert len(embeddings) == len(table)
        assert np.array_equal(embeddings.rows(numbers), table[numbers].astype(np.float32))
        mixed = embeddings.rows(both, features)
        assert np.array_equal(mixed[[0, 2]], table[[5, 1]].astype(np.float32))
        assert np.array_equal(mixed[1], features[1, 1])
        assert embeddings.rows(numbers).dtype == mixed.dtype == np.float32
        with pytest.raises(IndexError):
            embeddings.rows(np.array([len(table)]))
    assert np.array_equal(open_embeddings(bundle), table)


def test_a_changed_row_is_refused_and_others_are_not(copy: Path) -> None:
    rows = CheckedRows(open_bundle(copy))
    width = 2 * rows.shape[1]
    before = rows[np.array([0, 1, 2])]
    with (copy / EMBEDDINGS).open("r+b") as file:
        file.seek(width + 3)
        byte = file.read(1)[0]
        file.seek(width + 3)
        file.write(bytes([byte ^ 1]))
    assert np.array_equal(rows[np.array([0, 2])], before[[0, 2]])
    with pytest.raises(BundleError, match="was changed since it was loaded; load the bundle again"):
        rows[np.array([0, 1])]
    os.truncate(copy / EMBEDDINGS, width)
    assert np.array_equal(rows[np.array([0])], before[[0]])
    with pytest.raises(BundleError, match="became shorter"):
        rows[np.array([2])]


def test_a_table_of_another_size_is_refused(copy: Path) -> None:
    """Whose manifest says so, too."""
    with (copy / EMBEDDINGS).open("ab") as file:
        file.write(bytes(2))
    size = (copy / EMBEDDINGS).stat().st_size
    edit_manifest(
        copy, lambda m: [f.update(size=size) for f in m["files"] if f["path"] == EMBEDDINGS]
    )
    bundle = open_bundle(copy, check_hashes=False)
    for copied in (True, False):
        with pytest.raises(BundleError, match=f"{size} bytes are no table"):
            Embeddings(bundle, np.float16, copied)
