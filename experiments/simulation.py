"""What every simulation of a run shares: model, loss, attack, evaluation, and the schedule of learning rates."""

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import pairwise, starmap
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from experiments.config import SHARED, RunConfig
from experiments.datasets import Data
from experiments.evaluation import Evaluator
from experiments.initialisation import initialise
from experiments.losses import Loss
from experiments.metrics import StudyMetrics
from experiments.model import Model
from experiments.phases import PhaseClock
from experiments.poisoning import PoisonedStream
from experiments.root_batch import root_size
from experiments.sampling import SampleStream
from experiments.shards import make_shards, require_data
from experiments.worker_gradients import WorkerGradients
from experiments.worker_streams import ShardedStream, SharedStream, WorkerStream
from tools.schedule import learning_rate

PREPARATION_SAMPLES = 8


class Simulation(ABC):
    """n workers of which f attack, step by step.

    Args:
        config: what to simulate; device and threads are resolved by the caller.
        data: on the device of the run.
        seed: the seed really used.

    Attributes:
        step_index: steps done.
        model: of the architecture that is trained.
        loss: the average loss of the last step, 0-D.
        metrics: of the study; None without one.
        shards: the training samples of each node, by its number; None where all workers share one stream.
        stopped: whether the last step moved the parameters by less than `--stop-below`.

    Raises:
        UserError: a model, loss, criterion, attack or partition that does not go with this data.
    """

    evaluation_columns: ClassVar[tuple[str, ...]] = ("Cross-accuracy",)
    """What `evaluate` returns."""

    def __init__(self, config: RunConfig, data: Data, seed: int) -> None:
        self.config = config
        self.data = data
        self.seed = seed
        self.device = data.train.inputs.device
        self.clock = PhaseClock(self.device)
        self.n, self.f = config.nb_workers, config.nb_real_byz
        self.h = self.n - self.f
        self.step_index = 0
        self.stopped = False
        self.metrics: StudyMetrics | None = None

        self._loss_function = Loss(
            config.loss, config.loss_args, config.l1_regularize, config.l2_regularize, device=self.device
        )
        self.criterion = config.make_criterion()
        self._defences = config.defences()
        self._attack_and_arguments = config.attack_and_arguments() if config.attack else None
        self._poisons = self.f > 0 and self._attack_and_arguments[0].poisons()
        self.shards = self._make_shards()
        self.model = make_model(config, data, seed)
        self._root_size = root_size(self._defences)
        self._prepare()
        self._worker_gradients = WorkerGradients(
            self.model,
            self._loss_function,
            seed,
            local_steps=config.nb_local_steps,
            longest=config.gradient_clip,
            train=config.train_mode == "train",
        )
        self.loss = self.model.parameters.new_full((), torch.nan)
        self._evaluator = Evaluator(
            SampleStream(data.test, seed, "test", data.augmentation if config.test_augment else None),
            self.criterion,
            batch_size=config.batch_size_test,
            repetitions=config.batch_size_test_reps,
        )

    @abstractmethod
    def computes_at_own_parameters(self) -> bool:
        """Return whether workers compute gradients at parameters of their own."""

    @abstractmethod
    def step(self) -> None:
        """Do one step."""

    @abstractmethod
    def evaluate(self) -> tuple[float, ...]:
        """Return the values of `evaluation_columns` on the next batches of the test stream, from 0 to 1."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Return copies of all that later steps depend on; flush the metrics first."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was called, with the same configuration."""

    def nodes(self) -> tuple[int, ...]:
        """Return the node number of each worker, honest workers first."""
        return tuple(range(self.n))

    def introduction(self) -> dict[str, dict[str, Any]]:
        """Return what a person wants to know about the simulation besides the flags, in groups."""
        return {}

    def noted(self) -> dict[str, Any]:
        """Return what is recorded in config.json about what the simulation found besides its flags."""
        return {}

    def _make_shards(self) -> list[Tensor] | None:
        config = self.config
        if config.partition == SHARED:
            return None
        shards = make_shards(config.partition, config.partition_args, self.data.train.targets, self.n, self.seed)
        require_data(shards, self.nodes() if self._poisons else self.nodes()[: self.h])
        return shards

    def _training_stream(self) -> WorkerStream:
        """Return what honest workers train on."""
        return self._stream_of(slice(0, self.h), "training")

    def _poisoned_stream(self, generator: torch.Generator) -> PoisonedStream | None:
        """Return what poisoners train on, by their places among themselves; None where nobody poisons."""
        if not self._poisons:
            return None
        stream = self._stream_of(slice(self.h, self.n), "poison")
        return PoisonedStream(stream, self.data.num_outputs, *self._attack_and_arguments, generator)

    def _stream_of(self, workers: slice, purpose: str) -> WorkerStream:
        train, augmentation = self.data.train, self.data.augmentation
        if self.shards is None:
            stream = SampleStream(train, self.seed, purpose, augmentation)
            return SharedStream(stream, workers.stop - workers.start)
        nodes = self.nodes()[workers]
        return ShardedStream(train, [self.shards[node] for node in nodes], self.seed, purpose, augmentation, nodes)

    def _prepare(self) -> None:
        inputs, targets = (part[:PREPARATION_SAMPLES] for part in (self.data.train.inputs, self.data.train.targets))
        config = self.config
        sizes = {}
        if self.shards is None:
            last = len(self.data.train) % config.batch_size or config.batch_size
            sizes["--batch-size: a pass over the training samples has a batch"] = last
        if self._root_size is not None:
            flag = "--gar-args" if config.gars is None else "--gars"
            sizes[f"{flag}: the server has a root batch"] = self._root_size
        train = config.train_mode == "train"
        self.model.prepare(
            inputs,
            targets,
            self._loss_function,
            train,
            own_rows=self.computes_at_own_parameters(),
            own_buffers=not config.has_server,
            sizes=sizes,
        )
        if config.batching == "off":
            self.model.one_by_one = "--batching is off"
        self.criterion(self.model.predict(inputs), targets)
        if config.attack is not None:
            config.check_attack(d=self.model.d)

    def _rule_device(self) -> torch.device:
        return self.device if self.config.device_gar == "same" else torch.device(self.config.device_gar)

    def learning_rate(self, step: int | None = None) -> float:
        """Return η of a step, by default the next."""
        config = self.config
        return learning_rate(
            self.step_index if step is None else step,
            initial=config.learning_rate,
            decay=config.learning_rate_decay,
            delta=config.learning_rate_decay_delta,
            schedule=config.learning_rate_schedule,
        )

    def run(self, rounds: int) -> None:
        """Do that many steps.

        Raises:
            ValueError: fewer than none.
        """
        if rounds < 0:
            raise ValueError(f"expected at least 0 rounds, got {rounds}")
        for _ in range(rounds):
            self.step()

    def _most_per_pass(self) -> int:
        """Return how many workers go through the model in one pass, at most."""
        if self.config.nb_local_steps > 1:
            return sys.maxsize
        return max(self.model.samples_per_pass() // self.config.batch_size, 1)

    def groups(self, first: int, last: int) -> Iterator[slice]:
        """Yield groups of workers, as equal as can be, whose samples go through the model in one pass.

        With several local steps there is one group: running statistics then see all workers' first steps before any
        worker's second, however many samples a pass takes.
        """
        count = -(-(last - first) // self._most_per_pass())
        ends = [first + (last - first) * i // count for i in range(count + 1)] if count else []
        return starmap(slice, pairwise(ends))


def make_model(config: RunConfig, data: Data, seed: int) -> Model:
    """Return the model of a run, with its initial parameters."""

    def initialise_as_told(module: nn.Module) -> None:
        initialise(module, config.init_multi, config.init_multi_args, config.init_mono, config.init_mono_args)

    return Model(
        config.model,
        {"input_shape": data.input_shape, "num_outputs": data.num_outputs, **config.model_args},
        device=data.train.inputs.device,
        seed=seed,
        initialise=initialise_as_told,
    )
