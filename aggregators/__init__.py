"""Aggregation rules, one file each: (…, n, d) → (…, d).

A rule is a class that registers itself under its name. Its file holds its formula, in one of six forms, and its
conditions, `check`; what every rule shares (stacking, checking, non-finite rows, `out=`) is in the base class.
`template.py` is there to be copied.
"""

import functools
import inspect
from abc import ABC
from collections.abc import Callable, Sequence
from numbers import Integral
from typing import Any, ClassVar

import torch
from torch import Tensor

from aggregators.damage import damage_by_distances
from aggregators.distances import squared_distances
from tools.arguments import require_context
from tools.long_rows import check_out, shares_memory, squared_norms, stack_rows
from tools.registry import Registry, import_modules

CONTEXT = frozenset({"f", "n", "pivot", "weights_row", "trusted", "loss", "state", "generator", "copies", "dtype"})
"""What callers fill in, and users do not set.

`pivot` (…, d): the previous aggregate at a server, the worker's own vector in decentralised mixing. `weights_row`
(…, n): mixing weights of sum one, own first. `trusted` (…, d): a gradient the server trusts, of as many samples as the
rule's parameter `root` says, of 100 where it has none. `loss`: parameters (d,) → loss on own data. `state`: a
dictionary kept between calls. `copies`: the last so many rows are known to be one and the same vector; a rule with a
parameter of that name reads only the first of them.
"""
FORMS = ("aggregate", "weights", "combine", "weights_by_distance", "weights_by_own_distance", "weights_by_number")
"""What a rule's file may write, one of them."""


