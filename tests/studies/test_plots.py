import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy
import pandas
import pytest

import studies.display
from studies.frame import Study
from studies.plots import BoxPlot, LinePlot
from studies.session import Session
from tests.studies.folders import write_run
from tools.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def frame() -> pandas.DataFrame:
    index = pandas.Index([0, 5, 10], name="Step number")
    columns = {"Accuracy": [0.1, 0.5, 0.9], "Accuracy-err": [0.0, 0.1, 0.2], "Average loss": [3.0, numpy.nan, 1.0]}
    return pandas.DataFrame(columns, index=index)


def size_of(path: Path) -> tuple[int, int]:
    height, width = matplotlib.image.imread(path).shape[:2]
    return width, height


def test_lines_with_bands_and_a_second_axis(frame: pandas.DataFrame, tmp_path: Path) -> None:
    plot = LinePlot()
    assert plot.include(frame, "accuracy", errs="-err", lalp=0.8) is plot
    plot.include(frame, "loss", ccnt=5).include(2 * frame, "accuracy")
    plot.finalize("title", "Step number", "Accuracy", zlabel="Loss", xmin=0, xmax=10, ymin=0, ymax=2, zmin=1, zmax=4)
    left, right = plot.figure.axes
    assert [line.get_ydata().tolist() for line in left.get_lines()] == [
        [0.1, 0.5, 0.9],
        [0.2, 1.0, 1.8],
        [0.0, 0.2, 0.4],
    ]
    assert len(left.collections) == 1  # one band; without errs its column is a line
    assert left.get_lines()[0].get_alpha() == 0.8
    assert right.get_lines()[0].get_xdata().tolist() == [0, 10]  # what is missing is passed over
    assert right.get_lines()[0].get_color() == "C5"
    assert (left.get_xlabel(), left.get_ylabel(), right.get_ylabel()) == ("Step number", "Accuracy", "Loss")
    assert (left.get_xlim(), left.get_ylim(), right.get_ylim()) == ((0, 10), (0, 2), (1, 4))
    legend = [text.get_text() for text in plot.figure.legends[0].get_texts()]
    assert legend == ["Accuracy", "Accuracy", "Accuracy-err", "Average loss"]
    plot.save(tmp_path / "plot.png", xsize=3, ysize=1.5)
    assert size_of(tmp_path / "plot.png") == (1524, 762)  # the pixels of that module


def test_bands_are_one_deviation_wide(frame: pandas.DataFrame) -> None:
    plot = LinePlot().include(frame, "Accuracy", errs="-err").finalize(None, "x", "y", legend=("krum",))
    corners = plot.figure.axes[0].collections[0].get_paths()[0].vertices
    assert {tuple(corner) for corner in corners.round(6)} >= {(10, 0.7), (10, 1.1), (5, 0.4), (5, 0.6), (0, 0.1)}
    assert [text.get_text() for text in plot.figure.axes[0].get_legend().get_texts()] == ["krum"]


def test_sessions_are_plotted_against_a_column(tmp_path: Path) -> None:
    session = Session(write_run(tmp_path, "run", (0.1, 0.3))).compute_epoch()
    plot = LinePlot("Epoch number").include(session, "accuracy", "epoch")
    (line,) = plot.finalize(None, "Epoch", "Accuracy").figure.axes[0].get_lines()
    assert line.get_xdata().tolist() == [0, 250 / 60_000]
    with pytest.raises(RuntimeError, match="'Epoch number', the plot's index"):
        LinePlot("Epoch number").include(Session(tmp_path / "run"), "accuracy")


def test_misuse_of_line_plots(frame: pandas.DataFrame) -> None:
    plot = LinePlot()
    with pytest.raises(RuntimeError, match="expected a Session or DataFrame as data, got dict"):
        plot.include({}, "x")
    with pytest.raises(RuntimeError, match="a line plot has two y-axes, for 'Accuracy' and 'Accuracy-err'"):
        plot.include(frame)
    with pytest.raises(RuntimeError, match=r"call finalize\(…\) on the plot first"):
        plot.save("nowhere.png")
    plot.finalize(None, "x", "y")
    assert plot.finalize("ignored", "", "") is plot
    with pytest.raises(RuntimeError, match="the plot is finalized already"):
        plot.include(frame, "loss")
    plot.close()
    plot.close()
    with pytest.raises(RuntimeError, match="the plot is closed"):
        plot.save("nowhere.png")


