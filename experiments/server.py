"""Learning with a server: the momentum positions of the ICLR 2021 paper, under attack.

Source: El Mhamdi, Guerraoui and Rouault, "Distributed Momentum for Byzantine-resilient Stochastic Gradient Descent",
ICLR 2021, section 3. With R the rule and gᵢ the clipped sampled gradients, momentum μ, dampening δ and learning rate η:

    at update:  gᵢ is sent;                        m ← μm + (1−δ)R(g),  θ ← θ − ηm
    at server:  vᵢ = μm + (1−δ)gᵢ stands for it;   m ← R(v),            θ ← θ − ηm
    at worker:  mᵢ ← μmᵢ + (1−δ)gᵢ is sent;                             θ ← θ − ηR(m)
"""

import copy
import functools
import itertools
import operator
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from experiments.config import RunConfig
from experiments.datasets import Data
from experiments.defence import Defence, Defender, Rehearsal
from experiments.evaluation import Evaluator
from experiments.initialisation import initialise
from experiments.losses import Loss
from experiments.metrics import StudyMetrics, Vectors
from experiments.model import Model
from experiments.phases import PhaseClock
from experiments.poisoning import PoisonedStream
from experiments.root_batch import RootBatch, root_size
from experiments.sampling import SampleStream
from experiments.worker_gradients import WorkerGradients
from tools.long_rows import column_moments, mean_and_scatter
from tools.schedule import learning_rate
from tools.seeding import make_generator

PREPARATION_SAMPLES = 8


