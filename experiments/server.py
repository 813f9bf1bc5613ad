"""Learning with a server: the momentum positions of the ICLR 2021 paper, under attack.

Source: El Mhamdi, Guerraoui and Rouault, "Distributed Momentum for Byzantine-resilient Stochastic Gradient Descent",
ICLR 2021, section 3. With R the rule and gᵢ the clipped sampled gradients, momentum μ, dampening δ and learning rate η:

    at update:  gᵢ is sent;                        m ← μm + (1−δ)R(g),  θ ← θ − ηm
    at server:  vᵢ = μm + (1−δ)gᵢ stands for it;   m ← R(v),            θ ← θ − ηm
    at worker:  mᵢ ← μmᵢ + (1−δ)gᵢ is sent;                             θ ← θ − ηR(m)
"""

import copy
import functools
import operator
from typing import Any

import torch
from torch import Tensor

from experiments.config import RunConfig
from experiments.datasets import Data
from experiments.defence import Defence, Defender, Rehearsal
from experiments.metrics import StudyMetrics, Vectors
from experiments.root_batch import RootBatch
from experiments.sampling import SampleStream
from experiments.simulation import Simulation
from experiments.states import moved
from experiments.worker_streams import WorkerStream
from tools.long_rows import column_moments, mean_and_scatter
from tools.seeding import make_generator


