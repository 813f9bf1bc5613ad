import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import networkx
import numpy
import pytest

from experiments.mixing_weights import mixing_weights
from experiments.network import CommonArguments, Heard, Network, check_arguments
from tests.experiments.topologies.test_topologies import CASES
from tools.errors import UserError


def heard(network: Network, step: int = 0) -> list[list[int]]:
    """Return whom every worker hears, by the numbers of workers."""
    around = network.neighbourhoods(step)
    return [around.senders[first:last].tolist() for first, last in pairwise(around.offsets)]


def make(name: str, n: int, f: int, seed: int = 1, **arguments: Any) -> Network:
    return Network(name, arguments, n=n, f=f, seed=seed)


@pytest.mark.parametrize(("name", "n"), CASES)
@pytest.mark.parametrize("byzantine", ["last", "random"])
def test_neighbourhoods_are_those_of_the_graph_by_workers(name: str, n: int, byzantine: str) -> None:
    network = make(name, n, n // 3, byzantine=byzantine, connected=False, weights="lazy")
    for step in (0, 1, 5):
        graph, around = network.graph(step), network.neighbourhoods(step)
        matrix = mixing_weights("lazy", graph).toarray()
        worker = {node: worker for worker, node in enumerate(network.nodes)}
        assert around.offsets.dtype == around.senders.dtype == numpy.int64
        assert around.weights.dtype == numpy.float64
        for receiver, senders in enumerate(heard(network, step)):
            node = network.nodes[receiver]
            others = graph.predecessors(node) if graph.is_directed() else graph[node]
            assert senders == [receiver, *sorted(worker[other] for other in others)]
            weights = around.weights[around.offsets[receiver] : around.offsets[receiver + 1]]
            assert weights.tolist() == [matrix[node, network.nodes[sender]] for sender in senders]


@pytest.mark.parametrize(("name", "n"), CASES)
def test_dense_forms_agree(name: str, n: int) -> None:
    network = make(name, n, n // 4, byzantine="random", connected=False)
    for step in range(3):
        weights, adjacency = network.weights(step), network.adjacency(step)
        assert adjacency.dtype == bool
        assert not adjacency.diagonal().any()
        assert [[i, *numpy.flatnonzero(row)] for i, row in enumerate(adjacency)] == heard(network, step)
        assert ((weights > 0) == adjacency | numpy.eye(n, dtype=bool)).all()
        nodes = list(network.nodes)
        assert (weights == mixing_weights("metropolis", network.graph(step)).toarray()[numpy.ix_(nodes, nodes)]).all()


@pytest.mark.parametrize(("name", "n"), CASES)
def test_the_same_neighbourhoods_are_the_same_object(name: str, n: int) -> None:
    network = make(name, n, 0)
    first = network.neighbourhoods(0)
    assert network.neighbourhoods(0) is first
    if not network.varies:
        assert network.neighbourhoods(7) is first
    elif name == "one-peer-exponential":
        period = (n - 1).bit_length()
        assert [network.neighbourhoods(step) is first for step in range(2 * period)] == [
            True,
            *[False] * (period - 1),
        ] * 2
    else:
        other = network.neighbourhoods(1)
        assert other is not first
        assert network.neighbourhoods(1) is other
        again = network.neighbourhoods(0)
        assert again is not first
        assert (again.senders == first.senders).all()


def test_seeds() -> None:
    def senders(seed: int, step: int, name: str = "el-oracle") -> list[int]:
        return make(name, 16, 0, seed).neighbourhoods(step).senders.tolist()

    assert senders(1, 3) == senders(1, 3)
    assert len({tuple(senders(seed, step)) for seed in (1, 2) for step in range(4)}) == 8
    assert senders(1, 0, "erdos-renyi") == senders(1, 9, "erdos-renyi") != senders(2, 0, "erdos-renyi")
    assert (
        make("ring", 9, 0, 1).neighbourhoods(0).senders.tolist()
        == make("ring", 9, 0, 2).neighbourhoods(0).senders.tolist()
    )


@pytest.mark.parametrize(
    ("name", "edges"),
    [
        ("el-oracle", "03 04 07 08 12 14 16 18 25 26 27 34 35 38 45 56 67 78"),
        ("erdos-renyi", "01 02 03 04 05 12 13 15 25 28 36 37 45 58 67"),
        ("random-geometric", "01 02 05 07 08 13 14 18 25 27 34 38 56 58 68"),
        ("random-matching", "05 14 36 78"),
        ("regular", "01 02 03 04 12 16 17 26 27 34 35 38 45 48 57 58 67 68"),
        ("small-world", "01 02 07 08 12 13 18 23 24 35 36 45 46 56 57 67 68 78"),
    ],
)
def test_a_seed_has_the_same_graph_for_ever(name: str, edges: str) -> None:
    graph = make(name, 9, 0).graph(2)
    assert " ".join(sorted(f"{min(edge)}{max(edge)}" for edge in graph.edges)) == edges
    assert make("ring", 20, 4, byzantine="random", connected=False).nodes[16:] == (1, 10, 14, 17)


def test_places_of_byzantine_nodes() -> None:
    assert make("complete", 6, 2).nodes == (0, 1, 2, 3, 4, 5)
    assert make("complete", 6, 2, byzantine=[4, 1]).nodes == (0, 2, 3, 5, 1, 4)
    placed = [make("complete", 30, 10, seed, byzantine="random").nodes for seed in range(4)]
    assert len(set(placed)) == 4
    for nodes in placed:
        assert sorted(nodes) == list(range(30))
        assert nodes == (*sorted(nodes[:20]), *sorted(nodes[20:]))
    assert make("complete", 30, 10, 2, byzantine="random").nodes == placed[2]
    assert make("ring", 5, 2, byzantine=[0, 1]).graph(0).degree[0] == 2  # the graph itself does not depend on them
    assert heard(make("ring", 5, 2, byzantine=[0, 1])) == [[0, 1, 4], [1, 0, 2], [2, 1, 3], [3, 2, 4], [4, 0, 3]]


@pytest.mark.parametrize(
    ("name", "n", "is_complete", "varies"),
    [
        ("complete", 5, True, False),
        ("complete", 1, True, False),
        ("ring", 3, True, False),
        ("ring", 4, False, False),
        ("exponential", 3, True, False),
        ("one-peer-exponential", 2, True, False),
        ("one-peer-exponential", 3, False, True),
        ("el-oracle", 5, False, True),
        ("random-matching", 2, False, True),
    ],
)
def test_complete_and_varying_networks(name: str, n: int, is_complete: bool, varies: bool) -> None:
    network = make(name, n, 0)
    assert (network.complete, network.varies) == (is_complete, varies)


def test_a_ring_of_three_is_complete() -> None:
    ring, complete = make("ring", 3, 1), make("complete", 3, 1)
    assert heard(ring) == heard(complete)
    assert ring.neighbourhoods(0).weights.tolist() == complete.neighbourhoods(0).weights.tolist()
    assert ring.local_byz(None, 0) == complete.local_byz(None, 0) == 0


@pytest.mark.parametrize(
    ("network", "neighbours", "share", "weight"),
    [
        (("ring", 11, 4, {}), 1, 1 / 2, 1 / 3),
        (("ring", 11, 2, {"byzantine": [0, 2], "connected": False}), 2, 1, 2 / 3),  # those of node 1
        (("complete", 11, 4, {}), 4, 4 / 10, 4 / 11),
        (("complete", 11, 0, {}), 0, 0, 0),
        (("star", 11, 4, {"weights": "lazy"}), 4, 4 / 10, 4 / 22),
        (("star", 11, 1, {"byzantine": [0], "connected": False}), 1, 1, 1 / 11),
        (("one-peer-exponential", 8, 1, {}), 1, 1, 1 / 2),
        (("el-oracle", 20, 3, {}), 3, 3 / 4, 3 / 5),
        (("el-oracle", 20, 9, {"k": 6, "weights": "lazy"}), 6, 1, 3 / 7),
        (("random-matching", 21, 1, {}), 1, 1, 1 / 2),
        (("random-matching", 20, 0, {}), 0, 0, 0),
        (("random-matching", 20, 3, {"weights": "max-degree"}), 1, 1, 1 / 2),
    ],
)
def test_byzantine_neighbours(network: tuple, neighbours: int, share: float, weight: float) -> None:
    name, n, f, arguments = network
    network = make(name, n, f, **arguments)
    assert type(network.largest_byzantine_neighbours) is int
    assert network.largest_byzantine_neighbours == neighbours
    assert network.largest_byzantine_share == pytest.approx(share)
    assert network.largest_byzantine_weight == pytest.approx(weight)


@pytest.mark.parametrize(("name", "n"), CASES)
def test_byzantine_neighbours_in_every_round(name: str, n: int) -> None:
    network = make(name, n, n // 3, byzantine="random", connected=False)
    numbers, shares, weights = [], [], []
    for step in range(12):
        from_byzantine = network.adjacency(step)[: network.h] & (numpy.arange(n) >= network.h)
        numbers.append(from_byzantine.sum(axis=1))
        shares.append(from_byzantine.sum(axis=1) / numpy.maximum(network.adjacency(step)[: network.h].sum(axis=1), 1))
        weights.append((network.weights(step)[: network.h] * from_byzantine).sum(axis=1))
    bounds = network.largest_byzantine_neighbours, network.largest_byzantine_share, network.largest_byzantine_weight
    for bound, values in zip(bounds, (numbers, shares, weights), strict=True):
        if name in ("el-oracle", "random-matching"):
            assert numpy.max(values) <= bound + 1e-12
        else:
            assert numpy.max(values) == pytest.approx(bound)


def test_local_byz() -> None:
    assert make("complete", 11, 2).local_byz(None, 4) == 4
    assert make("ring", 11, 2).local_byz(None, 4) == 1
    assert make("complete", 11, 2).local_byz(0, 4) == make("ring", 11, 2).local_byz(0, 4) == 0
    assert make("complete", 11, 2).local_byz(5, 4) == 5


def test_honest_nodes_must_be_connected() -> None:
    with pytest.raises(UserError) as error:
        make("star", 5, 1, byzantine=[0])
    assert str(error.value) == (
        "--topology: expected honest nodes to hear of each other through honest ones, but what node 2 says never "
        "reaches node 1; use a denser topology, or --topology-args connected:False"
    )
    make("star", 5, 1, byzantine=[0], connected=False)
    make("ring", 8, 3, byzantine=[1, 2, 3])
    with pytest.raises(UserError, match="what node 2 says never reaches node 0"):
        make("ring", 8, 2, byzantine=[1, 5])
    with pytest.raises(UserError, match="what node 10 says never reaches node 0"):
        make("dumbbell", 20, 1, byzantine=[9])
    make("dumbbell", 20, 2, byzantine=[8, 19])


SPARSE = [("erdos-renyi", {"p": 0.001}), ("random-geometric", {"radius": 0.01})]


@pytest.mark.parametrize(("name", "arguments"), SPARSE)
def test_graphs_that_are_never_connected(name: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(UserError) as error:
        make(name, 50, 0, **arguments)
    assert str(error.value) == (
        f"--topology-args: expected a connected {name} graph of 50 nodes, got none in 100 draws; ask for more edges, "
        f"or connected:False"
    )
    network = make(name, 50, 5, connected=False, **arguments)
    assert not networkx.is_connected(network.graph(0))
    assert network.spectral_gap == pytest.approx(0, abs=1e-9)


def test_graphs_are_drawn_until_they_are_connected() -> None:
    for seed in range(20):
        assert networkx.is_connected(make("regular", 20, 0, seed, k=2).graph(0))
    assert not all(
        networkx.is_connected(make("regular", 20, 0, seed, k=2, connected=False).graph(0)) for seed in range(20)
    )


def test_directed_networks_must_be_connected_both_ways(tmp_path: Path) -> None:
    # Two rings, 0 → 1 → 2 → 0 and 3 → 4 → 5 → 3, joined through node 6 one way and 7 the other
    edges = [(0, 1), (1, 2), (2, 0), (3, 4), (4, 5), (5, 3), (0, 6), (6, 3), (3, 7), (7, 0)]
    path = tmp_path / "graph.graphml"
    networkx.write_graphml(networkx.DiGraph(edges), path)
    arguments = {"path": str(path), "weights": "max-degree"}
    make("file", 8, 0, **arguments)
    with pytest.raises(UserError, match="what node 3 says never reaches node 0"):
        make("file", 8, 1, byzantine=[7], **arguments)
    with pytest.raises(UserError, match="what node 0 says never reaches node 3"):
        make("file", 8, 1, byzantine=[6], **arguments)


def test_rounds_connect_honest_nodes_together() -> None:
    """In no round of a one-peer exponential graph can all hear of each other."""
    make("one-peer-exponential", 8, 0)
    make("one-peer-exponential", 8, 2, byzantine=[3, 4])
    with pytest.raises(UserError, match="what node 1 says never reaches node 0"):
        make("one-peer-exponential", 4, 2, byzantine=[2, 3])  # 0 hears 3 and 2
    make("random-matching", 4, 2, byzantine=[2, 3])


def refuse_below(least: int) -> Any:
    def check(size: int) -> None:
        if size < least:
            raise ValueError(f"rule: expected n of at least {least},\n got {size}")

    return check


def test_rules_and_their_neighbourhoods() -> None:
    ring = make("ring", 11, 4)
    assert ring.check_rule(refuse_below(3), "rule", 1) == ()
    with pytest.raises(UserError) as error:
        ring.check_rule(refuse_below(4), "rule", 1)
    assert str(error.value) == (
        "--topology, --nb-local-byz: node 0 hears 2 neighbours, 1 of them Byzantine: rule: expected n of at least 4, "
        "got 3; use a denser topology, another --nb-local-byz, or --topology-args allow-weak:True"
    )
    with pytest.raises(UserError, match="node 0 hears 2 neighbours, 1 of them Byzantine: rule is to tolerate 0; use a"):
        ring.check_rule(refuse_below(3), "rule", 0)
    weak = make("ring", 11, 4, allow_weak=True)
    assert weak.check_rule(refuse_below(3), "rule", 0) == (0, 6)
    assert weak.check_rule(refuse_below(4), "rule", 0) == tuple(range(7))


def test_neighbours_that_are_drawn_and_their_rule() -> None:
    ring = make("ring", 11, 4)
    heard = Heard(numpy.minimum(ring.heard.others, 1), numpy.array([[0, 0, 1, 0, 0, 0, 0]]), at_least=True)
    with pytest.raises(UserError) as error:
        ring.check_rule(refuse_below(2), "rule", 0, heard, "luck")
    assert str(error.value) == (
        "--topology, --nb-local-byz: node 2 hears 1 neighbour, at least 1 of them Byzantine: rule is to tolerate 0; "
        "use a denser topology, luck, another --nb-local-byz, or --topology-args allow-weak:True"
    )


def test_a_node_that_hears_nobody_needs_no_rule() -> None:
    network = make("star", 5, 1, byzantine=[0], connected=False)
    nobody = Heard(numpy.zeros((1, 5), dtype=int), numpy.zeros((1, 4), dtype=int))
    assert network.check_rule(refuse_below(2), "rule", 1, nobody) == ()


def test_neighbours_of_honest_and_of_byzantine_nodes() -> None:
    star = make("star", 6, 2)
    assert star.heard.others.tolist() == [[5, 1, 1, 1, 1, 1]]
    assert star.heard.byzantine.tolist() == [[2, 0, 0, 0]]
    assert star.most_honest_neighbours.tolist() == [[3, 1, 1, 1]]
    redrawn = make("el-oracle", 6, 3, k=4)
    assert redrawn.heard.others.tolist() == [[4] * 6]
    assert redrawn.heard.byzantine.tolist() == [[3] * 3]
    assert redrawn.most_honest_neighbours.tolist() == [[2] * 3]


def test_every_size_is_asked_once_and_of_honest_nodes_only() -> None:
    asked: list[int] = []
    make("star", 11, 4).check_rule(asked.append, "rule", 4)
    assert asked == [2, 11]
    asked.clear()
    make("star", 11, 1, byzantine=[0], connected=False).check_rule(asked.append, "rule", 4)
    assert asked == [2]
    asked.clear()
    make("random-matching", 11, 4).check_rule(asked.append, "rule", 4)
    assert asked == [2]
    assert all(type(size) is int for size in asked)


def test_weak_nodes_by_their_numbers() -> None:
    network = make("star", 6, 2, byzantine=[1, 3], allow_weak=True)
    assert network.check_rule(refuse_below(3), "rule", 2) == (2, 4, 5)
    assert network.check_rule(refuse_below(0), "rule", 1) == (0,)
    with pytest.raises(UserError, match="node 2 hears 1 neighbour, 0 of them Byzantine: rule: expected"):
        make("star", 6, 2, byzantine=[1, 3]).check_rule(refuse_below(3), "rule", 2)


def test_weak_nodes_of_redrawn_graphs() -> None:
    network = make("random-matching", 7, 2, allow_weak=True)
    assert network.check_rule(refuse_below(2), "rule", 1) == ()
    assert network.check_rule(refuse_below(0), "rule", 0) == network.check_rule(refuse_below(3), "rule", 1)
    assert network.check_rule(refuse_below(0), "rule", 0) == (0, 1, 2, 3, 4)

    def of_another_type(size: int) -> None:
        raise TypeError("rule: no")

    with pytest.raises(UserError, match="node 0 may hear 4 neighbours, 2 of them Byzantine: rule: no; use"):
        make("el-oracle", 7, 2).check_rule(of_another_type, "rule", 3)


def test_description() -> None:
    assert make("ring", 11, 4).describe() == {
        "nodes": "11",
        "edges": "11",
        "neighbours": "2 to 2, 2 in the mean",
        "spectral gap": "0.1058",
        "Byzantine nodes": "7, 8, 9, 10",
        "Byzantine neighbours": "at most 1 of an honest node, 50% of its neighbours, 33% of the weight it gives",
    }
    alone = make("star", 4, 0).describe()
    assert alone["neighbours"] == "1 to 3, 1.5 in the mean"
    assert alone["Byzantine nodes"] == alone["Byzantine neighbours"] == "none"
    periodic = make("one-peer-exponential", 8, 0).describe()
    assert periodic["edges"] == "8 in one direction, in turn over 3 rounds"
    assert periodic["spectral gap"] == "1 over 3 rounds"
    redrawn = make("random-matching", 9, 1).describe()
    assert redrawn["edges"] == "4, drawn anew every round"
    assert redrawn["spectral gap"] == "0.5 of the mean over draws"
    many = make("complete", 40, 14).describe()
    assert many["Byzantine nodes"] == "26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37 and 2 more"


@pytest.mark.parametrize(("name", "n"), [("el-oracle", 9), ("random-matching", 9), ("random-matching", 8)])
def test_gap_of_redrawn_graphs_is_that_of_the_mean(name: str, n: int) -> None:
    network = make(name, n, 0)
    mean = sum(network.weights(step) for step in range(1000)) / 1000
    second = sorted(abs(numpy.linalg.eigvalsh(mean)))[-2]
    assert network.spectral_gap == pytest.approx(1 - second, abs=0.05)


@pytest.mark.parametrize(
    ("name", "arguments", "n", "f", "message"),
    [
        ("circle", {}, 5, 0, "unknown topology 'circle', expected one of: barbell, complete"),
        (
            "regular",
            {"q": 3},
            5,
            0,
            "--topology-args: regular has no argument 'q', expected: k, or what all have: byzantine, connected, "
            "allow-weak, weights",
        ),
        (
            "ring",
            {"k": 3},
            5,
            0,
            "--topology-args: ring has no argument 'k', expected what all have: byzantine, connected",
        ),
        ("ring", {"rng": 3}, 5, 0, "--topology-args: ring has no argument 'rng', expected what all have: byzantine"),
        ("file", {}, 5, 0, "--topology-args: file needs the argument path:<value>"),
        (
            "regular",
            {"k": 3},
            5,
            0,
            "--topology, --topology-args, --nb-workers: regular: expected an even k for an odd",
        ),
        (
            "regular",
            {"k": "3"},
            6,
            0,
            "--topology, --topology-args, --nb-workers: regular: expected a whole number as k",
        ),
        ("hypercube", {}, 11, 0, "--topology, --topology-args, --nb-workers: hypercube: expected a power of two"),
        (
            "server",
            {},
            11,
            0,
            "--topology, --topology-args, --nb-workers: server: expected workers that hear each other",
        ),
        (
            "ring",
            {"weights": "metro"},
            5,
            0,
            "--topology-args: weights: expected one of metropolis, uniform, max-degree, lazy, got 'metro'",
        ),
        (
            "ring",
            {"weights": ["lazy"]},
            5,
            0,
            "--topology-args: weights: expected one of metropolis, uniform, max-degree,",
        ),
        ("ring", {"connected": 1}, 5, 0, "--topology-args: connected: expected True or False, got 1"),
        ("ring", {"allow_weak": "yes"}, 5, 0, "--topology-args: allow-weak: expected True or False, got 'yes'"),
        (
            "ring",
            {"byzantine": "first"},
            5,
            1,
            "--topology-args: byzantine: expected last, random or a list of node numbers, got 'first'",
        ),
        (
            "ring",
            {"byzantine": [1, 5]},
            5,
            2,
            "--topology-args: byzantine: expected 2 different node numbers from 0 to 4, one per Byzantine worker, got "
            "[1, 5]",
        ),
        ("ring", {"byzantine": [1, 1]}, 5, 2, "--topology-args: byzantine: expected 2 different node numbers"),
        ("ring", {"byzantine": [1, 1, 2]}, 5, 2, "--topology-args: byzantine: expected 2 different node numbers"),
        ("ring", {"byzantine": [1]}, 5, 2, "--topology-args: byzantine: expected 2 different node numbers"),
        ("ring", {"byzantine": [-1, 2]}, 5, 2, "--topology-args: byzantine: expected 2 different node numbers"),
        ("ring", {"byzantine": [True, 2]}, 5, 2, "--topology-args: byzantine: expected 2 different node numbers"),
        ("ring", {"byzantine": [1.0, [2]]}, 5, 2, "--topology-args: byzantine: expected 2 different node numbers"),
        ("ring", {"byzantine": [1]}, 5, 0, "--topology-args: byzantine: expected none, got [1]"),
    ],
)
def test_impossible_arguments(name: str, arguments: dict[str, Any], n: int, f: int, message: str) -> None:
    for check in (check_arguments, lambda *a: Network(a[0], a[1], n=a[2], f=a[3], seed=1)):
        with pytest.raises(UserError) as error:
            check(name, arguments, n, f)
        assert str(error.value).startswith(message)
        assert "\n" not in str(error.value)


def test_possible_arguments() -> None:
    check_arguments("ring", {"byzantine": []}, 5, 0)
    check_arguments("ring", {"byzantine": [4, 0], "connected": False, "allow_weak": True, "weights": "lazy"}, 5, 2)
    check_arguments("regular", {"k": 3, "byzantine": "random"}, 6, 2)
    assert CommonArguments() == CommonArguments(
        byzantine="last", connected=True, allow_weak=False, weights="metropolis"
    )


def test_uniform_weights_need_a_regular_graph() -> None:
    make("torus", 20, 0, weights="uniform")
    with pytest.raises(UserError, match=r"weights:uniform: expected a graph in which .* node 1 has 1 and node 0 has 4"):
        make("star", 5, 0, weights="uniform")


def test_large_networks_are_made_quickly() -> None:
    """The bounds are for slow and busy machines: these take a few milliseconds."""
    start = time.perf_counter()
    make("ring", 1024, 100).describe()
    network = make("el-oracle", 1024, 100)
    for step in range(3):
        network.neighbourhoods(step)
    assert time.perf_counter() - start < 10


def test_networks_need_no_torch() -> None:
    code = "import experiments.network, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False).returncode == 0


def test_graphs_that_are_not_drawn_are_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made, star = [], networkx.star_graph
    monkeypatch.setattr(networkx, "star_graph", lambda n: made.append(n) or star(n))
    with pytest.raises(UserError, match="expected honest nodes to hear of each other"):
        make("star", 5, 1, byzantine=[0])
    assert made == [4]


def test_random_graphs_are_drawn_until_honest_nodes_are_connected() -> None:
    cases = [("random-geometric", n, f, seed) for n, f in ((11, 2), (11, 4), (20, 4)) for seed in range(1, 9)]
    again = 0
    for name, n, f, seed in cases:
        network = make(name, n, f, seed)
        again += network._draw > 0
        assert networkx.is_connected(network.graph(0).subgraph(network.nodes[: n - f]))
    assert again
