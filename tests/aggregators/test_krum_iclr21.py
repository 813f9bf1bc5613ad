import numpy as np
import pytest

from tests.aggregators.oracle import assert_agrees, pairwise


def oracle(rows: np.ndarray, f: int, m: int | None = None) -> np.ndarray:
    n = len(rows)
    distances = np.sqrt(pairwise(rows))
    scores = [np.sort(np.delete(distances[i], i))[: n - f - 1].sum() for i in range(n)]
    return rows[np.argsort(scores, kind="stable")[: m or n - f - 2]].mean(axis=0)


@pytest.mark.parametrize("m", [None, 1, 3])
def test_agrees_with_the_definition(m: int | None) -> None:
    assert_agrees("krum-iclr21", oracle, m=m)
