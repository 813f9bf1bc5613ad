"""The strongest of several attacks, and of the vectors on a line, beside a direct search."""

import functools

import numpy as np
import pytest
import torch
from torch import Tensor

from aggregators import gars
from attacks import attacks


def damage(rule: str, honest: Tensor, byzantine: Tensor) -> float:
    vectors = np.concatenate([honest.numpy(), byzantine.numpy()])
    result = gars[rule].aggregate(torch.tensor(vectors), f=len(byzantine)).numpy()
    return float(((result - honest.numpy().mean(axis=0)) ** 2).sum())


@pytest.mark.parametrize("rule", ["krum", "median", "average", "cge"])
def test_worst_of_sends_what_does_most_damage(rule: str) -> None:
    names = ["alie", "ipm", "signflip", "zero"]
    for seed in range(5):
        honest = torch.randn(11, 30, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.3
        aggregate = functools.partial(gars[rule].aggregate, f=4)
        sent = attacks["worst-of"].generate(honest, f=4, aggregate=aggregate, attacks=",".join(names))
        each = [damage(rule, honest, attacks[name].generate(honest, f=4)) for name in names]
        assert damage(rule, honest, sent) == pytest.approx(max(each))
        assert max(each) > min(each)


def test_worst_of_takes_infinite_damage_for_the_worst() -> None:
    honest = torch.ones(5, 3)
    average = functools.partial(gars["average"].aggregate, f=2)
    assert attacks["worst-of"].generate(honest, f=2, aggregate=average, attacks="zero,inf").isinf().all()


@pytest.mark.parametrize("name", ["optimal-alie", "optimal-ipm"])
@pytest.mark.parametrize("sign", [-1, 1])
def test_both_sides_are_searched(name: str, sign: int) -> None:
    """A defence that follows attackers on one side of the mean only."""
    honest = torch.rand(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 1
    mean = honest.mean(dim=0)

    def one_sided(vectors: Tensor) -> Tensor:
        moved = (vectors[-1] - mean) * sign
        return mean + moved.clamp(0, 0.5)

    sent = attacks[name].generate(honest, f=2, aggregate=one_sided)[0]
    assert (sign * (sent - mean) > 0).all()


@pytest.mark.parametrize("rule", ["krum", "brute", "median"])
@pytest.mark.parametrize("spread", [0.1, 1.0])
def test_optimal_ipm_finds_much_of_the_greatest_damage(rule: str, spread: float) -> None:
    honest = 1 + spread * torch.randn(16, 200, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    mean = honest.mean(dim=0)
    sent = attacks["optimal-ipm"].generate(honest, f=5, aggregate=functools.partial(gars[rule].aggregate, f=5))
    grid = [damage(rule, honest, ((1 + t) * mean).expand(5, -1)) for t in np.linspace(-3, 3, 601)]
    assert damage(rule, honest, sent) > 0.5 * max(grid)


@pytest.mark.parametrize("name", ["optimal-alie", "optimal-ipm"])
@pytest.mark.parametrize("evaluations", [2, 3, 8, 9, 16, 64])
def test_each_side_gets_half_of_the_evaluations_and_nothing_is_tried_twice(name: str, evaluations: int) -> None:
    honest = torch.tensor([[1.0], [2.0], [4.0], [5.0]], dtype=torch.float64)
    tried = []

    def aggregate(vectors: Tensor) -> Tensor:
        tried.append(float(vectors[-1] - 3))
        return vectors[:4].mean(dim=0) + (vectors[-1] - 3.3).abs().clamp(max=1e3)

    attacks[name].generate(honest, f=2, aggregate=aggregate, evaluations=evaluations)
    assert len(tried) == len(set(tried)) == evaluations
    first_side = 1 if name == "optimal-alie" else -1  # the direction of optimal-ipm is minus the mean
    assert sum(1 for offset in tried if offset * first_side < 0) == evaluations // 2
    assert (0 in tried) == (evaluations >= 8)


def test_worst_of_takes_what_is_not_a_number_for_no_damage_at_all() -> None:
    honest = torch.zeros(5, 3)  # which zeros do not harm either
    average = functools.partial(gars["average"].aggregate, f=2)
    assert (attacks["worst-of"].generate(honest, f=2, aggregate=average, attacks="nan,zero") == 0).all()


def test_worst_of_chooses_for_each_matrix_of_a_batch() -> None:
    draw = torch.Generator().manual_seed(0)
    honest = torch.randn(3, 2, 11, 30, generator=draw, dtype=torch.float64)
    honest += torch.tensor([0.0, 0.1, 5.0]).view(3, 1, 1, 1)
    given = {"f": 4, "aggregate": functools.partial(gars["krum"].aggregate, f=4), "attacks": "alie,ipm,zero,signflip"}
    together, sent = attacks["worst-of"].generate(honest, **given), set()
    for i, j in np.ndindex(3, 2):
        alone = attacks["worst-of"].generate(honest[i, j], **given)
        torch.testing.assert_close(together[i, j], alone)
        each = {name: attacks[name].generate(honest[i, j], f=4) for name in given["attacks"].split(",")}
        sent |= {name for name, vectors in each.items() if torch.allclose(vectors, alone)}
    assert len(sent) > 1


def test_attacks_of_worst_of_remember_apart() -> None:
    honest, state = torch.randn(9, 40, generator=torch.Generator().manual_seed(0)), {}
    average = functools.partial(gars["average"].aggregate, f=3)
    for _ in range(2):
        attacks["worst-of"].generate(honest, f=3, aggregate=average, attacks=["mimic", "sparse", "zero"], state=state)
    assert set(state) == {"mimic", "sparse", "zero"}
    assert set(state["sparse"]) == {"sensitive"}
    assert state["mimic"]["steps"] == 1
    assert not state["zero"]


@pytest.mark.parametrize(
    ("names", "error", "message"),
    [
        ("zero,worst-of", ValueError, "worst-of: expected attacks that make vectors for a server, got worst-of"),
        ("labelflip", ValueError, "worst-of: expected attacks that make vectors for a server, got labelflip"),
        ("zero, dissensus", ValueError, "worst-of: expected attacks that make vectors for a server, got dissensus"),
        ("zero,alie", ValueError, "alie: no factor of at least 0 exists for h = 7 honest and f = 1"),
        (
            "full-gradient-negation",
            ValueError,
            "negation: expected the context 'full_gradient', got none",
        ),
        ("zero,", ValueError, "unknown attack ''"),
        ("", TypeError, "worst-of: expected names of attacks parted by commas, got ''"),
        ([], TypeError, r"worst-of: expected names of attacks parted by commas, got \[\]"),
        (3, TypeError, "worst-of: expected names of attacks parted by commas, got 3"),
    ],
)
def test_attacks_that_worst_of_cannot_take(names: str | list | int, error: type[Exception], message: str) -> None:
    average = functools.partial(gars["average"].aggregate, f=1)
    with pytest.raises(error, match=message):
        attacks["worst-of"].generate(torch.ones(7, 2), f=1, aggregate=average, attacks=names)


def test_worst_of_checks_its_attacks_before_a_run() -> None:
    attacks["worst-of"].check(h=7, f=3, attacks="zero,alie")
    with pytest.raises(ValueError, match="alie: no factor of at least 0 exists for h = 7 honest and f = 1"):
        attacks["worst-of"].check(h=7, f=1, attacks="zero,alie")
