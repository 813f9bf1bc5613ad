import numpy as np
import pytest
import torch

from aggregators import gars
from tests.aggregators.oracle import assert_agrees, pairwise


def oracle(rows: np.ndarray, f: int, m: int | None = None) -> np.ndarray:
    n = len(rows)
    distances = pairwise(rows)
    scores = [np.sort(np.delete(distances[i], i))[: n - f - 2].sum() for i in range(n)]
    return rows[np.argsort(scores, kind="stable")[: m or n - f - 2]].mean(axis=0)


@pytest.mark.parametrize("m", [None, 1, 3])
def test_agrees_with_the_definition(m: int | None) -> None:
    assert_agrees("krum", oracle, m=m)


@pytest.mark.parametrize("m", [0, 8, -1, 2.5, True, "many"])
def test_m_out_of_range(m: object) -> None:
    with pytest.raises(ValueError, match="krum: expected m from 1 to n - f - 2 = 7, got"):
        gars["krum"].check(n=11, f=2, m=m)


def test_ties_go_to_the_smallest_index() -> None:
    rows = torch.tensor([[1.0], [-1.0], [1.0], [-1.0], [0.0]], dtype=torch.float64)
    assert gars["krum"].aggregate(rows, f=0, m=1) == 0
    square = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    assert torch.equal(gars["krum"].aggregate(square, f=0, m=1), square[0])


def test_a_close_byzantine_minority_far_from_the_origin_is_told_apart_in_float32() -> None:
    rows = torch.full((11, 50), 1e4)
    rows += torch.randn(11, 50, generator=torch.Generator().manual_seed(0))
    rows[:2] += 3.0
    _, weights = gars["krum"].aggregate_and_weights(rows, f=2)
    assert weights[:2].sum() == 0
