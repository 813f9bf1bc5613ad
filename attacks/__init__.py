"""Attacks, one file each: (…, h, d), what honest workers send → (…, f, d), what Byzantine workers send.

An attack is a class that registers itself under its name. Its file holds its formula, `generate`, and its conditions,
`check`; what every attack shares (stacking, checking, f = 0, `out=`) is in the base class. `template.py` is there to be
copied.
"""

import functools
import inspect
from abc import ABC
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from tools.arguments import require_context
from tools.long_rows import check_out, column_means, column_moments, shares_memory, smallest_square, stack_rows
from tools.registry import Registry, import_modules

CONTEXT = frozenset(
    {"f", "out", "aggregate", "f_declared", "parameters", "full_gradient", "step", "state", "generator", "moments"}
    | {"pivot", "weights", "adjacency", "num_classes"}
)
"""What the simulation fills in, all that an omniscient adversary knows; users do not set these.

`aggregate`: the defence as a function of all n vectors, the Byzantine ones last. `f_declared`: what the defence
tolerates. `parameters` (d,). `full_gradient`: a callable, the gradient (d,) over the whole training set. `state`: a
dictionary kept between steps, and checkpointed. `pivot` (d,): the previous aggregate, None before there is one.
`moments`: mean and summed squared deviations of the honest vectors, where the simulation has computed them already.
`weights` (n, n) and `adjacency` (n, n): of a topology, honest nodes first.
"""


