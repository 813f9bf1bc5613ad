"""Graphs from files: a list of edges, an adjacency matrix, or GraphML.

Nodes get the numbers 0 … n−1 in the order of their names, digits in which are compared as numbers: 2 comes before 10,
and node2 before node10. Weights are refused, not ignored: mixing weights follow from the graph.
"""

import random
import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import networkx
import numpy
from networkx import DiGraph, Graph

from experiments.topologies import Topology
from tools.errors import one_line


def read_graph(path: Path) -> Graph:
    """Return the graph that a file holds, its nodes being 0 … n−1.

    A name that ends in .csv is a matrix of 0 and 1 without header, in whose line i column j says whether node i hears
    node j; .graphml is GraphML; any other is one edge per line, two names parted by a comma or blanks. There a line
    with one name is a node, and what follows # is a comment.

    Raises:
        ValueError: the file cannot be read, or holds something else; the text names the line where there is one.
    """
    readers = {".csv": _read_matrix, ".graphml": _read_graphml}
    try:
        named = readers.get(path.suffix.lower(), _read_edges)(path)
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}; name another file") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"cannot read {path}: expected text in UTF-8; {one_line(error)}") from error
    numbers = {name: number for number, name in enumerate(sorted(named, key=_name_order))}
    graph = DiGraph() if named.is_directed() else Graph()
    graph.add_nodes_from(range(len(numbers)))
    graph.add_edges_from((numbers[sender], numbers[receiver]) for sender, receiver in named.edges())
    return graph


def _name_order(name: str) -> tuple[list[str | int], str]:
    parts = re.split(r"(\d+)", name)
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], name


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines that say something, with their numbers from 1."""
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
        text = line.partition("#")[0].strip()
        if text:
            yield number, text


def _read_edges(path: Path) -> Graph:
    graph = Graph()
    for number, line in _lines(path):
        names = [name for name in re.split(r"[\s,]+", line) if name]
        if len(names) > 2:
            raise ValueError(f"{path}, line {number}: expected the names of two nodes and no weight, got {line!r}")
        if len(set(names)) < len(names):
            raise ValueError(f"{path}, line {number}: expected an edge between two nodes, got {line!r}")
        graph.add_nodes_from(names)
        graph.add_edges_from([names] if len(names) == 2 else [])
    return graph


def _read_matrix(path: Path) -> Graph:
    rows: list[list[bool]] = []
    for number, line in _lines(path):
        cells = [_read_cell(cell) for cell in line.split(",")]
        if None in cells:
            raise ValueError(f"{path}, line {number}: expected 0 or 1 in every column and no weight, got {line!r}")
        if rows and len(cells) != len(rows[0]):
            raise ValueError(f"{path}, line {number}: expected {len(rows[0])} columns as above, got {len(cells)}")
        if len(rows) < len(cells) and cells[len(rows)]:
            raise ValueError(f"{path}, line {number}: expected 0 on the diagonal, as every node has its own vector")
        rows.append(cells)
    if rows and len(rows) != len(rows[0]):
        raise ValueError(f"{path}: expected as many lines as columns, got {len(rows)} lines and {len(rows[0])} columns")
    hears = numpy.array(rows, dtype=bool).reshape(len(rows), len(rows))
    graph = DiGraph() if (hears != hears.T).any() else Graph()
    graph.add_nodes_from(map(str, range(len(rows))))
    graph.add_edges_from((str(sender), str(receiver)) for receiver, sender in numpy.argwhere(hears))
    return graph


def _read_cell(text: str) -> bool | None:
    """Return what 0 or 1 means; None for anything else."""
    try:
        return {0.0: False, 1.0: True}.get(float(text))
    except ValueError:
        return None


def _read_graphml(path: Path) -> Graph:
    try:
        graph = networkx.read_graphml(path)
    except ElementTree.ParseError as error:
        raise ValueError(f"{path}, line {error.position[0]}: expected GraphML, got {one_line(error)}") from error
    except (networkx.NetworkXException, LookupError, ValueError) as error:
        raise ValueError(f"{path}: expected GraphML that networkx can read: {one_line(error)}") from error
    for sender, receiver, data in graph.edges(data=True):
        if sender == receiver:
            raise ValueError(f"{path}: expected edges between two nodes, got one from {sender!r} to itself")
        if "weight" in data:
            raise ValueError(f"{path}: expected no weights, got one on the edge from {sender!r} to {receiver!r}")
    return graph


class File(Topology, name="file"):
    """Read the graph from the file `path`: an adjacency matrix (.csv), GraphML (.graphml), or one edge per line."""

    @classmethod
    def check(cls, *, n: int, path: str) -> None:
        super().check(n=n)
        if not isinstance(path, str):
            raise TypeError(f"{cls.name}: expected the name of a file as path, got {path!r}")
        try:
            graph = read_graph(Path(path))
        except ValueError as error:
            raise ValueError(f"{cls.name}: {error}") from error
        if len(graph) != n:
            raise ValueError(f"{cls.name}: expected {n} nodes, as there are workers, got {len(graph)} in {path}")

    @classmethod
    def graph(cls, n: int, *, rng: random.Random, step: int, path: str) -> Graph:
        return read_graph(Path(path))

    @classmethod
    def layout(cls, graph: Graph, *, path: str) -> numpy.ndarray:
        places = networkx.spring_layout(graph, seed=1)
        return numpy.array([places[node] for node in sorted(graph)])
