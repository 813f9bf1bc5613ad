"""What protocols are, by hand: mixing by weights, its rate, who hears whom, and what cannot be."""

import inspect
from itertools import cycle, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from aggregators import gars
from experiments.defence import Defence
from experiments.network import Network
from experiments.optimiser import Optimiser
from experiments.protocols import Protocol, protocols
from experiments.protocols.dpsgd import DPSGD
from experiments.protocols.epidemic import Epidemic
from experiments.protocols.gossip import Gossip
from experiments.protocols.robust import Robust
from tools.errors import UserError

D = 3


class Point(nn.Module):
    """A model whose output is its parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.point = nn.Parameter(torch.zeros(D, dtype=torch.float64))

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs + self.point


def quadratic(outputs: Tensor, targets: Tensor) -> Tensor:
    return 0.5 * (outputs - targets).square().sum(dim=1).mean()


def make(protocol: type[Protocol], topology: str, n: int, f: int = 0, **options: Any) -> Protocol:
    """A simulation whose node i has the loss ½‖θ − cᵢ‖², cᵢ being the unit vector of i modulo D, times i."""
    own = torch.eye(D, dtype=torch.float64)
    data = [cycle([(torch.zeros(1, D).double(), own[i % D : i % D + 1] * i)]) for i in range(n - f)]
    arguments = options.pop("topology_args", {})
    given = {
        "model": Point(),
        "data": data,
        "loss_fn": quadratic,
        "optimiser": Optimiser(learning_rate=0.1),
        "network": Network(topology, arguments, n=n, f=f, seed=1),
        "seed": 1,
    }
    return protocol(n=n, f=f, **given | options)


@pytest.mark.parametrize("batching", [True, False])
@pytest.mark.parametrize("topology", ["ring", "star", "exponential"])
def test_gossip_is_the_matrix_product(topology: str, batching: bool) -> None:
    simulation = make(Gossip, topology, 6, batching=batching)
    weights = torch.from_numpy(simulation.network.weights(0))
    theta = torch.zeros(6, D, dtype=torch.float64)
    for result in simulation.run(4):
        gradients = theta - torch.stack([torch.eye(D).double()[i % D] * i for i in range(6)])
        theta = theta - 0.1 * weights @ gradients
        assert_close(result["honest_gradients"], gradients)
        assert_close(result["parameters"], theta)


@pytest.mark.parametrize("momentum_at", ["worker", "update"])
def test_gossip_with_momentum(momentum_at: str) -> None:
    optimiser = Optimiser(learning_rate=0.1, momentum=0.9, dampening=0.3, momentum_at=momentum_at, weight_decay=0.01)
    simulation = make(Gossip, "ring", 5, optimiser=optimiser)
    weights = torch.from_numpy(simulation.network.weights(0))
    theta = momenta = torch.zeros(5, D, dtype=torch.float64)
    for result in simulation.run(4):
        gradients = theta - torch.stack([torch.eye(D).double()[i % D] * i for i in range(5)])
        if momentum_at == "worker":
            momenta = 0.9 * momenta + 0.7 * gradients
            step = weights @ momenta
        else:
            momenta = 0.9 * momenta + 0.7 * weights @ gradients
            step = momenta
        theta = theta - 0.1 * (step + 0.01 * theta)
        assert_close(result["parameters"], theta)


@pytest.mark.parametrize(
    ("topology", "weights"),
    [
        ("ring", "uniform"),
        ("torus", "lazy"),
        ("dumbbell", "metropolis"),
        ("star", "max-degree"),
        ("exponential", "lazy"),
    ],
)
def test_dpsgd_comes_to_consensus_at_the_rate_of_the_second_eigenvalue(topology: str, weights: str) -> None:
    simulation = make(DPSGD, topology, 16, topology_args={"weights": weights})
    matrix = simulation.network.weights(0)
    second = np.sort(abs(np.linalg.eigvals(matrix)))[-2]
    assert simulation.network.spectral_gap == pytest.approx(1 - second)
    target = torch.ones(1, D, dtype=torch.float64)
    simulation.data = [cycle([(torch.zeros(1, D).double(), target)]) for _ in range(16)]
    values, vectors = np.linalg.eig(matrix)
    slowest = torch.from_numpy(vectors[:, np.argsort(abs(values))[-2]].real.copy())
    simulation.nodes.rows.copy_(slowest.unsqueeze(1) * torch.tensor([1.0, -2.0, 3.0]))
    start = float(torch.linalg.vector_norm(simulation.parameters - simulation.parameters.mean(dim=0)))
    simulation.run(10)
    end = float(torch.linalg.vector_norm(simulation.parameters - simulation.parameters.mean(dim=0)))
    assert (end / start) ** (1 / 10) == pytest.approx((1 - 0.1) * second, rel=1e-6)
    simulation.run(90)
    assert_close(simulation.parameters, target.expand(16, -1), rtol=0, atol=2e-4)


def test_dpsgd_keeps_the_mean_of_the_nodes_where_that_of_sgd_is() -> None:
    simulation = make(DPSGD, "tree", 7)
    theta = torch.zeros(D, dtype=torch.float64)
    for result in simulation.run(5):
        theta = theta - 0.1 * result["honest_gradients"].mean(dim=0)
        assert_close(result["parameters"].mean(dim=0), theta)


def test_robust_mixes_own_and_neighbours_by_the_rule() -> None:
    simulation = make(Robust, "ring", 5, aggregator="median")
    (result,) = simulation.run(1)
    local = result["local_parameters"]
    for node in range(5):
        around = local[[node, (node + 1) % 5, (node - 1) % 5]]
        assert_close(result["parameters"][node], around.median(dim=0).values)


def test_a_node_that_hears_too_few_for_the_rule_keeps_its_own() -> None:
    simulation = make(
        Robust, "star", 6, f=1, aggregator="trmean", attack="signflip", topology_args={"allow_weak": True}
    )
    (result,) = simulation.run(1)
    assert simulation.refused == {2}
    assert simulation.weak_nodes == (1, 2, 3, 4)
    assert_close(result["parameters"][1:], result["local_parameters"][1:])
    assert not torch.equal(result["parameters"][0], result["local_parameters"][0])


@pytest.mark.parametrize("batching", [True, False])
def test_a_node_that_keeps_its_own_gives_byzantine_ones_nothing(batching: bool) -> None:
    places = {"allow_weak": True, "connected": False, "byzantine": [0]}
    simulation = make(
        Robust, "star", 6, f=1, aggregator="krum", attack="signflip", topology_args=places, batching=batching
    )
    (result,) = simulation.run(1)
    assert simulation.byzantine_weight.tolist() == [0] * 5
    assert_close(result["parameters"], result["local_parameters"])


def heard(simulation: Protocol, step: int) -> list[list[int]]:
    simulation.step_index = step
    around = simulation.neighbourhoods()
    for first, last in pairwise(around.offsets):
        assert around.weights[first:last].sum() == pytest.approx(1)
    return [around.senders[first:last].tolist() for first, last in pairwise(around.offsets)]


@pytest.mark.parametrize("topology", ["complete", "two-worlds"])
def test_nodes_pull_from_so_many_neighbours(topology: str) -> None:
    simulation = make(Epidemic, topology, 10, arguments={"peers": 3})
    allowed = simulation.network.adjacency(0)
    met = np.zeros((10, 10))
    for step in range(300):
        for node, senders in enumerate(heard(simulation, step)):
            assert senders[0] == node
            assert len(set(senders)) == 4
            met[node, senders[1:]] += 1
    assert not met[~allowed].any()
    expected = 3 / allowed.sum(axis=1, keepdims=True)
    assert abs(met / 300 - expected)[allowed].max() < 0.12
    assert heard(simulation, 5) == heard(simulation, 5)


def test_nodes_push_to_so_many_neighbours() -> None:
    simulation = make(Epidemic, "complete", 10, arguments={"mode": "push", "peers": 3})
    rounds = [heard(simulation, step) for step in range(50)]
    for round_ in rounds:
        pushed = [sender for node, senders in enumerate(round_) for sender in senders[1:]]
        assert all(senders[0] == node for node, senders in enumerate(round_))
        assert [pushed.count(node) for node in range(10)] == [3] * 10
    assert len({len(senders) for round_ in rounds for senders in round_}) > 3


def test_byzantine_nodes_may_push_to_everybody() -> None:
    arguments = {"mode": "push", "peers": 2, "flood": True}
    simulation = make(Epidemic, "complete", 10, f=2, attack="signflip", arguments=arguments)
    for senders in heard(simulation, 0)[:8]:
        assert {8, 9} <= set(senders)


def test_by_default_peers_are_as_many_as_the_logarithm_of_all() -> None:
    assert [make(Epidemic, "complete", n).peers for n in (2, 4, 5, 8, 9, 100)] == [1, 2, 3, 3, 4, 7]


@pytest.mark.parametrize("mode", ["pull", "push"])
def test_everybody_is_averaged_where_everybody_is_heard(mode: str) -> None:
    simulation = make(Epidemic, "complete", 6, arguments={"mode": mode, "peers": 5})
    (result,) = simulation.run(1)
    assert_close(result["parameters"], result["local_parameters"].mean(dim=0).expand(6, -1))


def test_attacks_see_the_round_that_comes() -> None:
    """The strongest factor against random responders is found against those of the round."""
    simulation = make(
        Epidemic,
        "complete",
        9,
        f=2,
        aggregator="trmean",
        attack="little",
        attack_kwargs={"factor": -8},
        arguments={"peers": 6},
    )
    simulation.nodes.rows.copy_(torch.randn(7, D, generator=torch.Generator().manual_seed(3), dtype=torch.float64))
    gradients, _ = simulation.compute_honest_worker_gradients(simulation.collect_worker_batches())
    local = simulation.local_update(gradients)
    byzantine = simulation.generate_byzantine_models(local)
    vectors = torch.cat([local[:7], byzantine])
    rehearsed = simulation.rehearse(vectors)
    mixed = simulation.aggregate_over_received_nodes(local, byzantine)
    assert_close(rehearsed, mixed.mean(dim=0))


def test_the_template_works_and_is_not_registered() -> None:
    assert "template" not in protocols
    code = (Path(inspect.getfile(Protocol)).with_name("template.py")).read_text(encoding="utf-8")
    defined: dict[str, Any] = {}
    exec(code.replace(', name="template"', ""), defined)
    simulation = make(defined["Template"], "complete", 4, arguments={"every": 2})
    first, second = simulation.run(2)
    assert_close(second["parameters"], second["local_parameters"])
    assert_close(first["parameters"], first["local_parameters"].mean(dim=0).expand(4, -1))


@pytest.mark.parametrize(
    ("protocol", "arguments", "message"),
    [
        (Epidemic, {"peers": 10}, "--protocol-args: expected peers:1 to peers:9 for 10 nodes, got 10"),
        (Epidemic, {"peers": 0}, "--protocol-args: expected peers:1 to peers:9"),
        (Epidemic, {"peers": True}, "--protocol-args: expected peers:1 to peers:9 for 10 nodes, got True"),
        (Epidemic, {"mode": "shout"}, "--protocol-args: expected mode:pull or mode:push, got 'shout'"),
        (Epidemic, {"flood": True}, "expected flood:False, or flood:True with mode:push, got True"),
        (
            protocols["clipped-gossip"],
            {"tau": 0},
            "--protocol-args: clippedgossip: expected a finite tau above 0, got 0",
        ),
        (protocols["clipped-gossip"], {"tau": "x"}, "--protocol-args: clippedgossip: .* adaptive or estimate as tau"),
        (protocols["monna"], {"reach": "far"}, "--protocol-args: expected reach:all or reach:sampled, got 'far'"),
    ],
)
def test_arguments_that_cannot_be(protocol: type[Protocol], arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make(protocol, "complete", 10, arguments=arguments)


@pytest.mark.parametrize(
    ("protocol", "topology", "options", "message"),
    [
        (
            Robust,
            "ring",
            {"f": 2, "attack": "nan", "aggregator": "krum"},
            "--topology, --nb-local-byz: node .* krum: expected f",
        ),
        (
            Epidemic,
            "complete",
            {"f": 2, "attack": "nan", "aggregator": "trmean", "arguments": {"peers": 3}},
            "node 0 hears 3 neighbours, at least 0 of them Byzantine: trmean: .* got 2; use .* --protocol-args",
        ),
        (protocols["monna"], "ring", {}, "--topology: expected complete with --protocol monna, got ring"),
        (
            Robust,
            "one-peer-exponential",
            {"aggregator": "foolsgold"},
            "--gar: expected a rule without memory .* got foolsgold, which remembers earlier rounds",
        ),
    ],
)
def test_networks_that_a_rule_cannot_take(
    protocol: type[Protocol], topology: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        make(protocol, topology, 10, **{"topology_args": {"connected": False}, **options})


def test_pushing_to_so_few_that_nobody_mixes_is_refused() -> None:
    with pytest.raises(UserError, match=r"node 0 hears 9 neighbours, .*: trmean: expected f from 0 to 4 for n = 10"):
        make(Epidemic, "complete", 10, aggregator="trmean", nb_local_byz=5, arguments={"mode": "push"})
    simulation = make(Epidemic, "complete", 10, aggregator="trmean", nb_local_byz=2, arguments={"mode": "push"})
    assert simulation.refused == {1, 2, 3, 4}
    assert "4 others or more; with fewer it keeps its own" in simulation.describe_condition()


def test_epidemic_nodes_that_hear_too_few_may_be_allowed() -> None:
    options = {"f": 1, "attack": "signflip", "aggregator": "trmean", "topology_args": {"allow_weak": True}}
    simulation = make(Epidemic, "star", 6, arguments={"peers": 4}, **options)
    assert (simulation.weak_nodes, simulation.refused) == ((1, 2, 3, 4), {2})
    assert simulation.describe_condition() == (
        "does not hold for nodes 1, 2, 3, 4, as allow-weak permits; those that hear too few keep their own vector; for "
        "others it holds in rounds in which at most 1 that a node hears are Byzantine"
    )
    (result,) = simulation.run(1)
    assert torch.equal(result["parameters"][1:], result["local_parameters"][1:])
    assert not torch.equal(result["parameters"][0], result["local_parameters"][0])


@pytest.mark.parametrize(
    ("topology", "arguments", "certain"),
    [
        ("one-peer-exponential", {}, [1]),  # where the Byzantine node is the only neighbour
        ("complete", {"peers": 4}, [0]),
        ("complete", {"peers": 8}, [1]),
        ("complete", {"peers": 4, "mode": "push"}, [0]),
        ("complete", {"peers": 4, "mode": "push", "flood": True}, [2]),
        ("ring", {"peers": 2, "mode": "push"}, [1]),
        ("el-oracle", {"peers": 4}, [0]),
        ("random-matching", {"peers": 1, "mode": "push", "flood": True}, [0]),
    ],
)
def test_byzantine_nodes_that_epidemic_nodes_hear_for_certain(
    topology: str, arguments: dict[str, Any], certain: list[int]
) -> None:
    options = {"f": 2, "attack": "signflip", "arguments": arguments, "topology_args": {"connected": False}}
    simulation = make(Epidemic, topology, 10, nb_local_byz=2, **options)
    assert [simulation.heard().byzantine.max()] == certain
    rounds = [np.array([sum(sender >= 8 for sender in node) for node in heard(simulation, s)[:8]]) for s in range(60)]
    assert (np.min(rounds, axis=0) >= simulation.heard().byzantine.min(axis=0)).all()
    if certain != [0]:
        with pytest.raises(UserError, match=f"at least {certain[0]} of them Byzantine: average is to tolerate 0"):
            make(Epidemic, topology, 10, nb_local_byz=0, **options)


def test_what_a_subclass_makes_is_what_is_mixed() -> None:
    class Own(DPSGD):
        def local_update(self, gradients: Tensor) -> Tensor:
            return self.parameters - gradients

        def generate_byzantine_models(self, local_parameters: Tensor) -> Tensor:
            return 7 * torch.ones_like(local_parameters[: self.f])

        def commit_state(self, parameters: Tensor) -> None:
            self.parameters = parameters.clone()
            self.step_index += 1

    for batching in (True, False):
        (result,) = make(Own, "complete", 6, f=2, batching=batching).run(1)
        expected = (-result["honest_gradients"].sum(dim=0) + 14) / 6
        assert_close(result["parameters"], expected.expand(4, -1))


def test_a_subclass_may_differentiate_by_itself() -> None:
    class Own(Gossip):
        def compute_honest_worker_gradients(self, batches: Any) -> tuple[Tensor, Tensor]:
            gradients, losses = [], []
            for row, (inputs, targets) in zip(self.parameters, batches, strict=True):
                point = row.clone().requires_grad_()
                losses.append(quadratic(inputs + point, targets))
                gradients.append(torch.autograd.grad(losses[-1], point)[0])
            return torch.stack(gradients), torch.stack(losses)

    own, given = make(Own, "ring", 5).run(3), make(Gossip, "ring", 5).run(3)
    assert_close(own[-1]["parameters"], given[-1]["parameters"])


def test_one_node_after_another_goes_through_the_methods_of_the_contract() -> None:
    class Own(Robust):
        def aggregate_received_models(self, candidates: Tensor, *, pivot: Tensor) -> Tensor:
            return pivot + 1

    (result,) = make(Own, "ring", 5, batching=False).run(1)
    assert_close(result["parameters"], result["local_parameters"] + 1)


def test_local_steps_take_a_batch_each() -> None:
    optimiser = Optimiser(learning_rate=0.1, local_steps=3)
    simulation = make(DPSGD, "complete", 4, optimiser=optimiser)
    (result,) = simulation.run(1)
    theta = torch.zeros(4, D, dtype=torch.float64)
    targets = torch.stack([torch.eye(D).double()[i % D] * i for i in range(4)])
    for _ in range(3):
        theta = theta - 0.1 * (theta - targets)
    assert_close(result["local_parameters"], theta)
    assert result["losses"].shape == (4,)


def test_arguments_of_the_rule_are_those_of_the_protocol_and_those_given() -> None:
    robust = make(Robust, "complete", 7, aggregator="krum", aggregator_kwargs={"m": 2, "f": 3}, nb_local_byz=1)
    clipped = make(protocols["clipped-gossip"], "complete", 7, arguments={"tau": 0.5})
    assert [simulation.defender.defence.arguments for simulation in (robust, clipped)] == [{"m": 2}, {"tau": 0.5}]
    assert robust.defender.f == 1


def test_rules_are_drawn_anew_every_round() -> None:
    defences = [Defence(gars[name], {}) for name in ("average", "median")]
    simulation = make(Robust, "complete", 5, defences=defences)
    drawn = set()
    for _ in range(20):
        simulation.run(1)
        drawn.add(simulation.defender.defence.rule.name)
    assert drawn == {"average", "median"}


@pytest.mark.parametrize(
    ("protocol", "options", "message"),
    [
        (DPSGD, {"aggregator": "krum"}, "expected no aggregator for DPSGD, which mixes in its own way"),
        (
            Robust,
            {"network": Network("ring", {}, n=7, f=0, seed=1)},
            "expected a network of 5 nodes, 0 of them Byzantine",
        ),
        (Robust, {"optimiser": Optimiser(learning_rate=1.0, momentum_at="update")}, "expected momentum at worker, got"),
        (
            Robust,
            {"f": 1, "attack": "labelflip"},
            "expected poisoners exactly if the attack poisons data, got the attack labelflip",
        ),
        (Robust, {"f": 2, "attack": "little", "attack_kwargs": {"factor": "x"}}, "little: expected a number as factor"),
    ],
)
def test_what_only_callers_can_get_wrong(protocol: type[Protocol], options: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        make(protocol, "complete", 5, **options)


def test_cross_entropy_of_a_module_that_nobody_prepared() -> None:
    batch = (torch.eye(4, 5), torch.tensor([0, 1, 2, 0]))
    module = nn.Linear(5, 3)
    nn.init.zeros_(module.weight)
    simulation = DPSGD(
        model=module,
        data=[cycle([batch])] * 3,
        loss_fn=F.cross_entropy,
        n=3,
        f=0,
        optimiser=Optimiser(learning_rate=lambda rounds: 0.5 / (1 + rounds), gradient_clip=1.0, local_steps=1),
        test_data=batch,
    )
    results = simulation.run(30)
    assert results[-1]["losses"].mean() < results[0]["losses"].mean()
    assert len(simulation.evaluate()) == 3
