"""Learning without a server: every worker has a model of its own, and mixes it with those it receives.

A round is one local optimisation phase, then one mixing phase. What a worker does on its own data, and whom it hears,
are left to subclasses; those that `--protocol` names are in `experiments.protocols`. The methods written here treat one
worker after another, as processes of their own would: they say what a protocol that treats all at once must give.
"""

import copy
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypedDict, TypeVar

import torch
from torch import Tensor, nn

import aggregators
import attacks
from aggregators import Aggregator
from attacks import Attack
from experiments.batches import Batches
from experiments.losses import FunctionLoss, Loss
from experiments.model import Model
from experiments.states import moved
from tools.arguments import check_whole
from tools.seeding import derive_seed, make_generator

Batch = tuple[Tensor, Tensor]
LossFunction = Callable[[Tensor, Tensor], Tensor]


class StepResult(TypedDict):
    """Copies of what a round made, h honest workers, f Byzantine ones, d parameters.

    `honest_gradients` (h, d), computed on the workers' batches, with their `losses` (h,). `local_parameters` (h, d),
    what honest workers exchanged. `byzantine_parameters` (f, d), or (h, f, d) where each recipient got its own.
    `mixed_parameters` (h, d), what mixing made of them. `parameters` (h, d) after the round, and `step`, the rounds
    done by then.
    """

    byzantine_parameters: Tensor
    honest_gradients: Tensor
    local_parameters: Tensor
    losses: Tensor
    mixed_parameters: Tensor
    parameters: Tensor
    step: int


StepResultT = TypeVar("StepResultT", bound=StepResult)


