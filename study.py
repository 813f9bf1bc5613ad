#!/usr/bin/env python3
"""Result directories in, data frames, tables and figures out: `import study`, or `python3 study.py --help`."""

import sys

from studies.command_line import main
from studies.display import display
from studies.frame import Study
from studies.partitions import plot_partition
from studies.plots import BoxPlot, LinePlot
from studies.session import Session, discard, select
from studies.topology import draw_topology

__all__ = [
    "BoxPlot",
    "LinePlot",
    "Session",
    "Study",
    "discard",
    "display",
    "draw_topology",
    "main",
    "plot_partition",
    "select",
]

if __name__ == "__main__":
    sys.exit(main())
