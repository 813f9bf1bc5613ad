"""Seconds spent in each phase of a run."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class PhaseClock:
    """Adds up the time of named phases; on the GPU by events, which nothing waits for until `seconds` is called."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._seconds: dict[str, float] = {}
        self._pending: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count what happens inside as time of this phase."""
        if self._cuda:
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            yield
            end.record()
            self._pending.append((name, start, end))
        else:
            start = time.perf_counter()
            yield
            self.add(name, time.perf_counter() - start)

    def add(self, name: str, seconds: float) -> None:
        """Count time measured elsewhere."""
        self._seconds[name] = self._seconds.get(name, 0.0) + seconds

    def collect(self) -> None:
        """Add up the GPU's events so far; waits for them."""
        for name, start, end in self._pending:
            end.synchronize()
            self.add(name, start.elapsed_time(end) / 1000)
        self._pending.clear()

    def seconds(self) -> dict[str, float]:
        """Return the seconds by phase, in the order in which phases first occurred."""
        self.collect()
        return dict(self._seconds)
