"""Line and box plots under the names of the ICLR 2021 code's `study` module, so that scripts written for it run.

That module: LPD-EPFL/ByzantineMomentum, study.py. Figures belong to the plot, not to pyplot: nothing has to be closed,
no window is opened but by `display`, and no global setting of matplotlib is touched.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy
import pandas

from studies.display import show
from studies.session import Session, select

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FONT_SIZE = 14
STYLE = {"font.size": FONT_SIZE, "axes.grid": True, "grid.alpha": 0.4, "axes.axisbelow": True}
LINE_STYLES = ("-", "--", ":", "-.")
UNIT_INCHES = 2.54
"""What `save` takes its sizes in: that module meant centimetres and multiplied where it should have divided."""


def _style() -> AbstractContextManager[None]:
    from matplotlib import rc_context  # takes half a second, which reading data need not spend

    return rc_context(STYLE)


def _draw(
    axes: Any, abscissa: Any, values: pandas.Series, deviation: pandas.Series | None, look: dict[str, Any]
) -> None:
    present = values.notna().to_numpy()
    x, y = numpy.asarray(abscissa)[present], values.to_numpy()[present]
    if deviation is not None:
        half = deviation.to_numpy()[present]
        axes.fill_between(x, y - half, y + half, facecolor=look["color"], alpha=0.2)
    axes.plot(x, y, label=values.name, **look)


class _Plot:
    """A figure that is filled, then finalized, then saved or displayed."""

    def __init__(self) -> None:
        from matplotlib.figure import Figure

        self._finalized = False
        self._window: Any = None
        with _style():
            self._figure: Figure | None = Figure(layout="constrained")
            self._axes = self._figure.subplots()

    def _before_finalizing(self) -> None:
        if self._figure is None or self._finalized:
            state = "closed" if self._figure is None else "finalized"
            raise RuntimeError(f"the plot is {state} already: nothing more can be included")

    @property
    def figure(self) -> "Figure":
        """The figure, which must be finalized."""
        if self._figure is None or not self._finalized:
            raise RuntimeError("the plot is closed" if self._figure is None else "call finalize(…) on the plot first")
        return self._figure

    def display(self) -> "_Plot":
        """Open a window with the figure, which must be finalized; the window stays as long as the plot."""
        self._window = show(self.figure)
        return self

    def save(self, path: str | Path, dpi: float = 200, xsize: float = 3, ysize: float = 2) -> "_Plot":
        """Write the figure, which must be finalized, in the format that the file name's ending says.

        Args:
            path: of the file.
            dpi: pixels per inch.
            xsize: width, in units of 2.54 inches.
            ysize: height, in the same.
        """
        figure = self.figure
        figure.set_size_inches(xsize * UNIT_INCHES, ysize * UNIT_INCHES)
        figure.savefig(path, dpi=dpi)
        return self

    def close(self) -> None:
        """Give up the figure, and its window if there is one; closing twice is allowed."""
        if self._window is not None:
            self._window.destroy()
        self._figure = self._axes = self._window = None


class LinePlot(_Plot):
    """Columns by step, on one axis or two.

    Args:
        index: the column to plot against; by default the frames' own index.
    """

    def __init__(self, index: str | None = None) -> None:
        super().__init__()
        self._index = index
        self._by_selector: dict[str, Any] = {}
        self._count = 0

    def _axes_for(self, selector: str) -> Any:
        """Return the axes on which all that a word selects is drawn: the first word's are on the left."""
        if selector not in self._by_selector:
            if len(self._by_selector) == 2:
                raise RuntimeError(f"a line plot has two y-axes, for {' and '.join(map(repr, self._by_selector))}")
            with _style():
                axes = self._axes.twinx() if self._by_selector else self._axes
                axes.tick_params(labelsize=FONT_SIZE)  # ticks made later would follow the settings of then
                axes.grid(not self._by_selector)
            self._by_selector[selector] = axes
        return self._by_selector[selector]

    def include(
        self,
        data: Session | pandas.DataFrame,
        *cols: str,
        errs: str | None = None,
        lalp: float = 1.0,
        ccnt: int | None = None,
    ) -> "LinePlot":
        """Add lines.

        Points without a value are passed over, as evaluations are at most steps.

        Args:
            data: holds the columns.
            cols: words, see `select`; what one of them selects shares an axis. None: each column has its own.
            errs: ending of the names of columns with deviations: that of column x is drawn as a band around x.
            lalp: opacity of the lines.
            ccnt: number of colour and line style; by default counted up with every line.
        """
        self._before_finalizing()
        if isinstance(data, Session):
            data = data.data
        if not isinstance(data, pandas.DataFrame):
            raise RuntimeError(f"expected a Session or DataFrame as data, got {type(data).__qualname__}")
        if self._index is not None and self._index not in data:
            raise RuntimeError(f"expected {self._index!r}, the plot's index, among the columns of the data")
        abscissa = data.index if self._index is None else data[self._index]
        for selector in cols or list(data.columns):
            selected = select(data, selector).columns
            for name in selected:
                is_deviation = errs and name.endswith(errs) and name.removesuffix(errs) in selected
                if name != self._index and not is_deviation:
                    deviation = data.get(f"{name}{errs}") if errs else None
                    number = self._count if ccnt is None else ccnt
                    look = {"color": f"C{number}", "linestyle": LINE_STYLES[number % len(LINE_STYLES)], "alpha": lalp}
                    _draw(self._axes_for(selector), abscissa, data[name], deviation, look)
                    self._count += 1
        return self

    def finalize(
        self,
        title: str | None,
        xlabel: str,
        ylabel: str,
        zlabel: str | None = None,
        xmin: float | None = None,
        xmax: float | None = None,
        ymin: float | None = None,
        ymax: float | None = None,
        zmin: float | None = None,
        zmax: float | None = None,
        legend: Sequence[str] | None = None,
    ) -> "LinePlot":
        """Add what belongs to the figure as a whole; after the first call nothing changes any more.

        Args:
            title: above the figure.
            xlabel: of the x-axis.
            ylabel: of the left y-axis.
            zlabel: of the right y-axis, which is called as the left one by default.
            xmin, xmax, ymin, ymax, zmin, zmax: limits of the axes, by default those of the data.
            legend: one text per line, those of the left axis first; by default the names of the columns.
        """
        if self._finalized:
            return self
        self._before_finalizing()
        with _style():
            self._label(title, (xlabel, ylabel, zlabel), ((xmin, xmax), (ymin, ymax), (zmin, zmax)), legend)
        self._finalized = True
        return self

    def _label(self, title: str | None, labels: Sequence[str | None], limits: Sequence[tuple], legend: Any) -> None:
        left, right = self._axes, next((axes for axes in self._by_selector.values() if axes is not self._axes), None)
        (xlabel, ylabel, zlabel), (xlimits, ylimits, zlimits) = labels, limits
        left.set_title(title or "")
        left.set(xlabel=xlabel, ylabel=ylabel, xlim=xlimits, ylim=ylimits)
        if right is not None:
            right.set(ylabel=ylabel if zlabel is None else zlabel, ylim=zlimits)
        lines = [line for axes in self._by_selector.values() for line in axes.get_lines()]
        names = [line.get_label() for line in lines] if legend is None else list(legend)
        shown = min(len(lines), len(names))
        if right is not None:  # there is no best place among the lines of two axes
            self._figure.legend(lines[:shown], names[:shown], loc="outside lower center", ncols=min(shown, 3))
        elif lines:
            left.legend(lines[:shown], names[:shown], loc="best")


