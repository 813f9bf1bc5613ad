"""The convolutional network of the ICLR 2021 code for MNIST: conv 20 and 50 of 5×5, 800-500-10, d = 431,080."""

import torch.nn.functional as F
from torch import Tensor, nn

from experiments.models import Architecture, channels_last
from tools.errors import UserError


class SimplesConv(Architecture, name="simples-conv"):
    """Two convolutions of 5×5, each with ReLU and 2×2 max-pooling, one hidden layer of 500, log-softmax."""

    def __init__(self, input_shape: tuple[int, ...], num_outputs: int) -> None:
        super().__init__()
        if len(input_shape) != 3 or min(input_shape[1:]) < 16:
            raise UserError(f"simples-conv: expected images of at least 16×16, got samples of shape {input_shape}")
        channels, *sides = input_shape
        height, width = (((side - 4) // 2 - 4) // 2 for side in sides)
        self.conv1 = nn.Conv2d(channels, 20, 5)
        self.conv2 = nn.Conv2d(20, 50, 5)
        self.first = nn.Linear(50 * height * width, 500)
        self.second = nn.Linear(500, num_outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        maps = F.max_pool2d(F.relu(self.conv1(channels_last(inputs))), 2)
        maps = F.max_pool2d(F.relu(self.conv2(maps)), 2)
        return F.log_softmax(self.second(F.relu(self.first(maps.flatten(1)))), dim=1)
