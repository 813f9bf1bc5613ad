"""What the workers of one step train on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batches:
    """The batches of several workers, one after another.

    Attributes:
        inputs: (samples of all workers, …).
        targets: (samples of all workers, …).
        sizes: samples of each worker, in order; batches at the end of a pass over the data are smaller.
    """

    inputs: Tensor
    targets: Tensor
    sizes: tuple[int, ...]

    @classmethod
    def join(cls, batches: Sequence[tuple[Tensor, Tensor]], device: torch.device) -> "Batches":
        """Return the batches of some workers, inputs and targets each, on a device."""
        inputs, targets = zip(*batches, strict=True)
        sizes = tuple(len(part) for part in inputs)
        return cls(torch.cat(inputs).to(device), torch.cat(targets).to(device), sizes)

    def __add__(self, others: "Batches") -> "Batches":
        """Return these batches, and those of other workers after them."""
        inputs = torch.cat([self.inputs, others.inputs])
        return Batches(inputs, torch.cat([self.targets, others.targets]), self.sizes + others.sizes)

    def of(self, workers: slice, each: int = 1) -> "Batches":
        """Return the batches of some consecutive workers, each of whom has so many."""
        first, last = workers.start * each, workers.stop * each
        start = sum(self.sizes[:first])
        sizes = self.sizes[first:last]
        samples = slice(start, start + sum(sizes))
        return Batches(self.inputs[samples], self.targets[samples], sizes)

    def equal_runs(self) -> Iterator[tuple[int, "Batches"]]:
        """Yield runs of consecutive workers with batches of one size, each with the index of its first worker."""
        worker = sample = 0
        for size, run in groupby(self.sizes):
            last = worker + len(list(run))
            end = sample + size * (last - worker)
            yield worker, Batches(self.inputs[sample:end], self.targets[sample:end], self.sizes[worker:last])
            worker, sample = last, end

    def every(self, stride: int, first: int) -> "Batches":
        """Return batches first, first + stride, …; of workers that got `stride` each, that of each one's local step."""
        inputs = torch.cat(self.inputs.split(self.sizes)[first::stride])
        targets = torch.cat(self.targets.split(self.sizes)[first::stride])
        return Batches(inputs, targets, self.sizes[first::stride])
