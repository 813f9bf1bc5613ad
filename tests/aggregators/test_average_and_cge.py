import numpy as np

from tests.aggregators.oracle import assert_agrees


def test_average_agrees_with_the_definition() -> None:
    assert_agrees("average", lambda rows, f: rows.mean(axis=0))


def test_cge_agrees_with_the_definition() -> None:
    def oracle(rows: np.ndarray, f: int) -> np.ndarray:
        norms = np.sqrt((rows**2).sum(axis=1))
        return rows[np.argsort(norms, kind="stable")[: len(rows) - f]].mean(axis=0)

    assert_agrees("cge", oracle)
