"""Comparing a rule with a slow oracle in plain NumPy, float64, one matrix at a time."""

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

import aggregators

SIZES = [
    (11, 2, 6),
    (15, 3, 40),
    (15, 2, 2),
    (16, 3, 9_000),
]  # n, f, d (with d = 1, sums of plain distances tie); the last is long


def random_rows(n: int, f: int, d: int, seed: int) -> np.ndarray:
    """Return n rows (n, d), f of them from elsewhere."""
    draw = np.random.default_rng(seed)
    rows = draw.normal(size=(n, d)) + 1.0
    rows[draw.choice(n, f, replace=False)] += draw.normal(scale=3.0, size=d)
    return rows


def assert_agrees(name: str, oracle: Callable[..., np.ndarray], **arguments: Any) -> None:
    """Assert that a rule gives what the oracle (rows, f, **arguments) gives, in float64 and in float32."""
    rule = aggregators.get(name)
    for n, f, d in SIZES:
        for seed in range(5):
            rows = random_rows(n, f, d, seed)
            expected = oracle(rows, f, **arguments)
            for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 2e-5)):
                for block_elements in (2**19, 2**12):  # the long ones also in several blocks
                    with patch("tools.long_rows.CPU_BLOCK_ELEMENTS", block_elements):
                        result = rule.aggregate(torch.tensor(rows, dtype=dtype), f=f, **arguments)
                    np.testing.assert_allclose(result.numpy(), expected, rtol=tolerance, atol=tolerance)


def pairwise(rows: np.ndarray) -> np.ndarray:
    """Return the squared distances (n, n) between rows, difference by difference."""
    return np.array([[((x - y) ** 2).sum() for y in rows] for x in rows])
