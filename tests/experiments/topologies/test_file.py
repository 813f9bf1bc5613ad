from pathlib import Path

import networkx
import pytest

from experiments.topologies import topologies
from experiments.topologies.file import read_graph
from tests.experiments.topologies.test_topologies import draw

GRAPHML = """<?xml version="1.0" encoding="UTF-8"?>
<graphml xmlns="http://graphml.graphdrawing.org/xmlns">
  <key id="w" for="edge" attr.name="weight" attr.type="double"/>
  <graph id="G" edgedefault="{kind}">
    <node id="n10"/><node id="n2"/><node id="n1"/>
    <edge source="n1" target="n2"/>
    <edge source="n2" target="n10">{inside}</edge>
    {more}
  </graph>
</graphml>
"""


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def graphml(kind: str = "undirected", inside: str = "", more: str = "") -> str:
    return GRAPHML.format(kind=kind, inside=inside, more=more)


@pytest.mark.parametrize(
    ("text", "edges"),
    [
        ("0 1\n1 2\n", [(0, 1), (1, 2)]),
        ("0,1\n1, 2\n\n", [(0, 1), (1, 2)]),
        ("# a path\n10\t2   # the end\n2 1\n1 2\n", [(0, 1), (1, 2)]),  # in the order 1, 2, 10
        ("bob carol\nalice bob", [(0, 1), (1, 2)]),
        ("w2 w10\nw1 w2", [(0, 1), (1, 2)]),
        ("b\na c", [(0, 2)]),
    ],
)
def test_lists_of_edges(text: str, edges: list[tuple[int, int]], tmp_path: Path) -> None:
    graph = read_graph(write(tmp_path / "graph.txt", text))
    assert list(graph) == [0, 1, 2]
    assert not graph.is_directed()
    assert {tuple(sorted(edge)) for edge in graph.edges} == set(edges)


def test_matrices(tmp_path: Path) -> None:
    undirected = read_graph(write(tmp_path / "graph.csv", "0,1,0\n1,0,1\n0,1,0\n"))
    assert not undirected.is_directed()
    assert set(undirected.edges) == {(0, 1), (1, 2)}
    directed = read_graph(write(tmp_path / "graph.csv", "0, 0.0, 1.000000e+00\n1,0,0\n0,1,0"))
    assert directed.is_directed()
    assert set(directed.edges) == {(2, 0), (0, 1), (1, 2)}  # line 0: node 0 hears node 2
    size = 12  # the order of nodes is that of lines, not of their numbers as texts
    lines = ("".join("01"[abs(i - j) == 1] for j in range(size)) for i in range(size))
    path = read_graph(write(tmp_path / "graph.csv", "\n".join(",".join(line) for line in lines)))
    assert set(path.edges) == {(i, i + 1) for i in range(size - 1)}


