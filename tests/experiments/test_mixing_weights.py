import math
import random

import networkx
import numpy
import pytest
from scipy.sparse import csr_array

from experiments import mixing_weights as module
from experiments.mixing_weights import SCHEMES, mixing_weights, spectral_gap
from experiments.topologies import topologies
from tests.experiments.topologies.test_topologies import CASES, draw
from tools.errors import UserError


def rounds(name: str, n: int, scheme: str = "metropolis") -> list[csr_array]:
    return [mixing_weights(scheme, draw(name, n, step=step)) for step in range(topologies[name].period(n))]


def oracle(scheme: str, graph: networkx.Graph) -> numpy.ndarray:
    """Return the weights by the book, one after another."""
    heard = {i: sorted(graph.predecessors(i) if graph.is_directed() else graph[i]) for i in graph}
    largest = max(map(len, heard.values()))
    matrix = numpy.zeros((len(graph), len(graph)))
    for i, others in heard.items():
        for j in others:
            degree = largest if scheme == "max-degree" else max(len(heard[i]), len(heard[j]))
            matrix[i, j] = 1 / (1 + degree)
        matrix[i, i] = 1 - sum(matrix[i])
    return (numpy.eye(len(graph)) + matrix) / 2 if scheme == "lazy" else matrix


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(("name", "n"), CASES)
def test_weights_are_those_of_the_definition_and_doubly_stochastic(name: str, n: int, scheme: str) -> None:
    graph = draw(name, n, step=1)
    if scheme == "uniform" and len({degree for _, degree in graph.degree}) > 1:
        with pytest.raises(UserError, match="weights:uniform: expected a graph in which all nodes have equally many"):
            mixing_weights(scheme, graph)
        return
    matrix = mixing_weights(scheme, graph)
    assert matrix.dtype == numpy.float64
    dense = matrix.toarray()
    numpy.testing.assert_allclose(dense, oracle(scheme, graph), rtol=0, atol=1e-15)
    for axis in (0, 1):
        numpy.testing.assert_allclose(dense.sum(axis=axis), 1, rtol=0, atol=1e-12 * n)
    assert (matrix.data > 0).all()
    assert matrix.nnz == n + graph.to_directed().number_of_edges()


def test_weights_of_small_graphs() -> None:
    path = networkx.path_graph(3)
    third = numpy.array([[2, 1, 0], [1, 1, 1], [0, 1, 2]]) / 3
    assert numpy.allclose(mixing_weights("metropolis", path).toarray(), third)
    assert numpy.allclose(mixing_weights("lazy", path).toarray(), (third + numpy.eye(3)) / 2)
    two_and_three = networkx.disjoint_union(networkx.path_graph(2), networkx.complete_graph(3))
    assert mixing_weights("metropolis", two_and_three)[0, 1] == 1 / 2
    assert mixing_weights("max-degree", two_and_three)[0, 1] == 1 / 3


def test_uniform_weights_name_two_nodes() -> None:
    with pytest.raises(UserError) as error:
        mixing_weights("uniform", networkx.star_graph(4))
    assert str(error.value) == (
        "--topology-args weights:uniform: expected a graph in which all nodes have equally many neighbours, but node 1 "
        "has 1 and node 0 has 4; weights:metropolis takes any"
    )


def test_directed_graphs_need_nodes_that_hear_as_many_as_hear_them() -> None:
    chain = networkx.DiGraph([(0, 1), (1, 2), (2, 0), (0, 2)])
    for scheme in ("metropolis", "max-degree", "lazy"):
        message = (
            rf"--topology-args weights:{scheme}: expected rows and columns of sum one, got columns from 0.* to 1\."
        )
        with pytest.raises(UserError, match=message):
            mixing_weights(scheme, chain)
    eight = networkx.DiGraph([(0, 1), (1, 2), (2, 0), (0, 3), (3, 4), (4, 0)])  # two rings that share a node
    with pytest.raises(UserError, match="a directed graph needs weights:max-degree, and nodes that hear as many"):
        mixing_weights("metropolis", eight)
    assert numpy.allclose(mixing_weights("max-degree", eight).toarray()[0], [1 / 3, 0, 1 / 3, 0, 1 / 3])


