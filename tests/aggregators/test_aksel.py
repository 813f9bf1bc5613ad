import numpy as np
import pytest

from aggregators import gars
from tests.aggregators.oracle import assert_agrees


def oracle(rows: np.ndarray, f: int, mode: str = "mid") -> np.ndarray:
    n = len(rows)
    distances = ((rows - np.median(rows, axis=0)) ** 2).sum(axis=1)
    count = (n + 1) // 2 if mode == "mid" else n - f
    return rows[np.argsort(distances, kind="stable")[:count]].mean(axis=0)


@pytest.mark.parametrize("mode", ["mid", "n-f"])
def test_agrees_with_the_definition(mode: str) -> None:
    assert_agrees("aksel", oracle, mode=mode)


def test_unknown_mode() -> None:
    with pytest.raises(ValueError, match="aksel: expected mode mid or n-f, got 'half'"):
        gars["aksel"].check(n=11, f=2, mode="half")
