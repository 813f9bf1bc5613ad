"""The network of PyTorch's MNIST example: conv 32 and 64 of 3×3, 128-10 on top, d = 1,199,882 for MNIST.

Bucketing (Karimireddy, He and Jaggi, ICLR 2022) and ClippedGossip (He, Karimireddy and Jaggi, 2022) are shown on it.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from experiments.models import Architecture, channels_last
from tools.errors import UserError


class MnistCNN(Architecture, name="mnist-cnn"):
    """Two convolutions of 3×3 with ReLU, 2×2 max-pooling, dropout of maps, a hidden layer of 128, dropout, log-softmax.

    Args:
        map_dropout: share of the 64 maps that is dropped.
        dropout: share of the hidden layer that is dropped.
    """

    def __init__(
        self, input_shape: tuple[int, ...], num_outputs: int, *, map_dropout: float = 0.25, dropout: float = 0.5
    ) -> None:
        super().__init__()
        if len(input_shape) != 3 or min(input_shape[1:]) < 6:
            raise UserError(f"mnist-cnn: expected images of at least 6×6, got samples of shape {input_shape}")
        for name, share in (("map-dropout", map_dropout), ("dropout", dropout)):
            if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share < 1:
                raise UserError(f"--model-args: expected {name} of at least 0 and below 1, got {share!r}")
        channels, *sides = input_shape
        height, width = ((side - 4) // 2 for side in sides)
        self.conv1 = nn.Conv2d(channels, 32, 3)
        self.conv2 = nn.Conv2d(32, 64, 3)
        self.first = nn.Linear(64 * height * width, 128)
        self.second = nn.Linear(128, num_outputs)
        self.map_dropout, self.dropout = map_dropout, dropout

    def forward(self, inputs: Tensor) -> Tensor:
        maps = F.relu(self.conv2(F.relu(self.conv1(channels_last(inputs)))))
        maps = F.dropout2d(F.max_pool2d(maps, 2), self.map_dropout, self.training)
        hidden = F.dropout(F.relu(self.first(maps.flatten(1))), self.dropout, self.training)
        return F.log_softmax(self.second(hidden), dim=1)
