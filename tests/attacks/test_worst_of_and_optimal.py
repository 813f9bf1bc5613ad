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
