"""Checkpoints: all that the rest of a run depends on, in one file."""

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from experiments.config import RunConfig
from experiments.simulation import Simulation
from tools.errors import UserError, one_line

FORMAT = "byzantium checkpoint 3"
CHECKPOINT_PREFIX = "checkpoint-"


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
    return folder / f"{CHECKPOINT_PREFIX}{step}"


def find_checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """Return the checkpoints in a result folder with their steps, the latest first."""
    found = []
    for path in folder.glob(f"{CHECKPOINT_PREFIX}*"):
        step = path.name.removeprefix(CHECKPOINT_PREFIX)
        if step.isdigit():
            found.append((int(step), path))
    return sorted(found, reverse=True)


def save_checkpoint(path: Path, config: RunConfig, seed: int, state: dict[str, Any]) -> None:
    """Write a checkpoint; the file appears only when complete."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        with unfinished.open("wb") as file:  # given a path, torch would not say that a disk is full
            torch.save({"format": FORMAT, "config": config.to_dict(), "seed": seed, "state": state}, file)
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
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # by checksums, which torch does not compare
        content = None if damaged else torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"--load-checkpoint: cannot read {path}: {error.strerror}") from error
    except Exception as error:  # torch raises many kinds for what is not, or not all of, a file of its own
        raise UserError(f"--load-checkpoint: expected a whole checkpoint, got something else in {path}") from error
    if damaged:
        raise UserError(f"--load-checkpoint: expected a whole checkpoint, got a damaged one in {path}")
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"--load-checkpoint: expected a file in the format {FORMAT!r}, got another in {path}")
    try:
        stored = RunConfig.from_dict(content["config"])
        checkpoint = Checkpoint(Path(path), stored, content["seed"], content["state"])
        steps = checkpoint.step
    except (UserError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"--load-checkpoint: expected the checkpoint of a run in {path}: {one_line(error)}") from error
    if not isinstance(steps, int) or not isinstance(checkpoint.seed, int):
        raise UserError(f"--load-checkpoint: expected the checkpoint of a run in {path}, got one without step or seed")
    if names := config.differences(stored):
        flags = ", ".join(
            f"--{n.replace('_', '-')} {getattr(stored, n)!r} (here {getattr(config, n)!r})" for n in names
        )
        raise UserError(f"--load-checkpoint: expected the configuration of {path}, which had {flags}")
    return checkpoint


def restore(simulation: Simulation, checkpoint: Checkpoint) -> None:
    """Bring a simulation to where a checkpoint was taken, or raise a UserError if it holds something else."""
    try:
        simulation.load_state_dict(checkpoint.state)
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise UserError(
            f"--load-checkpoint: expected the state of such a run in {checkpoint.path}: {one_line(error)}"
        ) from error
