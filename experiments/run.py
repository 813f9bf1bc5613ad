"""One run, from its configuration to its result directory."""

import errno
import math
import shlex
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

from experiments import datasets
from experiments.checkpoints import (
    Checkpoint,
    checkpoint_path,
    find_checkpoints,
    load_checkpoint,
    restore,
    save_checkpoint,
)
from experiments.config import SECTIONS, RunConfig
from experiments.datasets import Data
from experiments.environment import choose_seed, describe, on_this_machine, settings
from experiments.event_files import EventFiles, check_tensorboard
from experiments.network_simulation import NetworkSimulation
from experiments.prompt import ask
from experiments.results import ResultDirectory, unwritable
from experiments.server import ServerSimulation
from experiments.shards import write_partition
from experiments.simulation import Simulation
from tools.console import Console, duration, make_tree
from tools.errors import UserError, one_line
from tools.interruption import Interrupted, Interruption

FLUSH_INTERVAL_S = 0.5
TOO_LARGE = ("allocate memory", "out of memory", "Storage size calculation overflowed")  # how torch says so
UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)


def load_data(config: RunConfig) -> Data:
    """Return the run's data, on its device."""
    data = datasets.load(
        config.dataset, Path(config.data_directory), transform=not config.no_transform, **config.dataset_args
    )
    return data.to(config.device)


def run(config: RunConfig, console: Console, load: Callable[[RunConfig], Data] = load_data) -> Path:
    """Do one run and return its result folder.

    Everything that can be wrong is found before the folder is made.

    Args:
        load: gives the run its data, which it does not change.

    Raises:
        UserError: something that the user can fix.
        Interrupted: SIGINT or SIGTERM came; the folder stays `.pending`, with a checkpoint to continue from.
    """
    start = time.perf_counter()
    config = on_this_machine(config)
    if config.tensorboard:
        check_tensorboard()
    with settings(config):
        path = config.load_checkpoint
        checkpoint = None if path is None else load_checkpoint(path, config)
        seed = checkpoint.seed if checkpoint else choose_seed(config)
        data = load(config)
        simulation = _build(config, data, seed)
        if checkpoint:
            restore(simulation, checkpoint)
        simulation.clock.add("start", time.perf_counter() - start)
        continued = (checkpoint.path.parent, checkpoint.step) if checkpoint else None
        with ResultDirectory(config.folder(), continued) as results, Interruption() as interruption:
            with console.logs(results.out_log, results.err_log):
                _Training(config, seed, simulation, results, console, interruption, checkpoint).run()
            return results.folder


def _build(config: RunConfig, data: Data, seed: int) -> Simulation:
    try:
        return (ServerSimulation if config.has_server else NetworkSimulation)(config, data, seed)
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not any(words in str(error) for words in TOO_LARGE):
            raise
        raise UserError(
            f"--nb-workers, --nb-for-study, --nb-for-study-past, --model: expected what fits into memory, got more "
            f"({one_line(error)})"
        ) from error


