"""The fully connected network of the ICLR 2021 paper: 784-100-10 with ReLU on MNIST, d = 79,510."""

import math

import torch.nn.functional as F
from torch import Tensor, nn

from experiments.models import Architecture


class SimplesFull(Architecture, name="simples-full"):
    """One hidden layer with ReLU, log-softmax."""

    def __init__(self, input_shape: tuple[int, ...], num_outputs: int, *, hidden: int = 100) -> None:
        super().__init__()
        self.first = nn.Linear(math.prod(input_shape), hidden)
        self.second = nn.Linear(hidden, num_outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        return F.log_softmax(self.second(F.relu(self.first(inputs.flatten(1)), inplace=True)), dim=1)
