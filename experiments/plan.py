"""What is to be done about each run of a grid, given what its result directory holds."""

import dataclasses
import json
import math
import os
from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from experiments.checkpoints import find_checkpoints, load_checkpoint
from experiments.config import RunConfig
from experiments.results import move_aside, sibling
from tools.errors import UserError, one_line


class Action(Enum):
    """What is to be done."""

    SKIP = "skip"
    RUN = "run"
    CONTINUE = "continue"


@dataclass(frozen=True)
class Planned:
    """A run and what is to be done about it.

    Attributes:
        why: in a few words.
        aside: folders that are moved aside first.
        checkpoint: where to continue from.
        done: steps that the checkpoint has.
    """

    name: str
    config: RunConfig
    action: Action
    why: str
    aside: tuple[Path, ...] = ()
    checkpoint: Path | None = None
    done: int = 0

    @property
    def folder(self) -> Path:
        """The run's folder once it is finished."""
        return self.config.folder()

    def prepare(self) -> RunConfig:
        """Move aside what is in the way, and return the configuration that does the rest of the run."""
        for folder in self.aside:
            move_aside(folder)
        if self.checkpoint is None:
            return self.config
        left = self.config.nb_steps - self.done
        return dataclasses.replace(self.config, load_checkpoint=str(self.checkpoint), nb_steps=left)


def plan(name: str, config: RunConfig, devices: Collection[str]) -> Planned:
    """Return what is to be done about a run.

    Args:
        config: with its own result folder; its device is that of any slot.
        devices: the kinds of device that results may come from.
    """
    folder = config.folder()
    failed, pending = sibling(folder, ".failed"), sibling(folder, ".pending")
    if folder.exists():
        wrong = _defect(folder, config, devices)
        if wrong is None:
            return Planned(name, config, Action.SKIP, "finished")
        return Planned(name, config, Action.RUN, f"{wrong}: moved aside, and run again", aside=(folder,))
    if pending.is_dir():
        for step, path in find_checkpoints(pending):
            if step <= config.nb_steps and _fits(path, config, devices):
                return Planned(name, config, Action.CONTINUE, f"from step {step}", checkpoint=path, done=step)
        return Planned(name, config, Action.RUN, "was broken off without a checkpoint: from the start")
    if failed.exists():
        return Planned(name, config, Action.RUN, "failed before: from the start", aside=(failed,))
    return Planned(name, config, Action.RUN, "new")


def _candidates(config: RunConfig, devices: Collection[str]) -> list[RunConfig]:
    return [dataclasses.replace(config, device=device) for device in devices]


def _defect(folder: Path, config: RunConfig, devices: Collection[str]) -> str | None:
    """Return why a finished folder is not the result of a configuration; None if it is."""
    try:
        fields = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        environment = fields.pop("environment", None) or {}
        stored = RunConfig.from_dict(fields)
    except (OSError, ValueError, TypeError, AttributeError) as error:  # a UserError is a ValueError
        return f"unreadable config.json ({one_line(error)})"
    differences = min((wanted.differences(stored) for wanted in _candidates(config, devices)), key=len)
    if differences:
        flags = ", ".join(
            f"--{name.replace('_', '-')} {getattr(stored, name)} instead of {getattr(config, name)}"
            for name in differences
        )
        return f"has {flags}"
    stopped = config.stop_below is not None and environment.get("stopped_at", math.inf) <= config.nb_steps
    steps = environment["stopped_at"] if stopped else config.nb_steps
    expected = {"study": steps - 1 if config.nb_for_study else None}
    delta = config.evaluation_delta
    if delta:
        expected["eval"] = steps if stopped else steps // delta * delta
    for file, step in expected.items():
        if step is not None and step >= 0 and (last := _last_step(folder / file)) != step:
            return f"{file} ends at step {last} instead of {step}"
    return None


def _last_step(path: Path) -> int | None:
    """Return the first number of a file's last line; None if it has none, or the line is not whole."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 4096))
            end = file.read()
        last = end.splitlines(keepends=True)[-1]
        return int(last.split(b"\t")[0]) if last.endswith(b"\n") else None
    except (OSError, ValueError, IndexError):
        return None


def _fits(path: Path, config: RunConfig, devices: Collection[str]) -> bool:
    for wanted in _candidates(config, devices):
        try:
            load_checkpoint(str(path), wanted)
        except UserError:
            continue
        return True
    return False
