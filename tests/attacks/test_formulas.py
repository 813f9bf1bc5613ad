"""Attacks in closed form against plain NumPy."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

import attacks

HONEST = np.random.default_rng(0).normal(size=(8, 30)) + 0.3
MEAN = HONEST.mean(axis=0)
DEVIATION = HONEST.std(axis=0, ddof=1)
ONE_HOT = np.eye(30)


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("little", {}, MEAN + 1.5 * DEVIATION),
        ("little", {"factor": 0.7, "negative": True}, MEAN - 0.7 * DEVIATION),
        ("little", {"factor": 0}, MEAN),
        ("empire", {}, -0.1 * MEAN),
        ("empire", {"factor": 3}, -2 * MEAN),
        ("empire-strict", {}, -0.1 * MEAN),
        ("empire-strict", {"epsilon": 2.5}, -2.5 * MEAN),
        ("bulyan", {}, MEAN + ONE_HOT[29]),
        ("bulyan", {"factor": 4, "target_idx": 3}, MEAN + 4 * ONE_HOT[3]),
        ("bulyan", {"factor": 4, "target_idx": -30, "negative": True}, MEAN - 4 * ONE_HOT[0]),
        ("bulyan", {"factor": 4, "target_idx": "all"}, MEAN + 4),
        ("nan", {}, np.full(30, np.nan)),
    ],
)
def test_agrees_with_the_definition(name: str, arguments: dict, expected: np.ndarray) -> None:
    result = attacks.get(name).generate(torch.tensor(HONEST), f=2, **arguments)
    np.testing.assert_allclose(result.numpy(), np.tile(expected, (2, 1)), rtol=1e-12, atol=1e-12)


def anticge(honest: np.ndarray, declared: int) -> np.ndarray:
    norms = np.linalg.norm(honest, axis=1)
    order = np.argsort(norms, kind="stable")
    count = len(honest) - declared
    total = -(honest[order[:count]].sum(axis=0) + honest[order[0]])
    return total / np.linalg.norm(total) * norms[order[count]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_anticge(dtype: torch.dtype) -> None:
    honest = torch.tensor(HONEST, dtype=dtype)
    for f, declared in ((3, 3), (1, 3), (2, 5)):
        result = attacks.get("anticge").generate(honest, f=f, f_declared=declared)
        np.testing.assert_allclose(result[0].double().numpy(), anticge(HONEST, declared), rtol=1e-5)
        next_smallest = honest.norm(dim=1).sort().values[8 - declared]
        assert result[0].norm() < next_smallest
    opposite = torch.tensor([[1.0, 0.0], [-2.0, 0.0], [0.0, 3.0], [0.0, 4.0]], dtype=dtype)
    assert (attacks.get("anticge").generate(opposite, f=2) == 0).all()  # a sum of zero has no direction
    assert attacks.get("anticge").generate(honest, f=3, f_declared=2).isnan().all()
    with pytest.raises(ValueError, match="expected more honest workers than f = 8 declared, got 8"):
        attacks.get("anticge").generate(honest, f=2, f_declared=8)


@pytest.mark.parametrize(
    ("name", "arguments", "error", "message"),
    [
        ("bulyan", {"target_idx": 30}, ValueError, "target_idx from -30 to 29, got 30"),
        ("bulyan", {"target_idx": -31}, ValueError, "target_idx from -30 to 29, got -31"),
        ("bulyan", {"target_idx": "some"}, TypeError, "index or all as target_idx, got 'some'"),
        ("bulyan", {"negative": 1}, TypeError, "True or False as negative, got 1"),
        ("little", {"negative": "no"}, TypeError, "True or False as negative, got 'no'"),
    ],
)
def test_bad_arguments(name: str, arguments: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        attacks.get(name).generate(torch.tensor(HONEST), f=2, **arguments)


def test_one_honest_worker_has_no_deviation() -> None:
    with pytest.raises(ValueError, match="little: expected at least 2 honest workers for a deviation, got 1"):
        attacks.get("little").generate(torch.ones(1, 4), f=1)


@pytest.mark.parametrize("spread", [1e-3, 1.0])
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_deviation_in_float32_loses_no_digits(spread: float, offset: float) -> None:
    honest = (np.random.default_rng(1).normal(size=(27, 50_000)) * spread + offset).astype(np.float32)
    expected: Callable = honest.astype(np.float64).std(axis=0, ddof=1)
    little = attacks.get("little").generate(torch.tensor(honest), f=1, factor=1e3)[0].double().numpy()
    mean = honest.astype(np.float64).mean(axis=0)
    np.testing.assert_allclose((little - mean) / 1e3, expected, rtol=2e-3 if offset and spread < 1 else 1e-5)
