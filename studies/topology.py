"""Drawings of topologies, Byzantine nodes and all."""

from typing import TYPE_CHECKING, Any

import numpy

from studies.figures import DPI
from tools.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from experiments.network import Network

LARGEST_INCHES, MOST_GROWTH = (9.0, 8.5), 1.6
"""Size of the graph, and how many times that it may have where nodes would be too close otherwise."""
LEAST_WIDTH_INCHES, HEAD_INCHES, FOOT_INCHES = 6.0, 0.7, 0.45
APART_INCHES = (0.3, 1.1)
"""How far from the next one nodes are: all at least, if need be by moving them, and half of them at most."""
DIAMETER_INCHES = (0.03, 0.34)
DIAMETER_SHARES = {True: 0.75, False: 0.45}
"""Diameter of a node, as a share of the distance of the closest two, with its number and without."""
LEAST_BYZANTINE_INCHES = 0.08
"""Size of a Byzantine node at least, so that a single one among a thousand is seen."""
MOST_NUMBERED = 80
"""Nodes up to which each bears its number, closest ones are moved apart, and edges lead around nodes."""
MOST_EDGES = 20_000
"""Edges that are drawn: of more a random part shows as much, and takes seconds instead of minutes."""
HONEST, BYZANTINE, EDGE = "#1f77b4", "#d62728", "#555555"
BOWS = (0.0, 0.9, -0.9, 1.4, -1.4, 2.2, -2.2)
"""How far an edge may lead beside the straight line, in diameters of a node, in order of preference."""
CLEARANCE = 0.65
"""How far from the centre of a node an edge passes it, in diameters."""


def draw_topology(
    name: str,
    arguments: dict[str, Any] | None = None,
    *,
    nodes: int = 11,
    byzantine: int = 0,
    seed: int = 1,
    step: int = 0,
) -> "Figure":
    """Return a drawing of a topology.

    Args:
        name: of the topology.
        arguments: as `--topology-args` of attack.py.
        nodes: how many there are.
        byzantine: how many of them are Byzantine.
        seed: of the run whose graph is drawn.
        step: number of the round, for topologies that vary.

    Raises:
        UserError: an unknown name, or numbers or arguments that cannot be.
    """
    from experiments.network import Network  # networkx takes a moment, as matplotlib does

    if nodes < 2:
        raise UserError(f"--nodes: expected at least 2, got {nodes}")
    if not 0 <= byzantine < nodes:
        raise UserError(f"--byzantine: expected 0 to {nodes - 1}, at least one node being honest, got {byzantine}")
    if step < 0:
        raise UserError(f"--step: expected at least 0, got {step}")
    network = Network(name, arguments or {}, n=nodes, f=byzantine, seed=seed)
    graph = network.graph(step)
    edges = numpy.array(graph.edges, dtype=numpy.int64).reshape(-1, 2)
    drawn = edges if len(edges) <= MOST_EDGES else numpy.random.default_rng(1).choice(edges, MOST_EDGES, replace=False)
    places, diameter = _placed(network.layout(graph))
    curves = _curves(drawn, places, diameter)
    axes = _empty(numpy.concatenate([places, curves.reshape(-1, 2)]), diameter)
    is_byzantine = numpy.isin(numpy.arange(nodes), network.nodes[network.h :])
    heads = _heads(curves, diameter) if graph.is_directed() and nodes <= MOST_NUMBERED else None
    _draw_edges(axes, curves, heads, is_byzantine[drawn].any(axis=1))
    _draw_nodes(axes, places, diameter, is_byzantine)
    title = f"{name}, {nodes} nodes{f', round {step}' if network.varies else ''}"
    part = f" ({len(drawn):,} of {len(edges):,} edges drawn)" if len(drawn) < len(edges) else ""
    _write(axes.figure, title, _properties(network) + part)
    return axes.figure


def _properties(network: "Network") -> str:
    gap = f"spectral gap {network.describe()['spectral gap']}"
    if network.f == 0:
        return gap
    most, share = network.largest_byzantine_neighbours, network.largest_byzantine_share
    return f"{gap}; at most {most} Byzantine neighbour{'s' * (most != 1)} (up to {share:.0%})"


def _placed(places: numpy.ndarray) -> tuple[numpy.ndarray, float]:
    """Return places in inches, (n, 2), and a diameter at which nodes do not touch."""
    numbered = len(places) <= MOST_NUMBERED
    least, most = APART_INCHES
    extent = numpy.ptp(places, axis=0)
    places = places * min(largest / size for largest, size in zip(LARGEST_INCHES, extent, strict=True) if size > 0)
    places = places * min(1, most / numpy.median(_distances(places).min(axis=1)))
    if numbered:
        places = places * numpy.clip(least / max(_distances(places).min(), 1e-9), 1, MOST_GROWTH)
        places = _parted(places, least)
    diameter = numpy.clip(DIAMETER_SHARES[numbered] * _distances(places).min(), *DIAMETER_INCHES)
    return places, float(diameter)


def _distances(places: numpy.ndarray) -> numpy.ndarray:
    """Return the distances between nodes, (n, n), inf to themselves."""
    distances = numpy.linalg.norm(places - places[:, None], axis=2)
    numpy.fill_diagonal(distances, numpy.inf)
    return distances


def _parted(places: numpy.ndarray, least: float) -> numpy.ndarray:
    """Return places that are moved until none are closer than that, or hardly."""
    for _ in range(500):
        distances = _distances(places)
        if distances.min() >= 0.95 * least:
            break
        push = numpy.maximum(least - distances, 0) / 2 / numpy.maximum(distances, 1e-9)
        places = places - (push[..., None] * (places - places[:, None])).sum(axis=1)
    return places


