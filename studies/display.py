"""Showing tables and figures in a window, only when asked to."""

import os
import sys
import tempfile
import warnings
import webbrowser
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 14px sans-serif; margin: 1em }}
table {{ border-collapse: collapse }}
td, th {{ padding: .2em .6em; text-align: right; white-space: nowrap }}
thead th {{ position: sticky; top: 0; background: #eee }}
tbody tr:nth-child(even) {{ background: #f6f6f6 }}
</style></head><body><h1>{title}</h1>
{table}
</body></html>
"""


def display(data: pandas.DataFrame, *, title: str = "Display data") -> None:
    """Show a table in the web browser; print it where no window can be opened."""
    if not _has_windows():
        print(f"{title}\n{data.to_string()}")
        return
    table = data.to_html(float_format="{:.6g}".format, na_rep="", border=0)
    with tempfile.NamedTemporaryFile("w", prefix="study-", suffix=".html", delete=False, encoding="utf-8") as page:
        page.write(PAGE.format(title=escape(title), table=table))
    webbrowser.open(Path(page.name).as_uri())


def show(figure: "Figure") -> Any:
    """Open a window with a figure, and return what must be kept for the window to stay; None if there can be none."""
    from matplotlib import pyplot

    if not _has_windows() or pyplot.get_backend().lower() in ("agg", "pdf", "svg", "ps", "cairo", "template"):
        warnings.warn("no window can be opened here, the figure is not shown; save() it instead", stacklevel=3)
        return None
    number = max(pyplot.get_fignums(), default=0) + 1
    manager = pyplot.new_figure_manager(number, FigureClass=lambda **_: figure)
    manager.show()
    return manager


def _has_windows() -> bool:
    if sys.platform in ("win32", "darwin"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