class _Training:
    """The loop of a run: evaluations, checkpoints and prompts between steps, and everything said about it."""

    def __init__(
        self,
        config: RunConfig,
        seed: int,
        simulation: Simulation,
        results: ResultDirectory,
        console: Console,
        interruption: Interruption,
        checkpoint: Checkpoint | None,
    ) -> None:
        self.config, self.seed, self.simulation = config, seed, simulation
        self.results, self.console, self.interruption = results, console, interruption
        self.first = simulation.step_index
        self.last = self.first + config.nb_steps if config.nb_steps >= 0 else math.inf
        self.saved = self.first if checkpoint else None
        self.events = EventFiles(results.pending / "tensorboard", self.first) if config.tensorboard else None
        self.accuracies: list[float] = []
        self.loss: float | None = None
        self.said_nan = False
        self.started = self.flushed = time.perf_counter()

    def run(self) -> None:
        """Train to the last step, and give the result folder the name that fits how it ended."""
        try:
            self._introduce()
            with self.console.live():
                self._loop()
            self._flush()
            self._conclude()
            self._close()
            self.results.finish()
        except (Interrupted, KeyboardInterrupt):
            self._close()
            raise
        except BaseException as error:
            if isinstance(error, OSError) and error.errno in UNWRITABLE:
                raise unwritable(self.results.pending, error) from error
            self.results.err_log.write(traceback.format_exc())
            self.results.fail()
            raise

    def _introduce(self) -> None:
        self.console.show(make_tree(self.results.folder.name, self._write_config()))
        if self.simulation.metrics is not None:
            self.results.write_study(self.simulation.metrics.columns, [])  # the header, even of a run of no steps
        if self.simulation.shards is not None:
            byzantine = self.simulation.nodes()[self.config.nb_workers - self.config.nb_real_byz :]
            targets = self.simulation.data.train.targets
            write_partition(self.results.pending / "partition.csv", self.simulation.shards, targets, byzantine)
        if self.simulation.model.one_by_one:
            self.console.say(f"gradients are computed one worker after another: {self.simulation.model.one_by_one}")
        if self.config.attack is not None and self.config.nb_real_byz == 0:
            self.console.say(f"nobody attacks: --nb-real-byz is 0, whatever --attack {self.config.attack} would do")
        elif self.config.attack is not None:
            attack, arguments = self.config.attack_and_arguments()
            f = self.config.nb_real_byz
            if notice := attack.notice(h=self.config.nb_workers - f, f=f, **arguments):
                self.console.say(notice)

    def _write_config(self, **more: int) -> dict[str, dict[str, Any]]:
        """Write the configuration and what is noted about the run, and return both in groups."""
        environment = describe(self.config, self.seed) | self.simulation.noted() | more
        groups = describe_config(self.config, self.simulation, environment)
        fields = {**self.config.to_dict(), "environment": environment}
        self.results.write_config(self.results.folder.name, groups, fields)
        return groups

    def _loop(self) -> None:
        config, simulation = self.config, self.simulation
        while True:
            step = simulation.step_index
            if self.interruption.signal is not None:
                self._stop()
            if config.checkpoint_delta and step % config.checkpoint_delta == 0 and step != self.saved:
                self._save()
            if config.user_input_delta and step % config.user_input_delta == 0 and step != self.first:
                self._flush()
                with self.console.paused():
                    ask(simulation, config, self.interruption)
                if self.interruption.signal is not None:
                    self._stop()
            # After all that may end the run here: its continuation evaluates at this step, from the same test stream
            if config.evaluation_delta and (step % config.evaluation_delta == 0 or simulation.stopped):
                self._evaluate()
            if step >= self.last or simulation.stopped:
                return
            simulation.step()
            metrics = simulation.metrics
            if (metrics is not None and metrics.full) or time.perf_counter() - self.flushed > FLUSH_INTERVAL_S:
                self._flush()

    def _evaluate(self) -> None:
        values = self.simulation.evaluate()
        self.accuracies.append(values[0])
        self._flush()
        step, columns = self.simulation.step_index, self.simulation.evaluation_columns
        self.results.write_evaluation(step, columns, values)
        if self.events:
            self.events.write_evaluation(step, columns, values)
        if not self.console.is_terminal:
            self.console.say(self._line())

    def _flush(self) -> None:
        """Write out what was measured, and show where the run is."""
        if self.simulation.metrics is not None:
            rows = self.simulation.metrics.flush()
            self.results.write_study(self.simulation.metrics.columns, rows)
            if self.events:
                self.events.write_study(self.simulation.metrics.columns, rows)
            losses = [row[2] for row in rows]
        else:
            losses = [float(self.simulation.loss)] if self.simulation.step_index > self.first else []
        if losses:
            self.loss = losses[-1]
        if not self.said_nan and any(math.isnan(loss) for loss in losses):
            self.said_nan = True
            self.console.warn(f"the loss became NaN before step {self.simulation.step_index}; the run goes on")
        self.flushed = time.perf_counter()
        self.console.update(self._line())

    def _line(self) -> str:
        """Return where the run is, as one line."""
        step = self.simulation.step_index
        rate = (step - self.first) / max(time.perf_counter() - self.started, 1e-9)
        whole = "" if math.isinf(self.last) else f"/{self.last}"
        parts = [f"step {step}{whole}"]
        if self.loss is not None:
            parts.append(f"loss {self.loss:.4f}")
        if self.accuracies:
            parts.append(f"accuracy {self.accuracies[-1]:.4f}")
        if rate:
            parts.append(f"{rate:.1f} steps/s")
            if step < self.last < math.inf:
                parts.append(f"{duration((self.last - step) / rate)} left")
        return "  ".join(parts)

    def _save(self) -> Path:
        self._flush()
        step = self.simulation.step_index
        path = checkpoint_path(self.results.pending, step)
        save_checkpoint(path, self.config, self.seed, self.simulation.state_dict())
        for _, old in find_checkpoints(path.parent)[self.config.checkpoint_keep or sys.maxsize :]:
            old.unlink()
        self.saved = step
        return path

    def _stop(self) -> None:
        step, number = self.simulation.step_index, self.interruption.signal
        path = shlex.quote(str(self._save()))
        left = "" if math.isinf(self.last) else f" --nb-steps {self.last - step}"
        message = f"interrupted after step {step}; to continue, repeat the command with --load-checkpoint {path}{left}"
        raise Interrupted(number, message)

    def _close(self) -> None:
        self.results.write_timing(self.simulation.clock.seconds())
        if self.events:
            self.events.close()

    def _conclude(self) -> None:
        if self.simulation.stopped:
            step = self.simulation.step_index
            self.console.say(f"stopped at step {step}: it moved no parameters by {self.config.stop_below:g} or more")
            self._write_config(stopped_at=step)
        if self.accuracies:
            final, best = self.accuracies[-1], max(self.accuracies)
            self.console.say(f"final accuracy {final:.4f}, maximum {best:.4f}")
        self.console.say(f"results in {self.results.folder}")


def describe_config(
    config: RunConfig, simulation: Simulation, environment: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    """Return what a person wants to know about a run, in groups: its flags, and what follows from them."""
    groups: dict[str, dict[str, Any]] = {}
    for field in fields(config):
        if field.name in SECTIONS:
            group = groups[SECTIONS[field.name]] = {}
        value = getattr(config, field.name)
        if value is not None and value != {}:
            group[field.name.replace("_", "-")] = value
    groups |= simulation.introduction()
    train, test = len(simulation.data.train), len(simulation.data.test)
    groups["environment"] = {
        "model": f"{simulation.model.d:,} parameters",
        "data": f"{train:,} training and {test:,} test samples of shape {simulation.data.input_shape}",
        **{key: value for key, value in environment.items() if key != "versions"},
        **environment["versions"],
    }
    return groups
