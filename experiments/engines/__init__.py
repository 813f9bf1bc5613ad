"""Engines: where the runs of a grid are computed.

An engine has slots, each of which does one run at a time. `reproduce.py` gives slots work, and waits for what they say.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from experiments.config import RunConfig


class Outcome(Enum):
    """How a task ended."""

    DONE = "done"
    FAILED = "failed"
    """The task's own fault: others may go on."""
    CRASHED = "crashed"
    """The process that did it is gone, and could not put the run's folder in order."""
    LOST = "lost"
    """The machine that did it is gone: the task may be given to another."""
    BUSY = "busy"
    """Somebody else is writing to the run's folder."""
    UNWRITABLE = "unwritable"
    """The folder of all runs cannot be written to: others would fail as well."""
    INTERRUPTED = "interrupted"
    """It was told to stop."""


@dataclass(frozen=True)
class Task:
    """What a slot is to do: a run, or only fetching its data.

    Attributes:
        config: of the run; its result directory is the run's own folder. The slot sets the device.
    """

    config: RunConfig
    only_data: bool = False


@dataclass(frozen=True)
class Progress:
    """Where a slot's task is, in one line."""

    slot: int
    text: str


@dataclass(frozen=True)
class Ended:
    """A slot's task ended; the slot is free.

    Attributes:
        reason: in one line, why, unless it is done.
        log: what the process printed that is in no file of the run.
    """

    slot: int
    outcome: Outcome
    reason: str = ""
    log: str = ""


Event = Progress | Ended


class Engine(ABC):
    """Slots that do tasks; use as a context manager, on leaving which nothing of it is left.

    Attributes:
        slots: their names, for the overview.
        devices: the kinds of devices they have, such as "cpu".
    """

    slots: Sequence[str]
    devices: frozenset[str]

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop(grace_s=0.0)

    @abstractmethod
    def start(self, slot: int, task: Task) -> None:
        """Give a free slot a task."""

    @abstractmethod
    def wait(self, timeout_s: float) -> list[Event]:
        """Return what slots have said, at latest after a time."""

    @abstractmethod
    def stop(self, grace_s: float) -> list[Event]:
        """End all tasks and slots, and return what they said last.

        Args:
            grace_s: how long tasks have to save where they are.
        """