class ServerSimulation(Simulation):
    """One server, h honest workers, f Byzantine ones who know everything; `model.parameters` are θ.

    See `Simulation` for arguments and attributes. With `--participation` h and f are those of the current step.
    """

    def __init__(self, config: RunConfig, data: Data, seed: int) -> None:
        super().__init__(config, data, seed)
        self._defender = Defender(self._defences, config.nb_decl_byz, seed, self._rule_device())
        d, self._first_byzantine = self.model.d, self.h
        present = config.nb_present
        self._vectors = self.model.parameters.new_empty(present, d)  # pages that are never written take no memory
        self._attack_generator = make_generator(seed, "attack", device=self.device)
        self._attack_state: dict[str, Any] = {}
        computing = self.n if self._poisons else self.h
        self._momenta: Tensor | None = None  # of the workers, present or not
        if config.momentum_at == "worker":
            everybody = present == self.n
            self._momenta = self._vectors[:computing] if everybody else self._vectors.new_empty(computing, d)
            self._momenta.zero_()
        self._momentum = self.model.parameters.new_zeros(d) if config.momentum_at != "worker" else None
        extras = max(config.nb_for_study - (self.h - (self.n - present)), 0)
        apart = extras if config.momentum_at == "update" else max(extras, min(self.h, present))
        self._sampled = self._vectors.new_empty(min(apart, self._most_per_pass()), d)  # those that are not sent
        self._previous_defense: Tensor | None = None
        self._points = 0
        if config.nb_for_study > 0:
            self.metrics = StudyMetrics(self.model.parameters, past=config.nb_for_study_past, momentum=config.momentum)

        self._stream = self._training_stream()
        self._poison_stream = self._poisoned_stream(self._attack_generator)
        self._study_stream = SampleStream(data.train, seed, "study", data.augmentation)
        self._root = None if self._root_size is None else RootBatch(config, data, seed, self._root_size, d)
        self._invite()

    def computes_at_own_parameters(self) -> bool:
        """Return whether workers compute gradients at parameters of their own."""
        config = self.config
        return config.nb_local_steps > 1 or (config.momentum_nesterov and config.momentum_at == "worker")

    def _invite(self) -> None:
        """Draw the workers that take part in this step, honest ones first."""
        if len(self._vectors) == self.n:
            self._present = torch.arange(self.n)
        else:
            generator = make_generator(self.seed, "participation", self.step_index)
            self._present = torch.randperm(self.n, generator=generator)[: len(self._vectors)].sort().values
        self.h = int((self._present < self._first_byzantine).sum())
        self.f = len(self._present) - self.h
        self._honest = self._vectors[: self.h]
        self._computed = self._vectors if self._poisons else self._honest
        self._extras = max(self.config.nb_for_study - self.h, 0)

    def _some_are_absent(self) -> bool:
        return self._momenta is not None and len(self._present) < self.n

    @torch.no_grad()
    def step(self) -> None:
        """Sample gradients, let Byzantine workers answer, aggregate, measure, update."""
        rate = self.learning_rate()
        self._invite()
        if self._some_are_absent():
            self._computed.copy_(self._momenta[self._present[: len(self._computed)]])
        defence = self._defender.draw()
        apart = self._sample(rate)
        if self._poisons:
            self._poison(rate)
        if self._some_are_absent():
            self._momenta[self._present[: len(self._computed)]] = self._computed
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
        self._points += self.config.batch_size * self.h * self.config.nb_local_steps
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
        for workers in self.groups(0, h):
            sent = self._honest[workers]
            gradients = sent if config.momentum_at == "update" else self._sampled[: len(sent)]
            at = points[workers] if points is not None and points.dim() == 2 else points
            losses.append(self._gradients(self._stream, workers, gradients, at, rate))
            if config.momentum_at != "update":
                self._keep(gradients, parts)
                self._send(gradients, sent)
        for workers in self.groups(h, h + self._extras):
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

    def _where(self, rate: float, momenta: Tensor) -> Tensor | None:
        """Return where gradients are computed, None for at θ: by each worker's own momentum, unless a server has it."""
        if not self.config.momentum_nesterov:
            return None
        momentum = momenta if self._momentum is None else self._momentum
        return torch.add(self.model.parameters, momentum, alpha=-self.config.momentum * rate)

    def _gradients(
        self, stream: SampleStream | WorkerStream, workers: slice, out: Tensor, points: Tensor | None, rate: float
    ) -> Tensor:
        """Compute the sampled gradients of a group of workers and return their losses."""
        with self.clock.phase("data"):
            repeats = self.config.nb_local_steps
            if stream is self._study_stream:
                batches = stream.take(self.config.batch_size, len(out) * repeats)
            else:
                places = self._present[workers] - (self._first_byzantine if stream is self._poison_stream else 0)
                batches = stream.take(self.config.batch_size, repeats, places.tolist())
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
        for workers in self.groups(self.h, len(self._vectors)):
            sent = self._vectors[workers]
            gradients = sent if self.config.momentum_at == "update" else self._sampled[: len(sent)]
            self._gradients(self._poison_stream, workers, gradients, self._where(rate, sent), rate)
            if self.config.momentum_at != "update":
                self._send(gradients, sent)

    def _attack(self, defence: Defence, moments: tuple[Tensor, Tensor] | None) -> int:
        """Write what Byzantine workers send into the last f rows; return how many of the last rows are equal.

        Of equal rows only the first is written when the defence reads no other.
        """
        if self.f == 0 or self._poisons:
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
        return {"n": len(self._vectors), "pivot": self._previous_defense, **trusted}

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
            self._points,
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
        before = None if config.stop_below is None else parameters.clone()
        step = defense
        if config.momentum_at == "update":
            step = self._momentum.mul_(config.momentum).add_(defense, alpha=1 - config.dampening)
        elif config.momentum_at == "server":
            step = self._momentum.copy_(defense)
        if config.weight_decay:
            parameters.mul_(1 - rate * config.weight_decay)
        parameters.sub_(step, alpha=rate)
        if before is not None:
            self.stopped = bool(torch.dist(parameters, before) < config.stop_below)

    def evaluate(self) -> tuple[float]:
        """Return the accuracy on the next batches of the test stream, from 0 to 1."""
        with self.clock.phase("evaluation"):
            return (self._evaluator.accuracy(self.model),)

    def _streams(self) -> tuple[SampleStream | WorkerStream, ...]:
        poison = () if self._poison_stream is None else (self._poison_stream,)
        return self._stream, self._study_stream, self._evaluator.stream, *poison

    def state_dict(self) -> dict[str, Any]:
        """Return copies of all that later steps depend on; flush the metrics first."""
        state = {
            "step": self.step_index,
            "model": self.model.state_dict(),
            "momentum": self._momentum,
            "worker_momenta": self._momenta,
            "points": self._points,
            "stopped": self.stopped,
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
        self.step_index, self._points, self.stopped = state["step"], state["points"], state["stopped"]
        self.model.load_state_dict(state["model"])
        if self._momentum is None:
            self._momenta.copy_(state["worker_momenta"])
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
        self._attack_state = moved(state["attack"]["state"], self.device)
