import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from experiments.metrics import COLUMNS, NODE_COLUMNS, StudyMetrics, Vectors
from tools.long_rows import mean_and_scatter

H, K, F, D, MU = 5, 7, 3, 40, 0.9


def test_columns_are_the_24_of_the_iclr_2021_code() -> None:
    assert len(COLUMNS) == 24
    assert COLUMNS[:5] == (
        "Step number",
        "Training point count",
        "Average loss",
        "l2 from origin",
        "Sampled gradient deviation",
    )
    assert COLUMNS[-3:] == ("Sampled-prev cosine", "Sampled composite curvature", "Attack acceptation ratio")


def test_every_column_is_explained() -> None:
    text = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")
    for number, column in enumerate(COLUMNS + NODE_COLUMNS, start=1):
        assert f"| {number} | {column} |" in text


def test_added_columns_are_not_taken_for_others_by_scripts_that_look_for_words() -> None:
    words = ("accuracy", "loss", "norm", "ratio", "deviation", "cosine", "coordinate")
    assert not any(word in column.lower() for column in NODE_COLUMNS for word in words)


def cosine(x: np.ndarray, y: np.ndarray) -> float:
    return x @ y / np.linalg.norm(x) / np.linalg.norm(y)


def deviation(rows: np.ndarray) -> float:
    return math.sqrt(((rows - rows.mean(axis=0)) ** 2).sum() / (len(rows) - 1)) if len(rows) > 1 else math.nan