def _empty(points: numpy.ndarray, diameter: float) -> "Axes":
    """Return axes in inches that hold what is at these points, in a figure with room above and below."""
    from matplotlib.figure import Figure

    low, high = points.min(axis=0) - 1.5 * diameter, points.max(axis=0) + 1.5 * diameter
    graph_width, graph_height = high - low
    width, height = max(graph_width, LEAST_WIDTH_INCHES), graph_height + HEAD_INCHES + FOOT_INCHES
    figure = Figure(figsize=(width, height), dpi=DPI)
    left = (width - graph_width) / 2
    axes = figure.add_axes((left / width, FOOT_INCHES / height, graph_width / width, graph_height / height))
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    axes.axis("off")
    return axes


def _write(figure: "Figure", title: str, below: str) -> None:
    for text, inches, look in ((title, 0.1, {"size": 12, "weight": "bold"}), (below, 0.38, {"size": 10})):
        figure.text(0.5, 1 - inches / figure.get_figheight(), text, ha="center", va="top", **look)


def _draw_nodes(axes: "Axes", places: numpy.ndarray, diameter: float, is_byzantine: numpy.ndarray) -> None:
    from matplotlib.lines import Line2D

    handles = []
    kinds = (  # what is drawn last covers the others
        ("honest", ~is_byzantine, diameter, HONEST, "o"),
        ("Byzantine", is_byzantine, max(diameter, LEAST_BYZANTINE_INCHES), BYZANTINE, "s"),
    )
    for name, chosen, inches, color, marker in kinds:
        if chosen.any():
            axes.scatter(*places[chosen].T, s=(72 * inches) ** 2, color=color, marker=marker, linewidths=0, zorder=3)
            handles.append(Line2D([], [], linewidth=0, color=color, marker=marker, markersize=9, label=name))
    axes.figure.legend(handles=handles, loc="lower center", ncols=2, fontsize=10, frameon=False)
    if len(places) <= MOST_NUMBERED:
        for node, (x, y) in enumerate(places):
            size = min(0.52 * 72 * diameter, 10)
            axes.text(x, y, str(node), size=size, color="white", ha="center", va="center_baseline", zorder=4)


def _draw_edges(axes: "Axes", curves: numpy.ndarray, heads: numpy.ndarray | None, is_byzantine: numpy.ndarray) -> None:
    from matplotlib.collections import LineCollection, PolyCollection

    inches = numpy.linalg.norm(curves[:, -1] - curves[:, 0], axis=1).sum()
    look = {
        "alpha": min(27 * max(inches, 1) ** -0.5, 0.7),
        "linewidths": min(max(30 * max(len(curves), 1) ** -0.5, 0.3), 1.2),
    }
    for chosen, color, order in ((~is_byzantine, EDGE, 1), (is_byzantine, BYZANTINE, 2)):
        axes.add_collection(LineCollection(curves[chosen], colors=color, zorder=order, **look))
        if heads is not None:
            axes.add_collection(PolyCollection(heads[chosen], facecolors=color, linewidths=0, zorder=order))


def _curves(edges: numpy.ndarray, places: numpy.ndarray, diameter: float) -> numpy.ndarray:
    """Return the points of every edge, (edges, points, 2), which leads around nodes that are in its way."""
    starts, ends = places[edges[:, 0]], places[edges[:, 1]]
    if len(places) > MOST_NUMBERED:
        return numpy.stack([starts, ends], axis=1)
    along = ends - starts
    across = numpy.stack([-along[:, 1], along[:, 0]], axis=1) / numpy.linalg.norm(along, axis=1, keepdims=True)
    inwards = ((places.mean(axis=0) - (starts + ends) / 2) * across).sum(axis=1) >= 0
    across = numpy.where(inwards[:, None], across, -across) * diameter
    t = numpy.linspace(0, 1, 65)[:, None]
    curves = numpy.empty((len(edges), len(t), 2))
    clearance = numpy.full(len(edges), -numpy.inf)
    for bow in BOWS:
        (blocked,) = numpy.nonzero(clearance < CLEARANCE * diameter)
        tried = starts[blocked, None] + t * along[blocked, None] + 4 * t * (1 - t) * bow * across[blocked, None]
        passing = numpy.linalg.norm(tried[:, :, None] - places, axis=3).min(axis=1)
        numpy.put_along_axis(passing, edges[blocked], numpy.inf, axis=1)
        better = passing.min(axis=1) > clearance[blocked]
        curves[blocked[better]], clearance[blocked[better]] = tried[better], passing.min(axis=1)[better]
    return curves


def _heads(curves: numpy.ndarray, diameter: float) -> numpy.ndarray:
    """Return the corners of arrow heads, (edges, 3, 2), at the rims of the nodes that edges lead to."""
    outside = numpy.linalg.norm(curves - curves[:, -1:], axis=2) >= diameter / 2
    last = outside.shape[1] - 1 - outside[:, ::-1].argmax(axis=1)
    direction = curves[:, -1] - numpy.take_along_axis(curves, last[:, None, None], axis=1)[:, 0]
    direction /= numpy.linalg.norm(direction, axis=1, keepdims=True)
    length = min(0.35 * diameter, 0.09)
    tip = curves[:, -1] - direction * diameter / 2
    side = numpy.stack([-direction[:, 1], direction[:, 0]], axis=1) * length / 2
    return numpy.stack([tip, tip - length * direction + side, tip - length * direction - side], axis=1)
