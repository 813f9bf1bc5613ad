"""TensorBoard event files, of --tensorboard; an optional dependency."""

import math
from collections.abc import Iterable
from pathlib import Path

from tools.errors import UserError


def check_tensorboard() -> None:
    """Raise a UserError unless event files can be written."""
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError as error:
        raise UserError(
            "--tensorboard: expected the package tensorboard, found none; pip install tensorboard"
        ) from error


class EventFiles:
    """Writes study rows and accuracies as scalars.

    Args:
        folder: of the event files.
        step: the first step that will be written; what an earlier part of the run wrote from it on is dropped.
    """

    def __init__(self, folder: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # optional, and seconds to import

        self._writer = SummaryWriter(str(folder), purge_step=step)

    def write_study(self, columns: tuple[str, ...], rows: Iterable[tuple[float, ...]]) -> None:
        """Write what was measured at some steps."""
        for step, *values in rows:
            for column, value in zip(columns[1:], values, strict=True):
                if not math.isnan(value):
                    self._writer.add_scalar(f"study/{column}", value, step)

    def write_evaluation(self, step: int, columns: tuple[str, ...], values: tuple[float, ...]) -> None:
        """Write the accuracies of an evaluation."""
        for column, value in zip(columns, values, strict=True):
            self._writer.add_scalar(f"eval/{column}", value, step)
        self._writer.flush()

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()
