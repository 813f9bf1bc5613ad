"""Accuracy on test batches."""

import torch

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
        indices, _ = self.stream.indices(self.batch_size, self.repetitions)
        size, right = model.samples_per_pass(), torch.zeros((), dtype=torch.float64, device=indices.device)
        if self.stream.augmentation is not None:
            for chunk in indices.split(size):
                batch = self.stream.gather(chunk, (len(chunk),))
                right += self.criterion(model.predict(batch.inputs), batch.targets).sum()
            return float(right) / len(indices)
        # A sample's score does not depend on its batch: each is computed once, however often it was drawn.
        drawn, counts = indices.unique(return_counts=True)
        samples = self.stream.samples
        whole = len(drawn) == len(samples)
        for chunk, weights in zip(drawn.split(size), counts.split(size), strict=True):
            first = int(chunk[0]) if whole else 0
            part = slice(first, first + len(chunk)) if whole else chunk  # a slice is not copied
            scores = self.criterion(model.predict(samples.inputs[part]), samples.targets[part])
            right += (scores * weights).sum()
        return float(right) / len(indices)
