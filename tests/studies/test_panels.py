import math
from pathlib import Path

import numpy
import pandas
import pytest
from PIL import Image

from studies.bounds import LOSS
from studies.panels import LINE_POINTS, UPDATE, WORKER, Panels, Picture, curves, draw_boxes, draw_line, finish_ratio
from studies.summary import ACCURACY


def steps(**columns: list[float]) -> pandas.DataFrame:
    names = {"accuracy": ACCURACY, "loss": LOSS}
    names |= {"deviation": "Honest gradient deviation", "norm": "Honest gradient norm"}
    return pandas.DataFrame({names[name]: values for name, values in columns.items()})


def widths(path: Path) -> dict[str, float]:
    """Return for both colours in which share of a picture's columns something is drawn in it."""
    red, _, blue = numpy.moveaxis(numpy.asarray(Image.open(path).convert("RGB"), dtype=int), -1, 0)
    return {UPDATE: (red - blue > 60).any(axis=0).mean(), WORKER: (blue - red > 60).any(axis=0).mean()}


def test_curves_are_means_and_sample_deviations_by_step() -> None:
    lines = curves(
        [steps(accuracy=[0.1, math.nan, 0.5], loss=[2, 1, 1]), steps(accuracy=[0.3, math.nan, 0.9], loss=[4, 1, 1])]
    )
    assert set(lines) == {"Accuracy", "Loss"}
    assert lines["Accuracy"].steps.tolist() == [0, 2]
    assert lines["Accuracy"].mean == pytest.approx([0.2, 0.7])
    assert lines["Accuracy"].deviation == pytest.approx([0.2 / math.sqrt(2), 0.4 / math.sqrt(2)])
    assert lines["Loss"].deviation == pytest.approx([math.sqrt(2), 0, 0])


def test_ratios_are_logarithms_of_squares_and_what_has_none_is_passed_over() -> None:
    line = curves([steps(deviation=[1.0, 0.0, 3.0, 1.0], norm=[10.0, 1.0, math.nan, 0.0])])["Ratio"]
    assert line.steps.tolist() == [0]
    assert line.mean.tolist() == pytest.approx([-2.0])
    assert line.deviation.tolist() == [0.0]


def test_a_run_that_ended_early_counts_as_far_as_it_went() -> None:
    lines = curves([steps(loss=[1.0, 2.0, 3.0]), steps(loss=[3.0])])
    assert lines["Loss"].mean == pytest.approx([2.0, 2.0, 3.0])


def test_long_curves_are_thinned() -> None:
    line = curves([steps(loss=list(range(20_000)))])["Loss"]
    assert LINE_POINTS / 2 < len(line.steps) <= LINE_POINTS
    assert line.mean.tolist() == line.steps.tolist()


def test_each_panel_is_a_picture_of_its_own_and_empty_after_clear(tmp_path: Path) -> None:
    panels = Panels(2)
    pictures = [Picture(tmp_path / "figures" / f"{number}.webp", "") for number in range(2)]
    line = curves([steps(loss=[1.0, 1.0])])["Loss"]
    for colours in (UPDATE, WORKER), (WORKER, UPDATE):
        panels.clear()
        for axes, colour in zip(panels.axes, colours, strict=True):
            draw_line(axes, line, "", colour)
        assert panels.save(pictures) == pictures
        for picture, colour in zip(pictures, colours, strict=True):
            other = UPDATE if colour == WORKER else WORKER
            assert widths(picture.path)[colour] > 0.7
            assert widths(picture.path)[other] == 0.0


def test_a_panel_without_picture_is_not_written(tmp_path: Path) -> None:
    panels = Panels(2)
    panels.clear()
    picture = Picture(tmp_path / "second.webp", "")
    assert panels.save([None, picture]) == [picture]
    assert [path.name for path in tmp_path.iterdir()] == ["second.webp"]
    assert panels.save([None, None]) == []


def test_the_bound_is_drawn_squared() -> None:
    panels = Panels(1)
    panels.clear()
    (axes,) = panels.axes
    draw_line(axes, curves([steps(deviation=[1.0, 1.0], norm=[10.0, 100.0])])["Ratio"], "x", WORKER, logarithms=True)
    finish_ratio(axes, "", 1, 0.5)
    drawn, bound = axes.lines
    assert drawn.get_ydata().tolist() == pytest.approx([1e-2, 1e-4])
    assert list(bound.get_ydata()) == [0.25, 0.25]


def test_boxes_show_every_value_and_the_reference(tmp_path: Path) -> None:
    panels = Panels(1)
    panels.clear()
    draw_boxes(panels.axes[0], {"a": ([0.2, 0.4, 0.6], UPDATE), "b": ([], WORKER)}, 0.9)
    heights = [sorted(map(float, line.get_ydata())) for line in panels.axes[0].lines]
    assert [0.2, 0.4, 0.6] in heights
    assert [0.4, 0.4] in heights, "the median"
    assert [0.9, 0.9] in heights
