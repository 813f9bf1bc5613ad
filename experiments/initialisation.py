"""Initial parameters by the functions of `torch.nn.init`."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from tools.errors import UserError, one_line

initialisers: dict[str, Callable[..., Tensor]] = {
    name.removesuffix("_"): getattr(nn.init, name)
    for name in sorted(dir(nn.init))
    if name.endswith("_") and not name.startswith("_") and callable(getattr(nn.init, name))
}
"""The functions by name, without the underscore at its end."""


def initialise(
    module: nn.Module,
    multi: str | None,
    multi_arguments: dict[str, Any],
    mono: str | None,
    mono_arguments: dict[str, Any],
) -> None:
    """Draw parameters anew: those of several dimensions by one function, those of one dimension by another.

    Args:
        multi, mono: names in `initialisers`; None leaves the model's own initialisation.

    Raises:
        UserError: a function that cannot fill a parameter of such a shape, or not with these arguments.
    """
    for name, parameter in module.named_parameters():
        flag, function, arguments = (
            ("--init-multi", multi, multi_arguments) if parameter.dim() > 1 else ("--init-mono", mono, mono_arguments)
        )
        if function is None:
            continue
        try:
            initialisers[function](parameter, **arguments)
        except (ValueError, TypeError, RuntimeError) as error:
            raise UserError(
                f"{flag} {function}: it cannot fill {name} of shape {tuple(parameter.shape)}: {one_line(error)}"
            ) from error
