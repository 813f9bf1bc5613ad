"""The defence: pre-aggregators, one after another, then a rule; and what a run's defences draw and remember."""

import bisect
import copy
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from aggregators import Aggregator
from aggregators.damage import damage_by_distances
from aggregators.distances import squared_distances_between_means
from aggregators.pre import PreAggregator
from tools.seeding import copy_generator, derive_seed, make_generator


@dataclass(frozen=True)
class Defence:
    """A rule and its arguments, after pre-aggregators and theirs.

    Attributes:
        frequency: with which it is drawn, where several are.
    """

    rule: type[Aggregator]
    arguments: dict[str, Any]
    before: tuple[tuple[type[PreAggregator], dict[str, Any]], ...] = ()
    frequency: float = 1.0

    @property
    def takes_copies(self) -> bool:
        """Whether only the first of rows known to be equal is read."""
        return self.rule.takes_copies and not self.before

    @property
    def needs(self) -> set[str]:
        """Context without which the defence does not work."""
        return {piece for kind in (self.rule, *(pre for pre, _ in self.before)) for piece in kind.needs}

    @property
    def depends_on_distances(self) -> bool:
        """Whether the result is a mean of the vectors by weights that follow from their distances."""
        mixes = (
            pre.mixing_by_distance.__func__ is not PreAggregator.mixing_by_distance.__func__ for pre, _ in self.before
        )
        return self.rule.form == "weights_by_distance" and all(mixes)

    @property
    def depends_on_own_distances(self) -> bool:
        """Whether the result is a mean of the vectors by weights that follow from their distances to the first."""
        return self.rule.form == "weights_by_own_distance" and not self.before

    @property
    def depends_on_number(self) -> bool:
        """Whether the result is a mean of the vectors by weights that follow from how many there are."""
        return self.rule.form == "weights_by_number" and not self.before

    def weights_by_distance(self, squared_distances: Tensor, **specialized: Any) -> Tensor:
        """Return each vector's share of the result, (…, n, n) → (…, n), where it depends on distances alone."""
        mixing = torch.eye(squared_distances.shape[-1], dtype=squared_distances.dtype, device=squared_distances.device)
        distances = squared_distances
        for pre, arguments in self.before:
            weights = pre.mixing_by_distance(distances, **specialized, **arguments)
            distances, mixing = squared_distances_between_means(distances, weights), weights @ mixing
        weights = self.rule.weights_by_distance(distances, **specialized, **self.arguments)
        return (weights.unsqueeze(-2) @ mixing).squeeze(-2)

    def changes_rows(self, n: int, f: int) -> bool:
        """Return whether pre-aggregators make another number of n vectors."""
        rows = n
        for pre, arguments in self.before:
            rows = pre.rows(n=rows, f=f, **arguments)
        return rows != n

    def check(self, *, n: int, f: int) -> None:
        """Raise ValueError or TypeError if a pre-aggregator, or the rule after them, cannot take these numbers."""
        for pre, arguments in self.before:
            pre.check(n=n, f=f, **arguments)
            n = pre.rows(n=n, f=f, **arguments)
        self.rule.check(n=n, f=f, **self.arguments)


class Rehearsal:
    """The drawn defence as attackers know it: a function of all vectors (n, d), which leaves no trace.

    Args:
        h: how many of the vectors are honest ones, the first.
        context: what else the rule may know.
    """

    def __init__(self, defender: "Defender", h: int, context: dict[str, Any]) -> None:
        self._defender = defender
        self._h = h
        self._context = context

    def __call__(self, vectors: Tensor) -> Tensor:
        byzantine = vectors[self._h :]
        copies = max(len(byzantine), 1) if torch.equal(byzantine[1:], byzantine[:-1]) else 1
        return self._defender.rehearse(vectors, copies=copies, **self._context)

    def damage_along(
        self, honest: Tensor, base: Tensor, direction: Tensor, count: int
    ) -> Callable[[float], float] | None:
        """Return the damage that `count` attackers on a line would do, by their factor; None if only vectors tell."""
        return self._defender.damage_along(honest, base, direction, count, **self._context)


