import numpy as np
import pytest

from tests.aggregators.oracle import assert_agrees, pairwise


def closest_to(centre: np.ndarray, rows: np.ndarray, count: int) -> np.ndarray:
    order = np.argsort(np.abs(rows - centre), axis=0, kind="stable")[:count]
    return np.take_along_axis(rows, order, axis=0).mean(axis=0)


def oracle(rows: np.ndarray, f: int, m: int | None = None) -> np.ndarray:
    n = len(rows)
    distances = pairwise(rows)
    left, selected = list(range(n)), []
    for i in range(n - 2 * f - 2):
        neighbours = n - i - f - 2
        scores = [np.sort([distances[a, b] for b in left if b != a])[:neighbours].sum() for a in left]
        order = [left[k] for k in np.argsort(scores, kind="stable")]
        selected.append(rows[order[: min(m or n - f - 2, neighbours)]].mean(axis=0))
        left.remove(order[0])
    selected = np.array(selected)
    return closest_to(np.median(selected, axis=0), selected, n - 4 * f - 2)


@pytest.mark.parametrize("m", [None, 1, 4])
def test_agrees_with_the_definition(m: int | None) -> None:
    assert_agrees("bulyan", oracle, m=m)
