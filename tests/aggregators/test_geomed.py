import numpy as np
import pytest
import torch
from torch.testing import assert_close

from aggregators import gars
from aggregators.geomed import majority_radii
from tests.aggregators.oracle import assert_agrees, random_rows

EXACT = {"tolerance": 1e-13, "iterations": 10_000}


def oracle(
    rows: np.ndarray, f: int, nu: float = 1e-6, iterations: int = 10_000, tolerance: float = 1e-14
) -> np.ndarray:
    v = rows.mean(axis=0)
    for _ in range(iterations):
        distances = np.array([np.linalg.norm(v - row) for row in rows])
        weights = 1 / np.maximum(nu, distances)
        previous, v = v, (weights[:, None] * rows).sum(axis=0) / weights.sum()
        if np.linalg.norm(v - previous) <= tolerance * distances.mean():
            break
    return v


def with_rows_at_infinity(honest: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Return the geometric median when further rows are infinitely far: Σ (v − xᵢ) / ‖v − xᵢ‖ = Σ directions."""
    v = honest.mean(axis=0)
    for _ in range(20_000):
        weights = 1 / np.linalg.norm(honest - v, axis=1)
        v = (weights @ honest + directions.sum(axis=0)) / weights.sum()
    return v


def test_agrees_with_the_definition() -> None:
    assert_agrees("geomed", oracle, **EXACT)


@pytest.mark.parametrize("iterations", [1, 2, 7])
def test_starts_at_the_mean_and_takes_that_many_steps(iterations: int) -> None:
    assert_agrees("geomed", oracle, iterations=iterations, tolerance=0)


@pytest.mark.parametrize("nu", [1, 3.0, 1e4])
def test_smoothing(nu: float) -> None:
    assert_agrees("geomed", oracle, nu=nu, **EXACT)


def test_smoothing_beyond_all_distances_gives_the_mean() -> None:
    rows = torch.tensor(random_rows(11, 2, 6, 0))
    assert_close(gars["geomed"].aggregate(rows, f=2, nu=1e3), rows.mean(dim=0))


@pytest.mark.parametrize("nu", [1e-6, 1e-3])
def test_tiny_vectors_are_not_all_at_the_median(nu: float) -> None:
    rows = torch.tensor(random_rows(11, 2, 6, 0))
    scales = (1e-4, 1e-9, 1e-25)
    results = [gars["geomed"].aggregate(rows * scale, f=2, nu=nu) / scale for scale in scales]
    assert_close(results[1], results[0])
    assert_close(results[2], results[0])
    assert not torch.allclose(results[0], rows.mean(dim=0), rtol=1e-3)


def test_points_of_triangles() -> None:
    root = 3**0.5
    equilateral = torch.tensor([[0.0, 0.0], [2.0, 0.0], [1.0, root]], dtype=torch.float64)
    assert_close(gars["geomed"].aggregate(equilateral, f=1), torch.tensor([1.0, root / 3], dtype=torch.float64))
    # An angle of at least 120°, at the second point, makes it the median
    obtuse = torch.tensor([[-3.0, 1.0], [0.0, 0.0], [2.0, 0.5]], dtype=torch.float64)
    assert gars["geomed"].aggregate(obtuse, f=1).norm() < 1e-5


def rows_with_their_mean_as_the_first(n: int, d: int, scale: float, dtype: torch.dtype, seed: int) -> torch.Tensor:
    """Return rows, far from the origin, that one of them moves so that all average to the first, as dissensus does."""
    rows = (torch.randn(n, d, generator=torch.Generator().manual_seed(seed)) + 5).to(dtype) * scale
    rows[-1] = n * rows[0] - rows[:-1].sum(dim=0)
    return rows


@pytest.mark.parametrize("name", ["geomed", "autogm"])
@pytest.mark.parametrize(("n", "d"), [(6, 4_810), (12, 100)])
@pytest.mark.parametrize("scale", [1e-12, 1e-2, 1.0, 1e6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_leaves_a_row_that_the_start_coincides_with(
    name: str, n: int, d: int, scale: float, dtype: torch.dtype
) -> None:
    batch = torch.stack([rows_with_their_mean_as_the_first(n, d, scale, dtype, seed) for seed in range(6)])
    arguments = {"lamb": 1e9} if name == "autogm" else {}
    together = gars[name].aggregate(batch, f=2, **arguments)
    for rows, result in zip(batch, together, strict=True):
        outwards = torch.nn.functional.normalize(rows.double() - result.double(), dim=1, eps=0)
        assert outwards.sum(dim=0).norm() < 1e-3  # above 1 near the row
        alone = gars[name].aggregate(rows, f=2, **arguments)
        assert (alone - result).norm() < 1e-5 * (rows - result).norm(dim=1).mean()


@pytest.mark.parametrize("seed", range(4))
def test_an_iterate_at_a_row_is_not_the_end(seed: int) -> None:
    others = torch.randn(24, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    others[:11] += 10
    row = others.mean(dim=0)
    for _ in range(1_000):  # to where Weiszfeld's step leads from the mean of all rows
        shares = 1 / (others - (others.sum(dim=0) + row) / 25).norm(dim=1)
        row = shares @ others / shares.sum()
    rows = torch.cat([row.unsqueeze(0), others]).float()
    result = gars["geomed"].aggregate(rows, f=2)
    outwards = torch.nn.functional.normalize(rows.double() - result.double(), dim=1)
    assert outwards.sum(dim=0).norm() < 1e-3


@pytest.mark.parametrize("others", [1, 4])
@pytest.mark.parametrize("distance", [1e-3, 1.0, 1e6, 1e30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_majority_at_one_point_is_the_median(others: int, distance: float, dtype: torch.dtype) -> None:
    point = torch.linspace(-1, 1, 7, dtype=dtype)
    rows = point.repeat(9, 1)
    rows[:others] += distance * torch.eye(7, dtype=dtype)[:others]
    for f in (0, others):
        assert_close(gars["geomed"].aggregate(rows, f=f), point, rtol=0, atol=2e-6)


@pytest.mark.parametrize(("n", "f"), [(11, 2), (25, 11)])
@pytest.mark.parametrize("d", [3, 1_000])
@pytest.mark.parametrize("kind", ["together", "scattered", "opposite"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
def test_huge_rows_pull_as_rows_at_infinity(
    n: int, f: int, d: int, kind: str, dtype: torch.dtype, tolerance: float
) -> None:
    draw = np.random.default_rng(0)
    honest = draw.normal(size=(n - f, d)) + 1
    directions = {
        "together": np.ones((f, d)),
        "scattered": draw.normal(size=(f, d)),
        "opposite": np.where(np.arange(f) % 2, 1.0, -1.0)[:, None] * np.ones(d),
    }[kind]
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    expected = with_rows_at_infinity(honest, directions)
    rows = torch.tensor(np.concatenate([1e30 * directions, honest]), dtype=dtype)
    spread = d**0.5
    result = gars["geomed"].aggregate(rows, f=f, tolerance=1e-11, iterations=10_000)
    assert np.linalg.norm(result.double().numpy() - expected) < tolerance * spread
    by_default, weights = gars["geomed"].aggregate_and_weights(rows, f=f)
    assert np.linalg.norm(by_default.double().numpy() - expected) < 2e-5 * spread
    assert weights[:f].max() < 1e-28


def test_balls_that_hold_a_majority() -> None:
    for rows, radii in (([0, 1, 3, 9, 50], [3, 2, 3, 8, 47]), ([0, 1, 3, 9], [3, 2, 3, 8]), ([4], [0])):
        points = torch.tensor(rows, dtype=torch.float64)
        assert majority_radii((points.unsqueeze(0) - points.unsqueeze(1)).square()).tolist() == radii


def test_elements_of_a_batch_stop_by_themselves() -> None:
    fast, slow = random_rows(11, 2, 500, 0), random_rows(11, 2, 2, 1)
    batch = torch.tensor(np.stack([np.pad(slow, ((0, 0), (0, 498))), fast, np.ones_like(fast)]))
    together = gars["geomed"].aggregate(batch, f=2)
    for rows, result in zip(batch, together, strict=True):
        assert_close(result, gars["geomed"].aggregate(rows, f=2), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_the_tolerance_is_relative(scale: float) -> None:
    rows = torch.tensor(random_rows(15, 3, 3, 0)) * scale
    exact = gars["geomed"].aggregate(rows, f=3, **EXACT)
    errors = [
        float((gars["geomed"].aggregate(rows, f=3, tolerance=tolerance) - exact).norm()) / scale
        for tolerance in (1e-1, 1e-3, 1e-6)
    ]
    assert errors[0] > 10 * errors[1] > 100 * errors[2] > 0


def test_non_finite_rows_have_no_weight() -> None:
    rows = torch.tensor(random_rows(11, 2, 6, 0))
    rows[3, 2], rows[7] = torch.nan, -torch.inf
    result, weights = gars["geomed"].aggregate_and_weights(rows, f=2, **EXACT)
    assert weights[[3, 7]].tolist() == [0, 0]
    finite = rows[rows.isfinite().all(dim=1)].numpy()
    np.testing.assert_allclose(result.numpy(), oracle(finite, 0), rtol=1e-10)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"nu": 0}, ValueError, "geomed: expected a finite nu above 0, got 0"),
        ({"nu": -1e-6}, ValueError, "nu above 0, got -1e-06"),
        ({"nu": float("nan")}, ValueError, "nu above 0, got nan"),
        ({"nu": float("inf")}, ValueError, "nu above 0, got inf"),
        ({"nu": True}, TypeError, "a number as nu, got True"),
        ({"nu": "small"}, TypeError, "a number as nu, got 'small'"),
        ({"tolerance": -1e-9}, ValueError, "geomed: expected a finite tolerance of at least 0, got -1e-09"),
        ({"tolerance": None}, TypeError, "a number as tolerance, got None"),
        ({"iterations": 0}, ValueError, "geomed: expected iterations of at least 1, got 0"),
        ({"iterations": 2.0}, TypeError, "a whole number as iterations, got 2.0"),
        ({"iterations": True}, TypeError, "a whole number as iterations, got True"),
    ],
)
def test_bad_arguments(arguments: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        gars["geomed"].check(n=11, f=2, **arguments)


def test_numbers_at_their_bounds_and_of_workers() -> None:
    gars["geomed"].check(n=11, f=5, nu=1, tolerance=0, iterations=1)
    with pytest.raises(ValueError, match="geomed: expected f from 0 to 5 for n = 11, got 6"):
        gars["geomed"].check(n=11, f=6)
