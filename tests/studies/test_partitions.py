from itertools import pairwise
from pathlib import Path

import numpy
import pandas
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

import study
from experiments.shards import make_shards, write_partition
from studies.partitions import plot_partition, read_partition
from studies.session import Session
from tests.studies.folders import write_run
from tools.errors import UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = write_run(tmp_path, "a-run")
    targets = torch.arange(60) % 3 + 5
    write_partition(folder / "partition.csv", make_shards("dirichlet", {}, targets, 4, seed=1), targets, [2])
    return folder


def table(nodes: int, labels: int, byzantine: int = 1) -> pandas.DataFrame:
    draw = numpy.random.default_rng(1)
    frame = pandas.DataFrame(
        {"node": range(nodes), "role": ["honest"] * (nodes - byzantine) + ["byzantine"] * byzantine}
    )
    counts = draw.integers(0, 50, (nodes, labels))
    frame["samples"] = counts.sum(axis=1)
    return frame.join(pandas.DataFrame(counts, columns=[f"label {label}" for label in range(labels)]))


def test_reads_what_runs_write(folder: Path) -> None:
    frame = read_partition(folder)
    assert list(frame.columns) == ["node", "role", "samples", "label 5", "label 6", "label 7"]
    assert frame["role"].tolist() == ["honest", "honest", "byzantine", "honest"]
    assert frame["samples"].sum() == 60
    assert (frame.filter(like="label").sum(axis=1) == frame["samples"]).all()
    for source in (str(folder), folder / "partition.csv", Session(folder)):
        pandas.testing.assert_frame_equal(read_partition(source), frame)


