"""The strongest factor of an attack along a line, found by trying it on the actual rule.

Half of the evaluations look at zero and powers of two, from one outwards to either side. The others go on from the
best: in one direction while the damage grows, and closer to it once neither direction helps. The damage jumps where the
rule's selection changes, so no search is exact.
"""

import itertools
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from attacks import repeat

MOST_FIRST = 42  # zero, and from 2⁻²⁰ to 2²⁰


def check_factor(name: str, parameter: str, value: float) -> None:
    """Raise unless a factor is a number that is finite, and whole when negative: then it counts evaluations."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name}: expected a number as {parameter}, got {value!r}")
    if value - value != 0 or (value < 0 and value != int(value)):
        raise ValueError(
            f"{name}: expected {parameter} of at least 0, or minus a whole number of evaluations with which to search "
            f"the strongest, got {value!r}"
        )


def along_line(
    honest: Tensor,
    base: Tensor,
    direction: Tensor,
    factor: float,
    f: int,
    aggregate: Callable[[Tensor], Tensor] | None,
) -> Tensor:
    """Return f copies of base + factor · direction, for a negative factor with the strongest one that is found.

    The strongest factor maximises ‖R(honest and Byzantine vectors) − mean of the honest ones‖² over factors ≥ 0.

    Args:
        honest: (…, h, d).
        base: (…, d).
        direction: (…, d).
        factor: the factor, or minus the number of evaluations of `aggregate` to spend on the search.
        aggregate: the rule as a function (n, d) → (d,) of all vectors, the Byzantine ones last.

    Returns:
        (…, f, d).

    Raises:
        ValueError: a search without a rule to search against.
    """
    if factor >= 0:
        return repeat(base + factor * direction, f)
    if aggregate is None:
        raise ValueError("expected the context 'aggregate', the rule to search the strongest factor against, got none")
    base, direction = base.expand(honest.shape[:-2] + honest.shape[-1:]), direction.expand_as(base)
    found = [  # one batch after another: each takes its own path
        rows + strongest_factor(vectors, rows, line, f, aggregate, int(-factor)) * line
        for vectors, rows, line in zip(
            honest.flatten(0, -3) if honest.dim() > 2 else [honest],
            base.reshape(-1, base.shape[-1]),
            direction.reshape(-1, base.shape[-1]),
            strict=True,
        )
    ]
    return repeat(torch.stack(found).reshape(base.shape), f)


def strongest_factor(
    honest: Tensor, base: Tensor, direction: Tensor, f: int, aggregate: Callable[[Tensor], Tensor], evaluations: int
) -> float:
    """Return the factor ≥ 0 that moved the rule farthest from the honest mean, of those tried.

    Args:
        honest: (h, d).
        base: (d,).
        direction: (d,).
        evaluations: how many factors to try, at least 1, which is then 1; a dozen find most of the damage.
    """
    vectors = torch.cat([honest, honest.new_empty(f, honest.shape[-1])])
    mean = honest.mean(dim=0)

    def damage(factor: float) -> float:
        vectors[honest.shape[0] :] = base + factor * direction
        value = float((aggregate(vectors) - mean).square().sum())  # the next factor depends on it: waits for the GPU
        return value if value == value else float("-inf")

    first = itertools.islice(_first_factors(), min(max(evaluations // 2, 1), MOST_FIRST))
    found = {factor: damage(factor) for factor in first}
    ratio, side, unsuccessful = 2.0, 1, 0
    while len(found) < evaluations and ratio > 1 + 1e-6:  # the ratio ends a search that found its factor
        best = max(found, key=found.__getitem__)
        factor = best * ratio**side if best else min(filter(None, found), default=2.0) / 2
        if factor not in found:
            found[factor] = damage(factor)
        if found[factor] > found[best]:
            unsuccessful = 0  # go on in this direction
            continue
        side, unsuccessful = -side, unsuccessful + 1
        if unsuccessful == 2:  # the best lies between these two
            ratio, unsuccessful = math.sqrt(ratio), 0
    return max(found, key=found.__getitem__)


def _first_factors() -> Iterator[float]:
    """Yield 1, 0, 2, ½, 4, ¼ …"""
    yield from (1.0, 0.0)
    for exponent in itertools.count(1):
        yield 2.0**exponent
        yield 2.0**-exponent
