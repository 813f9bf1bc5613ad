"""What holds for every topology that is registered."""

import random
from pathlib import Path
from typing import Any

import networkx
import numpy
import pytest

import experiments.topologies
from experiments.network import Network
from experiments.topologies import CONTEXT, RedrawnTopology, topologies
from tools.arguments import explicit_parameters
from tools.registry import UnknownNameError

WITHOUT_ARGUMENTS = [name for name in topologies if name not in ("file", "server")]
SIZES = (2, 3, 4, 5, 8, 11, 16, 33)


def is_possible(name: str, n: int) -> bool:
    try:
        topologies[name].check(n=n)
    except ValueError:
        return False
    return True


CASES = [(name, n) for name in WITHOUT_ARGUMENTS for n in SIZES if is_possible(name, n)]


def draw(name: str, n: int, *, seed: int = 1, step: int = 0, **arguments: Any) -> networkx.Graph:
    topologies[name].check(n=n, **arguments)
    return topologies[name].graph(n, rng=random.Random(seed), step=step, **arguments)


@pytest.mark.parametrize(("name", "n"), CASES)
def test_nodes_are_numbered_and_hear_others_only(name: str, n: int) -> None:
    for step in range(3):
        graph = draw(name, n, step=step)
        assert set(graph) == set(range(n))
        assert all(type(node) is int for node in graph)
        assert not list(networkx.nodes_with_selfloops(graph))
        assert not graph.is_multigraph()


@pytest.mark.parametrize(("name", "n"), CASES)
def test_all_hear_of_all_in_the_end(name: str, n: int) -> None:
    period = topologies[name].period(n)
    network = Network(name, {}, n=n, f=0, seed=1)
    rounds = [network.graph(step).to_directed() for step in range(60 if period is None else period)]
    assert networkx.is_strongly_connected(networkx.compose_all(rounds))


@pytest.mark.parametrize(("name", "n"), CASES)
def test_graphs_repeat_after_a_period(name: str, n: int) -> None:
    period = topologies[name].period(n)
    if period is None:
        assert issubclass(topologies[name], RedrawnTopology)
        return
    rounds = [set(draw(name, n, step=step).edges) for step in range(2 * period)]
    assert rounds[:period] == rounds[period:]
    assert n < 5 or len({frozenset(edges) for edges in rounds}) == period


@pytest.mark.parametrize(("name", "n"), CASES)
def test_the_seed_decides(name: str, n: int) -> None:
    graphs = [list(draw(name, n, seed=seed).edges) for seed in (1, 1, 2, 3)]
    assert graphs[0] == graphs[1]
    if n >= 8:
        assert (graphs[0] != graphs[2] or graphs[0] != graphs[3]) == topologies[name].drawn


@pytest.mark.parametrize(("name", "n"), CASES)
def test_only_those_that_say_so_draw_anything(name: str, n: int) -> None:
    rng = random.Random(1)
    before = rng.getstate()
    topologies[name].graph(n, rng=rng, step=0)
    assert topologies[name].drawn or rng.getstate() == before


def test_the_drawn_ones_are_these() -> None:
    assert [name for name in topologies if topologies[name].drawn] == [
        "el-oracle",
        "erdos-renyi",
        "random-geometric",
        "random-matching",
        "regular",
        "small-world",
    ]


@pytest.mark.parametrize(("name", "n"), CASES)
def test_redrawn_graphs_have_the_degrees_they_declare(name: str, n: int) -> None:
    if issubclass(topologies[name], RedrawnTopology):
        seen = {degree for seed in range(20) for _, degree in draw(name, n, seed=seed).degree}
        assert seen == set(topologies[name].degrees(n))


@pytest.mark.parametrize(("name", "n"), CASES)
def test_every_node_has_a_place_of_its_own(name: str, n: int) -> None:
    places = topologies[name].layout(draw(name, n))
    assert places.shape == (n, 2)
    assert numpy.isfinite(places).all()
    assert len(numpy.unique(places.round(6), axis=0)) == n


@pytest.mark.parametrize("name", WITHOUT_ARGUMENTS)
def test_too_few_nodes(name: str) -> None:
    topology = topologies[name]
    with pytest.raises(ValueError, match=rf"{name}: expected .*, got {topology.least - 1}"):
        topology.check(n=topology.least - 1)
    n = next(n for n in SIZES if is_possible(name, n))
    assert len(draw(name, n)) == n


@pytest.mark.parametrize("name", WITHOUT_ARGUMENTS)
def test_all_methods_take_the_arguments(name: str) -> None:
    topology, n = topologies[name], 16
    arguments = {key: p.default for key, p in explicit_parameters(topology.graph, CONTEXT).items()}
    graph = draw(name, n, **arguments)
    assert set(graph.edges) == set(draw(name, n).edges)
    assert (topology.layout(graph, **arguments) == topology.layout(graph)).all()
    assert topology.period(n, **arguments) == topology.period(n)


def test_template_works_but_is_not_registered() -> None:
    assert "template" not in topologies
    names: dict[str, Any] = {}
    text = Path(experiments.topologies.__file__).with_name("template.py").read_text(encoding="utf-8")
    exec(text.replace('name="template"', ""), names)
    template = names["Template"]
    template.name = "template"
    template.check(n=10)
    graph = template.graph(10, rng=random.Random(1), step=0)
    assert sorted(graph[0]) == [1, 5, 9]
    template.check(n=10, across=9)
    with pytest.raises(ValueError, match="template: expected across from 1 to 9, got 10"):
        template.check(n=10, across=10)


def test_unknown_topology() -> None:
    with pytest.raises(
        UnknownNameError, match="unknown topology 'circle', expected one of: barbell, complete, dumbbell"
    ):
        topologies["circle"]


def test_server_has_no_graph() -> None:
    for ask in (lambda: topologies["server"].check(n=5), lambda: draw("server", 5)):
        with pytest.raises(
            ValueError, match="server: expected workers that hear each other, but they talk to a server"
        ):
            ask()
