"""Facts about each topology, and what its arguments may be."""

import math
from collections import Counter
from itertools import combinations
from typing import Any

import networkx
import pytest

from experiments.topologies import topologies
from tests.experiments.topologies.test_topologies import draw


def degrees(graph: networkx.Graph) -> Counter[int]:
    return Counter(degree for _, degree in graph.degree)


@pytest.mark.parametrize("n", [2, 3, 11, 64])
def test_degrees_of_simple_graphs(n: int) -> None:
    assert degrees(draw("complete", n)) == {n - 1: n}
    assert degrees(draw("ring", n)) == {min(2, n - 1): n}
    star = draw("star", n)
    assert star.degree[0] == n - 1
    assert star.number_of_edges() == n - 1


@pytest.mark.parametrize(
    ("n", "neighbours_of_0"),
    [
        (20, [1, 4, 5, 15]),  # 4 × 5
        (16, [1, 3, 4, 12]),
        (9, [1, 2, 3, 6]),
        (8, [1, 3, 4]),  # 2 × 4: above and below are one node
        (6, [1, 2, 3]),
        (4, [1, 2]),
        (11, [1, 10]),  # one row
        (2, [1]),
    ],
)
def test_torus(n: int, neighbours_of_0: list[int]) -> None:
    graph = draw("torus", n)
    assert sorted(graph[0]) == neighbours_of_0
    assert len(degrees(graph)) == 1


@pytest.mark.parametrize(("n", "k", "expected"), [(11, None, 4), (4, None, 3), (2, None, 1), (10, 3, 3), (10, 8, 8)])
@pytest.mark.parametrize("name", ["regular", "el-oracle"])
def test_regular(name: str, n: int, k: int | None, expected: int) -> None:
    assert degrees(draw(name, n, k=k)) == {expected: n}


def test_matchings_pair_all_but_one_of_an_odd_number() -> None:
    assert degrees(draw("random-matching", 12)) == {1: 12}
    assert degrees(draw("random-matching", 13)) == {1: 12, 0: 1}
    idle = {node for seed in range(60) for node, degree in draw("random-matching", 5, seed=seed).degree if degree == 0}
    assert idle == set(range(5))


def test_density_of_random_graphs() -> None:
    n = 200
    edges = draw("erdos-renyi", n, p=0.3).number_of_edges()
    assert abs(edges - 0.3 * n * (n - 1) / 2) < 5 * math.sqrt(0.21 * n * (n - 1) / 2)
    assert draw("erdos-renyi", 9, p=1).number_of_edges() == 36
    default = draw("erdos-renyi", n).number_of_edges()
    assert abs(default - math.log(n) * (n - 1)) < 5 * math.sqrt(math.log(n) * n)


def test_small_world_without_rewiring_is_a_lattice() -> None:
    graph = draw("small-world", 12, p=0)
    assert all(sorted(graph[node]) == sorted((node + d) % 12 for d in (-2, -1, 1, 2)) for node in graph)
    rewired = draw("small-world", 12, p=0.5)
    assert rewired.number_of_edges() == graph.number_of_edges()
    assert set(rewired.edges) != set(graph.edges)
    assert degrees(draw("small-world", 4)) == {2: 4}


@pytest.mark.parametrize("n", [2, 3, 8, 11, 16, 17])
def test_exponential_graphs(n: int) -> None:
    everything, rounds = draw("exponential", n), math.ceil(math.log2(n))
    assert topologies["one-peer-exponential"].period(n) == rounds
    for node in range(n):
        heard = [(node - 2**j) % n for j in range(rounds)]
        assert sorted(everything.predecessors(node)) == sorted(heard)
        for step in range(2 * rounds):
            assert list(draw("one-peer-exponential", n, step=step).predecessors(node)) == [heard[step % rounds]]


@pytest.mark.parametrize(("n", "first"), [(20, 10), (11, 6), (3, 2), (2, 1)])
def test_dumbbell_has_two_cliques_and_one_edge_between(n: int, first: int) -> None:
    graph = draw("dumbbell", n)
    left, right = range(first), range(first, n)
    assert set(graph.edges) == {*combinations(left, 2), *combinations(right, 2), (first - 1, first)}


@pytest.mark.parametrize(
    ("n", "path", "cliques", "degrees_on_path"),
    [(20, None, (7, 7), 6), (11, None, (4, 4), 3), (12, 3, (5, 4), 3), (12, 0, (6, 6), 0), (12, 10, (1, 1), 10)],
)
def test_barbell(n: int, path: int | None, cliques: tuple[int, int], degrees_on_path: int) -> None:
    graph, (first, second) = draw("barbell", n, path=path), cliques
    assert first + degrees_on_path + second == n
    assert all(graph.degree[node] == 2 for node in range(first, n - second))
    assert graph.number_of_edges() == math.comb(first, 2) + math.comb(second, 2) + degrees_on_path + 1
    assert all(
        graph.has_edge(*edge) for edge in [*combinations(range(first), 2), *combinations(range(n - second, n), 2)]
    )


