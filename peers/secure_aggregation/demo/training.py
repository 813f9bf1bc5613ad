"""What a peer of the demo does between aggregations: it trains a network on its own samples."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from experiments.criteria import criteria
from experiments.datasets import Samples, datasets
from experiments.evaluation import Evaluator
from experiments.losses import Loss
from experiments.model import Model
from experiments.sampling import SampleStream

BATCH_SIZE = 8
LEARNING_RATE = 0.1


class Training:
    """A network, and samples of one's own.

    Args:
        dataset: by name; it says which model, loss and criterion suit it.
        train, test: inputs and targets.
        name: of the peer, which decides the order of samples; at the start all peers have the same parameters.
    """

    def __init__(
        self,
        *,
        dataset: str,
        num_outputs: int,
        train: Sequence[np.ndarray],
        test: Sequence[np.ndarray],
        name: str,
        seed: int,
        device: str,
    ) -> None:
        cls = datasets[dataset]
        own, others = (Samples(*map(torch.from_numpy, arrays)).to(device) for arrays in (train, test))
        shapes = {"input_shape": tuple(own.inputs.shape[1:]), "num_outputs": num_outputs}
        self._model = Model(cls.model, shapes, device=device, seed=seed)
        self._loss = Loss(cls.loss)
        self._stream = SampleStream(own, seed, f"training of {name}")
        test_stream = SampleStream(others, seed, "testing")
        self._evaluator = Evaluator(test_stream, criteria[cls.criterion](), batch_size=len(others))

    def epoch(self) -> None:
        """Train on each sample once."""
        self._model.module.train()
        parameters = list(self._model.module.parameters())
        for _ in range(math.ceil(len(self._stream.samples) / BATCH_SIZE)):
            batch = self._stream.take(BATCH_SIZE, 1)
            loss = self._loss(self._model.module(batch.inputs), batch.targets)
            gradients = torch.autograd.grad(loss, parameters)
            with torch.no_grad():  # torch.optim would take as long to import as the rest of torch
                for parameter, gradient in zip(parameters, gradients, strict=True):
                    parameter.sub_(gradient, alpha=LEARNING_RATE)

    def accuracy(self) -> float:
        """Return the share of test samples that the network gets right."""
        return self._evaluator.accuracy(self._model)

    def state(self) -> dict[str, Tensor]:
        """Return the network's state dictionary."""
        return self._model.module.state_dict()

    def load(self, state: dict[str, Tensor]) -> None:
        """Go on with another state."""
        self._model.module.load_state_dict(state)
