"""Accuracy on test batches, of one model or of many nodes'."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from experiments.criteria import Criterion
from experiments.model import Model
from experiments.sampling import SampleStream

MANY_PRODUCTS = 2**23  # from where a convolution's preparations cost less than it saves


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

    def accuracy(self, model: Model) -> float:
        """Return the mean score of the samples in the next batches, from 0 to 1."""
        return self._mean_scores([model.predict], model.samples_per_pass())[0]

    def accuracies(
        self,
        model: Model,
        parameters: Tensor | Sequence[Tensor],
        buffers: Mapping[str, Tensor | Sequence[Tensor]] | None = None,
    ) -> list[float]:
        """Return what `accuracy` would be on the same next batches for each of k nodes; the model is left as it was.

        Args:
            model: of the nodes' architecture.
            parameters: (k, d), or k vectors (d,).
            buffers: (k, *shape) by name, or k of each; None: the model's own for all.
        """

        def node(i: int) -> Callable[[Tensor], Tensor]:
            own_buffers = None if buffers is None else {name: rows[i] for name, rows in buffers.items()}

            def predict(inputs: Tensor) -> Tensor:
                model.load(parameters[i], own_buffers)
                return model.predict(inputs)

            return predict

        before = model.state_dict()
        try:
            with PixelwiseLinear():
                return self._mean_scores([node(i) for i in range(len(parameters))], model.samples_per_pass())
        finally:
            model.load_state_dict(before)

    @torch.no_grad()
    def _mean_scores(self, predictors: Sequence[Callable[[Tensor], Tensor]], size: int) -> list[float]:
        """Return each predictor's mean score on the next batches, of which `size` samples are looked at at once."""
        device = self.stream.samples.inputs.device
        right = torch.zeros(len(predictors), dtype=torch.float64, device=device)
        seen = torch.zeros((), dtype=torch.int64, device=device)
        for inputs, targets, counts in (self._augmented if self.stream.augmentation else self._plain)(size):
            for i, predict in enumerate(predictors):
                right[i] += (self.criterion(predict(inputs), targets) * counts).sum()
            seen += counts.sum()
        return (right / seen).tolist()

    def _drawn(self) -> Iterator[Tensor]:
        """Yield the indices of the samples to look at, a pass over the test set or less at a time."""
        batches_per_pass = -(-len(self.stream.samples) // self.batch_size)
        for first in range(0, self.repetitions, batches_per_pass):
            yield self.stream.indices(self.batch_size, min(batches_per_pass, self.repetitions - first))[0]

    def _augmented(self, size: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield inputs, targets and how often each was drawn: once, as no two are augmented alike."""
        for indices in self._drawn():
            for chunk in indices.split(size):
                batch = self.stream.gather(chunk, (len(chunk),))
                yield batch.inputs, batch.targets, torch.ones_like(chunk)

    def _plain(self, size: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield inputs, targets and how often each was drawn: a sample's score does not depend on its batch."""
        samples = self.stream.samples
        counts = torch.zeros(len(samples), dtype=torch.int64, device=samples.inputs.device)
        for indices in self._drawn():
            counts += torch.bincount(indices, minlength=len(samples))
        drawn = counts.nonzero().squeeze(1)
        for first in range(0, len(drawn), size):
            # all of them are a slice, which is not copied
            part = slice(first, first + size) if len(drawn) == len(samples) else drawn[first : first + size]
            yield samples.inputs[part], samples.targets[part], counts[part]


class PixelwiseLinear(TorchFunctionMode):
    """Computes large linear layers on the CPU as convolutions of 1×1 whose pixels are the samples.

    oneDNN then needs half the time of MKL, which leaves AVX-512 unused on processors not made by Intel. Results differ
    by rounding only.
    """

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return (_linear if func is F.linear else func)(*args, **(kwargs or {}))


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Stand for `F.linear`, see `PixelwiseLinear`."""
    suits = not input.is_cuda and input.dtype == torch.float32 and torch.backends.mkldnn.is_available()
    if not suits or weight.dim() != 2 or input.numel() * len(weight) < MANY_PRODUCTS:
        return F.linear(input, weight, bias)
    image = input.reshape(1, 1, -1, input.shape[-1])  # by height, width and channels
    # On a single thread torch leaves 1×1 kernels to oneDNN only if they are dilated, which changes nothing about them
    result = F.conv2d(image.permute(0, 3, 1, 2), weight[..., None, None], bias, dilation=2)
    return result.permute(0, 2, 3, 1).reshape(*input.shape[:-1], -1)
