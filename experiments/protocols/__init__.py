"""Protocols, one file each: what nodes without a server exchange, and how they mix it.

A protocol is a class that registers itself under its name. Its file says what is exchanged, who hears whom in a round
if the topology does not, and by which rule or weights nodes mix. What a protocol may say, and what is checked of it
before a run, is in the base class here; the rounds that all share are in `experiments.batched`. `template.py` is there
to be copied.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy
import torch

from aggregators import Aggregator
from experiments.batched import BatchedSimulation
from experiments.defence import Defence, Defender
from experiments.mixing import Mixer
from experiments.network import Heard, Neighbourhoods, Network
from experiments.optimiser import Optimiser
from tools.arguments import explicit_parameters
from tools.errors import UserError
from tools.registry import Registry, import_modules


class Protocol(BatchedSimulation):
    """What nodes exchange and how they mix it.

    A subclass `class DPSGD(Protocol, name="dpsgd")` says how it differs by the class variables below, by
    `exchanges_models` and, where needed, by `neighbourhoods` with `heard`, and by `check`, whose explicit parameters
    are those of `--protocol-args`.

    Args:
        n, f: nodes, and Byzantine ones among them.
        optimiser: of every node.
        network: who hears whom; by default everybody everybody.
        arguments: of the protocol, as in `--protocol-args`.
        aggregator, aggregator_kwargs: the rule by which nodes mix, if not the protocol's own, and its arguments.
        f_declared: Byzantine nodes that are expected; by default f.
        nb_local_byz: Byzantine neighbours that a node's rule must tolerate; by default what the network suggests.
        defences: in place of the aggregator: rules of which each round draws one, after pre-aggregators.
        rule_device: where rules compute; by default where the model is.
        common: see `BatchedSimulation` and `DecentralisedSimulation`.

    Attributes:
        defender: draws the rule of each round; None: nodes mix by weights.
        nb_local_byz: b, what the rule tolerates.
        weak_nodes: numbers of honest nodes that the rule does not protect, where the network allows some.
        refused: numbers of received vectors that the rule cannot take: nodes, and poisoners, that receive so many keep
            their own.

    Raises:
        UserError: what users may get wrong on the command line as well.
        ValueError: what only callers may.
    """

    name: ClassVar[str]
    rule: ClassVar[str | None] = None
    """The rule by which nodes mix unless told otherwise; None: by the weights of the topology, or the average."""
    takes_rules: ClassVar[bool] = True
    """Whether nodes mix by a rule that users choose."""
    dampens: ClassVar[bool] = False
    """Whether momentum is m ← μm + (1−μ)g, weight decay being part of the gradient."""
    momentum_places: ClassVar[tuple[str, ...]] = ("worker",)
    way_out: ClassVar[str] = ""
    """What may help where the rule cannot take what nodes hear, besides another network; for the error."""
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
        n: int,
        f: int,
        optimiser: Optimiser,
        network: Network | None = None,
        arguments: Mapping[str, Any] | None = None,
        aggregator: type[Aggregator] | str | None = None,
        aggregator_kwargs: Mapping[str, Any] | None = None,
        f_declared: int | None = None,
        nb_local_byz: int | None = None,
        defences: Sequence[Defence] | None = None,
        rule_device: torch.device | None = None,
        **common: Any,
    ) -> None:
        self.arguments = dict(arguments or {})
        self.f_declared = f if f_declared is None else f_declared
        self.check(n=n, f=self.f_declared, f_real=f, **self.arguments)
        if self.dampens:
            optimiser = replace(optimiser, dampening=optimiser.momentum, decays_gradient=True)
        super().__init__(
            n=n,
            f=f,
            optimiser=optimiser,
            aggregator=aggregator or self.rule or "average",
            aggregator_kwargs={**(aggregator_kwargs or {}), "f": self.f_declared},
            **common,
        )
        self._check_caller(aggregator, network)
        self.network = network or Network("complete", {}, n=n, f=f, seed=self.seed)
        self.nb_local_byz = self.local_byz(nb_local_byz)
        self.weak_nodes: tuple[int, ...] = ()
        self.refused: frozenset[int] = frozenset()
        self.defender: Defender | None = None
        if self.rule is not None or self.takes_rules:
            self.defender = self._make_defender(defences, rule_device)
            self._check_memory()
            self.refused = self.check_rule()
        self._check_attack()
        self.mixer = Mixer(self.defender, self.refused, self.nodes.loss_of)

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

    def heard(self) -> Heard:
        """Return how many of their neighbours nodes hear in a round."""
        return self.network.heard

    def check_rule(self) -> frozenset[int]:
        """Return the numbers of received vectors with which nodes keep their own, since the rule cannot take them.

        Those of poisoners, which mix as well, are among them.

        Raises:
            UserError: the rule does not protect some honest node, unless the network allows that.
        """
        heard, rule = self.heard(), self.defender.defences[0].rule.name
        self.weak_nodes = self.network.check_rule(self.check_number, rule, self.nb_local_byz, heard, self.way_out)
        return self.refused_among(numpy.unique(heard.others[:, : self.trainers] + 1).tolist())

    def describe_condition(self) -> str:
        """Return where the condition of the rule holds, for people."""
        if self.weak_nodes:
            alone = "; those that hear too few keep their own vector" if self.refused else ""
            return f"does not hold for nodes {', '.join(map(str, self.weak_nodes))}, as allow-weak permits{alone}"
        byzantine = f"at most {self.nb_local_byz} of the vectors it receives are Byzantine"
        alone = "; one that hears nobody keeps its own" if 1 in self.refused else ""
        return f"holds for every honest node: {byzantine}, and the rule takes their number{alone}"

    def check_number(self, received: int) -> None:
        """Raise ValueError or TypeError if a rule cannot take that many vectors."""
        for defence in self.defender.defences:
            defence.check(n=received, f=self.nb_local_byz)

    def refused_among(self, sizes: Iterable[int]) -> frozenset[int]:
        """Return the numbers of vectors that not all rules can take."""
        refused = set()
        for size in sizes:
            try:
                self.check_number(size)
            except (ValueError, TypeError):
                refused.add(size)
        return frozenset(refused)

    def _make_defender(self, defences: Sequence[Defence] | None, device: torch.device | None) -> Defender:
        given = {key: value for key, value in self.aggregator_kwargs.items() if key != "f"}
        defences = defences or [Defence(self.aggregator, self.rule_arguments(**self.arguments) | given)]
        return Defender(defences, self.nb_local_byz, self.seed, device or self.nodes.device)

    def _check_caller(self, aggregator: type[Aggregator] | str | None, network: Network | None) -> None:
        if aggregator is not None and not self.takes_rules:
            raise ValueError(f"expected no aggregator for {type(self).__name__}, which mixes in its own way")
        if network is not None and (network.n, network.f) != (self.n, self.f):
            raise ValueError(
                f"expected a network of {self.n} nodes, {self.f} of them Byzantine, got {network.n} and {network.f}"
            )
        if self.optimiser.momentum_at not in self.momentum_places:
            places = " or ".join(self.momentum_places)
            raise ValueError(f"expected momentum at {places}, got {self.optimiser.momentum_at}")

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


protocols: Registry[Protocol] = Registry("protocol")

import_modules(__name__, __path__)
