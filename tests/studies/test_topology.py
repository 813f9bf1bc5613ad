from pathlib import Path
from typing import Any

import numpy
import pytest
from matplotlib.collections import LineCollection, PathCollection, PolyCollection
from matplotlib.figure import Figure

from experiments.topologies import topologies
from studies import topology as module
from studies.command_line import main
from studies.figures import save
from studies.topology import draw_topology
from tests.experiments.topologies.test_topologies import CASES, WITHOUT_ARGUMENTS, is_possible
from tools.errors import UserError

HONEST, BYZANTINE = (
    (0.12156862745098039, 0.4666666666666667, 0.7058823529411765),
    (
        0.8392156862745098,
        0.15294117647058825,
        0.1568627450980392,
    ),
)


def collections(figure: Figure, kind: type) -> list[Any]:
    return [drawn for drawn in figure.axes[0].collections if type(drawn) is kind]


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


def places(figure: Figure) -> dict[int, tuple[float, float]]:
    return {int(text.get_text()): text.get_position() for text in figure.axes[0].texts}


@pytest.mark.parametrize(("name", "n"), CASES)
def test_every_node_is_there_once(name: str, n: int) -> None:
    figure = draw_topology(name, {"connected": False}, nodes=n, byzantine=n // 4)
    assert sorted(places(figure)) == list(range(n))
    drawn = collections(figure, PathCollection)
    assert [len(nodes.get_offsets()) for nodes in drawn] == ([n - n // 4, n // 4] if n >= 4 else [n])
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == (["honest", "Byzantine"] if n >= 4 else ["honest"])


@pytest.mark.parametrize("name", WITHOUT_ARGUMENTS)
@pytest.mark.parametrize("n", [6, 20, 64])
def test_nodes_do_not_touch_and_are_inside(name: str, n: int) -> None:
    n = n if is_possible(name, n) else 64
    figure = draw_topology(name, {"connected": False}, nodes=n, byzantine=2)
    axes = figure.axes[0]
    (width, height), box = figure.get_size_inches(), axes.get_position()
    across = numpy.diff(axes.get_xlim())[0], numpy.diff(axes.get_ylim())[0]
    assert across == pytest.approx((box.width * width, box.height * height))  # an inch is an inch
    points = numpy.array(list(places(figure).values()))
    distances = numpy.linalg.norm(points - points[:, None], axis=2) + numpy.diag(numpy.full(n, numpy.inf))
    diameter = collections(figure, PathCollection)[0].get_sizes()[0] ** 0.5 / 72
    assert 0.2 <= diameter < distances.min()
    curves = numpy.concatenate(
        [lines.get_segments() for lines in collections(figure, LineCollection) if len(lines.get_segments())]
    )
    everything = numpy.concatenate([points, curves.reshape(-1, 2)])
    for limits, column in ((axes.get_xlim(), 0), (axes.get_ylim(), 1)):
        assert limits[0] + diameter < everything[:, column].min()
        assert everything[:, column].max() < limits[1] - diameter


@pytest.mark.parametrize("n", [20, 1000])
def test_a_single_byzantine_node_is_seen(n: int) -> None:
    honest, byzantine = collections(draw_topology("ring", nodes=n, byzantine=1), PathCollection)
    assert len(byzantine.get_offsets()) == 1
    assert byzantine.get_sizes()[0] ** 0.5 / 72 >= 0.08
    assert (byzantine.get_sizes()[0] > honest.get_sizes()[0]) == (n == 1000)


@pytest.mark.parametrize("name", ["ring", "torus", "small-world", "hypercube", "tree", "barbell"])
def test_edges_lead_around_nodes(name: str) -> None:
    figure = draw_topology(name, nodes=16)
    points = numpy.array([place for _, place in sorted(places(figure).items())])
    diameter = collections(figure, PathCollection)[0].get_sizes()[0] ** 0.5 / 72
    for curve in collections(figure, LineCollection)[0].get_segments():
        distances = numpy.linalg.norm(curve[:, None] - points, axis=2).min(axis=0)
        assert sorted(distances)[1] < 1e-9 < diameter / 2 < sorted(distances)[2]


def test_edges_are_those_of_the_graph() -> None:
    figure = draw_topology("star", {"byzantine": [2]}, nodes=5, byzantine=1)
    at = {tuple(numpy.round(place, 6)): node for node, place in places(figure).items()}
    honest, byzantine = (
        {frozenset(at[tuple(numpy.round(end, 6))] for end in (line[0], line[-1])) for line in lines.get_segments()}
        for lines in collections(figure, LineCollection)
    )
    assert honest == {frozenset((0, node)) for node in (1, 3, 4)}
    assert byzantine == {frozenset((0, 2))}
    squares = collections(figure, PathCollection)[1]
    assert tuple(squares.get_facecolor()[0][:3]) == pytest.approx(BYZANTINE)
    assert at[tuple(numpy.round(squares.get_offsets()[0], 6))] == 2


def test_arrows_point_at_who_hears() -> None:
    figure = draw_topology("one-peer-exponential", nodes=8, step=1)
    at = places(figure)
    (heads,) = (drawn for drawn in collections(figure, PolyCollection) if len(drawn.get_paths()))
    tips = numpy.array([path.vertices[0] for path in heads.get_paths()])
    centres = numpy.array([path.vertices[:3].mean(axis=0) for path in heads.get_paths()])
    diameter = collections(figure, PathCollection)[0].get_sizes()[0] ** 0.5 / 72
    for tip, centre in zip(tips, centres, strict=True):
        node = min(at, key=lambda node: numpy.linalg.norm(tip - at[node]))
        assert numpy.linalg.norm(tip - at[node]) == pytest.approx(diameter / 2, rel=0.05)
        sender = numpy.array(at[(node - 2) % 8])
        assert numpy.linalg.norm(centre - sender) < numpy.linalg.norm(tip - sender)
    assert len(collections(draw_topology("ring", nodes=8), PolyCollection)) == 0


def test_titles() -> None:
    ring = texts(draw_topology("ring", nodes=20, byzantine=3))
    assert ring == ["ring, 20 nodes", "spectral gap 0.03263; at most 1 Byzantine neighbour (up to 50%)"]
    assert texts(draw_topology("complete", nodes=5)) == ["complete, 5 nodes", "spectral gap 1"]
    assert texts(draw_topology("random-matching", nodes=9, step=4))[0] == "random-matching, 9 nodes, round 4"
    assert texts(draw_topology("el-oracle", nodes=12, byzantine=2))[1].endswith(
        "at most 2 Byzantine neighbours (up to 50%)"
    )


def test_rounds_and_seeds_differ() -> None:
    def edges(**how: int) -> list:
        figure = draw_topology("random-matching", nodes=12, **how)
        return numpy.concatenate([lines.get_segments() for lines in collections(figure, LineCollection)[:1]]).tolist()

    assert edges() == edges(seed=1, step=0)
    assert edges() != edges(step=1)
    assert edges() != edges(seed=2)


def test_large_graphs_are_drawn_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_EDGES", 200)
    figure = draw_topology("complete", nodes=100)
    assert places(figure) == {}  # numbers would be too small
    assert texts(figure)[1] == "spectral gap 1 (200 of 4,950 edges drawn)"
    assert len(collections(figure, LineCollection)[0].get_segments()) == 200
    assert len(collections(draw_topology("ring", nodes=100), LineCollection)[0].get_segments()) == 100


def test_nodes_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "graph.txt"
    path.write_text("a b\nc\n", encoding="utf-8")
    figure = draw_topology("file", {"path": str(path), "connected": False}, nodes=3)
    assert sorted(places(figure)) == [0, 1, 2]
    path.write_text("a\nb\n", encoding="utf-8")
    assert len(places(draw_topology("file", {"path": str(path), "connected": False}, nodes=2))) == 2


@pytest.mark.parametrize("ending", ["png", "pdf", "svg"])
def test_formats(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"ring.{ending}"
    save(draw_topology("ring", byzantine=2), path)
    start = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}[ending]
    assert path.read_bytes().startswith(start)


def test_files_that_cannot_be_written(tmp_path: Path) -> None:
    figure = draw_topology("ring")
    with pytest.raises(UserError, match=r"--output: expected a name that ends in .png, .pdf, .svg, got .*ring.jpeg"):
        save(figure, tmp_path / "ring.jpeg")
    with pytest.raises(
        UserError, match=r"--output: cannot write .*ring.png: No such file or directory; name another file"
    ):
        save(figure, tmp_path / "none" / "ring.png")


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["topology", "ring", "--nodes", "20", "--byzantine", "3", "-o", "drawn.svg"]) == 0
    assert main(["topology", "regular", "--topology-args", "k:6", "byzantine:[0,5]", "--byzantine", "2"]) == 0
    assert main(["topology", "el-oracle", "--seed", "3", "--step", "4"]) == 0
    assert capsys.readouterr().out == "drawn.svg\nregular.png\nel-oracle.png\n"
    assert {path.name for path in tmp_path.iterdir()} == {"drawn.svg", "regular.png", "el-oracle.png"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("circle", f"unknown topology 'circle', expected one of: {', '.join(topologies)}"),
        ("server", "--topology, --topology-args, --nb-workers: server: expected workers that hear each other, but"),
        ("ring --nodes 1", "--nodes: expected at least 2, got 1"),
        ("ring --nodes 5 --byzantine 5", "--byzantine: expected 0 to 4, at least one node being honest, got 5"),
        ("ring --byzantine -1", "--byzantine: expected 0 to 10, at least one node being honest, got -1"),
        ("ring --step -1", "--step: expected at least 0, got -1"),
        ("ring --topology-args k", "--topology-args: expected key:value pairs such as name:1, got 'k'"),
        ("ring --topology-args k:1", "--topology-args: ring has no argument 'k'"),
        (
            "ring --byzantine 2 --topology-args byzantine:[1,5]",
            "--topology: expected honest nodes to hear of each other",
        ),
        ("ring --nodes x", "argument --nodes: invalid int value: 'x'; study.py topology --help lists all flags\n"),
        ("ring --nodes", "argument --nodes: expected one argument; study.py topology --help lists all flags\n"),
        ("ring --node 5", "unrecognized arguments: --node 5; --help lists all flags\n"),
        ("", "the following arguments are required: NAME; study.py topology --help lists all flags\n"),
        ("ring -o ring.gif", "--output: expected a name that ends in .png, .pdf, .svg, got ring.gif"),
    ],
)
def test_errors_of_the_command(
    words: str, message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["topology", *words.split()]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"study.py: {message}")
    assert captured.err.count("\n") == 1
    assert not list(tmp_path.iterdir())
