import numpy as np
import pytest

from tests.aggregators.oracle import assert_agrees, pairwise
from tests.aggregators.test_bulyan import closest_to


def oracle(rows: np.ndarray, f: int, m: int | None = None) -> np.ndarray:
    n = len(rows)
    m = m or n - f - 2
    distances = np.sqrt(pairwise(rows))
    scores = [np.sort(np.delete(distances[i], i))[:m].sum() for i in range(n)]
    order = np.argsort(scores, kind="stable")
    selected = np.array([rows[order[i : i + min(m, n - f - 2 - i)]].mean(axis=0) for i in range(n - 2 * f - 2)])
    lower_median = np.sort(selected, axis=0)[(len(selected) - 1) // 2]
    return closest_to(lower_median, selected, n - 4 * f - 2)


@pytest.mark.parametrize("m", [None, 1, 4])
def test_agrees_with_the_definition(m: int | None) -> None:
    assert_agrees("bulyan-iclr21", oracle, m=m)
