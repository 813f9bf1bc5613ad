"""A run without a server: a protocol's rounds, measured.

Where models are exchanged, every kind of vector of the study is a step from where the round began, with η the learning
rate and θ̄ the mean of honest models: honest (θᵢ − θᵢ,½)/η, attack (θ̄ − what was sent)/η, defense (θ̄ − θ̄ after)/η.
"""

import copy
import hashlib
from typing import Any, ClassVar

import torch
from torch import Tensor

from experiments.config import RunConfig
from experiments.datasets import Data
from experiments.metrics import NODE_COLUMNS, StudyMetrics, Vectors
from experiments.network import Network
from experiments.optimiser import Optimiser
from experiments.protocols import Protocol
from experiments.sampling import SampleStream
from experiments.simulation import PREPARATION_SAMPLES, Simulation
from experiments.worker_streams import JoinedStream
from tools.arguments import format_pairs
from tools.long_rows import column_moments, mean_and_scatter


class NetworkSimulation(Simulation):
    """h honest nodes that each have a model of their own, f Byzantine ones who know everything.

    See `Simulation` for arguments and attributes.

    Attributes:
        network: who hears whom, and who is Byzantine.
        protocol: does the rounds, and has the nodes' parameters.
        graph_digest: of whom every worker hears in round 0, by which graphs that changed on disk are told apart.
    """

    evaluation_columns: ClassVar[tuple[str, ...]] = (
        "Cross-accuracy",
        "Node minimum",
        "Node maximum",
        "Node deviation",
        "Averaged model",
    )

    def __init__(self, config: RunConfig, data: Data, seed: int) -> None:
        self.network = Network(
            config.topology, config.topology_args, n=config.nb_workers, f=config.nb_real_byz, seed=seed
        )
        heard = self.network.neighbourhoods(0)
        edges = heard.offsets.tobytes() + heard.senders.tobytes()
        self.graph_digest = hashlib.blake2b(edges, digest_size=8).hexdigest()
        super().__init__(config, data, seed)
        self._own_pass = self.model.samples_per_own_pass(data.train.inputs[:PREPARATION_SAMPLES])
        self._stream = self._training_stream()
        self.protocol = self._make_protocol()
        self._poison_stream = self._poisoned_stream(self.protocol.attack_generator)
        if self._poison_stream is not None:
            self.protocol.data = JoinedStream(self._stream, self._poison_stream)
        self._study_stream = SampleStream(data.train, seed, "study", data.augmentation)
        self._points = 0
        self._look_around()
        if config.nb_for_study > 0:
            self.metrics = StudyMetrics(
                self._mean, past=config.nb_for_study_past, momentum=config.momentum, more=NODE_COLUMNS
            )

    def _make_protocol(self) -> Protocol:
        config = self.config
        protocol, arguments = config.protocol_and_arguments()
        attack, attack_arguments = self._attack_and_arguments or (None, {})
        return protocol(
            model=self.model,
            data=self._stream,
            loss_fn=self._loss_function,
            n=self.n,
            f=self.f,
            optimiser=self._make_optimiser(),
            network=self.network,
            arguments=arguments,
            attack=attack if self.f else None,
            attack_kwargs=attack_arguments,
            seed=self.seed,
            f_declared=config.nb_decl_byz,
            nb_local_byz=config.nb_local_byz,
            defences=self._defences,
            rule_device=self._rule_device(),
            batching=config.batching == "on",
            batch_size=config.batch_size,
            poisoners=self._poisons,
            training=self.data.train,
            groups=self.groups,
        )

    def _make_optimiser(self) -> Optimiser:
        config = self.config
        return Optimiser(
            learning_rate=self.learning_rate,
            momentum=config.momentum,
            dampening=config.dampening,
            nesterov=config.momentum_nesterov,
            momentum_at=config.momentum_at,
            weight_decay=config.weight_decay,
            gradient_clip=config.gradient_clip,
            local_steps=config.nb_local_steps,
            train=config.train_mode == "train",
        )

    def computes_at_own_parameters(self) -> bool:
        """Return whether workers compute gradients at parameters of their own: always."""
        return True

    def _most_per_pass(self) -> int:
        """Return how many nodes go through the model in one pass, at most: running statistics are their own."""
        return max(self._own_pass // self.config.batch_size, 1)

    def nodes(self) -> tuple[int, ...]:
        """Return the node number of each worker, honest workers first."""
        return self.network.nodes

    def introduction(self) -> dict[str, dict[str, Any]]:
        """Return what a person wants to know about the network."""
        described: dict[str, Any] = dict(self.network.describe())
        protocol = self.protocol
        if protocol.defender is None:
            described["rule"] = f"none: {protocol.name} mixes by weights, whoever sent what"
        else:
            rules = " or ".join(defence.rule.name for defence in protocol.defender.defences)
            described["rule"] = f"{rules}, for {protocol.nb_local_byz} Byzantine of those that a node hears"
            described["condition of the rule"] = protocol.describe_condition()
        return {"network": described}

    def noted(self) -> dict[str, Any]:
        """Return the digest of the graph, which the flags do not decide where it is read from a file."""
        return {"graph": self.graph_digest}

    @torch.no_grad()
    def step(self) -> None:
        """Do one round of the protocol, and measure it."""
        protocol, clock, rate = self.protocol, self.clock, self.learning_rate()
        protocol.begin_round()
        with clock.phase("data"):
            batches = protocol.collect_worker_batches()
        with clock.phase("gradients"):
            gradients, losses = protocol.compute_honest_worker_gradients(batches)
        kinds = self._sampled(gradients, losses, rate)
        with clock.phase("momentum"):
            local = protocol.local_update(gradients)
        with clock.phase("metrics"):
            kinds |= self._honest(local, rate)
        with clock.phase("attack"):
            byzantine = protocol.generate_byzantine_models(local)
        with clock.phase("rule"):
            mixed = protocol.aggregate_over_received_nodes(local, byzantine)
        with clock.phase("metrics"):
            kinds |= self._attack_and_defense(byzantine, mixed, rate)
        with clock.phase("update"):
            if self.config.stop_below is not None:
                self.stopped = self._largest_movement(mixed, rate) < self.config.stop_below
            protocol.commit_state(mixed)
        if self.metrics is not None:
            with clock.phase("metrics"):
                self._measure(**kinds)
        self._points += self.config.batch_size * self.h * self.config.nb_local_steps
        self.step_index += 1

    def _largest_movement(self, mixed: Tensor, rate: float) -> float:
        """Return how far the honest node that moves most goes in this round."""
        protocol, decay = self.protocol, self.config.weight_decay
        largest = torch.zeros((), device=self.device)
        for node, parameters in enumerate(protocol.parameters):  # one by one, which needs no matrix
            if protocol.exchanges_models:
                distance = torch.dist(mixed[node], parameters)
            else:
                distance = rate * torch.linalg.vector_norm(protocol.nodes.next_step(mixed, node) + decay * parameters)
            largest = torch.maximum(largest, distance)
        return float(largest)

    def _sampled(self, gradients: Tensor, losses: Tensor, rate: float) -> dict[str, Vectors]:
        """Return the honest nodes' sampled gradients, and those that are sampled for the study only."""
        extras = max(self.config.nb_for_study - self.h, 0)
        if self.metrics is None:
            self.loss = losses.mean()
            return {}
        with self.clock.phase("metrics"):
            found = Vectors(*mean_and_scatter(gradients[: self.h]), self.h)
        all_losses = [losses]
        point, kept = self._mean, self.protocol.nodes.mean_buffers() if extras else {}
        if self.config.momentum_nesterov and extras:
            point = point - self.config.momentum * rate * self.protocol.nodes.mean_momentum()
        for group in self.groups(0, extras):
            with self.clock.phase("data"):
                batches = self._study_stream.take(
                    self.config.batch_size, (group.stop - group.start) * self.config.nb_local_steps
                )
            with self.clock.phase("gradients"):
                out = gradients.new_empty(group.stop - group.start, gradients.shape[1])
                first = self.n + group.start
                all_losses.append(
                    self._worker_gradients(
                        batches,
                        out,
                        points=point,
                        first=first,
                        step=self.step_index,
                        rate=rate,
                        update_statistics=False,
                        buffers={name: b.expand(len(out), *b.shape[1:]) for name, b in kept.items()},
                    )
                )
            with self.clock.phase("metrics"):
                found = found + Vectors(*mean_and_scatter(out), len(out))
        self.loss = torch.cat(all_losses).mean()
        return {"sampled": found}

    def _honest(self, local: Tensor, rate: float) -> dict[str, Any]:
        """Return what honest nodes sent, before it is mixed."""
        if self.metrics is None:
            return {}
        protocol, h = self.protocol, self.h
        mean, squares = protocol.moments = column_moments(local[:h])
        scatter = squares.sum(dtype=torch.float64)
        if not protocol.exchanges_models:
            return {"honest": Vectors(mean, scatter, h), "scatter_before": self._scatter}
        return {"honest": Vectors(*mean_and_scatter(protocol.nodes.taken_steps(rate)), h), "scatter_before": scatter}

    def _attack_and_defense(self, byzantine: Tensor, mixed: Tensor, rate: float) -> dict[str, Any]:
        """Return what Byzantine nodes sent, and what mixing gave on average."""
        if self.metrics is None:
            return {}
        mean, squares = column_moments(mixed[: self.h])
        attack, rate = self._attack(byzantine), rate or torch.nan
        if self.protocol.exchanges_models:
            if attack.count:
                attack = Vectors((self._mean - attack.average) / rate, attack.scatter / rate**2, attack.count)
            return {"attack": attack, "defense": (self._mean - mean) / rate, "after": (mean, squares)}
        return {"attack": attack, "defense": mean, "after": None}

    def _attack(self, byzantine: Tensor) -> Vectors:
        """Return the vectors that Byzantine nodes sent; of those for single recipients, the ones that are heard."""
        if byzantine.dim() == 3:
            heard = self.protocol.heard_byzantine()
            byzantine = byzantine[heard]
        if len(byzantine) == 0:
            return Vectors(None, None, 0)
        return Vectors(*mean_and_scatter(byzantine), len(byzantine))

    def _measure(
        self,
        *,
        sampled: Vectors,
        honest: Vectors,
        attack: Vectors,
        defense: Tensor,
        scatter_before: Tensor,
        after: tuple[Tensor, Tensor] | None,
    ) -> None:
        mean, squares = after or column_moments(self.protocol.parameters)
        before, self._mean, self._scatter = self._mean, mean, squares.sum(dtype=torch.float64)
        accepted = self.protocol.byzantine_weight
        self.metrics.measure(
            self.step_index,
            self._points,
            loss=self.loss,
            parameters=before,
            sampled=sampled,
            honest=honest,
            attack=attack,
            defense=defense,
            acceptation=None if accepted is None else accepted.mean(),
            more=(
                (self._scatter / self.h).sqrt(),
                (scatter_before / self.h).sqrt(),
                None if accepted is None else accepted.mean(),
                None if accepted is None else accepted.amax(),
            ),
        )

    def _look_around(self) -> None:
        """Note where honest nodes are."""
        mean, squares = column_moments(self.protocol.parameters)
        self._mean, self._scatter = mean, squares.sum(dtype=torch.float64)

    def evaluate(self) -> tuple[float, ...]:
        """Return mean, smallest and largest accuracy of honest nodes, its deviation, and that of their mean model."""
        protocol = self.protocol
        with self.clock.phase("evaluation"):
            mean = protocol.parameters.mean(dim=0, keepdim=True)
            averaged = self.protocol.nodes.mean_buffers()
            buffers = {name: torch.cat([b[: self.h], averaged[name]]) for name, b in protocol.buffers.items()}
            *nodes, averaged = self._evaluator.accuracies(self.model, [*protocol.parameters, *mean], buffers)
        accuracies = torch.tensor(nodes, dtype=torch.float64)
        deviation = accuracies.std(correction=1) if self.h > 1 else torch.nan
        return tuple(map(float, (accuracies.mean(), accuracies.amin(), accuracies.amax(), deviation, averaged)))

    def _streams(self) -> tuple[Any, ...]:
        poison = () if self._poison_stream is None else (self._poison_stream,)
        return self._stream, self._study_stream, self._evaluator.stream, *poison

    def state_dict(self) -> dict[str, Any]:
        """Return copies of all that later steps depend on; flush the metrics first."""
        return {
            "step": self.step_index,
            "points": self._points,
            "stopped": self.stopped,
            "graph": self.graph_digest,
            "protocol": self.protocol.state_dict(),
            "metrics": None if self.metrics is None else copy.deepcopy(self.metrics.state_dict()),
            "streams": [stream.state_dict() for stream in self._streams()],
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was called, with the same configuration.

        Raises:
            ValueError: the graph was another one then.
        """
        if state["graph"] != self.graph_digest:
            words = [f"--topology {self.config.topology}"]
            words += ["--topology-args", *format_pairs(self.config.topology_args)] if self.config.topology_args else []
            raise ValueError(
                f"the graph of {' '.join(words)} was another one then; give that back, or begin again without a "
                f"checkpoint"
            )
        self.step_index, self._points, self.stopped = state["step"], state["points"], state["stopped"]
        self.protocol.load_state_dict(state["protocol"])
        self._look_around()
        if self.metrics is not None:
            self.metrics.load_state_dict(state["metrics"])
        for stream, stored in zip(self._streams(), state["streams"], strict=True):
            stream.load_state_dict(stored)