@pytest.mark.parametrize(("n", "hyper", "expected"), [(26, 8, 8), (16, 6, 6), (10, 1, 1), (10, None, 3), (11, 5, 5)])
def test_two_worlds(n: int, hyper: int | None, expected: int) -> None:
    graph, first = draw("two-worlds", n, hyper=hyper), (n + 1) // 2
    across = [sum(other >= first for other in graph[node]) for node in range(first)]
    assert across == [expected] * first
    assert all(expected <= sum(other < first for other in graph[node]) for node in range(first, n))
    assert graph.number_of_edges() == math.comb(first, 2) + math.comb(n - first, 2) + first * expected
    assert graph.has_edge(1, first + 1)  # its counterpart
    assert graph.has_edge(1, first) == (hyper == n // 2)


def test_random_geometric_joins_what_is_close() -> None:
    graph = draw("random-geometric", 30, radius=0.4)
    places = topologies["random-geometric"].layout(graph)
    for i, j in combinations(range(30), 2):
        assert graph.has_edge(i, j) == (math.dist(places[i], places[j]) <= 0.4)
    assert draw("random-geometric", 8, radius=math.sqrt(2)).number_of_edges() == 28


@pytest.mark.parametrize(("n", "branching"), [(7, 2), (12, 2), (13, 3), (5, 1), (6, 9)])
def test_tree(n: int, branching: int) -> None:
    graph = draw("tree", n, branching=branching)
    assert set(graph.edges) == {((node - 1) // branching, node) for node in range(1, n)}
    places = topologies["tree"].layout(graph, branching=branching)
    assert all(places[parent, 1] > places[child, 1] for parent, child in graph.edges)


@pytest.mark.parametrize("n", [2, 8, 64])
def test_hypercube(n: int) -> None:
    graph = draw("hypercube", n)
    assert all((i ^ j).bit_count() == 1 for i, j in graph.edges)
    assert degrees(graph) == {n.bit_length() - 1: n}


@pytest.mark.parametrize(
    ("name", "n", "arguments", "message"),
    [
        ("regular", 11, {"k": 1}, "regular: expected k from 2 to 10, got 1"),
        ("regular", 11, {"k": 11}, "regular: expected k from 2 to 10, got 11"),
        ("regular", 11, {"k": 3}, "regular: expected an even k for an odd number of nodes, got k = 3 for n = 11"),
        ("regular", 11, {"k": 4.0}, "regular: expected a whole number as k, got 4.0"),
        ("el-oracle", 11, {"k": 5}, "el-oracle: expected an even k for an odd number of nodes, got k = 5 for n = 11"),
        ("el-oracle", 10, {"k": 0}, "el-oracle: expected k from 1 to 9, got 0"),
        ("erdos-renyi", 11, {"p": 0}, "erdos-renyi: expected p above 0 and at most 1, got 0"),
        ("erdos-renyi", 11, {"p": 1.1}, "erdos-renyi: expected p above 0 and at most 1, got 1.1"),
        ("erdos-renyi", 11, {"p": True}, "erdos-renyi: expected a number as p, got True"),
        ("small-world", 11, {"k": 3}, "small-world: expected an even k, half of it on each side, got 3"),
        ("small-world", 11, {"k": 12}, "small-world: expected k from 2 to 10, got 12"),
        ("small-world", 11, {"p": -0.1}, "small-world: expected p from 0 to 1, got -0.1"),
        ("small-world", 2, {}, "small-world: expected at least 3 nodes, got 2"),
        ("barbell", 11, {"path": 10}, "barbell: expected path from 0 to 9, got 10"),
        ("two-worlds", 11, {"hyper": 6}, "two-worlds: expected hyper from 1 to 5, got 6"),
        ("two-worlds", 11, {"hyper": 0}, "two-worlds: expected hyper from 1 to 5, got 0"),
        ("random-geometric", 11, {"radius": 0}, "random-geometric: expected radius above 0 and at most 1.41421, got 0"),
        (
            "random-geometric",
            11,
            {"radius": 1.5},
            "random-geometric: expected radius above 0 and at most 1.41421, got 1.5",
        ),
        ("tree", 11, {"branching": 0}, "tree: expected branching of at least 1, got 0"),
        (
            "hypercube",
            11,
            {},
            "hypercube: expected a power of two as the number of nodes, got 11; the nearest are 8 and 16",
        ),
    ],
)
def test_impossible_arguments(name: str, n: int, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError)) as error:
        topologies[name].check(n=n, **arguments)
    assert str(error.value) == message
