import numpy as np
import pytest
import torch

from tools import long_rows
from tools.long_rows import column_blocks, column_means, column_moments, gram, mean_and_scatter, normalised


@pytest.fixture(params=[(5, 1), (9, 1_000), (27, 50_000), (2, 3, 4, 9_001)], ids=str)
def matrix(request: pytest.FixtureRequest) -> np.ndarray:
    rows = np.random.default_rng(0).normal(size=request.param) + np.linspace(-2, 2, request.param[-1])
    return rows.astype(np.float32)


def test_blocks_cover_every_column_once(matrix: np.ndarray) -> None:
    columns = np.concatenate([np.arange(matrix.shape[-1])[block] for block in column_blocks(torch.tensor(matrix))])
    assert (columns == np.arange(matrix.shape[-1])).all()


def test_column_moments(matrix: np.ndarray) -> None:
    means, squares = column_moments(torch.tensor(matrix))
    assert torch.equal(column_means(torch.tensor(matrix)), means)
    wide = matrix.astype(np.float64)
    np.testing.assert_allclose(means, wide.mean(axis=-2), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(squares, wide.var(axis=-2) * matrix.shape[-2], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_mean_and_scatter(matrix: np.ndarray, offset: float) -> None:
    matrix = matrix + np.float32(offset)
    mean, scatter = mean_and_scatter(torch.tensor(matrix))
    wide = matrix.astype(np.float64)
    expected = ((wide - wide.mean(axis=-2, keepdims=True)) ** 2).sum(axis=(-2, -1))
    np.testing.assert_allclose(mean, wide.mean(axis=-2), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(scatter, expected, rtol=2e-6 if not offset else 1e-4)


def test_scatter_of_equal_rows_is_zero() -> None:
    row = torch.randn(1_000, generator=torch.Generator().manual_seed(0))
    assert float(mean_and_scatter(row.expand(4, 1_000))[1]) == 0


def test_gram(matrix: np.ndarray) -> None:
    wide = matrix.astype(np.float64)
    expected = wide @ np.swapaxes(wide, -1, -2)
    np.testing.assert_allclose(gram(torch.tensor(matrix)), expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
    np.testing.assert_allclose(gram(torch.tensor(wide)), expected, rtol=1e-12, atol=1e-12 * np.abs(expected).max())


def test_long_columns_split_into_several_blocks(matrix: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = column_moments(torch.tensor(matrix))
    monkeypatch.setattr(long_rows, "CPU_BLOCK_ELEMENTS", 256)
    count = len(list(long_rows.column_blocks(torch.tensor(matrix))))
    assert count > 1 or matrix.shape[1] <= 256
    for x, y in zip(whole, column_moments(torch.tensor(matrix)), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scale", [1e20, 1.0, 1e-25])
def test_normalised_vectors_have_norm_one_or_stay_zero(scale: float) -> None:
    vectors = torch.randn(3, 50, generator=torch.Generator().manual_seed(0))
    vectors[1] = 0
    expected = vectors / vectors.norm(dim=1, keepdim=True).clamp(min=1)
    expected[1] = 0
    torch.testing.assert_close(normalised(scale * vectors), expected)
