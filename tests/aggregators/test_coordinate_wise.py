"""The rules that work on each coordinate by itself."""

import numpy as np
import pytest

from tests.aggregators.oracle import assert_agrees
from tests.aggregators.test_bulyan import closest_to


def trmean(rows: np.ndarray, f: int) -> np.ndarray:
    return np.sort(rows, axis=0)[f : len(rows) - f].mean(axis=0)


def median(rows: np.ndarray, f: int) -> np.ndarray:
    return np.median(rows, axis=0)


def phocas(rows: np.ndarray, f: int) -> np.ndarray:
    return closest_to(trmean(rows, f), rows, len(rows) - f)


def meamed(rows: np.ndarray, f: int) -> np.ndarray:
    return closest_to(median(rows, f), rows, len(rows) - f)


@pytest.mark.parametrize("oracle", [trmean, median, phocas, meamed], ids=lambda oracle: oracle.__name__)
def test_agrees_with_the_definition(oracle) -> None:
    assert_agrees(oracle.__name__, oracle)
