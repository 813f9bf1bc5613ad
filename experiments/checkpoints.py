"""Checkpoints: all that the rest of a run depends on, in one file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from experiments.config import RunConfig
from tools.errors import UserError

FORMAT = "byzantium checkpoint 1"


@dataclass(frozen=True)
class Checkpoint:
    """A run after some of its steps.

    Attributes:
        config: of the run, as resolved.
        seed: the seed really used.
        state: of the simulation.
    """

    path: Path
    config: RunConfig
    seed: int
    state: dict[str, Any]

    @property
    def step(self) -> int:
        """How many steps were done."""
        return self.state["step"]


def checkpoint_path(folder: Path, step: int) -> Path:
    """Return where the checkpoint of a step lies in a result folder."""
    return folder / f"checkpoint-{step}"


def save_checkpoint(path: Path, config: RunConfig, seed: int, state: dict[str, Any]) -> None:
    """Write a checkpoint; the file appears only when complete."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        torch.save({"format": FORMAT, "config": config.to_dict(), "seed": seed, "state": state}, unfinished)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def load_checkpoint(path: str, config: RunConfig) -> Checkpoint:
    """Read a checkpoint from which a run of this configuration can continue.

    Args:
        path: of the file.
        config: resolved, see `RunConfig.on`.

    Raises:
        UserError: no such file, not a checkpoint, a truncated one, or one of another configuration.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"--load-checkpoint: cannot read {path}: {error.strerror}") from error
    except Exception as error:  # torch raises many kinds for what is not, or not all of, a file of its own
        raise UserError(f"--load-checkpoint: expected a whole checkpoint, got something else in {path}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"--load-checkpoint: expected a file in the format {FORMAT!r}, got another in {path}")
    stored = RunConfig.from_dict(content["config"])
    if names := config.differences(stored):
        flags = ", ".join(
            f"--{n.replace('_', '-')} {getattr(stored, n)!r} (here {getattr(config, n)!r})" for n in names
        )
        raise UserError(f"--load-checkpoint: expected the configuration of {path}, which had {flags}")
    return Checkpoint(Path(path), stored, content["seed"], content["state"])
