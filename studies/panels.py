"""The report's small figures: curves with a band of one standard deviation over seeds, and box plots.

A report has hundreds of them. Panels are made once and drawn into again and again, and several are drawn as one picture
that is cut apart: a tenth of a second each, at some 8 KiB.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy
import pandas
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator
from PIL import Image

from studies.bounds import LOSS, squared_ratio
from studies.summary import ACCURACY

PIXELS_PER_INCH = 140
LINE_POINTS = 600
"""Longer curves are thinned to at most so many points: a picture has fewer columns of pixels."""
UPDATE, WORKER, REFERENCE = "#c2570c", "#1f5fbf", "#5f6670"
RULE_COLOURS = ("#1f5fbf", "#c2570c", "#2a8a57", "#8a4fbf", "#b3304f", "#8a7a1f", "#3b8fa6", "#6b6b6b")
INK, FAINT = "#30343a", "#dfe2e6"
TEXT = {"size": 8, "color": INK}
LEGEND = {
    **{"loc": "lower right", "bbox_to_anchor": (1.0, 1.0), "fontsize": 7, "frameon": False, "labelcolor": INK},
    **{"handlelength": 1.1, "handletextpad": 0.4, "columnspacing": 0.9, "borderaxespad": 0.1, "labelspacing": 0.2},
}
"""Above the panel, at the right: in it, it would hide lines, and the search for a free corner takes longer than all
else."""
LEGEND_COLUMNS = 4


@dataclass(frozen=True)
class Picture:
    """A picture and its file; the caption says what it shows."""

    path: Path
    caption: str


@dataclass(frozen=True)
class Line:
    """A curve: by step the mean over runs and their sample standard deviation, 0 where there is one run only."""

    steps: numpy.ndarray
    mean: numpy.ndarray
    deviation: numpy.ndarray


def curves(frames: Sequence[pandas.DataFrame]) -> dict[str, Line]:
    """Return the mean curves "Accuracy", "Loss" and "Ratio", as far as they were recorded.

    The ratio is the decimal logarithm of (deviation / norm)² of what honest workers send.

    Args:
        frames: the steps of runs that differ in their seeds, as `Study.steps` returns them.
    """
    runs = [dict(_quantities(frame)) for frame in frames]
    names = dict.fromkeys(name for run in runs for name in run)
    return {name: _line(pandas.concat([run[name] for run in runs if name in run], axis=1)) for name in names}


def _quantities(frame: pandas.DataFrame) -> Iterator[tuple[str, pandas.Series]]:
    compute: dict[str, Callable[[], pandas.Series]] = {
        "Accuracy": lambda: frame[ACCURACY],
        "Loss": lambda: frame[LOSS],
        "Ratio": lambda: squared_ratio(frame, "Honest").where(lambda ratio: ratio > 0).map(math.log10, "ignore"),
    }
    for name, values in compute.items():
        try:
            finite = values().replace([math.inf, -math.inf], math.nan).dropna()
        except KeyError:  # not recorded, as with --nb-for-study 0 or --evaluation-delta 0
            continue
        if len(finite):
            yield name, finite


def _line(runs: pandas.DataFrame) -> Line:
    runs = runs.sort_index().iloc[:: math.ceil(len(runs) / LINE_POINTS)]
    return Line(runs.index.to_numpy(), runs.mean(axis=1).to_numpy(), runs.std(axis=1).fillna(0).to_numpy())


def bound_of(bounds: pandas.Series) -> float | None:
    """Return the bound of runs that share a rule, None if none is known."""
    known = bounds.dropna()
    return None if known.empty else float(known.iloc[0])


class Panels:
    """A row of panels.

    Args:
        count: panels in the row.
        width, height: of a panel, in inches.
        margins: left, right, bottom and top, in inches.
    """

    def __init__(
        self, count: int, width: float = 3.7, height: float = 2.35, margins: Sequence[float] = (0.58, 0.14, 0.36, 0.3)
    ) -> None:
        left, right, bottom, top = margins
        self._figure = Figure(figsize=(count * width, height), dpi=PIXELS_PER_INCH)
        self._canvas = FigureCanvasAgg(self._figure)
        size = ((width - left - right) / (count * width), (height - bottom - top) / height)
        starts = [((panel * width + left) / (count * width), bottom / height) for panel in range(count)]
        self.axes = [self._figure.add_axes((*start, *size)) for start in starts]

    def clear(self) -> None:
        """Empty all panels."""
        for axes in self.axes:
            axes.clear()
            axes.spines[["top", "right"]].set_visible(False)
            axes.spines[["left", "bottom"]].set_color(FAINT)
            axes.tick_params(colors=INK, labelsize=TEXT["size"], length=2, width=0.6, which="both")
            axes.grid(visible=True, color=FAINT, linewidth=0.5)
            axes.set_axisbelow(True)

    def save(self, pictures: Sequence[Picture | None]) -> list[Picture]:
        """Write each panel to the file of its picture, if it has one, and return the pictures that there are."""
        wanted = [picture for picture in pictures if picture is not None]
        if not wanted:
            return []
        self._canvas.draw()
        whole = Image.fromarray(numpy.asarray(self._canvas.buffer_rgba())[..., :3])
        width = whole.width // len(self.axes)
        for number, picture in enumerate(pictures):
            if picture is not None:
                picture.path.parent.mkdir(exist_ok=True)
                panel = whole.crop((number * width, 0, (number + 1) * width, whole.height))
                panel.save(picture.path, "WEBP", quality=50, method=3)
        return wanted


def draw_line(
    axes: Axes, line: Line, label: str, colour: str, *, dashes: str = "-", band: bool = True, logarithms: bool = False
) -> None:
    """Draw a mean and, if there is any, its band of one standard deviation; of logarithms, what they are of."""
    low, middle, high = (line.mean + sign * line.deviation for sign in (-1, 0, 1))
    if logarithms:
        low, middle, high = 10**low, 10**middle, 10**high
    axes.plot(line.steps, middle, dashes, color=colour, linewidth=1.2, label=label)
    if band and line.deviation.any():
        axes.fill_between(line.steps, low, high, color=colour, alpha=0.15, linewidth=0)


def finish_accuracy(axes: Axes, title: str, last_step: int) -> None:
    """Label a panel of accuracies."""
    axes.set_ylim(0, 1)
    _finish(axes, title, last_step)


def finish_loss(axes: Axes, title: str, last_step: int, lines: Sequence[Line]) -> None:
    """Label a panel of losses; what exceeds twice the largest loss at the start leaves it at the top."""
    highest = max((float(line.mean.max()) for line in lines), default=1.0)
    start = max((float(line.mean[0]) for line in lines), default=1.0)
    top = 1.05 * min(highest, 2 * start)
    axes.set_ylim(0, top if top > 0 else 1)
    _finish(axes, title, last_step)


def finish_ratio(axes: Axes, title: str, last_step: int, bound: float | None) -> None:
    """Label a panel of squared ratios, and draw the squared bound of the rule if one is known."""
    if bound is not None:
        axes.axhline(bound**2, color=INK, linewidth=0.9, linestyle=(0, (1, 1.5)), label="bound")
    axes.set_yscale("log")
    axes.yaxis.set_minor_locator(NullLocator())
    _finish(axes, title, last_step)


def _finish(axes: Axes, title: str, last_step: int) -> None:
    axes.set_xlim(0, max(last_step, 1))
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set_xlabel("step", labelpad=0, **TEXT)
    axes.set_ylabel(title, labelpad=2, **TEXT)
    handles, labels = axes.get_legend_handles_labels()
    if labels:
        axes.legend(handles, labels, ncols=min(len(labels), LEGEND_COLUMNS), **LEGEND)


def draw_boxes(axes: Axes, groups: Mapping[str, tuple[Sequence[float], str]], reference: float) -> None:
    """Draw box plots of accuracies with every value as a dot, and a line at a reference accuracy.

    Args:
        groups: values and colour by label.
        reference: NaN for none.
    """
    for position, (values, colour) in enumerate(groups.values()):
        if values:
            line = {"color": colour}
            looks = {f"{part}props": line for part in ("box", "whisker", "cap")}
            looks["medianprops"] = {"color": colour, "linewidth": 2}
            axes.boxplot([values], positions=[position], widths=0.5, showfliers=False, **looks)
            # side by side in their order, so that equal values stay apart and a report is drawn the same twice
            offsets = numpy.linspace(-0.16, 0.16, len(values)) if len(values) > 1 else numpy.zeros(1)
            axes.plot(position + offsets, values, ".", color=colour, alpha=0.35, markersize=3)
    if not math.isnan(reference):
        axes.axhline(reference, color=REFERENCE, linewidth=1, linestyle="--")
    axes.set_xlim(-0.6, len(groups) - 0.4)
    axes.set_xticks(range(len(groups)), list(groups))
    axes.set_ylim(0, 1)
    axes.grid(visible=False, axis="x")
