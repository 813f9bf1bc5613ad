"""The network of a run: a topology with its mixing weights, on which some nodes are Byzantine."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import networkx
import numpy
from networkx import Graph
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order

from experiments.mixing_weights import SCHEMES, mixing_weights, spectral_gap
from experiments.topologies import CONTEXT, Topology, topologies
from tools.arguments import bind, explicit_parameters, spelled
from tools.errors import UserError, one_line
from tools.seeding import derive_seed

FLAG = "--topology-args"
TRIES = 100
MOST_LISTED = 12


@dataclass(frozen=True, kw_only=True)
class CommonArguments:
    """What `--topology-args` has for every topology.

    Attributes:
        byzantine: which nodes are Byzantine: the "last" ones, "random" ones drawn by seed, or a list of their numbers.
        connected: whether graphs that are drawn once must be connected, and honest nodes be able to hear of each other
            through honest nodes.
        allow_weak: whether honest nodes may have more Byzantine neighbours than their rule tolerates, or too few
            neighbours for it.
        weights: the name of the mixing weights.
    """

    byzantine: str | list[int] = "last"
    connected: bool = True
    allow_weak: bool = False
    weights: str = "metropolis"

    def check(self, n: int, f: int) -> None:
        """Raise a UserError for a value that n nodes, f of them Byzantine, cannot have."""
        for name in ("connected", "allow_weak"):
            if not isinstance(getattr(self, name), bool):
                raise UserError(f"{FLAG}: {spelled(name)}: expected True or False, got {getattr(self, name)!r}")
        if not isinstance(self.weights, str) or self.weights not in SCHEMES:
            raise UserError(f"{FLAG}: weights: expected one of {', '.join(SCHEMES)}, got {self.weights!r}")
        if isinstance(self.byzantine, list):
            numbers = self.byzantine
            known = all(type(number) is int and 0 <= number < n for number in numbers)
            if not known or not len(numbers) == len(set(numbers)) == f:
                count = {0: "none", 1: "one node number"}.get(f, f"{f} different node numbers")
                nodes = f"{count} from 0 to {n - 1}, one per Byzantine worker" if f else count
                raise UserError(f"{FLAG}: byzantine: expected {nodes}, got {numbers}")
        elif self.byzantine not in ("last", "random"):
            raise UserError(
                f"{FLAG}: byzantine: expected last, random or a list of node numbers, got {self.byzantine!r}"
            )


@dataclass(frozen=True, eq=False)
class Neighbourhoods:
    """Whom every worker hears in a round, E being the edges in both directions and one per worker for itself.

    Attributes:
        offsets: (n + 1,) int64, worker w hears `senders[offsets[w] : offsets[w + 1]]`.
        senders: (E,) int64, the worker itself first, then the others in ascending order.
        weights: (E,) float64, the mixing weights of the senders.
    """

    offsets: numpy.ndarray
    senders: numpy.ndarray
    weights: numpy.ndarray


@dataclass(frozen=True, eq=False)
class Heard:
    """How many others workers hear, in every case.

    A case is a round or, where graphs are redrawn, a number of neighbours that any node may have in some round.

    Attributes:
        others: (cases, n).
        byzantine: (cases, h), Byzantine ones among those that honest workers hear.
        at_least: whether these are the fewest, whatever is drawn; else the most.
    """

    others: numpy.ndarray
    byzantine: numpy.ndarray
    at_least: bool = False


def check_arguments(name: str, arguments: dict[str, Any], n: int, f: int) -> None:
    """Raise a UserError for an unknown topology, or arguments that it, n nodes or f Byzantine ones cannot have."""
    _bind(name, arguments, n, f)


def _bind(
    name: str, arguments: dict[str, Any], n: int, f: int
) -> tuple[type[Topology], dict[str, Any], CommonArguments]:
    topology = topologies[name]
    own, common = explicit_parameters(topology.graph, CONTEXT), explicit_parameters(CommonArguments)
    for key in arguments:
        if key not in own | common:
            known = f"expected: {', '.join(own)}, or " if own else "expected "
            shared = ", ".join(map(spelled, common))
            raise UserError(f"{FLAG}: {name} has no argument {key!r}, {known}what all have: {shared}")
    given = {key: value for key, value in arguments.items() if key not in common}
    given = bind(topology.graph, given, f"{FLAG}: {name}", CONTEXT)
    try:
        topology.check(n=n, **given)
    except (ValueError, TypeError) as error:
        raise UserError(f"--topology, {FLAG}, --nb-workers: {error}") from error
    of_all = CommonArguments(**{key: value for key, value in arguments.items() if key in common})
    of_all.check(n, f)
    return topology, given, of_all


class Network:
    """Who hears whom in every round of a run, by the numbers of workers: honest ones first.

    Args:
        name: of the topology.
        arguments: all of `--topology-args`.
        n: workers, each at one node.
        f: Byzantine ones.
        seed: of the run.

    Attributes:
        name, n, f: as given; h: honest workers.
        nodes: the node of each worker: honest ones, then Byzantine ones, both in ascending order.
        varies: whether neighbourhoods differ from round to round.
        heard: how many neighbours workers have.
        largest_byzantine_neighbours: of an honest node, in any round.
        largest_byzantine_share: of these among all its neighbours.
        largest_byzantine_weight: that an honest node gives its Byzantine neighbours together.

    Raises:
        UserError: arguments that cannot be, weights that do not go with the graph, honest nodes that are not connected.
    """

    def __init__(self, name: str, arguments: dict[str, Any], *, n: int, f: int, seed: int) -> None:
        self._topology, self._own, self._common = _bind(name, arguments, n, f)
        self.name, self.n, self.f, self.h = name, n, f, n - f
        self._seed = seed
        byzantine = self._byzantine_nodes()
        self.nodes = (*(node for node in range(n) if node not in byzantine), *sorted(byzantine))
        self._period = self._topology.period(n, **self._own)
        self.varies = self._period != 1
        self._draw_graphs()
        self.heard, byzantine_weight = self._count_neighbours()
        byzantine, others = self.heard.byzantine, self.heard.others[:, : self.h]
        self.largest_byzantine_neighbours = int(byzantine.max())
        self.largest_byzantine_share = float((byzantine / numpy.maximum(others, 1)).max())
        self.largest_byzantine_weight = float(byzantine_weight.max())

    def _draw_graphs(self) -> None:
        """Make the graphs of all rounds; random ones are drawn again while honest nodes are not connected, as asked."""
        for self._draw in range(TRIES):
            self._rounds = {step: self._make_neighbourhoods(step) for step in range(self._period or 1)}
            if not self._common.connected or self._period is None:
                break
            try:
                self._check_connected()
                break
            except UserError:
                if not self._topology.drawn or self._draw == TRIES - 1:
                    raise

    def _byzantine_nodes(self) -> set[int]:
        if isinstance(self._common.byzantine, list):
            return set(self._common.byzantine)
        if self._common.byzantine == "last":
            return set(range(self.h, self.n))
        return set(random.Random(derive_seed(self._seed, "byzantine nodes")).sample(range(self.n), self.f))

    def _phase(self, step: int) -> int:
        """Return the first round with the same neighbourhoods."""
        return step if self._period is None else step % self._period

    def graph(self, step: int) -> Graph:
        """Return who hears whom in a round, by the numbers of nodes; see `Topology.graph`."""
        rng = random.Random(derive_seed(self._seed, "topology", step if self._period is None else self._draw))
        must_connect = self._common.connected and self._topology.drawn and self._period == 1
        for _ in range(TRIES):
            graph = self._topology.graph(self.n, rng=rng, step=self._phase(step), **self._own)
            if not must_connect or networkx.is_connected(graph.to_undirected(as_view=True)):
                return graph
        raise UserError(
            f"{FLAG}: expected a connected {self.name} graph of {self.n} nodes, got none in {TRIES} draws; ask for "
            f"more edges, or connected:False"
        )

    def layout(self, graph: Graph) -> numpy.ndarray:
        """Return where to draw the nodes of one of its graphs, (n, 2)."""
        return self._topology.layout(graph, **self._own)

    def neighbourhoods(self, step: int) -> Neighbourhoods:
        """Return whom every worker hears in a round; the same object for rounds that are the same."""
        phase = self._phase(step)
        if phase not in self._rounds:
            self._rounds = {phase: self._make_neighbourhoods(phase)}
        return self._rounds[phase]

    def _make_neighbourhoods(self, step: int) -> Neighbourhoods:
        worker_at = numpy.argsort(self.nodes)
        matrix = mixing_weights(self._common.weights, self.graph(step)).tocoo()
        receivers, senders = worker_at[matrix.row], worker_at[matrix.col]
        order = numpy.lexsort((senders, senders != receivers, receivers))
        offsets = numpy.concatenate([[0], numpy.bincount(receivers, minlength=self.n).cumsum()])
        return Neighbourhoods(offsets.astype(numpy.int64), senders[order].astype(numpy.int64), matrix.data[order])

    def _matrix(self, step: int) -> csr_array:
        heard = self.neighbourhoods(step)
        return csr_array((heard.weights, heard.senders, heard.offsets), shape=(self.n, self.n))

    def weights(self, step: int) -> numpy.ndarray:
        """Return the mixing weights of a round, (n, n) in float64, row i being what worker i gives to each."""
        return self._matrix(step).toarray()

    def adjacency(self, step: int) -> numpy.ndarray:
        """Return whether worker i hears worker j in a round, (n, n) of dtype bool, False on the diagonal."""
        hears = self.weights(step) > 0
        numpy.fill_diagonal(hears, False)
        return hears

    @property
    def complete(self) -> bool:
        """Whether every worker hears all others in every round."""
        return not self.varies and len(self._rounds[0].senders) == self.n**2

    def _check_connected(self) -> None:
        """Raise a UserError unless honest workers hear of each other, over all rounds, through honest ones."""
        hears = sum(self._matrix(step) for step in range(self._period))[: self.h, : self.h]
        for graph, direction in ((hears, 1), (hears.T, -1)):  # all that worker 0 hears of, all that hear of it
            reached = breadth_first_order(graph.tocsr(), 0, return_predecessors=False)
            if len(reached) < self.h:
                other = numpy.setdiff1d(range(self.h), reached)[0]
                deaf, unheard = (self.nodes[worker] for worker in (0, other)[::direction])
                raise UserError(
                    f"--topology: expected honest nodes to hear of each other through honest ones, but what node "
                    f"{unheard} says never reaches node {deaf}; use a denser topology, or {FLAG} connected:False"
                )

    def _count_neighbours(self) -> tuple[Heard, numpy.ndarray]:
        """Return how many neighbours workers have, and the weight that honest ones give Byzantine ones, (cases, h)."""
        if self._period is None:
            degrees = self._topology.degrees(self.n, **self._own)
            heard = numpy.repeat(numpy.array(degrees)[:, None], self.n, axis=1)
            byzantine = numpy.minimum(heard[:, : self.h], self.f)
            # No edge of a node with k neighbours weighs more than the edges of a graph in which all have k
            own = [[mixing_weights(self._common.weights, networkx.complete_graph(k + 1))[0, 0]] for k in degrees]
            share = byzantine / numpy.maximum(heard[:, : self.h], 1)
            return Heard(heard, byzantine), share * (1 - numpy.array(own))
        heard, byzantine, weight = [], [], []
        for step in range(self._period):
            around = self.neighbourhoods(step)
            ends = around.offsets[self.h]
            from_byzantine = around.senders[:ends] >= self.h
            heard.append(numpy.diff(around.offsets) - 1)
            byzantine.append(numpy.add.reduceat(from_byzantine, around.offsets[: self.h], dtype=numpy.int64))
            weight.append(numpy.add.reduceat(from_byzantine * around.weights[:ends], around.offsets[: self.h]))
        return Heard(numpy.stack(heard), numpy.stack(byzantine)), numpy.stack(weight)

    @property
    def most_honest_neighbours(self) -> numpy.ndarray:
        """How many honest neighbours each honest worker has at most, (cases, h)."""
        others = self.heard.others[:, : self.h]
        return numpy.minimum(others, self.h - 1) if self._period is None else others - self.heard.byzantine

    def local_byz(self, nb_local_byz: int | None, nb_decl_byz: int) -> int:
        """Return b, the Byzantine neighbours that a node must tolerate.

        Args:
            nb_local_byz: what the user says; None: the declared number on complete graphs, else the true largest one.
            nb_decl_byz: f declared.
        """
        if nb_local_byz is not None:
            return nb_local_byz
        return nb_decl_byz if self.complete else self.largest_byzantine_neighbours

    def check_rule(
        self, check: Callable[[int], None], what: str, b: int, heard: Heard | None = None, way_out: str = ""
    ) -> tuple[int, ...]:
        """Return the honest nodes that a rule does not protect; in rounds of redrawn graphs any node may be one.

        A node that hears nobody needs no rule.

        Args:
            check: raises ValueError or TypeError if the rule cannot take so many vectors, own included and b of them
                Byzantine.
            what: the rule's name.
            b: Byzantine neighbours that a node must tolerate.
            heard: how many of their neighbours workers hear; by default all.
            way_out: what else than another network may help, for the error.

        Raises:
            UserError: there are some, and `--topology-args allow-weak:True` is not given.
        """
        heard = heard or self.heard
        others = heard.others[:, : self.h]
        refusals: dict[int, str] = {}
        for count in numpy.unique(others[others > 0]).tolist():
            try:
                check(count + 1)
            except (ValueError, TypeError) as error:
                refusals[count] = one_line(error)
        weak = numpy.isin(others, list(refusals)) | (heard.byzantine > b)
        if weak.any() and not self._common.allow_weak:
            case, worker = numpy.argwhere(weak)[0]
            count = int(others[case, worker])
            byzantine = f"{'at least ' * heard.at_least}{heard.byzantine[case, worker]} of them Byzantine"
            reason = refusals.get(count, f"{what} is to tolerate {b}")
            hears = "may hear" if self._period is None else "hears"
            other_network = "other --nb-workers or --nb-decl-byz" if self.complete else "a denser topology"
            raise UserError(
                f"--topology, --nb-local-byz: node {self.nodes[worker]} {hears} {count} neighbour{'s' * (count != 1)}, "
                f"{byzantine}: {reason}; use {other_network}, {way_out}{', ' * bool(way_out)}another --nb-local-byz, "
                f"or {FLAG} allow-weak:True"
            )
        return tuple(self.nodes[worker] for worker in numpy.flatnonzero(weak.any(axis=0)))

    @cached_property
    def spectral_gap(self) -> float:
        """1 − |λ₂| of the mixing weights; of their product over a period; of their mean where graphs are redrawn."""
        if self._period is None:
            # Nodes being alike, the mean has one value on the diagonal and one, say w, elsewhere: its gap is nw
            return float(self.n - self._matrix(0).trace()) / (self.n - 1)
        return spectral_gap([self._matrix(step) for step in range(self._period)])

    def describe(self) -> dict[str, str]:
        """Return what a person wants to know at the start of a run."""
        graph = self.graph(0)
        degrees = numpy.diff(self.neighbourhoods(0).offsets) - 1
        often = {None: ", drawn anew every round", 1: ""}.get(self._period, f", in turn over {self._period} rounds")
        over = {None: " of the mean over draws", 1: ""}.get(self._period, f" over {self._period} rounds")
        among = (
            f"at most {self.largest_byzantine_neighbours} of an honest node, {self.largest_byzantine_share:.0%} of its "
            f"neighbours, {self.largest_byzantine_weight:.0%} of the weight it gives"
        )
        return {
            "nodes": str(self.n),
            "edges": f"{graph.number_of_edges()}{' in one direction' if graph.is_directed() else ''}{often}",
            "neighbours": f"{degrees.min()} to {degrees.max()}, {degrees.mean():.4g} in the mean",
            "spectral gap": f"{self.spectral_gap:.4g}{over}",
            "Byzantine nodes": _listed(self.nodes[self.h :]),
            "Byzantine neighbours": among if self.largest_byzantine_neighbours else "none",
        }


def _listed(numbers: Sequence[int]) -> str:
    """Return numbers in words, the first ones where there are many."""
    text = ", ".join(map(str, numbers[:MOST_LISTED]))
    return f"{text} and {len(numbers) - MOST_LISTED} more" if len(numbers) > MOST_LISTED else text or "none"
