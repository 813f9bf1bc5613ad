"""What a person sees of the demo: a live table on a terminal, else a line per epoch; a summary at the end."""

import sys
import time
from collections.abc import Sequence
from statistics import fmean, median

from rich.table import Table
from rich.text import Text

from peers.secure_aggregation.demo.measurements import Measurement
from tools.console import LiveView

REFRESH_EVERY_S = 0.2  # peers want the processor, too
EPOCH_WIDTH, STATE_WIDTH = 13, 14
OTHER_COLUMNS = 50
"""How much room all but the epochs take, and the ^C that a terminal adds to the last row."""


class DemoView(LiveView):
    """Shows peers and their measurements; use as a context manager while they are at work.

    Args:
        names: of the peers.
        epochs: of each.
    """

    def __init__(self, names: Sequence[str], epochs: int) -> None:
        self._epochs = epochs
        self._rows: dict[str, dict[int, Measurement]] = {name: {} for name in names}
        self._states = dict.fromkeys(names, "starting")
        self._processes = dict.fromkeys(names, "")
        self._left: set[str] = set()
        self._said = 0
        self._refreshed_s = -REFRESH_EVERY_S
        # Without redirection, or what goes to standard error would end up on standard output
        super().__init__(auto_refresh=False, redirect_stdout=False, redirect_stderr=False)

    def __exit__(self, *exception: object) -> None:
        super().__exit__(*exception)
        if self._out.is_terminal:
            self._out.print(self.render())

    def refresh(self) -> None:
        """Show the table as it is now, if there is one, and it has not been shown just before."""
        if self._out.is_terminal and time.monotonic() - self._refreshed_s >= REFRESH_EVERY_S:
            self._refreshed_s = time.monotonic()
            self._live.refresh()

    def warn(self, text: str) -> None:
        """Print a line on standard error, above the table if both are on the terminal."""
        if self._out.is_terminal and sys.stderr.isatty():
            self._out.say(Text(text, style="yellow"))
        else:
            print(text, file=sys.stderr, flush=True)

    def started(self, name: str, process: int) -> None:
        """Show the number of a peer's process."""
        self._processes[name] = str(process)

    def state(self, name: str, state: str) -> None:
        """Show what a peer is doing."""
        self._states[name] = state

    def left(self, name: str, state: str) -> None:
        """Show that a peer will do no more epochs."""
        self._states[name] = state
        self._left.add(name)
        self._say_epochs()

    def measured(self, measurement: Measurement) -> None:
        """Show a measurement."""
        self._rows[measurement.name][measurement.epoch] = measurement
        self._say_epochs()

    def summary(self) -> list[str]:
        """Return what has been measured, in a few lines."""
        rows = [row for rows in self._rows.values() for row in rows.values()]
        if not rows:
            return ["nothing was aggregated"]
        last = self._epoch(max(row.epoch for row in rows))
        seconds, sent = [row.aggregation_s for row in rows], [row.sent_bytes / 1e6 for row in rows]
        return [
            f"accuracy in epoch {last[0].epoch}: mean {_accuracies(last)} aggregation ({self._share(last)})",
            f"time per aggregation: median {median(seconds):.2f} s, at most {max(seconds):.2f} s",
            f"sent by a peer per aggregation: median {median(sent):.2f} MB, at most {max(sent):.2f} MB",
        ]

    def render(self) -> Table:
        """Return a row for each peer, with as many of the latest epochs as there is room for."""
        latest = max((epoch for rows in self._rows.values() for epoch in rows), default=0)
        room = max((self._out.width - OTHER_COLUMNS) // (EPOCH_WIDTH + 2), 1)
        last = min(max(latest, room), self._epochs)
        shown = range(max(last - room, 0) + 1, last + 1)
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
        for title in ("peer", "process"):
            table.add_column(title, no_wrap=True)
        for epoch in shown:
            table.add_column(f"epoch {epoch}", no_wrap=True, min_width=EPOCH_WIDTH)
        table.add_column("s/aggregation", no_wrap=True, justify="right")
        table.add_column("state", no_wrap=True, min_width=STATE_WIDTH)
        for name, rows in self._rows.items():
            accuracies = [_arrow(rows[epoch]) if epoch in rows else "" for epoch in shown]
            seconds = f"{rows[max(rows)].aggregation_s:.2f}" if rows else ""
            cells = [name, Text(self._processes[name], style="dim"), *accuracies, seconds, self._states[name]]
            table.add_row(*cells, style="yellow" if name in self._left and self._states[name] != "done" else "")
        return table

    def _share(self, rows: Sequence[Measurement]) -> str:
        return f"{len(rows)} of {len(self._rows)} peers"

    def _epoch(self, epoch: int) -> list[Measurement]:
        return [rows[epoch] for rows in self._rows.values() if epoch in rows]

    def _say_epochs(self) -> None:
        """Where there is no table, say what came of epochs that are over."""
        while not self._out.is_terminal and self._said < self._epochs:
            epoch = self._said + 1
            rows = self._epoch(epoch)
            if not rows or any(epoch not in self._rows[name] for name in self._rows.keys() - self._left):
                return
            self._said = epoch
            what = f"{_accuracies(rows)} aggregation in {median(row.aggregation_s for row in rows):.2f} s"
            self.say(f"epoch {epoch}: mean accuracy {what} ({self._share(rows)})")


def _accuracies(rows: Sequence[Measurement]) -> str:
    before, after = (fmean(getattr(row, name) for row in rows) for name in ("accuracy_before", "accuracy_after"))
    return f"{before:.4f} before, {after:.4f} after"


def _arrow(row: Measurement) -> str:
    return f"{row.accuracy_before:.3f} → {row.accuracy_after:.3f}"
