"""Streams of samples: one shuffled pass over the data after another."""

import torch
from torch import Tensor

from experiments.batches import Batches
from experiments.datasets import Augmentation, Samples
from tools.seeding import make_generator


class SampleStream:
    """An endless stream: a pass over the data in random order, ending with its partial batch, then another.

    Args:
        samples: the data, on the device where batches are wanted.
        seed: of the run.
        purpose: what the stream is for; streams of different purposes are independent.
        augmentation: random changes of the inputs, from a generator of their own.
    """

    def __init__(self, samples: Samples, seed: int, purpose: str, augmentation: Augmentation | None = None) -> None:
        self.samples = samples
        self.augmentation = augmentation
        self._order_generator = make_generator(seed, purpose, "order")
        self._augmentation_generator = make_generator(seed, purpose, "augmentation")
        self._start_pass()

    def _start_pass(self) -> None:
        self._state_at_start = self._order_generator.get_state()
        self._position = 0
        order = torch.randperm(len(self.samples), generator=self._order_generator)
        self._order = order.to(self.samples.inputs.device)

    def indices(self, batch_size: int, count: int) -> tuple[Tensor, tuple[int, ...]]:
        """Return the indices of the samples in the next `count` batches, one after another, and the batches' sizes."""
        parts, sizes = [], []
        start = self._position
        for _ in range(count):
            if self._position == len(self.samples):
                parts.append(self._order[start:])
                self._start_pass()
                start = 0
            size = min(batch_size, len(self.samples) - self._position)
            self._position += size
            sizes.append(size)
        parts.append(self._order[start : self._position])
        return (parts[0] if len(parts) == 1 else torch.cat(parts)), tuple(sizes)

    def take(self, batch_size: int, count: int) -> Batches:
        """Return the next `count` batches; the last one of a pass may be smaller than the batch size."""
        indices, sizes = self.indices(batch_size, count)
        return self.gather(indices, sizes)

    def gather(self, indices: Tensor, sizes: tuple[int, ...]) -> Batches:
        """Return the samples of these indices as batches of these sizes, augmented."""
        inputs = self.samples.inputs.index_select(0, indices)
        if self.augmentation is not None:
            inputs = self.augmentation(inputs, self._augmentation_generator)
        return Batches(inputs, self.samples.targets.index_select(0, indices), sizes)

    def state_dict(self) -> dict[str, Tensor | int]:
        """Return where the stream is."""
        return {
            "order": self._state_at_start,
            "position": self._position,
            "augmentation": self._augmentation_generator.get_state(),
        }

    def load_state_dict(self, state: dict) -> None:
        """Continue where `state_dict` was called."""
        self._order_generator.set_state(state["order"])
        self._augmentation_generator.set_state(state["augmentation"])
        self._start_pass()
        self._position = state["position"]
