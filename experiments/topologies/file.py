"""Graphs from files: a list of edges, an adjacency matrix, or GraphML.

Nodes get the numbers 0 … n−1 in the order of their names, digits in which are compared as numbers: 2 comes before 10,
and node2 before node10. Weights are refused, not ignored: mixing weights follow from the graph.
"""

import random
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from xml import sax

import networkx
import numpy
from networkx import DiGraph, Graph

from experiments.topologies import Topology
from tools.errors import UserError, one_line


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
    reader = _GraphML()
    try:
        with path.open("rb") as file:
            sax.parse(file, reader)
    except sax.SAXParseException as error:
        raise ValueError(f"{path}, line {error.getLineNumber()}: expected GraphML, got {error.getMessage()}") from error
    except UserError as error:
        raise ValueError(f"{path}, line {reader.line}: {error}") from error
    except (ValueError, LookupError) as error:  # an encoding that there is not, or that expat does not read
        raise ValueError(f"{path}, line {reader.line}: expected GraphML, got {one_line(error)}") from error
    return reader.graph


class _GraphML(sax.ContentHandler):
    """Reads GraphML; its UserErrors are about `line`.

    Attributes:
        graph: what was read, once the document has ended.
        line: the number of the line it is at, from 1.
    """

    def __init__(self) -> None:
        super().__init__()
        self.graph: Graph | None = None
        self.line = 1
        self._keys: dict[str | None, str | None] = {}
        self._edges: list[tuple[int, str | None, str | None]] = []
        self._in_edge = False

    def startElement(self, name: str, attributes: Mapping[str, str]) -> None:
        self.line = self._locator.getLineNumber()
        read = {"key": self._key, "graph": self._graph, "node": self._node, "edge": self._edge, "data": self._data}
        kind = name.rpartition(":")[2]
        if kind == "hyperedge":
            raise UserError("expected edges between two nodes, got a hyperedge")
        if kind in read:
            read[kind](attributes)

    def endElement(self, name: str) -> None:
        self._in_edge &= name.rpartition(":")[2] != "edge"

    def endDocument(self) -> None:
        if self.graph is None:
            raise UserError("expected a graph, got none")
        for line, *ends in self._edges:  # nodes may come after their edges
            self.line = line
            for end, node in zip(("source", "target"), ends, strict=True):
                if node not in self.graph:
                    what = f"{node!r}, which is no node of the file" if node is not None else "none"
                    raise UserError(f"expected two nodes of the file at the ends of an edge, got as {end} {what}")
            if ends[0] == ends[1]:
                raise UserError(f"expected edges between two nodes, got one from {ends[0]!r} to itself")
            self.graph.add_edge(*ends)

    def _key(self, attributes: Mapping[str, str]) -> None:
        self._keys[attributes.get("id")] = attributes.get("attr.name")

    def _graph(self, attributes: Mapping[str, str]) -> None:
        direction = attributes.get("edgedefault")
        if self.graph is not None:
            raise UserError("expected one graph, got another one")
        if direction not in ("directed", "undirected"):
            raise UserError(f"expected directed or undirected as edgedefault of the graph, got {direction or 'none'}")
        self.graph = DiGraph() if direction == "directed" else Graph()

    def _node(self, attributes: Mapping[str, str]) -> None:
        name = attributes.get("id")
        if self.graph is None or name is None or name in self.graph:
            what = "one outside" if self.graph is None else f"{name!r} twice" if name is not None else "one without id"
            raise UserError(f"expected nodes of a graph, each with an id of its own, got {what}")
        self.graph.add_node(name)

    def _edge(self, attributes: Mapping[str, str]) -> None:
        if self.graph is None:
            raise UserError("expected edges of a graph, got one outside")
        default = "true" if self.graph.is_directed() else "false"
        if attributes.get("directed", default) != default:
            raise UserError("expected either directed or undirected edges, as edgedefault of the graph says, got both")
        self._edges.append((self.line, attributes.get("source"), attributes.get("target")))
        self._in_edge = True

    def _data(self, attributes: Mapping[str, str]) -> None:
        key = attributes.get("key")
        if key not in self._keys:
            raise UserError(f"expected data of a key above, got {key!r}")
        if self._in_edge and self._keys[key] == "weight":
            _, source, target = self._edges[-1]
            raise UserError(f"expected no weights, got one on the edge from {source!r} to {target!r}")


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