def direct(history: list[np.ndarray], honest: np.ndarray, attack: np.ndarray, defense: np.ndarray, past: int) -> list:
    """Return the columns from the deviations on, from the definitions; `history` holds all sampled gradients so far."""
    averages = [rows.mean(axis=0) for rows in history]
    sampled = averages[-1]
    means = [sampled, honest.mean(axis=0), attack.mean(axis=0), defense]
    pairs = [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    t = len(averages) - 1
    return [
        *(deviation(rows) for rows in (history[-1], honest, attack)),
        *(np.linalg.norm(mean) for mean in means),
        *(np.abs(mean).max() for mean in means),
        *(cosine(means[i], means[j]) for i, j in pairs),
        cosine(sampled, averages[t - 1]) if t else math.nan,
        MU * sum(MU ** (u - 1) * (sampled @ averages[t - u]) for u in range(1, min(past, t) + 1)) if t else math.nan,
    ]


@pytest.mark.parametrize("past", [1, 3, 20])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_agrees_with_the_definitions(past: int, dtype: torch.dtype) -> None:
    draw = np.random.default_rng(0)
    origin = draw.normal(size=D)
    metrics = StudyMetrics(torch.tensor(origin, dtype=dtype), past=past, momentum=MU, capacity=10)
    history, expected, rows = [], [], []
    for step in range(12):
        shift = draw.normal(size=D)
        history.append(draw.normal(size=(K, D)) + shift)
        honest, attack = draw.normal(size=(H, D)) + shift, draw.normal(size=(F, D))
        defense, parameters = draw.normal(size=D), draw.normal(size=D)
        vectors = [
            Vectors(*mean_and_scatter(torch.tensor(part, dtype=dtype)), len(part))
            for part in (history[-1], honest, attack)
        ]
        metrics.measure(
            step,
            100 * step,
            loss=torch.tensor(0.5 * step, dtype=dtype),
            parameters=torch.tensor(parameters, dtype=dtype),
            sampled=vectors[0],
            honest=vectors[1],
            attack=vectors[2],
            defense=torch.tensor(defense, dtype=dtype),
            acceptation=torch.tensor(0.25, dtype=dtype),
        )
        start = [step, 100 * step, 0.5 * step, np.linalg.norm(parameters - origin)]
        expected.append([*start, *direct(history, honest, attack, defense, past), 0.25])
        assert metrics.full == (step == 9)
        if step == 9:
            state = metrics.state_dict()
            rows += metrics.flush()
            metrics = StudyMetrics(torch.zeros(D, dtype=dtype), past=past, momentum=MU, capacity=10)
            metrics.load_state_dict(state)
    rows += metrics.flush()
    assert all(type(row[0]) is int and type(row[1]) is int for row in rows)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-10
    np.testing.assert_allclose(rows, expected, rtol=tolerance, atol=tolerance)
    assert metrics.flush() == []


def test_what_is_missing_is_nan() -> None:
    metrics = StudyMetrics(torch.zeros(3), past=2, momentum=0.0)
    one = Vectors(torch.ones(3), torch.tensor(0.0), 1)
    metrics.measure(
        0,
        0,
        loss=torch.tensor(1.0),
        parameters=torch.zeros(3),
        sampled=one,
        honest=one,
        attack=Vectors(None, None, 0),
        defense=torch.ones(3),
        acceptation=None,
    )
    (row,) = metrics.flush()
    missing = {column for column, value in zip(COLUMNS, row, strict=True) if math.isnan(value)}
    assert missing == {
        *("Sampled gradient deviation", "Honest gradient deviation", "Attack gradient deviation"),
        *("Attack gradient norm", "Attack max coordinate"),
        *("Sampled-attack cosine", "Honest-attack cosine", "Attack-defense cosine"),
        *("Sampled-prev cosine", "Sampled composite curvature", "Attack acceptation ratio"),
    }


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 2**32))
def test_vectors_in_parts_are_as_the_whole(first: int, second: int, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    rows = torch.randn(first + second, 4, generator=draw, dtype=torch.float64) + 3
    whole = Vectors(*mean_and_scatter(rows), first + second)
    parts = Vectors(*mean_and_scatter(rows[:first]), first) + Vectors(*mean_and_scatter(rows[first:]), second)
    assert parts.count == whole.count
    assert_close(parts.average, whole.average)
    assert_close(parts.scatter, whole.scatter)
    assert_close(parts.deviation, rows.var(dim=0).sum().sqrt())


def test_curvature_recovers_from_an_average_that_was_not_finite() -> None:
    draw = np.random.default_rng(0)
    past, history, expected = 2, [], []
    metrics = StudyMetrics(torch.zeros(D, dtype=torch.float64), past=past, momentum=MU)
    for step in range(7):
        rows = draw.normal(size=(H, D)) + 1
        if step == 2:
            rows[1, 3] = np.inf
        history.append(rows)
        part = Vectors(*mean_and_scatter(torch.tensor(rows)), H)
        settings = {"parameters": torch.zeros(D, dtype=torch.float64), "defense": part.average, "acceptation": None}
        metrics.measure(step, 0, loss=torch.zeros(()), sampled=part, honest=part, attack=part, **settings)
        with np.errstate(invalid="ignore"):
            expected.append(direct(history, rows, rows, rows.mean(axis=0), past)[-1])
    curvatures = [row[-2] for row in metrics.flush()]
    expected[3:5] = [math.nan] * 2
    np.testing.assert_allclose(curvatures, expected, rtol=1e-9)


def test_vectors_too_long_or_too_short_for_the_squares_of_float32() -> None:
    for scale in (1e25, 1e-25):
        rows = scale * (torch.randn(H, D, generator=torch.Generator().manual_seed(0)) + 1)
        part = Vectors(*mean_and_scatter(rows), H)
        metrics = StudyMetrics(torch.zeros(D), past=1, momentum=MU)
        settings = {"parameters": torch.zeros(D), "defense": part.average, "acceptation": None}
        metrics.measure(0, 0, loss=torch.zeros(()), sampled=part, honest=part, attack=part, **settings)
        (row,) = metrics.flush()
        wide = rows.double().numpy()
        assert row[4] == pytest.approx(deviation(wide), rel=1e-4)
        assert row[7] == pytest.approx(np.linalg.norm(wide.mean(axis=0)), rel=1e-4)
        assert row[15:21] == pytest.approx([1] * 6)
