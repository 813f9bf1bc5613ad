"""Protocols, one file each: what nodes without a server exchange, and how they mix it.

A protocol is a class that registers itself under its name. Its file says what is exchanged, who hears whom in a round
if the topology does not, and by which rule or weights nodes mix. What all share (momentum SGD on a node's own data,
attacks, batches of nodes) is in the base class. `template.py` is there to be copied.
"""

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from aggregators import Aggregator
from attacks import Attack
from experiments.batches import Batches
from experiments.datasets import Samples
from experiments.decentralised import Batch, DecentralisedSimulation, LossFunction, StepResult
from experiments.defence import Defence, Defender
from experiments.losses import FunctionLoss, Loss
from experiments.mixing import Exchange, Mixer, Sent
from experiments.model import Model
from experiments.network import Neighbourhoods, Network
from experiments.optimiser import Optimiser
from experiments.worker_gradients import WorkerGradients
from experiments.worker_streams import WorkerStream
from tools.arguments import explicit_parameters
from tools.errors import UserError
from tools.registry import Registry, import_modules


class Protocol(DecentralisedSimulation[StepResult]):
    """A decentralised simulation whose nodes run momentum SGD and mix in batches.

    A subclass `class DPSGD(Protocol, name="dpsgd")` says how it differs by the class variables below and, where needed,
    by `neighbourhoods` and `check`, whose explicit parameters are those of `--protocol-args`.

    Args:
        model, data, loss_fn, n, f, attack, attack_kwargs, aggregator, aggregator_kwargs, seed, test_data: see
            `DecentralisedSimulation`. `data` may also be a stream for all nodes that train, with `batch_size`.
        optimiser: of every node.
        network: who hears whom; by default everybody everybody.
        arguments: of the protocol, as in `--protocol-args`.
        f_declared: Byzantine nodes that are expected; by default f.
        nb_local_byz: Byzantine neighbours that a node's rule must tolerate; by default what the network suggests.
        defences: in place of the aggregator: rules of which each round draws one, after pre-aggregators.
        rule_device: where rules compute; by default where the model is.
        batching: whether nodes are treated together; else one after another, as processes of their own would.
        poisoners: whether Byzantine nodes train, on batches that follow those of honest ones, and send what they get.
        training: the samples of all, for attackers who want the gradient over them.
        groups: of nodes from a first to a last, whose samples go through the model in one pass; by default all.

    Attributes:
        nb_local_byz: b, what the rule tolerates.
        weak_nodes: numbers of honest nodes that the rule does not protect, where the network allows some.
        refused: numbers of received vectors that the rule cannot take: nodes that receive so many keep their own.
        moments: mean and summed squared deviations of what honest nodes exchange in this round, two (d,), where the
            caller has computed them.
        byzantine_weight: the weight that each honest node gave Byzantine ones in the last round, (h,); None where it is
            not defined.

    Raises:
        UserError: what users may get wrong on the command line as well.
        ValueError: what only callers may.
    """

    name: ClassVar[str]
    rule: ClassVar[str | None] = None
    """The rule by which nodes mix unless told otherwise; None: by the weights of the topology, or the average."""
    takes_rules: ClassVar[bool] = True
    """Whether nodes mix by a rule that users choose."""
    exchanges_models: ClassVar[bool] = True
    """Whether models are exchanged, or else gradients (momentum vectors)."""
    dampens: ClassVar[bool] = False
    """Whether momentum is m ← μm + (1−μ)g, weight decay being part of the gradient."""
    momentum_places: ClassVar[tuple[str, ...]] = ("worker",)
    CONTEXT: ClassVar[frozenset[str]] = frozenset({"n", "f", "f_real"})
    """Parameters of `check` that users do not set."""

    def __init_subclass__(cls, /, name: str = "", **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if name:
            cls.name = name
            protocols.register(name, cls)

    def __init__(
        self,
        *,
        model: Model | torch.nn.Module,
        data: Sequence[Iterator[Batch]] | WorkerStream,
        loss_fn: LossFunction,
        n: int,
        f: int,
        optimiser: Optimiser,
        network: Network | None = None,
        arguments: Mapping[str, Any] | None = None,
        attack: type[Attack] | str | None = None,
        attack_kwargs: dict[str, Any] | None = None,
        aggregator: type[Aggregator] | str | None = None,
        aggregator_kwargs: dict[str, Any] | None = None,
        seed: int | None = None,
        test_data: Batch | None = None,
        f_declared: int | None = None,
        nb_local_byz: int | None = None,
        defences: Sequence[Defence] | None = None,
        rule_device: torch.device | None = None,
        batching: bool = True,
        batch_size: int | None = None,
        poisoners: bool = False,
        training: Samples | None = None,
        groups: Callable[[int, int], Iterator[slice]] | None = None,
    ) -> None:
        self.optimiser = optimiser
        self.batch_size = batch_size
        self.batching = batching
        self.training = training
        self.workers = n if poisoners else n - f
        """Nodes that train: honest ones, then poisoners."""
        self.arguments = dict(arguments or {})
        self.f_declared = f if f_declared is None else f_declared
        self.check(n=n, f=self.f_declared, f_real=f, **self.arguments)
        super().__init__(
            model=model,
            data=data,
            loss_fn=loss_fn,
            n=n,
            f=f,
            attack=attack,
            attack_kwargs=attack_kwargs,
            aggregator=aggregator or self.rule or "average",
            aggregator_kwargs=aggregator_kwargs,
            seed=seed,
            test_data=test_data,
        )
        self._check_caller(aggregator, network)
        self.network = network or Network("complete", {}, n=n, f=f, seed=self.seed)
        self.nb_local_byz = self.local_byz(nb_local_byz)
        self.weak_nodes: tuple[int, ...] = ()
        self.refused: frozenset[int] = frozenset()
        self.defender: Defender | None = None
        if self.rule is not None or self.takes_rules:
            own = self.rule_arguments(**self.arguments)
            given = {key: value for key, value in self.aggregator_kwargs.items() if key != "f"}
            defences = defences or [Defence(self.aggregator, own | given)]
            self.defender = Defender(defences, self.nb_local_byz, self.seed, rule_device or self._rows.device)
            self._check_memory()
            self.refused = self.check_rule()
        self._check_attack()
        self._mixer = Mixer(self.defender, self.refused)
        self._worker_gradients = WorkerGradients(
            self.model,
            self.loss_fn if isinstance(self.loss_fn, Loss) else FunctionLoss(self.loss_fn),
            self.seed,
            local_steps=optimiser.local_steps,
            longest=optimiser.gradient_clip,
            train=optimiser.train,
        )
        self._groups = groups or (lambda first, last: iter([slice(first, last)]))
        self._exchange: tuple[int, Neighbourhoods, Exchange] | None = None
        self._batches: Batches | None = None
        self._previous_mix: Tensor | None = None
        self._node = 0  # whose turn it is where nodes mix one by one
        self._accepted: Tensor | None = None  # what the last of them gave the vectors it received
        self.moments: tuple[Tensor, Tensor] | None = None
        self.byzantine_weight: Tensor | None = None

    # What subclasses say

    @classmethod
    def check(cls, *, n: int, f: int, f_real: int) -> None:
        """Raise a UserError for numbers or arguments that the protocol cannot take.

        Args:
            f: declared.
            f_real: that attack.
        """

    @classmethod
    def rule_arguments(cls, **arguments: Any) -> dict[str, Any]:
        """Return the arguments of the rule that follow from those of the protocol."""
        return {}

    def local_byz(self, given: int | None) -> int:
        """Return how many of the vectors that a node receives may be Byzantine."""
        return self.network.local_byz(given, self.f_declared)

    def neighbourhoods(self) -> Neighbourhoods:
        """Return who hears whom in the next round."""
        return self.network.neighbourhoods(self.step_index)

    def changes_neighbours(self) -> bool:
        """Return whether nodes hear others from round to round."""
        return self.network.varies

    def check_rule(self) -> frozenset[int]:
        """Return the numbers of received vectors with which nodes keep their own, since the rule cannot take them.

        Raises:
            UserError: the rule cannot take as many vectors as some node receives, unless the network allows that.
        """
        weak = self.network.check_rule(self.check_number, self.defender.defences[0].rule.name, self.nb_local_byz)
        self.weak_nodes = weak.nodes
        return weak.sizes

    def describe_condition(self) -> str:
        """Return where the condition of the rule holds, for people."""
        if not self.weak_nodes:
            return "holds for every honest node"
        alone = "; those that hear too few keep their own vector" if self.refused else ""
        return f"does not hold for nodes {', '.join(map(str, self.weak_nodes))}, as allow-weak permits{alone}"

    # Checks

    def check_number(self, received: int) -> None:
        """Raise ValueError or TypeError if a rule cannot take that many vectors."""
        for defence in self.defender.defences:
            defence.check(n=received, f=self.nb_local_byz)

    def takes_number(self, received: int) -> bool:
        """Return whether all rules can take that many vectors."""
        try:
            self.check_number(received)
        except (ValueError, TypeError):
            return False
        return True

    def _check_caller(self, aggregator: Any, network: Network | None) -> None:
        if aggregator is not None and not self.takes_rules:
            raise ValueError(f"expected no aggregator for {type(self).__name__}, which mixes in its own way")
        if network is not None and (network.n, network.f) != (self.n, self.f):
            raise ValueError(
                f"expected a network of {self.n} nodes, {self.f} of them Byzantine, got {network.n} and {network.f}"
            )
        if self.optimiser.momentum_at not in self.momentum_places:
            places = " or ".join(self.momentum_places)
            raise ValueError(f"expected momentum at {places}, got {self.optimiser.momentum_at}")
        if self.attack is not None and self.attack.poisons() != (self.workers > self.h):
            raise ValueError(
                f"expected poisoners exactly if the attack poisons data, got the attack {self.attack.name}"
            )

    def _check_memory(self) -> None:
        for defence in self.defender.defences:
            if "state" in explicit_parameters(defence.rule.formula()) and self.changes_neighbours():
                raise UserError(
                    f"--gar: expected a rule without memory where nodes hear others in every round, got "
                    f"{defence.rule.name}, which remembers earlier rounds"
                )

    def _check_attack(self) -> None:
        if self.attack is not None:
            self.attack.check(h=self.h, f=self.f, f_declared=self.f_declared, d=self.model.d, **self.attack_kwargs)

    # Who has what

    def _keep_streams(self, data: Any) -> None:
        if isinstance(data, WorkerStream):
            self.data = data
        else:
            super()._keep_streams(data)

    def _give_everybody_the_model(self) -> None:
        """Give every node that trains the model, and make room for what it computes."""
        start = self.model.parameters
        self._rows = start.expand(self.workers, -1).clone()
        self._mixed = torch.empty_like(self._rows)
        self._vectors = start.new_empty(self.n, self.model.d)
        plain = self.optimiser.momentum == 0 and self.optimiser.dampening == 0
        self._momenta = None if plain else torch.zeros_like(self._rows)
        self.buffers = self.model.node_buffers(self.workers)

    @property
    def parameters(self) -> Tensor:
        """(h, d), a row for each honest node."""
        return self._rows[: self.h]

    @parameters.setter
    def parameters(self, parameters: Tensor) -> None:
        self._rows[: self.h] = parameters

    def mean_buffers(self) -> dict[str, Tensor]:
        """Return the means of honest nodes' buffers, (1, …) by name, whole numbers rounded down."""
        means = {}
        for name, buffer in self.buffers.items():
            mean = buffer[: self.h].double().mean(dim=0, keepdim=True)
            means[name] = (mean if buffer.is_floating_point() else mean.floor()).to(buffer.dtype)
        return means

    # Local optimisation

    @property
    def rate(self) -> float:
        """η of the next round."""
        return self.optimiser.rate(self.step_index)

    def begin_round(self) -> None:
        """Draw the rule of the round."""
        self.moments = None
        if self.defender is not None:
            self.defender.draw()

    def collect_worker_batches(self) -> Sequence[Batch] | Batches:
        """Return the next batches of every node that trains, one per local step, in their order."""
        repeats = self.optimiser.local_steps
        if isinstance(self.data, WorkerStream):
            return self.data.take(self.batch_size, repeats)
        rounds = [super(Protocol, self).collect_worker_batches() for _ in range(repeats)]
        return [batch for own in zip(*rounds, strict=True) for batch in own]

    def compute_honest_worker_gradients(self, batches: Sequence[Batch] | Batches) -> tuple[Tensor, Tensor]:
        """Return each node's clipped gradient at its own parameters, or where its momentum leads, and its loss."""
        if not isinstance(batches, Batches):
            batches = Batches.join(batches, self._rows.device)
        self._batches = batches
        out, rate, optimiser = self._vectors[: self.workers], self.rate, self.optimiser
        losses = []
        for workers in self._groups(0, self.workers):
            points = self._rows[workers]
            if optimiser.nesterov and self._momenta is not None:
                leap, ahead = -optimiser.momentum * rate, self._mixed[workers]
                points = torch.add(points, self._momenta[workers], alpha=leap, out=ahead)
            losses.append(
                self._worker_gradients(
                    batches.of(workers, optimiser.local_steps),
                    out[workers],
                    points=points,
                    first=workers.start,
                    step=self.step_index,
                    rate=rate,
                    buffers={name: buffer[workers] for name, buffer in self.buffers.items()},
                )
            )
        return out, torch.cat(losses)[: self.h]

    def local_update(self, gradients: Tensor) -> Tensor:
        """Return what nodes exchange, in the memory of their gradients."""
        optimiser, rate = self.optimiser, self.rate
        if self.dampens and optimiser.weight_decay:
            gradients.add_(self._rows, alpha=optimiser.weight_decay)
        steps = gradients
        if self._momenta is not None and optimiser.momentum_at == "worker":
            dampening = optimiser.momentum if self.dampens else optimiser.dampening
            steps = self._momenta.mul_(optimiser.momentum).add_(gradients, alpha=1 - dampening)
        if not self.exchanges_models:
            return gradients if steps is gradients else gradients.copy_(steps)
        decay = 0.0 if self.dampens else optimiser.weight_decay
        if steps is gradients:
            return gradients.mul_(-rate).add_(self._rows, alpha=1 - rate * decay)
        local = torch.add(self._rows, steps, alpha=-rate, out=gradients)
        return local.sub_(self._rows, alpha=rate * decay) if decay else local

    def taken_steps(self, rate: float) -> Tensor:
        """Return (θᵢ − θᵢ,½) / η of each honest node, (h, d), after `local_update`; may use the memory of mixed models.

        Taken from the momenta, where there are some, since the difference has lost digits.
        """
        decay, out = self.optimiser.weight_decay, self._mixed[: self.h]
        if self._momenta is None:
            return torch.sub(self.parameters, self._vectors[: self.h], out=out).div_(rate or torch.nan)
        if self.dampens or decay == 0:
            return self._momenta[: self.h]
        return torch.add(self._momenta[: self.h], self.parameters, alpha=decay, out=out)

    def mean_momentum(self) -> Tensor:
        """Return the mean momentum of honest nodes, (d,)."""
        return torch.zeros_like(self._rows[0]) if self._momenta is None else self._momenta[: self.h].mean(dim=0)

    # Attack

    def generate_byzantine_models(self, local_parameters: Tensor) -> Tensor:
        """Return what Byzantine nodes send, (f, d), or (h, f, d) where the attack makes one set per recipient."""
        if self.f == 0 or self.workers > self.h:
            return local_parameters[self.h :]
        known = self.known_to_attackers()
        byzantine = self.attack.unchecked(local_parameters, f=self.f, **{**known, **self.attack_kwargs})
        if byzantine.dim() == 3:
            return byzantine
        place = self._vectors[self.h :]
        place.copy_(byzantine)
        return place if byzantine.stride(0) else place[:1].expand(self.f, -1)  # equal rows are seen to be equal

    def known_to_attackers(self) -> dict[str, Any]:
        """Return what attackers know besides what honest nodes send, see `attacks.CONTEXT`."""
        known = super().known_to_attackers()
        known |= {"f_declared": self.f_declared, "full_gradient": self._full_gradient}
        if self.moments is not None:
            known["moments"] = self.moments
        if not self.exchanges_models:
            known["pivot"] = self._previous_mix
        if self.attack.per_recipient or {"weights", "adjacency"} & set(self.attack.needs):
            known |= self._matrices()
        return known

    def _matrices(self) -> dict[str, Tensor]:
        """Return the round's weights and adjacency, (n, n), as attackers know them."""
        neighbourhoods = self.neighbourhoods()
        rows = torch.arange(self.n).repeat_interleave(torch.as_tensor(neighbourhoods.offsets).diff())
        columns = torch.as_tensor(neighbourhoods.senders)
        weights = torch.zeros(self.n, self.n, dtype=torch.float64)
        weights[rows, columns] = torch.as_tensor(neighbourhoods.weights)
        adjacency = torch.zeros(self.n, self.n, dtype=torch.bool)
        adjacency[rows, columns] = True
        device = self._rows.device
        return {"weights": weights.to(device), "adjacency": adjacency.fill_diagonal_(False).to(device)}

    def rehearse(self, vectors: Tensor) -> Tensor:
        """Return the mean over honest nodes of what they would make of all vectors (n, d), leaving no trace."""
        with contextlib.nullcontext() if self.defender is None else self.defender.rehearsing():
            return self._mixer.mean(self.exchange, Sent(vectors, self.h), self.h, **self._mixing_context())

    def _full_gradient(self) -> Tensor:
        if self.training is None:
            raise ValueError(f"{self.attack.name}: expected the samples of all, as `training`, got none")
        self.model.load(self.parameters.mean(dim=0), {name: buffer[0] for name, buffer in self.mean_buffers().items()})
        return self.model.full_gradient(self.training, self._worker_gradients.loss)

    def heard_byzantine(self) -> Tensor:
        """Return which Byzantine nodes each honest node hears in this round, (h, f)."""
        heard = torch.zeros(self.h, self.n, dtype=torch.bool, device=self._rows.device)
        for group in self.exchange.groups:
            honest = group.receivers < self.h
            heard[group.receivers[honest].unsqueeze(1), group.senders[honest]] = True
        return heard[:, self.h :]

    # Mixing

    @property
    def exchange(self) -> Exchange:
        """Who receives what in the next round."""
        if self._exchange is None or self._exchange[0] != self.step_index:
            neighbourhoods = self.neighbourhoods()
            if self._exchange is not None and self._exchange[1] is neighbourhoods:
                exchange = self._exchange[2]
            else:
                exchange = Exchange(neighbourhoods, self.workers, self._rows.device)
            self._exchange = self.step_index, neighbourhoods, exchange
        return self._exchange[2]

    def aggregate_over_received_nodes(self, local_parameters: Tensor, byzantine_parameters: Tensor) -> Tensor:
        """Return what each node makes of what it received."""
        if self.batching:
            sent = self._sent(local_parameters, byzantine_parameters)
            accepted = self._mixer(self.exchange, sent, self._mixed, **self._mixing_context())
        else:
            accepted = self._mix_one_by_one(local_parameters, byzantine_parameters)
        self.byzantine_weight = None if accepted is None else accepted[: self.h]
        return self._mixed

    def _sent(self, local_parameters: Tensor, byzantine_parameters: Tensor) -> Sent:
        """Return the vectors of a round, copied to one matrix unless they are there already."""
        parts = [(self._vectors[: len(local_parameters)], local_parameters)]
        if byzantine_parameters.dim() == 2 and self.workers == self.h:
            parts.append((self._vectors[self.h :], byzantine_parameters))
        for place, part in parts:
            if len(part) and place.data_ptr() != part.data_ptr():
                place.copy_(part)
        centre = None if self.moments is None else self.moments[0]
        return Sent.of(self._vectors, byzantine_parameters, self.h, centre)

    def _mixing_context(self) -> dict[str, Any]:
        needs_loss = self.defender is not None and "loss" in self.defender.defence.needs
        return {"step": self.step_index, "loss_of": self._loss_of if needs_loss else None}

    def _mix_one_by_one(self, local_parameters: Tensor, byzantine_parameters: Tensor) -> Tensor | None:
        """Mix with the operations that each node by itself would do, and return the weights given to Byzantine ones."""
        accepted: list[Tensor | None] = []
        for node in range(self.workers):
            self._node = node
            candidates = self.gather_received_models(local_parameters, byzantine_parameters, worker_index=node)
            self._mixed[node] = self.aggregate_received_models(candidates, pivot=candidates[0])
            senders, _ = self.exchange.of(node)
            accepted.append(None if self._accepted is None else (self._accepted * (senders >= self.h)).sum().double())
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
        if self.defender is None:
            self._accepted = weights
            return weights.to(candidates.dtype) @ candidates
        if len(candidates) in self.refused:
            self._accepted = torch.zeros_like(weights)
            return pivot
        loss_of = self._mixing_context()["loss_of"]
        result, self._accepted = self.defender(
            candidates,
            draw=self.step_index,
            part=f"node-{self._node}",
            n=len(candidates),
            pivot=pivot,
            weights_row=weights,
            **({} if loss_of is None else {"loss": loss_of(self._node)}),
        )
        return result

    def _loss_of(self, node: int) -> Callable[[Tensor], Tensor]:
        """Return a node's loss on its batch of this round, as a function of parameters (d,)."""
        batch = self._batches.of(slice(node, node + 1), self.optimiser.local_steps)

        def loss(parameters: Tensor) -> Tensor:
            self.model.load(parameters, {name: buffer[node] for name, buffer in self.buffers.items()})
            return self._worker_gradients.loss(self.model.predict(batch.inputs), batch.targets)

        return loss

    def next_step(self, mixed: Tensor, node: int) -> Tensor:
        """Return the vector (d,) along which a node steps where gradients are mixed."""
        if self._momenta is None or self.optimiser.momentum_at != "update":
            return mixed[node]
        return self.optimiser.momentum * self._momenta[node] + (1 - self.optimiser.dampening) * mixed[node]

    def commit_state(self, parameters: Tensor) -> None:
        """End the round: nodes have these models, or take a step along these vectors."""
        if self.exchanges_models:
            if parameters is self._mixed:
                self._rows, self._mixed = self._mixed, self._rows
            else:
                self._rows[: len(parameters)] = parameters
        else:
            optimiser, rate = self.optimiser, self.rate
            self._previous_mix = parameters[: self.h].mean(dim=0)
            steps = parameters
            if self._momenta is not None and optimiser.momentum_at == "update":
                steps = self._momenta.mul_(optimiser.momentum).add_(parameters, alpha=1 - optimiser.dampening)
            if optimiser.weight_decay:
                self._rows.mul_(1 - rate * optimiser.weight_decay)
            self._rows.sub_(steps, alpha=rate)
        self.step_index += 1

    def build_step_result(
        self,
        *,
        honest_gradients: Tensor,
        local_parameters: Tensor,
        byzantine_parameters: Tensor,
        mixed_parameters: Tensor,
        losses: Tensor,
    ) -> StepResult:
        """Return the round's snapshot."""
        return {
            "byzantine_parameters": byzantine_parameters,
            "honest_gradients": honest_gradients,
            "local_parameters": local_parameters,
            "losses": losses,
            "mixed_parameters": mixed_parameters,
            "parameters": self.parameters.clone(),
            "step": self.step_index,
        }

    # State

    def state_dict(self) -> dict[str, Any]:
        """Return copies of all that later rounds depend on, but for the data streams."""
        return super().state_dict() | copy.deepcopy(
            {
                "parameters": self._rows,
                "momenta": self._momenta,
                "previous_mix": self._previous_mix,
                "defender": None if self.defender is None else self.defender.state_dict(),
            }
        )

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was called."""
        rows, device = state["parameters"], self._rows.device
        super().load_state_dict({**state, "parameters": rows[: self.h]})
        self._rows.copy_(rows)
        if self._momenta is not None:
            self._momenta.copy_(state["momenta"])
        self._previous_mix = None if state["previous_mix"] is None else state["previous_mix"].to(device)
        if self.defender is not None:
            self.defender.load_state_dict(state["defender"])


protocols: Registry[Protocol] = Registry("protocol")

import_modules(__name__, __path__)
