"""The strongest factor of an attack along a line, found by trying it on the actual rule.

Half of the evaluations look at zero and powers of two, from one outwards to either side. The others go on from the
best: in one direction while the damage grows, and closer to it once neither direction helps. The damage jumps where the
rule's selection changes, so no search is exact.
"""

import functools
import itertools
import math
import sys
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from attacks import Attack, repeat
from tools.long_rows import column_means, squared_norms

MOST_FIRST = 42  # zero, and from 2⁻²⁰ to 2²⁰


def check_factor(name: str, parameter: str, value: float) -> None:
    """Raise unless a factor is a number that is finite, and whole when negative: then it counts evaluations."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name}: expected a number as {parameter}, got {value!r}")
    if not abs(value) <= sys.float_info.max or (value < 0 and value != int(value)):
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
    return strongest_along(honest, base, direction, f, aggregate, [(1, int(-factor))])


def strongest_along(
    honest: Tensor,
    base: Tensor,
    direction: Tensor,
    f: int,
    aggregate: Callable[[Tensor], Tensor] | None,
    sides: Sequence[tuple[int, int]],
) -> Tensor:
    """Return f copies of the strongest vector found on a line, searching sides (sign, evaluations) of its base."""
    if aggregate is None:
        raise ValueError("expected the context 'aggregate', the rule to search the strongest factor against, got none")
    base, direction = (vector.expand(honest.shape[:-2] + honest.shape[-1:]) for vector in (base, direction))
    found = []
    for vectors, start, line in zip(  # one batch after another: each takes its own path
        honest.flatten(0, -3) if honest.dim() > 2 else [honest],
        base.reshape(-1, base.shape[-1]),
        direction.reshape(-1, base.shape[-1]),
        strict=True,
    ):
        damage = damage_along(vectors, start, line, f, aggregate)
        searches = [strongest_factor(damage, evaluations, sign) for sign, evaluations in sides if evaluations]
        found.append(start + max(searches, key=lambda search: search[1])[0] * line)
    return repeat(torch.stack(found).reshape(base.shape), f)


def damage_along(
    honest: Tensor, base: Tensor, direction: Tensor, f: int, aggregate: Callable[[Tensor], Tensor]
) -> Callable[[float], float]:
    """Return ‖R(honest vectors (h, d) and f at base + factor · direction) − mean of the honest ones‖² by the factor.

    By the rule's own `damage_along` where it has one: `aggregate` is then a rule's `aggregate`, in a partial with its
    arguments, or has such a method itself.
    """
    rule, arguments = aggregate, {}
    if isinstance(aggregate, functools.partial) and not aggregate.args:
        rule, arguments = getattr(aggregate.func, "__self__", None), aggregate.keywords
    quick = rule.damage_along(honest, base, direction, f, **arguments) if hasattr(rule, "damage_along") else None
    if quick is not None:
        return quick
    vectors = torch.cat([honest, honest.new_empty(f, honest.shape[-1])])
    mean = column_means(honest)

    def damage(factor: float) -> float:
        vectors[honest.shape[0] :] = base + factor * direction
        return float(squared_norms(aggregate(vectors).unsqueeze(0), mean))  # the next factor depends on it: GPU waits

    return damage


def strongest_factor(damage: Callable[[float], float], evaluations: int, sign: int = 1) -> tuple[float, float]:
    """Return the factor of that sign that did the greatest damage, of those tried, and the damage.

    Zero belongs to the positive side: where both are searched, it is tried once.

    Args:
        evaluations: how many factors to try, at least 1, which is then 1; a dozen find most of the damage.
    """

    def judged(factor: float) -> float:
        value = damage(sign * factor)
        return value if value == value else float("-inf")

    tried_first = (factor for factor in _first_factors() if factor or sign > 0)
    first = itertools.islice(tried_first, min(max(evaluations // 2, 1), MOST_FIRST))
    found = {factor: judged(factor) for factor in first}
    ratio, side, unsuccessful = 2.0, 1, 0
    while len(found) < evaluations and ratio > 1 + 1e-6:  # the ratio ends a search that found its factor
        best = max(found, key=found.__getitem__)
        factor = best * ratio**side if best else min(filter(None, found), default=2.0) / 2
        if factor not in found:
            found[factor] = judged(factor)
        if found[factor] > found[best]:
            unsuccessful = 0  # go on in this direction
            continue
        side, unsuccessful = -side, unsuccessful + 1
        if unsuccessful == 2:  # the best lies between these two
            ratio, unsuccessful = math.sqrt(ratio), 0
    best = max(found, key=found.__getitem__)
    return sign * best, found[best]


def _first_factors() -> Iterator[float]:
    """Yield 1, 0, 2, ½, 4, ¼ …"""
    yield from (1.0, 0.0)
    for exponent in itertools.count(1):
        yield 2.0**exponent
        yield 2.0**-exponent


class TwoSidedSearch(Attack):
    """An attack that tries factors of either sign along a line, from its base, and sends the strongest vector found.

    A subclass writes `line`. Each side gets half of the evaluations, the positive one more of an odd number.
    """

    cost = "hd + R per evaluation"
    needs = ("aggregate",)

    @classmethod
    @abstractmethod
    def line(cls, honest: Tensor, specialized: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Return base and direction of the line, (…, h, d) → two (…, d)."""

    @classmethod
    def check(cls, *, h: int, f: int, evaluations: int = 16, **specialized: Any) -> None:
        if isinstance(evaluations, bool) or not isinstance(evaluations, int):
            raise TypeError(f"{cls.name}: expected a whole number of evaluations, got {evaluations!r}")
        if evaluations < 2:
            raise ValueError(f"{cls.name}: expected at least 2 evaluations, one for each side, got {evaluations}")

    @classmethod
    def generate(
        cls,
        honest_gradients: Tensor,
        /,
        *,
        f: int,
        aggregate: Callable[[Tensor], Tensor],
        evaluations: int = 16,
        **specialized: Any,
    ) -> Tensor:
        base, direction = cls.line(honest_gradients, specialized)
        sides = [(1, evaluations - evaluations // 2), (-1, evaluations // 2)]
        return strongest_along(honest_gradients, base, direction, f, aggregate, sides)
