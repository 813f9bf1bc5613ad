"""All runs of a grid, on the slots of an engine: whatever happens to one costs that one only."""

import collections
import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path

from experiments.checkpoints import find_checkpoints
from experiments.config import RunConfig
from experiments.engines import Ended, Engine, Outcome, Progress, Task
from experiments.locks import BEAT_EVERY_S, Locks
from experiments.overview import Overview
from experiments.plan import Action, Planned, plan
from experiments.results import UnwritableError, read_accuracies, set_failed, unwritable
from tools.interruption import Interruption

WAIT_S = 0.2
ASK_AGAIN_S = 2.0
"""Between two looks at runs that somebody else is doing."""
GRACE_S = 5.0
"""How long runs have to save where they are when all is interrupted."""


class Reproduction:
    """Does what is left of a grid.

    Args:
        planned: every run, in the order in which they are to be done.
        overview: shown while it lasts.

    Attributes:
        failed: why, by the names of the runs that failed here.
        skipped: why, by the names of the runs whose data cannot be had.
    """

    def __init__(self, planned: Sequence[Planned], engine: Engine, locks: Locks, overview: Overview) -> None:
        self._engine, self._locks, self._overview = engine, locks, overview
        self._queue = collections.deque(run for run in planned if run.action is not Action.SKIP)
        self._elsewhere: dict[str, Planned] = {}
        self._slots: list[Planned | None] = [None] * len(engine.slots)
        self._started = [0.0] * len(engine.slots)
        self._asked = self._beaten = time.monotonic()
        self.failed: dict[str, str] = {}
        self.skipped: dict[str, str] = {}

    def run(self, interruption: Interruption) -> None:
        """Do it all; returns early when interrupted, with everything put in order.

        Raises:
            UnwritableError: the result directory cannot be written to.
        """
        try:
            self._fetch_data(interruption)
            while (self._queue or self._elsewhere or any(self._slots)) and interruption.signal is None:
                self._fill()
                for event in self._wait():
                    if isinstance(event, Progress):
                        self._overview.progress(event.slot, event.text)
                    else:
                        self._settle(event)
        finally:
            self._overview.stopping(sum(run is not None for run in self._slots))
            for event in self._engine.stop(GRACE_S if interruption.signal is not None else 0.0):
                if isinstance(event, Ended) and event.outcome is Outcome.DONE:
                    self._settle(event)

    def _wait(self) -> list[Ended | Progress]:
        events = self._engine.wait(WAIT_S)
        if time.monotonic() - self._beaten > BEAT_EVERY_S:
            self._locks.beat()
            self._beaten = time.monotonic()
        return events

    def _fetch_data(self, interruption: Interruption) -> None:
        """Fetch every dataset once, and skip the runs of those that cannot be had."""
        samples: dict[tuple[str, str, bool], RunConfig] = {}
        for run in self._queue:
            samples.setdefault(_data_of(run.config), run.config)
        reasons: dict[tuple[str, str, bool], str] = {}
        for data, config in samples.items():
            self._overview.fetching(config.dataset)
            ended = None
            while ended is None or ended.outcome is Outcome.LOST:
                self._engine.start(0, Task(config, only_data=True))
                ended = None
                while ended is None:
                    if interruption.signal is not None:
                        return
                    ended = next((event for event in self._wait() if isinstance(event, Ended)), None)
            if ended.outcome is not Outcome.DONE:
                reasons[data] = ended.reason
        self.skipped = {r.name: reasons[_data_of(r.config)] for r in self._queue if _data_of(r.config) in reasons}
        self._queue = collections.deque(run for run in self._queue if run.name not in self.skipped)
        self._overview.without_data(self.skipped)

    def _fill(self) -> None:
        """Give free slots work, if there is any."""
        if time.monotonic() - self._asked > ASK_AGAIN_S:
            self._asked = time.monotonic()
            self._queue.extend(self._elsewhere.values())
            self._elsewhere.clear()
        for slot, busy in enumerate(self._slots):
            while busy is None and self._queue:
                busy = self._begin(slot, self._queue.popleft())

    def _begin(self, slot: int, run: Planned) -> Planned | None:
        """Start a run on a slot; return None if it turns out that somebody else does it, or has done it."""
        try:
            owner = self._locks.acquire(run.name)
            if owner is not None:
                self._elsewhere[run.name] = run
                self._overview.elsewhere(run.name, owner)
                return None
            run = plan(run.name, run.config, self._engine.devices)  # it may have changed since
            if run.action is Action.SKIP:
                self._locks.release(run.name)
                self._overview.found(run.name)
                return None
            config = run.prepare()
        except OSError as error:
            raise unwritable(run.folder.parent, error) from error
        self._slots[slot], self._started[slot] = run, time.monotonic()
        self._engine.start(slot, Task(config))
        self._overview.started(slot, run.name)
        return run

    def _settle(self, event: Ended) -> None:
        """Put the folder of a run that ended in order, and say so."""
        run, self._slots[event.slot] = self._slots[event.slot], None
        if run is None:
            return
        try:
            if event.outcome is Outcome.UNWRITABLE:
                raise UnwritableError(event.reason)
            if event.outcome is Outcome.BUSY:
                self._elsewhere[run.name] = run
                self._overview.elsewhere(run.name, "another process")
            elif event.outcome is Outcome.LOST:
                self._queue.append(run)
                self._overview.lost(event.slot, run.name)
            elif event.outcome is Outcome.DONE:
                for _, checkpoint in find_checkpoints(run.folder):  # gigabytes, with large models
                    checkpoint.unlink()
                seconds = time.monotonic() - self._started[event.slot]
                self._overview.done(event.slot, run.name, seconds, read_accuracies(run.folder))
            else:
                set_failed(run.folder, event.reason, event.log, run.config.to_dict())
                self.failed[run.name] = event.reason
                self._overview.failed(event.slot, run.name, event.reason)
            self._locks.release(run.name)
        except OSError as error:
            raise unwritable(run.folder.parent, error) from error


def _data_of(config: RunConfig) -> tuple[str, str, bool]:
    """Return what decides which data a run reads."""
    return config.dataset, repr(sorted(config.dataset_args.items())), config.no_transform


def place(name: str, config: RunConfig, results: Path, data_directory: str | None, device: str) -> RunConfig:
    """Return the configuration of a run with its own result folder, the folder of all data, and a device."""
    places = {"result_directory": str(results / name), "device": device}
    if data_directory is not None:
        places["data_directory"] = data_directory
    return dataclasses.replace(config, **places)
