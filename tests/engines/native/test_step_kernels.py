"""step.cu in emulation: embeddings and the choice of tokens."""

from __future__ import annotations

import numpy as np
import pytest

from pulse_edge.engines.native.arguments import Choose, Embed
from pulse_edge.engines.native.kernels import CHOOSE, EMBED, MOST_ROWS, TILE, ActivationLayout

from support.emulation import Kind, Memory, Workshop
from support.gemv_runs import BEST
from support.kernel_reference import best_of, laid_out, tile_sums


@pytest.mark.parametrize("layout", ActivationLayout)
@pytest.mark.parametrize(("hidden", "rows"), [(128, 1), (256, 8), (4480, 3)])
def test_embeddings(workshop: Workshop, layout: ActivationLayout, hidden: int, rows: int) -> None:
    generator = np.random.default_rng(hidden)
    table = generator.normal(size=(11, hidden)).astype(np.float16)
    gain = (1 + 0.2 * generator.normal(size=hidden)).astype(np.float16)
    numbers = generator.integers(0, len(table), rows)
    size = rows * hidden
    memory = Memory()
    argument = Embed(
        table=memory.put("table", table, Kind.READ_EARLY),
        numbers=memory.put("numbers", numbers.astype(np.int64)),
        gain=memory.put("gain", gain, Kind.READ_ONLY),
        residual=memory.empty("residual", 2 * size),
        x=memory.empty("x", 2 * size),
        sums=memory.empty("sums", 4 * size // TILE),
        squares=memory.empty("squares", 4 * size // TILE),
        hidden=hidden,
        layout=int(layout),
    )
    workshop.build(EMBED).launch(argument, (rows,), memory, seed=rows)
    residual = table[numbers]
    x = (residual.astype(np.float32) * gain.astype(np.float32)).astype(np.float16)
    assert (memory.read(argument.residual, (rows, hidden), np.float16) == residual).all()
    assert (memory.read(argument.x, (rows, hidden), np.float16) == laid_out(x, layout)).all()
    sums = memory.read(argument.sums, (rows, hidden // TILE), np.float32)
    squares = memory.read(argument.squares, (rows, hidden // TILE), np.float32)
    np.testing.assert_allclose(sums, tile_sums(x), atol=1e-5)
    np.testing.assert_allclose(squares, tile_sums(residual.astype(np.float32) ** 2), rtol=1e-5)


@pytest.mark.parametrize("count", [1, 3, 32, 33, 100])
def test_choices(workshop: Workshop, count: int) -> None:
    """The first of equals; -1 where any was not finite, or all are -infinity."""
    generator = np.random.default_rng(count)
    best = np.zeros((count, MOST_ROWS), BEST)
    best["value"] = np.round(generator.normal(size=(count, MOST_ROWS)))
    best["index"] = generator.permutation(count * MOST_ROWS).reshape(count, MOST_ROWS)
    best["value"][:, 3] = -np.inf
    best[count // 2, 4] = (np.inf, -1)
    memory = Memory()
    argument = Choose(
        best=memory.put("best", best),
        tokens=memory.empty("tokens", 8 * MOST_ROWS),
        count=count,
    )
    workshop.build(CHOOSE).launch(argument, (MOST_ROWS,), memory, seed=count)
    tokens = memory.read(argument.tokens, (MOST_ROWS,), np.int64)
    for row in range(MOST_ROWS):
        order = np.lexsort((best["index"][:, row], -best["value"][:, row]))
        value, index = best[order[0], row]
        assert tokens[row] == (index if np.isfinite(value) else -1)
    assert tokens[3] == tokens[4] == -1


def test_best_of_by_hand() -> None:
    value, index = best_of(np.array([[1, 3, 3], [0, np.nan, 9], [0, np.inf, 9.0]]))
    assert index.tolist() == [1, -1, -1]
    assert value.tolist() == [3, np.inf, np.inf]
