"""Sorting networks, and means of the closest values, beside plain sorting."""

import itertools
from unittest.mock import patch

import numpy as np
import pytest
import torch

from aggregators.order_statistics import (
    _network,
    _pruned,
    mean_around_median,
    mean_around_trimmed_mean,
    mean_of_ranks,
    median,
)


@pytest.mark.parametrize("n", range(1, 14))
def test_network_sorts_all_zeros_and_ones(n: int) -> None:
    """A network that sorts every sequence of zeros and ones sorts every sequence (Knuth, theorem 5.3.4Z)."""
    values = np.array(list(itertools.product([0, 1], repeat=n)))
    for i, j in _network(n):
        assert i < j
        values[:, [i, j]] = np.sort(values[:, [i, j]], axis=1)
    assert (np.diff(values, axis=1) >= 0).all()


def test_exchanges_that_nobody_wants_are_left_out() -> None:
    network = len(_network(25))
    for ranks, fewer in ((range(12, 13), 20), (range(5, 20), 8), (range(25), 0)):
        exchanges = _pruned(tuple("kept" if rank in ranks else None for rank in range(25)))
        assert all(smaller or larger for _, _, smaller, larger in exchanges)
        assert len(exchanges) <= network - fewer
    assert _pruned(("kept",) * 25) == ()  # in any order


@pytest.mark.parametrize("n", [1, 2, 3, 8, 17, 25, 51, 100])
@pytest.mark.parametrize("block_elements", [2**19, 256 * 8])
def test_ranks(n: int, block_elements: int) -> None:
    rows = torch.randn(2, n, 700, generator=torch.Generator().manual_seed(n), dtype=torch.float64)
    before = rows.clone()
    ordered = np.sort(rows.numpy(), axis=1)
    with patch("tools.long_rows.CPU_BLOCK_ELEMENTS", block_elements):
        for first, last in {(0, 1), (0, n), (n - 1, n), (n // 3, n // 3 + 1), (n // 4, n - n // 4)}:
            expected = ordered[:, first:last].mean(axis=1)
            np.testing.assert_allclose(mean_of_ranks(rows, first, last), expected, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(median(rows), np.median(rows.numpy(), axis=1), rtol=1e-14)
    assert torch.equal(rows, before)


def closest(values: np.ndarray, centre: float, count: int) -> float:
    return values[np.argsort(np.abs(values - centre), kind="stable")[:count]].mean()


@pytest.mark.parametrize("values", ["random", "many ties", "two values"])
@pytest.mark.parametrize("n", [1, 2, 5, 8, 11, 20])
def test_means_of_the_closest(n: int, values: str) -> None:
    draw = np.random.default_rng(n)
    rows = {
        "random": draw.normal(size=(n, 300)),
        "many ties": draw.integers(-3, 4, size=(n, 300)).astype(float),
        "two values": draw.integers(0, 2, size=(n, 300)).astype(float),
    }[values]
    rows[:, 0] = 0  # a column of zeros
    tensor = torch.tensor(rows)
    for count, f in itertools.product(range(1, n + 1), {0, (n - 1) // 2}):
        trimmed = np.sort(rows, axis=0)[f : n - f]
        centres = {
            "median": np.median(rows, axis=0),
            "lower": np.sort(rows, axis=0)[(n - 1) // 2],
            "trimmed": trimmed.sum(axis=0) / len(trimmed),
        }
        results = {
            "median": mean_around_median(tensor, count),
            "lower": mean_around_median(tensor, count, lower=True),
            "trimmed": mean_around_trimmed_mean(tensor, count, f),
        }
        for name, result in results.items():
            expected = [closest(column, centre, count) for column, centre in zip(rows.T, centres[name], strict=True)]
            if name != "trimmed" or values == "random":  # rounding of the trimmed mean decides between equals
                np.testing.assert_allclose(result, expected, rtol=1e-12, atol=1e-12)


def test_of_equally_close_values_the_first_is_taken() -> None:
    column = torch.tensor([[1.0], [0.0], [-1.0]])
    assert mean_around_median(column, 2).item() == 0.5
    assert mean_around_median(column.flip(0), 2).item() == -0.5
    batch = torch.stack([column, column.flip(0)]).expand(3, 2, 3, 1)
    assert mean_around_median(batch, 2).flatten(1).tolist() == [[0.5, -0.5]] * 3


def test_infinite_values_are_never_closest() -> None:
    rows = torch.tensor([[torch.inf], [5.0], [1.0], [2.0], [torch.inf]])
    assert mean_around_median(rows, 3).item() == pytest.approx(8 / 3)
    assert mean_around_trimmed_mean(rows[1:], 3, 1).item() == pytest.approx(8 / 3)
