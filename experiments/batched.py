"""Learning without a server, all nodes at once: momentum SGD at every node, then mixing in batches of nodes.

What nodes have, and do by themselves, is in `experiments.nodes`; who receives what in a round is in
`experiments.exchange`, and what is made of it in `experiments.mixing`. Here these become the rounds of a
`DecentralisedSimulation`, with what attackers know of them.
"""

import copy
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from experiments.batches import Batches
from experiments.datasets import Samples
from experiments.decentralised import Batch, DecentralisedSimulation, StepResult
from experiments.exchange import Exchange, Sent
from experiments.mixing import Mixer
from experiments.network import Neighbourhoods
from experiments.nodes import Groups, Nodes
from experiments.optimiser import Optimiser
from experiments.worker_streams import WorkerStream


class BatchedSimulation(DecentralisedSimulation[StepResult]):
    """A decentralised simulation whose nodes run momentum SGD and mix in batches: by weights, unless told otherwise.

    A subclass says by `neighbourhoods` who hears whom, and may replace the mixer.

    Args:
        n, f: nodes, and Byzantine ones among them.
        optimiser: of every node.
        batching: whether nodes mix together; else one after another, as processes of their own would.
        batch_size: of each node, where `data` is one stream for all that train.
        poisoners: whether Byzantine nodes train, on batches that follow those of honest ones, and send what they get.
        training: the samples of all, for attackers who want the gradient over them.
        groups: of nodes from a first to a last, whose samples go through the model in one pass; by default all.
        common: see `DecentralisedSimulation`.

    Attributes:
        trainers: how many nodes train: honest ones, then poisoners.
        nodes: what these have.
        mixer: how they mix.
        moments: mean and summed squared deviations of what honest nodes exchange in this round, two (d,), where the
            caller has computed them.
        byzantine_weight: the weight that each honest node gave Byzantine ones in the last round, (h,); None where it is
            not defined.
    """

    exchanges_models: ClassVar[bool] = True
    """Whether models are exchanged, or else gradients (momentum vectors)."""

    def __init__(
        self,
        *,
        n: int,
        f: int,
        optimiser: Optimiser,
        batching: bool = True,
        batch_size: int | None = None,
        poisoners: bool = False,
        training: Samples | None = None,
        groups: Groups | None = None,
        **common: Any,
    ) -> None:
        self.optimiser = optimiser
        self.batching = batching
        self.batch_size = batch_size
        self.training = training
        self.trainers = n if poisoners else n - f
        self._groups = groups
        super().__init__(n=n, f=f, **common)
        if self.attack is not None and self.attack.poisons() != (self.trainers > self.h):
            raise ValueError(
                f"expected poisoners exactly if the attack poisons data, got the attack {self.attack.name}"
            )
        self.mixer = Mixer()
        self.moments: tuple[Tensor, Tensor] | None = None
        self.byzantine_weight: Tensor | None = None
        self._exchange: Exchange | None = None
        self._exchange_step: int | None = None
        self._previous_mix: Tensor | None = None
        self._node = 0  # whose turn it is where nodes mix one by one
        self._shares: Tensor | None = None  # of the vectors it received in what it made of them

    @abstractmethod
    def neighbourhoods(self) -> Neighbourhoods:
        """Return who hears whom in the next round."""

    def _keep_streams(self, data: Any) -> None:
        if isinstance(data, WorkerStream):
            self.data = data
        else:
            super()._keep_streams(data)

    def _give_everybody_the_model(self) -> None:
        self.nodes = Nodes(
            self.model,
            self._loss,
            self.optimiser,
            self.seed,
            n=self.n,
            honest=self.h,
            trainers=self.trainers,
            groups=self._groups,
        )
        self.buffers = self.nodes.buffers

    @property
    def parameters(self) -> Tensor:
        """(h, d), a row for each honest node."""
        return self.nodes.parameters

    @parameters.setter
    def parameters(self, parameters: Tensor) -> None:
        self.nodes.parameters.copy_(parameters)

    @property
    def rate(self) -> float:
        """η of the next round."""
        return self.optimiser.rate(self.step_index)

    def begin_round(self) -> None:
        """Draw the rule of the round."""
        self.moments = None
        if self.mixer.defender is not None:
            self.mixer.defender.draw()

    def collect_worker_batches(self) -> Sequence[Batch] | Batches:
        """Return the next batches of every node that trains, one per local step, in their order."""
        repeats = self.optimiser.local_steps
        if isinstance(self.data, WorkerStream):
            return self.data.take(self.batch_size, repeats)
        next_batches = super().collect_worker_batches
        rounds = [next_batches() for _ in range(repeats)]
        return [batch for own in zip(*rounds, strict=True) for batch in own]

    def compute_honest_worker_gradients(self, batches: Sequence[Batch] | Batches) -> tuple[Tensor, Tensor]:
        """Return each node's clipped gradient at its own parameters, or where its momentum leads, and its loss."""
        if not isinstance(batches, Batches):
            batches = Batches.join(batches, self.nodes.device)
        return self.nodes.compute_gradients(batches, self.step_index, self.rate)

    def local_update(self, gradients: Tensor) -> Tensor:
        """Return what nodes exchange, in the memory of their gradients."""
        if self.exchanges_models:
            return self.nodes.local_models(gradients, self.rate)
        return self.nodes.directions(gradients)

    def generate_byzantine_models(self, local_parameters: Tensor) -> Tensor:
        """Return what Byzantine nodes send, (f, d), or (h, f, d) where the attack makes one set per recipient."""
        if self.f == 0 or self.trainers > self.h:
            return local_parameters[self.h :]
        known = self.known_to_attackers()
        byzantine = self.attack.unchecked(local_parameters, f=self.f, **{**known, **self.attack_kwargs})
        if byzantine.dim() == 3:
            return byzantine
        place = self.nodes.vectors[self.h :]
        place.copy_(byzantine)
        return place if byzantine.stride(0) else place[:1].expand(self.f, -1)  # equal rows are seen to be equal

    def known_to_attackers(self) -> dict[str, Any]:
        """Return what attackers know besides what honest nodes send, see `attacks.CONTEXT`."""
        known = super().known_to_attackers() | {"full_gradient": self._full_gradient}
        if self.moments is not None:
            known["moments"] = self.moments
        if not self.exchanges_models:
            known["pivot"] = self._previous_mix
        if self.attack.per_recipient or {"weights", "adjacency"} & set(self.attack.needs):
            known |= {"weights": self.exchange.weights, "adjacency": self.exchange.adjacency}
        return known

    def rehearse(self, vectors: Tensor) -> Tensor:
        """Return the mean over honest nodes of what they would make of all vectors (n, d), leaving no trace."""
        return self.mixer.rehearse(self.exchange, Sent(vectors, self.h), step=self.step_index)

    def _full_gradient(self) -> Tensor:
        if self.training is None:
            raise ValueError(f"{self.attack.name}: expected the samples of all, as `training`, got none")
        return self.nodes.full_gradient(self.training)

    def heard_byzantine(self) -> Tensor:
        """Return which Byzantine nodes each honest node hears in this round, (h, f)."""
        return self.exchange.adjacency[: self.h, self.h :]

    @property
    def exchange(self) -> Exchange:
        """Who receives what in the next round."""
        if self._exchange_step != self.step_index:
            around = self.neighbourhoods()
            if self._exchange is None or self._exchange.neighbourhoods is not around:
                self._exchange = Exchange(around, self.trainers, self.nodes.device)
            self._exchange_step = self.step_index
        return self._exchange

    def aggregate_over_received_nodes(self, local_parameters: Tensor, byzantine_parameters: Tensor) -> Tensor:
        """Return what each node makes of what it received."""
        if self.batching:
            sent = self._sent(local_parameters, byzantine_parameters)
            accepted = self.mixer(self.exchange, sent, self.nodes.mixed, step=self.step_index)
        else:
            accepted = self._mix_one_by_one(local_parameters, byzantine_parameters)
        self.byzantine_weight = None if accepted is None else accepted[: self.h]
        return self.nodes.mixed

    def _sent(self, local_parameters: Tensor, byzantine_parameters: Tensor) -> Sent:
        """Return the vectors of a round, copied to one matrix unless they are there already."""
        vectors = self.nodes.vectors
        parts = [(vectors[: len(local_parameters)], local_parameters)]
        if byzantine_parameters.dim() == 2:
            parts.append((vectors[self.h :], byzantine_parameters))
        for place, part in parts:
            if len(part) and place.data_ptr() != part.data_ptr():
                place.copy_(part)
        centre = None if self.moments is None else self.moments[0]
        return Sent.of(vectors, byzantine_parameters, self.h, centre)

    def _mix_one_by_one(self, local_parameters: Tensor, byzantine_parameters: Tensor) -> Tensor | None:
        """Mix with the operations that each node by itself would do, and return the weights given to Byzantine ones."""
        accepted: list[Tensor | None] = []
        for node in range(self.trainers):
            self._node, self._shares = node, None
            candidates = self.gather_received_models(local_parameters, byzantine_parameters, worker_index=node)
            self.nodes.mixed[node] = self.aggregate_received_models(candidates, pivot=candidates[0])
            senders, _ = self.exchange.of(node)
            accepted.append(None if self._shares is None else (self._shares * (senders >= self.h)).sum().double())
        return None if any(weight is None for weight in accepted) else torch.stack(accepted)

    def gather_received_models(
        self, honest_vectors: Tensor, byzantine_parameters: Tensor, *, worker_index: int
    ) -> Tensor:
        """Return what a node received, its own vector first, (m, d)."""
        senders, _ = self.exchange.of(worker_index)
        if byzantine_parameters.dim() == 3:
            byzantine_parameters = byzantine_parameters[worker_index]
        return torch.stack([(honest_vectors[s] if s < self.h else byzantine_parameters[s - self.h]) for s in senders])

    def aggregate_received_models(self, candidates: Tensor, *, pivot: Tensor) -> Tensor:
        """Return what the node whose turn it is makes of the vectors it received, its own first."""
        _, weights = self.exchange.of(self._node)
        mixed, self._shares = self.mixer.one(self._node, weights, candidates, pivot=pivot, step=self.step_index)
        return mixed

    def commit_state(self, parameters: Tensor) -> None:
        """End the round: nodes have these models, or take a step along these vectors."""
        if self.exchanges_models:
            self.nodes.move_to(parameters)
        else:
            self._previous_mix = parameters[: self.h].mean(dim=0)
            self.nodes.step_along(parameters, self.rate)
        self.step_index += 1

    def build_step_result(self, **parts: Tensor) -> StepResult:
        """Return the round's snapshot."""
        return {**parts, "parameters": self.parameters.clone(), "step": self.step_index}

    def _node_state(self) -> dict[str, Any]:
        return self.nodes.state_dict()

    def _load_node_state(self, state: dict[str, Any]) -> None:
        self.nodes.load_state_dict(state)

    def state_dict(self) -> dict[str, Any]:
        """Return copies of all that later rounds depend on, but for the data streams."""
        defender = self.mixer.defender
        more = {"previous_mix": self._previous_mix, "defender": None if defender is None else defender.state_dict()}
        return super().state_dict() | copy.deepcopy(more)

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was called."""
        super().load_state_dict(state)
        before = state["previous_mix"]
        self._previous_mix = None if before is None else before.to(self.nodes.device)
        if self.mixer.defender is not None:
            self.mixer.defender.load_state_dict(state["defender"])