class BoxPlot(_Plot):
    """Distributions of numbers, side by side.

    Args:
        index: takes no effect; scripts may give it.
    """

    def __init__(self, index: str | None = None) -> None:  # noqa: ARG002
        super().__init__()
        self._samples: list[numpy.ndarray] = []
        self._labels: list[str] = []
        self._levels: list[float] = []

    def include(self, data: pandas.Series | numpy.ndarray | Sequence[float], label: str) -> "BoxPlot":
        """Add a box for some numbers; those that are NaN do not count."""
        self._before_finalizing()
        if not isinstance(data, pandas.Series | numpy.ndarray | list | tuple):
            raise RuntimeError(f"expected a Series, an array or a list as data, got {type(data).__qualname__}")
        numbers = numpy.asarray(data, dtype=float)
        self._samples.append(numbers[~numpy.isnan(numbers)])
        self._labels.append(label)
        return self

    def hline(self, y: float) -> "BoxPlot":
        """Add a dashed horizontal line, to compare the boxes with."""
        self._levels.append(y)
        return self

    def finalize(
        self,
        title: str | None,
        ylabel: str,
        ymin: float | None = None,
        ymax: float | None = None,
        violin: bool = False,
    ) -> "BoxPlot":
        """Draw the boxes, with medians; after the first call nothing changes any more.

        Args:
            title: above the figure.
            ylabel: of the y-axis.
            ymin, ymax: its limits, by default those of the data.
            violin: draw densities instead of boxes.
        """
        if self._finalized:
            return self
        self._before_finalizing()
        with _style():
            self._draw(violin)
            self._axes.set_title(title or "")
            self._axes.set(ylabel=ylabel, ylim=(ymin, ymax))
        self._finalized = True
        return self

    def _draw(self, violin: bool) -> None:
        for number, level in enumerate(self._levels):
            self._axes.axhline(level, color=f"C{number}", linestyle="--")
        places = range(1, len(self._samples) + 1)
        filled = [(place, numbers) for place, numbers in zip(places, self._samples, strict=True) if len(numbers)]
        if filled:
            positions, samples = zip(*filled, strict=True)
            if violin:
                self._axes.violinplot(samples, positions, showmedians=True, showmeans=False, showextrema=False)
            else:
                self._axes.boxplot(samples, positions=positions, widths=0.4)
        self._axes.set_xticks(places, self._labels)
        self._axes.set_xlim(0.5, len(self._samples) + 0.5)
        self._axes.tick_params(labelsize=FONT_SIZE)
        self._axes.grid(False, axis="x")