class Defender:
    """Who defends a run: draws one of its defences for each step, and keeps their states and generators.

    Args:
        defences: of which each step draws one, by their frequencies.
        f: how many workers are declared Byzantine.
        seed: of the run.
        device: where rules compute.
    """

    def __init__(self, defences: Sequence[Defence], f: int, seed: int, device: torch.device) -> None:
        self.defences = defences
        self.f = f
        self.device = device
        self._seed = seed
        self._mixture = make_generator(seed, "mixture")
        self._generators = {"rule": make_generator(seed, "rule", device=device)}
        for place, (pre, _) in enumerate(defences[0].before):
            self._generators[f"pre-{place}"] = make_generator(seed, "pre-aggregator", pre.name, place, device=device)
        self._states: dict[str, dict[str, Any]] = {}
        self._drawn = 0

    def draw(self) -> Defence:
        """Draw the defence of the next step and return it."""
        if len(self.defences) > 1:
            drawn = float(torch.rand((), generator=self._mixture, dtype=torch.float64))
            ends = list(itertools.accumulate(defence.frequency for defence in self.defences))
            self._drawn = bisect.bisect_right(ends, drawn * ends[-1], hi=len(ends) - 1)
        return self.defence

    def __call__(
        self, vectors: Tensor, *, copies: int = 1, draw: int | None = None, part: str = "", **context: Any
    ) -> tuple[Tensor, Tensor | None]:
        """Return what the drawn defence makes of all vectors (…, n, d), and their shares (…, n), on their device.

        Args:
            copies: the last so many vectors are known to be equal.
            draw: calls with the same number draw the same random ones; None: each call draws on.
            part: of the vectors of a step, when there are several calls in it; each has states of its own.
            context: what else the rule may know; tensors are moved to its device.
        """
        if draw is not None:
            for purpose, generator in self._generators.items():
                generator.manual_seed(derive_seed(self._seed, "draw", purpose, draw))
        defence, device = self.defence, vectors.device
        context = {key: value.to(self.device) if isinstance(value, Tensor) else value for key, value in context.items()}
        vectors = vectors.to(self.device)
        for place, (pre, arguments) in enumerate(defence.before):
            remembered = self._remembered(f"pre-{place}", f"{part}pre-{place}")
            rows = vectors.shape[-2]
            vectors = pre.transform(vectors, f=self.f, copies=copies, **context, **remembered, **arguments)
            copies = 1
            if vectors.shape[-2] != rows:
                context.pop("weights_row", None)  # which are those of vectors that are no more
        remembered = self._remembered("rule", f"{part}rule-{self._drawn}")
        result, weights = defence.rule.aggregate_and_weights(
            vectors, f=self.f, copies=copies, **context, **remembered, **defence.arguments
        )
        return result.to(device), None if weights is None or defence.before else weights.to(device)

    @property
    def defence(self) -> Defence:
        """The one drawn for this step."""
        return self.defences[self._drawn]

    def _remembered(self, generator: str, state: str) -> dict[str, Any]:
        return {"generator": self._generators[generator], "state": self._states.setdefault(state, {})}

    @contextmanager
    def rehearsing(self) -> Iterator[None]:
        """Leave no trace in states and generators of what happens inside."""
        states, generators = self._states, self._generators
        self._states = copy.deepcopy(states)
        self._generators = {purpose: copy_generator(generator) for purpose, generator in generators.items()}
        try:
            yield
        finally:
            self._states, self._generators = states, generators

    def rehearse(self, vectors: Tensor, *, copies: int = 1, **context: Any) -> Tensor:
        """Return what the drawn defence would make of vectors, leaving states and generators alone."""
        with self.rehearsing():
            return self(vectors, copies=copies, **context)[0]

    def damage_along(
        self, honest: Tensor, base: Tensor, direction: Tensor, count: int, **context: Any
    ) -> Callable[[float], float] | None:
        """Return the damage that `count` attackers on a line would do, by their factor; None if only vectors tell."""
        defence = self.defence
        if not defence.depends_on_distances:
            return None
        honest, base, direction = (vectors.to(self.device) for vectors in (honest, base, direction))
        weights = functools.partial(defence.weights_by_distance, f=self.f, dtype=honest.dtype, **context)
        return damage_by_distances(weights, honest, base, direction, count)

    def state_dict(self) -> dict[str, Any]:
        """Return all that later steps depend on."""
        generators = {"mixture": self._mixture, **self._generators}
        return {
            "generators": {purpose: generator.get_state() for purpose, generator in generators.items()},
            "states": self._states,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was called."""
        for purpose, generator in {"mixture": self._mixture, **self._generators}.items():
            generator.set_state(state["generators"][purpose])
        self._states = state["states"]
