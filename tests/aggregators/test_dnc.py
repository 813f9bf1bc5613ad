import itertools

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from aggregators import gars
from aggregators.dnc import draw
from tests.aggregators.oracle import assert_agrees, random_rows


def oracle(rows: np.ndarray, f: int, c: float = 1.0, draws: list[np.ndarray] | None = None, **_: int) -> np.ndarray:
    n, d = rows.shape
    times = np.zeros(n)
    for coordinates in draws or [np.arange(d)]:
        sampled = rows[:, coordinates]
        centred = sampled - sampled.mean(axis=0)
        scores = (centred @ np.linalg.svd(centred, full_matrices=False)[2][0]) ** 2
        times[np.argsort(scores, kind="stable")[: n - int(np.ceil(c * f))]] += 1
    return rows[times == times.max()].mean(axis=0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("c", [1.0, 2, 0.5, 1.25, 3.7])
def test_agrees_with_the_definition(c: float) -> None:
    assert_agrees("dnc", oracle, c=c)


@pytest.mark.parametrize(("rounds", "coordinates"), [(1, 5), (3, 39), (5, 20), (40, 2)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 2e-5)])
def test_agrees_with_the_definition_on_coordinates_drawn(
    rounds: int, coordinates: int, dtype: torch.dtype, tolerance: float
) -> None:
    for n, f, d in ((15, 3, 40), (11, 5, 1000)):
        for seed in range(5):
            rows, drawing = random_rows(n, f, d, seed), generator(seed)
            draws = [draw(d, coordinates, drawing, torch.device("cpu")).numpy() for _ in range(rounds)]
            result = gars["dnc"].aggregate(
                torch.tensor(rows, dtype=dtype),
                f=f,
                rounds=rounds,
                coordinates=coordinates,
                generator=generator(seed),
            )
            expected = oracle(rows, f, draws=draws)
            np.testing.assert_allclose(result.numpy(), expected, rtol=tolerance, atol=tolerance)


def test_a_hand_computed_example() -> None:
    rows = torch.tensor([[0.0, 0], [4, 0], [-3, 0], [1, 1], [-7, 0]], dtype=torch.float64)  # mean (-1, 0.2)
    _, weights = gars["dnc"].aggregate_and_weights(rows, f=1)
    assert_close(weights, torch.tensor([1, 1, 1, 1, 0], dtype=torch.float64) / 4)
    _, weights = gars["dnc"].aggregate_and_weights(rows, f=1, c=2)
    assert_close(weights, torch.tensor([1, 0, 1, 1, 0], dtype=torch.float64) / 3)


def test_vectors_kept_in_the_most_rounds_where_none_is_kept_in_all() -> None:
    rows = torch.eye(7, 14, dtype=torch.float64) + torch.eye(7, 14, dtype=torch.float64).roll(7, dims=1)
    rows = torch.cat([rows, torch.ones(7, 1)], dim=1)  # each coordinate drawn speaks against one row
    dropped, drawing = np.zeros(7), generator()
    for _ in range(100):
        (coordinate,) = draw(15, 1, drawing, torch.device("cpu")).tolist()
        dropped[coordinate % 7 if coordinate < 14 else 6] += 1  # of equal ones the last
    assert dropped.min() > 0
    _, weights = gars["dnc"].aggregate_and_weights(rows, f=1, rounds=100, coordinates=1, generator=generator())
    assert weights.nonzero().squeeze(-1).tolist() == np.flatnonzero(dropped == dropped.min()).tolist()
    assert_close(weights.sum(), torch.tensor(1.0, dtype=torch.float64))


@pytest.mark.parametrize("n", [1, 2, 5])
def test_without_byzantine_rows_it_is_the_mean(n: int) -> None:
    rows = torch.tensor(random_rows(n, 0, 4, 0))
    assert_close(gars["dnc"].aggregate(rows, f=0), rows.mean(dim=0))
    assert_close(gars["dnc"].aggregate(rows, f=0, coordinates=2, rounds=3), rows.mean(dim=0))


def test_of_equal_vectors_the_first_are_kept() -> None:
    rows = torch.tensor([[1.0], [0.0], [0.0], [1.0], [0.0], [1.0], [0.5]])
    for dtype in (torch.float32, torch.float64):
        _, weights = gars["dnc"].aggregate_and_weights(rows.to(dtype), f=3)
        assert weights.nonzero().squeeze(-1).tolist() == [0, 1, 2, 6]
    copies = torch.cat([torch.tensor(random_rows(8, 0, 50, 0)), torch.full((5, 50), 4.0)])
    copies[8:] += torch.linspace(0, 1, 50)
    for seed, rounds in itertools.product(range(5), (1, 5, 20)):  # whatever is drawn, the same copies are dropped
        generator = torch.Generator().manual_seed(seed)
        _, weights = gars["dnc"].aggregate_and_weights(copies, f=3, rounds=rounds, coordinates=30, generator=generator)
        assert weights.nonzero().squeeze(-1).tolist() == list(range(10))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("huge", [1, 3, 7])
