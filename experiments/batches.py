"""What the workers of one step train on."""

from collections.abc import Iterator
from dataclasses import dataclass

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

    def equal_runs(self) -> Iterator[tuple[int, "Batches"]]:
        """Yield runs of consecutive workers with batches of one size, each with the index of its first worker."""
        worker = sample = 0
        while worker < len(self.sizes):
            size, last = self.sizes[worker], worker + 1
            while last < len(self.sizes) and self.sizes[last] == size:
                last += 1
            end = sample + size * (last - worker)
            yield worker, Batches(self.inputs[sample:end], self.targets[sample:end], self.sizes[worker:last])
            worker, sample = last, end

    def every(self, stride: int, first: int) -> "Batches":
        """Return batches first, first + stride, …; of workers that got `stride` each, that of each one's local step."""
        inputs = torch.cat(self.inputs.split(self.sizes)[first::stride])
        targets = torch.cat(self.targets.split(self.sizes)[first::stride])
        return Batches(inputs, targets, self.sizes[first::stride])
