"""Accuracy on test batches."""

from collections.abc import Iterator

import torch
from torch import Tensor

from experiments.criteria import Criterion
from experiments.model import Model
from experiments.sampling import SampleStream


class Evaluator:
    """Measures accuracy on the next batches of a stream of test samples.

    Args:
        stream: of test samples; augmented ones are computed as they are drawn.
        criterion: what counts as right.
        batch_size: samples per batch.
        repetitions: batches per evaluation; None for a whole pass over the test set.
    """

    def __init__(
        self, stream: SampleStream, criterion: Criterion, *, batch_size: int, repetitions: int | None = None
    ) -> None:
        self.stream = stream
        self.criterion = criterion
        self.batch_size = batch_size
        self.repetitions = repetitions or -(-len(stream.samples) // batch_size)

    @torch.no_grad()
    def accuracy(self, model: Model) -> float:
        """Return the mean score of the samples in the next batches, from 0 to 1."""
        return (self._of_augmented if self.stream.augmentation else self._of_plain)(model)

    def _drawn(self) -> Iterator[Tensor]:
        """Yield the indices of the samples to look at, a pass over the test set or less at a time."""
        batches_per_pass = -(-len(self.stream.samples) // self.batch_size)
        for first in range(0, self.repetitions, batches_per_pass):
            yield self.stream.indices(self.batch_size, min(batches_per_pass, self.repetitions - first))[0]

    def _of_augmented(self, model: Model) -> float:
        right, seen = torch.zeros((), dtype=torch.float64, device=model.parameters.device), 0
        for indices in self._drawn():
            for chunk in indices.split(model.samples_per_pass()):
                batch = self.stream.gather(chunk, (len(chunk),))
                right += self.criterion(model.predict(batch.inputs), batch.targets).sum()
            seen += len(indices)
        return float(right) / seen

    def _of_plain(self, model: Model) -> float:
        """Compute each sample once, however often it was drawn: its score does not depend on its batch."""
        samples = self.stream.samples
        counts = torch.zeros(len(samples), dtype=torch.int64, device=model.parameters.device)
        for indices in self._drawn():
            counts += torch.bincount(indices, minlength=len(samples))
        drawn, size = counts.nonzero().squeeze(1), model.samples_per_pass()
        right = torch.zeros((), dtype=torch.float64, device=counts.device)
        for first in range(0, len(drawn), size):
            # all of them are a slice, which is not copied
            part = slice(first, first + size) if len(drawn) == len(samples) else drawn[first : first + size]
            scores = self.criterion(model.predict(samples.inputs[part]), samples.targets[part])
            right += (scores * counts[part]).sum()
        return float(right) / int(counts.sum())