class Aggregator(ABC):
    """A rule that turns n vectors, f of them possibly arbitrary, into one.

    A subclass `class Krum(Aggregator, name="krum")` writes one of

    - `aggregate(cls, gradients, /, *, f, **specialized) -> (…, d)`, kept as `unchecked` and wrapped on registration;
    - `weights(cls, gradients, /, *, f, **specialized) -> (…, n)`, non-negative with sum one, for rules that are a
      weighted mean of their inputs: `aggregate` and `influence` follow from it, computed once;
    - `combine(cls, gradients, /, *, f, **specialized) -> (…, d), (…, n)`, the result and each row's share of it, for
      weighted means of vectors that the rule clips or rescales first: of a clipped row only what is left counts;
    - `weights_by_distance(cls, squared_distances, /, *, f, dtype, **specialized) -> (…, n)`, for rules whose weights
      follow from the squared distances (…, n, n) between vectors of a dtype alone;
    - `weights_by_own_distance(cls, squared_distances, /, *, f, dtype, **specialized) -> (…, n)`, for rules whose
      weights follow from the squared distances (…, n) of the vectors to one of them, see `squared_distances_to_own`;
    - `weights_by_number(cls, n, /, *, f, **specialized) -> (n,)` in float64, for rules whose weights follow from the
      number of vectors;

    and `check`. All may assume that a row that held NaN or ±inf is +inf throughout. One draw from `generator` (torch's
    own when there is none) serves all leading axes, so that a batch gives what each of its matrices gives.
    """

    name: ClassVar[str]
    form: ClassVar[str] = ""
    """Which of `FORMS` the rule is written as."""
    takes_copies: ClassVar[bool] = False
    """Whether the rule reads only the first of the rows that `copies` says are equal."""
    needs: ClassVar[tuple[str, ...]] = ()
    """Context a rule cannot do without, by keyword."""
    keeps_non_finite: ClassVar[str] = ""
    """Why a rule lets NaN and ±inf through, for those that must."""
    finds_non_finite: ClassVar[bool] = False
    """Whether the rule takes rows as they are and never uses one with NaN or ±inf, which saves a pass to mark them."""
    cost: ClassVar[str] = ""
    """What it costs, in n, f and d; for the documentation."""

    def __init_subclass__(cls, /, name: str = "", **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        written = set(FORMS) & vars(cls).keys()
        if len(written) > 1:
            raise TypeError(f"{cls.__name__}: expected one of {', '.join(FORMS)}, got {', '.join(sorted(written))}")
        if written:
            (cls.form,) = written
            for form in {"unchecked", *FORMS[1:]} - written:  # what is inherited no longer counts
                setattr(cls, form, vars(Aggregator)[form])
        if cls.form == "" and name:
            raise TypeError(f"{cls.__name__}: expected one of {', '.join(FORMS)}, got none")
        if "aggregate" in written:
            cls.unchecked = vars(cls)["aggregate"]
            del cls.aggregate
        if cls.form.endswith("_distance"):
            cls.takes_copies = cls.finds_non_finite = True
        elif written:
            cls.takes_copies = "copies" in inspect.signature(cls.formula()).parameters
        if name:
            cls.name = name
            gars.register(name, cls)

    @classmethod
    def check(cls, *, n: int, f: int, **specialized: Any) -> None:
        """Raise ValueError, with what was got and what was expected, if the rule cannot take these numbers.

        Unless a rule says otherwise, honest workers must be a majority: n ≥ 2f + 1.
        """
        cls.require(n=n, f=f, most=(n - 1) // 2)

    @classmethod
    def upper_bound(cls, *, n: int, f: int, d: int) -> float | None:
        """Return the deviation / norm ratio of honest vectors under which the rule is proven to work, if known."""
        return None

    @classmethod
    def weights_by_distance(cls, squared_distances: Tensor, /, *, f: int, **specialized: Any) -> Tensor:
        """Return each row's share of the result by the distances between rows, (…, n, n) → (…, n)."""
        raise NotImplementedError(f"{cls.name} is not a function of distances")

    @classmethod
    def weights_by_own_distance(cls, squared_distances: Tensor, /, *, f: int, **specialized: Any) -> Tensor:
        """Return each row's share of the result by its distance to own, two (…, n)."""
        raise NotImplementedError(f"{cls.name} is not a function of distances to own")

    @classmethod
    def weights_by_number(cls, n: int, /, *, f: int, **specialized: Any) -> Tensor:
        """Return each row's share of the result by how many there are, (n,)."""
        raise NotImplementedError(f"{cls.name} is not a function of numbers")

    @classmethod
    def squared_distances_to_own(cls, gradients: Tensor, **specialized: Any) -> Tensor:
        """Return the squared distance of each row to row 0, (…, n, d) → (…, n) in float64.

        +inf for rows that hold NaN or ±inf or are too large to square.
        """
        # Without row 0: its zero would look like a square below the range of the dtype
        squares = squared_norms(gradients[..., 1:, :], gradients[..., 0, :])
        squares = torch.cat([squares.new_zeros(*squares.shape[:-1], 1), squares], dim=-1)
        return squares.masked_fill(~squares.isfinite(), torch.inf)

    @classmethod
    def weights(cls, gradients: Tensor, /, *, f: int, copies: int = 1, **specialized: Any) -> Tensor:
        """Return each row's share of the result, (…, n, d) → (…, n), for rules that are weighted means of rows."""
        if cls.form == "weights_by_distance":
            distances = squared_distances(gradients, copies)
            return cls.weights_by_distance(distances, f=f, dtype=gradients.dtype, **specialized)
        n = gradients.shape[-2]
        if cls.form == "weights_by_number":
            return cls.weights_by_number(n, f=f, **specialized).to(gradients).expand(gradients.shape[:-1])
        distinct = n - copies + 1
        distances = cls.squared_distances_to_own(gradients[..., :distinct, :], **specialized)
        distances = distances[..., torch.arange(n, device=distances.device).clamp(max=distinct - 1)]
        return cls.weights_by_own_distance(distances, f=f, dtype=gradients.dtype, **specialized)

    @classmethod
    def combine(cls, gradients: Tensor, /, *, f: int, copies: int = 1, **specialized: Any) -> tuple[Tensor, Tensor]:
        """Return the result and each row's share of it, (…, n, d) → (…, d) and (…, n)."""
        weights = cls.weights(gradients, f=f, copies=copies, **specialized)
        return mix(weights.unsqueeze(-2), gradients, copies).squeeze(-2), weights

    @classmethod
    def unchecked(cls, gradients: Tensor, /, *, f: int, **specialized: Any) -> Tensor:
        """Return `aggregate` of a tensor that satisfies its conditions: nothing is verified."""
        return cls.combine(gradients, f=f, **specialized)[0]

    @classmethod
    def aggregate(
        cls, gradients: Tensor | Sequence[Tensor], /, out: Tensor | None = None, *, f: int, **specialized: Any
    ) -> Tensor:
        """Aggregate n vectors of which at most f are arbitrary.

        Args:
            gradients: (…, n, d), leading axes being independent batches, or a sequence of n vectors (d,). Not changed.
            out: (…, d) to write into and return.
            f: how many rows may be anything at all; up to f rows with NaN or ±inf count as infinitely far away.
            specialized: the rule's own parameters, and context (see `CONTEXT`) of which it takes what it needs.

        Returns:
            (…, d), of the dtype and on the device of the gradients, never sharing memory with them.

        Raises:
            ValueError: numbers the rule cannot take, no row or no column, missing context.
            TypeError: values that are not of a floating dtype.
        """
        return cls.aggregate_and_weights(gradients, out, f=f, **specialized)[0]

    @classmethod
    @torch.no_grad()
    def aggregate_and_weights(
        cls, gradients: Tensor | Sequence[Tensor], /, out: Tensor | None = None, *, f: int, **specialized: Any
    ) -> tuple[Tensor, Tensor | None]:
        """Return `aggregate` and each row's share of it (…, n), None if the rule is not a weighted mean of rows."""
        gradients = stack_rows(gradients, cls.name)
        check_out(out, gradients.shape[:-2] + gradients.shape[-1:], gradients, cls.name)
        check_context(cls.name, gradients, specialized)
        require_context(cls, specialized)
        cls.check(n=gradients.shape[-2], f=f, **{k: v for k, v in specialized.items() if k != "n"})
        if not cls.keeps_non_finite and not cls.finds_non_finite:
            gradients = mark_non_finite(gradients, specialized.get("copies", 1))
        if cls.form == "aggregate":
            result, weights = cls.unchecked(gradients, f=f, **specialized), None
        else:
            result, weights = cls.combine(gradients, f=f, **specialized)
        if out is not None:
            return out.copy_(result), weights
        return (result.clone() if shares_memory(result, gradients) else result), weights

    @classmethod
    def influence(
        cls, honests: Tensor | Sequence[Tensor], attacks: Tensor | Sequence[Tensor], *, f: int, **specialized: Any
    ) -> float:
        """Return the share, from 0 to 1, of the aggregate's weight that came from the Byzantine vectors.

        Args:
            honests: (h, d) or h vectors.
            attacks: (n - h, d) or n - h vectors.

        Returns:
            The share; NaN for rules that are not weighted means of whole vectors.
        """
        honests = stack_rows(honests, cls.name)
        if len(attacks) == 0:
            return 0.0 if cls.is_weighted_mean() else float("nan")
        gradients = torch.cat([honests, stack_rows(attacks, cls.name)])
        _, weights = cls.aggregate_and_weights(gradients, f=f, **specialized)
        return float("nan") if weights is None else float(weights[honests.shape[0] :].sum())

    @classmethod
    def damage_along(
        cls, honest: Tensor, base: Tensor, direction: Tensor, /, count: int, *, f: int, **specialized: Any
    ) -> Callable[[float], float] | None:
        """Return what `count` attackers at base + factor · direction would do to the aggregate, by the factor.

        That is ‖R(honest vectors, then attackers) − mean of the honest ones‖², to try many factors at little cost.

        Args:
            honest: (h, d).
            base: (d,).
            direction: (d,).
            f: and `specialized`: as for `aggregate`.

        Returns:
            The damage as a function of the factor; None if only aggregating the vectors tells.
        """
        if cls.form != "weights_by_distance":
            return None
        cls.check(n=len(honest) + count, f=f, **{k: v for k, v in specialized.items() if k != "n"})
        weights = functools.partial(cls.weights_by_distance, f=f, dtype=honest.dtype, **specialized)
        return damage_by_distances(weights, honest, base, direction, count)

    @classmethod
    def formula(cls) -> Callable[..., Any]:
        """Return what the rule's file writes, without what the base class adds."""
        return cls.unchecked if cls.form == "aggregate" else getattr(cls, cls.form)

    @classmethod
    def is_weighted_mean(cls) -> bool:
        """Return whether each row has a share of the result."""
        return cls.form != "aggregate"

    @classmethod
    def require(cls, *, n: int, f: int, most: float) -> None:
        """Raise ValueError unless f is a whole number from 0 to `most`, which is what n allows."""
        if isinstance(f, bool) or not isinstance(f, Integral):
            raise ValueError(f"{cls.name}: expected a whole number as f, got {f!r}")
        if n < 1 or most < 0:
            raise ValueError(f"{cls.name}: expected more workers, got n = {n}, too few even for f = 0")
        if not 0 <= f <= most:
            raise ValueError(f"{cls.name}: expected f from 0 to {most} for n = {n}, got {f}")


gars: Registry[Aggregator] = Registry("aggregation rule")


def get(name: str) -> type[Aggregator]:
    """Return the rule of that name; an unknown one raises a UserError that lists the known ones."""
    return gars[name]


def check_context(name: str, gradients: Tensor, given: dict[str, Any]) -> None:
    """Raise ValueError for pieces of context that do not go with vectors (…, n, d)."""
    n, d = gradients.shape[-2:]
    for piece, size in (("pivot", d), ("trusted", d), ("weights_row", n)):
        value = given.get(piece)
        if value is not None and (not isinstance(value, Tensor) or value.shape[-1:] != (size,)):
            got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
            raise ValueError(f"{name}: expected {piece} as a tensor (…, {size}), got {got}")
    if not 1 <= given.get("copies", 1) <= n:
        raise ValueError(f"{name}: expected copies from 1 to n = {n}, got {given['copies']}")


def mark_non_finite(gradients: Tensor, copies: int = 1) -> Tensor:
    """Return (…, n, d) with every row that holds NaN or ±inf set to +inf throughout; itself when there is none."""
    # One pass and no temporary: NaN and inf survive in a row's sum. Waits for the GPU, once per call, so that the
    # common case needs no copy of the matrix.
    sums = gradients[..., : gradients.shape[-2] - copies + 1, :].sum(dim=-1)
    if sums.isfinite().all():
        return gradients
    finite = gradients.isfinite().all(dim=-1, keepdim=True)  # a sum of large finite values may overflow as well
    return gradients if finite.all() else gradients.where(finite, torch.inf)


def mix(weights: Tensor, gradients: Tensor, copies: int = 1) -> Tensor:
    """Return weighted sums of rows, (…, r, n) and (…, n, d) → (…, r, d); rows that no sum uses may hold anything."""
    distinct = gradients.shape[-2] - copies + 1
    weights, rows = weights.to(gradients.dtype), gradients[..., :distinct, :]
    if copies > 1:
        of_copies = weights[..., distinct - 1 :].sum(dim=-1, keepdim=True)
        weights = torch.cat([weights[..., : distinct - 1], of_copies], dim=-1)
    mixed = weights @ rows
    if not mixed.sum().isfinite():  # 0 · inf is NaN; waits for the GPU
        used = (weights != 0).any(dim=-2).unsqueeze(-1)
        mixed = weights @ rows.where(used, 0)
    return mixed


import_modules(__name__, __path__)