class Attack(ABC):
    """A way for f workers who know everything to choose what they send.

    A subclass `class Empire(Attack, name="empire")` writes `generate(cls, honest_gradients, /, *, f, **specialized) ->
    (…, f, d)`, kept as `unchecked` and wrapped on registration, and `check`. `unchecked` may return equal rows as an
    expanded vector, by which the simulation sees that they are equal; `generate` never does. One draw from `generator`
    (torch's own when there is none) serves all leading axes, so that a batch gives what each of its matrices gives.

    An attack that poisons data writes `poison(cls, inputs, targets, /, *, num_classes, **specialized) -> (inputs,
    targets)` instead.
    """

    name: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()
    """Context an attack cannot do without, by keyword."""
    per_recipient: ClassVar[bool] = False
    """Whether it makes one set of vectors for each honest recipient, (h, f, d)."""
    cost: ClassVar[str] = ""
    """What it costs, in h, f, d and R, an aggregation; for the documentation."""
    condition: ClassVar[str] = ""
    """Numbers or arguments it can do with, where it cannot do with all; for the documentation."""

    def __init_subclass__(cls, /, name: str = "", **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "generate" in vars(cls):
            cls.unchecked = vars(cls)["generate"]
            cls.generate = classmethod(_checked(cls.unchecked.__func__))
        if name:
            if not hasattr(cls, "unchecked") and not cls.poisons():
                raise TypeError(f"{cls.__name__}: expected generate or poison, got none")
            cls.name = name
            attacks.register(name, cls)

    @classmethod
    def check(cls, *, h: int, f: int, **specialized: Any) -> None:
        """Raise ValueError or TypeError, with what was got and what was expected, for arguments it cannot take.

        Called before a run without, and once the model is built with, the number of coordinates `d`.
        """

    @classmethod
    def notice(cls, *, h: int, f: int, **specialized: Any) -> str | None:
        """Return what a user should be told once before a run with these numbers, if anything."""
        return None

    @classmethod
    def poison(
        cls, inputs: Tensor, targets: Tensor, /, *, num_classes: int, **specialized: Any
    ) -> tuple[Tensor, Tensor]:
        """Return the batch on which a Byzantine worker computes its gradient as an honest one would.

        Args:
            inputs: (…, batch, *shape). Not changed.
            targets: (…, batch), classes. Not changed.
            num_classes: C; classes are 0 … C − 1.
        """
        raise NotImplementedError(f"{cls.name} makes vectors, see generate")

    @classmethod
    def poisons(cls) -> bool:
        """Return whether the attack poisons data and leaves the vectors to honest computation."""
        return cls.poison.__func__ is not Attack.poison.__func__

    @classmethod
    def formula(cls) -> Callable[..., Any]:
        """Return what the attack's file writes, without what the base class adds."""
        return cls.poison if cls.poisons() else cls.unchecked

    @classmethod
    def generate(
        cls, honest_gradients: Tensor | Sequence[Tensor], /, out: Tensor | None = None, *, f: int, **specialized: Any
    ) -> Tensor:
        """Return what the Byzantine workers send.

        Args:
            honest_gradients: (…, h, d), leading axes being independent batches, or h vectors (d,). Not changed.
            out: (…, f, d) to write into and return.
            f: how many vectors to make; 0 gives (…, 0, d).
            specialized: the attack's own parameters, and context (see `CONTEXT`) of which it takes what it needs.

        Returns:
            (…, f, d), of the dtype and on the device of the honest gradients, sharing no memory with them.

        Raises:
            ValueError: numbers the attack cannot take, no honest vector, missing context.
            TypeError: values that are not of a floating dtype; an attack that poisons data makes no vectors.
        """
        raise TypeError(f"{cls.name}: it poisons data and makes no vectors, see poison")


def _checked(formula: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Wrap an attack's formula with what all attacks share."""

    @functools.wraps(formula)
    @torch.no_grad()
    def generate(
        cls: type[Attack],
        honest_gradients: Tensor | Sequence[Tensor],
        /,
        out: Tensor | None = None,
        *,
        f: int,
        **specialized: Any,
    ) -> Tensor:
        honest = stack_rows(honest_gradients, cls.name)
        if f < 0:
            raise ValueError(f"{cls.name}: expected f of at least 0, got {f}")
        require_context(cls, specialized)
        cls.check(h=honest.shape[-2], f=f, d=honest.shape[-1], **specialized)
        recipients = honest.shape[-2:-1] if cls.per_recipient else ()
        shape = (*honest.shape[:-2], *recipients, f, honest.shape[-1])
        check_out(out, shape, honest, cls.name)
        byzantine = formula(cls, honest, f=f, **specialized) if f else honest.new_empty(shape)
        if out is not None:
            return out.copy_(byzantine)
        return byzantine.clone() if shares_memory(byzantine, honest) else byzantine.contiguous()

    parameters = list(inspect.signature(formula).parameters.values())
    out = inspect.Parameter("out", inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None, annotation=Tensor | None)
    generate.__signature__ = inspect.Signature([*parameters[:2], out, *parameters[2:]], return_annotation=Tensor)
    return generate


attacks: Registry[Attack] = Registry("attack")


def get(name: str) -> type[Attack]:
    """Return the attack of that name; an unknown one raises a UserError that lists the known ones."""
    return attacks[name]


def repeat(vector: Tensor, f: int) -> Tensor:
    """Return one vector (…, d) as the f equal rows (…, f, d), without copying it."""
    return vector.unsqueeze(-2).expand(*vector.shape[:-1], f, vector.shape[-1])


def honest_mean(honest: Tensor, specialized: dict[str, Any]) -> Tensor:
    """Return the mean of the honest vectors, (…, h, d) → (…, d), the simulation's where it passed it along."""
    return specialized["moments"][0] if "moments" in specialized else column_means(honest)


def honest_deviation(honest: Tensor, specialized: dict[str, Any], correction: int = 0) -> tuple[Tensor, Tensor]:
    """Return mean and coordinate-wise standard deviation of the honest vectors, (…, h, d) → two (…, d).

    By moments that the simulation passed along, or computed. Vectors whose squares are outside the range of float32 are
    looked at in float64.
    """
    mean, squares = specialized["moments"] if "moments" in specialized else column_moments(honest)
    count = honest.shape[-2] - correction
    deviation = (squares / count).sqrt_()
    largest = squares.amax(dim=-1)
    lost = ~(largest.isfinite() & (largest > smallest_square(honest.dtype)))
    if honest.dtype != torch.float64 and lost.any():  # waits for the GPU
        wide = (column_moments(honest.double())[1] / count).sqrt_()
        deviation = wide.to(honest.dtype).where(lost.unsqueeze(-1), deviation)
    return mean, deviation


import_modules(__name__, __path__)