def test_bars_are_sizes_and_areas_of_dots_are_counts(folder: Path) -> None:
    frame = read_partition(folder)
    figure = plot_partition(folder)
    bars, dots = figure.axes
    honest, byzantine = bars.containers
    drawn = {round(bar.get_x() + 0.4): bar for bar in (*honest, *byzantine)}
    assert [drawn[node].get_height() for node in range(4)] == frame["samples"].tolist()
    colors = [to_rgba("C3" if node == 2 else "C0") for node in range(4)]
    assert [drawn[node].get_facecolor() for node in range(4)] == colors
    assert sorted(text.get_text() for text in bars.texts) == sorted(map(str, frame["samples"]))
    (collection,) = dots.collections
    counts = frame.filter(like="label").to_numpy()
    largest = 0
    areas = (collection.get_widths() * collection.get_heights()).tolist()
    for (node, label), area, color in zip(collection.get_offsets(), areas, collection.get_facecolors(), strict=True):
        count = counts[int(node), int(label)]
        assert area == pytest.approx(0.95**2 * count / counts.max())
        assert tuple(color) == colors[int(node)]
        largest = max(largest, count)
    assert len(areas) == numpy.count_nonzero(counts)
    assert [text.get_text() for text in dots.get_yticklabels()] == ["5", "6", "7"]
    assert dots.get_title() == f"area: samples of a label, at most {largest}"
    assert [text.get_text() for text in dots.get_xticklabels()] == ["0", "1", "2", "3"]
    assert [text.get_color() for text in dots.get_xticklabels()][1:3] == ["black", "C3"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["Honest", "Byzantine"]
    assert figure.get_suptitle() == "a-run"


def test_titles(folder: Path) -> None:
    assert plot_partition(Session(folder)).get_suptitle() == "a-run"
    assert plot_partition(folder / "partition.csv").get_suptitle() == "a-run"
    assert plot_partition(folder, "mine").get_suptitle() == "mine"
    assert plot_partition(read_partition(folder)).get_suptitle() == ""


def test_rows_of_a_frame_are_nodes_whatever_its_index(folder: Path) -> None:
    frame = read_partition(folder).iloc[[3, 1]]
    bars, dots = plot_partition(frame).axes
    assert [(bar.get_x(), bar.get_height()) for bar in bars.patches] == list(
        zip([-0.4, 0.6], frame["samples"], strict=True)
    )
    assert [text.get_text() for text in dots.get_xticklabels()] == ["3", "1"]
    assert not plot_partition(frame).legends  # nobody is Byzantine


def texts_that_overlap(figure: Figure) -> list[str]:
    """Return tick labels that touch the next one, and texts that are cut off."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer, wrong = canvas.get_renderer(), []
    for axes in figure.axes:
        for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
            boxes = [text.get_window_extent(renderer) for text in labels if text.get_text() and text.get_visible()]
            wrong += [str(labels) for one, other in pairwise(boxes) if one.overlaps(other)]
        named = [axes.title, axes.xaxis.label, axes.yaxis.label, *axes.texts, *axes.get_xticklabels()]
        for text in named:
            box = text.get_window_extent(renderer)
            if text.get_text() and not (
                figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 and box.y0 >= figure.bbox.y0
            ):
                wrong.append(text.get_text())
        wrong += [text.get_text() for text in axes.texts if text.get_window_extent(renderer).y1 > axes.bbox.y1]
    return wrong


@pytest.mark.parametrize(
    ("nodes", "labels"), [(1, 1), (2, 2), (6, 100), (11, 10), (26, 10), (64, 2), (64, 100), (100, 80), (1_024, 10)]
)
def test_texts_do_not_overlap(nodes: int, labels: int) -> None:
    figure = plot_partition(table(nodes, labels), "a name as long as those of runs are")
    assert texts_that_overlap(figure) == []
    dots = figure.axes[1]
    assert len(dots.get_yticks()) >= min(labels, 20)
    assert len(dots.get_xticks()) >= min(nodes, 20)
    assert max(figure.get_size_inches()) < 24


def test_partition_without_labels() -> None:
    frame = table(5, 3)[["node", "role", "samples"]]
    figure = plot_partition(frame)
    (bars,) = figure.axes
    assert [text.get_text() for text in bars.get_xticklabels()] == list("01234")
    assert bars.get_xlabel() == "node"
    assert texts_that_overlap(figure) == []


def test_nodes_without_samples() -> None:
    frame = table(3, 2)
    frame.loc[:, ["samples", "label 0", "label 1"]] = 0
    figure = plot_partition(frame)
    assert texts_that_overlap(figure) == []
    assert figure.axes[1].get_title() == "area: samples of a label, at most 0"


def test_no_partition(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "a-run")
    text = (
        r"^expected .*a-run/partition.csv, got no such file; runs with --partition shared have none, their workers "
        r"read one stream$"
    )
    for source in (folder, str(folder), Session(folder), folder / "partition.csv"):
        with pytest.raises(UserError, match=text):
            plot_partition(source)
    with pytest.raises(UserError, match=r"^expected .*nowhere, got no such file"):
        plot_partition(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00\xff\xfe",
        b"Step number,loss\n0,1\n",
        b"node,role,samples\n",
        b"node,role,samples,label 0\n0,honest,many,2\n",
        b"node,role,samples,label 0\n0,honest,2,2.5\n",
        b"node,role,samples,label 0\n0,crashed,2,2\n",
        b"node,role,samples,other\n0,honest,2,2\n",
        b"node,role,label 0,samples\n0,honest,2,2\n",
        b"node,role,samples\n0,honest,2,3,4\n1,honest,2\n",
    ],
)
def test_something_else_in_the_file(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "partition.csv").write_bytes(content)
    with pytest.raises(UserError, match=r"partition\.csv: expected a partition, one row per node"):
        plot_partition(tmp_path)


def test_no_rows_in_the_file(tmp_path: Path) -> None:
    (tmp_path / "partition.csv").write_text("node,role,samples,label 0\n")
    with pytest.raises(UserError, match=r"partition\.csv: expected a partition, one row per node, got no rows$"):
        plot_partition(tmp_path)


def test_something_else_in_the_frame() -> None:
    with pytest.raises(UserError, match=r"^the frame: expected .*, got the columns node, role, samples, a, b, …$"):
        plot_partition(table(3, 0).assign(a=1, b=2, c=3))
    with pytest.raises(UserError, match=r"^the frame: expected a partition, one row per node, got no rows$"):
        plot_partition(table(3, 1).iloc[:0])


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "partition.csv").write_text("node,role,samples,label 0\n0,honest,3,3\n1,byzantine,2,2\n")
    assert study.main(["partition", "run"]) == 0
    assert capsys.readouterr().out == "partition.png\n"
    assert (tmp_path / "partition.png").read_bytes().startswith(b"\x89PNG")
    assert study.main(["partition", "nowhere"]) == 2
    assert "runs with --partition shared have none" in capsys.readouterr().err