@pytest.mark.parametrize(
    ("name", "n", "gap"),
    [
        *(("ring", n, (2 - 2 * math.cos(2 * math.pi / n)) / 3) for n in (5, 20, 1024)),
        ("ring", 4, 2 / 3),  # its most negative eigenvalue is −1/3
        ("complete", 7, 1),
        ("complete", 2, 1),
        ("star", 10, 1 / 10),
        ("hypercube", 64, 2 / 7),
        ("torus", 100, (2 - 2 * math.cos(2 * math.pi / 10)) / 5),
        ("exponential", 64, 2 / 7),
        ("one-peer-exponential", 64, 1),
    ],
)
def test_spectral_gaps_in_closed_form(name: str, n: int, gap: float) -> None:
    assert spectral_gap(rounds(name, n)) == pytest.approx(gap, rel=1e-9, abs=1e-12)


def test_lazy_weights_halve_the_gap_of_a_ring() -> None:
    assert spectral_gap(rounds("ring", 12, "lazy")) == pytest.approx(spectral_gap(rounds("ring", 12)) / 2)


def test_a_negative_eigenvalue_counts_by_its_modulus() -> None:
    exchange = csr_array(numpy.array([[0.1, 0.9], [0.9, 0.1]]))  # eigenvalues 1 and −0.8
    assert spectral_gap([exchange]) == pytest.approx(0.2)


def test_gap_of_one_node_and_of_two_parts() -> None:
    assert spectral_gap([csr_array(numpy.ones((1, 1)))]) == 1
    assert spectral_gap([csr_array(numpy.eye(2))]) == 0


@pytest.mark.parametrize("n", [2, 4, 8, 64, 256])
def test_one_peer_exponential_averages_exactly_in_a_period(n: int) -> None:
    product = numpy.eye(n)
    for matrix in rounds("one-peer-exponential", n):
        product = matrix @ product
    assert (product == 1 / n).all()
    assert spectral_gap(rounds("one-peer-exponential", n)) == 1


@pytest.mark.parametrize("n", [3, 11, 48])
def test_gap_of_a_period_is_that_of_the_product(n: int) -> None:
    product = numpy.linalg.multi_dot([matrix.toarray() for matrix in reversed(rounds("one-peer-exponential", n))])
    second = sorted(abs(numpy.linalg.eigvals(product)))[-2]
    assert spectral_gap(rounds("one-peer-exponential", n)) == pytest.approx(1 - second)
    assert 0 < 1 - second < 1


@pytest.mark.parametrize("name", ["ring", "erdos-renyi", "dumbbell", "exponential", "one-peer-exponential", "complete"])
@pytest.mark.parametrize("n", [100, 128])
def test_large_networks_have_the_same_gap(name: str, n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    matrices = rounds(name, n)
    dense = spectral_gap(matrices)
    monkeypatch.setattr(module, "MOST_DENSE", 99)
    assert spectral_gap(matrices) == pytest.approx(dense, rel=1e-6, abs=1e-8)
    assert spectral_gap(matrices) == spectral_gap(matrices)


def test_rounds_that_do_not_commute(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = random.Random(1)
    graphs = [networkx.gnp_random_graph(80, 0.02, seed=generator) for _ in range(3)]
    matrices = [mixing_weights("metropolis", graph) for graph in graphs]
    first, second, third = (matrix.toarray() for matrix in matrices)
    gap = 1 - sorted(abs(numpy.linalg.eigvals(third @ second @ first)))[-2]
    assert spectral_gap(matrices) == pytest.approx(gap, abs=1e-9)
    monkeypatch.setattr(module, "MOST_DENSE", 79)
    assert spectral_gap(matrices) == pytest.approx(gap, abs=1e-6)


def test_gap_that_is_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_DENSE", 99)
    monkeypatch.setattr(module, "SEARCH_RESTARTS", 1)
    assert math.isnan(spectral_gap(rounds("ring", 5000)))
