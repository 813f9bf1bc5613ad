"""A model to copy: put your own file beside this one, with its own name. Nothing else needs to change.

Source: (authors, title, venue, year; the numbers of parameters and what differs from it).
"""

import math

import torch.nn.functional as F
from torch import Tensor, nn

from experiments.models import Architecture


class Template(Architecture, name="template"):
    """Two hidden layers with ReLU, log-softmax."""

    def __init__(self, input_shape: tuple[int, ...], num_outputs: int, *, hidden: int = 32) -> None:
        # input_shape: of one sample, without the batch. What follows the star is for --model-args, e.g. hidden:64.
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Flatten(), nn.Linear(math.prod(input_shape), hidden), nn.ReLU()),
            *(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, num_outputs)),
        )

    def forward(self, inputs: Tensor) -> Tensor:
        # inputs: (samples, *input_shape) → (samples, num_outputs); the loss nll, the default, expects log-probabilities
        return F.log_softmax(self.layers(inputs), dim=1)
