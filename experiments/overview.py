"""What a person sees while a grid is computed: a live overview on a terminal, else a line per run."""

import time
from collections.abc import Mapping, Sequence

from rich.console import Group
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tools.console import LiveView, duration


class Overview(LiveView):
    """Counts the runs of a grid as they end; use as a context manager while they are computed.

    Args:
        slots: the names of the engine's slots.
        total: runs of the grid.
        finished: runs of it that need not be done.
    """

    def __init__(self, slots: Sequence[str], total: int, finished: int) -> None:
        self._slots, self._total, self._finished = slots, total, finished
        self._done = self._failed = self._without = 0
        self._waiting: dict[str, str] = {}
        self._lines: list[tuple[str, str] | None] = [None] * len(slots)
        self._headline = ""
        self._started = time.monotonic()
        self._first: float | None = None
        super().__init__(refresh_per_second=4)

    def fetching(self, dataset: str) -> None:
        """Show that a dataset is read, or downloaded."""
        self._headline = f"fetching {dataset}"
        self.say(f"fetching {dataset}")

    def without_data(self, skipped: Mapping[str, str]) -> None:
        """Say which runs cannot be done for want of data, each reason once."""
        self._headline, self._without = "", len(skipped)
        for reason in dict.fromkeys(skipped.values()):
            names = [name for name, given in skipped.items() if given == reason]
            self.say(f"skipped: {len(names)} ({names[0]} …): {reason}", "yellow")

    def started(self, slot: int, name: str) -> None:
        """Show a run on a slot."""
        self._first = self._first or time.monotonic()
        self._waiting.pop(name, None)
        self._lines[slot] = (name, "starting")

    def progress(self, slot: int, text: str) -> None:
        """Show where a slot's run is."""
        if self._lines[slot] is not None:
            self._lines[slot] = (self._lines[slot][0], text)

    def found(self, name: str) -> None:
        """Count a run that somebody else has finished meanwhile."""
        self._waiting.pop(name, None)
        self._finished += 1
        self.say(f"{self._count()} {name}: finished elsewhere")

    def elsewhere(self, name: str, owner: str) -> None:
        """Show that somebody else is doing a run."""
        if name not in self._waiting:
            self.say(f"{name}: being done elsewhere ({owner}); looked at again later")
        self._waiting[name] = owner

    def lost(self, slot: int, name: str) -> None:
        """Say that a run is to be done again because its machine is gone."""
        self._lines[slot] = None
        self.say(f"{name}: lost with its machine; done again", "yellow")

    def done(self, slot: int, name: str, seconds: float, accuracies: Sequence[float]) -> None:
        """Count a finished run."""
        self._lines[slot] = None
        self._done += 1
        what = f"accuracy {accuracies[-1]:.4f}, maximum {max(accuracies):.4f}, " if accuracies else ""
        self.say(f"{self._count()} {name}: {what}{seconds:.1f} s{self._prospect()}")

    def failed(self, slot: int, name: str, reason: str) -> None:
        """Count a failed run."""
        self._lines[slot] = None
        self._failed += 1
        self.say(f"{self._count()} {name}: FAILED, {reason}", "red")

    def stopping(self, runs: int) -> None:
        """Show that what is under way is broken off."""
        if runs:
            self._headline = f"stopping {runs} runs"

    def _count(self) -> str:
        width = len(str(self._total))
        return f"[{self._finished + self._done + self._failed + self._without:{width}}/{self._total}]"

    def _left(self) -> int:
        return self._total - self._finished - self._done - self._failed - self._without

    def _prospect(self) -> str:
        """Return how long the rest takes, judging by the runs so far."""
        ended = self._done + self._failed
        if not ended or not self._left():
            return ""
        return f"; {duration((time.monotonic() - self._first) / ended * self._left())} left"

    def render(self) -> Group:
        ended = self._done + self._failed
        elapsed = time.monotonic() - (self._first or self._started)
        counts = f"{self._finished + self._done} done"
        counts += f"  {self._failed} failed" if self._failed else ""
        counts += f"  {self._without} without data" if self._without else ""
        counts += f"  {self._left()} left"
        rate = f"  {ended / elapsed * 60:.1f} runs/min" if ended else ""
        elsewhere = f"  {len(self._waiting)} done elsewhere" if self._waiting else ""
        head = Text(f"{counts}{rate}{self._prospect().replace(';', ' ')}{elsewhere}  {self._headline}".rstrip())
        table = Table.grid(padding=(0, 2))
        for slot, line in zip(self._slots, self._lines, strict=True):
            name, where = line or ("", "")
            table.add_row(Text(slot, style="dim"), Text(name), Text(where, style="dim"))
        bar = Table.grid(padding=(0, 2))
        bar.add_row(ProgressBar(total=self._total, completed=self._total - self._left(), width=30), head)
        return Group(bar, table)