@pytest.mark.parametrize("violin", [False, True])
def test_boxes(violin: bool, tmp_path: Path) -> None:
    plot = BoxPlot().include([0.1, 0.2, 0.6], "at update").include(numpy.array([0.7, numpy.nan, 0.9]), "at worker")
    plot.include(pandas.Series([], dtype=float), "none").hline(0.95)
    plot.finalize(None, "Max. top-1 cross-accuracy", ymin=0, ymax=1, violin=violin).save(
        tmp_path / "box.png", xsize=1.5
    )
    (axes,) = plot.figure.axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["at update", "at worker", "none"]
    assert [line.get_ydata()[0] for line in axes.get_lines() if line.get_linestyle() == "--"] == [0.95]
    if violin:
        medians = sorted(segment[0][1] for segment in axes.collections[-1].get_segments())
    else:
        medians = sorted(line.get_ydata()[0] for line in axes.get_lines() if line.get_color() == "C1")
    assert medians == pytest.approx([0.2, 0.8])
    assert size_of(tmp_path / "box.png") == (762, 1016)
    with pytest.raises(RuntimeError, match="expected a Series, an array or a list as data, got str"):
        BoxPlot().include("numbers", "label")


def test_display_needs_a_window_system(frame: pandas.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    plot = LinePlot().include(frame, "loss").finalize(None, "x", "y")
    with pytest.warns(UserWarning, match=r"no window can be opened here, .*save\(\) it instead"):
        assert plot.display() is plot
    shown = []
    from matplotlib import pyplot
    from matplotlib.backend_bases import FigureManagerBase

    monkeypatch.setattr(studies.display, "_has_windows", lambda: True)
    monkeypatch.setattr(pyplot, "get_backend", lambda: "somewindows")
    monkeypatch.setattr(FigureManagerBase, "show", lambda self: shown.append(self.canvas.figure))
    plot.display()
    assert shown == [plot.figure]
    plot.close()


def test_importing_opens_and_loads_nothing() -> None:
    code = (
        "import sys, study\n"
        "loaded = {'torch', 'matplotlib', 'aggregators', 'experiments', 'tkinter'} & set(sys.modules)\n"
        "assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=ROOT, check=True, timeout=60)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    for gar, best in (("krum", 0.9), ("trmean", 0.3)):
        for attack in ("little", "empire"):
            for seed in (1, 2):
                accuracies = (0.1, best + 0.02 * seed, 0.2)
                name = f"{attack}-{gar}-{seed}"
                write_run(tmp_path, name, accuracies, gar=gar, attack=attack, seed=seed, momentum_nesterov=seed > 5)
    write_run(tmp_path, "alone", (0.1, 0.95), gar="average", attack=None, nb_workers=7)
    return Study(tmp_path)


def test_curves_are_means_of_groups(study: Study) -> None:
    figure = study.where(attack="little").curves(by="gar")
    (axes,) = figure.axes
    (krum, trmean) = axes.get_lines()
    assert (krum.get_label(), trmean.get_label()) == ("krum", "trmean")
    assert krum.get_xdata().tolist() == [0, 10, 20]
    assert krum.get_ydata().tolist() == pytest.approx([0.1, 0.93, 0.2])
    assert trmean.get_ydata().tolist() == pytest.approx([0.1, 0.33, 0.2])
    assert axes.get_ylim() == (0, 1)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("step", "top-1 cross-accuracy")
    top = axes.collections[0].get_paths()[0].vertices[:, 1].max()
    assert top == pytest.approx(0.93 + 0.02 / 2**0.5)  # of 0.92 and 0.94


def test_ratio_curves_come_with_their_bound(study: Study) -> None:
    lines = study.where(attack="little").curves("Honest ratio").axes[0].get_lines()
    assert [line.get_label() for line in lines] == ["krum", "krum: bound", "trmean"]
    bound = study.where(name="little-krum-1").runs["ratio_bound"].item()
    assert lines[1].get_ydata()[0] == pytest.approx(bound**2)
    assert lines[0].get_ydata().tolist() == [1.0] * 20


def test_too_many_curves_are_an_error(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("studies.frame.MOST_CURVES", 3)
    with pytest.raises(UserError, match=r"expected at most 3 lines, got 5; choose runs with where\(…\), or by"):
        study.curves()
    with pytest.raises(UserError, match="unknown field 'rule'"):
        study.curves(by="rule")
    with pytest.raises(UserError, match="got 'Accuracy', which no run has"):
        study.curves("Accuracy", by="gar")
    with pytest.raises(UserError, match="unknown column of numbers 'best'"):
        study.heatmap(value="best")


def test_heatmap_cells_are_means(study: Study) -> None:
    figure = study.heatmap()
    axes, bar = figure.axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["average", "krum", "trmean"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["no attack", "empire", "little"]
    texts = [text.get_text() for text in axes.texts]
    assert texts == ["0.950", "–", "–", "–", "0.930", "0.330", "–", "0.930", "0.330"]
    assert bar.get_ylabel() == "maximum accuracy"
    assert "seed" in figure.get_suptitle()
    assert "nb workers" in figure.get_suptitle()
    two = study.where(gar="krum").heatmap(rows="seed", columns=["attack", "momentum_nesterov"], title="mine")
    assert [label.get_text() for label in two.axes[0].get_xticklabels()] == [
        "empire, no momentum nesterov",
        "little, no momentum nesterov",
    ]
    assert two.get_suptitle() == "mine"