class DecentralisedSimulation(ABC, Generic[StepResultT]):
    """h honest workers, each with its own model, and f Byzantine ones who know everything.

    A subclass writes `local_update`, `gather_received_models` and `build_step_result`, and may replace any other
    method.

    Args:
        model: whose parameters every worker starts from.
        data: one stream of batches (inputs, targets) per honest worker.
        loss_fn: outputs and targets of one batch → its loss, 0-D.
        n: workers, Byzantine ones included.
        f: Byzantine workers.
        attack: what they send, a class or a name; needed if there are any and the subclass does not make it itself.
        attack_kwargs: its arguments.
        aggregator: the rule by which workers mix what they received, a class or a name.
        aggregator_kwargs: its arguments; `f` among them, if it is to tolerate another number than `f`.
        seed: of the attack's and the rule's randomness and of dropout; None: a fresh one.
        test_data: inputs and targets on which `evaluate` measures.

    Attributes:
        parameters: (h, d), a row for each honest worker.
        buffers: by name (h, …), what each worker's model keeps beside its parameters; never exchanged.
        step_index: rounds done.

    Raises:
        ValueError: impossible numbers, a missing attack, as many streams as there are not honest workers.
        TypeError: something else than whole numbers, a model, an attack or a rule.
    """

    def __init__(
        self,
        *,
        model: Model | nn.Module,
        data: Sequence[Iterator[Batch]],
        loss_fn: LossFunction,
        n: int,
        f: int,
        attack: type[Attack] | str | None = None,
        attack_kwargs: dict[str, Any] | None = None,
        aggregator: type[Aggregator] | str,
        aggregator_kwargs: dict[str, Any] | None = None,
        seed: int | None = None,
        test_data: Batch | None = None,
    ) -> None:
        if not 0 <= f < n:
            raise ValueError(f"expected f from 0 to {n - 1} for n = {n}, at least one worker being honest, got {f}")
        for name, number in (("n", n), ("f", f)):
            check_whole(type(self).__name__, name, number, least=0)
        own = type(self).generate_byzantine_models is not DecentralisedSimulation.generate_byzantine_models
        if f and attack is None and not own:
            raise ValueError(f"expected an attack for {f} Byzantine workers, got none")
        if not isinstance(model, nn.Module | Model):
            raise TypeError(f"expected a Model or a module as model, got {model!r}")
        if not callable(loss_fn):
            raise TypeError(f"expected a function of outputs and targets as loss_fn, got {loss_fn!r}")
        self.n, self.f, self.h = n, f, n - f
        self.model = Model(model) if isinstance(model, nn.Module) else model
        self.loss_fn = loss_fn
        self._loss = loss_fn if isinstance(loss_fn, Loss) else FunctionLoss(loss_fn)
        self.attack = None if attack is None else _class_of(Attack, attacks.get, attack)
        self.attack_kwargs = dict(attack_kwargs or {})
        self.aggregator = _class_of(Aggregator, aggregators.get, aggregator)
        self.aggregator_kwargs = {"f": f, **(aggregator_kwargs or {})}
        self.seed = secrets.randbits(31) if seed is None else seed
        self.test_data = test_data
        self.step_index = 0
        self._keep_streams(data)
        self._give_everybody_the_model()
        device = self.model.parameters.device
        self.attack_generator = make_generator(self.seed, "attack", device=device)
        self.rule_generator = make_generator(self.seed, "rule", device=device)
        self.attack_state: dict[str, Any] = {}

    def _keep_streams(self, data: Any) -> None:
        """Keep the workers' streams."""
        streams = list(data)
        if len(streams) != self.h:
            raise ValueError(
                f"expected one stream of batches per honest worker, {self.h} for n = {self.n} and f = {self.f}, got "
                f"{len(streams)}"
            )
        self.data = [iter(stream) for stream in streams]

    def _give_everybody_the_model(self) -> None:
        """Give every honest worker the model's parameters and buffers."""
        self.parameters = self.model.parameters.expand(self.h, -1).clone()
        self.buffers = self.model.node_buffers(self.h)

    def run(self, rounds: int) -> list[StepResultT]:
        """Do that many rounds, more of them if there were some before, and return one snapshot of each.

        Raises:
            ValueError: fewer than none; a stream that has ended.
        """
        if rounds < 0:
            raise ValueError(f"expected at least 0 rounds, got {rounds}")
        return [self.step() for _ in range(rounds)]

    @torch.no_grad()
    def step(self) -> StepResultT:
        """Do one round: local optimisation, mixing, commit; return its snapshot."""
        self.begin_round()
        batches = self.collect_worker_batches()
        with torch.enable_grad():  # a subclass may differentiate in its own way
            gradients, losses = self.compute_honest_worker_gradients(batches)
        gradients, losses = gradients.detach(), losses.detach()
        honest_gradients = gradients[: self.h].clone()  # a protocol may go on in the same memory
        local = self.local_update(gradients)
        local_parameters = local[: self.h].clone()
        byzantine = self.generate_byzantine_models(local)
        byzantine_parameters = byzantine.clone()
        mixed = self.aggregate_over_received_nodes(local, byzantine)
        mixed_parameters = mixed[: self.h].clone()
        self.commit_state(mixed)
        return self.build_step_result(
            honest_gradients=honest_gradients,
            local_parameters=local_parameters,
            byzantine_parameters=byzantine_parameters,
            mixed_parameters=mixed_parameters,
            losses=losses.clone(),
        )

    def begin_round(self) -> None:
        """Do what comes before a round; here nothing."""

    def collect_worker_batches(self) -> Sequence[Batch]:
        """Return the next batch of every honest worker, in their order.

        Raises:
            ValueError: a stream that has ended.
        """
        batches = []
        for worker, stream in enumerate(self.data):
            batch = next(stream, None)
            if batch is None:
                raise ValueError(
                    f"expected a batch of worker {worker} for round {self.step_index + 1}, but its stream has ended; "
                    f"give it one that goes on for ever, such as itertools.cycle(batches)"
                )
            batches.append(batch)
        return batches

    def compute_honest_worker_gradients(self, batches: Sequence[Batch]) -> tuple[Tensor, Tensor]:
        """Return each worker's gradient at its own parameters, (h, d), and its loss, (h,)."""
        gradients = torch.empty_like(self.parameters)
        losses = []
        for worker, (inputs, targets) in enumerate(batches):
            self.copy_parameters_to_model(self.parameters[worker])
            noise = derive_seed(self.seed, "noise", self.step_index, worker, 0)
            device = gradients.device
            losses.append(
                self.model.gradients(
                    Batches(inputs.to(device), targets.to(device), (len(inputs),)),
                    self._loss,
                    out=gradients[worker : worker + 1],
                    seeds=lambda _, noise=noise: noise,
                    buffers={name: buffer[worker : worker + 1] for name, buffer in self.buffers.items()},
                )
            )
        return gradients, torch.cat(losses)

    def copy_parameters_to_model(self, parameters: Tensor) -> None:
        """Make the model have these parameters, (d,)."""
        self.model.parameters.copy_(parameters)

    @abstractmethod
    def local_update(self, gradients: Tensor) -> Tensor:
        """Return what honest workers exchange, (h, d): their θ_{t+½} after a step along their gradients (h, d)."""

    def generate_byzantine_models(self, local_parameters: Tensor) -> Tensor:
        """Return what Byzantine workers send, (f, d), or (h, f, d) where the attack makes one set per recipient.

        Args:
            local_parameters: (h, d), what honest workers send, all of which the attackers know.
        """
        if self.f == 0:
            return local_parameters.new_empty(0, local_parameters.shape[1])
        known = self.known_to_attackers()
        return self.attack.generate(local_parameters, f=self.f, **{**known, **self.attack_kwargs})

    def known_to_attackers(self) -> dict[str, Any]:
        """Return what attackers know besides what honest workers send, see `attacks.CONTEXT`."""
        mean = self.parameters.mean(dim=0)
        return {
            "aggregate": self.rehearse,
            "f_declared": self.aggregator_kwargs["f"],
            "parameters": mean,
            "pivot": mean,
            "step": self.step_index,
            "state": self.attack_state,
            "generator": self.attack_generator,
        }

    def rehearse(self, vectors: Tensor) -> Tensor:
        """Return the mean over honest workers of what they would make of all vectors (n, d), leaving no trace."""
        generator = self.rule_generator.get_state()
        mixed = self.aggregate_over_received_nodes(vectors[: self.h], vectors[self.h :])
        self.rule_generator.set_state(generator)
        return mixed.mean(dim=0)

    def aggregate_over_received_nodes(self, local_parameters: Tensor, byzantine_parameters: Tensor) -> Tensor:
        """Return what each honest worker makes of what it received, (h, d)."""
        mixed = []
        for worker, own in enumerate(local_parameters):
            candidates = self.gather_received_models(local_parameters, byzantine_parameters, worker_index=worker)
            mixed.append(self.aggregate_received_models(candidates, pivot=own))
        return torch.stack(mixed)

    @abstractmethod
    def gather_received_models(
        self, honest_vectors: Tensor, byzantine_parameters: Tensor, *, worker_index: int
    ) -> Tensor:
        """Return what a worker received, its own vector first, (m, d).

        Args:
            honest_vectors: (h, d), what honest workers sent.
            byzantine_parameters: (f, d) or (h, f, d), what Byzantine workers sent.
            worker_index: the recipient.
        """

    def aggregate_received_models(self, candidates: Tensor, *, pivot: Tensor) -> Tensor:
        """Return what a worker makes of the vectors it received.

        Args:
            candidates: (m, d), its own first.
            pivot: (d,), its own.
        """
        return self.aggregator.aggregate(
            candidates,
            **{"n": len(candidates), "pivot": pivot, "generator": self.rule_generator, **self.aggregator_kwargs},
        )

    def commit_state(self, parameters: Tensor) -> None:
        """End the round with these parameters, (h, d)."""
        self.parameters = parameters.detach().clone()
        self.step_index += 1

    @abstractmethod
    def build_step_result(
        self,
        *,
        honest_gradients: Tensor,
        local_parameters: Tensor,
        byzantine_parameters: Tensor,
        mixed_parameters: Tensor,
        losses: Tensor,
    ) -> StepResultT:
        """Return the round's snapshot, after `commit_state`.

        All it is given are copies, made when they were new; `parameters` it has to copy itself.
        """

    @torch.no_grad()
    def evaluate(self) -> tuple[float, ...]:
        """Return the share of the test samples that each honest worker's model classifies as they are labelled.

        Raises:
            ValueError: there are no test data.
        """
        if self.test_data is None:
            raise ValueError("expected test_data to evaluate on, got none")
        inputs, targets = (part.to(self.parameters.device) for part in self.test_data)
        shares = []
        for worker in range(self.h):
            self.model.load(self.parameters[worker], {name: buffer[worker] for name, buffer in self.buffers.items()})
            shares.append((self.model.predict(inputs).argmax(dim=-1) == targets).double().mean())
        return tuple(torch.stack(shares).tolist())

    def _node_state(self) -> dict[str, Any]:
        """Return what workers have that later rounds depend on."""
        return {"parameters": self.parameters, "buffers": self.buffers}

    def _load_node_state(self, state: dict[str, Any]) -> None:
        """Continue where `_node_state` was called."""
        self.parameters.copy_(state["parameters"])
        for name, buffer in self.buffers.items():
            buffer.copy_(state["buffers"][name])

    def state_dict(self) -> dict[str, Any]:
        """Return copies of all that later rounds depend on, but for the data streams."""
        return copy.deepcopy(
            {
                "step": self.step_index,
                **self._node_state(),
                "attack": {"generator": self.attack_generator.get_state(), "state": self.attack_state},
                "rule": self.rule_generator.get_state(),
            }
        )

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was called."""
        self.step_index = state["step"]
        self._load_node_state(state)
        self.attack_generator.set_state(state["attack"]["generator"])
        self.attack_state = moved(copy.deepcopy(state["attack"]["state"]), self.parameters.device)
        self.rule_generator.set_state(state["rule"])


def _class_of(base: type, named: Callable[[str], type], given: Any) -> Any:
    """Return a class given by itself or by its name."""
    found = named(given) if isinstance(given, str) else given
    if not (isinstance(found, type) and issubclass(found, base)):
        raise TypeError(f"expected an {base.__name__} or its name, got {given!r}")
    return found
