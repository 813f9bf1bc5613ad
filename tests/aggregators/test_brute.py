import itertools

import numpy as np
import pytest
import torch

from aggregators import gars
from tests.aggregators.oracle import assert_agrees, pairwise


def oracle(rows: np.ndarray, f: int) -> np.ndarray:
    n = len(rows)
    distances = pairwise(rows)
    subsets = itertools.combinations(range(n), n - f)  # lexicographic: of equal diameters min keeps the first
    best = min(subsets, key=lambda subset: distances[np.ix_(subset, subset)].max())
    return rows[list(best)].mean(axis=0)


def test_agrees_with_enumeration() -> None:
    assert_agrees("brute", oracle)


@pytest.mark.parametrize("seed", range(20))
def test_agrees_with_enumeration_where_diameters_are_equal(seed: int) -> None:
    rows = np.random.default_rng(seed).integers(0, 3, size=(9, 2)).astype(float)
    for f in range(5):
        result = gars["brute"].aggregate(torch.tensor(rows), f=f)
        np.testing.assert_allclose(result.numpy(), oracle(rows, f), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("n", "f", "d"), [(51, 12, 3), (51, 25, 1), (51, 25, 2), (51, 25, 100)])
def test_many_workers(n: int, f: int, d: int) -> None:
    rows = torch.randn(n, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    _, weights = gars["brute"].aggregate_and_weights(rows, f=f)
    assert int((weights > 0).sum()) == n - f