class ServerSimulation:
    """One server, h honest workers, f Byzantine ones who know everything.

    Args:
        config: what to simulate; device and threads are resolved by the caller.
        data: on the device of the run.
        seed: the seed really used.

    Attributes:
        step_index: steps done.
        model: its parameters are θ.
        loss: the average loss of the last step, 0-D.
        metrics: of the study; None without one.

    Raises:
        UserError: a model, loss, criterion or attack that does not go with this data.
    """

    def __init__(self, config: RunConfig, data: Data, seed: int) -> None:
        self.config = config
        self.data = data
        self.seed = seed
        self.device = data.train.inputs.device
        self.clock = PhaseClock(self.device)
        self.n, self.f = config.nb_workers, config.nb_real_byz
        self.h = self.n - self.f
        self.step_index = 0

        self._loss_function = Loss(
            config.loss, config.loss_args, config.l1_regularize, config.l2_regularize, device=self.device
        )
        self.criterion = config.make_criterion()
        self._defender = Defender(config.defences(), config.nb_decl_byz, seed, self._rule_device())
        self._attack_and_arguments = config.attack_and_arguments() if config.attack else None
        self.model = make_model(config, data, seed)
        size = root_size(self._defender.defences)
        self._prepare(size)
        self._worker_gradients = WorkerGradients(config, self.model, self._loss_function, seed)

        d = self.model.d
        self.loss = self.model.parameters.new_full((), torch.nan)
        self._vectors = self.model.parameters.new_empty(self.n, d)  # pages that are never written take no memory
        self._attack_generator = make_generator(seed, "attack", device=self.device)
        self._poison_stream = self._make_poison_stream()
        rows = self.h if self._poison_stream is None else self.n
        self._computed = self._vectors[:rows].zero_()  # from samples; at `worker` these are the momenta themselves
        self._honest = self._vectors[: self.h]
        self._extras = max(config.nb_for_study - self.h, 0)
        apart = [*self._groups(self.h, self.h + self._extras)]  # those whose gradients are not what is sent
        if config.momentum_at != "update":
            apart += [*self._groups(0, self.h), *self._groups(self.h, len(self._computed))]
        self._sampled = self._vectors.new_empty(max((g.stop - g.start for g in apart), default=0), d)
        self._momentum = self.model.parameters.new_zeros(d) if config.momentum_at != "worker" else None
        self._previous_defense: Tensor | None = None
        self.metrics = None
        if config.nb_for_study > 0:
            self.metrics = StudyMetrics(self.model.parameters, past=config.nb_for_study_past, momentum=config.momentum)

        augmentation = data.augmentation
        self._stream = SampleStream(data.train, seed, "training", augmentation)
        self._study_stream = SampleStream(data.train, seed, "study", augmentation)
        self._root = None if size is None else RootBatch(config, data, seed, size, d)
        self._evaluator = Evaluator(
            SampleStream(data.test, seed, "test", augmentation if config.test_augment else None),
            self.criterion,
            batch_size=config.batch_size_test,
            repetitions=config.batch_size_test_reps,
        )
        self._attack_state: dict[str, Any] = {}

    def _prepare(self, root: int | None) -> None:
        inputs, targets = (part[:PREPARATION_SAMPLES] for part in (self.data.train.inputs, self.data.train.targets))
        config = self.config
        own_rows = config.nb_local_steps > 1 or (config.momentum_nesterov and config.momentum_at == "worker")
        last = len(self.data.train) % config.batch_size or config.batch_size
        sizes = {"--batch-size: a pass over the training samples has a batch": last}
        if root is not None:
            sizes[f"{'--gar-args' if config.gars is None else '--gars'}: the server has a root batch"] = root
        train = config.train_mode == "train"
        self.model.prepare(inputs, targets, self._loss_function, train, own_rows, sizes)
        self.criterion(self.model.predict(inputs), targets)
        if config.attack is not None:
            config.check_attack(d=self.model.d)

    def _rule_device(self) -> torch.device:
        return self.device if self.config.device_gar == "same" else torch.device(self.config.device_gar)

    def learning_rate(self) -> float:
        """Return η of the next step."""
        config = self.config
        return learning_rate(
            self.step_index,
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

    @torch.no_grad()
    def step(self) -> None:
        """Sample gradients, let Byzantine workers answer, aggregate, measure, update."""
        rate = self.learning_rate()
        defence = self._defender.draw()
        apart = self._sample(rate)
        if self._poison_stream is not None:
            self._poison(rate)
        if self._root is not None:
            with self.clock.phase("gradients"):
                self._root.update(self._worker_gradients, self._where, self._send, self.step_index, rate)
        with self.clock.phase("attack"):
            moments = column_moments(self._honest) if self.f and self.metrics is not None else None  # both use them
            copies = self._attack(defence, moments)
        with self.clock.phase("rule"):
            defense, weights = self._defender(self._vectors, copies=copies, **self._context())
        if self.metrics is not None:
            with self.clock.phase("metrics"):
                self._measure(apart, moments, copies, defense, weights)
        with self.clock.phase("update"):
            self._update(defense, rate)
        self._previous_defense = defense
        self.step_index += 1

    def _sample(self, rate: float) -> list[Vectors]:
        """Let honest workers compute and send, and those sampled for the study only compute.

        Returns:
            The sampled gradients, in parts; without those that are what honest workers send.
        """
        config, h = self.config, self.h
        with self.clock.phase("gradients"):
            points = average_point = self._where(rate, self._honest)
            if points is not None and points.dim() == 2 and self._extras:
                average_point = self._where(rate, self._honest.mean(dim=0))
        losses, parts = [], []
        for workers in self._groups(0, h):
            sent = self._honest[workers]
            gradients = sent if config.momentum_at == "update" else self._sampled[: len(sent)]
            at = points[workers] if points is not None and points.dim() == 2 else points
            losses.append(self._gradients(self._stream, workers, gradients, at, rate))
            if config.momentum_at != "update":
                self._keep(gradients, parts)
                self._send(gradients, sent)
        for workers in self._groups(h, h + self._extras):
            gradients = self._sampled[: workers.stop - workers.start]
            losses.append(self._gradients(self._study_stream, workers, gradients, average_point, rate))
            self._keep(gradients, parts)
        self.loss = torch.cat(losses).mean()
        return parts

    def _keep(self, gradients: Tensor, parts: list[Vectors]) -> None:
        """Add what the study wants to know about some sampled gradients, which will be overwritten, to its parts."""
        if self.metrics is not None:
            with self.clock.phase("metrics"):
                parts.append(Vectors(*mean_and_scatter(gradients), len(gradients)))

    def _groups(self, first: int, last: int) -> Iterator[slice]:
        """Yield groups of workers, as equal as can be, whose samples go through the model in one pass.

        With several local steps there is one group: running statistics then see all workers' first steps before any
        worker's second, however many samples a pass takes.
        """
        most = max(self.model.samples_per_pass() // self.config.batch_size, 1)
        if self.config.nb_local_steps > 1:
            most = max(last - first, 1)
        count = -(-(last - first) // most)
        ends = [first + (last - first) * i // count for i in range(count + 1)] if count else []
        return itertools.starmap(slice, itertools.pairwise(ends))

    def _where(self, rate: float, momenta: Tensor) -> Tensor | None:
        """Return where gradients are computed, None for at θ: by each worker's own momentum, unless a server has it."""
        if not self.config.momentum_nesterov:
            return None
        momentum = momenta if self._momentum is None else self._momentum
        return torch.add(self.model.parameters, momentum, alpha=-self.config.momentum * rate)

    def _gradients(
        self, stream: SampleStream, workers: slice, out: Tensor, points: Tensor | None, rate: float
    ) -> Tensor:
        """Compute the sampled gradients of a group of workers and return their losses."""
        with self.clock.phase("data"):
            batches = stream.take(self.config.batch_size, len(out) * self.config.nb_local_steps)
        with self.clock.phase("gradients"):
            return self._worker_gradients(
                batches,
                out,
                points=points,
                first=workers.start - (self.n if stream is self._poison_stream else 0),  # numbers of their own
                step=self.step_index,
                rate=rate,
                update_statistics=workers.start < self.h,
            )

    def _send(self, gradients: Tensor, sent: Tensor) -> None:
        """Add momentum to sampled gradients, each worker's own or the server's; writes to both."""
        config = self.config
        with self.clock.phase("momentum"):
            if config.dampening:
                gradients.mul_(1 - config.dampening)
            past = sent if config.momentum_at == "worker" else self._momentum
            torch.add(gradients, past, alpha=config.momentum, out=sent)

    def _poison(self, rate: float) -> None:
        """Let Byzantine workers do what honest ones do, on poisoned batches."""
        for workers in self._groups(self.h, self.n):
            sent = self._vectors[workers]
            gradients = sent if self.config.momentum_at == "update" else self._sampled[: len(sent)]
            self._gradients(self._poison_stream, workers, gradients, self._where(rate, sent), rate)
            if self.config.momentum_at != "update":
                self._send(gradients, sent)

    def _make_poison_stream(self) -> PoisonedStream | None:
        if self.config.attack is None or not self._attack_and_arguments[0].poisons():
            return None
        return PoisonedStream(self.data, self.seed, *self._attack_and_arguments, self._attack_generator)

    def _attack(self, defence: Defence, moments: tuple[Tensor, Tensor] | None) -> int:
        """Write what Byzantine workers send into the last f rows; return how many of the last rows are equal.

        Of equal rows only the first is written when the defence reads no other.
        """
        if self.f == 0 or self._poison_stream is not None:
            return 1
        attack, attack_arguments = self._attack_and_arguments
        context = {} if moments is None else {"moments": moments}
        byzantine = attack.unchecked(
            self._honest,
            f=self.f,
            f_declared=self.config.nb_decl_byz,
            aggregate=Rehearsal(self._defender, self.h, self._context()),
            parameters=self.model.parameters,
            full_gradient=lambda: self.model.full_gradient(self.data.train, self._loss_function),
            step=self.step_index,
            pivot=self._previous_defense,
            state=self._attack_state,
            generator=self._attack_generator,
            **attack_arguments,
            **context,
        )
        copies = self.f if byzantine.stride(0) == 0 else 1
        rows = 1 if copies > 1 and defence.takes_copies else self.f
        self._vectors[self.h : self.h + rows] = byzantine[:rows]
        return copies

    def _context(self) -> dict[str, Any]:
        """Return what rules may know of this step besides the vectors."""
        trusted = {} if self._root is None else {"trusted": self._root.sent}
        return {"n": self.n, "pivot": self._previous_defense, **trusted}

    def _measure(
        self,
        apart: list[Vectors],
        moments: tuple[Tensor, Tensor] | None,
        copies: int,
        defense: Tensor,
        weights: Tensor | None,
    ) -> None:
        config, h = self.config, self.h
        if moments is None:
            honest = Vectors(*mean_and_scatter(self._honest), h)
        else:
            honest = Vectors(moments[0], moments[1].sum(dtype=torch.float64), h)
        sampled = [honest, *apart] if config.momentum_at == "update" else apart
        if self.f == 0:
            attack = Vectors(None, None, 0)
        elif copies == self.f:
            attack = Vectors(self._vectors[h], (self._vectors[h] * 0).sum(), self.f)  # NaN if they are not finite
        else:
            attack = Vectors(*mean_and_scatter(self._vectors[h:]), self.f)
        self.metrics.measure(
            self.step_index,
            self.step_index * config.batch_size * h * config.nb_local_steps,
            loss=self.loss,
            parameters=self.model.parameters,
            sampled=functools.reduce(operator.add, sampled),
            honest=honest,
            attack=attack,
            defense=defense,
            acceptation=None if weights is None else weights[h:].sum().to(self.device),
        )

    def _update(self, defense: Tensor, rate: float) -> None:
        config, parameters = self.config, self.model.parameters
        step = defense
        if config.momentum_at == "update":
            step = self._momentum.mul_(config.momentum).add_(defense, alpha=1 - config.dampening)
        elif config.momentum_at == "server":
            step = self._momentum.copy_(defense)
        if config.weight_decay:
            parameters.mul_(1 - rate * config.weight_decay)
        parameters.sub_(step, alpha=rate)

    def evaluate(self) -> float:
        """Return the accuracy on the next batches of the test stream, from 0 to 1."""
        with self.clock.phase("evaluation"):
            return self._evaluator.accuracy(self.model)

    def _streams(self) -> tuple[SampleStream, ...]:
        poison = () if self._poison_stream is None else (self._poison_stream,)
        return self._stream, self._study_stream, self._evaluator.stream, *poison

    def state_dict(self) -> dict[str, Any]:
        """Return copies of all that later steps depend on; flush the metrics first."""
        state = {
            "step": self.step_index,
            "model": self.model.state_dict(),
            "momentum": self._momentum,
            "worker_momenta": self._computed if self._momentum is None else None,
            "root": None if self._root is None else self._root.state_dict(),
            "previous_defense": self._previous_defense,
            "metrics": None if self.metrics is None else self.metrics.state_dict(),
            "streams": [stream.state_dict() for stream in self._streams()],
            "defender": self._defender.state_dict(),
            "attack": {"generator": self._attack_generator.get_state(), "state": self._attack_state},
        }
        return copy.deepcopy(state)

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was called, with the same configuration."""
        self.step_index = state["step"]
        self.model.load_state_dict(state["model"])
        if self._momentum is None:
            self._computed.copy_(state["worker_momenta"])
        else:
            self._momentum.copy_(state["momentum"])
        self._previous_defense = state["previous_defense"]
        if self._previous_defense is not None:
            self._previous_defense = self._previous_defense.to(self.device)
        if self.metrics is not None:
            self.metrics.load_state_dict(state["metrics"])
        if self._root is not None:
            self._root.load_state_dict(state["root"])
        for stream, stored in zip(self._streams(), state["streams"], strict=True):
            stream.load_state_dict(stored)
        self._defender.load_state_dict(state["defender"])
        self._attack_generator.set_state(state["attack"]["generator"])
        self._attack_state = _moved(state["attack"]["state"], self.device)


def _moved(state: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Return a state with its tensors, and those of states within it, on a device."""
    return {
        key: _moved(value, device)
        if isinstance(value, dict)
        else value.to(device)
        if isinstance(value, Tensor)
        else value
        for key, value in state.items()
    }


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