def test_huge_rows_of_all_sizes_and_directions_are_dropped_first(dtype: torch.dtype, huge: int) -> None:
    draws = np.random.default_rng(0)
    for _ in range(20):
        rows = draws.normal(size=(15, 20)) + 1
        rows[:huge] *= 10.0 ** draws.integers(8, 31, size=(huge, 1))
        order = draws.permutation(15)
        result = gars["dnc"].aggregate(torch.tensor(rows[order], dtype=dtype), f=7)
        np.testing.assert_allclose(result.numpy(), oracle(rows[huge:], 7 - huge), rtol=1e-5)


def test_large_rows_are_as_in_the_definition() -> None:
    for size in (1e2, 1e4, 1e5):
        rows = random_rows(15, 0, 20, 0)
        rows[3] *= size
        np.testing.assert_allclose(gars["dnc"].aggregate(torch.tensor(rows), f=3).numpy(), oracle(rows, 3))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_non_finite_rows_are_left_out_of_the_mean_and_dropped_first(value: float) -> None:
    rows = torch.tensor(random_rows(11, 1, 6, 0))
    finite = [0, 1, 2, 4, 5, 6, 7, 9, 10]
    expected = oracle(rows[finite].numpy(), 2)
    rows[3, 1], rows[8] = value, value
    np.testing.assert_allclose(gars["dnc"].aggregate(rows, f=4).numpy(), expected)
    np.testing.assert_allclose(gars["dnc"].aggregate(rows, f=4, c=0.1).numpy(), rows[finite].mean(dim=0).numpy())
    for _ in range(20):  # seen or not
        assert gars["dnc"].aggregate(rows, f=4, rounds=2, coordinates=1).isfinite().all()
    assert not gars["dnc"].aggregate(torch.full((5, 3), value), f=2).isfinite().any()


def test_one_draw_serves_a_batch() -> None:
    rows = torch.randn(2, 3, 11, 60, dtype=torch.float64, generator=generator(1))
    together = gars["dnc"].aggregate(rows, f=3, coordinates=10, generator=generator())
    for i in range(2):
        for j in range(3):
            alone = gars["dnc"].aggregate(rows[i, j], f=3, coordinates=10, generator=generator())
            assert_close(alone, together[i, j])
    others = [gars["dnc"].aggregate(rows, f=3, coordinates=10, generator=generator(seed)) for seed in (0, 0, 1)]
    assert torch.equal(others[0], others[1])
    assert not torch.equal(others[0], others[2])


def test_without_a_generator_the_global_one_is_drawn_from() -> None:
    rows = torch.randn(11, 60, dtype=torch.float64, generator=generator(1))
    results = []
    for _ in range(2):
        torch.manual_seed(3)
        results.append(gars["dnc"].aggregate(rows, f=3, coordinates=10))
    assert torch.equal(*results)


@pytest.mark.parametrize(("d", "count"), [(1, 1), (10, 9), (100, 1), (100, 6), (1000, 10), (200_000, 10_000)])
def test_coordinates_differ_and_are_equally_likely(d: int, count: int) -> None:
    device, drawing = torch.device("cpu"), generator()
    times = torch.zeros(d)
    repeats = 2000 if d < 200_000 else 5
    for _ in range(repeats):
        chosen = draw(d, count, drawing, device)
        assert len(chosen.unique()) == len(chosen) == count
        times[chosen] += 1
    if count < d:
        expected = repeats * count / d
        chi_square = float((times - expected).square().sum() / (expected * (1 - count / d)))
        assert abs(chi_square - (d - 1)) < 4 * (2 * (d - 1)) ** 0.5


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"rounds": 0}, ValueError, "dnc: expected rounds of at least 1, got 0"),
        ({"rounds": 2.0}, TypeError, "a whole number as rounds, got 2.0"),
        ({"coordinates": 0}, ValueError, "dnc: expected coordinates of at least 1, got 0"),
        ({"coordinates": True}, TypeError, "a whole number as coordinates, got True"),
        ({"c": 0}, ValueError, "dnc: expected a finite c above 0, got 0"),
        ({"c": float("inf")}, ValueError, "c above 0, got inf"),
        ({"c": "1"}, TypeError, "a number as c, got '1'"),
        ({"c": 5.01}, ValueError, r"dnc: expected c of at most \(n - 1\) / f = 5, got 5.01"),
    ],
)
def test_bad_arguments(arguments: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        gars["dnc"].check(n=11, f=2, **arguments)


def test_numbers_at_their_bounds_and_of_workers() -> None:
    gars["dnc"].check(n=11, f=2, c=5, rounds=1, coordinates=1)
    gars["dnc"].check(n=11, f=0, c=1e6)
    _, weights = gars["dnc"].aggregate_and_weights(torch.tensor(random_rows(60, 3, 6, 0)), f=25, c=1.12)
    assert (weights > 0).sum() == 60 - 28  # 1.12 · 25 is rounded to more than 28
    with pytest.raises(ValueError, match="dnc: expected f from 0 to 5 for n = 11, got 6"):
        gars["dnc"].check(n=11, f=6)