def test_graphml(tmp_path: Path) -> None:
    undirected = read_graph(write(tmp_path / "graph.graphml", graphml()))
    assert not undirected.is_directed()
    assert set(undirected.edges) == {(0, 1), (1, 2)}
    directed = read_graph(write(tmp_path / "graph.GraphML", graphml("directed")))
    assert directed.is_directed()
    assert set(directed.edges) == {(0, 1), (1, 2)}  # 1 hears 0
    doubled = read_graph(write(tmp_path / "graph.graphml", graphml(more='<edge id="e" source="n1" target="n2"/>')))
    assert set(doubled.edges) == {(0, 1), (1, 2)}
    assert not doubled.is_multigraph()
    of_nodes = graphml(more='<node id="n3"><data key="w">1</data></node><edge source="n3" target="n4"/><node id="n4"/>')
    assert set(read_graph(write(tmp_path / "g.graphml", of_nodes)).edges) == {(0, 1), (1, 4), (2, 3)}
    networkx.write_graphml(networkx.cycle_graph(12), tmp_path / "ring.graphml")
    assert set(read_graph(tmp_path / "ring.graphml").edges) == set(networkx.cycle_graph(12).edges)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("g.txt", "0 1\n\n1 2 0.5\n", "g.txt, line 3: expected the names of two nodes and no weight, got '1 2 0.5'"),
        ("g.txt", "0 1\n1 1\n", "g.txt, line 2: expected an edge between two nodes, got '1 1'"),
        ("g.csv", "0,1\n1,2\n", "g.csv, line 2: expected 0 or 1 in every column and no weight, got '1,2'"),
        ("g.csv", "0,1\n1,x\n", "g.csv, line 2: expected 0 or 1 in every column and no weight, got '1,x'"),
        ("g.csv", "0,1\n1,nan\n", "g.csv, line 2: expected 0 or 1 in every column and no weight, got '1,nan'"),
        ("g.csv", "0,1\n\n1,0,0\n", "g.csv, line 3: expected 2 columns as above, got 3"),
        ("g.csv", "0,1\n1,1\n", "g.csv, line 2: expected 0 on the diagonal, as every node has its own vector"),
        ("g.csv", "0,1\n1,0\n0,0\n", "g.csv: expected as many lines as columns, got 3 lines and 2 columns"),
        ("g.csv", "0,1\n", "g.csv: expected as many lines as columns, got 1 lines and 2 columns"),
        (
            "g.graphml",
            "<graphml>\n<graph edgedefault='directed'>\n</graphml>",
            "g.graphml, line 3: expected GraphML, got mismatched tag",
        ),
        ("g.graphml", "", "g.graphml, line 1: expected GraphML, got no element found"),
        (
            "g.graphml",
            "<?xml version='1.0' encoding='x'?><graphml/>",
            "g.graphml, line 1: expected GraphML, got unknown",
        ),
        ("g.graphml", "<?xml version='1.0' encoding='utf-7'?><graphml/>", "g.graphml, line 1: expected GraphML, got "),
        ("g.graphml", "<graphml/>", "g.graphml, line 1: expected a graph, got none"),
        (
            "g.graphml",
            "<graphml>\n<graph/>\n</graphml>",
            "g.graphml, line 2: expected directed or undirected as edgedefault of the graph, got none",
        ),
        (
            "g.graphml",
            graphml(more='<graph id="H" edgedefault="directed"/>'),
            "g.graphml, line 8: expected one graph, got another one",
        ),
        (
            "g.graphml",
            graphml(inside='<data key="x">1</data>'),
            "g.graphml, line 7: expected data of a key above, got 'x'",
        ),
        (
            "g.graphml",
            graphml("directed", inside='<data key="w">1.5</data>'),
            "g.graphml, line 7: expected no weights, got one on the edge from 'n2' to 'n10'",
        ),
        (
            "g.graphml",
            graphml(more='<edge source="n2" target="n2"/>'),
            "g.graphml, line 8: expected edges between two nodes, got one from 'n2' to itself",
        ),
        (
            "g.graphml",
            graphml(more='<edge source="n2"\n target="n3"/>'),
            "g.graphml, line 8: expected two nodes of the file at the ends of an edge, got as target 'n3', which is no "
            "node of the file",
        ),
        (
            "g.graphml",
            graphml(more='\n<edge source="n2"/>'),
            "g.graphml, line 9: expected two nodes of the file at the ends of an edge, got as target none",
        ),
        (
            "g.graphml",
            graphml(more='<edge directed="true" source="n1" target="n10"/>'),
            "g.graphml, line 8: expected either directed or undirected edges, as edgedefault of the graph says",
        ),
        (
            "g.graphml",
            graphml(more="<hyperedge/>"),
            "g.graphml, line 8: expected edges between two nodes, got a hyperedge",
        ),
        (
            "g.graphml",
            graphml(more="<node/>"),
            "g.graphml, line 8: expected nodes of a graph, each with an id of its own, got one without id",
        ),
        (
            "g.graphml",
            graphml(more='<node id="n1"/>'),
            "g.graphml, line 8: expected nodes of a graph, each with an id of its own, got 'n1' twice",
        ),
        ("g.graphml", "<graphml>\n<node id='a'/></graphml>", "g.graphml, line 2: expected nodes of a graph, each with"),
        ("g.graphml", "<graphml>\n<edge/></graphml>", "g.graphml, line 2: expected edges of a graph, got one outside"),
    ],
)
def test_malformed_files(name: str, text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected") as error:
        read_graph(write(tmp_path / name, text))
    assert str(error.value).startswith(f"{tmp_path}/{message}")


def test_unreadable_files(tmp_path: Path) -> None:
    for name in ("none.txt", "none.csv", "none.graphml"):
        with pytest.raises(ValueError, match=f"cannot read .*{name}: No such file or directory; name another file"):
            read_graph(tmp_path / name)
    with pytest.raises(ValueError, match=r"cannot read .*: Is a directory"):
        read_graph(tmp_path)
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9 bar\n")
    with pytest.raises(ValueError, match=r"cannot read .*latin.txt: expected text in UTF-8"):
        read_graph(tmp_path / "latin.txt")


def test_file_as_a_topology(tmp_path: Path) -> None:
    path = str(write(tmp_path / "graph.txt", "a b\nb c\n"))
    graph = draw("file", 3, path=path)
    assert set(graph.edges) == {(0, 1), (1, 2)}
    assert topologies["file"].layout(graph, path=path).shape == (3, 2)
    with pytest.raises(ValueError, match=r"file: expected 4 nodes, as there are workers, got 3 in .*graph.txt"):
        topologies["file"].check(n=4, path=path)
    with pytest.raises(TypeError, match="file: expected the name of a file as path, got 5"):
        topologies["file"].check(n=4, path=5)
    with pytest.raises(ValueError, match=r"file: cannot read no.txt: No such file"):
        topologies["file"].check(n=4, path="no.txt")
    empty = str(write(tmp_path / "empty.csv", ""))
    with pytest.raises(ValueError, match="expected 4 nodes, as there are workers, got 0"):
        topologies["file"].check(n=4, path=empty)
